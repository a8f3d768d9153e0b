/* report_parts_html.c - the page's part of report_parts.h: loss by text as a strip for each candidate, loss
 * by depth as a line for each, and the figures of both as tables with a column for each part. */
#include "report_parts.h"

#include "chart.h"
#include "page.h"

#include "libquant/base/err.h"
#include "libquant/base/path.h"
#include "libquant/base/printed.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define ROW     26.0
#define N_MARKS 6 /* texts beyond are drawn like the first again; hovering tells which */

/* Which parts: texts, and behind them their weighted mean; or depths. */
struct columns {
    const struct report_part *parts;
    size_t n;
    const struct part_figures *mean; /* or NULL */
};

static const struct part_figures *figures_of(const struct columns *c, size_t part, size_t model)
{
    return part < c->n ? (c->parts[part].models ? &c->parts[part].models[model] : NULL) : &c->mean[model];
}

static void part_name(const struct columns *c, size_t part, FILE *out)
{
    if (part >= c->n)
        fputs("weighted mean", out);
    else if (c->parts[part].text)
        report_put(out, path_short(c->parts[part].text));
    else
        fprintf(out, "%zu to %zu", c->parts[part].first, c->parts[part].end - 1);
}

static const char *model_name(const struct report *r, size_t model)
{
    return model ? report_name(&r->candidates[model - 1]) : "reference";
}

static double kld_of(const struct columns *c, size_t part, size_t candidate)
{
    const struct part_figures *f = figures_of(c, part, candidate + 1);
    return f ? f->kld.value : NAN;
}

/* The losses of all parts and candidates; a part without a scored token has none. */
static void fit(struct axis *a, const struct report *r, const struct columns *c)
{
    double low = INFINITY, high = 0;
    for (size_t p = 0; p < c->n; p++)
        for (size_t i = 0; i < r->n_candidates; i++) {
            double v = kld_of(c, p, i);
            if (isnan(v))
                continue;
            low = fmin(low, fmax(v, CHART_FLOOR));
            high = fmax(high, v);
        }
    axis_fit_decades(a, low, high);
}

static void put_hover(const struct report *r, const struct columns *c, size_t part, size_t candidate,
                      FILE *out)
{
    const struct part_figures *f = figures_of(c, part, candidate + 1);
    fputs("<title>", out);
    report_put(out, model_name(r, candidate + 1));
    fputs(", ", out);
    part_name(c, part, out);
    fprintf(out, ": mean KLD %.6f", f->kld.value);
    if (!isnan(f->kld.error))
        fprintf(out, " ± %.6f", f->kld.error);
    fputs("</title>", out);
}

/* --- by text: a strip for each candidate --- */

/* Shapes tell texts apart without colours. */
static void put_mark(size_t which, double x, double y, FILE *out)
{
    static const char *const shapes[N_MARKS] = {"m-4.5 0a4.5 4.5 0 1 0 9 0a4.5 4.5 0 1 0 -9 0z",
                                                "m-4 -4h8v8h-8z",
                                                "m0 -5.5l5.5 5.5l-5.5 5.5l-5.5 -5.5z",
                                                "m0 -5l5 9h-10z",
                                                "m0 5l5 -9h-10z",
                                                "m-1.5 -5h3v3.5h3.5v3h-3.5v3.5h-3v-3.5h-3.5v-3h3.5z"};
    fprintf(out, "<path class=\"mark%zu\" d=\"M%.1f %.1f%s\"", which % N_MARKS % 3, x, y,
            shapes[which % N_MARKS]);
}

/* Below each other: names of texts may be long. */
static void put_legend(const struct columns *c, double x, double y, double width, FILE *out)
{
    for (size_t p = 0; p < c->n; p++, y += 18) {
        put_mark(p, x, y, out);
        fprintf(out, "/><text x=\"%.1f\" y=\"%.1f\">", x + 12, y + 4);
        chart_put_cut(path_short(c->parts[p].text), (size_t)((width - x - 12) / CHART_LETTER), out);
        fputs("</text>\n", out);
    }
    if (c->mean)
        fprintf(out,
                "<line class=\"tick\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" y2=\"%.1f\"/><text x=\"%.1f\" "
                "y=\"%.1f\">weighted mean</text>\n",
                x, x, y - 7, y + 7, x + 12, y + 4);
}

