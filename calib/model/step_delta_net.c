/* step_delta_net.c - the gated delta net: a linear-attention step with a recurrent state per head.
 *
 * Sequential over the tokens of a window, which is the definition the chunked forms are derived from; heads
 * and windows run in parallel. Everything is float32, exponentials and norms included.
 * Truth: specification, architectures 13.4 and 16.4 (HuggingFace order of operations). */
#include "layer_run.h"
#include "vecmath.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define TOKENS_PER_JOB   32
#define CHANNELS_PER_JOB 256

struct sizes {
    size_t key, value, conv; /* columns of q (and k), of v, of all three */
};

static struct sizes sizes_of(const struct delta_net *d)
{
    size_t key = (size_t)d->n_k_heads * d->k_dim, value = (size_t)d->n_v_heads * d->v_dim;
    return (struct sizes){key, value, 2 * key + value};
}

size_t delta_net_wide_cols(const struct delta_net *d)
{
    struct sizes s = sizes_of(d);
    return s.conv + 2 * s.value + 2 * (size_t)d->n_v_heads;
}

struct delta_run {
    const struct layer_run *r;
    const struct delta_net *d;
    struct sizes s;
    size_t first, n;     /* block within the group */
    size_t n_windows;    /* whole windows of the block, or 1 part of a window */
    size_t span;         /* tokens of each */
    float *u, *z, *out;  /* [n, conv], [n, value], [n, value] */
    float *beta, *decay; /* [n, n_v_heads] */
    float *tail;         /* [kernel - 1, conv] inputs before the block, when it continues a window */
    float *carried;      /* [n_v_heads, k_dim, v_dim] states at the end of the block before */
    bool continues;      /* the block is a later part of its window */
};

/* Causal convolution over time and SiLU, in place: from the last token back, since a token's inputs lie at or
 * before it. */
static int conv_job(void *ctx, size_t job, unsigned worker, struct err *e)
{
    (void)worker;
    (void)e;
    const struct delta_run *x = ctx;
    size_t per_window = (x->s.conv + CHANNELS_PER_JOB - 1) / CHANNELS_PER_JOB, kernel = x->d->kernel;
    size_t window = job / per_window, first = job % per_window * CHANNELS_PER_JOB, ld = x->s.conv;
    size_t n = ld - first < CHANNELS_PER_JOB ? ld - first : CHANNELS_PER_JOB;
    float *u = x->u + window * x->span * ld + first;
    float sum[CHANNELS_PER_JOB], last[64][CHANNELS_PER_JOB];
    for (size_t m = 1; m < kernel; m++) /* keep the inputs that the next block of this window starts from */
        for (size_t c = 0; c < n; c++)
            last[m][c] = x->span >= m   ? u[(x->span - m) * ld + c]
                         : x->continues ? x->tail[(m - 1 - x->span) * ld + first + c]
                                        : 0.0f;
    for (size_t t = x->span; t-- > 0;) {
        memset(sum, 0, sizeof sum);
        for (size_t m = 0; m < kernel; m++) {
            size_t back = kernel - 1 - m;
            const float *in = back <= t      ? u + (t - back) * ld
                              : x->continues ? x->tail + (back - t - 1) * ld + first
                                             : NULL;
            for (size_t c = 0; in && c < n; c++)
                sum[c] += x->d->conv[(first + c) * kernel + m] * in[c];
        }
        vec_silu(sum, n);
        memcpy(u + t * ld, sum, n * sizeof *sum);
    }
    for (size_t m = 1; x->n_windows == 1 && m < kernel; m++) /* several windows all end with the block */
        memcpy(x->tail + (m - 1) * ld + first, last[m], n * sizeof(float));
    return 0;
}

static float softplus(float x)
{
    return x > 20.0f ? x : log1pf(expf(x));
}

