/* forward.c - see forward.h: groups, buffers, and the walk over layers. */
#include "forward.h"

#include "layer_run.h"

#include <stdlib.h>

#define GROUP_TOKENS 4096 /* enough that decoding a panel costs a few percent of multiplying it */

size_t layer_wide_cols(const struct net *net, const struct net_layer *l)
{
    size_t most = 0;
    for (size_t i = 0; i < l->n_steps; i++) {
        size_t n = 0;
        switch (l->steps[i]) {
        case STEP_ATTENTION: n = attention_wide_cols(&l->attention); break;
        case STEP_LATENT: n = latent_wide_cols(&l->attention); break;
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
    return l->steps[0] == STEP_ATTENTION || l->steps[0] == STEP_LATENT
               ? (size_t)(l->attention.k.n_rows + l->attention.v.n_rows)
               : 0;
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
                  struct region x, size_t n_tokens, size_t n_cols, struct err *e)
{
    return layer_observe_expert(r, tensors, n_tensors, x, n_tokens, n_cols, -1, NULL, e);
}

int layer_observe_expert(const struct layer_run *r, const struct model_tensor *const *tensors,
                         size_t n_tensors, struct region x, size_t n_tokens, size_t n_cols, int64_t expert,
                         const float *weights, struct err *e)
{
    if (!r->observe)
        return 0;
    struct observation o = {tensors, n_tensors, NULL, n_tokens, n_cols, expert, weights};
    int rc = r->ops->look(r->compute, &o.x, x, n_tokens * n_cols, e);
    return rc == 0 ? r->observe(r->observe_ctx, &o, e) : rc;
}

struct product layer_product(const struct matrix *m, struct region y, size_t ldy, bool add)
{
    return (struct product){.weight = m->tensor,
                            .row0 = m->row0,
                            .n_rows = m->n_rows,
                            .bias = m->bias,
                            .y = y,
                            .ldy = ldy,
                            .add = add};
}

int layer_input(struct layer_run *r, struct region h, size_t n, const float *norm, struct region *x,
                struct err *e)
{
    *x = norm ? r->norm : h;
    return norm ? r->ops->rms_norm(r->compute, r->norm, h, n, r->net->n_embd, norm, r->net->eps, e) : 0;
}

int layer_add_output(struct layer_run *r, const struct matrix *m, struct region x, size_t ldx, size_t n,
                     const float *post_norm, struct region h, struct err *e)
{
    size_t n_embd = r->net->n_embd;
    float scale = r->net->residual_scale;
    bool direct = !post_norm && scale == 1;
    struct product p = layer_product(m, direct ? h : r->norm, n_embd, direct);
    int rc = r->ops->products(r->compute, r->weights, x, n, ldx, &p, 1, e);
    if (rc == 0 && post_norm)
        rc = r->ops->rms_norm(r->compute, r->norm, r->norm, n, n_embd, post_norm, r->net->eps, e);
    if (rc == 0 && !direct)
        rc = r->ops->add_scaled(r->compute, h, r->norm, n * n_embd, scale, e);
    return rc;
}

/* Everything one pass owns. */
struct pass {
    const struct net *net;
    const struct forward_options *opt;
    struct weights *w;
    const int32_t *ids;
    size_t n_windows, ctx, n_tokens;
    size_t group, block; /* tokens */
    struct compute *compute;
    const struct compute_ops *ops; /* of `compute` */
    struct rope_table rope, local_rope;
    size_t n_positions;           /* of the longest text */
    uint32_t *positions;          /* [n_tokens] with a tree */
    struct hidden_states *states; /* [n_tokens, n_embd] */
    struct hidden_states *kept;
    struct buffer *h, *norm, *wide, *keys, *state;
    uint64_t done, total; /* layer-tokens */
};

static int (*const run_step[])(struct layer_run *, struct err *) = {
    [STEP_ATTENTION] = step_attention, [STEP_MLP] = step_mlp,       [STEP_MOE] = step_moe,
    [STEP_DELTA_NET] = step_delta_net, [STEP_LATENT] = step_latent,
};

/* Bytes that a pass takes. */
struct sizes {
    size_t wide, kept, state; /* floats: of a token's widest product, of its keys and values, of a sequence */
    uint64_t per_token, per_key; /* buffers for a token of a block, and for one of a group */
    uint64_t states;             /* all tokens between two layers, held or on the disk */
    uint64_t fixed;              /* rotary table, states of sequences */
    bool hold;                   /* the states are held */
};

static uint64_t final_bytes(const struct pass *p)
{
    return p->opt->keep_bytes ? p->opt->keep_bytes : p->opt->memory_bytes / 8;
}

/* Memory without which nothing runs: one window of keys, one tile of buffers. */
static uint64_t least_bytes(const struct pass *p, const struct sizes *s, bool hold)
{
    size_t tile = p->opt->observe_attention || p->ctx < p->compute->tile ? p->ctx : p->compute->tile;
    uint64_t rows = hold ? s->states : sizeof(float) * p->net->n_embd * (uint64_t)p->ctx;
    return s->fixed + rows + s->per_key * p->ctx + s->per_token * tile;
}

static void measure(struct pass *p, struct sizes *s)
{
    const size_t n_embd = p->net->n_embd;
    for (uint32_t i = 0; i < p->net->n_layers; i++) {
        const struct net_layer *l = &p->net->layers[i];
        size_t w = layer_wide_cols(p->net, l), k = layer_kept_cols(l), state = layer_state_floats(l);
        s->wide = w > s->wide ? w : s->wide;
        s->kept = k > s->kept ? k : s->kept;
        s->state = state > s->state ? state : s->state;
    }
    const size_t rounded = p->opt->activations == ACTIVATIONS_Q8 ? s->wide : 0;
    s->per_token = sizeof(float) * (n_embd + s->wide + rounded);
    s->per_key = sizeof(float) * s->kept;
    s->states = sizeof(float) * n_embd * (uint64_t)p->n_tokens;
    s->fixed = rope_table_bytes(&p->net->rope, p->n_positions) + sizeof(float) * s->state;
    if (p->net->local_rope.inv_freq)
        s->fixed += rope_table_bytes(&p->net->local_rope, p->n_positions);
    s->hold = s->states <= p->opt->memory_bytes / 2 && least_bytes(p, s, true) <= p->opt->memory_bytes;
}

static int check_bound(const struct pass *p, const struct sizes *s, struct err *e)
{
    const uint64_t need = least_bytes(p, s, s->hold), have = p->opt->memory_bytes;
    const unsigned share = p->opt->memory_share;
    if (need <= have || share == 0)
        return 0;
    return err_set(
        e, ERR_ARG,
        "windows of %zu tokens need %llu MiB here, and %llu MiB of the working memory are left for "
        "them; raise --memory by at least %llu "
        "MiB, or lower --ctx",
        p->ctx, (unsigned long long)((need >> 20) + 1), (unsigned long long)(have >> 20),
        (unsigned long long)(((need - have) * share >> 20) + 1));
}

/* Group: whole windows, up to GROUP_TOKENS, fewer when memory is short, one window at least. Block: the
 * group, or tiles of it when not even a window's buffers fit. States get at most half of the memory, buffers
 * half or what is left. */
static void plan_sizes(struct pass *p, const struct sizes *s)
{
    const uint64_t bound = p->opt->memory_bytes,
                   taken = s->fixed + final_bytes(p) + (s->hold ? s->states : 0);
    const uint64_t left = bound > taken ? bound - taken : 0, budget = left < bound / 2 ? left : bound / 2;
    const uint64_t per_key = s->per_key + (s->hold ? 0 : sizeof(float) * p->net->n_embd);
    size_t tile = p->compute->tile;
    uint64_t fits = budget / (s->per_token + per_key + 1);
    p->group = (size_t)(fits < GROUP_TOKENS ? fits : GROUP_TOKENS) / p->ctx * p->ctx;
    if (p->ctx > tile && p->group > p->ctx)
        p->group = p->ctx; /* tiles restart with each window */
    if (p->group == 0)
        p->group = p->ctx;
    p->block = p->group;
    if (p->ctx > tile && p->block > tile && !p->opt->observe_attention) {
        uint64_t rest = budget > per_key * p->group ? budget - per_key * p->group : 0,
                 n = rest / s->per_token;
        n = (n < GROUP_TOKENS ? n : GROUP_TOKENS) / tile * tile;
        p->block = n == 0 ? tile : n < p->block ? (size_t)n : p->block;
    }
    if (p->group > p->n_tokens)
        p->group = p->n_tokens;
    if (p->block > p->group)
        p->block = p->group;
}

static int allocate(struct pass *p, struct err *e)
{
    struct sizes s = {0};
    size_t n_embd = p->net->n_embd;
    measure(p, &s);
    int rc = check_bound(p, &s, e);
    plan_sizes(p, &s);
    if (rc == 0)
        rc = p->ops->states_new(&p->states, p->compute, p->n_tokens, n_embd, s.hold ? s.states : 0, e);
    if (rc == 0)
        rc = p->ops->buffer_new(&p->norm, p->compute, p->block * n_embd, e);
    if (rc == 0)
        rc = p->ops->buffer_new(&p->wide, p->compute, p->block * s.wide, e);
    if (rc == 0)
        rc = p->ops->buffer_new(&p->keys, p->compute, p->group * s.kept, e);
    if (rc == 0)
        rc = p->ops->buffer_new(&p->state, p->compute, s.state, e);
    if (rc == 0 && !hidden_states_in_memory(p->states))
        rc = p->ops->buffer_new(&p->h, p->compute, p->group * n_embd, e);
    return rc;
}

static struct region start_of(struct buffer *b)
{
    return (struct region){b, 0};
}

static int report_progress(struct pass *p, size_t n_tokens, struct err *e)
{
    p->done += n_tokens;
    struct progress_step s = {.done = (double)p->done,
                              .total = (double)p->total,
                              .counted = "layers",
                              .n_done = (size_t)(p->done / p->n_tokens),
                              .n = (size_t)(p->total / p->n_tokens)};
    return progress_tell(&p->opt->progress, &s, e);
}

static size_t group_size(const struct pass *p, size_t first)
{
    return p->n_tokens - first < p->group ? p->n_tokens - first : p->group;
}

static int embed(struct pass *p, struct err *e)
{
    int rc = 0;
    for (size_t t = 0; rc == 0 && t < p->n_tokens; t += p->group) {
        struct region h = start_of(p->h);
        size_t n = group_size(p, t);
        if (hidden_states_in_memory(p->states))
            rc = p->ops->states_get(p->compute, p->states, t, n, h, &h, e);
        if (rc == 0)
            rc = p->ops->embed(p->compute, p->w, p->net->embedding, p->ids + t, n, h, e);
        if (rc == 0 && p->net->embedding_scale != 1)
            rc = p->ops->scale(p->compute, h, n * p->net->n_embd, p->net->embedding_scale, e);
        if (rc == 0)
            rc = p->ops->states_put(p->compute, p->states, t, n, h, e);
    }
    return rc;
}

static int run_layer(struct pass *p, const struct net_layer *l, struct err *e)
{
    struct layer_run r = {.compute = p->compute,
                          .ops = p->ops,
                          .net = p->net,
                          .layer = l,
                          .weights = p->w,
                          .rope = &p->rope,
                          .local_rope = &p->local_rope,
                          .cache = p->opt->cache,
                          .ctx = p->ctx,
                          .tree = p->opt->tree,
                          .block = p->block,
                          .norm = start_of(p->norm),
                          .wide = start_of(p->wide),
                          .keys = start_of(p->keys),
                          .state = start_of(p->state),
                          .observe_ctx = p->opt->observe_ctx};
    if (l->index >= p->opt->observe_first) {
        r.observe = p->opt->observe;
        r.observe_attention = p->opt->observe_attention;
        r.all_experts = p->opt->all_experts && p->opt->observe;
    }
    int rc = p->ops->weights_load(p->compute, p->w, l->matrices, l->n_matrices, e);
    for (size_t t = 0; rc == 0 && t < p->n_tokens; t += p->group) {
        r.n_tokens = group_size(p, t);
        r.tree_row = t;
        r.positions = p->positions ? p->positions + t : NULL;
        rc = p->ops->states_get(p->compute, p->states, t, r.n_tokens, start_of(p->h), &r.h, e);
        for (size_t i = 0; rc == 0 && i < l->n_steps; i++)
            rc = run_step[l->steps[i]](&r, e);
        if (rc == 0)
            rc = p->ops->states_put(p->compute, p->states, t, r.n_tokens, r.h, e);
        if (rc == 0)
            rc = report_progress(p, r.n_tokens, e);
    }
    p->ops->weights_unload(p->compute, p->w);
    if (rc == 0 && p->opt->layer_done && l->index >= p->opt->observe_first)
        rc = p->opt->layer_done(p->opt->observe_ctx, l->index, e);
    return rc;
}

/* The head sees the final states of all positions. */
static int observe_head(struct pass *p, size_t n, struct err *e)
{
    const struct net *net = p->net;
    struct layer_run r = {
        .compute = p->compute, .ops = p->ops, .observe = p->opt->observe, .observe_ctx = p->opt->observe_ctx};
    return net->head.tensor ? layer_observe(&r, &net->head.tensor, 1, start_of(p->norm), n, net->n_embd, e)
                            : 0;
}

/* The final norm of the wanted positions (and of all, for the observer of the head). */
static int finish(struct pass *p, struct err *e)
{
    const struct net *net = p->net;
    size_t n_embd = net->n_embd, n_keep = p->opt->keep_end - p->opt->keep_first, at = 0;
    int rc = 0;
    for (size_t t = 0; rc == 0 && t < p->n_tokens; t += p->ctx) {
        struct region h, norm = start_of(p->norm);
        for (size_t i = 0; rc == 0 && i < p->ctx; i += p->block) {
            size_t n = p->ctx - i < p->block ? p->ctx - i : p->block;
            rc = p->ops->states_get(p->compute, p->states, t + i, n, start_of(p->h), &h, e);
            if (rc == 0)
                rc = p->ops->rms_norm(p->compute, norm, h, n, n_embd, net->output_norm, net->eps, e);
            if (rc == 0)
                rc = observe_head(p, n, e);
            if (rc == 0 && net->logit_scale != 1) /* the head is linear, and has no bias then */
                rc = p->ops->scale(p->compute, norm, n * n_embd, net->logit_scale, e);
            size_t from = p->opt->keep_first > i ? p->opt->keep_first - i : 0;
            size_t to = p->opt->keep_end < i + n ? p->opt->keep_end : i + n;
            if (rc == 0 && n_keep > 0 && p->kept && to > i + from) {
                rc = p->ops->states_put(p->compute, p->kept, at, to - i - from,
                                        region_at(norm, from * n_embd), e);
                at += to - i - from;
            }
        }
    }
    return rc;
}

bool forward_takes_tree(const struct net *net)
{
    bool takes = true;
    for (uint32_t i = 0; i < net->n_layers; i++)
        for (size_t s = 0; s < net->layers[i].n_steps; s++)
            takes &= net->layers[i].steps[s] != STEP_DELTA_NET;
    return takes;
}

static bool tree_fits(const struct pass *p, const struct row_tree *tree)
{
    size_t rows = 0;
    bool fits = forward_takes_tree(p->net) && !p->opt->observe_attention;
    for (size_t i = 0; fits && i < tree->n; i++) {
        const struct row_branch *b = &tree->branches[i];
        fits = b->row == rows && b->n > 0 && b->n <= p->ctx - rows % p->ctx;
        if (fits && b->n_before > 0) {
            const struct row_branch *x = b->parent < i ? &tree->branches[b->parent] : NULL;
            fits = x && x->row / p->ctx == b->row / p->ctx && x->n_before < b->n_before &&
                   b->n_before <= x->n_before + x->n;
        }
        rows += b->n;
    }
    return fits && rows == p->n_tokens;
}

/* How long the longest text is, and where in theirs the rows stand. */
static int take_positions(struct pass *p, struct err *e)
{
    const struct row_tree *tree = p->opt->tree;
    p->n_positions = tree ? 1 : p->ctx;
    if (!tree)
        return 0;
    p->positions = malloc(p->n_tokens * sizeof *p->positions);
    if (!p->positions)
        return err_set(e, ERR_NOMEM, "out of memory for the positions of %zu tokens", p->n_tokens);
    for (size_t i = 0; i < tree->n; i++) {
        const struct row_branch *b = &tree->branches[i];
        for (size_t k = 0; k < b->n; k++)
            p->positions[b->row + k] = (uint32_t)(b->n_before + k);
        p->n_positions = b->n_before + b->n > p->n_positions ? b->n_before + b->n : p->n_positions;
    }
    return 0;
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
    if (p->opt->tree && !tree_fits(p, p->opt->tree))
        return err_set(e, ERR_ARG, "%s: the branches of %zu windows cannot be run", model_path(p->net->model),
                       p->n_windows);
    return kv_cache_is_exact(&p->opt->cache) ? 0 : kv_cache_check(&p->opt->cache, p->net, e);
}

static void pass_release(struct pass *p)
{
    struct buffer *buffers[] = {p->h, p->norm, p->wide, p->keys, p->state};
    for (size_t i = 0; p->compute && i < sizeof buffers / sizeof *buffers; i++)
        p->ops->buffer_free(p->compute, buffers[i]);
    free(p->positions);
    rope_table_release(&p->rope);
    rope_table_release(&p->local_rope);
    hidden_states_free(p->states);
    hidden_states_free(p->kept);
    compute_close(p->compute);
}

/* Begin with states that an earlier span left. */
static int take_states(struct pass *p, const struct hidden_states *from, struct err *e)
{
    size_t n_embd = p->net->n_embd;
    if (hidden_states_n_rows(from) != p->n_tokens || hidden_states_n_cols(from) != n_embd)
        return err_set(e, ERR_ARG, "the states to start from are of another text or model");
    struct buffer *buffer = NULL;
    struct region rows;
    int rc = p->ops->buffer_new(&buffer, p->compute, p->group * n_embd, e);
    for (size_t t = 0; rc == 0 && t < p->n_tokens; t += p->group) {
        size_t n = group_size(p, t);
        rc = p->ops->states_get(p->compute, from, t, n, start_of(buffer), &rows, e);
        if (rc == 0)
            rc = p->ops->states_put(p->compute, p->states, t, n, rows, e);
    }
    p->ops->buffer_free(p->compute, buffer);
    return rc;
}

static int open_back_end(struct pass *p, struct err *e)
{
    const struct forward_options *opt = p->opt;
    struct compute_setup setup = {opt->pool, weights_kern(p->w), opt->activations, p->ctx};
    int rc = compute_open(&p->compute, opt->compute, &setup, e);
    p->ops = rc == 0 ? p->compute->ops : NULL;
    if (rc == 0 && ((!p->ops->geglu && p->net->gelu) || (!p->ops->swiglu_clamped && p->net->clamped)))
        rc = err_set(e, ERR_UNSUPPORTED, "%s: the back end '%s' does not compute architecture '%s'",
                     model_path(p->net->model), p->ops->name, model_arch_name(p->net->model));
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
        rc = take_positions(&p, e);
    if (rc == 0)
        rc = open_back_end(&p, e);
    if (rc == 0)
        rc = allocate(&p, e);
    if (rc == 0)
        rc = rope_table_init(&p.rope, &net->rope, p.n_positions, e);
    if (rc == 0 && net->local_rope.inv_freq)
        rc = rope_table_init(&p.local_rope, &net->local_rope, p.n_positions, e);
    if (rc == 0 && states && whole)
        rc = p.ops->states_new(&p.kept, p.compute, n_windows * (opt->keep_end - opt->keep_first), net->n_embd,
                               final_bytes(&p), e);
    if (rc == 0)
        rc = span->from ? take_states(&p, span->from, e) : embed(&p, e);
    for (uint32_t i = span->first; rc == 0 && i < span->end; i++)
        rc = run_layer(&p, &net->layers[i], e);
    if (rc == 0)
        rc = deliver(&p, whole, states, e);
    pass_release(&p);
    return rc;
}

int forward_check(const struct net *net, struct weights *w, size_t n_windows, size_t ctx,
                  const struct forward_options *opt, struct err *e)
{
    struct pass p = {.net = net,
                     .opt = opt,
                     .w = w,
                     .n_windows = n_windows,
                     .ctx = ctx,
                     .n_tokens = n_windows * ctx,
                     .n_positions = ctx};
    struct sizes s = {0};
    int rc = open_back_end(&p, e);
    if (rc == 0) {
        measure(&p, &s);
        rc = check_bound(&p, &s, e);
    }
    pass_release(&p);
    return rc;
}

int forward_run(struct hidden_states **states, const struct net *net, struct weights *w, const int32_t *ids,
                size_t n_windows, size_t ctx, const struct forward_options *opt, struct err *e)
{
    struct forward_span all = {.end = net->n_layers};
    return forward_run_span(states, net, w, ids, n_windows, ctx, &all, opt, e);
}
