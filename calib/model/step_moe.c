/* step_moe.c - the mixture-of-experts step: route, run the chosen experts on their tokens, add the weighted
 * results, and the shared expert if there is one.
 *
 * Tokens are gathered by expert, so that an expert is decoded once for all of its tokens in a block. Experts
 * go in batches that fill the buffers; contributions are added expert by expert in rising order, so neither
 * batches nor threads change the sum. Truth: specification, architectures 0.11 (ties: lowest expert first).
 */
#include "layer_run.h"

#include <stdlib.h>

/* One batch: experts [expert0, expert1), the places [begin, end) of their tokens. */
struct batch {
    const struct routing *g;
    size_t expert0, expert1, begin, end;
    struct region rows; /* [end - begin, n_embd] gathered inputs, then results */
    struct region act;  /* [end - begin, 2 * width] */
};

/* Where expert x has its rows in the batch, and how many. */
static size_t rows_of(const struct batch *b, size_t x, size_t *at)
{
    *at = b->g->expert_begin[x] - b->begin;
    return b->g->expert_begin[x + 1] - b->g->expert_begin[x];
}

/* The bias of one expert; NULL: none has one. */
static const float *bias_of(const float *all, size_t expert, size_t width)
{
    return all ? all + expert * width : NULL;
}

/* gate, up and down of the experts of a batch. */
static int run_experts(struct layer_run *r, const struct batch *b, struct err *e)
{
    const struct moe *m = &r->layer->moe;
    size_t n_rows = b->end - b->begin, width = m->width, n_embd = r->net->n_embd, k = 0, at;
    struct region gate = b->act, up = region_at(gate, n_rows * width);
    struct product *p = malloc(2 * (b->expert1 - b->expert0) * sizeof *p);
    if (!p)
        return err_set(e, ERR_NOMEM, "out of memory for %zu experts", b->expert1 - b->expert0);
    const struct model_tensor *in[2] = {m->gate_exps, m->up_exps};
    int rc = 0;
    for (size_t x = b->expert0; rc == 0 && x < b->expert1; x++) {
        size_t n = rows_of(b, x, &at);
        if (n == 0)
            continue;
        rc = layer_observe_expert(r, in, m->up_exps == m->gate_exps ? 1 : 2, region_at(b->rows, at * n_embd),
                                  n, n_embd, (int64_t)x, b->g->weights + b->begin + at, e);
        size_t row = x * m->expert_rows;
        p[k++] = (struct product){m->gate_exps, row, width, bias_of(m->gate_bias, x, width), gate, width,
                                  false,        at,  n};
        p[k++] = (struct product){
            m->up_exps, row + m->up_row, width, bias_of(m->up_bias, x, width), up, width, false, at, n};
    }
    if (rc == 0)
        rc = r->ops->products(r->compute, r->weights, b->rows, n_rows, n_embd, p, k, e);
    if (rc == 0)
        rc = (r->net->clamped ? r->ops->swiglu_clamped : r->ops->swiglu)(r->compute, gate, up, n_rows, width,
                                                                         e);
    k = 0;
    for (size_t x = b->expert0; rc == 0 && x < b->expert1; x++) {
        size_t n = rows_of(b, x, &at);
        if (n == 0)
            continue;
        rc = layer_observe_expert(r, &m->down_exps, 1, region_at(gate, at * width), n, width, (int64_t)x,
                                  b->g->weights + b->begin + at, e);
        p[k++] = (struct product){
            m->down_exps, x * n_embd, n_embd, bias_of(m->down_bias, x, n_embd), b->rows, n_embd,
            false,        at,         n};
    }
    if (rc == 0)
        rc = r->ops->products(r->compute, r->weights, gate, n_rows, width, p, k, e);
    free(p);
    return rc;
}

/* `cap`: rows of a batch. Without `h.buffer` the results are for the observer alone. */
static int routed_experts(struct layer_run *r, const struct routing *g, struct region h, size_t cap,
                          struct region rows, struct err *e)
{
    const struct moe *m = &r->layer->moe;
    size_t n_embd = r->net->n_embd;
    int rc = 0;
    for (size_t x = 0; rc == 0 && x < m->n_experts;) {
        size_t end = x + 1;
        while (end < m->n_experts && g->expert_begin[end + 1] - g->expert_begin[x] <= cap)
            end++;
        struct batch b = {
            g, x, end, g->expert_begin[x], g->expert_begin[end], rows, region_at(rows, cap * n_embd)};
        if (b.end > b.begin) {
            rc = r->ops->gather(r->compute, g, b.begin, b.end, rows, r->norm, n_embd, e);
            if (rc == 0)
                rc = run_experts(r, &b, e);
            if (rc == 0 && h.buffer)
                rc = r->ops->add_weighted(r->compute, g, b.begin, b.end, h, rows, n_embd, e);
        }
        x = end;
    }
    return rc;
}

