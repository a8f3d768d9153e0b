/* report_chart.c - the two charts of the HTML report as inline SVG. Colours and fonts come from the page's
 * style, so the charts follow light and dark. */
#include "report.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define WIDTH 960.0
#define LEFT  70.0
#define RIGHT 30.0
#define TOP   16.0
#define HEAD  20.0 /* room for the name of the upright axis, above every point */
#define FLOOR 1e-9 /* divergences below are drawn there: the logarithmic axis has no zero */

struct axis {
    double low, high, from, to; /* values, and their places */
    bool logarithmic;
};

static double place(const struct axis *a, double v)
{
    double low = a->low, high = a->high;
    if (a->logarithmic) {
        v = log10(v > FLOOR ? v : FLOOR);
        low = log10(low);
        high = log10(high);
    }
    double t = high > low ? (v - low) / (high - low) : 0.5;
    return a->from + (t < 0 ? 0 : t > 1 ? 1 : t) * (a->to - a->from);
}

/* Whole powers of ten around the values. */
static void fit_decades(struct axis *a, double low, double high)
{
    low = low > FLOOR ? low : FLOOR;
    high = high > low ? high : low;
    a->low = pow(10, floor(log10(low)));
    a->high = pow(10, ceil(log10(high) + 1e-9));
    a->logarithmic = true;
}

/* A step of 1, 2 or 5 times a power of ten that gives about `n` ticks. */
static double tick_step(double span, int n)
{
    double raw = span / n, power = pow(10, floor(log10(raw))), m = raw / power;
    return power * (m < 1.5 ? 1 : m < 3.5 ? 2 : m < 7.5 ? 5 : 10);
}

void report_decade(FILE *out, double v)
{
    int p = (int)lround(log10(v));
    if (p >= -3 && p <= 3)
        fprintf(out, "%g", v);
    else
        fprintf(out, "10<tspan dy=\"-5\" font-size=\"9\">%s%d</tspan>", p < 0 ? "−" : "", p < 0 ? -p : p);
}

static void vertical_decades(const struct axis *y, double x1, double x2, FILE *out)
{
    for (double v = y->low; v <= y->high * 1.001; v *= 10) {
        double at = place(y, v);
        fprintf(out,
                "<line class=\"grid\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" y2=\"%.1f\"/><text x=\"%.1f\" "
                "y=\"%.1f\" text-anchor=\"end\">",
                x1, x2, at, at, x1 - 8, at + 4);
        report_decade(out, v);
        fputs("</text>\n", out);
    }
}

static void size_ticks(const struct axis *x, double y, FILE *out)
{
    double step = tick_step(x->high - x->low, 7);
    for (double v = ceil(x->low / step) * step; v <= x->high * 1.000001; v += step) {
        double at = place(x, v);
        fprintf(out,
                "<line class=\"axis\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" y2=\"%.1f\"/><text x=\"%.1f\" "
                "y=\"%.1f\" text-anchor=\"middle\">%g</text>\n",
                at, at, y, y + 5, at, y + 20, round(v / step) * step);
    }
}

/* Bounds over all candidates. The size axis is bits per weight: it compares across models. */
static void chart_axes(const struct report *r, struct axis *x, struct axis *y)
{
    double low = INFINITY, high = 0, least = INFINITY, most = 0;
    for (size_t i = 0; i < r->n_candidates; i++) {
        const struct report_model *c = &r->candidates[i];
        low = fmin(low, fmax(c->d.kld.value, FLOOR));
        high = fmax(high, c->d.kld.value);
        least = fmin(least, c->bits_per_weight);
        most = fmax(most, c->bits_per_weight);
    }
    double margin = fmax(0.06 * (most - least), 0.15);
    x->low = least - margin;
    x->high = most + margin;
    fit_decades(y, low, high);
}

