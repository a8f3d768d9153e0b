/* chart.c - see chart.h. */
#include "chart.h"

#include "report.h"

#include <math.h>
#include <string.h>

#define MAX_LETTER 26 /* of names of points: longer ones are cut; the whole one shows on hover */
#define FAN        22 /* from one name of a column to the next where there is room: lines are told apart */

/* --- axes --- */

double axis_place(const struct axis *a, double v)
{
    double low = a->low, high = a->high;
    if (a->logarithmic) {
        v = log10(v > CHART_FLOOR ? v : CHART_FLOOR);
        low = log10(low);
        high = log10(high);
    }
    double t = high > low ? (v - low) / (high - low) : 0.5;
    return a->from + (t < 0 ? 0 : t > 1 ? 1 : t) * (a->to - a->from);
}

void axis_fit_decades(struct axis *a, double low, double high)
{
    low = low > CHART_FLOOR && isfinite(low) ? low : CHART_FLOOR;
    high = high > low ? high : low;
    a->low = pow(10, floor(log10(low)));
    a->high = pow(10, ceil(log10(high) + 1e-9));
    a->logarithmic = true;
}

/* A step of 1, 2 or 5 times a power of ten that gives about `n` ticks. */
static double tick_step(double span, double n)
{
    double raw = span / n, power = pow(10, floor(log10(raw))), m = raw / power;
    return power * (m < 1.5 ? 1 : m < 3.5 ? 2 : m < 7.5 ? 5 : 10);
}

void axis_decade(FILE *out, double v)
{
    int p = (int)lround(log10(v));
    if (p >= -3 && p <= 3)
        fprintf(out, "%g", v);
    else
        fprintf(out, "10<tspan dy=\"-5\" font-size=\"9\">%s%d</tspan>", p < 0 ? "−" : "", p < 0 ? -p : p);
}

/* Is there a number beside this line? Every one, or every second where they would touch. */
static bool has_number(const struct axis *a, double v, double room)
{
    double decade = fabs(axis_place(a, a->low * 10) - axis_place(a, a->low));
    long step = (long)fmax(ceil(room / fmax(decade, 1)), 1);
    return lround(log10(v / a->low)) % step == 0;
}

void axis_decades_up(const struct axis *y, double x1, double x2, FILE *out)
{
    for (double v = y->low; v <= y->high * 1.001; v *= 10) {
        double at = axis_place(y, v);
        fprintf(out, "<line class=\"grid\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" y2=\"%.1f\"/>", x1, x2, at,
                at);
        if (has_number(y, v, 14)) {
            fprintf(out, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"end\">", x1 - 8, at + 4);
            axis_decade(out, v);
            fputs("</text>", out);
        }
        fputc('\n', out);
    }
}

void axis_decades_across(const struct axis *x, double y1, double y2, FILE *out)
{
    for (double v = x->low; v <= x->high * 1.001; v *= 10) {
        double at = axis_place(x, v);
        fprintf(out, "<line class=\"grid\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" y2=\"%.1f\"/>", at, at, y1,
                y2);
        if (has_number(x, v, 36)) {
            fprintf(out, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"middle\">", at, y2 + 18);
            axis_decade(out, v);
            fputs("</text>", out);
        }
        fputc('\n', out);
    }
}

void axis_ticks(const struct axis *x, double y, FILE *out)
{
    double step = tick_step(x->high - x->low, fmax(fabs(x->to - x->from) / 90, 3));
    for (double v = ceil(x->low / step) * step; v <= x->high * 1.000001; v += step) {
        double at = axis_place(x, v);
        fprintf(out,
                "<line class=\"axis\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" y2=\"%.1f\"/><text x=\"%.1f\" "
                "y=\"%.1f\" text-anchor=\"middle\">%g</text>\n",
                at, at, y, y + 5, at, y + 20, round(v / step) * step);
    }
}

/* --- names of points --- */

