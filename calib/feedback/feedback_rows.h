/* feedback_rows.h - error feedback and refinement of 64 rows at once, for one type.
 *
 * The rows are independent; what they share is the matrix H. So everything is written for as many rows side
 * by side as a register holds, one weight of each in a vector, and nothing is ever summed across a vector:
 * the bits do not depend on the instruction set. Products with parts of H over all columns go through
 * compute/gemm.h, 64 rows at a time.
 */
#ifndef KERF_FEEDBACK_ROWS_H
#define KERF_FEEDBACK_ROWS_H

#include "feedback_format.h"
#include "feedback_hessian.h"

#include "libquant/kern/kern.h"

#include <stddef.h>
#include <stdbool.h>
#include <stdint.h>

enum { FEEDBACK_ROWS = 64, FEEDBACK_PANEL = 256 };

struct feedback_stages {
    bool feedback;     /* hand the error of a weight on to those behind it */
    unsigned n_sweeps; /* of refinement */
};

/* What a chunk of rows works on; columns are the outer index: x[col * FEEDBACK_ROWS + row]. */
struct feedback_chunk {
    const struct feedback_format *format;
    const struct feedback_hessian *h;
    const struct kern_product *kern;
    struct feedback_stages stages;
    float *weights;  /* [n_cols, 64] the original */
    float *work;     /* [n_cols, 64] compensated weights; then the gradient (W - V) H */
    float *codes;    /* [n_cols, 64] */
    float *scales;   /* [n_cols / sub, 64] integers */
    float *mins;     /* [n_cols / sub, 64] integers, or unused */
    float *d, *dmin; /* [n_cols / block, 64] */
    float *delta;    /* [FEEDBACK_PANEL, 64] */
    float *packed;   /* gemm_floats(kern, 64, n_cols) */
};

/* Codes, scales, mins, d and dmin from the weights. */
typedef void feedback_rows_fn(struct feedback_chunk *c);
feedback_rows_fn feedback_rows_base, feedback_rows_avx2, feedback_rows_avx512;

/* (W - V) H into `work`, for the codes of the chunk. */
void feedback_gradient(struct feedback_chunk *c);

#endif
