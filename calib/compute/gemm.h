/* gemm.h - matrix products in float32, with the same bits on every processor.
 *
 * c[i][j] (+)= sum over p of a[i][p] * b[j][p]. The sum is defined, not left to a library: stretches of
 * GEMM_CHAIN values are each summed by one chain of fused multiply-adds from zero, in order, and added to c
 * one after the other. So an element depends on its own row and column alone, not on how many others
 * there are, and not on the instruction set (kern.h holds the levels to the same bits).
 *
 * B is packed once and multiplied with many rows of A. All functions are single-threaded, for use inside
 * jobs. */
#ifndef KERF_GEMM_H
#define KERF_GEMM_H

#include "libquant/kern/kern.h"

/* The error of a chain grows with the root of its length: with chains of 512 log-likelihoods of a small model
 * were off by two and a half times what they are with these, by which they are as near to a sum in double as
 * PyTorch's in float32. Shorter ones load and store c more often, which begins to cost. */
enum { GEMM_CHAIN = 128 };
_Static_assert(KERN_TILE_DEPTH % GEMM_CHAIN == 0, "a panel is cut into whole chains");

/* B [n_rows, depth], packed. `data` is the caller's, 64-byte aligned, gemm_floats(...) long. */
struct gemm_matrix {
    const struct kern_product *kern;
    size_t n_rows, depth;
    float *data;
};

/* Length of `data` for n_rows x depth, in floats. */
size_t gemm_floats(const struct kern_product *kern, size_t n_rows, size_t depth);

/* How many rows to pack at once for not a byte more of them decoded than needed: a multiple of what a tile
 * takes.
 */
size_t gemm_rows_at_once(const struct kern_product *kern);

/* Packs n rows from `rows` (row distance ld) as rows [row0, row0 + n) of b. row0 is a multiple of
 * gemm_rows_at_once; so is n, except at the end of b. */
void gemm_pack_rows(const struct gemm_matrix *b, size_t row0, size_t n, const float *rows, size_t ld);

/* Packs all of b from its transpose [depth, n_rows] (row distance ld). */
void gemm_pack_columns(const struct gemm_matrix *b, const float *columns, size_t ld);

/* c[m, b.n_rows] (+)= a[m, b.depth] B^T; rows lie lda and ldc apart. */
void gemm(size_t m, const float *a, size_t lda, const struct gemm_matrix *b, float *c, size_t ldc, bool add);

#endif
