/* profile_inputs.h - what products are given in a run of a profile, and how far their outputs differ between
 * two models. Inside of profile.h.
 *
 * Of the inputs of each matrix every `step`-th row is kept, counted over the text from the middle of the
 * first `step`, of a stack of experts from the first row that each of them gets. Which rows these are depends
 * on the text alone. The output of a product is without its bias. */
#ifndef KERF_PROFILE_INPUTS_H
#define KERF_PROFILE_INPUTS_H

#include "calib/model/forward.h"

#define PROFILE_MAX_TAKERS 3 /* matrices that take the same rows */

struct input_sample {
    const struct model_tensor *takers[PROFILE_MAX_TAKERS];
    size_t n_takers;
    int64_t expert; /* of their stacks, or -1 */
    size_t n_cols, n, cap, n_seen;
    float *x; /* [n, n_cols]; owned */
};

struct input_samples {
    size_t step;        /* keep one row of so many */
    size_t n_tokens;    /* of plain matrices only these; rows beyond are of other models */
    size_t ctx;         /* tokens of a window */
    const size_t *lens; /* tokens of each window that are text, or NULL: all; then experts are left out,
                           whose rows cannot be told from padding */
    bool plain_only;    /* leave experts out */
    struct input_sample *items; /* owned */
    size_t n, cap;
};

/* An observe_fn; ctx is a struct input_samples. */
int input_samples_take(void *ctx, const struct observation *o, struct err *e);

/* Rows of final states as the inputs of a head. */
int input_samples_take_states(struct input_samples *s, const struct model_tensor *head,
                              const struct hidden_states *states, struct err *e);

/* The sample of a matrix of this name and expert, or NULL. */
struct input_sample *input_samples_find(const struct input_samples *s, const char *taker, int64_t expert);
void input_samples_clear(struct input_samples *s); /* the settings stay */

/* Sums over rows of the relative squared differences of outputs, |y' - y|^2 / |y|^2. */
struct output_change {
    double sum, own_sum; /* y' of the same inputs as y; of the other model's own inputs */
    size_t n, n_own;
};

struct output_side {
    const struct weights *weights;
    const struct model_tensor *tensor;
    const struct input_sample *inputs; /* NULL: there are none */
};

/* Add what one matrix makes of the reference's inputs in both models, and the other model's of its own. Both
 * tensors have the same shape; rows [row0, row0 + n_rows) of them are used. */
int output_change_add(struct output_change *sum, const struct output_side *ref,
                      const struct output_side *other, uint64_t row0, uint64_t n_rows, struct compute *c,
                      struct err *e);

#endif