static void put_strip(const struct report *r, const struct columns *c, size_t i, const struct axis *x,
                      double y, FILE *out)
{
    double least = INFINITY, most = -INFINITY;
    fprintf(out, "<text class=\"name\" x=\"%.1f\" y=\"%.1f\" text-anchor=\"end\">", x->from - 12, y + 4);
    chart_put_cut(model_name(r, i + 1), (size_t)((x->from - 14) / CHART_LETTER), out);
    fputs("</text>", out);
    for (size_t p = 0; p < c->n; p++)
        if (!isnan(kld_of(c, p, i))) {
            least = fmin(least, axis_place(x, kld_of(c, p, i)));
            most = fmax(most, axis_place(x, kld_of(c, p, i)));
        }
    if (most > least)
        fprintf(out, "<line class=\"range\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" y2=\"%.1f\"/>", least, most,
                y, y);
    if (c->mean && !isnan(c->mean[i + 1].kld.value)) {
        double at = axis_place(x, c->mean[i + 1].kld.value);
        fprintf(out, "<line class=\"tick\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" y2=\"%.1f\">", at, at, y - 8,
                y + 8);
        put_hover(r, c, c->n, i, out);
        fputs("</line>", out);
    }
    for (size_t p = 0; p < c->n; p++)
        if (!isnan(kld_of(c, p, i))) {
            put_mark(p, axis_place(x, kld_of(c, p, i)), y, out);
            fputc('>', out);
            put_hover(r, c, p, i, out);
            fputs("</path>", out);
        }
    fputc('\n', out);
}

static int texts_chart(const struct report *r, const struct columns *c, double width, FILE *out)
{
    double widest = 0;
    for (size_t i = 0; i < r->n_candidates; i++)
        widest = fmax(widest, chart_name_width(model_name(r, i + 1)));
    struct axis x = {.from = fmin(fmax(CHART_LEFT, widest + 20), width / 3), .to = width - CHART_RIGHT};
    fit(&x, r, c);
    const double top = CHART_TOP + 18 * (double)(c->n + (c->mean != NULL)),
                 bottom = top + ROW * (double)r->n_candidates;
    fprintf(out, "<svg viewBox=\"0 0 %g %g\" role=\"img\" aria-label=\"Mean KL divergence on each text\">\n",
            width, bottom + 44);
    put_legend(c, x.from + 6, CHART_TOP, width, out);
    axis_decades_across(&x, top, bottom, out);
    fprintf(out, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"end\">mean KLD, nats per token</text>\n", x.to,
            bottom + 38);
    for (size_t i = 0; i < r->n_candidates; i++)
        put_strip(r, c, i, &x, top + ROW * ((double)i + 0.5), out);
    fputs("</svg>\n", out);
    return 0;
}

/* --- by depth: a line for each candidate --- */

static double depth_x(const struct columns *c, size_t part, double left, double right)
{
    return c->n > 1 ? left + (right - left) * (double)part / (double)(c->n - 1) : (left + right) / 2;
}

static void put_line(const struct report *r, const struct columns *c, size_t i, const struct axis *y,
                     double left, double right, FILE *out)
{
    fputs("<polyline class=\"path\" points=\"", out);
    for (size_t p = 0; p < c->n; p++)
        if (!isnan(kld_of(c, p, i)))
            fprintf(out, "%.1f,%.1f ", depth_x(c, p, left, right), axis_place(y, kld_of(c, p, i)));
    fputs("\"/>\n", out);
    for (size_t p = 0; p < c->n; p++)
        if (!isnan(kld_of(c, p, i))) {
            fprintf(out, "<circle class=\"dot\" cx=\"%.1f\" cy=\"%.1f\" r=\"4\">", depth_x(c, p, left, right),
                    axis_place(y, kld_of(c, p, i)));
            put_hover(r, c, p, i, out);
            fputs("</circle>", out);
        }
    fputc('\n', out);
}

