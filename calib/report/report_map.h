/* report_map.h - a map of layers (from left to right) and kinds of tensors (from top to bottom) as inline
 * SVG, for pages: of bits, of errors. What a cell says stands in its title and is seen on hover. */
#ifndef KERF_REPORT_MAP_H
#define KERF_REPORT_MAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

struct map_cell {
    size_t row;
    int64_t column;   /* layer; -1: of no layer, stands in the first column */
    double shade;     /* 0: the ground of the page, 1: the full colour */
    bool warm;        /* the second colour */
    const char *text; /* shown where there is room, or NULL */
    char title[240];
};

struct map_step { /* of the legend */
    double shade;
    bool warm;
    const char *text;
};

struct map {
    const char *label;        /* what it shows, for readers that do not see it */
    const char *const *rows;  /* [n_rows] kinds; ".weight" at their ends is left out */
    size_t n_rows, n_columns; /* n_columns at least 1 */
    const struct map_cell *cells;
    size_t n_cells;
    const char *legend; /* what the shades mean */
    const struct map_step *steps;
    size_t n_steps;
};

/* For screens and for phones, of which the style sheet of pages shows one. */
void report_map(const struct map *m, FILE *out);

/* The row of this kind in a list of n, to which it is added if it is new. */
size_t report_map_row(const char **rows, size_t *n, const char *kind);

#endif
