/* compute.h - the seam between what a model is and what computes it.
 *
 * The walk over the layers (calib/model) knows which steps a layer has and in which order; it does no
 * arithmetic and never looks into the memory that arithmetic works on. Both are a back end's: a table of
 * functions, and memory that only they touch. compute_cpu is the reference, and defines the bits; another one
 * (a processor with memory of its own) is one more table.
 *
 *     struct compute_setup s = {pool, kern, ACTIVATIONS_F32, ctx};
 *     compute_open(&c, NULL, &s, &e);                              // NULL: the best there is
 *     c->ops->buffer_new(&b, c, n_tokens * n_embd, &e);
 *     c->ops->embed(c, weights, net->embedding, ids, n_tokens, (struct region){b, 0}, &e);
 *     c->ops->download(c, floats, (struct region){b, 0}, n, &e);
 *     c->ops->buffer_free(c, b);
 *     compute_close(c);
 *
 * All numbers are float32. Matrices of the model come as tensors of a `struct weights`, which decodes their
 * rows (calib/model/weights.h); small vectors (norms, biases, tables of angles) come as pointers to memory of
 * the host that stays as it is until the weights and the model are let go of. A back end with memory of its
 * own copies what it needs of both.
 *
 * Functions are called from one thread, in order. Those that return int give 0, or an error with a message.
 * Each of them gives what compute_cpu gives, to the bit, for any number of threads and any cut of the work:
 * outputs of kerf do not depend on what computed them. How to add one: calib/README.md. */
#ifndef KERF_COMPUTE_H
#define KERF_COMPUTE_H

#include "activations.h"
#include "hidden_states.h"

#include "libquant/base/pool.h"
#include "libquant/base/progress.h"
#include "libquant/kern/kern.h"

struct model_tensor;
struct rope_table;
struct weights;

/* Memory of a back end. The pointer is its own name for it and is followed by nobody else. */
struct buffer;

/* A place in a buffer: `at` floats from its start. */
struct region {
    struct buffer *buffer;
    size_t at;
};

static inline struct region region_at(struct region r, size_t n)
{
    return (struct region){r.buffer, r.at + n};
}

struct compute_setup {
    struct pool *pool;       /* of the host, borrowed until compute_close */
    const struct kern *kern; /* level that decodes and multiplies there, borrowed; NULL: native */
    enum activations activations;
    size_t ctx; /* tokens of a window */
};

struct compute_ops;

/* A back end at work; what it allocates begins with this. */
struct compute {
    const struct compute_ops *ops;
    size_t tile; /* blocks of tokens are cut at multiples of it */
};

/* y (+)= x W^T + bias, W rows [row0, row0 + n_rows) of a tensor. */
struct product {
    const struct model_tensor *weight;
    uint64_t row0, n_rows; /* the slice of rows to use (an expert of a stack, or all) */
    const float *bias;     /* [n_rows] or NULL */
    struct region y;       /* [n_tokens, n_rows] with row distance ldy */
    size_t ldy;
    bool add;                /* y += instead of y = */
    size_t token0, n_tokens; /* the rows of x (and y) it takes; n_tokens 0: all of them. Not with add */
};

/* A stretch of rows that continues another one, as if it stood alone behind it: choices behind one question.
 * Its tokens see the first n_before tokens of what `parent` ends (the parent's own stretch and all that this
 * one continues), then themselves. */
struct row_branch {
    size_t row, n; /* its rows, counted from the first one of all windows */
    size_t parent; /* an earlier branch of the same window, with n_before tokens at least but fewer before it;
                      SIZE_MAX: none */
    size_t n_before; /* so its first token stands at this position */
};

/* Windows whose rows are not one text each. Branches follow each other without a gap, none crosses a window.
 */
struct row_tree {
    const struct row_branch *branches;
    size_t n;
};

/* The row of the token at a position of what `branch` ends; *n: how many positions from there on lie
 * together. */
size_t row_tree_row(size_t *n, const struct row_branch *branches, size_t branch, size_t position);

/* Heads of n_tokens tokens, in place: divided by their root mean square (where there is a norm), rotated, and
 * rounded: keys and values as a cache of type `stored` gives them back (calib/model/kv_cache.h; with F32 to
 * F16 when activations are rounded); queries only when activations are, to F16, or to Q8_0 where `stored`,
 * the type of the keys, has blocks. Token t stands at positions[t], or, where that is NULL, at position
 * (first + t) % ctx of its window. */
