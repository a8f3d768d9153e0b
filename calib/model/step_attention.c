/* step_attention.c - the attention step of a layer: norm, projections, head norms, rotation, attention,
 * output. Keys and values of the whole group come first, then queries block by block. */
#include "attention.h"
#include "layer_run.h"
#include "rope.h"
#include "vecmath.h"

#include "libquant/half.h"

#include <math.h>
#include <string.h>

#define TOKENS_PER_JOB 32

size_t attention_wide_cols(const struct attention *a)
{
    return (size_t)a->n_heads * a->head_dim * (a->gated ? 2 : 1);
}

/* Norm, rotation and (for F16 caches) rounding of the heads of some tokens. */
struct heads_run {
    const struct rope_table *rope;
    float *x;
    size_t n_heads, dim, stride, ld, n_tokens, first, ctx;
    const float *norm;
    float eps;
    bool rotate, round, queries;
};

static int heads_job(void *ctx, size_t job, unsigned worker, struct err *e)
{
    (void)worker;
    (void)e;
    const struct heads_run *r = ctx;
    for (size_t t = job * TOKENS_PER_JOB; t < (job + 1) * TOKENS_PER_JOB && t < r->n_tokens; t++)
        for (size_t i = 0; i < r->n_heads; i++) {
            float *head = r->x + t * r->ld + i * r->stride;
            if (r->norm) {
                double mean = vec_sum_squares(head, r->dim) / (double)r->dim;
                vec_scale_mul(head, head, (float)(1.0 / sqrt(mean + (double)r->eps)), r->norm, r->dim);
            }
            if (r->rotate)
                rope_apply(r->rope, (r->first + t) % r->ctx, head);
            if (r->queries && r->rope->query_scale)
                vec_scale(head, r->rope->query_scale[(r->first + t) % r->ctx], r->dim);
            for (size_t k = 0; r->round && k < r->dim; k++)
                head[k] = f16_round(head[k]);
        }
    return 0;
}

static int run_heads(struct layer_run *r, struct heads_run heads, struct err *e)
{
    heads.rope = r->rope;
    heads.ctx = r->ctx;
    heads.eps = r->net->eps;
    heads.round = r->ops->activations == ACTIVATIONS_Q8;
    return pool_run(r->ops->pool, (heads.n_tokens + TOKENS_PER_JOB - 1) / TOKENS_PER_JOB, heads_job, &heads,
                    e);
}

struct gate_run {
    float *dst;       /* [n_tokens, n_heads * value_dim] */
    const float *src; /* [n_tokens, n_heads * stride]: head output, at +dim the gate */
    size_t n_heads, dim, value_dim, stride, n_tokens;
};

/* Output times the sigmoid of its gate, packed densely. In place is safe: dst never runs ahead of src within
 * a token, and a token's rows are moved by one job in order. */
static int gate_job(void *ctx, size_t job, unsigned worker, struct err *e)
{
    (void)worker;
    (void)e;
    const struct gate_run *r = ctx;
    for (size_t t = job * TOKENS_PER_JOB; t < (job + 1) * TOKENS_PER_JOB && t < r->n_tokens; t++)
        for (size_t i = 0; i < r->n_heads; i++) {
            const float *src = r->src + (t * r->n_heads + i) * r->stride;
            float *dst = r->dst + t * r->n_heads * r->stride + i * r->value_dim;
            for (size_t k = 0; k < r->value_dim; k++)
                dst[k] = src[k] / (1.0f + expf(-src[r->dim + k]));
        }
    return 0;
}

static int keys_and_values(struct layer_run *r, size_t first, size_t n, bool with_queries, struct err *e)
{
    const struct attention *a = &r->layer->attention;
    size_t k_cols = (size_t)a->k.n_rows, v_cols = (size_t)a->v.n_rows, q_cols = attention_wide_cols(a);
    float *k = r->keys + first * k_cols, *v = r->keys + r->n_tokens * k_cols + first * v_cols;
    const struct model_tensor *seen[3] = {a->q.tensor, a->k.tensor, a->v.tensor};
    size_t n_seen = a->q.tensor == a->k.tensor ? 1 : 3; /* one, when fused */
    int rc = ops_rms_norm(r->ops, r->norm, r->h + first * r->net->n_embd, n, r->net->n_embd, a->norm,
                          r->net->eps, e);
    if (rc == 0)
        rc = layer_observe(r, seen, n_seen, r->norm, n, r->net->n_embd, -1, e);
    struct product p[3] = {layer_product(&a->k, k, k_cols, false), layer_product(&a->v, v, v_cols, false),
                           layer_product(&a->q, r->wide, q_cols, false)};
    if (rc == 0)
        rc = ops_products(r->ops, r->weights, r->norm, n, r->net->n_embd, p, with_queries ? 3 : 2, e);
    if (rc == 0)
        rc = run_heads(r,
                       (struct heads_run){.x = k,
                                          .n_heads = a->n_kv_heads,
                                          .dim = a->head_dim,
                                          .stride = a->head_dim,
                                          .ld = k_cols,
                                          .n_tokens = n,
                                          .first = first,
                                          .norm = a->k_norm,
                                          .rotate = true},
                       e);
    if (rc == 0 && r->ops->activations == ACTIVATIONS_Q8)
        rc = run_heads(r,
                       (struct heads_run){.x = v,
                                          .n_heads = a->n_kv_heads,
                                          .dim = a->value_dim,
                                          .stride = a->value_dim,
                                          .ld = v_cols,
                                          .n_tokens = n},
                       e);
    return rc;
}

