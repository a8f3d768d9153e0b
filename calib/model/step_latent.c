/* step_latent.c - attention over latents (MLA): keys and values of a token are one latent vector, and a
 * rotated part that all heads share.
 *
 * Nothing is expanded: a head's query is taken into the space of the latents (q' = Wk^T q, with Wk^T as the
 * file has it), all heads look at the same keys [latent, rotated part], and what a head finds, a mixture of
 * latents, goes through its Wv. That is attention with a single key head, which the back end computes as any
 * other. Truth: specification, architectures 33; DeepSeek-V2, 2024, section 2.1. */
#include "layer_run.h"

#include <stdlib.h>

/* A block of queries in r->wide: [n, n_heads * key_dim] queries, then one [n, .] plane for each head of what
 * goes into Wk or comes out of Wv, then the latent of the queries. */
struct block {
    size_t n, ld; /* tokens; row distance of the queries */
    struct region queries, planes, latent;
};

static size_t plane_cols(const struct attention *a)
{
    return a->latent.nope_dim > a->latent.out_dim ? a->latent.nope_dim : a->latent.out_dim;
}

size_t latent_wide_cols(const struct attention *a)
{
    size_t per_head = (size_t)a->head_dim + plane_cols(a);
    return (size_t)a->n_heads * per_head + a->latent.q_a.n_rows;
}

static struct block block_of(const struct layer_run *r, size_t n)
{
    const struct attention *a = &r->layer->attention;
    struct block b = {.n = n, .ld = (size_t)a->n_heads * a->head_dim, .queries = r->wide};
    b.planes = region_at(b.queries, n * b.ld);
    b.latent = region_at(b.planes, n * a->n_heads * plane_cols(a));
    return b;
}

/* Heads of dim entries, in place: a norm, or a rotation, or both. */
static int finish(struct layer_run *r, struct head_rows x, const float *norm, bool rotates, struct err *e)
{
    x.norm = norm;
    x.eps = LATENT_EPS;
    x.rope = rotates ? r->rope : NULL;
    x.ctx = r->ctx;
    x.positions = r->tree ? r->positions + x.first : NULL;
    return r->ops->rotate_heads(r->compute, &x, e);
}

/* Keys [latent, rotated part] and values, the latent again, of tokens [first, first + n) of the group. A
 * cache holds the keys alone; blocks lie in one of their two parts (kv_cache_check). */
static int keys_and_values(struct layer_run *r, size_t first, size_t n, struct err *e)
{
    const struct attention *a = &r->layer->attention;
    size_t n_embd = r->net->n_embd, n_key = a->head_dim, n_value = a->value_dim;
    struct region k = region_at(r->keys, first * n_key);
    struct region v = region_at(r->keys, r->n_tokens * n_key + first * n_value), x;
    const struct model_tensor *seen[2] = {a->latent.q_a.tensor ? a->latent.q_a.tensor : a->q.tensor,
                                          a->k.tensor};
    struct product p[2] = {layer_product(&a->k, k, n_key, false), layer_product(&a->v, v, n_value, false)};
    struct head_rows heads = {.x = k,
                              .n_heads = 1,
                              .dim = n_value,
                              .stride = n_value,
                              .ld = n_key,
                              .n_tokens = n,
                              .first = first,
                              .stored = r->cache.k};
    int rc = layer_input(r, region_at(r->h, first * n_embd), n, a->norm, &x, e);
    if (rc == 0)
        rc = layer_observe(r, seen, 2, x, n, n_embd, e);
    if (rc == 0)
        rc = r->ops->products(r->compute, r->weights, x, n, n_embd, p, 2, e);
    if (rc == 0)
        rc = finish(r, heads, a->latent.kv_norm, false, e);
    heads.x = v;
    heads.ld = n_value;
    if (rc == 0)
        rc = finish(r, heads, a->latent.kv_norm, false, e);
    heads.x = region_at(k, n_value);
    heads.dim = heads.stride = n_key - n_value;
    heads.ld = n_key;
    return rc == 0 ? finish(r, heads, NULL, true, e) : rc;
}

