/* cpu_experts.c - which tokens go to which expert, and their rows there and back. Contributions are added in
 * the order of the experts, so that batches do not change a sum. */
#include "cpu.h"
#include "vecmath.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define TOKENS_PER_JOB 32

struct choice {
    uint32_t token, expert;
    float weight;
};

struct cpu_routing {
    struct routing base;
    size_t n, n_used;
    struct choice *chosen;   /* [n * n_used], sorted by expert, then token */
    size_t *expert_begin;    /* [n_experts + 1] into chosen */
    size_t *token_places;    /* [n * n_used] places in chosen of a token's experts, rising */
    struct choice *by_token; /* [n * n_used] */
};

void cpu_routing_free(struct compute *c, struct routing *base)
{
    (void)c;
    struct cpu_routing *g = (struct cpu_routing *)(void *)base;
    if (!g)
        return;
    free(g->chosen);
    free(g->expert_begin);
    free(g->token_places);
    free(g->by_token);
    free(g);
}

static int routing_new(struct cpu_routing **out, const struct expert_choice *m, size_t n, struct err *e)
{
    size_t slots = n * m->n_used;
    struct cpu_routing *g = calloc(1, sizeof *g);
    if (g)
        *g = (struct cpu_routing){.n = n,
                                  .n_used = m->n_used,
                                  .chosen = malloc(slots * sizeof *g->chosen),
                                  .expert_begin = calloc(m->n_experts + 1, sizeof *g->expert_begin),
                                  .token_places = malloc(slots * sizeof *g->token_places),
                                  .by_token = malloc(slots * sizeof *g->by_token)};
    if (!g || !g->chosen || !g->expert_begin || !g->token_places || !g->by_token) {
        cpu_routing_free(NULL, &g->base);
        return err_set(e, ERR_NOMEM, "out of memory for the routing of %zu tokens", n);
    }
    g->base.expert_begin = g->expert_begin;
    *out = g;
    return 0;
}

struct route_run {
    const struct expert_choice *m;
    float *logits; /* [n, n_experts], destroyed */
    struct choice *by_token;
    size_t n;
};

#define TAKEN (-1.0f) /* in place of a probability: below all that can be chosen */

/* A total order also where a weight of the model, or an overflow, made the probabilities NaN: these come last
 * of those not taken yet. So a token goes to n_used different experts whatever the numbers are; its NaN
 * weights make its result the NaN that it is in a dense model, which whoever scores it reports. */
static bool is_above(float a, float b)
{
    float x = isnan(a) ? 0.5f * TAKEN : a, y = isnan(b) ? 0.5f * TAKEN : b;
    return x > y;
}

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
                best = is_above(p[i], p[best]) ? i : best;
            c[j] = (struct choice){(uint32_t)t, (uint32_t)best, p[best]};
            kept += (double)p[best];
            p[best] = TAKEN;
        }
        double divisor = r->m->renormalise ? kept : sum;
        for (size_t j = 0; j < n_used; j++)
            c[j].weight = (float)((double)c[j].weight / divisor) * r->m->weight_scale;
    }
    return 0;
}

/* Counting sort of the choices by expert; within an expert by token. */
static void sort_choices(struct cpu_routing *g, const struct expert_choice *m, size_t n)
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

int cpu_route(struct routing **out, struct compute *c, const struct expert_choice *choice,
              struct region logits, size_t n, struct err *e)
{
    struct cpu_routing *g = NULL;
    int rc = routing_new(&g, choice, n, e);
    if (rc != 0)
        return rc;
    struct route_run r = {choice, cpu_at(logits), g->by_token, n};
    rc = pool_run(cpu_of(c)->pool, cpu_jobs(n, TOKENS_PER_JOB), route_job, &r, e);
    if (rc != 0) {
        cpu_routing_free(c, &g->base);
        return rc;
    }
    sort_choices(g, choice, n);
    *out = &g->base;
    return 0;
}

/* Rows of the places [begin, end). */
struct places_run {
    const struct cpu_routing *g;
    size_t n_cols, begin, end;
    float *rows;    /* [end - begin, n_cols] */
    const float *x; /* what is gathered */
    float *h;       /* what is added to */
};

static int gather_job(void *ctx, size_t job, unsigned worker, struct err *e)
{
    (void)worker;
    (void)e;
    const struct places_run *b = ctx;
    size_t first = b->begin + job * TOKENS_PER_JOB;
    for (size_t i = first; i < first + TOKENS_PER_JOB && i < b->end; i++)
        memcpy(b->rows + (i - b->begin) * b->n_cols, b->x + b->g->chosen[i].token * b->n_cols,
               b->n_cols * sizeof(float));
    return 0;
}

int cpu_gather(struct compute *c, const struct routing *g, size_t begin, size_t end, struct region rows,
               struct region x, size_t n_cols, struct err *e)
{
    struct places_run b = {
        (const struct cpu_routing *)(const void *)g, n_cols, begin, end, cpu_at(rows), cpu_at(x), NULL};
    return pool_run(cpu_of(c)->pool, cpu_jobs(end - begin, TOKENS_PER_JOB), gather_job, &b, e);
}

static int add_job(void *ctx, size_t job, unsigned worker, struct err *e)
{
    (void)worker;
    (void)e;
    const struct places_run *b = ctx;
    const struct cpu_routing *g = b->g;
    for (size_t t = job * TOKENS_PER_JOB; t < (job + 1) * TOKENS_PER_JOB && t < g->n; t++)
        for (size_t j = 0; j < g->n_used; j++) {
            size_t at = g->token_places[t * g->n_used + j];
            if (at >= b->begin && at < b->end)
                vec_add_scaled(b->h + t * b->n_cols, b->rows + (at - b->begin) * b->n_cols,
                               g->chosen[at].weight, b->n_cols);
        }
    return 0;
}

int cpu_add_weighted(struct compute *c, const struct routing *g, size_t begin, size_t end, struct region h,
                     struct region rows, size_t n_cols, struct err *e)
{
    struct places_run b = {
        (const struct cpu_routing *)(const void *)g, n_cols, begin, end, cpu_at(rows), NULL, cpu_at(h)};
    return pool_run(cpu_of(c)->pool, cpu_jobs(b.g->n, TOKENS_PER_JOB), add_job, &b, e);
}
