/* cpu_attention.c - attention, a tile of queries at a time.
 *
 * A job is one tile of queries of one key head, for all query heads that share it. Keys and values pass by in
 * blocks, each packed once; beside the weighted sum of the values seen so far a query keeps the largest score
 * and the sum of exponentials, and scales both when a larger score comes (M. Milakov, N. Gimelshein, "Online
 * normalizer calculation for softmax", 2018; T. Dao et al., FlashAttention, 2022). So no job holds more than
 * a block of scores, however long the window. Blocks begin at fixed positions of the window: a query's bits
 * depend on itself and its keys alone. The result goes where the queries were: a job reads its queries before
 * it writes, and no other job touches them. */
#include "cpu.h"
#include "vecmath.h"

#include <math.h>
#include <string.h>

#define QUERY_TILE   128
#define KEYS_AT_ONCE KERN_TILE_DEPTH /* products sum in stretches of it in any case */

struct attention_job_plan {
    struct cpu *c;
    const struct attention_heads *a;
    size_t tiles_per_window;
};

/* What a query of one head has seen. */
struct seen {
    double sum;    /* of exp(score - largest) */
    float largest; /* score so far */
};

/* The scratch of a job. */
struct tile_space {
    float *packed;     /* a block of keys, then of values */
    float *scores;     /* [QUERY_TILE, KEYS_AT_ONCE] */
    float *out;        /* [group, QUERY_TILE, value_dim] */
    struct seen *seen; /* [group, QUERY_TILE] */
};

/* One tile: n queries from position pos0 of a window on, of the heads that share key head kv. */
struct tile {
    const struct attention_heads *a;
    const struct kern_product *kern;
    float *queries; /* of the first head, rows ldq apart */
    size_t ldq, n, pos0, group;
    struct tile_space s;
};

/* Turns n_keys scores of a row into weights, zero outside of [from, to), and scales what was summed before.
 */
static void softmax_row(struct seen *seen, float *out, size_t dim, float *s, size_t n_keys, size_t from,
                        size_t to, float scale)
{
    if (from >= to) {
        memset(s, 0, n_keys * sizeof *s);
        return;
    }
    float largest = vec_max(s + from, to - from) * scale;
    if (largest > seen->largest) {
        float before = seen->largest, factor;
        vec_exp_sum(&factor, &before, 1.0f, largest, 1);
        seen->sum *= (double)factor;
        vec_scale(out, factor, dim);
        seen->largest = largest;
    }
    memset(s, 0, from * sizeof *s);
    seen->sum += vec_exp_sum(s + from, s + from, scale, seen->largest, to - from);
    memset(s + to, 0, (n_keys - to) * sizeof *s);
}

/* Scores of one head for the block of keys [key0, key0 + n_keys) of the window, turned into weights. */
static void head_weights(const struct tile *t, size_t head, const struct gemm_matrix *keys, size_t key0)
{
    const struct attention_heads *a = t->a;
    size_t n_keys = keys->n_rows;
    float scale = a->scale > 0 ? a->scale : 1.0f / sqrtf((float)a->key_dim);
    gemm(t->n, t->queries + head * a->query_stride, t->ldq, keys, t->s.scores, KEYS_AT_ONCE, false);
    for (size_t i = 0; a->cap > 0 && i < t->n; i++)
        vec_cap(t->s.scores + i * KEYS_AT_ONCE, scale, a->cap, n_keys);
    if (a->cap > 0)
        scale = 1;
    for (size_t i = 0; i < t->n; i++) {
        size_t end = t->pos0 + i + 1, at = head * QUERY_TILE + i; /* keys it may see end here */
        size_t to = end > key0 ? end - key0 : 0;
        size_t from = a->window && end > a->window + key0 ? end - a->window - key0 : 0;
        softmax_row(&t->s.seen[at], t->s.out + at * a->value_dim, a->value_dim,
                    t->s.scores + i * KEYS_AT_ONCE, n_keys, from < n_keys ? from : n_keys,
                    to < n_keys ? to : n_keys, scale);
    }
}

/* All heads of the tile over one block of keys. */
static void meet_keys(const struct tile *t, const float *keys, size_t ldk, const float *values, size_t ldv,
                      size_t key0, size_t n_keys)
{
    const struct attention_heads *a = t->a;
    struct gemm_matrix k = {t->kern, n_keys, a->key_dim, t->s.packed};
    struct gemm_matrix v = {t->kern, a->value_dim, n_keys,
                            t->s.packed + gemm_floats(t->kern, KEYS_AT_ONCE, a->key_dim)};
    gemm_pack_rows(&k, 0, n_keys, keys, ldk);
    gemm_pack_columns(&v, values, ldv);
    for (size_t head = 0; head < t->group; head++) {
        head_weights(t, head, &k, key0);
        gemm(t->n, t->s.scores, KEYS_AT_ONCE, &v, t->s.out + head * QUERY_TILE * a->value_dim, a->value_dim,
             true);
    }
}