/* What the queries are made of: x itself, or its latent. */
static int query_input(struct layer_run *r, const struct block *b, struct region *x, size_t *n_cols,
                       struct err *e)
{
    const struct attention *a = &r->layer->attention;
    *n_cols = r->net->n_embd;
    if (!a->latent.q_a.tensor)
        return 0;
    size_t n_latent = (size_t)a->latent.q_a.n_rows;
    struct product p = layer_product(&a->latent.q_a, b->latent, n_latent, false);
    int rc = r->ops->products(r->compute, r->weights, *x, b->n, *n_cols, &p, 1, e);
    if (rc == 0)
        rc = r->ops->rms_norm(r->compute, b->latent, b->latent, b->n, n_latent, a->latent.q_norm, LATENT_EPS,
                              e);
    if (rc == 0)
        rc = layer_observe(r, &a->q.tensor, 1, b->latent, b->n, n_latent, e);
    *x = b->latent;
    *n_cols = n_latent;
    return rc;
}

/* Both parts of every head's query: one into the head's plane, the rotated one to its place. */
static int raw_queries(struct layer_run *r, const struct block *b, struct region x, size_t n_cols,
                       struct err *e)
{
    const struct attention *a = &r->layer->attention;
    size_t nope = a->latent.nope_dim, n_rot = a->head_dim - a->value_dim;
    struct product *p = malloc(2 * a->n_heads * sizeof *p);
    if (!p)
        return err_set(e, ERR_NOMEM, "out of memory for %u heads", a->n_heads);
    for (size_t h = 0; h < a->n_heads; h++) {
        uint64_t row = a->q.row0 + h * (nope + n_rot);
        struct region plane = region_at(b->planes, h * b->n * plane_cols(a));
        struct region rotated = region_at(b->queries, h * a->head_dim + a->value_dim);
        p[2 * h] =
            (struct product){.weight = a->q.tensor, .row0 = row, .n_rows = nope, .y = plane, .ldy = nope};
        p[2 * h + 1] = (struct product){
            .weight = a->q.tensor, .row0 = row + nope, .n_rows = n_rot, .y = rotated, .ldy = b->ld};
    }
    int rc = r->ops->products(r->compute, r->weights, x, b->n, n_cols, p, 2 * (size_t)a->n_heads, e);
    free(p);
    return rc;
}

/* Both parts of the queries as a runtime multiplies them with its keys: rotated, and rounded where that is
 * done, which is as if the whole query were. */
static int finish_queries(struct layer_run *r, const struct block *b, size_t first, struct err *e)
{
    const struct attention *a = &r->layer->attention;
    struct head_rows part = {.x = b->queries,
                             .n_heads = a->n_heads,
                             .dim = a->value_dim,
                             .stride = a->head_dim,
                             .ld = b->ld,
                             .n_tokens = b->n,
                             .first = first,
                             .queries = true,
                             .stored = r->cache.k};
    int rc = finish(r, part, NULL, false, e);
    part.x = region_at(b->queries, a->value_dim);
    part.dim = a->head_dim - a->value_dim;
    return rc == 0 ? finish(r, part, NULL, true, e) : rc;
}

/* Queries of the block that begins at token `first` of the group, in the space of the keys. */
static int queries(struct layer_run *r, const struct block *b, size_t first, struct err *e)
{
    const struct attention *a = &r->layer->attention;
    size_t nope = a->latent.nope_dim, n_cols;
    struct region x;
    int rc = layer_input(r, region_at(r->h, first * r->net->n_embd), b->n, a->norm, &x, e);
    if (rc == 0)
        rc = query_input(r, b, &x, &n_cols, e);
    if (rc == 0)
        rc = raw_queries(r, b, x, n_cols, e);
    for (size_t h = 0; rc == 0 && h < a->n_heads; h++) {
        struct region plane = region_at(b->planes, h * b->n * plane_cols(a));
        struct product p = {.weight = a->latent.k_b,
                            .row0 = h * a->value_dim,
                            .n_rows = a->value_dim,
                            .y = region_at(b->queries, h * a->head_dim),
                            .ldy = b->ld};
        rc = layer_observe_expert(r, &a->latent.k_b, 1, plane, b->n, nope, (int64_t)h, NULL, e);
        if (rc == 0)
            rc = r->ops->products(r->compute, r->weights, plane, b->n, nope, &p, 1, e);
    }
    return rc == 0 ? finish_queries(r, b, first, e) : rc;
}