/* Positions under the axis; on phones only where they begin. */
static void put_depths(const struct columns *c, double left, double right, double bottom, bool narrow,
                       FILE *out)
{
    for (size_t p = 0; p < c->n; p++) {
        fprintf(out, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"middle\">", depth_x(c, p, left, right),
                bottom + 20);
        if (narrow)
            fprintf(out, "%zu", c->parts[p].first);
        else
            part_name(c, p, out);
        fputs("</text>\n", out);
    }
    fprintf(out, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"end\">%s</text>\n", right + 20, bottom + 42,
            narrow ? "from this position of the window" : "position in the window");
}

static int depths_chart(const struct report *r, const struct columns *c, double width, FILE *out)
{
    const size_t n = r->n_candidates;
    const double height = fmax(360, CHART_LINE * (double)n + 110), bottom = height - 52,
                 left = CHART_LEFT + 26;
    struct chart_point *all = calloc(n + 1, sizeof *all);
    if (!all)
        return ERR_NOMEM;
    struct axis y = {.from = bottom, .to = CHART_TOP + CHART_HEAD};
    fit(&y, r, c);
    for (size_t i = 0; i < n; i++)
        all[i].name = model_name(r, i + 1);
    const double right = width - fmin(chart_names_width(all, n) + 50, width / 3 + 20);
    for (size_t i = 0; i < n; i++) {
        double last = NAN;
        for (size_t p = 0; p < c->n; p++)
            last = isnan(kld_of(c, p, i)) ? last : kld_of(c, p, i);
        all[i].x = right;
        all[i].y = axis_place(&y, isnan(last) ? 0 : last);
    }
    const struct chart_box field = {left, y.to, right, bottom};
    (void)chart_place_names(all, n, &field, right + 38, true);
    fprintf(out,
            "<svg viewBox=\"0 0 %g %g\" role=\"img\" aria-label=\"Mean KL divergence by position in the "
            "window\">\n",
            width, height);
    axis_decades_up(&y, CHART_LEFT, right + 20, out);
    fprintf(out, "<text x=\"%g\" y=\"%g\">mean KLD, nats per token</text>\n", CHART_LEFT, CHART_TOP + 4);
    put_depths(c, left, right, bottom, width < 600, out);
    chart_put_leaders(all, n, out);
    for (size_t i = 0; i < n; i++)
        put_line(r, c, i, &y, left, right, out);
    chart_put_names(all, n, width, out);
    fputs("</svg>\n", out);
    free(all);
    return 0;
}

/* --- tables --- */

enum figure { FIGURE_KLD, FIGURE_PERPLEXITY, FIGURE_TOP };

static void put_cell(const struct part_figures *f, enum figure figure, FILE *out)
{
    if (!f)
        fputs("<td>–</td>", out);
    else if (figure == FIGURE_KLD)
        page_estimate(out, 6, f->kld.value, f->kld.error, false);
    else if (figure == FIGURE_PERPLEXITY)
        page_estimate(out, 4, exp(f->nll.value), exp(f->nll.value) * f->nll.error, false);
    else
        page_figure(out, 2, 100 * f->top1);
}

static char *column_names(const struct columns *c)
{
    struct printed p;
    if (printed_begin(&p) != 0)
        return NULL;
    fputs("Candidate", p.out);
    for (size_t i = 0; i < c->n + (c->mean != NULL); i++) {
        fputc('|', p.out);
        part_name(c, i, p.out);
    }
    return printed_end(&p);
}

/* Rows: models, of the perplexity the reference as well. */
static int parts_table(const struct report *r, const struct columns *c, enum figure figure, FILE *out)
{
    char *names = column_names(c);
    if (!names)
        return ERR_NOMEM;
    page_table(out, NULL, names, true);
    free(names);
    for (size_t m = figure == FIGURE_PERPLEXITY ? 0 : 1; m <= r->n_candidates; m++) {
        fputs("<tr><td>", out);
        report_put(out, model_name(r, m));
        fputs("</td>", out);
        for (size_t p = 0; p < c->n + (c->mean != NULL); p++)
            put_cell(figures_of(c, p, m), figure, out);
        fputs("</tr>\n", out);
    }
    page_table_end(out);
    return 0;
}