/* `head0`: the first head of the group. A sink is a key that was seen before all others. */
static bool tile_space(struct tile *t, struct cpu *c, unsigned worker, size_t head0)
{
    const struct attention_heads *a = t->a;
    size_t n_packed =
        gemm_floats(t->kern, KEYS_AT_ONCE, a->key_dim) + gemm_floats(t->kern, a->value_dim, KEYS_AT_ONCE);
    size_t n_scores = QUERY_TILE * KEYS_AT_ONCE, n_seen = t->group * QUERY_TILE,
           n_out = n_seen * a->value_dim;
    n_packed += n_packed % 2; /* seen holds doubles */
    float *p = cpu_scratch(c, worker, n_packed + n_scores + n_out + n_seen * sizeof *t->s.seen / sizeof *p);
    if (!p)
        return false;
    t->s = (struct tile_space){p, p + n_packed, p + n_packed + n_scores,
                               (struct seen *)(void *)(p + n_packed + n_scores + n_out)};
    memset(t->s.out, 0, n_out * sizeof *p);
    for (size_t i = 0; i < n_seen; i++)
        t->s.seen[i] =
            a->sinks ? (struct seen){1, a->sinks[head0 + i / QUERY_TILE]} : (struct seen){0, -INFINITY};
    return true;
}

static int attention_job(void *ctx, size_t job, unsigned worker, struct err *e)
{
    const struct attention_job_plan *p = ctx;
    const struct attention_heads *a = p->a;
    size_t kv = job % a->n_kv_heads, tile = job / a->n_kv_heads % p->tiles_per_window;
    size_t window = job / a->n_kv_heads / p->tiles_per_window;
    size_t query0 = window * a->ctx + tile * QUERY_TILE; /* among the block's queries */
    if (query0 >= a->n_queries)
        return 0;
    size_t window0 = (a->first_query + query0) / a->ctx * a->ctx, pos0 = a->first_query + query0 - window0;
    size_t left = a->ctx - pos0 < a->n_queries - query0 ? a->ctx - pos0 : a->n_queries - query0;
    struct tile t = {.a = a,
                     .kern = p->c->kern,
                     .ldq = a->n_heads * a->query_stride,
                     .n = left < QUERY_TILE ? left : QUERY_TILE,
                     .pos0 = pos0,
                     .group = a->n_heads / a->n_kv_heads};
    t.queries = cpu_at(a->queries) + query0 * t.ldq + kv * t.group * a->query_stride;
    if (!tile_space(&t, p->c, worker, kv * t.group))
        return err_set(e, ERR_NOMEM, "out of memory for the attention of %zu heads", t.group);
    size_t ldk = (size_t)a->n_kv_heads * a->key_dim, ldv = (size_t)a->n_kv_heads * a->value_dim;
    size_t first =
        a->window && pos0 + 1 > a->window ? (pos0 + 1 - a->window) / KEYS_AT_ONCE * KEYS_AT_ONCE : 0;
    for (size_t key = first; key < pos0 + t.n; key += KEYS_AT_ONCE) {
        size_t n = pos0 + t.n - key < KEYS_AT_ONCE ? pos0 + t.n - key : KEYS_AT_ONCE;
        meet_keys(&t, cpu_at(a->keys) + (window0 + key) * ldk + kv * a->key_dim, ldk,
                  cpu_at(a->values) + (window0 + key) * ldv + kv * a->value_dim, ldv, key, n);
    }
    for (size_t at = 0; at < t.group * QUERY_TILE; at++)
        if (at % QUERY_TILE < t.n) {
            float *out = t.s.out + at * a->value_dim;
            vec_scale(out, (float)(1.0 / t.s.seen[at].sum), a->value_dim);
            memcpy(t.queries + at % QUERY_TILE * t.ldq + at / QUERY_TILE * a->query_stride, out,
                   a->value_dim * sizeof *out);
        }
    return 0;
}

int cpu_attention(struct compute *c, const struct attention_heads *a, struct err *e)
{
    struct attention_job_plan p = {cpu_of(c), a, 0};
    size_t span = a->n_queries < a->ctx ? a->n_queries : a->ctx;
    size_t n_windows = (a->n_queries + a->ctx - 1) / a->ctx;
    p.tiles_per_window = (span + QUERY_TILE - 1) / QUERY_TILE;
    return pool_run(p.c->pool, n_windows * p.tiles_per_window * a->n_kv_heads, attention_job, &p, e);
}
