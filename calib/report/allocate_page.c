/* allocate_page.c - see allocate_page.h. No outside references; light and dark follow the
 * reader, by the style sheet of the evaluation report. */
#include "allocate_page.h"

#include "calib/eval/ladder.h"
#include "page.h"
#include "report.h"
#include "report_map.h"

#include "formats/json.h"
#include "formats/model/tensor_name.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define WIDE     960.0 /* of charts; NARROW: on phones */
#define NARROW   400.0
#define RIGHT    30.0
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

struct axes {
    double left, right, top, bottom, x0, x1, y0, y1; /* y in decades */
};

static double at_x(const struct axes *a, double bits)
{
    return a->left + (bits - a->x0) / (a->x1 - a->x0) * (a->right - a->left);
}

static double at_y(const struct axes *a, double loss)
{
    double t = (log10(fmax(loss, 1e-12)) - a->y0) / (a->y1 - a->y0);
    return a->bottom - fmin(fmax(t, 0), 1) * (a->bottom - a->top);
}

static void fit_axes(struct axes *a, const struct mark *m, size_t n)
{
    double low = INFINITY, high = 0, x0 = INFINITY, x1 = 0;
    for (size_t i = 0; i < n; i++) {
        low = fmin(low, m[i].loss);
        high = fmax(high, m[i].loss);
        x0 = fmin(x0, m[i].bits);
        x1 = fmax(x1, m[i].bits);
    }
    a->y0 = floor(log10(fmax(low, 1e-12)));
    a->y1 = fmax(ceil(log10(fmax(high, 1e-12))), a->y0 + 1);
    a->x0 = floor(x0 * 2 - 0.2) / 2;
    a->x1 = fmax(ceil(x1 * 2 + 0.2) / 2, a->x0 + 0.5);
}

static void grid(const struct axes *a, FILE *out)
{
    for (double d = a->y0; d <= a->y1; d++) {
        fprintf(out,
                "<line class=\"grid\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" y2=\"%.1f\"/><text x=\"%.1f\" "
                "y=\"%.1f\" text-anchor=\"end\">",
                a->left, a->right, at_y(a, pow(10, d)), at_y(a, pow(10, d)), a->left - 8,
                at_y(a, pow(10, d)) + 4);
        report_decade(out, pow(10, d));
        fputs("</text>\n", out);
    }
    for (double b = ceil(a->x0); b <= a->x1; b++)
        fprintf(out,
                "<line class=\"axis\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%g\" y2=\"%g\"/><text x=\"%.1f\" y=\"%g\" "
                "text-anchor=\"middle\">%g</text>\n",
                at_x(a, b), at_x(a, b), a->bottom, a->bottom + 5, at_x(a, b), a->bottom + 20, b);
    fprintf(out,
            "<line class=\"axis\" x1=\"%g\" x2=\"%g\" y1=\"%g\" y2=\"%g\"/><text x=\"%g\" y=\"%g\" "
            "text-anchor=\"end\">bits per weight</text><text x=\"%g\" y=\"%g\">expected loss, nats per "
            "token</text>\n",
            a->left, a->right, a->bottom, a->bottom, a->right, a->bottom + 40, a->left + 4, a->top + 12);
}

/* Rings with names; a name moves up until it meets no other. */
static void mix_marks(const struct axes *a, const struct mark *m, size_t n, FILE *out)
{
    double tx[N_MARKS], ty[N_MARKS];
    for (size_t i = 0; i < n && i < N_MARKS; i++) {
        double x = at_x(a, m[i].bits), y = at_y(a, m[i].loss);
        tx[i] = x + 8;
        ty[i] = y - 5;
        for (size_t j = 0; j < i; j++)
            if (fabs(tx[j] - tx[i]) < 52 && fabs(ty[j] - ty[i]) < 13) {
                ty[i] = ty[j] - 13;
                j = (size_t)-1; /* from the start again: it may meet another now */
            }
        if (ty[i] < y - 20)
            fprintf(out, "<line class=\"grid\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" y2=\"%.1f\"/>", x, tx[i],
                    y - 4, ty[i] + 2);
        fprintf(out,
                "<circle class=\"mid\" cx=\"%.1f\" cy=\"%.1f\" r=\"4\"><title>%s: %.3g at %.3f bits</title>"
                "</circle><text x=\"%.1f\" y=\"%.1f\">%s</text>\n",
                x, y, m[i].name, m[i].loss, m[i].bits, tx[i], ty[i], m[i].name);
    }
}

