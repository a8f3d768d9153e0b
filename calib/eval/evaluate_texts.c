/* evaluate_texts.c - see evaluate_texts.h. */
#include "evaluate_texts.h"

#include "calib/model/answer.h"
#include "calib/model/forward.h"
#include "libquant/base/clock.h"

#include <math.h>
#include <stdlib.h>

struct run {
    const struct evaluate_model *models;
    const struct passages *p;
    const struct evaluate_options *opt;
    struct text_evaluation v;
    size_t n_asked, n_active;        /* models of the call; those that finished the current group */
    size_t first, n;                 /* texts of the group */
    size_t at;                       /* answers before the group */
    size_t stage;                    /* model being computed */
    size_t n_padded_done, n_padded;  /* tokens with padding: all earlier groups, all groups */
    struct hidden_states *reference; /* embeddings of the group under models[0] */
};

static size_t group_tokens(const struct run *r)
{
    return r->n * r->p->items[r->first].len;
}

static int show(void *ctx, const struct progress_step *s)
{
    struct run *r = ctx;
    double in_group = ((double)r->stage + progress_share(s)) / (double)r->n_asked * (double)group_tokens(r);
    struct progress_step of_run = {.done = (double)r->n_padded_done + in_group,
                                   .total = (double)r->n_padded,
                                   .what = r->models[r->stage].name,
                                   .counted = "texts",
                                   .n_done = r->first,
                                   .n = r->p->n};
    return progress_stops(&r->opt->progress, &of_run);
}

double cosine_distance(const float *a, const float *b, size_t n)
{
    double s = 0;
    for (size_t i = 0; i < n; i++) {
        double d = (double)a[i] - (double)b[i];
        s += d * d;
    }
    return s / 2;
}

/* Embeddings of the group: those of the reference are kept, the others compared with them. */
static int take_embeddings(struct run *r, const struct hidden_states *states, struct err *e)
{
    const struct net *net = r->models[r->stage].net;
    size_t d = net->n_embd, len = r->p->items[r->first].len;
    float *buffer = malloc(3 * d * sizeof *buffer), *mine = buffer, *row = buffer + d, *kept = buffer + 2 * d;
    int rc = buffer ? 0 : err_set(e, ERR_NOMEM, "out of memory for an embedding of %zu values", d);
    if (rc == 0 && r->stage == 0)
        rc = hidden_states_new(&r->reference, r->n, d, r->opt->memory_bytes / 8, e);
    for (size_t i = 0; rc == 0 && i < r->n; i++) {
        double *distance = &r->v.value[r->stage][r->at + i];
        float *ref = NULL;
        rc = answer_embedding(mine, net, states, i * len, r->p->items[r->first + i].len, row, e);
        if (rc == 0 && r->stage == 0)
            rc = hidden_states_put(r->reference, i, 1, mine, e);
        else if (rc == 0)
            rc = hidden_states_get(r->reference, i, 1, kept, &ref, e);
        *distance =
            rc == 0 ? cosine_distance(mine, ref ? ref : mine, d) : 0; /* NaN also of the reference's own */
    }
    free(buffer);
    return rc;
}

static size_t group_answers(const struct run *r)
{
    const struct passage *a = &r->p->items[r->first], *b = &r->p->items[r->first + r->n - 1];
    return r->v.answer == NET_SCORE ? b->first_point + b->n_points - a->first_point : r->n;
}

static int take_scores(struct run *r, const struct hidden_states *states, struct err *e)
{
    size_t n = group_answers(r), len = r->p->items[r->first].len, k = 0;
    size_t *rows = malloc(n * sizeof *rows);
    if (!rows)
        return err_set(e, ERR_NOMEM, "out of memory for %zu answers", n);
    for (size_t i = 0; i < r->n; i++) {
        const struct passage *x = &r->p->items[r->first + i];
        for (size_t j = 0; j < x->n_points; j++)
            rows[k++] = i * len + r->p->points[x->first_point + j];
    }
    const struct evaluate_model *m = &r->models[r->stage];
    struct answer_options a = {r->opt->pool, r->opt->activations, r->opt->compute};
    int rc = answer_scores(r->v.value[r->stage] + r->at, m->net, m->weights, states, rows, n, &a, e);
    free(rows);
    return rc;
}

static int run_model(struct run *r, const int32_t *ids, struct err *e)
{
    const struct evaluate_model *m = &r->models[r->stage];
    size_t len = r->p->items[r->first].len;
    struct hidden_states *states = NULL;
    struct forward_options f = {.pool = r->opt->pool,
                                .memory_bytes = r->opt->memory_bytes,
                                .memory_share = 1,
                                .activations = r->opt->activations,
                                .cache = m->cache,
                                .compute = r->opt->compute,
                                .keep_end = len,
                                .progress = {show, r}};
    double start = clock_seconds();
    int rc = forward_run(&states, m->net, m->weights, ids, r->n, len, &f, e);
    if (rc == 0)
        rc = r->v.answer == NET_SCORE ? take_scores(r, states, e) : take_embeddings(r, states, e);
    hidden_states_free(states);
    r->v.seconds[r->stage] += clock_seconds() - start;
    return rc;
}

