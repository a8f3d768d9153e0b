/* string_list.h - a growing list of texts in an arena: the warnings, remarks and findings of one job. */
#ifndef KERF_STRING_LIST_H
#define KERF_STRING_LIST_H

#include "arena.h"
#include "err.h"

#include <stdarg.h>

/* Zeroed: empty. Items and texts live in the arena that string_list_vadd is given. */
struct string_list {
    const char **items;
    size_t n, cap;
};

/* Append one text, for functions that take a format. 0 or ERR_NOMEM; then nothing is appended. */
int string_list_vadd(struct string_list *l, struct arena *a, const char *fmt, va_list args) KERF_PRINTF(3, 0);

#endif
