/* allocate_page.c - see allocate_page.h. No outside references; light and dark follow the
 * reader, by the style sheet of the evaluation report. */
#include "allocate_page.h"

#include "calib/eval/ladder.h"
#include "chart.h"
#include "page.h"
#include "report.h"
#include "report_map.h"

#include "formats/json.h"
#include "formats/model/tensor_name.h"
#include "libquant/base/path.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define N_POINTS 30
#define N_MARKS  24

struct mark {
    double bits, loss;
    const char *name; /* NULL: a point of the frontier */
};

static double bits_of(const struct loss_tensor *t, const struct loss_option *o)
{
    return 8.0 * (double)o->n_bytes / ((double)t->tensor->n_rows * (double)t->tensor->ne[0]);
}

/* --- the map --- */

/* Two bits are nearly the ground of the page, nine and more the full colour. */
static double shade_of(double bits)
{
    return 0.08 + 0.92 * (fmin(fmax(bits, 2), 9) - 2) / 7;
}

static void fill_cell(struct map_cell *c, const struct loss_tensor *t, const struct loss_option *o)
{
    double bits = bits_of(t, o);
    c->shade = shade_of(bits);
    c->text = qtype_name(o->type);
    snprintf(c->title, sizeof c->title, "%s: %s, %.2f bits, %" PRIu64 " bytes, expected loss %.3g",
             t->tensor->name, qtype_name(o->type), bits, o->n_bytes, o->loss);
}

static int map(const struct allocator *a, const struct allocation *r, FILE *out, struct err *e)
{
    static const char *const bits[] = {"2", "3", "4", "5", "6", "7", "8", "≥9"};
    const struct loss_table *t = allocator_table(a);
    const char **kinds = calloc(t->n_tensors + 1, sizeof *kinds), *kind;
    struct map_cell *cells = calloc(t->n_tensors + 1, sizeof *cells);
    struct map_step steps[8];
    struct map m = {.label = "Type of each tensor",
                    .rows = kinds,
                    .n_columns = 1,
                    .cells = cells,
                    .n_cells = t->n_tensors,
                    .legend = "bits per weight",
                    .steps = steps,
                    .n_steps = 8};
    for (size_t i = 0; i < 8; i++)
        steps[i] = (struct map_step){shade_of(2.0 + (double)i), false, bits[i]};
    for (size_t i = 0; kinds && cells && i < t->n_tensors; i++) {
        cells[i].column = tensor_layer(t->tensors[i].tensor->name, &kind);
        cells[i].row = report_map_row(kinds, &m.n_rows, kind);
        m.n_columns = cells[i].column >= (int64_t)m.n_columns ? (size_t)cells[i].column + 1 : m.n_columns;
        fill_cell(&cells[i], &t->tensors[i], &t->tensors[i].options[r->choice[i]]);
    }
    bool ok = kinds && cells;
    if (ok)
        report_map(&m, out);
    free(kinds);
    free(cells);
    return ok ? 0 : err_set(e, ERR_NOMEM, "out of memory for the page");
}

/* --- the frontier --- */

static int frontier(const struct allocator *a, struct mark *points, size_t *n, struct err *e)
{
    double low = (double)allocator_min_bytes(a) + 64, high = (double)allocator_max_bytes(a);
    high = fmin(high, fmax((double)allocator_budget_of_bits(a, 9), low));
    int rc = 0;
    *n = 0;
    for (int i = 0; rc == 0 && i < N_POINTS; i++) {
        struct allocation r = {0};
        double budget = low * pow(high / low, (double)i / (N_POINTS - 1));
        rc = allocator_solve(a, (uint64_t)budget, &r, e);
        if (rc == 0 && r.loss > 0)
            points[(*n)++] = (struct mark){r.bits_per_weight, r.loss, NULL};
        allocation_release(&r);
    }
    return rc;
}

static int standard_mixes(const struct allocator *a, struct mark *marks, size_t *n, struct err *e)
{
    int rc = 0;
    *n = 0;
    for (size_t i = 0; rc == 0 && i < ladder_n_default_types && *n < N_MARKS; i++) {
        const struct mix *mix = mix_find(ladder_default_types[i]); /* from many bits to few */
        struct mix_price p = {0};
        if (mix)
            rc = allocator_price_mix(a, mix, &p, e);
        if (p.known && p.loss > 0)
            marks[(*n)++] = (struct mark){p.bits_per_weight, p.loss, mix->name};
    }
    return rc;
}

/* What the chart shows: the frontier, then the standard mixes. */
struct marks {
    struct mark all[N_POINTS + N_MARKS + 1];
    size_t n, n_mixes;
};

