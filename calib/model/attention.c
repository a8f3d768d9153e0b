/* attention.c - see attention.h.
 *
 * A job is one tile of queries of one key head: scores S = Q K^T, an exact softmax over the keys each query
 * may see, and S V. Keys and values are packed a block at a time. Tiles lie at fixed positions of a window,
 * so bits do not depend on how queries are cut into blocks. The result goes where the queries were: a job
 * reads its queries before it writes, and no other job touches them. */
#include "attention.h"

#include "vecmath.h"

#include <math.h>
#include <string.h>

#define KEYS_AT_ONCE KERN_TILE_DEPTH /* values are summed in stretches of it in any case */

struct attention_job_plan {
    struct ops *o;
    const struct attention_heads *a;
    size_t tile, tiles_per_window;
};

/* Queries per tile: fewer for long windows, so that the scores of a worker stay below 16 MiB up to 128k. */
static size_t query_tile(size_t ctx)
{
    return ctx <= 4096 ? 128 : ctx <= 16384 ? 64 : 32;
}

/* Row i of the scores belongs to position first_pos + i; its keys are [key0, position]. Turns the row into
 * weights that sum to *inverse^-1, zero where it may not look. */
static void softmax_row(float *s, size_t n_keys, size_t from, size_t to, float scale, float *inverse)
{
    float largest = vec_max(s + from, to - from);
    memset(s, 0, from * sizeof *s);
    double sum = vec_exp_sum(s + from, s + from, scale, largest * scale, to - from);
    memset(s + to, 0, (n_keys - to) * sizeof *s);
    *inverse = (float)(1.0 / sum);
}

/* s[n, n_keys] = q K^T */
static void scores_of(const struct kern_product *kern, float *s, const float *q, size_t ldq, size_t n,
                      const float *keys, size_t ldk, size_t n_keys, size_t dim, float *packed)
{
    for (size_t k = 0; k < n_keys; k += KEYS_AT_ONCE) {
        struct gemm_matrix b = {kern, n_keys - k < KEYS_AT_ONCE ? n_keys - k : KEYS_AT_ONCE, dim, packed};
        gemm_pack_rows(&b, 0, b.n_rows, keys + k * ldk, ldk);
        gemm(n, q, ldq, &b, s + k, n_keys, false);
    }
}

/* y[n, dim] = s V */
static void weighted_values(const struct kern_product *kern, float *y, size_t ldy, const float *s, size_t n,
                            const float *values, size_t ldv, size_t n_keys, size_t dim, float *packed)
{
    for (size_t k = 0; k < n_keys; k += KEYS_AT_ONCE) {
        struct gemm_matrix b = {kern, dim, n_keys - k < KEYS_AT_ONCE ? n_keys - k : KEYS_AT_ONCE, packed};
        gemm_pack_columns(&b, values + k * ldv, ldv);
        gemm(n, s + k, n_keys, &b, y, ldy, k > 0);
    }
}

static int attention_job(void *ctx, size_t job, unsigned worker, struct err *e)
{
    const struct attention_job_plan *p = ctx;
    const struct attention_heads *a = p->a;
    size_t kv = job % a->n_kv_heads, tile = job / a->n_kv_heads % p->tiles_per_window;
    size_t window = job / a->n_kv_heads / p->tiles_per_window;
    size_t query0 = window * a->ctx + tile * p->tile; /* among the block's queries */
    size_t window0 = (a->first_query + query0) / a->ctx * a->ctx, pos0 = a->first_query + query0 - window0;
    size_t n = a->ctx - pos0 < p->tile ? a->ctx - pos0 : p->tile;
    if (query0 >= a->n_queries)
        return 0;
    n = a->n_queries - query0 < n ? a->n_queries - query0 : n;
    size_t key0 = a->window && pos0 + 1 > a->window ? pos0 + 1 - a->window : 0, n_keys = pos0 + n - key0;
    const struct kern_product *kern = p->o->kern;
    size_t block = a->ctx < KEYS_AT_ONCE ? a->ctx : KEYS_AT_ONCE;
    size_t n_keys_packed = gemm_floats(kern, block, a->key_dim),
           n_values = gemm_floats(kern, a->value_dim, block);
    size_t n_packed = n_keys_packed > n_values ? n_keys_packed : n_values;
    float *packed = ops_scratch(p->o, worker, n_packed + p->tile * (a->ctx + 1));
    if (!packed)
        return err_set(e, ERR_NOMEM, "out of memory for attention scores over %zu keys", a->ctx);
    float *scores = packed + n_packed, *inverse = scores + p->tile * a->ctx,
          scale = 1.0f / sqrtf((float)a->key_dim);
    size_t ldq = a->n_heads * a->query_stride, ldk = (size_t)a->n_kv_heads * a->key_dim;
    size_t ldv = (size_t)a->n_kv_heads * a->value_dim, group = a->n_heads / a->n_kv_heads;
    const float *keys = a->keys + (window0 + key0) * ldk + kv * a->key_dim;
    const float *values = a->values + (window0 + key0) * ldv + kv * a->value_dim;
    for (size_t head = kv * group; head < (kv + 1) * group; head++) {
        float *q = a->queries + query0 * ldq + head * a->query_stride;
        scores_of(kern, scores, q, ldq, n, keys, ldk, n_keys, a->key_dim, packed);
        for (size_t i = 0; i < n; i++) {
            size_t to = pos0 + i + 1 - key0;
            size_t from = a->window && pos0 + i + 1 > a->window + key0 ? pos0 + i + 1 - a->window - key0 : 0;
            softmax_row(scores + i * n_keys, n_keys, from, to, scale, &inverse[i]);
        }
        weighted_values(kern, q, ldq, scores, n, values, ldv, n_keys, a->value_dim, packed);
        for (size_t i = 0; i < n; i++)
            vec_scale(q + i * ldq, inverse[i], a->value_dim);
    }
    return 0;
}

int attention_run(struct ops *o, const struct attention_heads *a, struct err *e)
{
    struct attention_job_plan p = {o, a, query_tile(a->ctx), 0};
    size_t span = a->n_queries < a->ctx ? a->n_queries : a->ctx;
    size_t n_windows = (a->n_queries + a->ctx - 1) / a->ctx;
    p.tiles_per_window = (span + p.tile - 1) / p.tile;
    return pool_run(o->pool, n_windows * p.tiles_per_window * a->n_kv_heads, attention_job, &p, e);
}
