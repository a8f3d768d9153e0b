/* feedback.h - a matrix in blocks of a type with the least loss under its Hessian: error feedback, then
 * refinement.
 *
 *     feedback_hessian_make(&h, sums, n_cols, &figures, NULL, &e);
 *     struct feedback_job job = {.h = &h, .type = QTYPE_Q4_K, ...};
 *     feedback_encode(&job, blocks, &loss, &e);
 *
 * Per block a search of scales for the pivots' weights on compensated weights, errors handed on in the order
 * of the file, and sweeps that move codes, scales and d against the whole matrix. A row whose loss is not
 * below that of the plain encoder keeps the plain encoder's bytes; so the loss under H never is above.
 * Specification: feedback; better-quants 2. */
#ifndef KERF_FEEDBACK_H
#define KERF_FEEDBACK_H

#include "feedback_format.h"
#include "feedback_hessian.h"
#include "feedback_rows.h"

#include <stdint.h>

struct pool;

struct feedback_loss {
    double plain,
        solved; /* tr(E H E^T) of the plain encoder's rows and of the result, H with a mean diagonal of 1 */
    uint64_t n_rows, n_kept; /* kept: rows that stayed plain */
};

struct feedback_job {
    const struct feedback_hessian *h;
    enum qtype type;
    uint64_t n_rows;
    /* Rows [row0, row0 + n) as float32 [n, n_cols]; called from several threads. */
    int (*read)(void *ctx, uint64_t row0, uint64_t n, float *rows, struct err *e);
    void *read_ctx;
    const uint8_t *plain; /* [n_rows] rows of blocks of the plain encoder */
    struct feedback_stages stages;
    const struct kern *kern;
    struct pool *pool;
};

#define FEEDBACK_SWEEPS 3

/* `blocks` [n_rows] rows of the type's blocks. The same bytes for any number of threads. *loss is added to.
 * ERR_ARG: a type without error feedback, or rows that its blocks do not divide. */
int feedback_encode(const struct feedback_job *job, uint8_t *blocks, struct feedback_loss *loss,
                    struct err *e);

/* Working memory of one thread. */
uint64_t feedback_chunk_bytes(uint64_t n_cols);

#endif
