/* fused.h - a * b + c with one rounding, where the processor has no such instruction and the C library's fmaf
 * is slow.
 *
 * The product is exact in double. The sum is rounded to odd: what was lost is known (Knuth's two-sum) and
 * goes into the last bit, so that rounding to float afterwards sees it (S. Boldo, G. Melquiond, "Emulation of
 * FMA and correctly rounded sums: proved algorithms using rounding to odd", 2008). Where a sum is infinite,
 * what was lost is NaN, and nothing is stepped. */
#ifndef KERF_FUSED_H
#define KERF_FUSED_H

#include <stdint.h>
#include <string.h>

static inline float fused_emulated(float a, float b, float c)
{
    double p = (double)a * (double)b, d = (double)c, s = p + d, back = s - p;
    double lost = (p - (s - back)) + (d - back);
    uint64_t bits;
    memcpy(&bits, &s, sizeof bits);
    uint64_t step = (lost > 0) == (s > 0) ? 1 : (uint64_t)-1;
    if ((lost < 0 || lost > 0) && !(bits & 1))
        bits += step;
    memcpy(&s, &bits, sizeof s);
    return (float)s;
}

#endif
