/* ops.h - what layers are made of: products with streamed weights, norms, activations, over many tokens.
 *
 * A product y = x W^T decodes W in panels of rows to float32, at most one panel per worker, and multiplies
 * each with tiles of tokens by single-threaded BLAS inside our pool. Panels and tiles have fixed sizes, so
 * the result has the same bits for any number of threads, and decoding overlaps multiplication. */
#ifndef KERF_OPS_H
#define KERF_OPS_H

#include "activations.h"
#include "weights.h"

struct ops_scratch {
    float *data;
    size_t n;
};

struct ops {
    struct pool *pool; /* borrowed */
    enum activations activations;
    size_t tile; /* tokens of one BLAS call; blocks of tokens must start at its multiples */
    struct ops_scratch *workers, rounded;
};

/* Tokens per tile for windows of `ctx` tokens: whole windows as far as they are short. */
size_t ops_tile(size_t ctx);

/* Sets OpenBLAS to one thread, process-wide. Released with ops_release (zeroed structs too). */
int ops_init(struct ops *o, struct pool *pool, enum activations a, size_t ctx, struct err *e);
void ops_release(struct ops *o);

/* Scratch of one worker, at least n floats, contents undefined, valid until the worker's next call; NULL when
 * memory is refused. */
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

/* c[m, n] (+)= a[m, k] b[n, k]^T, single-threaded: for callers inside a job. */
void ops_gemm_nt(size_t m, size_t n, size_t k, const float *a, size_t lda, const float *b, size_t ldb,
                 float *c, size_t ldc, bool add);

/* c[m, n] = a[m, k] b[k, n], single-threaded. */
void ops_gemm_nn(size_t m, size_t n, size_t k, const float *a, size_t lda, const float *b, size_t ldb,
                 float *c, size_t ldc);

#endif
