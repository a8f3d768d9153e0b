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

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

struct printed {
    FILE *out;  /* print here until printed_end; the struct stays where it is until then */
    char *text; /* NUL-terminated when it has ended */
    size_t n;   /* bytes, when it has ended */
    size_t cap;
    bool failed;
};

/* 0, and printed_end is due; or ERR_NOMEM. */
int printed_begin(struct printed *p);

/* What was printed, NUL-terminated; caller frees with free(). NULL when memory was out for any part of it:
 * no other sign of that needs to be looked for. Not after printed_abort. */
char *printed_end(struct printed *p);

/* Let go of what was printed, ended or not. Nothing happens where all is zero, as after a failed begin. */
void printed_abort(struct printed *p);

#endif
