/* forward.h - the forward pass, layer by layer: every window of text goes through one layer before the next
 * layer is touched, so the weights are read once for each pass whatever the amount of text, and a model may
 * be larger than memory.
 *
 *     struct forward_options opt = {.pool = pool, .memory_bytes = 1 << 30, .keep_end = ctx};
 *     forward_run(&states, &net, weights, ids, n_windows, ctx, &opt, &e);   // final states, normalised
 *
 * The result is the same to the bit for any number of threads and any memory bound. Who wants to see what
 * flows through the products (importance matrices, Hessians) hooks in as an observer. */
#ifndef KERF_FORWARD_H
#define KERF_FORWARD_H

#include "kv_cache.h"
#include "model_load.h"
#include "weights.h"

#include "calib/compute/compute.h"

struct observation {
    const struct model_tensor *const *tensors; /* the matrices that multiply these rows */
    size_t n_tensors;
    const float *x; /* [n_tokens, n_cols] before any rounding, on the host; borrowed during the call */
    size_t n_tokens, n_cols;
    int64_t expert;       /* of the tensors' stacks, or -1 for plain matrices */
    const float *weights; /* [n_tokens] the router's weight of the expert for each; NULL: no expert */
};

/* Called from the thread that runs the pass, in a fixed order, once for each block of tokens; the pool is
 * free to be used. A nonzero return ends the pass with it. */
typedef int (*observe_fn)(void *ctx, const struct observation *o, struct err *e);

/* What attention did with one window of inputs x, for Hessians of k and v: the mass that each token receives,
 * and the inputs as attention mixes them for its values, z = sum over j of p_ij x_j. Mixed rows are pooled
 * over the query heads: head h takes the queries whose position plus h divides by a stride that gives
 * about 1.5 rows for each token. */
struct attention_observation {
    const struct model_tensor *q, *k, *v; /* one and the same when they are fused */
    const float *x;                       /* [n_tokens, n_cols] inputs of the three, one window */
    size_t n_tokens, n_cols;
    const float *mass;  /* [n_tokens] sum over queries of the probability, mean over heads */
    const float *mixed; /* [n_mixed, n_cols] */
    size_t n_mixed;
};

/* As observe_fn, once for each window of an attention layer. */
typedef int (*observe_attention_fn)(void *ctx, const struct attention_observation *o, struct err *e);

/* Called when all windows are through a layer. */
typedef int (*layer_done_fn)(void *ctx, uint32_t layer, struct err *e);

/* Can a model run texts that share their beginning as branches (forward_options.tree)? Not if a layer carries
 * a state from token to token. */
bool forward_takes_tree(const struct net *net);

struct forward_options {
    const struct compute_ops *compute; /* what computes; NULL: the back end of this machine */
    struct pool *pool;
    uint64_t memory_bytes; /* bound on states and buffers; the keys of one window are always held ... */
    unsigned memory_share; /* ... but where this is set: ERR_ARG when they and the smallest buffers exceed the
                              bound, which is one of so many parts of --memory */
    uint64_t keep_bytes;   /* bound on the final states, which outlive the pass; 0: an eighth of the above */
    enum activations activations;
    struct kv_cache cache;       /* what keys and values are rounded to; zeroed: exact */
    const struct row_tree *tree; /* what the rows of all windows are, where they are not one text each; every
                                    row then has the bits that it has in a pass over its own text alone.
                                    Not with observe_attention. NULL: windows are texts */
    size_t keep_first,
        keep_end;       /* positions (rows, with a tree) of each window whose final states are wanted */
    observe_fn observe; /* or NULL */
    observe_attention_fn
        observe_attention;    /* or NULL; then windows are not cut, whatever memory_bytes says */
    layer_done_fn layer_done; /* or NULL */
    void *observe_ctx;        /* of the three above */
    uint32_t observe_first;   /* layers before it run unobserved */
    bool all_experts;         /* `observe` sees every token go through every expert, which changes no state */
    struct progress progress; /* in tokens x layers; counts layers */
};

/* ids [n_windows, ctx], each below the vocabulary (else ERR_ARG). *states: n_windows * (keep_end -
 * keep_first) rows of n_embd values after the final norm, ready for the head; caller frees with
 * hidden_states_free. `states` may be NULL when only the observer matters. */
int forward_run(struct hidden_states **states, const struct net *net, struct weights *w, const int32_t *ids,
                size_t n_windows, size_t ctx, const struct forward_options *opt, struct err *e);

/* Would forward_run refuse these windows (without a tree) for want of memory? With its message; nothing is
 * run. */
int forward_check(const struct net *net, struct weights *w, size_t n_windows, size_t ctx,
                  const struct forward_options *opt, struct err *e);

/* A part of the pass: layers [first, end). */
struct forward_span {
    const struct hidden_states
        *from;           /* states that enter layer `first`; NULL: the embeddings (`first` must be 0) */
    uint32_t first, end; /* end at most net->n_layers */
};

/* forward_run over a part of the layers, to run only what a change of some weights touches. With `end` before
 * the last layer *states are all n_windows * ctx rows as they enter layer `end`, without the final norm, and
 * the keep options do not matter; else the result is that of forward_run. */
int forward_run_span(struct hidden_states **states, const struct net *net, struct weights *w,
                     const int32_t *ids, size_t n_windows, size_t ctx, const struct forward_span *span,
                     const struct forward_options *opt, struct err *e);

#endif