/* A stop after the first candidate leaves those that are done, if there are no earlier groups to show. */
static int run_group(struct run *r, struct err *e)
{
    int rc = 0;
    int32_t *ids = passages_rows(r->p, r->first, r->n);
    if (!ids)
        return err_set(e, ERR_NOMEM, "out of memory for %zu texts", r->n);
    r->n_active = 0;
    for (r->stage = 0; rc == 0 && r->stage < r->n_asked; r->stage++, r->n_active += rc == 0)
        rc = run_model(r, ids, e);
    if (rc == ERR_CANCELLED && r->n_active >= 2 && r->first == 0) {
        r->v.partial = true;
        rc = 0;
    }
    free(ids);
    hidden_states_free(r->reference);
    r->reference = NULL;
    return rc;
}

static const char *answer_name(enum net_answer a)
{
    return a == NET_TOKENS ? "predictions of tokens" : a == NET_EMBEDDING ? "embeddings" : "scores";
}

static int check_models(const struct run *r, struct err *e)
{
    const struct net *ref = r->models[0].net;
    for (size_t m = 0; m < r->n_asked; m++) {
        const struct net *net = r->models[m].net;
        if (net->answer == NET_TOKENS || net->answer != ref->answer)
            return err_set(e, ERR_ARG, "%s gives %s, the reference %s %s: they cannot be compared",
                           model_path(net->model), answer_name(net->answer), model_path(ref->model),
                           answer_name(ref->answer));
        if (net->answer == NET_EMBEDDING && (net->pooling != ref->pooling || net->n_embd != ref->n_embd))
            return err_set(
                e, ERR_ARG,
                "%s: embeddings of %u values with pooling_type %d, the reference %s has %u and %d: "
                "they cannot be compared",
                model_path(net->model), net->n_embd, (int)net->pooling, model_path(ref->model), ref->n_embd,
                (int)ref->pooling);
        if (net->answer == NET_SCORE && net->score.label != ref->score.label)
            return err_set(e, ERR_ARG, "%s and the reference %s score different labels",
                           model_path(net->model), model_path(ref->model));
    }
    return 0;
}

static int allocate(struct run *r, struct err *e)
{
    struct text_evaluation *v = &r->v;
    size_t n = v->answer == NET_SCORE ? r->p->n_points : r->p->n;
    v->value = calloc(r->n_asked, sizeof *v->value);
    v->seconds = calloc(r->n_asked, sizeof *v->seconds);
    v->ends = malloc(r->p->n * sizeof *v->ends + 1);
    bool ok = v->value && v->seconds && v->ends;
    for (size_t i = 0, at = 0; ok && i < r->p->n; i++)
        v->ends[i] = at += v->answer == NET_SCORE ? r->p->items[i].n_points : 1;
    v->n_models = v->value ? r->n_asked : 0;
    for (size_t m = 0; ok && m < r->n_asked; m++)
        ok = (v->value[m] = malloc(n * sizeof **v->value)) != NULL;
    return ok ? 0 : err_set(e, ERR_NOMEM, "out of memory for %zu answers", n);
}

/* A model whose arithmetic overflows gives NaN, which no mean should hide. */
static int check_finite(const struct run *r, struct err *e)
{
    for (size_t m = 0; m < r->n_active; m++)
        for (size_t i = 0; i < r->v.n; i++)
            if (!isfinite(r->v.value[m][i]))
                return err_set(
                    e, ERR_FORMAT,
                    "%s: an answer is not a number; does the model hold damaged weights? (kerf verify)",
                    r->models[m].name);
    return 0;
}

static void count_tokens(struct run *r)
{
    for (r->first = 0; r->first < r->p->n; r->first += r->n) {
        r->n = passages_group(r->p, r->first);
        r->n_padded += group_tokens(r);
    }
    r->first = 0;
}

int evaluate_texts(struct text_evaluation *out, const struct evaluate_model *models, size_t n_models,
                   const struct passages *p, const struct evaluate_options *opt, struct err *e)
{
    struct run r = {.models = models, .p = p, .opt = opt, .n_asked = n_models};
    r.v.answer = models[0].net->answer;
    r.v.has_probability = r.v.answer == NET_SCORE && models[0].net->score.n_labels == 2;
    int rc = check_models(&r, e);
    if (rc == 0)
        rc = allocate(&r, e);
    count_tokens(&r);
    while (rc == 0 && r.first < p->n && !r.v.partial) {
        r.n = passages_group(p, r.first);
        rc = run_group(&r, e);
        if (rc != 0)
            break;
        r.n_padded_done += group_tokens(&r);
        r.at += group_answers(&r);
        r.first += r.n;
    }
    if (rc == ERR_CANCELLED && r.first > 0) {
        r.v.partial = true;
        r.n_active = n_models; /* of the groups before */
        rc = 0;
    }
    r.v.n_texts = r.first;
    r.v.n = r.at;
    for (size_t i = 0; i < r.first; i++)
        r.v.n_tokens += p->items[i].len;
    if (rc == 0)
        rc = check_finite(&r, e);
    if (rc != 0) {
        text_evaluation_release(&r.v);
        return rc;
    }
    for (size_t m = r.n_active; m < n_models; m++) /* models that were not reached */
        free(r.v.value[m]);
    r.v.n_models = r.n_active;
    *out = r.v;
    return 0;
}

void text_evaluation_release(struct text_evaluation *v)
{
    if (!v)
        return;
    for (size_t m = 0; m < v->n_models; m++)
        free(v->value[m]);
    free(v->value);
    free(v->seconds);
    free(v->ends);
    *v = (struct text_evaluation){0};
}
