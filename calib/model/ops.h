/* ops.h - what layers are made of: products with streamed weights, norms, activations, over many tokens.
 *
 * A product y = x W^T decodes W in panels of rows to float32, at most one panel per worker, and multiplies
 * each with tiles of tokens (gemm.h) inside our pool: decoding overlaps multiplication. An element of y has
 * the same bits however the work is cut. */
#ifndef KERF_OPS_H
#define KERF_OPS_H

#include "activations.h"
#include "gemm.h"
#include "weights.h"

struct ops_scratch {
    float *data;
    size_t n;
};

struct ops {
    struct pool *pool;               /* borrowed */
    const struct kern_product *kern; /* borrowed */
    enum activations activations;
    size_t tile; /* tokens that meet a panel at once, and that blocks are cut by */
    struct ops_scratch *workers, rounded;
};

/* Tokens per tile for windows of `ctx` tokens: whole windows as far as they are short. */
size_t ops_tile(size_t ctx);

/* Borrows the pool and `kern`, the level that multiplies. Released with ops_release (zeroed structs too). */
int ops_init(struct ops *o, struct pool *pool, const struct kern *kern, enum activations a, size_t ctx,
             struct err *e);
void ops_release(struct ops *o);

/* Scratch of one worker, at least n floats, 64-byte aligned, contents undefined, valid until the worker's
 * next call; NULL when memory is refused. */
float *ops_scratch(struct ops *o, unsigned worker, size_t n);

struct product {
    const struct model_tensor *weight;
    uint64_t row0, n_rows; /* the slice of rows to use (an expert of a stack, or all) */
    const float *bias;     /* [n_rows] or NULL */
    float *y;              /* [n_tokens, n_rows] with row distance ldy */
    size_t ldy;
    bool add; /* y += instead of y = */
    size_t token0,
        n_tokens; /* the rows of x (and y) it takes; n_tokens 0: all of them. Not with add or bias */
};

/* Decodes rows [row0, row0 + b->n_rows) of `t` into b, strip by strip; `strip` holds gemm_rows_at_once rows.
 */
int ops_read_panel(const struct weights *w, const struct model_tensor *t, uint64_t row0,
                   const struct gemm_matrix *b, float *strip, struct err *e);

/* y_i (+)= x W_i^T + b_i for all products of the same input x [n_tokens, n_cols], row distance ldx. */
int ops_products(struct ops *o, const struct weights *w, const float *x, size_t n_tokens, size_t ldx,
                 const struct product *p, size_t n_products, struct err *e);

/* y = x * weight / sqrt(mean(x^2) + eps) for each row of n_cols; row distance n_cols. */
int ops_rms_norm(struct ops *o, float *y, const float *x, size_t n_tokens, size_t n_cols, const float *weight,
                 float eps, struct err *e);

/* gate = silu(gate) * up, element by element. */
int ops_swiglu(struct ops *o, float *gate, const float *up, size_t n_tokens, size_t n_cols, struct err *e);

/* Rows of the embedding `t` for each token id; ids are below ne1 (checked by the caller). */
int ops_embed(struct ops *o, const struct weights *w, const struct model_tensor *t, const int32_t *ids,
              size_t n_tokens, float *dst, struct err *e);

#endif