static bool overlap(const struct chart_box *a, const struct chart_box *b)
{
    return a->x1 < b->x2 && b->x1 < a->x2 && a->y1 < b->y2 && b->y1 < a->y2;
}

/* From a point to the nearest place of a box. */
static double distance(const struct chart_box *b, double x, double y)
{
    double dx = fmax(fmax(b->x1 - x, x - b->x2), 0), dy = fmax(fmax(b->y1 - y, y - b->y2), 0);
    return hypot(dx, dy);
}

static size_t n_letters(const char *s)
{
    size_t n = 0;
    for (; *s; s++)
        n += ((unsigned char)*s & 0xc0) != 0x80;
    return n;
}

/* Where a name may stand around its point, best first. */
static const struct {
    double dx, dy;
    const char *anchor;
} spots[] = {{8, -8, "start"},   {-8, 16, "end"},   {-8, -8, "end"},  {8, 16, "start"},
             {0, -12, "middle"}, {0, 22, "middle"}, {12, 4, "start"}, {-12, 4, "end"}};
#define N_SPOTS (sizeof spots / sizeof *spots)

double chart_name_width(const char *name)
{
    size_t n = name ? n_letters(name) : 0;
    return CHART_LETTER * (double)(n < MAX_LETTER ? n : MAX_LETTER);
}

double chart_names_width(const struct chart_point *all, size_t n)
{
    double widest = 0;
    for (size_t i = 0; i < n; i++)
        widest = fmax(widest, chart_name_width(all[i].name));
    return widest;
}

static struct chart_box spot_box(size_t spot, const struct chart_point *p)
{
    double width = chart_name_width(p->name), x = p->x + spots[spot].dx, y = p->y + spots[spot].dy;
    if (spots[spot].anchor[0] == 'e')
        x -= width;
    else if (spots[spot].anchor[0] == 'm')
        x -= width / 2;
    return (struct chart_box){x, y - 11, x + width, y + 3};
}

/* No point and no other name is touched, and the name is clearly nearer to its own point than to others. */
static bool is_clear(const struct chart_point *all, size_t n, size_t i, const struct chart_box *b)
{
    double own = distance(b, all[i].x, all[i].y);
    for (size_t j = 0; j < n; j++) {
        if (j == i)
            continue;
        if (distance(b, all[j].x, all[j].y) < fmax(1.8 * own, 14))
            return false;
        if (all[j].anchor && !all[j].in_column && overlap(b, &all[j].box))
            return false;
    }
    return true;
}

static void place_name(struct chart_point *all, size_t n, size_t i, const struct chart_box *field)
{
    struct chart_point *p = &all[i];
    for (size_t s = 0; s < N_SPOTS; s++) {
        struct chart_box b = spot_box(s, p);
        if (b.x1 < field->x1 || b.x2 > field->x2 || b.y1 < field->y1 || b.y2 > field->y2 ||
            !is_clear(all, n, i, &b))
            continue;
        p->box = b;
        p->text_x = p->x + spots[s].dx;
        p->text_y = p->y + spots[s].dy;
        p->anchor = spots[s].anchor;
        return;
    }
    p->in_column = true;
}

/* Names that found no place beside their points, in the order of the points from the top. */
static void place_column(struct chart_point *all, size_t n, const struct chart_box *field, double x)
{
    double next = field->y1, above = -INFINITY;
    size_t left = 0;
    for (size_t i = 0; i < n; i++) {
        left += all[i].in_column;
        if (all[i].in_column)
            all[i].anchor = NULL;
    }
    const double line = fmin(fmax((field->y2 - field->y1) / fmax((double)left, 1), CHART_LINE), FAN);
    for (; left > 0; left--) {
        struct chart_point *p = NULL;
        for (size_t i = 0; i < n; i++)
            if (all[i].in_column && !all[i].anchor && all[i].y >= above && (!p || all[i].y < p->y))
                p = &all[i];
        if (!p)
            return;
        above = p->y;
        double latest = field->y2 - line * (double)(left - 1); /* those below need their room, too */
        p->text_x = x;
        p->text_y = fmax(next, fmin(p->y + 4, latest));
        p->anchor = "start";
        next = p->text_y + line;
    }
}

