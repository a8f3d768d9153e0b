/* layer_run.h - what a step of a layer works on: the states of a group of whole windows, the weights of the
 * layer, and buffers. Shared by forward.c (which fills it) and the steps; nobody else needs it.
 *
 * Steps go through the group in blocks of tokens, so that the buffers stay bounded; what must be seen as a
 * whole (keys and values of a window, a recurrent state) has its own buffers. */
#ifndef KERF_LAYER_RUN_H
#define KERF_LAYER_RUN_H

#include "forward.h"

#include "calib/compute/compute.h"

struct layer_run {
    struct compute *compute;
    const struct compute_ops *ops; /* of `compute` */
    const struct net *net;
    const struct net_layer *layer;
    const struct weights *weights;
    const struct rope_table *rope, *local_rope;
    struct kv_cache cache;
    size_t ctx;                  /* tokens of a window; the group's windows follow each other */
    const struct row_tree *tree; /* or NULL; of it the group has rows from tree_row on, at ... */
    size_t tree_row;
    const uint32_t *positions; /* ... these positions */
    size_t n_tokens;           /* of the group */
    size_t block;              /* tokens to work on at once: whole windows, or a part of the single window */
    struct region h;           /* [n_tokens, n_embd] the states, updated in place */
    struct region norm;        /* [block, n_embd] */
    struct region wide;        /* block * layer_wide_cols floats */
    struct region keys;        /* n_tokens * layer_kept_cols floats: keys, then values */
    struct region state;       /* layer_state_floats: recurrent state of delta-net layers */
    observe_fn observe;
    observe_attention_fn observe_attention; /* then block is n_tokens, at least */
    void *observe_ctx;
    bool all_experts; /* the observer sees every token in every expert */
};

/* Floats per token of a block, and per token of the group, that the steps of a layer need besides `norm`. */
size_t layer_wide_cols(const struct net *net, const struct net_layer *l);
size_t layer_kept_cols(const struct net_layer *l);
size_t layer_state_floats(const struct net_layer *l);

int step_attention(struct layer_run *r, struct err *e);
int step_mlp(struct layer_run *r, struct err *e);
int step_moe(struct layer_run *r, struct err *e);
int step_delta_net(struct layer_run *r, struct err *e);
int step_latent(struct layer_run *r, struct err *e);

size_t attention_wide_cols(const struct attention *a);
size_t latent_wide_cols(const struct attention *a);
size_t moe_wide_cols(const struct net *net, const struct moe *m);
size_t delta_net_wide_cols(const struct delta_net *d);

/* Tell the observer, if there is one, that these matrices multiply rows of x. */
int layer_observe(const struct layer_run *r, const struct model_tensor *const *tensors, size_t n_tensors,
                  struct region x, size_t n_tokens, size_t n_cols, struct err *e);

/* The same of rows that a router sends to an expert, with its weights [n_tokens] for them;
 * or of one matrix of a stack that is no expert's (NULL). */
int layer_observe_expert(const struct layer_run *r, const struct model_tensor *const *tensors,
                         size_t n_tensors, struct region x, size_t n_tokens, size_t n_cols, int64_t expert,
                         const float *weights, struct err *e);

/* attention_look.take, of a layer_run: tells its observer of attention what one window's was. */
int layer_tell_of_window(void *ctx, const struct attention_seen *seen, struct err *e);

/* What a step takes: n rows of the states h through a norm, in r->norm; or, where it has none, h itself. */
int layer_input(struct layer_run *r, struct region h, size_t n, const float *norm, struct region *x,
                struct err *e);

/* h += what the matrix makes of x [n, .] with row distance ldx, through the norm behind it (NULL: none) and
 * times the residual scale. Uses r->norm where there is one of them. */
int layer_add_output(struct layer_run *r, const struct matrix *m, struct region x, size_t ldx, size_t n,
                     const float *post_norm, struct region h, struct err *e);

/* The product of a matrix with a block, y [n, n_rows] with row distance ldy. */
struct product layer_product(const struct matrix *m, struct region y, size_t ldy, bool add);

#endif
