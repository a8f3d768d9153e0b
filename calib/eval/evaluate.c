/* evaluate.c - see evaluate.h. */
#include "evaluate.h"

#include "calib/waves.h"
#include "libquant/base/clock.h"

#include <math.h>
#include <stdlib.h>

#define WAVE_TOKENS 16384
#define HEAD_SHARE  0.25 /* of the work of a wave, for the progress bar only */

struct run {
    const struct evaluate_model *models;
    const struct windows *w;
    const struct evaluate_options *opt;
    struct evaluation v;
    size_t n_asked, n_active; /* models of the call; those that the current wave has states of */
    size_t first, n;          /* windows of the wave */
    size_t wave;              /* windows per wave */
    size_t stage;             /* model being computed, n_active: the sweep */
    struct hidden_states **states;
    struct head_score *scores; /* [n_asked, wave * run] */
    double nll_sum;
    bool ignore_stop; /* the states at hand are to be scored before the run ends */
};

static int show(void *ctx, const struct progress_step *s)
{
    struct run *r = ctx;
    double part = progress_share(s), models = (double)r->n_asked;
    double in_wave = r->stage < r->n_asked ? ((double)r->stage + part) / models * (1 - HEAD_SHARE)
                                           : 1 - HEAD_SHARE + part * HEAD_SHARE;
    double n_scored = (double)(r->first * r->v.run);
    struct progress_step of_run = {
        .done = (double)r->first + in_wave * (double)r->n,
        .total = (double)r->w->n,
        .what = r->stage < r->n_asked ? r->models[r->stage].name : "scoring",
        .counted = "windows",
        .n_done = r->first,
        .n = r->w->n,
        .perplexity = r->first ? exp(r->nll_sum / n_scored) : NAN,
    };
    int stop = progress_stops(&r->opt->progress, &of_run);
    return r->ignore_stop ? 0 : stop;
}

/* All windows at once when the weights do not stay in the page cache or have to be encoded. */
static size_t wave_size(const struct run *r)
{
    uint64_t n_bytes = 0;
    for (size_t m = 0; m < r->n_asked; m++) {
        if (weights_encodes(r->models[m].weights))
            return r->w->n;
        n_bytes += weights_n_bytes(r->models[m].weights);
    }
    return wave_finds_weights(n_bytes) ? wave_windows(r->w, WAVE_TOKENS) : r->w->n;
}

static int allocate(struct run *r, struct err *e)
{
    struct evaluation *v = &r->v;
    size_t n = r->w->n * v->run;
    v->nll = calloc(r->n_asked, sizeof *v->nll);
    v->kld = calloc(r->n_asked, sizeof *v->kld);
    v->same_top = calloc(r->n_asked, sizeof *v->same_top);
    v->seconds = calloc(r->n_asked, sizeof *v->seconds);
    r->states = calloc(r->n_asked, sizeof *r->states);
    r->scores = calloc(r->n_asked * (r->wave < r->w->n ? r->wave : r->w->n) * v->run + 1, sizeof *r->scores);
    bool ok = v->nll && v->kld && v->same_top && v->seconds && r->states && r->scores;
    v->n_models = ok ? r->n_asked : 0;
    for (size_t m = 0; ok && m < r->n_asked; m++) {
        v->nll[m] = malloc(n * sizeof **v->nll + 1);
        v->kld[m] = malloc(n * sizeof **v->kld + 1);
        v->same_top[m] = malloc(n * sizeof **v->same_top + 1);
        ok = v->nll[m] && v->kld[m] && v->same_top[m];
    }
    return ok ? 0 : err_set(e, ERR_NOMEM, "out of memory for the scores of %zu positions", n);
}

struct forward_options evaluate_forward(const struct evaluate_options *opt, const struct windows *w,
                                        const struct evaluate_model *m, struct progress progress)
{
    return (struct forward_options){.pool = opt->pool,
                                    .memory_bytes = opt->memory_bytes,
                                    .activations = opt->activations,
                                    .cache = m->cache,
                                    .compute = opt->compute,
                                    .keep_first = w->first,
                                    .keep_end = w->end,
                                    .progress = progress};
}

