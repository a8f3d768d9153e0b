/* step_moe.c - the mixture-of-experts step: route, run the chosen experts on their tokens, add the weighted
 * results, and the shared expert if there is one.
 *
 * Tokens are gathered by expert, so that an expert is decoded once for all of its tokens in a block. Experts
 * go in batches that fill the buffers; contributions are added expert by expert in rising order, so neither
 * batches nor threads change the sum. Truth: specification, architectures 0.11 (ties: lowest expert first).
 */
#include "layer_run.h"
#include "vecmath.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define TOKENS_PER_JOB 32

struct choice {
    uint32_t token, expert;
    float weight;
};

struct routing {
    struct choice *chosen;   /* [n * n_used], sorted by expert, then token */
    size_t *expert_begin;    /* [n_experts + 1] into chosen */
    size_t *token_places;    /* [n * n_used] places in chosen of a token's experts, rising */
    struct choice *by_token; /* [n * n_used] */
};

static void routing_release(struct routing *g)
{
    free(g->chosen);
    free(g->expert_begin);
    free(g->token_places);
    free(g->by_token);
}

static int routing_init(struct routing *g, const struct moe *m, size_t n, struct err *e)
{
    size_t slots = n * m->n_used;
    *g = (struct routing){.chosen = malloc(slots * sizeof *g->chosen),
                          .expert_begin = calloc((size_t)m->n_experts + 1, sizeof *g->expert_begin),
                          .token_places = malloc(slots * sizeof *g->token_places),
                          .by_token = malloc(slots * sizeof *g->by_token)};
    if (g->chosen && g->expert_begin && g->token_places && g->by_token)
        return 0;
    routing_release(g);
    return err_set(e, ERR_NOMEM, "out of memory for the routing of %zu tokens", n);
}

struct route_run {
    const struct moe *m;
    float *logits; /* [n, n_experts], destroyed */
    struct choice *by_token;
    size_t n;
};

/* Softmax over all experts, the n_used largest, weights renormalised or not. */
static int route_job(void *ctx, size_t job, unsigned worker, struct err *e)
{
    (void)worker;
    (void)e;
    const struct route_run *r = ctx;
    size_t n_experts = r->m->n_experts, n_used = r->m->n_used;
    for (size_t t = job * TOKENS_PER_JOB; t < (job + 1) * TOKENS_PER_JOB && t < r->n; t++) {
        float *p = r->logits + t * n_experts;
        struct choice *c = r->by_token + t * n_used;
        double sum = vec_exp_sum(p, p, 1.0f, vec_max(p, n_experts), n_experts), kept = 0;
        for (size_t j = 0; j < n_used; j++) {
            size_t best = 0;
            for (size_t i = 1; i < n_experts; i++)
                best = p[i] > p[best] ? i : best;
            c[j] = (struct choice){(uint32_t)t, (uint32_t)best, p[best]};
            kept += (double)p[best];
            p[best] = -1.0f;
        }
        double divisor = r->m->renormalise ? kept : sum;
        for (size_t j = 0; j < n_used; j++)
            c[j].weight = (float)((double)c[j].weight / divisor) * r->m->weight_scale;
    }
    return 0;
}

/* Counting sort of the choices by expert; within an expert by token. */
static void sort_choices(struct routing *g, const struct moe *m, size_t n)
{
    size_t slots = n * m->n_used, at = 0;
    for (size_t i = 0; i < slots; i++)
        g->expert_begin[g->by_token[i].expert + 1]++;
    for (size_t x = 0; x < m->n_experts; x++)
        g->expert_begin[x + 1] += g->expert_begin[x];
    for (size_t i = 0; i < slots; i++)
        g->chosen[g->expert_begin[g->by_token[i].expert]++] = g->by_token[i];
    for (size_t x = m->n_experts; x > 0; x--)
        g->expert_begin[x] = g->expert_begin[x - 1];
    g->expert_begin[0] = 0;
    size_t *filled = calloc(n, sizeof *filled); /* NULL: handled by the slow search in add_job */
    for (; filled && at < slots; at++) {
        size_t t = g->chosen[at].token;
        g->token_places[t * m->n_used + filled[t]++] = at;
    }
    if (!filled)
        for (size_t t = 0; t < n; t++)
            for (size_t i = 0, k = 0; i < slots && k < m->n_used; i++)
                if (g->chosen[i].token == t)
                    g->token_places[t * m->n_used + k++] = i;
    free(filled);
}