/* Unit length for queries and keys, queries also over sqrt(k_dim); beta and decay from their projections. */
static int prepare_job(void *ctx, size_t job, unsigned worker, struct err *e)
{
    (void)worker;
    (void)e;
    const struct delta_run *x = ctx;
    const struct delta_net *d = x->d;
    for (size_t t = job * TOKENS_PER_JOB; t < (job + 1) * TOKENS_PER_JOB && t < x->n; t++) {
        for (size_t i = 0; i < 2 * (size_t)d->n_k_heads; i++) {
            float *head = x->u + t * x->s.conv + i * d->k_dim;
            double length = sqrt(vec_sum_squares(head, d->k_dim) + 1e-6);
            double scale = i < d->n_k_heads ? 1.0 / (length * sqrt((double)d->k_dim)) : 1.0 / length;
            vec_scale(head, (float)scale, d->k_dim);
        }
        for (size_t i = 0; i < d->n_v_heads; i++) {
            float *b = x->beta + t * d->n_v_heads + i, *a = x->decay + t * d->n_v_heads + i;
            *b = 1.0f / (1.0f + expf(-*b));
            *a = expf(d->a[i] * softplus(*a + d->dt_bias[i]));
        }
    }
    return 0;
}

/* The recurrence of one value head over one window. */
static int state_job(void *ctx, size_t job, unsigned worker, struct err *e)
{
    const struct delta_run *x = ctx;
    const struct delta_net *d = x->d;
    size_t head = job % d->n_v_heads, window = job / d->n_v_heads, n_state = (size_t)d->k_dim * d->v_dim;
    size_t k_head = d->tiled ? head % d->n_k_heads : head / (d->n_v_heads / d->n_k_heads);
    float *state = ops_scratch(x->r->ops, worker, n_state + d->v_dim);
    if (!state)
        return err_set(e, ERR_NOMEM, "out of memory for the state of a head");
    float *delta = state + n_state, *carried = x->carried + head * n_state;
    if (x->continues)
        memcpy(state, carried, n_state * sizeof *state);
    else
        memset(state, 0, n_state * sizeof *state);
    for (size_t t = window * x->span; t < (window + 1) * x->span && t < x->n; t++) {
        const float *q = x->u + t * x->s.conv + k_head * d->k_dim, *k = q + x->s.key;
        const float *v = x->u + t * x->s.conv + 2 * x->s.key + head * d->v_dim;
        float decay = x->decay[t * d->n_v_heads + head], beta = x->beta[t * d->n_v_heads + head];
        float *out = x->out + t * x->s.value + head * d->v_dim;
        vec_delta_read(delta, state, k, decay, d->k_dim, d->v_dim);
        for (size_t i = 0; i < d->v_dim; i++)
            delta[i] = beta * (v[i] - delta[i]);
        vec_delta_write(out, state, k, q, delta, d->k_dim, d->v_dim);
    }
    if (x->n_windows == 1)
        memcpy(carried, state, n_state * sizeof *state);
    return 0;
}

/* Norm over a head, then the gate. */
static int gate_job(void *ctx, size_t job, unsigned worker, struct err *e)
{
    (void)worker;
    (void)e;
    const struct delta_run *x = ctx;
    const struct delta_net *d = x->d;
    for (size_t t = job * TOKENS_PER_JOB; t < (job + 1) * TOKENS_PER_JOB && t < x->n; t++) {
        vec_silu(x->z + t * x->s.value, x->s.value);
        for (size_t i = 0; i < d->n_v_heads; i++) {
            float *out = x->out + t * x->s.value + i * d->v_dim, *z = x->z + t * x->s.value + i * d->v_dim;
            double mean = vec_sum_squares(out, d->v_dim) / (double)d->v_dim;
            vec_scale_mul(out, out, (float)(1.0 / sqrt(mean + (double)x->r->net->eps)), d->head_norm,
                          d->v_dim);
            for (size_t c = 0; c < d->v_dim; c++)
                out[c] *= z[c];
        }
    }
    return 0;
}

/* Split the interleaved projection: for each key head, its beta rows and then its alpha rows. */
static void split_ba(const struct delta_run *x, const float *ba)
{
    const struct delta_net *d = x->d;
    size_t per = d->n_v_heads / d->n_k_heads, n_v = d->n_v_heads;
    for (size_t t = 0; t < x->n; t++)
        for (size_t h = 0; h < n_v; h++) {
            const float *row = ba + t * 2 * n_v + h / per * 2 * per + h % per;
            x->beta[t * n_v + h] = row[0];
            x->decay[t * n_v + h] = row[per];
        }
}

