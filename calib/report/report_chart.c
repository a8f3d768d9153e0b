/* report_chart.c - the two charts of the HTML report as inline SVG. Colours and fonts come from the page's
 * style, so the charts follow light and dark. */
#include "chart.h"
#include "report.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Bounds over all candidates. The size axis is bits per weight: it compares across models. */
static void chart_axes(const struct report *r, struct axis *x, struct axis *y)
{
    double low = INFINITY, high = 0, least = INFINITY, most = 0;
    for (size_t i = 0; i < r->n_candidates; i++) {
        const struct report_model *c = &r->candidates[i];
        low = fmin(low, fmax(c->d.kld.value, CHART_FLOOR));
        high = fmax(high, c->d.kld.value);
        least = fmin(least, c->bits_per_weight);
        most = fmax(most, c->bits_per_weight);
    }
    double margin = fmax(0.06 * (most - least), 0.15);
    x->low = least - margin;
    x->high = most + margin;
    axis_fit_decades(y, low, high);
}

/* Is another candidate at least as small and as good, and better in one of both? */
static bool is_beaten(const struct report *r, const struct report_model *c)
{
    for (size_t i = 0; i < r->n_candidates; i++) {
        const struct report_model *o = &r->candidates[i];
        double bits = o->bits_per_weight - c->bits_per_weight, loss = o->d.kld.value - c->d.kld.value;
        if (bits <= 0 && loss <= 0 && (bits < 0 || loss < 0 || o < c))
            return true;
    }
    return false;
}

/* The line through those that no other one beats, in the order of the size axis. */
static void curve(const struct report *r, const struct axis *x, const struct axis *y, FILE *out)
{
    fputs("<polyline class=\"curve\" points=\"", out);
    double after = -INFINITY;
    for (size_t k = 0; k < r->n_candidates; k++) {
        const struct report_model *next = NULL;
        for (size_t i = 0; i < r->n_candidates; i++) {
            const struct report_model *c = &r->candidates[i];
            if (c->bits_per_weight > after && (!next || c->bits_per_weight < next->bits_per_weight) &&
                !is_beaten(r, c))
                next = c;
        }
        if (!next)
            break;
        after = next->bits_per_weight;
        fprintf(out, "%.1f,%.1f ", axis_place(x, next->bits_per_weight), axis_place(y, next->d.kld.value));
    }
    fputs("\"/>\n", out);
}

/* The dot, its bar, and what hovering tells: the figures of the table. */
static void put_point(const struct report_model *c, const struct chart_point *p, const struct axis *y,
                      FILE *out)
{
    const struct divergence *d = &c->d;
    double error = isnan(d->kld_window_stderr) ? d->kld.error : d->kld_window_stderr;
    if (!isnan(error))
        fprintf(out, "<line class=\"bar\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" y2=\"%.1f\"/>", p->x, p->x,
                axis_place(y, d->kld.value - 2 * error), axis_place(y, d->kld.value + 2 * error));
    fprintf(out, "<circle class=\"dot\" cx=\"%.1f\" cy=\"%.1f\" r=\"4.5\"><title>", p->x, p->y);
    report_put(out, p->name);
    fprintf(out, ": mean KLD %.6f", d->kld.value);
    if (!isnan(d->kld.error))
        fprintf(out, " ± %.6f", d->kld.error);
    fprintf(out, ", %.3f bits per weight, same first token %.2f %%</title></circle>\n", c->bits_per_weight,
            100 * d->top1.value);
}

static void put_axes(const struct axis *x, const struct axis *y, double bottom, FILE *out)
{
    axis_decades_up(y, x->from, x->to, out);
    fprintf(out, "<line class=\"axis\" x1=\"%g\" x2=\"%g\" y1=\"%g\" y2=\"%g\"/>\n", x->from, x->to, bottom,
            bottom);
    axis_ticks(x, bottom, out);
    fprintf(out, "<text x=\"%g\" y=\"%g\" text-anchor=\"end\">bits per weight</text>\n", x->to, bottom + 42);
    fprintf(out, "<text x=\"%g\" y=\"%g\">mean KLD, nats per token</text>\n", x->from, CHART_TOP + 4);
}

/* Points and their names, between these edges. Room for a column of names at the right is taken only where
 * one finds no place beside its point. */