/* One batch: experts [expert0, expert1), their choices [begin, end). */
struct batch_run {
    const struct moe *m;
    const struct routing *g;
    size_t n_embd, begin, end, n;
    const float *x; /* [n, n_embd] */
    float *rows;    /* [end - begin, n_embd] gathered inputs, then results */
    float *h;
};

static int gather_job(void *ctx, size_t job, unsigned worker, struct err *e)
{
    (void)worker;
    (void)e;
    const struct batch_run *b = ctx;
    size_t first = b->begin + job * TOKENS_PER_JOB;
    for (size_t i = first; i < first + TOKENS_PER_JOB && i < b->end; i++)
        memcpy(b->rows + (i - b->begin) * b->n_embd, b->x + b->g->chosen[i].token * b->n_embd,
               b->n_embd * sizeof(float));
    return 0;
}

static int add_job(void *ctx, size_t job, unsigned worker, struct err *e)
{
    (void)worker;
    (void)e;
    const struct batch_run *b = ctx;
    for (size_t t = job * TOKENS_PER_JOB; t < (job + 1) * TOKENS_PER_JOB && t < b->n; t++)
        for (size_t j = 0; j < b->m->n_used; j++) {
            size_t at = b->g->token_places[t * b->m->n_used + j];
            if (at >= b->begin && at < b->end)
                vec_add_scaled(b->h + t * b->n_embd, b->rows + (at - b->begin) * b->n_embd,
                               b->g->chosen[at].weight, b->n_embd);
        }
    return 0;
}

static size_t jobs(size_t n)
{
    return (n + TOKENS_PER_JOB - 1) / TOKENS_PER_JOB;
}

/* gate, up and down of the experts of a batch. `act` [rows, 2 * width]. */
static int run_experts(struct layer_run *r, struct batch_run *b, size_t expert0, size_t expert1, float *act,
                       struct err *e)
{
    const struct moe *m = b->m;
    size_t n_rows = b->end - b->begin, width = m->width, n_experts = expert1 - expert0, k = 0;
    float *gate = act, *up = act + n_rows * width;
    struct product *p = malloc(2 * n_experts * sizeof *p);
    if (!p)
        return err_set(e, ERR_NOMEM, "out of memory for %zu experts", n_experts);
    const struct model_tensor *in[2] = {m->gate_exps, m->up_exps};
    int rc = 0;
    for (size_t x = expert0; rc == 0 && x < expert1; x++) {
        size_t at = b->g->expert_begin[x] - b->begin, n = b->g->expert_begin[x + 1] - b->g->expert_begin[x];
        if (n == 0)
            continue;
        rc = layer_observe(r, in, 2, b->rows + at * b->n_embd, n, b->n_embd, (int64_t)x, e);
        p[k++] = (struct product){m->gate_exps, x * width, width, NULL, gate, width, false, at, n};
        p[k++] = (struct product){m->up_exps, x * width, width, NULL, up, width, false, at, n};
    }
    if (rc == 0)
        rc = ops_products(r->ops, r->weights, b->rows, n_rows, b->n_embd, p, k, e);
    if (rc == 0)
        rc = ops_swiglu(r->ops, gate, up, n_rows, width, e);
    k = 0;
    for (size_t x = expert0; rc == 0 && x < expert1; x++) {
        size_t at = b->g->expert_begin[x] - b->begin, n = b->g->expert_begin[x + 1] - b->g->expert_begin[x];
        if (n == 0)
            continue;
        rc = layer_observe(r, &m->down_exps, 1, gate + at * width, n, width, (int64_t)x, e);
        p[k++] =
            (struct product){m->down_exps, x * b->n_embd, b->n_embd, NULL, b->rows, b->n_embd, false, at, n};
    }
    if (rc == 0)
        rc = ops_products(r->ops, r->weights, gate, n_rows, width, p, k, e);
    free(p);
    return rc;
}

