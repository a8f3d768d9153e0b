/* feedback_hessian.h - the matrix H of a product, ready for error feedback: shrunk, damped, factored.
 *
 * Sums of few tokens are noise off the diagonal, and feedback that trusts them is worse than none. So
 *
 *     H <- (1 - lambda) H + lambda diag(H),     lambda = clamp(max(3 lambda^, 0.1), at most 0.9)
 *     lambda^ = sum_{i != j} Var(H_ij) / sum_{i != j} H_ij^2,   Var from the spread of the chunks' products
 *
 * (J. Schaefer, K. Strimmer, 2005; the factor 3 and the bounds are measured: specification, feedback,
 * "Layers"), and 1 % of the mean of the diagonal is added to it. An expert leans on what all experts of its
 * layer see instead of the diagonal, scaled to its own trace.
 *
 * Factor: H = R R^T with R upper, U = R^-1, so H^-1 = U^T U; D_j = 1 / U_jj^2. Double precision, LAPACK. */
#ifndef KERF_FEEDBACK_HESSIAN_H
#define KERF_FEEDBACK_HESSIAN_H

#include "libquant/base/err.h"

#include <stdbool.h>
#include <stddef.h>

struct gram_figures;

/* Factors of the blocks of H on its diagonal, for groups of n = 16 or 32 columns. */
struct feedback_group {
    float *factor; /* [n_cols / n][n, n], as `factor` below */
    float *pivots; /* [n_cols] */
};

struct feedback_hessian {
    size_t n_cols;   /* a multiple of 32 */
    float *matrix;   /* [n_cols, n_cols] shrunk and damped, the mean of its diagonal is 1 */
    float *factor;   /* [n_cols, n_cols] row k, column j < k: U_jk / U_jj, the share of error j that weight k
                        takes */
    float *pivots;   /* [n_cols] D */
    float *diagonal; /* [n_cols] of `matrix` */
    struct feedback_group groups16, groups32;
    double lambda; /* the shrinkage that was applied */
    double gain;   /* sum of D / sum of the diagonal: about what feedback leaves of the loss */
    double scale;  /* `matrix` is scale times the sums, shrunk */
};

/* lambda for these figures, `n_cols` and the sums they belong to [n_cols, n_cols]. Without two chunks it is
 * 0.9. */
double feedback_lambda(const double *sums, size_t n_cols, const struct gram_figures *figures);

/* From sums [n_cols, n_cols], which are used up. `pool` [n_cols, n_cols]: sums over all tokens of the layer,
 * for an expert, or NULL; it is only read. ERR_ARG: no data at all (a trace of 0); ERR_FORMAT: the matrix
 * cannot be factored, or is of no shape for it; ERR_IO: no LAPACK (lapack.h). *out: caller releases with
 * feedback_hessian_release. */
int feedback_hessian_make(struct feedback_hessian *out, double *sums, size_t n_cols,
                          const struct gram_figures *figures, const double *pool, struct err *e);
void feedback_hessian_release(struct feedback_hessian *h); /* zeroed structs are allowed */

/* Bytes that making one holds at most, `sums` and `pool` among them. */
unsigned long long feedback_hessian_bytes(size_t n_cols, int with_pool);

#endif
