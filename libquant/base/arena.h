/* arena.h - many small objects with one lifetime (the names and tables of one file), released at once. */
#ifndef KERF_ARENA_H
#define KERF_ARENA_H

#include <stdarg.h>
#include <stddef.h>

struct arena_chunk;

/* Caller-owned; a zeroed struct is an empty arena. */
struct arena {
    struct arena_chunk *head;
    size_t n_bytes; /* handed out so far */
};

/* `n` bytes aligned for any type, zeroed; NULL when memory is refused. Valid until arena_release. */
void *arena_alloc(struct arena *a, size_t n);

/* `n` elements of `size` bytes, zeroed; NULL on overflow or refusal. */
void *arena_array(struct arena *a, size_t n, size_t size);

/* Copy of `n` bytes plus a terminating NUL; NULL when memory is refused. */
char *arena_strndup(struct arena *a, const char *s, size_t n);
char *arena_strdup(struct arena *a, const char *s);
char *arena_printf(struct arena *a, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
char *arena_vprintf(struct arena *a, const char *fmt, va_list args) __attribute__((format(printf, 2, 0)));

void arena_release(struct arena *a);

#endif
