/* report_chart.c - the two charts of the HTML report as inline SVG. Colours and fonts come from the page's
 * style, so the charts follow light and dark. */
#include "report.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

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
        fprintf(out, "%.1f,%.1f ", place(x, next->bits_per_weight), place(y, next->d.kld.value));
    }
    fputs("\"/>\n", out);
}

/* --- names of points --- */

#define LETTER     7.4  /* width of one */
#define LINE       15.0 /* from one name of the column to the next */
#define MAX_LETTER 26   /* longer names are cut; the whole one shows on hover */

struct box {
    double x1, y1, x2, y2;
};

static bool overlap(const struct box *a, const struct box *b)
{
    return a->x1 < b->x2 && b->x1 < a->x2 && a->y1 < b->y2 && b->y1 < a->y2;
}

/* From a point to the nearest place of a box. */
static double distance(const struct box *b, double x, double y)
{
    double dx = fmax(fmax(b->x1 - x, x - b->x2), 0), dy = fmax(fmax(b->y1 - y, y - b->y2), 0);
    return hypot(dx, dy);
}

/* A point of the chart, and where its name stands: beside it, or in the column at the right. */
struct point {
    const char *name;
    double x, y;
    struct box box;
    double text_x, text_y;
    const char *anchor;
    bool in_column;
};

/* Where a name may stand around its point, best first. */
static const struct {
    double dx, dy;
    const char *anchor;
} spots[] = {{8, -8, "start"},   {-8, 16, "end"},   {-8, -8, "end"},  {8, 16, "start"},
             {0, -12, "middle"}, {0, 22, "middle"}, {12, 4, "start"}, {-12, 4, "end"}};
#define N_SPOTS (sizeof spots / sizeof *spots)

static double name_width(const char *name)
{
    size_t n = 0;
    for (; *name; name++)
        n += ((unsigned char)*name & 0xc0) != 0x80;
    return LETTER * (double)(n < MAX_LETTER ? n : MAX_LETTER);
}

static struct box spot_box(size_t spot, const struct point *p)
{
    double width = name_width(p->name), x = p->x + spots[spot].dx, y = p->y + spots[spot].dy;
    if (spots[spot].anchor[0] == 'e')
        x -= width;
    else if (spots[spot].anchor[0] == 'm')
        x -= width / 2;
    return (struct box){x, y - 11, x + width, y + 3};
}

/* No point and no other name is touched, and the name is clearly nearer to its own point than to others. */
static bool is_clear(const struct point *all, size_t n, size_t i, const struct box *b)
{
    double own = distance(b, all[i].x, all[i].y);
    for (size_t j = 0; j < n; j++) {
        if (j == i)
            continue;
        if (distance(b, all[j].x, all[j].y) < fmax(1.8 * own, 14))
            return false;
        if (j < i && !all[j].in_column && overlap(b, &all[j].box))
            return false;
    }
    return true;
}

static void place_name(struct point *all, size_t n, size_t i, double left, double right)
{
    struct point *p = &all[i];
    for (size_t s = 0; s < N_SPOTS; s++) {
        struct box b = spot_box(s, p);
        if (b.x1 < left || b.x2 > right || b.y1 < TOP + HEAD || !is_clear(all, n, i, &b))
            continue;
        p->box = b;
        p->text_x = p->x + spots[s].dx;
        p->text_y = p->y + spots[s].dy;
        p->anchor = spots[s].anchor;
        return;
    }
    p->in_column = true;
}

/* Names that found no place beside their points stand in a column, in the order of the points from the top.
 */
static void place_column(struct point *all, size_t n, double x, double bottom)
{
    double next = TOP + HEAD;
    size_t left = 0;
    for (size_t i = 0; i < n; i++)
        left += all[i].in_column;
    for (double above = -INFINITY; left > 0; left--) {
        struct point *p = NULL;
        for (size_t i = 0; i < n; i++)
            if (all[i].in_column && !all[i].anchor && all[i].y >= above && (!p || all[i].y < p->y))
                p = &all[i];
        if (!p)
            return;
        above = p->y;
        double latest = bottom - LINE * (double)(left - 1); /* those below need their room, too */
        p->text_x = x;
        p->text_y = fmax(next, fmin(p->y + 4, latest));
        p->anchor = "start";
        next = p->text_y + LINE;
    }
}

/* A name of at most so many letters; of a longer one the end, which tells more of a path. */
static void put_cut(const char *name, size_t most, FILE *out)
{
    size_t n = 0, len = strlen(name);
    for (size_t i = 0; i < len; i++)
        n += ((unsigned char)name[i] & 0xc0) != 0x80;
    if (n <= most) {
        report_put(out, name);
        return;
    }
    const char *end = name;
    for (size_t skip = n - most + 1; skip > 0; skip--)
        for (end++; ((unsigned char)*end & 0xc0) == 0x80;)
            end++;
    fputs("…", out);
    report_put(out, end);
    fputs("<title>", out);
    report_put(out, name);
    fputs("</title>", out);
}

static void put_lead(const struct point *p, FILE *out)
{
    if (p->in_column)
        fprintf(out, "<line class=\"lead\" x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\"/>", p->x + 5, p->y,
                p->text_x - 4, p->text_y - 4);
}

