/* chart.h - what the charts of pages have in common, as inline SVG whose colours and fonts are the style
 * sheet's: axes, and names of points that touch nothing and cannot be taken for another point's. */
#ifndef KERF_CHART_H
#define KERF_CHART_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#define CHART_WIDE   960.0 /* of charts for screens, in the units of their text */
#define CHART_NARROW 400.0 /* for phones */
#define CHART_LEFT   70.0
#define CHART_RIGHT  30.0
#define CHART_TOP    16.0
#define CHART_HEAD   20.0 /* room for the name of the upright axis, above every point */
#define CHART_FLOOR  1e-9 /* losses below are drawn there: a logarithmic axis has no zero */
#define CHART_LINE   15.0 /* from one name of a column to the next */
#define CHART_LETTER 7.4  /* width of one, of wide fonts */

struct axis {
    double low, high, from, to; /* values, and their places */
    bool logarithmic;
};

double axis_place(const struct axis *a, double v);

/* Whole powers of ten around the values. */
void axis_fit_decades(struct axis *a, double low, double high);

/* Their lines from x1 to x2 with their values at the left, or from y1 to y2 with their values below. */
void axis_decades_up(const struct axis *y, double x1, double x2, FILE *out);
void axis_decades_across(const struct axis *x, double y1, double y2, FILE *out);

/* Ticks of an axis that is not logarithmic, below y: about one for each 90 units of length. */
void axis_ticks(const struct axis *x, double y, FILE *out);

/* A power of ten as every chart writes it, inside of a text element: 0.01, 100, or 10 with an exponent. */
void axis_decade(FILE *out, double v);

/* A point, and where its name stands: beside it, or in a column at the right with a line that leads there. */
struct chart_box {
    double x1, y1, x2, y2;
};

struct chart_point {
    const char *name; /* NULL: it has none, but keeps others away */
    double x, y;
    struct chart_box box;
    double text_x, text_y;
    const char *anchor;
    bool in_column;
};

/* Width of a name, and of the widest; names of more than 26 letters are cut. */
double chart_name_width(const char *name);
double chart_names_width(const struct chart_point *all, size_t n);

/* Give each name its place. `field`: what names beside points stay in; the column begins at `column` and ends
 * at the field's lower edge, or below it where there are too many. `all_in_column`: no name stands beside its
 * point. Is any name in the column? */
bool chart_place_names(struct chart_point *all, size_t n, const struct chart_box *field, double column,
                       bool all_in_column);

/* The leading lines, which go below the points, and the names, which go above, in a chart of this width. */
void chart_put_leaders(const struct chart_point *all, size_t n, FILE *out);
void chart_put_names(const struct chart_point *all, size_t n, double width, FILE *out);

/* A name of at most so many letters; of a longer one the end, which tells more of a path, and the whole on
 * hover. */
void chart_put_cut(const char *name, size_t most, FILE *out);

#endif
