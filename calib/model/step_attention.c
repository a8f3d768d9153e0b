/* step_attention.c - the attention step of a layer: norm, projections, head norms, rotation, attention,
 * output. Keys and values of the whole group come first, then queries block by block. */
#include "layer_run.h"

size_t attention_wide_cols(const struct attention *a)
{
    return (size_t)a->n_heads * a->head_dim * (a->gated ? 2 : 1);
}

/* Norm and rotation of the heads of queries or keys, which lie densely where one norm goes over all of them.
 */
static int finish_heads(struct layer_run *r, struct head_rows *x, const float *norm, struct err *e)
{
    const struct attention *a = &r->layer->attention;
    int rc = 0;
    if (norm && a->whole_norm)
        rc = r->ops->rms_norm(r->compute, x->x, x->x, x->n_tokens, x->ld, norm, r->net->eps, e);
    else
        x->norm = norm;
    x->eps = r->net->eps;
    x->rope = !a->rotates ? NULL : a->local ? r->local_rope : r->rope;
    x->positions = r->tree ? r->positions + x->first : NULL;
    return rc == 0 ? r->ops->rotate_heads(r->compute, x, e) : rc;
}

/* Norm and rotation of keys; values take part only in the rounding of the cache. */
static int finish_keys(struct layer_run *r, struct region k, struct region v, size_t first, size_t n,
                       struct err *e)
{
    const struct attention *a = &r->layer->attention;
    struct head_rows keys = {.x = k,
                             .n_heads = a->n_kv_heads,
                             .dim = a->head_dim,
                             .stride = a->head_dim,
                             .ld = (size_t)a->k.n_rows,
                             .n_tokens = n,
                             .first = first,
                             .ctx = r->ctx,
                             .stored = r->cache.k,
                             .turn = kv_cache_turn_keys(r->cache.k, a->head_dim)};
    struct head_rows values = {.x = v,
                               .n_heads = a->n_kv_heads,
                               .dim = a->value_dim,
                               .stride = a->value_dim,
                               .ld = (size_t)a->v.n_rows,
                               .n_tokens = n,
                               .ctx = r->ctx,
                               .stored = r->cache.v,
                               .turn = kv_cache_turn_values(r->cache.v, a->value_dim)};
    int rc = finish_heads(r, &keys, a->k_norm, e);
    return rc == 0 ? r->ops->rotate_heads(r->compute, &values, e) : rc;
}

static int keys_and_values(struct layer_run *r, size_t first, size_t n, bool with_queries, struct err *e)
{
    const struct attention *a = &r->layer->attention;
    size_t k_cols = (size_t)a->k.n_rows, v_cols = (size_t)a->v.n_rows, q_cols = attention_wide_cols(a);
    size_t n_embd = r->net->n_embd;
    struct region k = region_at(r->keys, first * k_cols);
    struct region v = region_at(r->keys, r->n_tokens * k_cols + first * v_cols);
    const struct model_tensor *seen[3] = {a->q.tensor, a->k.tensor, a->v.tensor};
    size_t n_seen = a->q.tensor == a->k.tensor ? 1 : 3; /* one, when fused */
    struct region x;
    int rc = layer_input(r, region_at(r->h, first * n_embd), n, a->norm, &x, e);
    if (rc == 0)
        rc = layer_observe(r, seen, n_seen, x, n, n_embd, e);
    struct product p[3] = {layer_product(&a->k, k, k_cols, false), layer_product(&a->v, v, v_cols, false),
                           layer_product(&a->q, r->wide, q_cols, false)};
    if (rc == 0)
        rc = r->ops->products(r->compute, r->weights, x, n, n_embd, p, with_queries ? 3 : 2, e);
    return rc == 0 ? finish_keys(r, k, v, first, n, e) : rc;
}

int layer_tell_of_window(void *ctx, const struct attention_seen *seen, struct err *e)
{
    const struct layer_run *r = ctx;
    const struct attention *a = &r->layer->attention;
    struct attention_observation o = {.q = a->q.tensor,
                                      .k = a->k.tensor,
                                      .v = a->v.tensor,
                                      .x = seen->x,
                                      .n_tokens = r->ctx,
                                      .n_cols = r->net->n_embd,
                                      .mass = seen->mass,
                                      .mixed = seen->mixed,
                                      .n_mixed = seen->n_mixed};
    return r->observe_attention(r->observe_ctx, &o, e);
}

