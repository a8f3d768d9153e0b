/* lanes_pack.h - rows of B side by side, as the tiles of a product want them; the contract is in kern.h.
 * Included once per instruction set, after its lanes_<isa>.h, which says how many columns a tile has. */
#ifndef KERF_LANES_PACK_H
#define KERF_LANES_PACK_H

#include "kern_tables.h"

enum { TILE_COLS = TILE_VECTORS * LANES };

/* Sums stay in registers only if every loop over them is unrolled. */
#ifdef __clang__
#define UNROLL _Pragma("unroll")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif

static void lanes_pack(float *b, const float *src, size_t ld, size_t n_rows, size_t depth)
{
    for (size_t j = 0; j < TILE_COLS; j += LANES) {
        size_t p = 0;
        for (; j + LANES <= n_rows && p + LANES <= depth; p += LANES) {
            lf square[LANES];
            UNROLL for (int i = 0; i < LANES; i++) square[i] = lf_load(src + (j + (size_t)i) * ld + p);
            lf_transpose(square);
            UNROLL for (int i = 0; i < LANES; i++) lf_store(b + (p + (size_t)i) * TILE_COLS + j, square[i]);
        }
        for (; p < depth; p++)
            for (size_t i = j; i < j + LANES; i++)
                b[p * TILE_COLS + i] = i < n_rows ? src[i * ld + p] : 0.0f;
    }
}

#endif
