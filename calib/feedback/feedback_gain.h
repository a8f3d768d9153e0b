/* feedback_gain.h - losses as error feedback will leave them, for a plan that is made for it.
 *
 *     loss_table_measure(&t, ...);                 // losses of the plain encoder
 *     feedback_gain_apply(&t, &opt, &e);     // times what feedback leaves of them
 *     allocator_solve(a, ...);
 *
 * How much feedback gains depends on the type and, more, on the spectrum of a matrix's inputs; code books
 * gain nothing. So a sample of rows of each matrix is solved in each type that could be chosen, under its own
 * Hessian. A divergence falls less than the layer loss does: by the power FEEDBACK_GAIN_POWER of its ratio,
 * which is what whole models showed in Q2_K, Q3_K and Q4_K. */
#ifndef KERF_FEEDBACK_GAIN_H
#define KERF_FEEDBACK_GAIN_H

#include "calib/solve/loss_table.h"

#include "libquant/base/progress.h"

struct hessian_file;

#define FEEDBACK_GAIN_POWER 0.7

struct feedback_gain_options {
    struct pool *pool;
    const struct kern *kern;
    const struct hessian_file *hessian;
    struct progress progress; /* a share */
};

/* Scales the losses of `t`, which have to be known. Matrices without a Hessian and types without error
 * feedback stay. The same figures for any number of threads. ERR_ARG: the Hessians are of another model. */
int feedback_gain_apply(struct loss_table *t, const struct feedback_gain_options *opt, struct err *e);

#endif