static void fit_axes(struct axis *x, struct axis *y, const struct marks *m, const struct allocation *r)
{
    double low = INFINITY, high = 0, x0 = r->bits_per_weight, x1 = x0;
    for (size_t i = 0; i < m->n + m->n_mixes; i++) {
        low = fmin(low, fmax(m->all[i].loss, 1e-12));
        high = fmax(high, m->all[i].loss);
        x0 = fmin(x0, m->all[i].bits);
        x1 = fmax(x1, m->all[i].bits);
    }
    axis_fit_decades(y, low, high);
    x->low = floor(x0 * 2 - 0.2) / 2;
    x->high = fmax(ceil(x1 * 2 + 0.2) / 2, x->low + 0.5);
}

static void put_axes(const struct axis *x, const struct axis *y, double bottom, FILE *out)
{
    axis_decades_up(y, x->from, x->to, out);
    fprintf(out, "<line class=\"axis\" x1=\"%g\" x2=\"%g\" y1=\"%g\" y2=\"%g\"/>\n", x->from, x->to, bottom,
            bottom);
    axis_ticks(x, bottom, out);
    fprintf(
        out,
        "<text x=\"%g\" y=\"%g\" text-anchor=\"end\">bits per weight</text><text x=\"%g\" y=\"%g\">expected "
        "loss, nats per token</text>\n",
        x->to, bottom + 42, x->from, CHART_TOP + 4);
}

/* The frontier, the mixes as rings, the plan as a dot; names stand clear of all three. */
static void frontier_chart(const struct allocation *r, const struct marks *m, double width, FILE *out)
{
    const size_t n = m->n_mixes + 1;
    struct chart_point all[N_MARKS + 1] = {{.name = NULL}};
    for (size_t i = 0; i < m->n_mixes; i++)
        all[i].name = m->all[m->n + i].name;
    all[m->n_mixes].name = "this plan";
    const double height = fmax(430, CHART_LINE * (double)n + 110), bottom = height - 52;
    struct axis x = {.from = 60, .to = width - fmin(chart_names_width(all, n) + 24, width / 3)};
    struct axis y = {.from = bottom, .to = CHART_TOP + CHART_HEAD};
    fit_axes(&x, &y, m, r);
    for (size_t i = 0; i < n; i++) {
        all[i].x = axis_place(&x, i < m->n_mixes ? m->all[m->n + i].bits : r->bits_per_weight);
        all[i].y = axis_place(&y, i < m->n_mixes ? m->all[m->n + i].loss : r->loss);
    }
    const struct chart_box field = {x.from, y.to, x.to, bottom};
    (void)chart_place_names(all, n, &field, x.to + 12, false);
    fprintf(out,
            "<svg viewBox=\"0 0 %g %g\" role=\"img\" aria-label=\"Expected loss against bits per weight\">\n",
            width, height);
    put_axes(&x, &y, bottom, out);
    fputs("<polyline class=\"curve\" points=\"", out);
    for (size_t i = 0; i < m->n; i++)
        fprintf(out, "%.1f,%.1f ", axis_place(&x, m->all[i].bits), axis_place(&y, m->all[i].loss));
    fputs("\"/>\n", out);
    chart_put_leaders(all, n, out);
    for (size_t i = 0; i < n; i++)
        fprintf(out,
                "<circle class=\"%s\" cx=\"%.1f\" cy=\"%.1f\" r=\"%g\"><title>%s: expected loss %.3g at %.3f "
                "bits</title></circle>\n",
                i < m->n_mixes ? "mid" : "dot", all[i].x, all[i].y, i < m->n_mixes ? 4 : 5.5, all[i].name,
                i < m->n_mixes ? m->all[m->n + i].loss : r->loss,
                i < m->n_mixes ? m->all[m->n + i].bits : r->bits_per_weight);
    chart_put_names(all, n, width, out);
    fputs("</svg>\n", out);
}

/* For screens, and for phones. */
static int frontiers(const struct allocator *a, const struct allocation *r, FILE *out, struct err *e)
{
    struct marks m = {.n = 0};
    int rc = frontier(a, m.all, &m.n, e);
    if (rc != 0 || m.n == 0)
        return rc;
    rc = standard_mixes(a, m.all + m.n, &m.n_mixes, e);
    if (rc != 0)
        return rc;
    fputs("<div class=\"large\">", out);
    frontier_chart(r, &m, CHART_WIDE, out);
    fputs("</div><div class=\"small\">", out);
    frontier_chart(r, &m, CHART_NARROW, out);
    fputs("</div>", out);
    return 0;
}

/* --- the page --- */

static void put_texts(const struct allocate_source *source, FILE *out)
{
    for (size_t i = 0; source->corpus && i < source->corpus->n_texts; i++) {
        fputs(i ? ", " : " on ", out);
        report_put(out, path_short(source->corpus->texts[i].path));
    }
}

