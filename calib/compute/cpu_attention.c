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
#include <stdlib.h>
#include <string.h>

#define QUERY_TILE   128
#define KEYS_AT_ONCE KERN_TILE_DEPTH /* whole chains of products */

/* n queries from position pos0 of their text on, in rows of the block from `query` on. */
struct queries {
    size_t query, n, pos0;
    size_t branch; /* of the tree, where there is one; else ... */
    size_t row0;   /* ... the row of the first key of their window */
};

struct attention_job_plan {
    struct cpu *c;
    const struct attention_heads *a;
    struct queries *tiles;
    size_t n_tiles;
};

/* What a query of one head has seen. */
struct seen {
    double sum;    /* of exp(score - largest) */
    float largest; /* score so far */
};

/* The scratch of a job. */
struct tile_space {
    float *packed;     /* a block of keys, then of values */
    float *gathered;   /* with a tree: the same as rows, where they do not lie together */
    float *scores;     /* [QUERY_TILE, KEYS_AT_ONCE] */
    float *out;        /* [group, QUERY_TILE, value_dim] */
    struct seen *seen; /* [group, QUERY_TILE] */
};

/* One tile: n queries from position pos0 of a text on, of the heads that share key head kv. */
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

/* n keys of key head kv from position key0 on, and their values, as rows. */
struct key_rows {
    const float *keys, *values;
    size_t ldk, ldv;
};

static struct key_rows keys_at(const struct tile *t, const struct queries *q, size_t kv, size_t key0,
                               size_t n)
{
    const struct attention_heads *a = t->a;
    const size_t dim_k = a->key_dim, dim_v = a->value_dim;
    size_t together = n,
           row = a->tree ? row_tree_row(&together, a->tree->branches, q->branch, key0) : q->row0 + key0;
    struct key_rows r = {.ldk = a->n_kv_heads * dim_k, .ldv = a->n_kv_heads * dim_v};
    const float *keys = cpu_at(a->keys) + kv * dim_k, *values = cpu_at(a->values) + kv * dim_v;
    row -= a->tree ? a->tree_row : 0;
    r.keys = keys + row * r.ldk;
    r.values = values + row * r.ldv;
    if (together >= n)
        return r;
    float *to_k = t->s.gathered, *to_v = to_k + n * dim_k;
    struct key_rows copy = {to_k, to_v, dim_k, dim_v};
    for (size_t done = 0; done < n; done += together) {
        row = row_tree_row(&together, a->tree->branches, q->branch, key0 + done) - a->tree_row;
        together = together < n - done ? together : n - done;
        for (size_t i = 0; i < together; i++, to_k += dim_k, to_v += dim_v) {
            memcpy(to_k, keys + (row + i) * r.ldk, dim_k * sizeof *to_k);
            memcpy(to_v, values + (row + i) * r.ldv, dim_v * sizeof *to_v);
        }
    }
    return copy;
}