/* Points in the order of the size axis, for the line that joins them. */
static void curve(const struct report *r, const struct axis *x, const struct axis *y, FILE *out)
{
    fputs("<polyline class=\"curve\" points=\"", out);
    double after = -INFINITY;
    for (size_t k = 0; k < r->n_candidates; k++) {
        const struct report_model *next = NULL;
        for (size_t i = 0; i < r->n_candidates; i++) {
            const struct report_model *c = &r->candidates[i];
            if (c->bits_per_weight > after && (!next || c->bits_per_weight < next->bits_per_weight))
                next = c;
        }
        if (!next)
            break;
        after = next->bits_per_weight;
        fprintf(out, "%.1f,%.1f ", place(x, next->bits_per_weight), place(y, next->d.kld.value));
    }
    fputs("\"/>\n", out);
}

struct box {
    double x1, y1, x2, y2;
};

static bool overlap(const struct box *a, const struct box *b)
{
    return a->x1 < b->x2 && b->x1 < a->x2 && a->y1 < b->y2 && b->y1 < a->y2;
}

/* Where a label may stand around its point, best first: dx, dy of the text's anchor, and the anchor. */
static const struct {
    double dx, dy;
    const char *anchor;
} spots[] = {{8, -8, "start"},   {-8, 16, "end"},   {-8, -8, "end"},   {8, 16, "start"},
             {0, -14, "middle"}, {0, 24, "middle"}, {12, 4, "start"},  {-12, 4, "end"},
             {20, -22, "start"}, {-20, 30, "end"},  {20, 30, "start"}, {-20, -22, "end"}};
#define N_SPOTS (sizeof spots / sizeof *spots)

static struct box spot_box(size_t spot, double px, double py, const char *name)
{
    double width = 7.4 * (double)strlen(name), x = px + spots[spot].dx, y = py + spots[spot].dy;
    if (spots[spot].anchor[0] == 'e')
        x -= width;
    else if (spots[spot].anchor[0] == 'm')
        x -= width / 2;
    return (struct box){x, y - 11, x + width, y + 3};
}

/* A label takes the first spot that touches no point, no earlier label, and stays inside. */
static void label(const struct report *r, size_t i, const struct axis *x, const struct axis *y,
                  struct box *taken, FILE *out)
{
    const struct report_model *c = &r->candidates[i];
    double px = place(x, c->bits_per_weight), py = place(y, c->d.kld.value);
    size_t best = 0;
    for (size_t s = 0; s < N_SPOTS; s++) {
        struct box b = spot_box(s, px, py, report_name(c));
        bool free_spot = b.x1 > LEFT && b.x2 < WIDTH && b.y1 > TOP + HEAD;
        for (size_t j = 0; free_spot && j < r->n_candidates; j++) {
            double qx = place(x, r->candidates[j].bits_per_weight),
                   qy = place(y, r->candidates[j].d.kld.value);
            struct box dot = {qx - 6, qy - 6, qx + 6, qy + 6};
            free_spot = !overlap(&b, &dot) && (j >= i || !overlap(&b, &taken[j]));
        }
        if (free_spot) {
            best = s;
            break;
        }
    }
    taken[i] = spot_box(best, px, py, report_name(c));
    fprintf(out, "<text class=\"name\" x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\">", px + spots[best].dx,
            py + spots[best].dy, spots[best].anchor);
    report_put(out, report_name(c));
    fputs("</text>\n", out);
}