static void head(const struct allocator *a, const struct allocation *r, const struct allocate_source *source,
                 FILE *out)
{
    char name[200] = "";
    struct gguf_string s = {0};
    const struct loss_table *t = allocator_table(a);
    if (gguf_meta_get_string(model_meta(t->model), "general.name", &s))
        snprintf(name, sizeof name, "%.*s", (int)(s.len < 199 ? s.len : 199), s.data);
    if (!name[0])
        snprintf(name, sizeof name, "%s", model_arch_name(t->model));
    page_open(out);
    report_put(out, name);
    put_texts(source, out);
    fprintf(out, ", %.3f bits per weight", r->bits_per_weight);
    page_main(out, "bit allocation");
    report_put(out, name);
    fputs("</h1>\n<p class=\"lead\">A type for every tensor, so that the expected loss is least in ", out);
    page_size(out, r->budget_bytes);
    fputs(".</p>\n<p class=\"soft\">", out);
    page_size(out, r->n_bytes);
    fprintf(out,
            " are used, %.3f bits per weight. Expected loss %.3g nats per token; no choice of these types "
            "has less than %.3g. Losses measured",
            r->bits_per_weight, r->loss, r->lower_bound);
    put_texts(source, out);
    fprintf(out, ", %zu tokens in %zu windows of %zu.</p>\n", t->n_scored, t->n_windows, t->ctx);
}

static void comparison_row(const char *name, uint64_t n_bytes, double bits, struct estimate kld, FILE *out)
{
    fprintf(out, "<tr><td>%s</td><td>", name);
    page_size(out, n_bytes);
    fprintf(out, "</td><td>%.3f</td>", bits);
    page_estimate(out, 6, kld.value, kld.error, false);
    fputs("</tr>\n", out);
}

/* Plan and mix side by side. */
static void comparison(const struct allocation *r, const struct confirmation *c, FILE *out)
{
    page_table(out, "Beside the standard mix", "Types|Size|Bits per weight|Mean KLD", false);
    comparison_row("this plan", r->n_bytes, r->bits_per_weight, c->plan_kld, out);
    comparison_row(c->mix->name, c->mix_bytes, c->mix_bits, c->mix_kld, out);
    page_table_end(out);
    fprintf(out,
            "<p class=\"note\">Divergence from the unquantized model on %zu tokens%s, in nats per token. The "
            "difference is %.3g",
            c->n_tokens, c->held_out ? " that the losses were not measured on" : "", c->difference.value);
    if (!isnan(c->difference.error))
        fprintf(out, "&#8239;±&#8239;%.1g", c->difference.error);
    fprintf(out, "%s.</p>\n",
            !c->plan_wins   ? ": the plan does not beat the mix"
            : c->is_certain ? ""
                            : ", less than the measurement is certain of");
}

static void fast_probes(const struct loss_table *t, FILE *out)
{
    page_item(out, "Probes", t->probe == LOSS_PROBE_FAST ? "fast" : "full");
    if (t->n_depths) {
        page_item_open(out, "Divergence for each unit of local change");
        for (size_t i = 0; i < t->n_depths; i++)
            if (t->depths[i].local > 0 && isfinite(t->depths[i].kld))
                fprintf(out, "%slayer %u: %.3g", i ? ", " : "", t->depths[i].layer,
                        t->depths[i].kld / t->depths[i].local);
        fputs("</dd>\n", out);
    }
    if (t->n_massive)
        page_item_open(out, "Layers of massive activations");
    for (size_t i = 0; i < t->n_massive; i++)
        fprintf(out, "%s%u%s", i ? ", " : "", t->massive[i], i + 1 == t->n_massive ? "</dd>\n" : "");
}

static void foot(const struct loss_table *t, const struct allocate_source *source,
                 const struct page_about *about, FILE *out)
{
    page_foot(out);
    if (source->path)
        page_item(out, "Model", source->path);
    page_hash(out, "Weights", t->weights_sha256);
    for (size_t i = 0; source->corpus && i < source->corpus->n_texts; i++) {
        const struct corpus_text *x = &source->corpus->texts[i];
        page_item_open(out, "Text");
        report_put(out, x->path);
        fprintf(out, ", %" PRIu64 " bytes, %zu tokens<br><code>%s</code></dd>\n", x->n_bytes,
                x->end - x->begin, x->sha256);
    }
    page_hash(out, "Token ids", t->ids_sha256);
    page_item_open(out, "Losses");
    fprintf(out, "measured on %zu tokens in %zu windows of %zu</dd>\n", t->n_scored, t->n_windows, t->ctx);
    fast_probes(t, out);
    page_item(out, "Activations",
              t->activations == ACTIVATIONS_Q8 ? "rounded as the llama.cpp CPU runtime rounds them"
                                               : "32-bit floats");
    if (t->imatrix_sha256[0])
        page_hash(out, "Importance matrix", t->imatrix_sha256);
    else
        page_item(out, "Importance matrix", "none");
    page_close(out, about);
}

