/* product.c - see product.h. Defines the bits of all levels: each element is one chain of fused
 * multiply-adds. */
#include "product.h"

#include <math.h>
#include <stdint.h>
#include <string.h>

#ifdef __FP_FAST_FMAF
static inline float fused(float a, float b, float c)
{
    return fmaf(a, b, c);
}
#else
/* a * b + c with one rounding, where the processor has no such instruction and the C library's fmaf is slow.
 * The product is exact in double. The sum is rounded to odd: what was lost is known (Knuth's two-sum) and
 * goes into the last bit, so that rounding to float afterwards sees it (S. Boldo, G. Melquiond, "Emulation of
 * FMA and correctly rounded sums: proved algorithms using rounding to odd", 2008). Where a sum is
 * infinite, what was lost is NaN, and nothing is stepped. */
static inline float fused(float a, float b, float c)
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

enum { PRODUCT_ROWS = 4, PRODUCT_COLS = 8 };

static void product_tile(size_t n_rows, size_t depth, const float *a, const float *b, float *c, size_t ldc,
                         bool add)
{
    for (size_t r = 0; r < n_rows; r++) {
        float sum[PRODUCT_COLS] = {0};
        for (size_t p = 0; p < depth; p++)
            for (size_t j = 0; j < PRODUCT_COLS; j++)
                sum[j] = fused(a[r * KERN_TILE_STRIDE + p], b[p * PRODUCT_COLS + j], sum[j]);
        for (size_t j = 0; j < PRODUCT_COLS; j++)
            c[r * ldc + j] = add ? c[r * ldc + j] + sum[j] : sum[j];
    }
}

static void product_pack(float *b, const float *src, size_t ld, size_t n_rows, size_t depth)
{
    for (size_t p = 0; p < depth; p++)
        for (size_t j = 0; j < PRODUCT_COLS; j++)
            b[p * PRODUCT_COLS + j] = j < n_rows ? src[j * ld + p] : 0.0f;
}

const struct kern_product product_ref = {PRODUCT_ROWS, PRODUCT_COLS, product_tile, product_pack};