void report_chart(const struct report *r, FILE *out)
{
    const double height = 430 + HEAD, bottom = height - 52;
    struct axis x = {.from = LEFT, .to = WIDTH - RIGHT}, y = {.from = bottom, .to = TOP + HEAD};
    chart_axes(r, &x, &y);
    fprintf(out,
            "<svg viewBox=\"0 0 %g %g\" role=\"img\" aria-label=\"Mean KL divergence against bits per "
            "weight\">\n",
            WIDTH, height);
    vertical_decades(&y, LEFT, WIDTH - RIGHT, out);
    fprintf(out, "<line class=\"axis\" x1=\"%g\" x2=\"%g\" y1=\"%g\" y2=\"%g\"/>\n", LEFT, WIDTH - RIGHT,
            bottom, bottom);
    size_ticks(&x, bottom, out);
    fprintf(out, "<text x=\"%g\" y=\"%g\" text-anchor=\"end\">bits per weight</text>\n", WIDTH - RIGHT,
            bottom + 42);
    fprintf(out, "<text x=\"%g\" y=\"%g\">mean KLD, nats per token</text>\n", LEFT, TOP + 4);
    curve(r, &x, &y, out);
    for (size_t i = 0; i < r->n_candidates; i++) {
        const struct report_model *c = &r->candidates[i];
        const struct divergence *d = &c->d;
        double error = isnan(d->kld_window_stderr) ? d->kld.error : d->kld_window_stderr;
        double px = place(&x, c->bits_per_weight), py = place(&y, d->kld.value);
        if (!isnan(error))
            fprintf(out, "<line class=\"bar\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" y2=\"%.1f\"/>", px, px,
                    place(&y, d->kld.value - 2 * error), place(&y, d->kld.value + 2 * error));
        fprintf(out, "<circle class=\"dot\" cx=\"%.1f\" cy=\"%.1f\" r=\"4.5\"><title>%.6f", px, py,
                d->kld.value);
        if (!isnan(error))
            fprintf(out, " ± %.6f", error);
        fprintf(out, " at %.3f bits</title></circle>\n", c->bits_per_weight);
    }
    struct box *taken = calloc(r->n_candidates, sizeof *taken);
    for (size_t i = 0; taken && i < r->n_candidates; i++)
        label(r, i, &x, &y, taken, out);
    free(taken);
    fputs("</svg>\n", out);
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
    report_put(out, report_name(c));
    fputs("</text>", out);
    const double ends[2][2] = {{0.10, 0.999}, {0.25, 0.75}};
    for (int i = 0; i < 2; i++)
        fprintf(out, "<line class=\"%s\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" y2=\"%.1f\"/>",
                i ? "body" : "range", place(x, at_share(d, ends[i][0])), place(x, at_share(d, ends[i][1])), y,
                y);
    fprintf(out,
            "<circle class=\"mid\" cx=\"%.1f\" cy=\"%.1f\" r=\"4\"/><circle class=\"mean\" cx=\"%.1f\" "
            "cy=\"%.1f\" "
            "r=\"3\"/>\n",
            place(x, at_share(d, 0.50)), y, place(x, d->kld.value), y);
}

void report_spread(const struct report *r, FILE *out)
{
    double row = 26, height = TOP + row * (double)r->n_candidates + 34, low = INFINITY, high = 0, widest = 0;
    for (size_t i = 0; i < r->n_candidates; i++) {
        const struct divergence *d = &r->candidates[i].d;
        low = fmin(low, fmax(at_share(d, 0.10), 1e-7));
        high = fmax(high, at_share(d, 0.999));
        widest = fmax(widest, 7.2 * (double)strlen(report_name(&r->candidates[i])));
    }
    struct axis x = {.from = fmin(fmax(LEFT, widest + 20), WIDTH / 3), .to = WIDTH - RIGHT};
    fit_decades(&x, low, high);
    fprintf(out,
            "<svg viewBox=\"0 0 %g %g\" role=\"img\" aria-label=\"Percentiles of the KL divergence of single "
            "tokens\">\n",
            WIDTH, height);
    for (double v = x.low; v <= x.high * 1.001; v *= 10) {
        double at = place(&x, v);
        fprintf(
            out,
            "<line class=\"grid\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%g\" y2=\"%.1f\"/><text x=\"%.1f\" y=\"%.1f\" "
            "text-anchor=\"middle\">",
            at, at, TOP - 6, height - 30, at, height - 12);
        report_decade(out, v);
        fputs("</text>\n", out);
    }
    for (size_t i = 0; i < r->n_candidates; i++)
        spread_row(&r->candidates[i], &x, TOP + row * ((double)i + 0.5), out);
    fputs("</svg>\n", out);
}
