/* feedback_correction.h - weights for inputs that carry the errors of quantized layers before them.
 *
 * On inputs x' of the quantized model, V x' is to follow what the original W makes of its own inputs x. The
 * least squares target is W + T H'^-1, H' = sum x' x'^T, with
 *
 *     T = W C',  C' = sum (x - x') x'^T                                  (inputs)
 *     T = R - W H',  R = sum y x'^T, y what W x is meant to add          (outputs)
 *
 * and the solver takes W + a T H'^-1 under H' in the place of W. With as many tokens as there are, most of
 * T is noise; the strength a is the one of least error on text that neither C' nor H' has seen:
 *
 *     a = <D, T_h> / <D H_h, D>,   D = T H'^-1, T_h and H_h of a validation text, 0 <= a <= 1.
 *
 * The second form can also take in what the residual stream has lost before (y = x_out - x'_in).
 * Specification: better-quants 2c; i.e. QEP (arXiv 2504.09629) with a strength that is measured. */
#ifndef KERF_FEEDBACK_CORRECTION_H
#define KERF_FEEDBACK_CORRECTION_H

#include "feedback_hessian.h"

#include "calib/compute/gemm.h"

#include <stdint.h>

struct pool;

/* Sums over one text. */
struct correction_sums {
    const double *gram;  /* [n_cols, n_cols] H', as they are */
    const double *cross; /* [n_cols, n_cols] C', or [n_rows, n_cols] R */
};

/* Ready to correct rows; caller releases with feedback_correction_release. */
struct feedback_correction {
    size_t n_cols;
    bool of_outputs;
    float strength;
    const double *cross; /* R, or NULL; borrowed, times `scale` */
    double scale;
    struct gemm_matrix inputs;     /* C' by columns, or H' */
    struct gemm_matrix turn, back; /* U^T and U: H'^-1 is one after the other */
};

/* `h` is made of `sums->gram`. Borrows `sums->cross` where it is R. The strength is 1. */
int feedback_correction_make(struct feedback_correction *out, const struct feedback_hessian *h,
                             const struct correction_sums *sums, bool of_outputs, const struct kern *kern,
                             struct err *e);

/* Bytes that making one and its strength takes, the three sums [n_cols, n_cols] of double among them. */
unsigned long long feedback_correction_bytes(size_t n_cols);
void feedback_correction_release(struct feedback_correction *c); /* zeroed structs are allowed */

/* Rows [row0, row0 + n) of W, in place. Any thread. */
int feedback_correct_rows(const struct feedback_correction *c, uint64_t row0, uint64_t n, float *rows,
                          struct err *e);

/* The rows of W that a correction is for. */
struct correction_rows {
    uint64_t n_rows;
    int (*read)(void *ctx, uint64_t row0, uint64_t n, float *rows, struct err *e); /* several threads */
    void *ctx;
};

/* What the strength is made of, to be summed over the matrices of an input. */
struct correction_fit {
    double gain, norm; /* <D, T_h>, <D H_h, D> */
};

/* Add those of one matrix; `validation` is like `c`, of that text (its factors are not used). The same for
 * any number of threads. */
int feedback_correction_fit(struct correction_fit *fit, const struct feedback_correction *c,
                            const struct correction_sums *validation, const struct correction_rows *rows,
                            struct pool *pool, struct err *e);

double feedback_correction_strength(const struct correction_fit *fit);

#endif