struct head_rows {
    struct region x; /* head i of token t at t * ld + i * stride */
    size_t n_heads, dim, stride, ld, n_tokens;
    size_t first, ctx;
    const uint32_t *positions; /* [n_tokens] of the host, or NULL */
    const float *norm;         /* [dim], or NULL */
    float eps;
    const struct rope_table *rope; /* NULL: not rotated */
    bool queries;                  /* scaled by the table's query_scale, if it has one */
    enum qtype stored;             /* F32: exact */
    size_t turn; /* entries that a Hadamard matrix turns before the rounding, and back; 0: none */
};

/* Causal attention of one block of queries over the keys of their windows, with grouped key heads and an
 * optional sliding window. Truth: specification, architectures 0.11; sliding windows 0.10. */
struct attention_heads {
    uint32_t n_heads, n_kv_heads, key_dim, value_dim;
    uint32_t window;               /* keys a query sees, itself included; 0: all */
    size_t query_stride;           /* from one head's query to the next, >= key_dim */
    struct region queries;         /* [n_queries, n_heads * query_stride]; head outputs replace the queries */
    struct region keys, values;    /* [n_keys, n_kv_heads * dim] of the same windows */
    size_t first_query, n_queries; /* position of the first query among the keys */
    size_t ctx;                    /* windows begin at multiples of it */
    float scale;                   /* of scores; 0: 1 / sqrt(key_dim) */
    float cap;                     /* c: scores become c tanh(score / c); 0: they stay */
    const float *sinks; /* [n_heads] a score that each head has beside its keys and that takes its share of
                           the softmax, without a value; NULL: none */
    const struct row_tree *tree; /* what the rows are, where windows are not one text each; or NULL */
    size_t tree_row;             /* row of the first key in it */
};

/* What attention does with the tokens of one window, on the host: the mass that each token receives (sum over
 * queries of the probability, mean over heads), and the inputs as attention mixes them for its values,
 * z = sum over j of p_ij x_j, of the queries that calib/model/forward.h names. */
struct attention_seen {
    size_t first_token;
    const float *x;    /* [ctx, n_cols] inputs of keys and values */
    const float *mass; /* [ctx] */
    const float *mixed;
    size_t n_mixed; /* rows of n_cols */
};

/* Who wants to see it. */
struct attention_look {
    struct region x; /* [n_queries, n_cols] inputs of keys and values; n_queries are whole windows */
    size_t n_cols;
    /* Called from the calling thread for each window in turn; what it is given is borrowed during the call.
     */
    int (*take)(void *ctx, const struct attention_seen *seen, struct err *e);
    void *ctx;
};

/* Head outputs times the sigmoid of their gates. x [n_tokens, n_heads * stride]: a head's output, at + dim
 * its gate. The results of a token lie side by side, value_dim each, at the start of its row. */
struct gated_heads {
    struct region x;
    size_t n_tokens, n_heads, dim, value_dim, stride;
};

/* How tokens choose experts: of the scores, softmax over all experts or sigmoids, the n_used largest (the
 * lowest first on ties), weights renormalised or not. A bias counts for the choice alone, and so do groups
 * (experts that follow each other), of which the best are looked at. */
struct expert_choice {
    size_t n_experts, n_used;
    bool renormalise;
    float weight_scale;
    bool sigmoid;
    const float *bias;              /* [n_experts], with sigmoids only; NULL: none */
    size_t n_groups, n_groups_used; /* n_groups divides n_experts; 0 or all of them: no groups */
    bool two_of_group; /* a group is as good as its two best experts together, else as its best */
};

/* Which tokens of a block go to which expert: places [expert_begin[x], expert_begin[x + 1]) are those of
 * expert x, in the order of the tokens. What a back end allocates begins with this. */
struct routing {
    const size_t *expert_begin; /* [n_experts + 1], memory of the host, as the next */
    const float *weights;       /* of each place: what the router gives that token's expert */
};

/* A block of tokens of a gated delta net, from its projections to what its output matrix takes: a causal
 * convolution over time and SiLU; queries and keys of unit length; the recurrence of each value head; the
 * norm of its outputs times SiLU of the gate. A block is n_windows windows of `span` tokens, or a part of one
 * window. Truth: specification, architectures 13.4 and 16.4 (HuggingFace order of operations). */
