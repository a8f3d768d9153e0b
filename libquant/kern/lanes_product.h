/* lanes_product.h - the tiles of matrix products in vector form; the contract is in kern.h, the reference in
 * ../product.c. Included once per instruction set, after its lanes_<isa>.h, which says how many rows and
 * vectors a tile has: as many as the registers hold, since each value that is loaded then serves most
 * products.
 *
 * A lane is a column, so each element keeps a chain of its own in the order of the reference. */
#ifndef KERF_LANES_PRODUCT_H
#define KERF_LANES_PRODUCT_H

#include "lanes_pack.h"

static inline __attribute__((always_inline)) void
lanes_tile_of(const int rows, size_t depth, const float *a, const float *b, float *c, size_t ldc, bool add)
{
    lf sum[TILE_ROWS][TILE_VECTORS];
    UNROLL for (int r = 0; r < rows; r++)
    {
        UNROLL for (int v = 0; v < TILE_VECTORS; v++)
        {
            sum[r][v] = lf_all(0);
            __builtin_prefetch(c + (size_t)r * ldc + v * LANES, 1);
        }
    }
    for (size_t p = 0; p < depth; p++, a++, b += TILE_COLS) {
        lf col[TILE_VECTORS];
        UNROLL for (int v = 0; v < TILE_VECTORS; v++) col[v] = lf_load(b + v * LANES);
        UNROLL for (int r = 0; r < rows; r++)
        {
            const lf row = lf_all(a[r * KERN_TILE_STRIDE]);
            UNROLL for (int v = 0; v < TILE_VECTORS; v++) sum[r][v] = lf_fused(row, col[v], sum[r][v]);
        }
    }
    UNROLL for (int r = 0; r < rows; r++)
    {
        UNROLL for (int v = 0; v < TILE_VECTORS; v++)
        {
            float *to = c + (size_t)r * ldc + v * LANES;
            if (add)
                sum[r][v] += lf_load(to);
            lf_store(to, sum[r][v]);
        }
    }
}

static void lanes_tile(size_t n_rows, size_t depth, const float *a, const float *b, float *c, size_t ldc,
                       bool add)
{
    if (n_rows == TILE_ROWS) {
        lanes_tile_of(TILE_ROWS, depth, a, b, c, ldc, add);
        return;
    }
    for (; n_rows >= 4; n_rows -= 4, a += 4 * KERN_TILE_STRIDE, c += 4 * ldc)
        lanes_tile_of(4, depth, a, b, c, ldc, add);
    for (; n_rows > 0; n_rows--, a += KERN_TILE_STRIDE, c += ldc)
        lanes_tile_of(1, depth, a, b, c, ldc, add);
}

#define LANES_PRODUCT                                                                                        \
    {                                                                                                        \
        TILE_ROWS, TILE_COLS, lanes_tile, lanes_pack                                                         \
    }

#endif
