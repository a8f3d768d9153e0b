/* forward.c - see forward.h: groups, buffers, and the walk over layers. */
#include "forward.h"

#include "layer_run.h"

#include <stdlib.h>
#include <string.h>

#define GROUP_TOKENS 4096 /* enough that decoding a panel costs a few percent of multiplying it */

size_t layer_wide_cols(const struct net *net, const struct net_layer *l)
{
    size_t most = 0;
    for (size_t i = 0; i < l->n_steps; i++) {
        size_t n = 0;
        switch (l->steps[i]) {
        case STEP_ATTENTION: n = attention_wide_cols(&l->attention); break;
        case STEP_MLP: n = 2 * (size_t)l->mlp.width; break;
        case STEP_MOE: n = moe_wide_cols(net, &l->moe); break;
        case STEP_DELTA_NET: n = delta_net_wide_cols(&l->delta_net); break;
        }
        most = n > most ? n : most;
    }
    return most;
}

size_t layer_kept_cols(const struct net_layer *l)
{
    return l->steps[0] == STEP_ATTENTION ? (size_t)(l->attention.k.n_rows + l->attention.v.n_rows) : 0;
}

size_t layer_state_floats(const struct net_layer *l)
{
    const struct delta_net *d = &l->delta_net;
    if (l->steps[0] != STEP_DELTA_NET)
        return 0;
    size_t conv = 2 * (size_t)d->n_k_heads * d->k_dim + (size_t)d->n_v_heads * d->v_dim;
    return d->kernel * conv + (size_t)d->n_v_heads * d->k_dim * d->v_dim;
}

int layer_observe(const struct layer_run *r, const struct model_tensor *const *tensors, size_t n_tensors,
                  const float *x, size_t n_tokens, size_t n_cols, int64_t expert, struct err *e)
{
    if (!r->observe)
        return 0;
    struct observation o = {tensors, n_tensors, x, n_tokens, n_cols, expert};
    return r->observe(r->observe_ctx, &o, e);
}

struct product layer_product(const struct matrix *m, float *y, size_t ldy, bool add)
{
    return (struct product){.weight = m->tensor,
                            .row0 = m->row0,
                            .n_rows = m->n_rows,
                            .bias = m->bias,
                            .y = y,
                            .ldy = ldy,
                            .add = add};
}

/* Everything one pass owns. */
struct pass {
    const struct net *net;
    const struct forward_options *opt;
    struct weights *w;
    const int32_t *ids;
    size_t n_windows, ctx, n_tokens;
    size_t group, block; /* tokens */
    struct ops ops;
    struct rope_table rope;
    struct hidden_states *states; /* [n_tokens, n_embd] */
    struct hidden_states *kept;
    float *h, *norm, *wide, *keys, *state;
    uint64_t done, total; /* layer-tokens */
};

static int (*const run_step[])(struct layer_run *, struct err *) = {
    [STEP_ATTENTION] = step_attention,
    [STEP_MLP] = step_mlp,
    [STEP_MOE] = step_moe,
    [STEP_DELTA_NET] = step_delta_net,
};

/* Group: whole windows, up to GROUP_TOKENS, fewer when memory is short, one window at least. Block: the
 * group, or tiles of it when not even a window's buffers fit. States get half of the memory, buffers the
 * other. */
static void plan_sizes(struct pass *p, size_t wide, size_t kept)
{
    uint64_t budget = p->opt->memory_bytes / 2;
    size_t n_embd = p->net->n_embd, tile = p->ops.tile;
    size_t rounded = p->opt->activations == ACTIVATIONS_Q8 ? wide : 0;
    uint64_t per_token = sizeof(float) * (2 * n_embd + wide + rounded), per_kept = sizeof(float) * kept;
    uint64_t fits = budget / (per_token + per_kept + 1);
    p->group = (size_t)(fits < GROUP_TOKENS ? fits : GROUP_TOKENS) / p->ctx * p->ctx;
    if (p->ctx > tile && p->group > p->ctx)
        p->group = p->ctx; /* tiles restart with each window */
    if (p->group == 0)
        p->group = p->ctx;
    p->block = p->group;
    if (p->ctx > tile && p->block > tile && !p->opt->observe_attention) {
        uint64_t left = budget > per_kept * p->group ? budget - per_kept * p->group : 0;
        size_t n = (size_t)(left / (per_token + 1) < GROUP_TOKENS ? left / (per_token + 1) : GROUP_TOKENS);
        n = n / tile * tile;
        p->block = n == 0 ? tile : n < p->block ? n : p->block;
    }
    if (p->group > p->n_tokens)
        p->group = p->n_tokens;
    if (p->block > p->group)
        p->block = p->group;
}