/* All heads of the tile over one block of keys. */
static void meet_keys(const struct tile *t, const struct key_rows *rows, size_t key0, size_t n_keys)
{
    const struct attention_heads *a = t->a;
    struct gemm_matrix k = {t->kern, n_keys, a->key_dim, t->s.packed};
    struct gemm_matrix v = {t->kern, a->value_dim, n_keys,
                            t->s.packed + gemm_floats(t->kern, KEYS_AT_ONCE, a->key_dim)};
    gemm_pack_rows(&k, 0, n_keys, rows->keys, rows->ldk);
    gemm_pack_columns(&v, rows->values, rows->ldv);
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
    size_t n_rows = a->tree ? KEYS_AT_ONCE * ((size_t)a->key_dim + a->value_dim) : 0;
    n_packed += n_packed % 2; /* seen holds doubles */
    float *p =
        cpu_scratch(c, worker, n_packed + n_scores + n_out + n_seen * sizeof *t->s.seen / sizeof *p + n_rows);
    if (!p)
        return false;
    struct seen *seen = (struct seen *)(void *)(p + n_packed + n_scores + n_out);
    t->s = (struct tile_space){.packed = p,
                               .gathered = (float *)(void *)(seen + n_seen),
                               .scores = p + n_packed,
                               .out = p + n_packed + n_scores,
                               .seen = seen};
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
    size_t kv = job % a->n_kv_heads;
    const struct queries *q = &p->tiles[job / a->n_kv_heads];
    struct tile t = {.a = a,
                     .kern = p->c->kern,
                     .ldq = a->n_heads * a->query_stride,
                     .n = q->n,
                     .pos0 = q->pos0,
                     .group = a->n_heads / a->n_kv_heads};
    t.queries = cpu_at(a->queries) + q->query * t.ldq + kv * t.group * a->query_stride;
    if (!tile_space(&t, p->c, worker, kv * t.group))
        return err_set(e, ERR_NOMEM, "out of memory for the attention of %zu heads", t.group);
    size_t end = t.pos0 + t.n;
    size_t first =
        a->window && t.pos0 + 1 > a->window ? (t.pos0 + 1 - a->window) / KEYS_AT_ONCE * KEYS_AT_ONCE : 0;
    for (size_t key = first; key < end; key += KEYS_AT_ONCE) {
        size_t n = end - key < KEYS_AT_ONCE ? end - key : KEYS_AT_ONCE;
        struct key_rows rows = keys_at(&t, q, kv, key, n);
        meet_keys(&t, &rows, key, n);
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

/* Tiles of n queries, all of one text, which begin at `from`. */
static void add_tiles(struct attention_job_plan *p, const struct queries *from)
{
    for (size_t i = 0; i < from->n; i += QUERY_TILE) {
        struct queries *q = &p->tiles[p->n_tiles++];
        *q = *from;
        q->query += i;
        q->pos0 += i;
        q->n = from->n - i < QUERY_TILE ? from->n - i : QUERY_TILE;
    }
}

static void window_tiles(struct attention_job_plan *p)
{
    const struct attention_heads *a = p->a;
    for (size_t i = 0, n; i < a->n_queries; i += n) {
        size_t row = a->first_query + i, pos = row % a->ctx;
        n = a->ctx - pos < a->n_queries - i ? a->ctx - pos : a->n_queries - i;
        struct queries q = {.query = i, .n = n, .pos0 = pos, .row0 = row - pos};
        add_tiles(p, &q);
    }
}

static void branch_tiles(struct attention_job_plan *p)
{
    const struct attention_heads *a = p->a;
    size_t begin = a->tree_row + a->first_query, end = begin + a->n_queries;
    for (size_t i = 0; i < a->tree->n; i++) {
        const struct row_branch *b = &a->tree->branches[i];
        size_t from = b->row > begin ? b->row : begin, to = b->row + b->n < end ? b->row + b->n : end;
        struct queries q = {
            .query = from - begin, .n = to - from, .pos0 = b->n_before + (from - b->row), .branch = i};
        if (from < to)
            add_tiles(p, &q);
    }
}

int cpu_attention(struct compute *c, const struct attention_heads *a, struct err *e)
{
    struct attention_job_plan p = {.c = cpu_of(c), .a = a};
    size_t n_texts = a->tree ? a->tree->n : a->n_queries / a->ctx + 2; /* each may end in a part of a tile */
    p.tiles = malloc((a->n_queries / QUERY_TILE + n_texts) * sizeof *p.tiles);
    if (!p.tiles)
        return err_set(e, ERR_NOMEM, "out of memory for %zu queries", a->n_queries);
    if (a->tree)
        branch_tiles(&p);
    else
        window_tiles(&p);
    int rc = pool_run(p.c->pool, p.n_tiles * a->n_kv_heads, attention_job, &p, e);
    free(p.tiles);
    return rc;
}