static int tables(const struct report *r, const struct columns *c, FILE *out)
{
    int rc = parts_table(r, c, FIGURE_KLD, out);
    fputs("<details><summary>Perplexity</summary>", out);
    rc = rc == 0 ? parts_table(r, c, FIGURE_PERPLEXITY, out) : rc;
    fputs("</details>\n<details><summary>Same first token, %</summary>", out);
    rc = rc == 0 ? parts_table(r, c, FIGURE_TOP, out) : rc;
    fputs("</details>\n", out);
    return rc;
}

typedef int (*draw)(const struct report *r, const struct columns *c, double width, FILE *out);

static int section(const struct report *r, const struct columns *c, const char *title, draw chart,
                   const char *caption, FILE *out)
{
    fprintf(out, "<h2>%s</h2>\n<figure>\n<div class=\"large\">", title);
    int rc = chart(r, c, CHART_WIDE, out);
    fputs("</div><div class=\"small\">", out);
    rc = rc == 0 ? chart(r, c, CHART_NARROW, out) : rc;
    fprintf(out, "</div><figcaption>%s</figcaption>\n</figure>\n", caption);
    return rc == 0 ? tables(r, c, out) : rc;
}

/* "Weights: 0.5 wiki.test.raw, ..." */
static void weights(const struct report_parts *p, FILE *out)
{
    fputs("<p class=\"note\">", out);
    for (size_t i = 0; i < p->n_texts; i++) {
        fputs(i ? ", " : "Tokens scored: ", out);
        report_put(out, path_short(p->texts[i].text));
        fprintf(out, " %zu", p->texts[i].n_scored);
        if (!isnan(p->texts[i].weight))
            fprintf(out, " (weight %.4g)", p->texts[i].weight);
    }
    fputs(". ± is one standard error.</p>\n", out);
}

int report_parts_html(const struct report *r, FILE *out)
{
    const struct report_parts *p = r->parts;
    int rc = 0;
    if (p && p->n_texts > 0) {
        const struct columns c = {p->texts, p->n_texts, p->mean};
        rc = section(
            r, &c, "Loss on each text", texts_chart,
            "Mean divergence on each text, on a logarithmic scale; the mean of all, where weights were "
            "given, is the upright stroke.",
            out);
        weights(p, out);
    }
    if (rc == 0 && p && p->n_depths > 0) {
        const struct columns c = {p->depths, p->n_depths, NULL};
        rc = section(r, &c, "Loss by position in the window", depths_chart,
                     "Mean divergence of the predictions at these positions, counted from the beginning of "
                     "the window: a line that rises says that loss grows with the context.",
                     out);
    }
    return rc;
}

/* --- data --- */

static void csv_models(const struct report *r, const struct part_figures *models, FILE *out, const char *what,
                       const char *name, size_t n_scored)
{
    for (size_t m = 0; models && m <= r->n_candidates; m++) {
        fprintf(out, "%s,", what);
        page_csv_text(out, name);
        fprintf(out, ",%zu,", n_scored);
        page_csv_text(out, model_name(r, m));
        fprintf(out, ",%.9g,%.9g,%.9g", exp(models[m].nll.value), models[m].nll.value, models[m].nll.error);
        if (m > 0)
            fprintf(out, ",%.9g,%.9g,%.9g\n", models[m].kld.value, models[m].kld.error, models[m].top1);
        else
            fputs(",,,\n", out);
    }
}

void report_parts_csv(const struct report *r, FILE *out)
{
    const struct report_parts *p = r->parts;
    size_t n = 0;
    fputs(
        "what,part,n_tokens_scored,model,perplexity,nll_mean,nll_stderr,kld_mean,kld_stderr,top1_agreement\n",
        out);
    for (size_t i = 0; i < p->n_texts; i++) {
        csv_models(r, p->texts[i].models, out, "text", p->texts[i].text, p->texts[i].n_scored);
        n += p->texts[i].n_scored;
    }
    csv_models(r, p->mean, out, "mean", "weighted mean", n);
    for (size_t i = 0; i < p->n_depths; i++) {
        char name[64];
        snprintf(name, sizeof name, "%zu-%zu", p->depths[i].first, p->depths[i].end - 1);
        csv_models(r, p->depths[i].models, out, "position", name, p->depths[i].n_scored);
    }
}
