/* cpu_rows.c - what goes row by row: norms, activations, rotation, gates. */
#include "cpu.h"
#include "vecmath.h"

#include "calib/model/rope.h"
#include "libquant/half.h"

#include <math.h>
#include <string.h>

#define TOKENS_PER_JOB 32 /* of steps that take exponentials or angles */

struct norm_run {
    float *y;
    const float *x, *weight;
    size_t n_tokens, n_cols;
    float eps;
};

static int norm_job(void *ctx, size_t job, unsigned worker, struct err *e)
{
    (void)worker;
    (void)e;
    const struct norm_run *r = ctx;
    for (size_t t = job * ROWS_PER_JOB; t < (job + 1) * ROWS_PER_JOB && t < r->n_tokens; t++) {
        const float *x = r->x + t * r->n_cols;
        double mean = vec_sum_squares(x, r->n_cols) / (double)r->n_cols;
        vec_scale_mul(r->y + t * r->n_cols, x, (float)(1.0 / sqrt(mean + (double)r->eps)), r->weight,
                      r->n_cols);
    }
    return 0;
}

int cpu_rms_norm(struct compute *c, struct region y, struct region x, size_t n_tokens, size_t n_cols,
                 const float *weight, float eps, struct err *e)
{
    struct norm_run r = {cpu_at(y), cpu_at(x), weight, n_tokens, n_cols, eps};
    return pool_run(cpu_of(c)->pool, cpu_jobs(n_tokens, ROWS_PER_JOB), norm_job, &r, e);
}

#define FLOATS_PER_JOB ((size_t)1 << 16)

struct scale_run {
    float *y;
    const float *x; /* NULL: y itself is scaled */
    size_t n;
    float factor;
};

static int scale_job(void *ctx, size_t job, unsigned worker, struct err *e)
{
    (void)worker;
    (void)e;
    const struct scale_run *r = ctx;
    size_t at = job * FLOATS_PER_JOB, n = r->n - at < FLOATS_PER_JOB ? r->n - at : FLOATS_PER_JOB;
    if (r->x)
        vec_add_scaled(r->y + at, r->x + at, r->factor, n);
    else
        vec_scale(r->y + at, r->factor, n);
    return 0;
}

int cpu_scale(struct compute *c, struct region x, size_t n, float factor, struct err *e)
{
    struct scale_run r = {cpu_at(x), NULL, n, factor};
    return pool_run(cpu_of(c)->pool, cpu_jobs(n, FLOATS_PER_JOB), scale_job, &r, e);
}

int cpu_add_scaled(struct compute *c, struct region y, struct region x, size_t n, float factor, struct err *e)
{
    struct scale_run r = {cpu_at(y), cpu_at(x), n, factor};
    return pool_run(cpu_of(c)->pool, cpu_jobs(n, FLOATS_PER_JOB), scale_job, &r, e);
}

struct gated_run {
    void (*apply)(float *gate, const float *up, size_t n);
    float *gate;
    const float *up;
    size_t n_tokens, n_cols;
};

static int gated_job(void *ctx, size_t job, unsigned worker, struct err *e)
{
    (void)worker;
    (void)e;
    const struct gated_run *r = ctx;
    size_t first = job * ROWS_PER_JOB;
    size_t n = r->n_tokens - first < ROWS_PER_JOB ? r->n_tokens - first : ROWS_PER_JOB;
    r->apply(r->gate + first * r->n_cols, r->up + first * r->n_cols, n * r->n_cols);
    return 0;
}

static int run_gated(struct compute *c, void (*apply)(float *, const float *, size_t), struct region gate,
                     struct region up, size_t n_tokens, size_t n_cols, struct err *e)
{
    struct gated_run r = {apply, cpu_at(gate), cpu_at(up), n_tokens, n_cols};
    return pool_run(cpu_of(c)->pool, cpu_jobs(n_tokens, ROWS_PER_JOB), gated_job, &r, e);
}

int cpu_swiglu(struct compute *c, struct region gate, struct region up, size_t n_tokens, size_t n_cols,
               struct err *e)
{
    return run_gated(c, vec_swiglu, gate, up, n_tokens, n_cols, e);
}

int cpu_geglu(struct compute *c, struct region gate, struct region up, size_t n_tokens, size_t n_cols,
              struct err *e)
{
    return run_gated(c, vec_geglu, gate, up, n_tokens, n_cols, e);
}

int cpu_swiglu_clamped(struct compute *c, struct region gate, struct region up, size_t n_tokens,
                       size_t n_cols, struct err *e)
{
    return run_gated(c, vec_swiglu_clamped, gate, up, n_tokens, n_cols, e);
}

struct heads_run {
    const struct head_rows *h;
    const struct kern *kern;
    struct cpu_storage storage;
};