/* What the chart shows: the frontier, then the standard mixes. */
struct marks {
    struct mark all[N_POINTS + N_MARKS + 1];
    size_t n, n_mixes;
};

static void frontier_chart(const struct allocation *r, const struct marks *m, double width, FILE *out)
{
    struct axes x = {.left = 60, .right = width - RIGHT, .top = 16, .bottom = 360};
    fit_axes(&x, m->all, m->n + m->n_mixes);
    fprintf(out,
            "<svg viewBox=\"0 0 %g 412\" role=\"img\" aria-label=\"Expected loss against bits per "
            "weight\">\n",
            width);
    grid(&x, out);
    fputs("<polyline class=\"curve\" points=\"", out);
    for (size_t i = 0; i < m->n; i++)
        fprintf(out, "%.1f,%.1f ", at_x(&x, m->all[i].bits), at_y(&x, m->all[i].loss));
    fputs("\"/>\n", out);
    mix_marks(&x, m->all + m->n, m->n_mixes, out);
    if (r->loss > 0 && r->bits_per_weight <= x.x1)
        fprintf(out,
                "<circle class=\"dot\" cx=\"%.1f\" cy=\"%.1f\" r=\"5.5\"><title>this plan: %.3g at %.3f "
                "bits</title></circle>\n",
                at_x(&x, r->bits_per_weight), at_y(&x, r->loss), r->loss, r->bits_per_weight);
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
    frontier_chart(r, &m, WIDE, out);
    fputs("</div><div class=\"small\">", out);
    frontier_chart(r, &m, NARROW, out);
    fputs("</div>", out);
    return 0;
}

/* --- the page --- */

static void item(FILE *out, const char *term, const char *text)
{
    fprintf(out, "<dt>%s</dt><dd><code>", term);
    report_put(out, text);
    fputs("</code></dd>\n", out);
}

static void head(const struct allocator *a, const struct allocation *r, FILE *out)
{
    char name[200] = "";
    struct gguf_string s = {0};
    const struct model *m = allocator_table(a)->model;
    if (gguf_meta_get_string(model_meta(m), "general.name", &s))
        snprintf(name, sizeof name, "%.*s", (int)(s.len < 199 ? s.len : 199), s.data);
    fputs("<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
          "<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n<title>",
          out);
    report_put(out, name[0] ? name : model_arch_name(m));
    fprintf(out, " – bit allocation</title>\n<style>\n%s</style>\n</head>\n<body>\n<main>\n<h1>",
            report_style);
    report_put(out, name[0] ? name : model_arch_name(m));
    fprintf(out,
            "</h1>\n<p class=\"lead\">A type for every tensor, so that the expected loss is least in %" PRIu64
            " bytes.</p>\n<p class=\"soft\">%" PRIu64
            " bytes are used, %.3f bits per weight. Expected loss %.3g "
            "nats per token; no choice of these types has less than %.3g.</p>\n",
            r->budget_bytes, r->n_bytes, r->bits_per_weight, r->loss, r->lower_bound);
}

/* Plan and mix side by side. */
static void comparison(const struct allocation *r, const struct confirmation *c, FILE *out)
{
    fputs("<h2>Beside the standard mix</h2>\n<table><thead><tr><th>types</th><th class=\"n\">bytes</th><th "
          "class=\"n\">bits per weight</th><th class=\"n\">mean KLD</th></tr></thead><tbody>\n",
          out);
    fprintf(out,
            "<tr><td>this plan</td><td class=\"n\">%" PRIu64 "</td><td class=\"n\">%.3f</td><td "
            "class=\"n\">%.4g ± %.1g</td></tr>\n",
            r->n_bytes, r->bits_per_weight, c->plan_kld.value, c->plan_kld.error);
    fprintf(out,
            "<tr><td>%s</td><td class=\"n\">%" PRIu64 "</td><td class=\"n\">%.3f</td><td class=\"n\">%.4g ± "
            "%.1g</td></tr>\n</tbody></table>\n",
            c->mix->name, c->mix_bytes, c->mix_bits, c->mix_kld.value, c->mix_kld.error);
    fprintf(out,
            "<p class=\"soft\">Divergence from the unquantized model on %zu tokens%s, in nats per token. The "
            "difference is %.3g ± %.1g%s.</p>\n",
            c->n_tokens, c->held_out ? " that the losses were not measured on" : "", c->difference.value,
            c->difference.error,
            !c->plan_wins   ? ": the plan does not beat the mix"
            : c->is_certain ? ""
                            : ", less than the measurement is certain of");
}

