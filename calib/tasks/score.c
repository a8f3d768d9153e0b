/* score.c - see score.h: the passes over groups of runs, and what is read from the states. */
#include "score.h"

#include "score_plan.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Tokens of all windows, and those of them that belong to a text. */
static int count_tokens(size_t *padded, size_t *plain, const struct score_plan *p, struct err *e)
{
    size_t n_padded = 0, n_plain = 0;
    int rc = 0;
    for (size_t first = 0; rc == 0 && first < p->n_runs;) {
        struct score_group g;
        rc = score_group_make(&g, p, first, e);
        first += g.n;
        n_padded += g.n_windows * g.ctx;
        n_plain += g.n_rows;
        score_group_release(&g);
    }
    if (rc == 0) {
        *padded = n_padded;
        *plain = n_plain;
    }
    return rc;
}

int score_count_tokens(size_t *padded, size_t *plain, const struct requests *r, const struct net *net,
                       const struct weights *w, uint64_t memory_bytes, struct err *e)
{
    struct score_plan p;
    int rc = score_plan_make(&p, r, net, w, memory_bytes, e);
    if (rc == 0)
        rc = count_tokens(padded, plain, &p, e);
    score_plan_release(&p);
    return rc;
}

/* --- one group --- */

struct scorer {
    const struct score_plan *p;
    const struct net *net;
    struct weights *w;
    const struct score_options *opt;
    struct likelihood *out;
    const char *name;                 /* of the model, for progress */
    double done, total, group_tokens; /* tokens with padding */
    struct score_group group;
    size_t keep_first, keep_end; /* rows of each window that hold all that is scored */
    size_t n_targets;
    int32_t *targets;             /* [n_targets], in the order of runs, members, positions */
    struct hidden_states *states; /* of the kept positions */
    struct hidden_states *scored; /* of the targets */
    struct head_score *scores;    /* [n_targets] */
};

static int show(void *ctx, const struct progress_step *of_group)
{
    struct scorer *s = ctx;
    struct progress_step step = {
        .done = s->done + progress_share(of_group) * s->group_tokens, .total = s->total, .what = s->name};
    return progress_stops(&s->opt->progress, &step);
}

static const struct request *member(const struct scorer *s, const struct run *run, size_t k)
{
    return &s->p->r->items[s->p->members[run->first_member + k]];
}

/* Called for each target of the group, which is predicted from row `row` of its windows. */
typedef int (*target_fn)(struct scorer *s, size_t i, size_t row, int32_t id, struct err *e);

static int for_each_target(struct scorer *s, target_fn take, struct err *e)
{
    size_t i = 0;
    int rc = 0;
    for (size_t k = 0; rc == 0 && k < s->group.n; k++) {
        const struct run *run = &s->p->runs[s->group.first + k];
        for (size_t m = 0; rc == 0 && m < run->n_members; m++) {
            const struct request *q = member(s, run, m);
            for (size_t t = q->first; rc == 0 && t < q->len; t++)
                rc = take(s, i++, score_group_row(&s->group, k, t - 1), s->p->r->ids[q->begin + t], e);
        }
    }
    return rc;
}

static int measure_target(struct scorer *s, size_t i, size_t row, int32_t id, struct err *e)
{
    (void)id;
    (void)e;
    size_t at = row % s->group.ctx;
    s->keep_first = at < s->keep_first ? at : s->keep_first;
    s->keep_end = at + 1 > s->keep_end ? at + 1 : s->keep_end;
    s->n_targets = i + 1;
    return 0;
}

static int run_group(struct scorer *s, struct err *e)
{
    const struct score_group *g = &s->group;
    int32_t *ids = malloc(g->n_windows * g->ctx * sizeof *ids);
    if (!ids)
        return err_set(e, ERR_NOMEM, "out of memory for %zu texts", g->n);
    score_group_ids(g, s->p, ids);
    struct row_tree tree = {g->branches, g->n_branches};
    struct forward_options f = {.pool = s->opt->pool,
                                .memory_bytes = s->opt->memory_bytes,
                                .activations = s->opt->activations,
                                .cache = s->opt->cache,
                                .compute = s->opt->compute,
                                .tree = g->branches ? &tree : NULL,
                                .keep_first = s->keep_first,
                                .keep_end = s->keep_end,
                                .progress = {show, s}};
    int rc = forward_run(&s->states, s->net, s->w, ids, g->n_windows, g->ctx, &f, e);
    free(ids);
    return rc;
}

