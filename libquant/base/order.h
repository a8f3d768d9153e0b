/* order.h - a total order of numbers that may be NaN, for every sort and selection: a comparison that calls
 * NaN equal to everything is no order, and what qsort or a search makes of it depends on the library. */
#ifndef KERF_ORDER_H
#define KERF_ORDER_H

/* Negative, 0 or positive: x before, equal to or behind y. NaN stands behind all numbers and equals NaN. */
static inline int order_doubles(double x, double y)
{
    int x_nan = x != x, y_nan = y != y;
    return x_nan || y_nan ? x_nan - y_nan : (x > y) - (x < y);
}

#endif