static void put_name(const struct point *p, FILE *out)
{
    fprintf(out, "<text class=\"name tag\" x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\">", p->text_x, p->text_y,
            p->anchor ? p->anchor : "start");
    put_cut(p->name, MAX_LETTER, out);
    fputs("</text>\n", out);
}

/* The dot, its bar, and what hovering tells: the figures of the table. */
static void put_point(const struct report_model *c, const struct point *p, const struct axis *y, FILE *out)
{
    const struct divergence *d = &c->d;
    double error = isnan(d->kld_window_stderr) ? d->kld.error : d->kld_window_stderr;
    if (!isnan(error))
        fprintf(out, "<line class=\"bar\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" y2=\"%.1f\"/>", p->x, p->x,
                place(y, d->kld.value - 2 * error), place(y, d->kld.value + 2 * error));
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
    vertical_decades(y, x->from, x->to, out);
    fprintf(out, "<line class=\"axis\" x1=\"%g\" x2=\"%g\" y1=\"%g\" y2=\"%g\"/>\n", x->from, x->to, bottom,
            bottom);
    size_ticks(x, bottom, out);
    fprintf(out, "<text x=\"%g\" y=\"%g\" text-anchor=\"end\">bits per weight</text>\n", x->to, bottom + 42);
    fprintf(out, "<text x=\"%g\" y=\"%g\">mean KLD, nats per token</text>\n", x->from, TOP + 4);
}

int report_chart(const struct report *r, double width, FILE *out)
{
    size_t n = r->n_candidates;
    const double height = fmax(430 + HEAD, LINE * (double)n + 110), bottom = height - 52;
    double widest = 0;
    struct point *all = calloc(n + 1, sizeof *all);
    if (!all)
        return ERR_NOMEM;
    for (size_t i = 0; i < n; i++)
        widest = fmax(widest, name_width(report_name(&r->candidates[i])));
    double column = n > 6 || width < 600 ? fmin(widest + 24, width / 3) : RIGHT; /* at the right, for names */
    struct axis x = {.from = LEFT, .to = width - column}, y = {.from = bottom, .to = TOP + HEAD};
    chart_axes(r, &x, &y);
    for (size_t i = 0; i < n; i++)
        all[i] = (struct point){.name = report_name(&r->candidates[i]),
                                .x = place(&x, r->candidates[i].bits_per_weight),
                                .y = place(&y, r->candidates[i].d.kld.value)};
    for (size_t i = 0; i < n; i++)
        place_name(all, n, i, LEFT, column > RIGHT ? x.to : width);
    place_column(all, n, column > RIGHT ? x.to + 12 : width - widest, bottom);
    fprintf(out,
            "<svg viewBox=\"0 0 %g %g\" role=\"img\" aria-label=\"Mean KL divergence against bits per "
            "weight\">\n",
            width, height);
    put_axes(&x, &y, bottom, out);
    curve(r, &x, &y, out);
    for (size_t i = 0; i < n; i++)
        put_lead(&all[i], out);
    for (size_t i = 0; i < n; i++)
        put_point(&r->candidates[i], &all[i], &y, out);
    for (size_t i = 0; i < n; i++)
        put_name(&all[i], out);
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
    put_cut(report_name(c), (size_t)((x->from - 14) / 7.2), out);
    fputs("</text><g><title>", out);
    report_put(out, report_name(c));
    fprintf(out, ": 10 %% %.6f, median %.6f, mean %.6f, 99 %% %.5f, 99.9 %% %.4f</title>", at_share(d, 0.10),
            at_share(d, 0.50), d->kld.value, at_share(d, 0.99), at_share(d, 0.999));
    const double ends[2][2] = {{0.10, 0.999}, {0.25, 0.75}};
    for (int i = 0; i < 2; i++)
        fprintf(out, "<line class=\"%s\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" y2=\"%.1f\"/>",
                i ? "body" : "range", place(x, at_share(d, ends[i][0])), place(x, at_share(d, ends[i][1])), y,
                y);
    fprintf(out,
            "<circle class=\"mid\" cx=\"%.1f\" cy=\"%.1f\" r=\"4\"/><circle class=\"mean\" cx=\"%.1f\" "
            "cy=\"%.1f\" "
            "r=\"3\"/></g>\n",
            place(x, at_share(d, 0.50)), y, place(x, d->kld.value), y);
}

void report_spread(const struct report *r, double width, FILE *out)
{
    double row = 26, height = TOP + row * (double)r->n_candidates + 34, low = INFINITY, high = 0, widest = 0;
    for (size_t i = 0; i < r->n_candidates; i++) {
        const struct divergence *d = &r->candidates[i].d;
        low = fmin(low, fmax(at_share(d, 0.10), 1e-7));
        high = fmax(high, at_share(d, 0.999));
        widest = fmax(widest, 7.2 * (double)strlen(report_name(&r->candidates[i])));
    }
    struct axis x = {.from = fmin(fmax(LEFT, widest + 20), width / 3), .to = width - RIGHT};
    fit_decades(&x, low, high);
    fprintf(out,
            "<svg viewBox=\"0 0 %g %g\" role=\"img\" aria-label=\"Percentiles of the KL divergence of single "
            "tokens\">\n",
            width, height);
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