/* How these heads are rounded, which the llama.cpp CPU runtime does to queries as well. */
static struct cpu_storage storage_of(const struct cpu *c, const struct head_rows *h)
{
    bool rounds = c->activations == ACTIVATIONS_Q8;
    struct cpu_storage s = {h->stored, h->turn};
    if (h->queries)
        s.type = !rounds ? QTYPE_F32 : qtype_info((uint32_t)h->stored)->is_quantized ? QTYPE_Q8_0 : QTYPE_F16;
    else if (h->stored == QTYPE_F32 && rounds)
        s.type = QTYPE_F16;
    return s;
}

static int heads_job(void *ctx, size_t job, unsigned worker, struct err *e)
{
    (void)worker;
    const struct heads_run *r = ctx;
    const struct head_rows *h = r->h;
    const bool dense = h->stride == h->dim && h->ld == h->n_heads * h->dim;
    int rc = 0;
    for (size_t t = job * TOKENS_PER_JOB; t < (job + 1) * TOKENS_PER_JOB && t < h->n_tokens; t++) {
        const size_t position = h->positions ? h->positions[t] : (h->first + t) % h->ctx;
        for (size_t i = 0; rc == 0 && i < h->n_heads; i++) {
            float *head = cpu_at(h->x) + t * h->ld + i * h->stride;
            if (h->norm) {
                double mean = vec_sum_squares(head, h->dim) / (double)h->dim;
                vec_scale_mul(head, head, (float)(1.0 / sqrt(mean + (double)h->eps)), h->norm, h->dim);
            }
            if (h->rope)
                rope_apply(h->rope, position, head);
            if (h->queries && h->rope && h->rope->query_scale)
                vec_scale(head, h->rope->query_scale[position], h->dim);
            if (r->storage.type == QTYPE_F16) /* which may be infinite */
                for (size_t k = 0; k < h->dim; k++)
                    head[k] = f16_round(head[k]);
            else if (!dense)
                rc = cpu_store_head(r->kern, &r->storage, head, h->dim, e);
        }
    }
    size_t first = job * TOKENS_PER_JOB;
    size_t n = h->n_tokens - first < TOKENS_PER_JOB ? h->n_tokens - first : TOKENS_PER_JOB;
    if (rc == 0 && dense && r->storage.type != QTYPE_F32 && r->storage.type != QTYPE_F16)
        rc = cpu_store_heads(r->kern, &r->storage, cpu_at(h->x) + first * h->ld, n * h->n_heads, h->dim, e);
    return rc;
}

int cpu_rotate_heads(struct compute *c, const struct head_rows *h, struct err *e)
{
    struct heads_run r = {h, cpu_of(c)->level, storage_of(cpu_of(c), h)};
    if (!h->norm && !h->rope && r.storage.type == QTYPE_F32)
        return 0;
    return pool_run(cpu_of(c)->pool, cpu_jobs(h->n_tokens, TOKENS_PER_JOB), heads_job, &r, e);
}

/* In place is safe: outputs never run ahead of inputs within a token, and one job moves them in order. */
static int gate_job(void *ctx, size_t job, unsigned worker, struct err *e)
{
    (void)worker;
    (void)e;
    const struct gated_heads *g = ctx;
    for (size_t t = job * TOKENS_PER_JOB; t < (job + 1) * TOKENS_PER_JOB && t < g->n_tokens; t++)
        for (size_t i = 0; i < g->n_heads; i++) {
            float *row = cpu_at(g->x) + t * g->n_heads * g->stride;
            const float *from = row + i * g->stride;
            float *to = row + i * g->value_dim;
            for (size_t k = 0; k < g->value_dim; k++)
                to[k] = from[k] / (1.0f + expf(-from[g->dim + k]));
        }
    return 0;
}

int cpu_gate_heads(struct compute *c, const struct gated_heads *g, struct err *e)
{
    struct gated_heads own = *g;
    return pool_run(cpu_of(c)->pool, cpu_jobs(g->n_tokens, TOKENS_PER_JOB), gate_job, &own, e);
}

int cpu_pack_rows(struct compute *c, struct region x, size_t n_rows, size_t n_cols, size_t ld, struct err *e)
{
    (void)c;
    (void)e;
    float *p = cpu_at(x);
    for (size_t i = 1; ld != n_cols && i < n_rows; i++)
        memmove(p + i * n_cols, p + i * ld, n_cols * sizeof *p);
    return 0;
}

int cpu_scale_rows(struct compute *c, struct region x, size_t n_rows, size_t n_cols, struct region weight,
                   struct err *e)
{
    (void)c;
    (void)e;
    for (size_t i = 0; i < n_rows; i++)
        vec_scale(cpu_at(x) + i * n_cols, 1.0f / (1.0f + expf(-cpu_at(weight)[i])), n_cols);
    return 0;
}