static int project(struct layer_run *r, struct delta_run *x, const float *h, struct err *e)
{
    const struct delta_net *d = x->d;
    size_t n_embd = r->net->n_embd, n_v = d->n_v_heads, k = 0;
    struct product p[4];
    const struct model_tensor *seen[4];
    float *ba = x->out; /* free until the recurrence writes it; n_v * 2 <= value columns is not guaranteed */
    float *separate = NULL;
    if (d->ba.tensor && 2 * n_v > x->s.value) {
        separate = malloc(x->n * 2 * n_v * sizeof *separate);
        if (!separate)
            return err_set(e, ERR_NOMEM, "out of memory for %zu tokens", x->n);
        ba = separate;
    }
    p[k] = layer_product(&d->qkv, x->u, x->s.conv, false);
    seen[k++] = d->qkv.tensor;
    p[k] = layer_product(&d->gate, x->z, x->s.value, false);
    seen[k++] = d->gate.tensor;
    p[k] = d->ba.tensor ? layer_product(&d->ba, ba, 2 * n_v, false)
                        : layer_product(&d->beta, x->beta, n_v, false);
    seen[k++] = d->ba.tensor ? d->ba.tensor : d->beta.tensor;
    if (!d->ba.tensor) {
        p[k] = layer_product(&d->alpha, x->decay, n_v, false);
        seen[k++] = d->alpha.tensor;
    }
    int rc = ops_rms_norm(r->ops, r->norm, h, x->n, n_embd, d->norm, r->net->eps, e);
    if (rc == 0)
        rc = layer_observe(r, seen, k, r->norm, x->n, n_embd, -1, e);
    if (rc == 0)
        rc = ops_products(r->ops, r->weights, r->norm, x->n, n_embd, p, k, e);
    if (rc == 0 && d->ba.tensor)
        split_ba(x, ba);
    free(separate);
    return rc;
}

static int run_block(struct layer_run *r, struct delta_run *x, float *h, struct err *e)
{
    const struct delta_net *d = x->d;
    struct pool *pool = r->ops->pool;
    size_t per_window = (x->s.conv + CHANNELS_PER_JOB - 1) / CHANNELS_PER_JOB;
    size_t row_jobs = (x->n + TOKENS_PER_JOB - 1) / TOKENS_PER_JOB;
    int rc = project(r, x, h, e);
    if (rc == 0)
        rc = pool_run(pool, x->n_windows * per_window, conv_job, x, e);
    if (rc == 0)
        rc = pool_run(pool, row_jobs, prepare_job, x, e);
    if (rc == 0)
        rc = pool_run(pool, x->n_windows * d->n_v_heads, state_job, x, e);
    if (rc == 0)
        rc = pool_run(pool, row_jobs, gate_job, x, e);
    if (rc == 0)
        rc = layer_observe(r, &d->output.tensor, 1, x->out, x->n, x->s.value, -1, e);
    struct product out = layer_product(&d->output, h, r->net->n_embd, true);
    return rc == 0 ? ops_products(r->ops, r->weights, x->out, x->n, x->s.value, &out, 1, e) : rc;
}

int step_delta_net(struct layer_run *r, struct err *e)
{
    const struct delta_net *d = &r->layer->delta_net;
    struct delta_run x = {.r = r, .d = d, .s = sizes_of(d)};
    x.tail = r->state;
    x.carried = r->state + (size_t)d->kernel * x.s.conv;
    int rc = 0;
    for (size_t t = 0; rc == 0 && t < r->n_tokens; t += r->block) {
        x.first = t;
        x.n = r->n_tokens - t < r->block ? r->n_tokens - t : r->block;
        x.continues = t % r->ctx != 0;
        x.span = x.n < r->ctx ? x.n : r->ctx;
        x.n_windows = x.n / x.span;
        x.u = r->wide;
        x.z = x.u + x.n * x.s.conv;
        x.out = x.z + x.n * x.s.value;
        x.beta = x.out + x.n * x.s.value;
        x.decay = x.beta + x.n * d->n_v_heads;
        rc = run_block(r, &x, r->h + t * r->net->n_embd, e);
    }
    return rc;
}