static void fast_probes(const struct loss_table *t, FILE *out)
{
    fprintf(out, "<dt>Probes</dt><dd>%s</dd>\n", t->probe == LOSS_PROBE_FAST ? "fast" : "full");
    if (t->n_depths) {
        fputs("<dt>Divergence for each unit of local change</dt><dd>", out);
        for (size_t i = 0; i < t->n_depths; i++)
            if (t->depths[i].local > 0 && isfinite(t->depths[i].kld))
                fprintf(out, "%slayer %u: %.3g", i ? ", " : "", t->depths[i].layer,
                        t->depths[i].kld / t->depths[i].local);
        fputs("</dd>\n", out);
    }
    for (size_t i = 0; i < t->n_massive; i++)
        fprintf(out, "%s%u%s", i ? ", " : "<dt>Layers of massive activations</dt><dd>", t->massive[i],
                i + 1 == t->n_massive ? "</dd>\n" : "");
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
    fputs("<h2>Tensor by tensor</h2>\n<details><summary>All of them</summary><div "
          "class=\"scroll\"><table>\n<thead>"
          "<tr><th>Tensor</th><th>Type</th><th>Bits per weight</th><th>Bytes</th><th>Expected loss</th></tr>"
          "</thead>\n<tbody>\n",
          out);
    for (size_t i = 0; i < t->n_tensors; i++) {
        const struct loss_option *o = chosen(c, i);
        fputs("<tr><td>", out);
        report_put(out, t->tensors[i].tensor->name);
        fprintf(out, "</td><td>%s</td><td>%.2f</td><td>%" PRIu64 "</td><td>%.3g</td></tr>\n",
                qtype_name(o->type), bits_of(&t->tensors[i], o), o->n_bytes, o->loss);
    }
    fputs("</tbody></table></div></details>\n", out);
}

static void put_csv(const void *ctx, FILE *out)
{
    const struct choices *c = ctx;
    const struct loss_table *t = allocator_table(c->a);
    fputs("tensor,type,bits_per_weight,n_bytes,loss\n", out);
    for (size_t i = 0; i < t->n_tensors; i++)
        fprintf(out, "%s,%s,%.6f,%" PRIu64 ",%.9g\n", t->tensors[i].tensor->name,
                qtype_name(chosen(c, i)->type), bits_of(&t->tensors[i], chosen(c, i)), chosen(c, i)->n_bytes,
                chosen(c, i)->loss);
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
    fputs("<p class=\"soft noprint\">The data: ", out);
    int rc = page_link(out, "plan.csv", "text/csv", put_csv, c);
    if (rc == 0)
        rc = page_link(out, "plan.json", "application/json", put_json, c);
    fputs("</p>\n", out);
    return rc == 0 ? 0 : err_set(e, rc, "out of memory for the page");
}

int allocate_page(const struct allocator *a, const struct allocation *r, const struct confirmation *c,
                  const char *version, FILE *out, struct err *e)
{
    const struct loss_table *t = allocator_table(a);
    head(a, r, out);
    fputs("<h2>Where the bits go</h2>\n<figure>\n", out);
    int rc = map(a, r, out, e);
    fputs("<figcaption>Layers from left to right, kinds of tensors from top to bottom; the stronger the "
          "colour, the more bits for a weight. Tensors outside of layers stand in the first "
          "column.</figcaption>\n</figure>\n"
          "<h2>Loss against size</h2>\n<figure>\n",
          out);
    if (rc == 0)
        rc = frontiers(a, r, out, e);
    fputs("<figcaption>The least expected loss for each size (line), this plan (dot), and what the standard "
          "mixes "
          "would cost by the same measured losses (rings). Down and to the left is better.</figcaption>\n"
          "</figure>\n",
          out);
    if (c && c->mix)
        comparison(r, c, out);
    if (rc == 0)
        rc = tensors(&(struct choices){a, r}, out, e);
    fputs("<h2>What it rests on</h2>\n<dl>\n", out);
    fprintf(out, "<dt>Losses</dt><dd>measured on %zu tokens in %zu windows of %zu</dd>\n", t->n_scored,
            t->n_windows, t->ctx);
    fast_probes(t, out);
    item(out, "Token ids", t->ids_sha256);
    item(out, "Weights", t->weights_sha256);
    item(out, "Importance", t->imatrix_sha256[0] ? t->imatrix_sha256 : "none");
    fprintf(out, "<dt>Program</dt><dd>kerf %s</dd>\n</dl>\n", version);
    page_sort_script(out);
    fputs("</main>\n</body>\n</html>\n", out);
    return rc;
}
