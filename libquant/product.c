/* product.c - see product.h. Defines the bits of all levels: each element is one chain of fused
 * multiply-adds. */
#include "product.h"

#include "fused.h"

#include <math.h>

#ifdef __FP_FAST_FMAF
#define fused fmaf
#else
#define fused fused_emulated
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
