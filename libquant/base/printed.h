/* printed.h - text that is printed into memory.
 *
 *     struct printed p;
 *     if (printed_begin(&p) != 0) return no_memory(e);
 *     fprintf(p.out, ...);
 *     char *text = printed_end(&p);
 *     if (!text) return no_memory(e);
 */
#ifndef KERF_PRINTED_H
#define KERF_PRINTED_H

#include <stddef.h>
#include <stdio.h>

struct printed {
    FILE *out; /* print here until printed_end */
    char *text;
    size_t n; /* bytes, when it has ended */
};

/* 0, and printed_end is due; or ERR_NOMEM. */
int printed_begin(struct printed *p);

/* What was printed, NUL-terminated; caller frees with free(). NULL when memory was out for any part of it:
 * no other sign of that needs to be looked for. */
char *printed_end(struct printed *p);

#endif
