/* checked.h - sizes that refuse to wrap. Every product or sum of numbers read from a file goes through here.
 */
#ifndef KERF_CHECKED_H
#define KERF_CHECKED_H

#include <stdbool.h>
#include <stdint.h>

/* True and *out = a*b (a+b), or false with *out unspecified when the result does not fit 64 bits. */
static inline bool checked_mul(uint64_t a, uint64_t b, uint64_t *out)
{
    return !__builtin_mul_overflow(a, b, out);
}

static inline bool checked_add(uint64_t a, uint64_t b, uint64_t *out)
{
    return !__builtin_add_overflow(a, b, out);
}

/* `n` rounded up to a multiple of `align` (a power of two); false when that overflows. */
static inline bool checked_align(uint64_t n, uint64_t align, uint64_t *out)
{
    uint64_t t;
    if (!checked_add(n, align - 1, &t))
        return false;
    *out = t & ~(align - 1);
    return true;
}

#endif