/* --- tensors, as a table and as data --- */

/* What was decided, for who prints it. */
struct choices {
    const struct allocator *a;
    const struct allocation *r;
};

static const struct loss_option *chosen(const struct choices *c, size_t i)
{
    return &allocator_table(c->a)->tensors[i].options[c->r->choice[i]];
}

static void tensors_table(const struct choices *c, FILE *out)
{
    const struct loss_table *t = allocator_table(c->a);
    fputs("<h2>Tensor by tensor</h2>\n<details><summary>All of them</summary>", out);
    page_table(out, NULL, "Tensor|Type|Bits per weight|Bytes|Expected loss", false);
    for (size_t i = 0; i < t->n_tensors; i++) {
        const struct loss_option *o = chosen(c, i);
        fputs("<tr><td>", out);
        report_put(out, t->tensors[i].tensor->name);
        fprintf(out, "</td><td>%s</td><td>%.2f</td><td>%" PRIu64 "</td><td>%.3g</td></tr>\n",
                qtype_name(o->type), bits_of(&t->tensors[i], o), o->n_bytes, o->loss);
    }
    page_table_end(out);
    fputs("</details>\n", out);
}

static void put_csv(const void *ctx, FILE *out)
{
    const struct choices *c = ctx;
    const struct loss_table *t = allocator_table(c->a);
    fputs("tensor,type,bits_per_weight,n_bytes,loss\n", out);
    for (size_t i = 0; i < t->n_tensors; i++) {
        page_csv_text(out, t->tensors[i].tensor->name);
        fprintf(out, ",%s,%.6f,%" PRIu64 ",%.9g\n", qtype_name(chosen(c, i)->type),
                bits_of(&t->tensors[i], chosen(c, i)), chosen(c, i)->n_bytes, chosen(c, i)->loss);
    }
}

static void put_json(const void *ctx, FILE *out)
{
    const struct choices *c = ctx;
    const struct loss_table *t = allocator_table(c->a);
    struct json_writer w;
    jw_begin(&w, out);
    jw_object(&w);
    jw_key(&w, "n_bytes"), jw_uint(&w, c->r->n_bytes);
    jw_key(&w, "bits_per_weight"), jw_double(&w, c->r->bits_per_weight);
    jw_key(&w, "budget_bytes"), jw_uint(&w, c->r->budget_bytes);
    jw_key(&w, "expected_loss"), jw_double(&w, c->r->loss);
    jw_key(&w, "tensors"), jw_array(&w);
    for (size_t i = 0; i < t->n_tensors; i++) {
        jw_object(&w);
        jw_key(&w, "name"), jw_string(&w, t->tensors[i].tensor->name);
        jw_key(&w, "type"), jw_string(&w, qtype_name(chosen(c, i)->type));
        jw_key(&w, "n_bytes"), jw_uint(&w, chosen(c, i)->n_bytes);
        jw_key(&w, "loss"), jw_double(&w, chosen(c, i)->loss);
        jw_end(&w);
    }
    jw_end(&w);
    jw_end(&w);
}

static int tensors(const struct choices *c, FILE *out, struct err *e)
{
    tensors_table(c, out);
    page_data(out);
    int rc = page_link(out, "plan.csv", "text/csv", put_csv, c);
    if (rc == 0)
        rc = page_link(out, "plan.json", "application/json", put_json, c);
    page_data_end(out);
    return rc == 0 ? 0 : err_set(e, rc, "out of memory for the page");
}

int allocate_page(const struct allocator *a, const struct allocation *r, const struct confirmation *c,
                  const struct allocate_source *source, const struct page_about *about, FILE *out,
                  struct err *e)
{
    head(a, r, source, out);
    fputs("<h2>Where the bits go</h2>\n<figure>\n", out);
    int rc = map(a, r, out, e);
    fputs("<figcaption>Layers from left to right, kinds of tensors from top to bottom; the stronger the "
          "colour, the more bits for a weight. Tensors outside of layers stand in the first "
          "column.</figcaption>\n</figure>\n"
          "<h2>Loss against size</h2>\n<figure>\n",
          out);
    if (rc == 0)
        rc = frontiers(a, r, out, e);
    fputs(
        "<figcaption>The least expected loss for each size (line), this plan (dot), and what the standard "
        "mixes would cost by the same measured losses (rings). Down and to the left is better.</figcaption>\n"
        "</figure>\n",
        out);
    if (c && c->mix)
        comparison(r, c, out);
    if (rc == 0)
        rc = tensors(&(struct choices){a, r}, out, e);
    foot(allocator_table(a), source, about, out);
    return rc;
}
