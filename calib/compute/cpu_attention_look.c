/* cpu_attention_look.c - what attention does with each token of a window, for Hessians that weigh inputs by
 * it: the probability that a token receives, and the inputs as attention mixes them.
 *
 * A job is one head over one window. Probabilities are computed again from queries and keys, a tile of
 * queries at a time, because cpu_attention keeps them for no longer than a block of keys. */
#include "cpu.h"
#include "vecmath.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define QUERY_TILE 128

struct look_run {
    struct cpu *c;
    const struct attention_heads *a;
    const struct attention_look *look;
    size_t window0;       /* first token of the window */
    size_t stride;        /* of the queries that a head mixes for */
    struct gemm_matrix x; /* inputs of the window, packed by columns */
    double *mass;         /* [n_heads, ctx] */
    float *mixed;         /* [n_mixed, n_cols] */
    size_t *first_mixed;  /* [n_heads + 1] */
};

/* Probabilities of query `pos` over the keys, in place of n_keys scores. */
static void probabilities(const struct attention_heads *a, size_t head, float *s, size_t n_keys, size_t pos)
{
    size_t end = pos + 1, from = a->window && end > a->window ? end - a->window : 0;
    float scale = a->scale > 0 ? a->scale : 1.0f / sqrtf((float)a->key_dim);
    if (a->cap > 0) {
        vec_cap(s + from, scale, a->cap, end - from);
        scale = 1;
    }
    float largest = vec_max(s + from, end - from) * scale;
    if (a->sinks && a->sinks[head] > largest)
        largest = a->sinks[head];
    double sum = vec_exp_sum(s + from, s + from, scale, largest, end - from);
    if (a->sinks)
        sum += exp((double)a->sinks[head] - (double)largest);
    vec_scale(s + from, (float)(1.0 / sum), end - from);
    memset(s, 0, from * sizeof *s);
    memset(s + end, 0, (n_keys - end) * sizeof *s);
}

/* The rows of the tile's probabilities that head `head` mixes for, moved to its start; how many. */
static size_t choose_rows(const struct look_run *r, size_t head, float *p, size_t ldp, size_t pos0, size_t n)
{
    size_t k = 0;
    for (size_t i = 0; i < n; i++)
        if ((pos0 + i + head) % r->stride == 0)
            memmove(p + ldp * k++, p + ldp * i, ldp * sizeof *p);
    return k;
}

static int look_job(void *ctx, size_t head, unsigned worker, struct err *e)
{
    const struct look_run *r = ctx;
    const struct attention_heads *a = r->a;
    size_t kv = head / (a->n_heads / a->n_kv_heads), ldk = (size_t)a->n_kv_heads * a->key_dim,
           ldq = (size_t)a->n_heads * a->query_stride, n_packed = gemm_floats(r->c->kern, a->ctx, a->key_dim);
    float *packed = cpu_scratch(r->c, worker, n_packed + QUERY_TILE * a->ctx);
    if (!packed)
        return err_set(e, ERR_NOMEM, "out of memory for the attention of %zu tokens", a->ctx);
    float *p = packed + n_packed, *to = r->mixed + r->first_mixed[head] * r->look->n_cols;
    double *mass = r->mass + head * a->ctx;
    struct gemm_matrix keys = {r->c->kern, a->ctx, a->key_dim, packed};
    gemm_pack_rows(&keys, 0, a->ctx, cpu_at(a->keys) + (a->first_query + r->window0) * ldk + kv * a->key_dim,
                   ldk);
    for (size_t pos = 0; pos < a->ctx; pos += QUERY_TILE) {
        size_t n = a->ctx - pos < QUERY_TILE ? a->ctx - pos : QUERY_TILE;
        gemm(n, cpu_at(a->queries) + (r->window0 + pos) * ldq + head * a->query_stride, ldq, &keys, p, a->ctx,
             false);
        for (size_t i = 0; i < n; i++) {
            probabilities(a, head, p + i * a->ctx, a->ctx, pos + i);
            for (size_t j = 0; j <= pos + i; j++)
                mass[j] += (double)p[i * a->ctx + j];
        }
        size_t n_rows = choose_rows(r, head, p, a->ctx, pos, n);
        gemm(n_rows, p, a->ctx, &r->x, to, r->look->n_cols, false);
        to += n_rows * r->look->n_cols;
    }
    return 0;
}

static int look_at_window(struct look_run *r, float *mean, struct err *e)
{
    const struct attention_heads *a = r->a;
    const float *x = cpu_at(r->look->x) + r->window0 * r->look->n_cols;
    memset(r->mass, 0, a->n_heads * a->ctx * sizeof *r->mass);
    gemm_pack_columns(&r->x, x, r->look->n_cols);
    int rc = pool_run(r->c->pool, a->n_heads, look_job, r, e);
    if (rc != 0)
        return rc;
    for (size_t j = 0; j < a->ctx; j++) {
        double sum = 0;
        for (size_t head = 0; head < a->n_heads; head++)
            sum += r->mass[head * a->ctx + j];
        mean[j] = (float)(sum / a->n_heads);
    }
    struct attention_seen seen = {r->window0, x, mean, r->mixed, r->first_mixed[a->n_heads]};
    return r->look->take(r->look->ctx, &seen, e);
}

int cpu_look_at_attention(struct compute *base, const struct attention_heads *a,
                          const struct attention_look *look, struct err *e)
{
    struct cpu *c = cpu_of(base);
    struct look_run r = {.c = c, .a = a, .look = look, .stride = (2 * (size_t)a->n_heads + 2) / 3};
    size_t n_floats = gemm_floats(c->kern, look->n_cols, a->ctx);
    r.first_mixed = malloc((a->n_heads + 1) * sizeof *r.first_mixed);
    r.mass = malloc(a->n_heads * a->ctx * sizeof *r.mass);
    float *mean = malloc(a->ctx * sizeof *mean);
    r.x = (struct gemm_matrix){c->kern, look->n_cols, a->ctx,
                               aligned_alloc(64, (n_floats * sizeof(float) + 63) / 64 * 64)};
    size_t n_mixed = 0;
    for (size_t head = 0; r.first_mixed && head <= a->n_heads; head++) {
        r.first_mixed[head] = n_mixed;
        size_t first = (r.stride - head % r.stride) % r.stride; /* (first + head) % stride == 0 */
        n_mixed += first < a->ctx ? (a->ctx - first - 1) / r.stride + 1 : 0;
    }
    r.mixed = malloc(n_mixed * look->n_cols * sizeof *r.mixed + 1);
    int rc = r.first_mixed && r.mass && mean && r.x.data && r.mixed
                 ? 0
                 : err_set(e, ERR_NOMEM, "out of memory for the attention of %zu tokens", a->ctx);
    for (; rc == 0 && r.window0 < a->n_queries; r.window0 += a->ctx)
        rc = look_at_window(&r, mean, e);
    free(r.first_mixed);
    free(r.mass);
    free(mean);
    free(r.x.data);
    free(r.mixed);
    return rc;
}