static int allocate(struct pass *p, struct err *e)
{
    size_t wide = 0, kept = 0, state = 0, n_embd = p->net->n_embd;
    for (uint32_t i = 0; i < p->net->n_layers; i++) {
        const struct net_layer *l = &p->net->layers[i];
        size_t w = layer_wide_cols(p->net, l), k = layer_kept_cols(l), s = layer_state_floats(l);
        wide = w > wide ? w : wide;
        kept = k > kept ? k : kept;
        state = s > state ? s : state;
    }
    plan_sizes(p, wide, kept);
    int rc = hidden_states_new(&p->states, p->n_tokens, n_embd, p->opt->memory_bytes / 2, e);
    if (rc != 0)
        return rc;
    p->norm = malloc(p->block * n_embd * sizeof(float) + 1);
    p->wide = malloc(p->block * wide * sizeof(float) + 1);
    p->keys = malloc(p->group * kept * sizeof(float) + 1);
    p->state = malloc(state * sizeof(float) + 1);
    p->h = hidden_states_in_memory(p->states) ? NULL : malloc(p->group * n_embd * sizeof(float) + 1);
    if (!p->norm || !p->wide || !p->keys || !p->state || (!p->h && !hidden_states_in_memory(p->states)))
        return err_set(e, ERR_NOMEM, "out of memory for the buffers of %zu tokens", p->group);
    return 0;
}

static int report_progress(struct pass *p, size_t n_tokens, struct err *e)
{
    p->done += n_tokens;
    if (p->opt->progress && p->opt->progress(p->opt->progress_ctx, p->done, p->total) != 0)
        return err_set(e, ERR_CANCELLED, ERR_STOPPED);
    return 0;
}

static size_t group_size(const struct pass *p, size_t first)
{
    return p->n_tokens - first < p->group ? p->n_tokens - first : p->group;
}

static int embed(struct pass *p, struct err *e)
{
    int rc = 0;
    for (size_t t = 0; rc == 0 && t < p->n_tokens; t += p->group) {
        float *h = p->h;
        size_t n = group_size(p, t);
        if (hidden_states_in_memory(p->states))
            rc = hidden_states_get(p->states, t, n, NULL, &h, e);
        if (rc == 0)
            rc = ops_embed(&p->ops, p->w, p->net->embedding, p->ids + t, n, h, e);
        if (rc == 0)
            rc = hidden_states_put(p->states, t, n, h, e);
    }
    return rc;
}

static int run_layer(struct pass *p, const struct net_layer *l, struct err *e)
{
    struct layer_run r = {.ops = &p->ops,
                          .net = p->net,
                          .layer = l,
                          .weights = p->w,
                          .rope = &p->rope,
                          .ctx = p->ctx,
                          .block = p->block,
                          .norm = p->norm,
                          .wide = p->wide,
                          .keys = p->keys,
                          .state = p->state,
                          .observe_ctx = p->opt->observe_ctx};
    if (l->index >= p->opt->observe_first) {
        r.observe = p->opt->observe;
        r.observe_attention = p->opt->observe_attention;
    }
    int rc = weights_load(p->w, l->matrices, l->n_matrices, p->opt->pool, e);
    for (size_t t = 0; rc == 0 && t < p->n_tokens; t += p->group) {
        r.n_tokens = group_size(p, t);
        rc = hidden_states_get(p->states, t, r.n_tokens, p->h, &r.h, e);
        for (size_t i = 0; rc == 0 && i < l->n_steps; i++)
            rc = run_step[l->steps[i]](&r, e);
        if (rc == 0)
            rc = hidden_states_put(p->states, t, r.n_tokens, r.h, e);
        if (rc == 0)
            rc = report_progress(p, r.n_tokens, e);
    }
    weights_unload(p->w);
    if (rc == 0 && p->opt->layer_done && l->index >= p->opt->observe_first)
        rc = p->opt->layer_done(p->opt->observe_ctx, l->index, e);
    return rc;
}

/* The final norm of the wanted positions (and of all, for the observer of the head). */
static int finish(struct pass *p, struct err *e)
{
    const struct net *net = p->net;
    size_t n_embd = net->n_embd, n_keep = p->opt->keep_end - p->opt->keep_first, at = 0;
    int rc = 0;
    for (size_t t = 0; rc == 0 && t < p->n_tokens; t += p->ctx) {
        float *h = NULL;
        for (size_t i = 0; rc == 0 && i < p->ctx; i += p->block) {
            size_t n = p->ctx - i < p->block ? p->ctx - i : p->block;
            rc = hidden_states_get(p->states, t + i, n, p->h, &h, e);
            if (rc == 0)
                rc = ops_rms_norm(&p->ops, p->norm, h, n, n_embd, net->output_norm, net->eps, e);
            if (rc == 0 && p->opt->observe && net->head.tensor) {
                struct observation o = {&net->head.tensor, 1, p->norm, n, n_embd, -1};
                rc = p->opt->observe(p->opt->observe_ctx, &o, e);
            }
            size_t from = p->opt->keep_first > i ? p->opt->keep_first - i : 0;
            size_t to = p->opt->keep_end < i + n ? p->opt->keep_end : i + n;
            if (rc == 0 && n_keep > 0 && p->kept && to > i + from) {
                rc = hidden_states_put(p->kept, at, to - i - from, p->norm + from * n_embd, e);
                at += to - i - from;
            }
        }
    }
    return rc;
}