struct head_options evaluate_head(const struct evaluate_options *opt, struct progress progress)
{
    return (struct head_options){.pool = opt->pool,
                                 .memory_bytes = opt->memory_bytes,
                                 .activations = opt->activations,
                                 .progress = progress,
                                 .compute = opt->compute};
}

/* States of every model for the windows of the wave. A stop after the first candidate leaves those that are
 * done, if there are no earlier waves to show. */
static int run_models(struct run *r, struct err *e)
{
    const struct windows *w = r->w;
    const uint64_t share = r->n_asked > 1 ? 2 : 1;
    r->n_active = 0;
    for (r->stage = 0; r->stage < r->n_asked; r->stage++) {
        double start = clock_seconds();
        const struct evaluate_model *m = &r->models[r->stage];
        struct forward_options f = evaluate_forward(r->opt, w, m, (struct progress){show, r});
        f.memory_bytes /= share;
        f.memory_share = (unsigned)share;
        f.keep_bytes = r->opt->memory_bytes / (r->n_asked > 1 ? 4 * r->n_asked : 8);
        int rc = forward_run(&r->states[r->stage], m->net, m->weights, w->inputs + r->first * w->ctx, r->n,
                             w->ctx, &f, e);
        if (rc == ERR_CANCELLED && r->stage >= 2 && r->first == 0) {
            r->v.partial = true;
            r->ignore_stop = true;
            return 0;
        }
        if (rc != 0)
            return rc;
        r->v.seconds[r->stage] += clock_seconds() - start;
        r->n_active++;
    }
    return 0;
}

static void drop_states(struct run *r)
{
    for (size_t m = 0; r->states && m < r->n_asked; m++) {
        hidden_states_free(r->states[m]);
        r->states[m] = NULL;
    }
}

static int score(struct run *r, struct err *e)
{
    struct evaluation *v = &r->v;
    size_t n = r->n * v->run, at = r->first * v->run;
    const struct head_options h = evaluate_head(r->opt, (struct progress){show, r});
    struct head_model *list = calloc(r->n_active, sizeof *list);
    if (!list)
        return err_set(e, ERR_NOMEM, "out of memory for %zu models", r->n_active);
    for (size_t m = 0; m < r->n_active; m++)
        list[m] = (struct head_model){r->models[m].net, r->models[m].weights, r->states[m]};
    r->stage = r->n_asked;
    double start = clock_seconds();
    int rc = head_score(list, r->n_active, r->w->targets + at, n, &h, r->scores, e);
    double share = (clock_seconds() - start) / (double)r->n_active;
    if (rc == 0 && r->opt->take_reference)
        rc = r->opt->take_reference(r->opt->take_ctx, &list[0], r->scores, n, &h, e);
    free(list);
    for (size_t m = 0; rc == 0 && m < r->n_active; m++) {
        v->seconds[m] += share;
        for (size_t i = 0; i < n; i++) {
            v->nll[m][at + i] = r->scores[m * n + i].nll;
            v->kld[m][at + i] = r->scores[m * n + i].kld;
            v->same_top[m][at + i] = r->scores[m * n + i].top == r->scores[i].top;
        }
    }
    for (size_t i = 0; rc == 0 && i < n; i++)
        r->nll_sum += v->nll[0][at + i];
    return rc;
}

/* A model whose arithmetic overflows gives NaN, which no mean should hide. */
int evaluation_check_finite(const struct evaluation *v, size_t m, const char *name, struct err *e)
{
    for (size_t i = 0; i < v->n; i++)
        if (!isfinite(v->nll[m][i]) || !isfinite(v->kld[m][i]))
            return err_set(e, ERR_FORMAT,
                           "%s: the prediction at scored position %zu is not a number; does the model hold "
                           "damaged weights? (kerf verify)",
                           name, i);
    return 0;
}

