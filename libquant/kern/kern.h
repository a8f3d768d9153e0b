/* kern.h - the table of compute kernels, one per instruction-set level.
 *
 * Tables are const and complete; entries a level does not improve point to the reference, so no caller tests
 * for NULL. All entries that touch file bytes are EXACT: for any input they give the bytes (or float bits) of
 * the plain reference, on every level; tests/diff holds them to it. They get there by working on several
 * independent blocks or candidates at once, never by reordering a sum. */
#ifndef KERF_KERN_H
#define KERF_KERN_H

#include "../types.h"

#include <stdbool.h>
#include <stddef.h>

/* Decode `n_cols` elements (a multiple of the block) from `src`. */
typedef void (*kern_decode_row)(float *dst, const void *src, size_t n_cols);

/* Encode one row. `importance`: n_cols non-negative weights or NULL. `src` finite. */
typedef void (*kern_encode_row)(void *dst, const float *src, size_t n_cols, const float *importance);

/* Tiles of a product C = A B^T in float32. A row of A is read from a panel of at most KERN_TILE_DEPTH values
 * with a fixed distance between rows (no multiple of a page, so that rows do not fight for the same places of
 * the cache); B comes packed, the `cols` values of a step side by side.
 *
 *   tile: c[r][j] (+)= sum of a[r * KERN_TILE_STRIDE + p] * b[p * cols + j] over p < depth, for r < n_rows (1
 * to rows) and all j < cols; rows of c lie ldc apart. `add`: onto what c holds. pack: b[p * cols + j] = src[j
 * * ld + p] for p < depth, j < n_rows (at most cols), zero for the other j.
 *
 * EXACT: an element is one chain of fused multiply-adds from zero in the order of p, and one addition to c.
 * So its bits depend on no other element, on no tile and on no level. */
enum {
    KERN_TILE_DEPTH = 512,
    KERN_TILE_STRIDE = KERN_TILE_DEPTH + 16,
    KERN_MAX_TILE_ROWS = 12,
    KERN_MAX_TILE_COLS = 32
};

struct kern_product {
    size_t rows, cols;
    void (*tile)(size_t n_rows, size_t depth, const float *a, const float *b, float *c, size_t ldc, bool add);
    void (*pack)(float *b, const float *src, size_t ld, size_t n_rows, size_t depth);
};

struct kern {
    const char *isa;                     /* "ref", "sse2", "avx2", "avx512", "neon" */
    kern_decode_row decode[QTYPE_COUNT]; /* EXACT; NULL only where qtype_info says can_decode is false */
    kern_encode_row encode[QTYPE_COUNT]; /* EXACT; NULL only where can_encode is false */
    const struct kern_product *product;  /* EXACT */
};

/* The best table for this CPU. Never NULL. */
const struct kern *kern_native(void);

/* Table of a level by name ("ref", "avx2", ..., "native"); NULL when unknown or not supported by this CPU. */
const struct kern *kern_by_name(const char *isa);

/* NULL-terminated list of the level names this CPU supports, for messages. */
const char *const *kern_names(void);

#endif
