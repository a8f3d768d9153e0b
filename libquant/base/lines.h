/* lines.h - a growing list of texts in an arena: the warnings, remarks and findings of one job. */
#ifndef KERF_LINES_H
#define KERF_LINES_H

#include "arena.h"
#include "err.h"

#include <stdarg.h>

/* Zeroed: empty. Items and texts live in the arena that lines_vadd is given. */
struct lines {
    const char **items;
    size_t n, cap;
};

/* Append one text, for functions that take a format. 0 or ERR_NOMEM; then nothing is appended. */
int lines_vadd(struct lines *l, struct arena *a, const char *fmt, va_list args) KERF_PRINTF(3, 0);

#endif