static int shared_expert(struct layer_run *r, struct region h, size_t n, struct err *e)
{
    const struct moe *m = &r->layer->moe;
    size_t n_embd = r->net->n_embd, width = m->shared_width;
    struct region gate = r->wide, up = region_at(gate, n * width), weight = region_at(up, n * width);
    const struct model_tensor *in[3] = {m->shared_gate.tensor, m->shared_up.tensor, m->shared_router.tensor};
    struct product p[3] = {layer_product(&m->shared_gate, gate, width, false),
                           layer_product(&m->shared_up, up, width, false),
                           layer_product(&m->shared_router, weight, 1, false)};
    size_t n_in = m->shared_router.tensor ? 3 : 2;
    int rc = layer_observe(r, in, n_in, r->norm, n, n_embd, e);
    if (rc == 0)
        rc = r->ops->products(r->compute, r->weights, r->norm, n, n_embd, p, n_in, e);
    if (rc == 0)
        rc = r->ops->swiglu(r->compute, gate, up, n, width, e);
    if (rc == 0)
        rc = layer_observe(r, &m->shared_down.tensor, 1, gate, n, width, e);
    /* The weight of the whole expert may be applied to its input of `down`: the product is linear. */
    if (rc == 0 && n_in == 3)
        rc = r->ops->scale_rows(r->compute, gate, n, width, weight, e);
    struct product down = layer_product(&m->shared_down, h, n_embd, true);
    return rc == 0 ? r->ops->products(r->compute, r->weights, gate, n, width, &down, 1, e) : rc;
}

/* A batch holds as many gathered rows as the block has tokens (any one expert fits), twice over. */
static size_t batch_rows(size_t block)
{
    return 2 * block;
}

size_t moe_wide_cols(const struct net *net, const struct moe *m)
{
    size_t routed = (size_t)batch_rows(1) * (net->n_embd + 2 * (size_t)m->width) + m->n_experts;
    size_t shared = m->shared_width ? 2 * (size_t)m->shared_width + 1 : 0;
    return routed > shared ? routed : shared;
}

/* Where n tokens of r->norm go when each is given n_used experts. `logits` [n, n_experts] is scratch. */
static int route(struct layer_run *r, struct region logits, size_t n, uint32_t n_used, struct routing **out,
                 struct err *e)
{
    const struct moe *m = &r->layer->moe;
    struct expert_choice choice = {.n_experts = m->n_experts,
                                   .n_used = n_used,
                                   .renormalise = m->renormalise,
                                   .weight_scale = m->weight_scale,
                                   .sigmoid = m->sigmoid,
                                   .bias = m->choice_bias,
                                   .n_groups = m->n_groups,
                                   .n_groups_used = m->n_groups_used,
                                   .two_of_group = m->sigmoid};
    struct product p = layer_product(&m->router, logits, m->n_experts, false);
    int rc = r->ops->products(r->compute, r->weights, r->norm, n, r->net->n_embd, &p, 1, e);
    return rc == 0 ? r->ops->route(out, r->compute, &choice, logits, n, e) : rc;
}

/* Show the observer what every expert would make of every token. */
static int observe_all_experts(struct layer_run *r, struct region logits, size_t n, struct err *e)
{
    const struct moe *m = &r->layer->moe;
    struct routing *g = NULL;
    int rc = route(r, logits, n, (uint32_t)m->n_experts, &g, e);
    if (rc == 0)
        rc = routed_experts(r, g, (struct region){0}, batch_rows(n), region_at(logits, n * m->n_experts), e);
    r->ops->routing_free(r->compute, g);
    return rc;
}

/* Tokens [t, t + n) of the group. */
static int run_block(struct layer_run *r, size_t t, size_t n, struct err *e)
{
    const struct moe *m = &r->layer->moe;
    size_t n_embd = r->net->n_embd;
    struct region h = region_at(r->h, t * n_embd), logits = r->wide;
    struct layer_run chosen = *r; /* whom the experts that are chosen are shown */
    struct routing *g = NULL;
    if (r->all_experts)
        chosen.observe = NULL;
    int rc = r->ops->rms_norm(r->compute, r->norm, h, n, n_embd, m->norm, r->net->eps, e);
    if (rc == 0)
        rc = layer_observe(r, &m->router.tensor, 1, r->norm, n, n_embd, e);
    if (rc == 0 && r->all_experts)
        rc = observe_all_experts(r, logits, n, e);
    if (rc == 0)
        rc = route(r, logits, n, m->n_used, &g, e);
    if (rc == 0)
        rc = routed_experts(&chosen, g, h, batch_rows(n), region_at(logits, n * m->n_experts), e);
    if (rc == 0 && m->shared_width)
        rc = shared_expert(r, h, n, e);
    r->ops->routing_free(r->compute, g);
    return rc;
}

int step_moe(struct layer_run *r, struct err *e)
{
    int rc = 0;
    for (size_t t = 0; rc == 0 && t < r->n_tokens; t += r->block)
        rc = run_block(r, t, r->n_tokens - t < r->block ? r->n_tokens - t : r->block, e);
    return rc;
}