struct delta_block {
    size_t n_k_heads, n_v_heads, k_dim, v_dim, kernel; /* kernel at most 64 */
    bool tiled;        /* value head h uses key head h mod n_k_heads, else h / (n_v_heads / n_k_heads) */
    const float *conv; /* [2 * key columns + value columns, kernel] */
    const float *dt_bias, *a; /* [n_v_heads] */
    const float *norm;        /* [v_dim] */
    float eps;
    size_t n, n_windows, span;
    bool continues;            /* the block is a later part of its window */
    struct region u, z, out;   /* [n, queries keys values] destroyed, [n, values] destroyed, [n, values] */
    struct region beta, decay; /* [n, n_v_heads], destroyed */
    struct region tail;        /* [kernel, queries keys values] inputs before the block, then its own last */
    struct region carried;     /* [n_v_heads, k_dim, v_dim] states before the block, then after it */
};

/* What is known of one position under one model. */
struct head_score {
    double nll;  /* -ln p(target) */
    double kld;  /* to the reference; 0 for the reference itself */
    int32_t top; /* most probable token, the lowest id among equals */
};

/* A language head and the final states it is to judge. */
struct scored_head {
    const struct weights *weights;
    const struct model_tensor *tensor; /* rows [row0, row0 + n_vocab) */
    uint64_t row0;
    const float *bias; /* [n_vocab] or NULL */
    size_t n_embd;
    const struct hidden_states *states; /* [n, n_embd] */
    float cap;                          /* c: logits become c tanh(logit / c); 0: they stay */
};

/* One sweep over the vocabulary for all heads; heads[0] is the reference. The formulas are in
 * calib/model/head.h. A position's sums run over panels of 256 vocabulary rows, from the first. */
struct scoring {
    const struct scored_head *heads;
    size_t n_heads, n, n_vocab;
    const int32_t *targets; /* [n], below n_vocab */
    uint64_t memory_bytes;
    struct progress progress; /* in rows of the vocabulary */
};

/* The table. Regions hold at least what the sizes say, and overlap only where it is said. */
struct compute_ops {
    const char *name;
    int (*open)(struct compute **out, const struct compute_setup *s, struct err *e);
    void (*close)(struct compute *c); /* all buffers are freed before */

    /* --- memory --- */
    int (*buffer_new)(struct buffer **out, struct compute *c, size_t n,
                      struct err *e);                         /* undefined contents */
    void (*buffer_free)(struct compute *c, struct buffer *b); /* NULL too */
    int (*upload)(struct compute *c, struct region to, const float *from, size_t n, struct err *e);
    int (*download)(struct compute *c, float *to, struct region from, size_t n, struct err *e);
    /* n floats to read on the host (for observers): borrowed until the next call of the back end. */
    int (*look)(struct compute *c, const float **out, struct region r, size_t n, struct err *e);

    /* --- states of all tokens, kept where the back end wants, spilled beyond memory_bytes --- */
    int (*states_new)(struct hidden_states **out, struct compute *c, size_t n_rows, size_t n_cols,
                      uint64_t memory_bytes, struct err *e); /* freed with hidden_states_free */
    /* *rows: rows [row0, row0 + n) in place, or in `buffer`, which is not needed when
     * hidden_states_in_memory. Takes states of other back ends as well, which do need it. */
    int (*states_get)(struct compute *c, const struct hidden_states *h, size_t row0, size_t n,
                      struct region buffer, struct region *rows, struct err *e);
    /* Stores rows; nothing to do when they are in place. */
    int (*states_put)(struct compute *c, struct hidden_states *h, size_t row0, size_t n, struct region rows,
                      struct err *e);

    /* --- weights: announced before the products of a layer, let go of after them --- */
    int (*weights_load)(struct compute *c, struct weights *w, const struct model_tensor *const *list,
                        size_t n, struct err *e);
    void (*weights_unload)(struct compute *c, struct weights *w);