/* The mixtures of latents that one head found, for an observer, who sees dense rows. */
static int show_mixtures(struct layer_run *r, const struct block *b, size_t h, struct err *e)
{
    const struct attention *a = &r->layer->attention;
    int rc = 0;
    for (size_t t = 0; r->observe && rc == 0 && t < b->n; t++)
        rc = layer_observe_expert(r, &a->latent.v_b, 1, region_at(b->queries, t * b->ld + h * a->head_dim), 1,
                                  a->value_dim, (int64_t)h, NULL, e);
    return rc;
}

static int outputs(struct layer_run *r, const struct block *b, struct region h_states, struct err *e)
{
    const struct attention *a = &r->layer->attention;
    size_t out = a->latent.out_dim, n_out = a->n_heads * out;
    int rc = 0;
    for (size_t h = 0; rc == 0 && h < a->n_heads; h++) {
        struct product p = {.weight = a->latent.v_b,
                            .row0 = h * out,
                            .n_rows = out,
                            .y = region_at(b->planes, h * out),
                            .ldy = n_out};
        rc = show_mixtures(r, b, h, e);
        if (rc == 0)
            rc = r->ops->products(r->compute, r->weights, region_at(b->queries, h * a->head_dim), b->n, b->ld,
                                  &p, 1, e);
    }
    if (rc == 0)
        rc = layer_observe(r, &a->output.tensor, 1, b->planes, b->n, n_out, e);
    return rc == 0 ? layer_add_output(r, &a->output, b->planes, n_out, b->n, a->post_norm, h_states, e) : rc;
}

static int attend(struct layer_run *r, const struct block *b, size_t first, struct err *e)
{
    const struct attention *a = &r->layer->attention;
    struct attention_heads heads = {.n_heads = a->n_heads,
                                    .n_kv_heads = 1,
                                    .key_dim = a->head_dim,
                                    .value_dim = a->value_dim,
                                    .query_stride = a->head_dim,
                                    .queries = b->queries,
                                    .keys = r->keys,
                                    .values = region_at(r->keys, r->n_tokens * (size_t)a->head_dim),
                                    .first_query = first,
                                    .n_queries = b->n,
                                    .ctx = r->ctx,
                                    .scale = a->scale,
                                    .tree = r->tree,
                                    .tree_row = r->tree_row};
    struct region x = a->norm ? r->norm : region_at(r->h, first * r->net->n_embd);
    struct attention_look look = {x, r->net->n_embd, layer_tell_of_window, r};
    int rc = r->observe_attention ? r->ops->look_at_attention(r->compute, &heads, &look, e) : 0;
    return rc == 0 ? r->ops->attention(r->compute, &heads, e) : rc;
}

int step_latent(struct layer_run *r, struct err *e)
{
    int rc = 0;
    for (size_t t = 0, n; rc == 0 && t < r->n_tokens; t += r->block) {
        n = r->n_tokens - t < r->block ? r->n_tokens - t : r->block;
        rc = keys_and_values(r, t, n, e);
    }
    for (size_t t = 0; rc == 0 && t < r->n_tokens; t += r->block) {
        struct block b = block_of(r, r->n_tokens - t < r->block ? r->n_tokens - t : r->block);
        rc = queries(r, &b, t, e);
        if (rc == 0)
            rc = attend(r, &b, t, e);
        if (rc == 0)
            rc = outputs(r, &b, region_at(r->h, t * r->net->n_embd), e);
    }
    return rc;
}
