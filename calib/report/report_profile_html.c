/* report_profile_html.c - the page's part of report_profile.h. */
#include "report_profile.h"

#include "calib/eval/profile.h"
#include "formats/model/tensor_name.h"
#include "page.h"
#include "report_map.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define N_STEPS 6 /* of the legend */

/* Errors differ by orders of magnitude: shades go with their logarithm. */
struct error_scale {
    double low, high;
};

static void widen(struct error_scale *s, double error)
{
    if (!(error > 0))
        return;
    s->low = s->low > 0 ? fmin(s->low, error) : error;
    s->high = fmax(s->high, error);
}

static struct error_scale scale_of(const struct profile *p)
{
    struct error_scale s = {0, 0};
    for (size_t i = 0; i < p->n_layers; i++)
        widen(&s, p->layers[i].error);
    for (size_t i = 0; i < p->n_tensors; i++)
        widen(&s, p->tensors[i].error);
    return s;
}

static double shade_at(double share)
{
    return 0.06 + 0.94 * fmin(fmax(share, 0), 1);
}

static double shade_of(const struct error_scale *s, double error)
{
    if (!(error > 0))
        return 0;
    return s->high > s->low ? shade_at(log(error / s->low) / log(s->high / s->low)) : 1;
}

/* The layer that gains most, if any gains. */
static const struct profile_layer *largest_gain(const struct profile *p)
{
    const struct profile_layer *most = NULL;
    for (size_t i = 0; i < p->n_layers; i++)
        if (p->layers[i].restored.gain.value > (most ? most->restored.gain.value : 0))
            most = &p->layers[i];
    return most;
}

/* Places of a loss as in the table of figures. */
static int decimals(const struct profile *p)
{
    return p->answer == NET_EMBEDDING ? 7 : p->answer == NET_SCORE ? 5 : 6;
}

static void layer_cells(struct map_cell *cells, const struct profile *p, const struct error_scale *s,
                        size_t gain_row)
{
    const struct profile_layer *largest = largest_gain(p);
    const double most = largest ? largest->restored.gain.value : 0;
    for (size_t i = 0; i < p->n_layers; i++) {
        const struct profile_layer *l = &p->layers[i];
        struct map_cell *error = &cells[2 * i], *gain = error + 1;
        *error = (struct map_cell){.row = 0, .column = (int64_t)i, .shade = shade_of(s, l->error)};
        snprintf(error->title, sizeof error->title, "layer %zu: states that leave it are off by %.3g %%", i,
                 100 * l->error);
        *gain = (struct map_cell){.row = gain_row, .column = (int64_t)i, .warm = true};
        gain->shade = most > 0 && l->restored.gain.value > 0 ? shade_at(l->restored.gain.value / most) : 0;
        int n = snprintf(gain->title, sizeof gain->title, "layer %zu restored: loss %.*f, a gain of %.*f", i,
                         decimals(p), l->restored.loss.value, decimals(p), l->restored.gain.value);
        char *rest = gain->title + n;
        if (!isnan(l->restored.gain.error))
            rest += snprintf(rest, 40, " ± %.*f", decimals(p), l->restored.gain.error);
        snprintf(rest, 40, " (%.1f %% of the loss)",
                 p->loss.value > 0 ? 100 * l->restored.gain.value / p->loss.value : 0);
    }
}

static void tensor_cell(struct map_cell *c, const struct profile_tensor *t, const struct error_scale *s,
                        size_t row)
{
    *c = (struct map_cell){.row = row, .column = t->layer, .shade = shade_of(s, t->error)};
    int n = snprintf(c->title, sizeof c->title, "%.120s, %s: error %.3g %%", t->name,
                     qtype_name((uint32_t)t->type), 100 * t->error);
    if (!isnan(t->own_error))
        snprintf(c->title + n, sizeof c->title - (size_t)n, ", %.3g %% on its own inputs",
                 100 * t->own_error);
}

static void fill_legend(struct map_step *steps, char text[N_STEPS][16], const struct error_scale *s)
{
    for (size_t i = 0; i < N_STEPS; i++) {
        double share = (double)i / (N_STEPS - 1);
        snprintf(text[i], sizeof text[i], "%.2g%%", 100 * s->low * pow(s->high / s->low, share));
        steps[i] = (struct map_step){shade_at(share), false, text[i]};
    }
}

/* First row: states; then kinds; last: what restoring the layer gains. */
static int profile_map(const struct profile *p, FILE *out)
{
    const size_t most = 2 * p->n_layers + p->n_tensors;
    struct map_cell *cells = calloc(most, sizeof *cells);
    const char **rows = calloc(p->n_tensors + 2, sizeof *rows), *kind;
    struct error_scale s = scale_of(p);
    struct map_step steps[N_STEPS];
    char text[N_STEPS][16];
    struct map m = {.label = "Errors of products and states by layer",
                    .rows = rows,
                    .n_columns = p->n_layers,
                    .cells = cells,
                    .legend = "error",
                    .steps = steps,
                    .n_steps = s.high > 0 ? N_STEPS : 0};
    const bool ok = cells && rows;
    if (ok) {
        size_t n = 2 * p->n_layers;
        report_map_row(rows, &m.n_rows, "states");
        for (size_t i = 0; i < p->n_tensors; i++)
            if (tensor_layer(p->tensors[i].name, &kind) >= 0 && !isnan(p->tensors[i].error))
                tensor_cell(&cells[n++], &p->tensors[i], &s, report_map_row(rows, &m.n_rows, kind));
        layer_cells(cells, p, &s, report_map_row(rows, &m.n_rows, "gain"));
        fill_legend(steps, text, &s);
        m.n_cells = n;
        report_map(&m, out);
    }
    free(cells);
    free(rows);
    return ok ? 0 : ERR_NOMEM;
}