static void place_points(const struct report *r, struct chart_point *all, struct axis *x, struct axis *y,
                         double width)
{
    const size_t n = r->n_candidates;
    const double widest = chart_names_width(all, n);
    bool has_column = false, needs_column = width < 600;
    do {
        has_column = needs_column;
        x->to = width - (has_column ? fmin(widest + 24, width / 3) : CHART_RIGHT);
        for (size_t i = 0; i < n; i++) {
            all[i].x = axis_place(x, r->candidates[i].bits_per_weight);
            all[i].y = axis_place(y, r->candidates[i].d.kld.value);
        }
        const struct chart_box field = {CHART_LEFT, y->to, has_column ? x->to : width, y->from};
        needs_column = chart_place_names(all, n, &field, x->to + 12, false);
    } while (needs_column && !has_column);
}

int report_chart(const struct report *r, double width, FILE *out)
{
    size_t n = r->n_candidates;
    const double height = fmax(430 + CHART_HEAD, CHART_LINE * (double)n + 110), bottom = height - 52;
    struct chart_point *all = calloc(n + 1, sizeof *all);
    if (!all)
        return ERR_NOMEM;
    for (size_t i = 0; i < n; i++)
        all[i].name = report_name(&r->candidates[i]);
    struct axis x = {.from = CHART_LEFT}, y = {.from = bottom, .to = CHART_TOP + CHART_HEAD};
    chart_axes(r, &x, &y);
    place_points(r, all, &x, &y, width);
    fprintf(out,
            "<svg viewBox=\"0 0 %g %g\" role=\"img\" aria-label=\"Mean KL divergence against bits per "
            "weight\">\n",
            width, height);
    put_axes(&x, &y, bottom, out);
    curve(r, &x, &y, out);
    chart_put_leaders(all, n, out);
    for (size_t i = 0; i < n; i++)
        put_point(&r->candidates[i], &all[i], &y, out);
    chart_put_names(all, n, width, out);
    fputs("</svg>\n", out);
    free(all);
    return 0;
}

static double at_share(const struct divergence *d, double share)
{
    for (size_t i = 0; i < DIVERGENCE_N_PERCENTILES; i++)
        if (divergence_percentiles[i] == share)
            return d->kld_at[i];
    return NAN;
}

static void spread_row(const struct report_model *c, const struct axis *x, double y, FILE *out)
{
    const struct divergence *d = &c->d;
    fprintf(out, "<text class=\"name\" x=\"%g\" y=\"%.1f\" text-anchor=\"end\">", x->from - 12, y + 4);
    chart_put_cut(report_name(c), (size_t)((x->from - 14) / CHART_LETTER), out);
    fputs("</text><g><title>", out);
    report_put(out, report_name(c));
    fprintf(out, ": 10 %% %.6f, median %.6f, mean %.6f, 99 %% %.5f, 99.9 %% %.4f</title>", at_share(d, 0.10),
            at_share(d, 0.50), d->kld.value, at_share(d, 0.99), at_share(d, 0.999));
    const double ends[2][2] = {{0.10, 0.999}, {0.25, 0.75}};
    for (int i = 0; i < 2; i++)
        fprintf(out, "<line class=\"%s\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" y2=\"%.1f\"/>",
                i ? "body" : "range", axis_place(x, at_share(d, ends[i][0])),
                axis_place(x, at_share(d, ends[i][1])), y, y);
    fprintf(out,
            "<circle class=\"mid\" cx=\"%.1f\" cy=\"%.1f\" r=\"4\"/><circle class=\"mean\" cx=\"%.1f\" "
            "cy=\"%.1f\" "
            "r=\"3\"/></g>\n",
            axis_place(x, at_share(d, 0.50)), y, axis_place(x, d->kld.value), y);
}

void report_spread(const struct report *r, double width, FILE *out)
{
    double row = 26, height = CHART_TOP + row * (double)r->n_candidates + 34, low = INFINITY, high = 0,
           widest = 0;
    for (size_t i = 0; i < r->n_candidates; i++) {
        const struct divergence *d = &r->candidates[i].d;
        low = fmin(low, fmax(at_share(d, 0.10), 1e-7));
        high = fmax(high, at_share(d, 0.999));
        widest = fmax(widest, chart_name_width(report_name(&r->candidates[i])));
    }
    struct axis x = {.from = fmin(fmax(CHART_LEFT, widest + 20), width / 3), .to = width - CHART_RIGHT};
    axis_fit_decades(&x, low, high);
    fprintf(out,
            "<svg viewBox=\"0 0 %g %g\" role=\"img\" aria-label=\"Percentiles of the KL divergence of single "
            "tokens\">\n",
            width, height);
    axis_decades_across(&x, CHART_TOP - 6, height - 30, out);
    for (size_t i = 0; i < r->n_candidates; i++)
        spread_row(&r->candidates[i], &x, CHART_TOP + row * ((double)i + 0.5), out);
    fputs("</svg>\n", out);
}
