/* profile.h - where a candidate's loss comes from: what each product adds, how far the states are off behind
 * each layer, and what would be left of the loss with one layer, or one kind of tensor, as the reference has
 * it.
 *
 * One walk through both models side by side (profile_walk.h), over some windows of the text:
 *
 * - Error of a product: the root of the mean over tokens of |y' - y|^2 / |y|^2, y the reference's output and
 *   y' the candidate's, for the reference's inputs (what this tensor alone does), and for the candidate's own
 *   (with all that came before it). About PROFILE_INPUTS tokens of those windows, without biases.
 * - Error of the states behind a layer: the same of the whole state, of all tokens.
 * - Restored: the loss of the candidate with one layer (weights, vectors, cache) or one kind of tensor (its
 *   matrices) of the reference in its place, and the gain, the candidate's loss less that, paired by token.
 *   These are whole runs of the changed model, no estimates; they are exact for the windows they are of, and
 *   their standard errors say what other windows would give. Gains need not add up to the loss.
 *
 * The loss is the KL divergence; of embeddings the cosine distance; of scores the squared difference. */
#ifndef KERF_PROFILE_H
#define KERF_PROFILE_H

#include "calib/passages.h"
#include "evaluate.h"
#include "statistics.h"

#define PROFILE_INPUTS 256 /* tokens whose products are compared, about */
#define PROFILE_COST   1.5 /* comparisons that all profiles together may cost */

struct profile_restored {
    struct estimate loss; /* what is left */
    struct estimate gain; /* the candidate's loss less that */
};

struct profile_layer {
    double error; /* of the states that leave it */
    struct profile_restored restored;
};

struct profile_kind { /* of tensors: "attn_q.weight"; or PROFILE_CACHE */
    const char *name; /* borrowed from the candidate's model */
    size_t n_tensors;
    double error, own_error; /* root of the mean square over its tensors; NaN: none is known */
    struct profile_restored restored;
};

#define PROFILE_CACHE "kv_cache"

enum profile_role { PROFILE_PRODUCT, PROFILE_EMBEDDING, PROFILE_HEAD };

struct profile_tensor {
    const char *name; /* borrowed likewise */
    enum profile_role role;
    int64_t layer; /* or -1 */
    size_t kind;
    enum qtype type;         /* in the candidate */
    size_t n_inputs;         /* rows compared */
    double error, own_error; /* NaN: not known (own: stacks of experts, whose tokens differ) */
};

struct profile {
    enum net_answer answer;
    size_t n_windows, n_windows_all; /* or texts: those of the profile, of the comparison */
    size_t n_tokens, n_losses;       /* run, and scored (or answers) */
    double cost;                     /* of this profile, in comparisons: counted in products, not measured */
    struct estimate loss;            /* of the candidate, on these */
    double embedding_error;          /* of the states that enter the first layer */
    struct profile_layer *layers;
    struct profile_kind *kinds;
    struct profile_tensor *tensors; /* owned, as the two above */
    size_t n_layers, n_kinds, n_tensors;
};

struct profile_options {
    struct pool *pool;
    uint64_t memory_bytes;
    enum activations activations;
    struct progress progress;          /* a share; counts layers */
    const struct compute_ops *compute; /* NULL: the back end of this machine */
    size_t n_windows;                  /* or texts; 0: as many as PROFILE_COST pays for, at least one */
    size_t n_candidates;               /* that share PROFILE_COST */
    bool plan_only;                    /* nothing is run; figures are NaN, all that is counted is there */
};

/* Profile of a candidate over windows of running text, or over single texts. ERR_ARG: its layers or tensors
 * are not those of the reference. *out: caller releases with profile_release. */
int profile_windows(struct profile *out, const struct evaluate_model *ref, const struct evaluate_model *cand,
                    const struct windows *w, const struct profile_options *opt, struct err *e);
int profile_texts(struct profile *out, const struct evaluate_model *ref, const struct evaluate_model *cand,
                  const struct passages *p, const struct profile_options *opt, struct err *e);
void profile_release(struct profile *p);

#endif
