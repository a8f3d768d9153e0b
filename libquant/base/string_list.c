/* string_list.c - see string_list.h. */
#include "string_list.h"

#include <string.h>

int string_list_vadd(struct string_list *l, struct arena *a, const char *fmt, va_list args)
{
    if (l->n == l->cap) {
        size_t cap = l->cap ? 2 * l->cap : 16;
        const char **items = arena_array(a, cap, sizeof *items);
        if (!items)
            return ERR_NOMEM;
        if (l->n)
            memcpy(items, l->items, l->n * sizeof *items);
        l->items = items;
        l->cap = cap;
    }
    const char *text = arena_vprintf(a, fmt, args);
    if (!text)
        return ERR_NOMEM;
    l->items[l->n++] = text;
    return 0;
}
