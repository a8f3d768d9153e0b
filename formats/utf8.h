/* utf8.h - is this well-formed UTF-8? The one answer for JSON, GGUF keys and texts. */
#ifndef KERF_UTF8_H
#define KERF_UTF8_H

#include <stdbool.h>
#include <stddef.h>

/* Length of the longest well-formed prefix of `n` bytes: `n` when all of it is UTF-8 (Unicode, table 3-7: no
 * overlong forms, no surrogates, nothing above U+10FFFF). */
size_t utf8_prefix(const void *text, size_t n);

static inline bool utf8_valid(const void *text, size_t n)
{
    return utf8_prefix(text, n) == n;
}

#endif