static int attend(struct layer_run *r, size_t first, size_t n, struct err *e)
{
    const struct attention *a = &r->layer->attention;
    size_t stride = (size_t)a->head_dim * (a->gated ? 2 : 1);
    struct head_rows queries = {.x = r->wide,
                                .n_heads = a->n_heads,
                                .dim = a->head_dim,
                                .stride = stride,
                                .ld = a->n_heads * stride,
                                .n_tokens = n,
                                .first = first,
                                .ctx = r->ctx,
                                .queries = true,
                                .stored = r->cache.k,
                                .turn = kv_cache_turn_keys(r->cache.k, a->head_dim)};
    struct attention_heads heads = {.n_heads = a->n_heads,
                                    .n_kv_heads = a->n_kv_heads,
                                    .key_dim = a->head_dim,
                                    .value_dim = a->value_dim,
                                    .window = a->window,
                                    .query_stride = stride,
                                    .queries = r->wide,
                                    .keys = r->keys,
                                    .values = region_at(r->keys, r->n_tokens * (size_t)a->k.n_rows),
                                    .first_query = first,
                                    .n_queries = n,
                                    .ctx = r->ctx,
                                    .scale = a->scale,
                                    .cap = a->cap,
                                    .sinks = a->sinks,
                                    .tree = r->tree,
                                    .tree_row = r->tree_row};
    struct region x = a->norm ? r->norm : region_at(r->h, first * r->net->n_embd);
    struct attention_look look = {x, r->net->n_embd, layer_tell_of_window, r};
    int rc = finish_heads(r, &queries, a->q_norm, e);
    if (rc == 0 && r->observe_attention)
        rc = r->ops->look_at_attention(r->compute, &heads, &look, e);
    return rc == 0 ? r->ops->attention(r->compute, &heads, e) : rc;
}

/* From head outputs, which stand where the queries stood, to rows that the output matrix takes; *ld is their
 * distance. An observer sees dense rows. */
static int pack_outputs(struct layer_run *r, size_t n, size_t *ld, struct err *e)
{
    const struct attention *a = &r->layer->attention;
    size_t n_heads = a->n_heads, out_cols = n_heads * a->value_dim, wide_cols = attention_wide_cols(a);
    *ld = out_cols;
    if (!a->gated)
        return r->ops->pack_rows(r->compute, r->wide, n * n_heads, a->value_dim, a->head_dim, e);
    struct gated_heads gated = {r->wide, n, n_heads, a->head_dim, a->value_dim, 2 * (size_t)a->head_dim};
    int rc = r->ops->gate_heads(r->compute, &gated, e);
    if (rc == 0 && r->observe)
        return r->ops->pack_rows(r->compute, r->wide, n, out_cols, wide_cols, e);
    *ld = wide_cols;
    return rc;
}

int step_attention(struct layer_run *r, struct err *e)
{
    const struct attention *a = &r->layer->attention;
    size_t n_embd = r->net->n_embd, out_cols = (size_t)a->n_heads * a->value_dim, ld = 0;
    bool one_block = r->n_tokens <= r->block;
    int rc = 0;
    for (size_t t = 0; rc == 0 && t < r->n_tokens; t += r->block)
        rc = keys_and_values(r, t, r->n_tokens - t < r->block ? r->n_tokens - t : r->block, one_block, e);
    for (size_t t = 0; rc == 0 && t < r->n_tokens; t += r->block) {
        size_t n = r->n_tokens - t < r->block ? r->n_tokens - t : r->block;
        struct region h = region_at(r->h, t * n_embd);
        if (!one_block) {
            struct product q = layer_product(&a->q, r->wide, attention_wide_cols(a), false);
            struct region x;
            rc = layer_input(r, h, n, a->norm, &x, e);
            if (rc == 0)
                rc = r->ops->products(r->compute, r->weights, x, n, n_embd, &q, 1, e);
        }
        if (rc == 0)
            rc = attend(r, t, n, e);
        if (rc == 0)
            rc = pack_outputs(r, n, &ld, e);
        if (rc == 0)
            rc = layer_observe(r, &a->output.tensor, 1, r->wide, n, out_cols, e);
        if (rc == 0)
            rc = layer_add_output(r, &a->output, r->wide, ld, n, a->post_norm, h, e);
    }
    return rc;
}