static int take_target(struct scorer *s, size_t i, size_t row, int32_t id, struct err *e)
{
    size_t n = s->net->n_embd;
    float *buffer = (float *)(void *)(s->scores + s->n_targets), *from = NULL;
    size_t kept = row / s->group.ctx * (s->keep_end - s->keep_first) + row % s->group.ctx - s->keep_first;
    s->targets[i] = id;
    int rc = hidden_states_get(s->states, kept, 1, buffer, &from, e);
    if (rc == 0 && from != buffer)
        memcpy(buffer, from, n * sizeof *buffer);
    return rc == 0 ? hidden_states_put(s->scored, i, 1, buffer, e) : rc;
}

/* From scores to the likelihoods of the requests, in the order of for_each_target. */
static int take_scores(struct scorer *s, struct err *e)
{
    size_t i = 0;
    for (size_t k = 0; k < s->group.n; k++) {
        const struct run *run = &s->p->runs[s->group.first + k];
        for (size_t m = 0; m < run->n_members; m++) {
            const struct request *q = member(s, run, m);
            struct likelihood *l = &s->out[s->p->members[run->first_member + m]];
            double sum = 0;
            *l = (struct likelihood){.greedy = true, .n_tokens = q->len - q->own_first};
            for (size_t t = q->first; t < q->len; t++, i++) {
                const struct head_score *h = &s->scores[i];
                if (!isfinite(h->nll))
                    return err_set(
                        e, ERR_FORMAT,
                        "%s: a prediction is not a number; does the model hold damaged weights? (kerf "
                        "verify)",
                        model_path(s->net->model));
                l->sum -= t >= q->own_first ? h->nll : 0;
                l->greedy &= t < q->own_first || h->top == s->targets[i];
                sum -= t >= q->mean_first && t < q->mean_end ? h->nll : 0;
            }
            l->mean = sum / (double)(q->mean_end - q->mean_first);
        }
    }
    return 0;
}

static int score_group(struct scorer *s, struct err *e)
{
    size_t n_embd = s->net->n_embd;
    struct head_options h = {.pool = s->opt->pool,
                             .memory_bytes = s->opt->memory_bytes,
                             .activations = s->opt->activations,
                             .compute = s->opt->compute};
    s->keep_first = SIZE_MAX;
    s->keep_end = s->n_targets = 0;
    int rc = for_each_target(s, measure_target, e);
    if (rc == 0)
        rc = run_group(s, e);
    s->targets = malloc(s->n_targets * sizeof *s->targets + 1);
    s->scores = malloc(s->n_targets * sizeof *s->scores + n_embd * sizeof(float)); /* and a row of states */
    if (rc == 0 && (!s->targets || !s->scores))
        rc = err_set(e, ERR_NOMEM, "out of memory for %zu predictions", s->n_targets);
    if (rc == 0)
        rc = hidden_states_new(&s->scored, s->n_targets, n_embd, s->opt->memory_bytes / 4, e);
    if (rc == 0)
        rc = for_each_target(s, take_target, e);
    struct head_model model = {s->net, s->w, s->scored};
    if (rc == 0)
        rc = head_score(&model, 1, s->targets, s->n_targets, &h, s->scores, e);
    if (rc == 0)
        rc = take_scores(s, e);
    hidden_states_free(s->states);
    hidden_states_free(s->scored);
    free(s->targets);
    free(s->scores);
    s->states = s->scored = NULL;
    s->targets = NULL;
    s->scores = NULL;
    return rc;
}

int score_requests(struct likelihood *out, const struct requests *r, const struct net *net, struct weights *w,
                   const struct score_options *opt, struct err *e)
{
    struct score_plan p = {0};
    struct scorer s = {.p = &p, .net = net, .w = w, .opt = opt, .out = out};
    size_t padded = 0, plain = 0;
    int rc = net_need_tokens(net, "scoring a task", e);
    if (rc == 0)
        rc = score_plan_make(&p, r, net, w, opt->memory_bytes, e);
    if (rc == 0)
        rc = count_tokens(&padded, &plain, &p, e);
    s.total = (double)padded;
    s.name = opt->name;
    for (size_t first = 0; rc == 0 && first < p.n_runs; first += s.group.n) {
        score_group_release(&s.group);
        rc = score_group_make(&s.group, &p, first, e);
        s.group_tokens = (double)(s.group.n_windows * s.group.ctx);
        if (rc == 0)
            rc = score_group(&s, e);
        s.done += s.group_tokens;
    }
    score_group_release(&s.group);
    score_plan_release(&p);
    return rc;
}