static int check(const struct pass *p, struct err *e)
{
    if (p->n_windows == 0 || p->ctx == 0 || p->opt->keep_first > p->opt->keep_end ||
        p->opt->keep_end > p->ctx)
        return err_set(e, ERR_ARG, "no windows, or positions outside of them");
    if (p->ctx > UINT32_MAX || p->n_windows > SIZE_MAX / 64 / p->ctx)
        return err_set(e, ERR_ARG, "%zu windows of %zu tokens are too many", p->n_windows, p->ctx);
    for (size_t i = 0; i < p->n_tokens; i++)
        if (p->ids[i] < 0 || (uint32_t)p->ids[i] >= p->net->n_vocab)
            return err_set(e, ERR_ARG, "token id %d at position %zu is outside the vocabulary of %u",
                           p->ids[i], i, p->net->n_vocab);
    return 0;
}

static void pass_release(struct pass *p)
{
    ops_release(&p->ops);
    rope_table_release(&p->rope);
    hidden_states_free(p->states);
    hidden_states_free(p->kept);
    free(p->h);
    free(p->norm);
    free(p->wide);
    free(p->keys);
    free(p->state);
}

/* Begin with states that an earlier span left. */
static int take_states(struct pass *p, const struct hidden_states *from, struct err *e)
{
    size_t n_embd = p->net->n_embd;
    if (hidden_states_n_rows(from) != p->n_tokens || hidden_states_n_cols(from) != n_embd)
        return err_set(e, ERR_ARG, "the states to start from are of another text or model");
    float *buffer = malloc(p->group * n_embd * sizeof(float) + 1), *rows = NULL;
    int rc = buffer ? 0 : err_set(e, ERR_NOMEM, "out of memory for %zu states", p->group);
    for (size_t t = 0; rc == 0 && t < p->n_tokens; t += p->group) {
        size_t n = group_size(p, t);
        rc = hidden_states_get(from, t, n, buffer, &rows, e);
        if (rc == 0)
            rc = hidden_states_put(p->states, t, n, rows, e);
    }
    free(buffer);
    return rc;
}

/* Hand over what the caller asked for. */
static int deliver(struct pass *p, bool whole, struct hidden_states **states, struct err *e)
{
    int rc = whole ? finish(p, e) : 0;
    struct hidden_states **from = whole ? &p->kept : &p->states;
    if (rc == 0 && states) {
        *states = *from;
        *from = NULL;
    }
    return rc;
}

int forward_run_span(struct hidden_states **states, const struct net *net, struct weights *w,
                     const int32_t *ids, size_t n_windows, size_t ctx, const struct forward_span *span,
                     const struct forward_options *opt, struct err *e)
{
    struct pass p = {.net = net, .opt = opt, .w = w, .ids = ids, .n_windows = n_windows, .ctx = ctx};
    bool whole = span->end == net->n_layers;
    if (span->first > span->end || span->end > net->n_layers || (!span->from && span->first > 0))
        return err_set(e, ERR_ARG, "layers %u to %u of %u cannot be run like this", span->first, span->end,
                       net->n_layers);
    p.n_tokens = n_windows * ctx;
    p.total = (uint64_t)p.n_tokens * (span->end - span->first);
    int rc = check(&p, e);
    if (rc == 0)
        rc = ops_init(&p.ops, opt->pool, weights_kern(w), opt->activations, ctx, e);
    if (rc == 0)
        rc = rope_table_init(&p.rope, &net->rope, ctx, e);
    if (rc == 0)
        rc = allocate(&p, e);
    if (rc == 0 && states && whole)
        rc = hidden_states_new(&p.kept, n_windows * (opt->keep_end - opt->keep_first), net->n_embd,
                               opt->memory_bytes / 4, e);
    if (rc == 0)
        rc = span->from ? take_states(&p, span->from, e) : embed(&p, e);
    for (uint32_t i = span->first; rc == 0 && i < span->end; i++)
        rc = run_layer(&p, &net->layers[i], e);
    if (rc == 0)
        rc = deliver(&p, whole, states, e);
    pass_release(&p);
    return rc;
}

int forward_run(struct hidden_states **states, const struct net *net, struct weights *w, const int32_t *ids,
                size_t n_windows, size_t ctx, const struct forward_options *opt, struct err *e)
{
    struct forward_span all = {.end = net->n_layers};
    return forward_run_span(states, net, w, ids, n_windows, ctx, &all, opt, e);
}