/* --- tables --- */

static void percent_cell(FILE *out, double v)
{
    if (isnan(v))
        fputs("<td>–</td>", out);
    else
        fprintf(out, "<td>%.3g</td>", 100 * v);
}

static void restored_cells(FILE *out, const struct profile *p, const struct profile_restored *x)
{
    page_figure(out, decimals(p), x->loss.value);
    page_estimate(out, decimals(p), x->gain.value, x->gain.error, false);
    fprintf(out, "<td>%.1f</td></tr>\n", p->loss.value > 0 ? 100 * x->gain.value / p->loss.value : 0);
}

#define RESTORED_COLUMNS "|Loss left|Gain|% of the loss"

static void kinds_table(const struct profile *p, FILE *out)
{
    page_table(out, NULL, "Restored kind|Error, %|On own inputs, %" RESTORED_COLUMNS, false);
    for (size_t i = 0; i < p->n_kinds; i++) {
        fputs("<tr><td>", out);
        report_put(out, p->kinds[i].name);
        fputs("</td>", out);
        percent_cell(out, p->kinds[i].error);
        percent_cell(out, p->kinds[i].own_error);
        restored_cells(out, p, &p->kinds[i].restored);
    }
    page_table_end(out);
}

static void layers_table(const struct profile *p, FILE *out)
{
    fputs("<details><summary>Layer by layer</summary>", out);
    page_table(out, NULL, "Restored layer|Error of its states, %" RESTORED_COLUMNS, false);
    for (size_t i = 0; i < p->n_layers; i++) {
        fprintf(out, "<tr><td>%zu</td>", i);
        percent_cell(out, p->layers[i].error);
        restored_cells(out, p, &p->layers[i].restored);
    }
    page_table_end(out);
    fputs("</details>\n", out);
}

static int profile_section(const struct report_model *c, FILE *out)
{
    static const char *const losses[] = {[NET_TOKENS] = "KL divergence",
                                         [NET_EMBEDDING] = "cosine distance",
                                         [NET_SCORE] = "squared difference of scores"};
    const struct profile *p = c->profile;
    fputs("<h2>Where the loss comes from: ", out);
    report_put(out, report_name(c));
    fputs("</h2>\n<figure>\n", out);
    int rc = profile_map(p, out);
    fprintf(
        out,
        "<figcaption>Relative error of the states behind each layer and of the outputs of its products, on "
        "the reference's inputs; last row, in the other colour: what restoring the layer to the "
        "reference's weights takes from the mean %s of %.*f",
        losses[p->answer], decimals(p), p->loss.value);
    if (!isnan(p->loss.error))
        fprintf(out, "&#8239;±&#8239;%.*f", decimals(p), p->loss.error);
    const struct profile_layer *most = largest_gain(p);
    if (most)
        fprintf(out, "; the full colour is the largest gain, %.*f by layer %td", decimals(p),
                most->restored.gain.value, most - p->layers);
    fprintf(out, ". Measured on %zu of %zu %s, %zu %s.</figcaption>\n</figure>\n", p->n_windows,
            p->n_windows_all, p->answer == NET_TOKENS ? "windows" : "texts", p->n_losses,
            p->answer == NET_TOKENS ? "scored tokens" : "answers");
    kinds_table(p, out);
    layers_table(p, out);
    return rc;
}

int report_profiles_html(const struct report *r, FILE *out)
{
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < r->n_candidates; i++)
        if (r->candidates[i].profile)
            rc = profile_section(&r->candidates[i], out);
    return rc;
}

/* --- data --- */

static void csv_restored(FILE *out, const struct profile_restored *x)
{
    fprintf(out, "%.9g,%.9g,%.9g\n", x->loss.value, x->gain.value, x->gain.error);
}

void report_profiles_csv(const struct report *r, FILE *out)
{
    fputs("candidate,what,name,error,own_error,restored_loss,gain,gain_stderr\n", out);
    for (size_t i = 0; i < r->n_candidates; i++) {
        const struct profile *p = r->candidates[i].profile;
        for (size_t k = 0; p && k < p->n_kinds; k++) {
            page_csv_text(out, report_name(&r->candidates[i]));
            fputs(",kind,", out);
            page_csv_text(out, p->kinds[k].name);
            fprintf(out, ",%.9g,%.9g,", p->kinds[k].error, p->kinds[k].own_error);
            csv_restored(out, &p->kinds[k].restored);
        }
        for (size_t k = 0; p && k < p->n_layers; k++) {
            page_csv_text(out, report_name(&r->candidates[i]));
            fprintf(out, ",layer,%zu,%.9g,,", k, p->layers[k].error);
            csv_restored(out, &p->layers[k].restored);
        }
        for (size_t k = 0; p && k < p->n_tensors; k++) {
            page_csv_text(out, report_name(&r->candidates[i]));
            fputs(",tensor,", out);
            page_csv_text(out, p->tensors[k].name);
            fprintf(out, ",%.9g,%.9g,,,\n", p->tensors[k].error, p->tensors[k].own_error);
        }
    }
}