/* How high the line that leads from a point to its name is at x. */
static double leader_at(const struct chart_point *p, double x)
{
    return p->y + (p->text_y - 4 - p->y) * (x - p->x) / (p->text_x - 4 - p->x);
}

static bool lines_cross(const struct chart_point *a, const struct chart_point *b)
{
    double x = fmax(a->x, b->x);
    return (leader_at(a, x) - leader_at(b, x)) * (a->text_y - b->text_y) < 0;
}

/* In the order of their points, a line may lead through the dot of a point at its right, below which it then
 * ends. Two names whose lines cross change places, which makes both lines shorter together: until none do. */
static void uncross(struct chart_point *all, size_t n)
{
    for (bool changed = true; changed;) {
        changed = false;
        for (size_t i = 0; i < n; i++)
            for (size_t j = 0; all[i].in_column && j < i; j++) {
                if (!all[j].in_column || !lines_cross(&all[i], &all[j]))
                    continue;
                double y = all[i].text_y;
                all[i].text_y = all[j].text_y;
                all[j].text_y = y;
                changed = true;
            }
    }
}

/* Does the line that leads to a's name cross the name that stands beside b, or pass b's dot so closely that
 * it seems to come from there? */
static bool crosses(const struct chart_point *a, const struct chart_point *b)
{
    const double from = fmax(b->box.x1, a->x), to = fmin(b->box.x2, a->text_x - 4);
    if (b->x > a->x && fabs(leader_at(a, b->x) - b->y) < 7)
        return true;
    if (from >= to)
        return false;
    double at = leader_at(a, from), end = leader_at(a, to);
    return fmax(at, end) > b->box.y1 && fmin(at, end) < b->box.y2;
}

/* A name that a line crosses goes to the column, too, which may bend lines: until none is crossed. */
static bool clear_names(struct chart_point *all, size_t n)
{
    bool moved = false;
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < n; j++)
            if (all[i].in_column && all[j].name && !all[j].in_column && crosses(&all[i], &all[j])) {
                all[j].in_column = true;
                moved = true;
            }
    return moved;
}

bool chart_place_names(struct chart_point *all, size_t n, const struct chart_box *field, double column,
                       bool all_in_column)
{
    bool any = false;
    for (size_t i = 0; i < n; i++) {
        all[i].in_column = all_in_column && all[i].name;
        all[i].anchor = NULL;
    }
    for (size_t i = 0; i < n; i++)
        if (all[i].name && !all_in_column)
            place_name(all, n, i, field);
    do {
        place_column(all, n, field, column);
        uncross(all, n);
    } while (clear_names(all, n));
    for (size_t i = 0; i < n; i++)
        any |= all[i].in_column;
    return any;
}

void chart_put_cut(const char *name, size_t most, FILE *out)
{
    const size_t n = n_letters(name);
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

void chart_put_leaders(const struct chart_point *all, size_t n, FILE *out)
{
    for (size_t i = 0; i < n; i++)
        if (all[i].in_column)
            fprintf(out, "<line class=\"leader\" x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\"/>\n",
                    all[i].x, all[i].y, all[i].text_x - 4, all[i].text_y - 4);
}

void chart_put_names(const struct chart_point *all, size_t n, double width, FILE *out)
{
    for (size_t i = 0; i < n; i++) {
        if (!all[i].name)
            continue;
        fprintf(out, "<text class=\"name tag\" x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\">", all[i].text_x,
                all[i].text_y, all[i].anchor ? all[i].anchor : "start");
        const size_t room = (size_t)fmax((width - all[i].text_x) / CHART_LETTER, 1);
        chart_put_cut(all[i].name, all[i].in_column && room < MAX_LETTER ? room : MAX_LETTER, out);
        fputs("</text>\n", out);
    }
}