static int tell_of_window(void *ctx, size_t first_token, const float *mass, const float *mixed,
                          size_t n_mixed, struct err *e)
{
    const struct layer_run *r = ctx;
    const struct attention *a = &r->layer->attention;
    struct attention_observation o = {.q = a->q.tensor,
                                      .k = a->k.tensor,
                                      .v = a->v.tensor,
                                      .x = r->norm + first_token * r->net->n_embd,
                                      .n_tokens = r->ctx,
                                      .n_cols = r->net->n_embd,
                                      .mass = mass,
                                      .mixed = mixed,
                                      .n_mixed = n_mixed};
    return r->observe_attention(r->observe_ctx, &o, e);
}

static int attend(struct layer_run *r, size_t first, size_t n, struct err *e)
{
    const struct attention *a = &r->layer->attention;
    size_t stride = (size_t)a->head_dim * (a->gated ? 2 : 1), ld = a->n_heads * stride;
    size_t k_cols = (size_t)a->k.n_rows;
    int rc = run_heads(r,
                       (struct heads_run){.x = r->wide,
                                          .n_heads = a->n_heads,
                                          .dim = a->head_dim,
                                          .stride = stride,
                                          .ld = ld,
                                          .n_tokens = n,
                                          .first = first,
                                          .norm = a->q_norm,
                                          .rotate = true,
                                          .queries = true},
                       e);
    struct attention_heads heads = {a->n_heads,
                                    a->n_kv_heads,
                                    a->head_dim,
                                    a->value_dim,
                                    a->window,
                                    stride,
                                    r->wide,
                                    r->keys,
                                    r->keys + r->n_tokens * k_cols,
                                    first,
                                    n,
                                    r->ctx};
    if (rc == 0 && r->observe_attention) {
        struct attention_look look = {r->norm, r->net->n_embd, tell_of_window, r};
        rc = attention_look(r->ops, &heads, &look, e);
    }
    if (rc == 0)
        rc = attention_run(r->ops, &heads, e);
    if (rc == 0 && a->gated) {
        struct gate_run g = {r->wide, r->wide, a->n_heads, a->head_dim, a->value_dim, stride, n};
        rc = pool_run(r->ops->pool, (n + TOKENS_PER_JOB - 1) / TOKENS_PER_JOB, gate_job, &g, e);
    }
    return rc;
}

/* Pack head outputs of a smaller size than the queries they replaced. */
static void pack_outputs(const struct layer_run *r, size_t n)
{
    const struct attention *a = &r->layer->attention;
    size_t ld = (size_t)a->n_heads * a->head_dim;
    for (size_t t = 0; t < n; t++)
        for (size_t i = 1; i < a->n_heads; i++)
            memmove(r->wide + t * ld + i * a->value_dim, r->wide + t * ld + i * a->head_dim,
                    a->value_dim * sizeof(float));
}

int step_attention(struct layer_run *r, struct err *e)
{
    const struct attention *a = &r->layer->attention;
    size_t ld = attention_wide_cols(a), out_cols = (size_t)a->n_heads * a->value_dim;
    bool one_block = r->n_tokens <= r->block;
    int rc = 0;
    for (size_t t = 0; rc == 0 && t < r->n_tokens; t += r->block)
        rc = keys_and_values(r, t, r->n_tokens - t < r->block ? r->n_tokens - t : r->block, one_block, e);
    for (size_t t = 0; rc == 0 && t < r->n_tokens; t += r->block) {
        size_t n = r->n_tokens - t < r->block ? r->n_tokens - t : r->block;
        float *h = r->h + t * r->net->n_embd;
        if (!one_block) {
            struct product q = layer_product(&a->q, r->wide, ld, false);
            rc = ops_rms_norm(r->ops, r->norm, h, n, r->net->n_embd, a->norm, r->net->eps, e);
            if (rc == 0)
                rc = ops_products(r->ops, r->weights, r->norm, n, r->net->n_embd, &q, 1, e);
        }
        if (rc == 0)
            rc = attend(r, t, n, e);
        if (rc == 0 && !a->gated && a->value_dim != a->head_dim)
            pack_outputs(r, n);
        if (rc == 0 && r->observe) {
            /* The observer sees dense rows; a gated or packed block has its row distance still. */
            for (size_t i = 1; ld != out_cols && i < n; i++)
                memmove(r->wide + i * out_cols, r->wide + i * ld, out_cols * sizeof(float));
            rc = layer_observe(r, &a->output.tensor, 1, r->wide, n, out_cols, -1, e);
        }
        struct product out = layer_product(&a->output, h, r->net->n_embd, true);
        if (rc == 0)
            rc = ops_products(r->ops, r->weights, r->wide, n, r->observe ? out_cols : ld, &out, 1, e);
    }
    return rc;
}