static int routed_experts(struct layer_run *r, const struct routing *g, float *h, size_t n, size_t cap,
                          float *rows, float *act, struct err *e)
{
    const struct moe *m = &r->layer->moe;
    int rc = 0;
    for (size_t x = 0; rc == 0 && x < m->n_experts;) {
        size_t end = x + 1;
        while (end < m->n_experts && g->expert_begin[end + 1] - g->expert_begin[x] <= cap)
            end++;
        struct batch_run b = {m,    g, r->net->n_embd, g->expert_begin[x], g->expert_begin[end], n, r->norm,
                              rows, h};
        if (b.end > b.begin) {
            rc = pool_run(r->ops->pool, jobs(b.end - b.begin), gather_job, &b, e);
            if (rc == 0)
                rc = run_experts(r, &b, x, end, act, e);
            if (rc == 0)
                rc = pool_run(r->ops->pool, jobs(n), add_job, &b, e);
        }
        x = end;
    }
    return rc;
}

static int shared_expert(struct layer_run *r, float *h, size_t n, float *wide, struct err *e)
{
    const struct moe *m = &r->layer->moe;
    size_t n_embd = r->net->n_embd, width = m->shared_width;
    float *gate = wide, *up = gate + n * width, *weight = up + n * width;
    const struct model_tensor *in[3] = {m->shared_gate.tensor, m->shared_up.tensor, m->shared_router.tensor};
    struct product p[3] = {layer_product(&m->shared_gate, gate, width, false),
                           layer_product(&m->shared_up, up, width, false),
                           layer_product(&m->shared_router, weight, 1, false)};
    size_t n_in = m->shared_router.tensor ? 3 : 2;
    int rc = layer_observe(r, in, n_in, r->norm, n, n_embd, -1, e);
    if (rc == 0)
        rc = ops_products(r->ops, r->weights, r->norm, n, n_embd, p, n_in, e);
    if (rc == 0)
        rc = ops_swiglu(r->ops, gate, up, n, width, e);
    if (rc == 0)
        rc = layer_observe(r, &m->shared_down.tensor, 1, gate, n, width, -1, e);
    /* The weight of the whole expert may be applied to its input of `down`: the product is linear. */
    for (size_t t = 0; rc == 0 && n_in == 3 && t < n; t++)
        vec_scale(gate + t * width, 1.0f / (1.0f + expf(-weight[t])), width);
    struct product down = layer_product(&m->shared_down, h, n_embd, true);
    return rc == 0 ? ops_products(r->ops, r->weights, gate, n, width, &down, 1, e) : rc;
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

int step_moe(struct layer_run *r, struct err *e)
{
    const struct moe *m = &r->layer->moe;
    size_t n_embd = r->net->n_embd;
    int rc = 0;
    for (size_t t = 0; rc == 0 && t < r->n_tokens; t += r->block) {
        size_t n = r->n_tokens - t < r->block ? r->n_tokens - t : r->block, cap = batch_rows(n);
        float *h = r->h + t * n_embd, *logits = r->wide, *rows = logits + n * m->n_experts;
        float *act = rows + cap * n_embd;
        struct routing g;
        rc = routing_init(&g, m, n, e);
        if (rc != 0)
            return rc;
        struct product route = layer_product(&m->router, logits, m->n_experts, false);
        struct route_run rr = {m, logits, g.by_token, n};
        rc = ops_rms_norm(r->ops, r->norm, h, n, n_embd, m->norm, r->net->eps, e);
        if (rc == 0)
            rc = layer_observe(r, &m->router.tensor, 1, r->norm, n, n_embd, -1, e);
        if (rc == 0)
            rc = ops_products(r->ops, r->weights, r->norm, n, n_embd, &route, 1, e);
        if (rc == 0)
            rc = pool_run(r->ops->pool, jobs(n), route_job, &rr, e);
        if (rc == 0) {
            sort_choices(&g, m, n);
            rc = routed_experts(r, &g, h, n, cap, rows, act, e);
        }
        if (rc == 0 && m->shared_width)
            rc = shared_expert(r, h, n, r->wide, e);
        routing_release(&g);
    }
    return rc;
}
