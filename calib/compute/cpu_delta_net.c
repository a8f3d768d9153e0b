/* cpu_delta_net.c - the gated delta net: a linear attention with a recurrent state per head.
 *
 * Sequential over the tokens of a window, which is the definition the chunked forms are derived from; heads
 * and windows run in parallel. Everything is float32, exponentials and norms included. */
#include "cpu.h"
#include "vecmath.h"

#include <math.h>
#include <string.h>

#define TOKENS_PER_JOB   32
#define CHANNELS_PER_JOB 256

/* A block with its regions as pointers, and how wide its rows are. */
struct delta_run {
    struct cpu *c;
    const struct delta_block *d;
    size_t key, value, conv; /* columns of queries (and of keys), of values, of all three */
    float *u, *z, *out, *beta, *decay, *tail, *carried;
};

/* Causal convolution over time and SiLU, in place: from the last token back, since a token's inputs lie at or
 * before it. */
static int conv_job(void *ctx, size_t job, unsigned worker, struct err *e)
{
    (void)worker;
    (void)e;
    const struct delta_run *x = ctx;
    size_t per_window = (x->conv + CHANNELS_PER_JOB - 1) / CHANNELS_PER_JOB, kernel = x->d->kernel;
    size_t window = job / per_window, first = job % per_window * CHANNELS_PER_JOB, ld = x->conv;
    size_t n = ld - first < CHANNELS_PER_JOB ? ld - first : CHANNELS_PER_JOB;
    float *u = x->u + window * x->d->span * ld + first;
    float sum[CHANNELS_PER_JOB], last[64][CHANNELS_PER_JOB];
    for (size_t m = 1; m < kernel; m++) /* keep the inputs that the next block of this window starts from */
        for (size_t c = 0; c < n; c++)
            last[m][c] = x->d->span >= m   ? u[(x->d->span - m) * ld + c]
                         : x->d->continues ? x->tail[(m - 1 - x->d->span) * ld + first + c]
                                           : 0.0f;
    for (size_t t = x->d->span; t-- > 0;) {
        memset(sum, 0, sizeof sum);
        for (size_t m = 0; m < kernel; m++) {
            size_t back = kernel - 1 - m;
            const float *in = back <= t         ? u + (t - back) * ld
                              : x->d->continues ? x->tail + (back - t - 1) * ld + first
                                                : NULL;
            for (size_t c = 0; in && c < n; c++)
                sum[c] += x->d->conv[(first + c) * kernel + m] * in[c];
        }
        vec_silu(sum, n);
        memcpy(u + t * ld, sum, n * sizeof *sum);
    }
    for (size_t m = 1; x->d->n_windows == 1 && m < kernel; m++) /* several windows all end with the block */
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
    const struct delta_block *d = x->d;
    for (size_t t = job * TOKENS_PER_JOB; t < (job + 1) * TOKENS_PER_JOB && t < x->d->n; t++) {
        for (size_t i = 0; i < 2 * (size_t)d->n_k_heads; i++) {
            float *head = x->u + t * x->conv + i * d->k_dim;
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
    const struct delta_block *d = x->d;
    size_t head = job % d->n_v_heads, window = job / d->n_v_heads, n_state = (size_t)d->k_dim * d->v_dim;
    size_t k_head = d->tiled ? head % d->n_k_heads : head / (d->n_v_heads / d->n_k_heads);
    float *state = cpu_scratch(x->c, worker, n_state + d->v_dim);
    if (!state)
        return err_set(e, ERR_NOMEM, "out of memory for the state of a head");
    float *delta = state + n_state, *carried = x->carried + head * n_state;
    if (x->d->continues)
        memcpy(state, carried, n_state * sizeof *state);
    else
        memset(state, 0, n_state * sizeof *state);
    for (size_t t = window * x->d->span; t < (window + 1) * x->d->span && t < x->d->n; t++) {
        const float *q = x->u + t * x->conv + k_head * d->k_dim, *k = q + x->key;
        const float *v = x->u + t * x->conv + 2 * x->key + head * d->v_dim;
        float decay = x->decay[t * d->n_v_heads + head], beta = x->beta[t * d->n_v_heads + head];
        float *out = x->out + t * x->value + head * d->v_dim;
        vec_delta_read(delta, state, k, decay, d->k_dim, d->v_dim);
        for (size_t i = 0; i < d->v_dim; i++)
            delta[i] = beta * (v[i] - delta[i]);
        vec_delta_write(out, state, k, q, delta, d->k_dim, d->v_dim);
    }
    if (x->d->n_windows == 1)
        memcpy(carried, state, n_state * sizeof *state);
    return 0;
}

/* Norm over a head, then the gate. */
static int gate_job(void *ctx, size_t job, unsigned worker, struct err *e)
{
    (void)worker;
    (void)e;
    const struct delta_run *x = ctx;
    const struct delta_block *d = x->d;
    for (size_t t = job * TOKENS_PER_JOB; t < (job + 1) * TOKENS_PER_JOB && t < x->d->n; t++) {
        vec_silu(x->z + t * x->value, x->value);
        for (size_t i = 0; i < d->n_v_heads; i++) {
            float *out = x->out + t * x->value + i * d->v_dim, *z = x->z + t * x->value + i * d->v_dim;
            double mean = vec_sum_squares(out, d->v_dim) / (double)d->v_dim;
            vec_scale_mul(out, out, (float)(1.0 / sqrt(mean + (double)d->eps)), d->norm, d->v_dim);
            for (size_t c = 0; c < d->v_dim; c++)
                out[c] *= z[c];
        }
    }
    return 0;
}

int cpu_split_pairs(struct compute *c, const struct delta_block *d, struct region both, struct err *e)
{
    (void)c;
    (void)e;
    size_t per = d->n_v_heads / d->n_k_heads, n_v = d->n_v_heads;
    float *beta = cpu_at(d->beta), *decay = cpu_at(d->decay);
    for (size_t t = 0; t < d->n; t++)
        for (size_t h = 0; h < n_v; h++) {
            const float *row = cpu_at(both) + t * 2 * n_v + h / per * 2 * per + h % per;
            beta[t * n_v + h] = row[0];
            decay[t * n_v + h] = row[per];
        }
    return 0;
}

int cpu_delta_net(struct compute *c, const struct delta_block *d, struct err *e)
{
    size_t key = d->n_k_heads * d->k_dim, value = d->n_v_heads * d->v_dim;
    struct delta_run x = {.c = cpu_of(c),
                          .d = d,
                          .key = key,
                          .value = value,
                          .conv = 2 * key + value,
                          .u = cpu_at(d->u),
                          .z = cpu_at(d->z),
                          .out = cpu_at(d->out),
                          .beta = cpu_at(d->beta),
                          .decay = cpu_at(d->decay),
                          .tail = cpu_at(d->tail),
                          .carried = cpu_at(d->carried)};
    struct pool *pool = x.c->pool;
    int rc = pool_run(pool, d->n_windows * cpu_jobs(x.conv, CHANNELS_PER_JOB), conv_job, &x, e);
    if (rc == 0)
        rc = pool_run(pool, cpu_jobs(d->n, TOKENS_PER_JOB), prepare_job, &x, e);
    if (rc == 0)
        rc = pool_run(pool, d->n_windows * d->n_v_heads, state_job, &x, e);
    if (rc == 0)
        rc = pool_run(pool, cpu_jobs(d->n, TOKENS_PER_JOB), gate_job, &x, e);
    return rc;
}
