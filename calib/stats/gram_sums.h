/* gram_sums.h - the growing Gram matrix sum x x^T of rows that come in pieces.
 *
 *     gram_sums_init(&g, n_cols, GRAM_CHUNK, false, &e);
 *     gram_sums_add(&g, rows, n_rows, n_cols, NULL, pool, scratch, &e);   // as often as there are rows
 *     gram_sums_flush(&g, pool, scratch, &e);                             // what is pending, once at the end
 *
 * Rows are collected into chunks of fixed length. A chunk is multiplied in float32 (compute/gemm.h: the same
 * bits on every processor) and its product added to sums in double. So the result depends on the rows and
 * their order alone, not on the pieces they came in, nor on threads.
 *
 * The squares of the chunks' products are summed, too: they say how much a chunk differs from the mean, and
 * so how far the matrix is to be shrunk towards its diagonal (feedback/feedback_hessian.h). */
#ifndef KERF_GRAM_SUMS_H
#define KERF_GRAM_SUMS_H

#include "libquant/base/err.h"
#include "libquant/kern/kern.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct pool;

/* Rows of a chunk: about a window of text; of an expert, which sees a few rows at a time, fewer. */
#define GRAM_CHUNK        512
#define GRAM_CHUNK_EXPERT 64

struct gram_figures {
    double weight;   /* rows, or the sum of their weights */
    double n_chunks; /* chunks, the last one may be shorter */
    double squares;  /* sum over chunks and i != j of (product of the chunk)_ij ^ 2 */
};

struct gram_sums {
    size_t n_cols, chunk, n_pending;
    double *sums;   /* upper triangle, rows one after the other: n_cols + (n_cols - 1) + ... + 1 values */
    float *pending; /* [chunk, n_cols] */
    struct gram_figures figures;
    uint64_t n_mapped; /* bytes of `sums` and `pending` when they lie in a temporary file, else 0 */
};

/* Values of the upper triangle; 0 when they cannot be counted. */
uint64_t gram_n_values(uint64_t n_cols);

/* Bytes of the rows that wait for their chunk to be full. */
uint64_t gram_pending_bytes(uint64_t n_cols, uint64_t chunk);

/* `on_disk`: sums and pending rows lie in an unlinked temporary file of $TMPDIR (else /var/tmp) instead of
 * memory. */
int gram_sums_init(struct gram_sums *g, size_t n_cols, size_t chunk, bool on_disk, struct err *e);
void gram_sums_release(struct gram_sums *g); /* zeroed structs are allowed */

/* Scratch of all workers, shared by any number of matrices. */
struct gram_scratch;
int gram_scratch_new(struct gram_scratch **out, const struct kern *kern, struct pool *pool, struct err *e);
void gram_scratch_free(struct gram_scratch *s);

/* Add rows, `ld` values apart; row i counts with weights[i] >= 0 (x is scaled by its root), or with 1 when
 * `weights` is NULL. */
int gram_sums_add(struct gram_sums *g, const float *rows, size_t n_rows, size_t ld, const float *weights,
                  struct pool *pool, struct gram_scratch *s, struct err *e);
int gram_sums_flush(struct gram_sums *g, struct pool *pool, struct gram_scratch *s, struct err *e);

/* Products of rows of two kinds, sum l r^T: the same chunks (of GRAM_CHUNK rows), order and precision. */
struct cross_sums {
    size_t n_left, n_right, n_pending;
    double *sums;        /* [n_left, n_right] */
    float *left, *right; /* [GRAM_CHUNK, n_left], [GRAM_CHUNK, n_right] pending */
    uint64_t n_mapped;   /* as above */
};

int cross_sums_init(struct cross_sums *g, size_t n_left, size_t n_right, bool on_disk, struct err *e);
void cross_sums_release(struct cross_sums *g); /* zeroed structs are allowed */

/* Add dense rows left [n_rows, n_left] and right [n_rows, n_right]; products of row i count with weights[i],
 * or with 1 when `weights` is NULL. */
int cross_sums_add(struct cross_sums *g, const float *left, const float *right, size_t n_rows,
                   const float *weights, struct pool *pool, struct gram_scratch *s, struct err *e);
int cross_sums_flush(struct cross_sums *g, struct pool *pool, struct gram_scratch *s, struct err *e);

#endif
