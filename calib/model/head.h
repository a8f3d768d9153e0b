/* head.h - from final states to what evaluation wants, without ever holding a row of logits per token.
 *
 * Logits are computed in tiles of positions x vocabulary. For each position and model a running maximum, a
 * running sum of exponentials and the target's logit are kept; for each candidate also the running sum of
 * exp(z - max) (z - w), z the reference's logits and w the candidate's. At the end
 *
 *     lse = max + ln sum,    nll = lse - z_target,    KL(ref || cand) = E_ref[z - w] - lse_ref + lse_cand
 *
 * so one sweep over the vocabulary serves the reference and any number of candidates. */
#ifndef KERF_HEAD_H
#define KERF_HEAD_H

#include "model_load.h"
#include "weights.h"

#include "calib/compute/compute.h"

struct head_model {
    const struct net *net;
    const struct weights *weights;
    const struct hidden_states *states; /* [n, n_embd] from forward_run */
};

struct head_options {
    struct pool *pool;
    uint64_t memory_bytes;
    enum activations activations;
    struct progress progress;          /* in rows of the vocabulary */
    const struct compute_ops *compute; /* NULL: the back end of this machine */
};

/* models[0] is the reference. targets [n] below the vocabulary; scores [n_models, n].
 * ERR_ARG when vocabularies differ in size; ERR_UNSUPPORTED for a model without a language head. */
int head_score(const struct head_model *models, size_t n_models, const int32_t *targets, size_t n,
               const struct head_options *opt, struct head_score *scores, struct err *e);

/* How many of n positions' logits fit a quarter of a memory bound: 1 to n. */
size_t logit_rows_at_once(size_t n_vocab, size_t n, uint64_t memory_bytes);

/* Plain logits of states [first, first + n) into out [n, n_vocab]. */
int head_logits(const struct head_model *m, size_t first, size_t n, const struct head_options *opt,
                float *out, struct err *e);

#endif