int evaluate(struct evaluation *out, const struct evaluate_model *models, size_t n_models,
             const struct windows *w, const struct evaluate_options *opt, struct err *e)
{
    struct run r = {.models = models, .w = w, .opt = opt, .n_asked = n_models};
    r.v.run = windows_n_scored(w);
    r.wave = wave_size(&r);
    int rc = 0;
    for (size_t m = 0; rc == 0 && m < n_models; m++)
        rc = net_need_tokens(models[m].net, "scoring windows of text", e);
    if (rc == 0)
        rc = allocate(&r, e);
    for (; rc == 0 && r.first < w->n && !r.v.partial; r.first += rc == 0 ? r.n : 0) {
        r.n = w->n - r.first < r.wave ? w->n - r.first : r.wave;
        rc = run_models(&r, e);
        if (rc == 0)
            rc = score(&r, e);
        drop_states(&r);
    }
    if (rc == ERR_CANCELLED && r.first > 0) {
        r.v.partial = true;
        r.n_active = n_models; /* of the waves before */
        rc = 0;
    }
    r.v.n_windows = r.first;
    r.v.n = r.first * r.v.run;
    for (size_t m = 0; rc == 0 && m < r.n_active; m++)
        rc = evaluation_check_finite(&r.v, m, models[m].name, e);
    drop_states(&r);
    free(r.states);
    free(r.scores);
    if (rc != 0) {
        evaluation_release(&r.v);
        return rc;
    }
    evaluation_keep_models(&r.v, r.n_active);
    *out = r.v;
    return 0;
}

void evaluation_keep_models(struct evaluation *v, size_t n_models)
{
    for (size_t m = n_models; m < v->n_models; m++) {
        free(v->nll[m]);
        free(v->kld[m]);
        free(v->same_top[m]);
    }
    v->n_models = n_models;
}

void evaluation_release(struct evaluation *v)
{
    if (!v)
        return;
    for (size_t m = 0; m < v->n_models; m++) {
        free(v->nll[m]);
        free(v->kld[m]);
        free(v->same_top[m]);
    }
    free(v->nll);
    free(v->kld);
    free(v->same_top);
    free(v->seconds);
    free(v->ends);
    *v = (struct evaluation){0};
}

static int select_allocate(struct evaluation *out, const struct evaluation *v, struct err *e)
{
    out->nll = calloc(v->n_models, sizeof *out->nll);
    out->kld = calloc(v->n_models, sizeof *out->kld);
    out->same_top = calloc(v->n_models, sizeof *out->same_top);
    out->seconds = calloc(v->n_models, sizeof *out->seconds);
    out->ends = calloc(v->n_windows + 1, sizeof *out->ends);
    bool ok = out->nll && out->kld && out->same_top && out->seconds && out->ends;
    out->n_models = ok ? v->n_models : 0;
    for (size_t m = 0; ok && m < v->n_models; m++) {
        out->nll[m] = malloc(v->n * sizeof **out->nll + 1);
        out->kld[m] = malloc(v->n * sizeof **out->kld + 1);
        out->same_top[m] = malloc(v->n * sizeof **out->same_top + 1);
        ok = out->nll[m] && out->kld[m] && out->same_top[m];
    }
    return ok ? 0 : err_set(e, ERR_NOMEM, "out of memory for the scores of %zu positions", v->n);
}

int evaluation_select(struct evaluation *out, const struct evaluation *v, const uint8_t *use, uint8_t bit,
                      struct err *e)
{
    struct evaluation x = {.n_windows = v->n_windows, .partial = v->partial};
    int rc = select_allocate(&x, v, e);
    if (rc != 0) {
        evaluation_release(&x);
        return rc;
    }
    for (size_t m = 0; m < v->n_models; m++) {
        x.n = 0;
        x.seconds[m] = v->seconds[m];
        for (size_t i = 0; i < v->n; i++) {
            if (use[i] & bit) {
                x.nll[m][x.n] = v->nll[m][i];
                x.kld[m][x.n] = v->kld[m][i];
                x.same_top[m][x.n++] = v->same_top[m][i];
            }
            if ((i + 1) % v->run == 0)
                x.ends[i / v->run] = x.n;
        }
    }
    *out = x;
    return 0;
}