    /* --- arithmetic --- */
    /* Rows of the embedding for each token id; ids are below the tensor's rows (checked by the caller). */
    int (*embed)(struct compute *c, const struct weights *w, const struct model_tensor *t, const int32_t *ids,
                 size_t n_tokens, struct region to, struct err *e);
    /* All products of the same input x [n_tokens, n_cols], row distance ldx. A sum over columns is stretches
     * of GEMM_CHAIN terms, each one chain of fused multiply-adds, added up in order. */
    int (*products)(struct compute *c, const struct weights *w, struct region x, size_t n_tokens, size_t ldx,
                    const struct product *p, size_t n_products, struct err *e);
    /* y = x * weight / sqrt(mean(x^2) + eps) for each row of n_cols. */
    int (*rms_norm)(struct compute *c, struct region y, struct region x, size_t n_tokens, size_t n_cols,
                    const float *weight, float eps, struct err *e);
    /* x *= factor, and y += factor * x, for n numbers. */
    int (*scale)(struct compute *c, struct region x, size_t n, float factor, struct err *e);
    int (*add_scaled)(struct compute *c, struct region y, struct region x, size_t n, float factor,
                      struct err *e);
    /* gate = silu(gate) * up, element by element. */
    int (*swiglu)(struct compute *c, struct region gate, struct region up, size_t n_tokens, size_t n_cols,
                  struct err *e);
    /* gate = gelu(gate) * up, with the tanh in gelu. NULL: the back end neither has this nor heeds `cap`, and
     * is not asked to run the models that need them. */
    int (*geglu)(struct compute *c, struct region gate, struct region up, size_t n_tokens, size_t n_cols,
                 struct err *e);
    /* gate = g sigmoid(1.702 g) (u + 1) with g = min(gate, 7), u = up within -7 and 7. NULL: the back end
     * neither has this nor heeds `sinks`, and is not asked to run the models that need them. */
    int (*swiglu_clamped)(struct compute *c, struct region gate, struct region up, size_t n_tokens,
                          size_t n_cols, struct err *e);
    int (*rotate_heads)(struct compute *c, const struct head_rows *h, struct err *e);
    /* Queries begin and end at window borders, or lie inside one window. */
    int (*attention)(struct compute *c, const struct attention_heads *a, struct err *e);
    /* What `attention` is going to do with the queries, which are left as they are. */
    int (*look_at_attention)(struct compute *c, const struct attention_heads *a,
                             const struct attention_look *look, struct err *e);
    int (*gate_heads)(struct compute *c, const struct gated_heads *g, struct err *e);
    /* Rows of n_cols that lie ld >= n_cols apart move together, in place. */
    int (*pack_rows)(struct compute *c, struct region x, size_t n_rows, size_t n_cols, size_t ld,
                     struct err *e);
    /* x[i] *= sigmoid(weight[i]) for each row of n_cols. */
    int (*scale_rows)(struct compute *c, struct region x, size_t n_rows, size_t n_cols, struct region weight,
                      struct err *e);

    /* --- experts --- */
    /* From logits [n, n_experts], which are destroyed. *out: freed with routing_free. */
    int (*route)(struct routing **out, struct compute *c, const struct expert_choice *choice,
                 struct region logits, size_t n, struct err *e);
    void (*routing_free)(struct compute *c, struct routing *g); /* NULL too */
    /* rows[i] = x[token of place begin + i], for places [begin, end) and rows of n_cols. */
    int (*gather)(struct compute *c, const struct routing *g, size_t begin, size_t end, struct region rows,
                  struct region x, size_t n_cols, struct err *e);
    /* h[token of place begin + i] += weight of that place * rows[i], a token's places in rising order. */
    int (*add_weighted)(struct compute *c, const struct routing *g, size_t begin, size_t end, struct region h,
                        struct region rows, size_t n_cols, struct err *e);

    /* --- delta nets --- */
    /* Rows of both [n, 2 * n_v_heads]: for each key head first its betas, then its decays. */
    int (*split_pairs)(struct compute *c, const struct delta_block *d, struct region both, struct err *e);
    int (*delta_net)(struct compute *c, const struct delta_block *d, struct err *e);

    /* --- the language head: logits in tiles, of which only running sums are kept --- */
    int (*score)(struct compute *c, const struct scoring *s, struct head_score *scores, struct err *e);
};

/* Our own processor: plain memory, worker threads of the pool, the kernels of `kern`. */
extern const struct compute_ops compute_cpu;

/* *out: caller closes with compute_close. `ops` NULL: the back end of this machine. */
int compute_open(struct compute **out, const struct compute_ops *ops, const struct compute_setup *s,
                 struct err *e);
void compute_close(struct compute *c); /* NULL too */

#endif
