/* cpu_experts.c - which tokens go to which expert, and their rows there and back. Contributions are added in
 * the order of the experts, so that batches do not change a sum. */
#include "cpu.h"
#include "vecmath.h"

#include <float.h>
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
    float *weights;          /* [n * n_used] those of chosen */
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
    free(g->weights);
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
                                  .by_token = malloc(slots * sizeof *g->by_token),
                                  .weights = malloc(slots * sizeof *g->weights)};
    if (!g || !g->chosen || !g->expert_begin || !g->token_places || !g->by_token || !g->weights) {
        cpu_routing_free(NULL, g ? &g->base : NULL);
        return err_set(e, ERR_NOMEM, "out of memory for the routing of %zu tokens", n);
    }
    g->base.expert_begin = g->expert_begin;
    g->base.weights = g->weights;
    *out = g;
    return 0;
}

struct route_run {
    const struct expert_choice *m;
    float *logits; /* [n, n_experts], destroyed */
    struct choice *by_token;
    size_t n;
};

/* In place of a score, each below all that come before it: the least that an expert which can be chosen has;
 * an expert of a group that is not looked at; one that is taken. */
#define LEAST    (-0.25f * FLT_MAX)
#define LEFT_OUT (-FLT_MAX)
#define TAKEN    (-INFINITY)

/* A total order also where a weight of the model, or an overflow, made the scores NaN: these come last of
 * those that can be chosen. So a token goes to n_used different experts whatever the numbers are; its NaN
 * weights make its result the NaN that it is in a dense model, which whoever scores it reports. */
static bool is_above(float a, float b)
{
    float x = isnan(a) ? 2 * LEAST : a, y = isnan(b) ? 2 * LEAST : b;
    return x > y;
}

static size_t best_of(const float *p, size_t n)
{
    size_t best = 0;
    for (size_t i = 1; i < n; i++)
        best = is_above(p[i], p[best]) ? i : best;
    return best;
}

/* From logits to scores, in place; the sum of them that makes them shares: of sigmoids 1. */
static double score(float *p, size_t n, bool sigmoid)
{
    if (!sigmoid)
        return vec_exp_sum(p, p, 1.0f, vec_max(p, n), n);
    for (size_t i = 0; i < n; i++)
        p[i] = 1.0f / (1.0f + expf(-p[i]));
    return 1;
}

/* What the groups of a token are worth: their best, or the two best together. */
static void rate_groups(const struct expert_choice *m, const float *rank, float *worth)
{
    size_t size = m->n_experts / m->n_groups;
    for (size_t g = 0; g < m->n_groups; g++) {
        const float *p = rank + g * size;
        size_t best = best_of(p, size), second = best == 0 ? 1 : 0;
        for (size_t i = 0; i < size; i++)
            second = i != best && is_above(p[i], p[second]) ? i : second;
        worth[g] = p[best] + (m->two_of_group && size > 1 ? p[second] : 0);
    }
}

/* Put the experts of all but the best groups behind those that can be chosen. `worth` is scratch. */
static void leave_groups(const struct expert_choice *m, float *rank, float *worth)
{
    size_t size = m->n_experts / m->n_groups;
    rate_groups(m, rank, worth);
    for (size_t j = 0; j < m->n_groups_used; j++)
        worth[best_of(worth, m->n_groups)] = -INFINITY;
    for (size_t g = 0; g < m->n_groups; g++)
        for (size_t i = 0; worth[g] != -INFINITY && i < size; i++)
            rank[g * size + i] = LEFT_OUT;
}

/* The experts of one token. `rank`: scores to choose by, destroyed; may be `p` itself, the scores that weigh.
 */
static void choose(const struct expert_choice *m, const float *p, float *rank, double sum, uint32_t token,
                   struct choice *c)
{
    double kept = 0;
    for (size_t j = 0; j < m->n_used; j++) {
        size_t best = best_of(rank, m->n_experts);
        c[j] = (struct choice){token, (uint32_t)best, p[best]};
        kept += (double)p[best];
        rank[best] = TAKEN;
    }
    double divisor = m->renormalise ? kept : sum;
    for (size_t j = 0; j < m->n_used; j++)
        c[j].weight = (float)((double)c[j].weight / divisor) * m->weight_scale;
}

static int route_job(void *ctx, size_t job, unsigned worker, struct err *e)
{
    (void)worker;
    const struct route_run *r = ctx;
    const struct expert_choice *m = r->m;
    size_t n = m->n_experts;
    bool grouped = m->n_groups > 1 && m->n_groups_used < m->n_groups && m->n_used < n;
    float *own = m->bias || grouped ? malloc((n + m->n_groups) * sizeof *own) : NULL;
    if (!own && (m->bias || grouped))
        return err_set(e, ERR_NOMEM, "out of memory for the routing of a token");
    for (size_t t = job * TOKENS_PER_JOB; t < (job + 1) * TOKENS_PER_JOB && t < r->n; t++) {
        float *p = r->logits + t * n, *rank = own ? own : p;
        double sum = score(p, n, m->sigmoid);
        for (size_t i = 0; own && i < n; i++)
            rank[i] = fmaxf(p[i] + (m->bias ? m->bias[i] : 0), LEAST);
        if (grouped)
            leave_groups(m, rank, own + n);
        choose(m, p, rank, sum, (uint32_t)t, r->by_token + t * m->n_used);
    }
    free(own);
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
    for (size_t i = 0; i < slots; i++)
        g->weights[i] = g->chosen[i].weight;
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
