/* evaluate_kept.c - see evaluate_kept.h.
 *
 * A stretch is about 16384 tokens, whatever is asked for, so that one run finds what another has kept. Of a
 * model whose weights are read again at little cost every stretch is a pass of its own; another one (a mix,
 * which is encoded, or weights beyond the page cache) passes all that it lacks at once. */
#include "evaluate_kept.h"

#include "calib/model/forward.h"
#include "calib/waves.h"
#include "libquant/base/clock.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define STRETCH_TOKENS 16384
#define HEAD_SHARE     0.25 /* of the work of a stretch, for the progress bar only */

struct run {
    const struct evaluate_model *models;
    const char *const *identities; /* of the models */
    const struct windows *w;
    const struct evaluate_options *opt;
    struct score_store *store;
    struct evaluation v;
    int32_t **top;                         /* [n_models][n] */
    bool **done;                           /* [n_models][n_stretches] */
    size_t n_models, stretch, n_stretches; /* stretch: windows */
    size_t model, at, n_pass;              /* the stretches at work: [at, at + n_pass) of a model */
    size_t n_done;
    bool scoring;
    struct hidden_states *reference; /* states of stretch `at`, of a candidate's turn */
};

static size_t first_window(const struct run *r, size_t stretch)
{
    size_t at = stretch * r->stretch;
    return at < r->w->n ? at : r->w->n;
}

static size_t n_windows(const struct run *r, size_t stretch, size_t n)
{
    return first_window(r, stretch + n) - first_window(r, stretch);
}

static void key_of(const struct run *r, size_t model, size_t stretch, char out[65])
{
    score_store_key(r->store, r->identities[0], model ? r->identities[model] : "", first_window(r, stretch),
                    n_windows(r, stretch, 1), out);
}

static struct score_unit unit_of(struct run *r, size_t model, size_t stretch)
{
    size_t at = first_window(r, stretch) * r->v.run;
    return (struct score_unit){n_windows(r, stretch, 1) * r->v.run, r->v.nll[model] + at,
                               r->v.kld[model] + at, r->top[model] + at, 0};
}

static int show(void *ctx, const struct progress_step *s)
{
    const struct run *r = ctx;
    double part = progress_share(s), of_pass = (double)r->n_pass;
    double in_pass =
        r->scoring ? (1 - HEAD_SHARE) * of_pass + HEAD_SHARE * part : part * (1 - HEAD_SHARE) * of_pass;
    struct progress_step of_run = {.done = (double)r->n_done + in_pass,
                                   .total = (double)(r->n_models * r->n_stretches),
                                   .what = r->models[r->model].name,
                                   .counted = "measurements",
                                   .n_done = r->n_done,
                                   .n = r->n_models * r->n_stretches,
                                   .perplexity = NAN};
    if (of_run.done > of_run.total)
        of_run.done = of_run.total;
    return progress_stops(&r->opt->progress, &of_run);
}

/* --- memory --- */

static int allocate(struct run *r, struct err *e)
{
    struct evaluation *v = &r->v;
    v->nll = calloc(r->n_models, sizeof *v->nll);
    v->kld = calloc(r->n_models, sizeof *v->kld);
    v->same_top = calloc(r->n_models, sizeof *v->same_top);
    v->seconds = calloc(r->n_models, sizeof *v->seconds);
    r->top = calloc(r->n_models, sizeof *r->top);
    r->done = calloc(r->n_models, sizeof *r->done);
    bool ok = v->nll && v->kld && v->same_top && v->seconds && r->top && r->done;
    v->n_models = ok ? r->n_models : 0;
    for (size_t m = 0; ok && m < r->n_models; m++) {
        v->nll[m] = malloc(v->n * sizeof **v->nll + 1);
        v->kld[m] = malloc(v->n * sizeof **v->kld + 1);
        v->same_top[m] = malloc(v->n * sizeof **v->same_top + 1);
        r->top[m] = malloc(v->n * sizeof **r->top + 1);
        r->done[m] = calloc(r->n_stretches, sizeof **r->done);
        ok = v->nll[m] && v->kld[m] && v->same_top[m] && r->top[m] && r->done[m];
    }
    return ok ? 0 : err_set(e, ERR_NOMEM, "out of memory for the scores of %zu positions", v->n);
}

static void release_run(struct run *r)
{
    for (size_t m = 0; m < r->n_models; m++) {
        if (r->top)
            free(r->top[m]);
        if (r->done)
            free(r->done[m]);
    }
    free(r->top);
    free(r->done);
}

/* --- what is there --- */

static bool any_candidate_lacks(const struct run *r, size_t stretch)
{
    for (size_t m = 1; m < r->n_models; m++)
        if (!r->done[m][stretch])
            return true;
    return false;
}

/* Candidates first: the states of a reference are wanted only where one of them is to be measured. */
static void look(struct run *r)
{
    for (size_t m = r->n_models; m-- > 0;)
        for (size_t i = 0; i < r->n_stretches; i++) {
            char key[65];
            struct score_unit u = unit_of(r, m, i);
            key_of(r, m, i, key);
            score_store_load(&r->done[m][i], &u, r->store, key);
            bool needs_states = m == 0 && (r->opt->take_reference || any_candidate_lacks(r, i));
            if (needs_states && !score_store_has_states(r->store, key, n_windows(r, i, 1) * r->v.run,
                                                        r->models[0].net->n_embd))
                r->done[m][i] = false;
            r->v.seconds[m] += r->done[m][i] ? u.seconds : 0;
            r->n_done += r->done[m][i];
        }
}

/* --- one pass --- */

/* The reference's states of a stretch, which `look` or its own turn has seen to be kept. */
static int load_reference(struct run *r, size_t stretch, struct hidden_states **out, struct err *e)
{
    char key[65];
    key_of(r, 0, stretch, key);
    int rc = score_store_load_states(out, r->store, key, n_windows(r, stretch, 1) * r->v.run,
                                     r->models[0].net->n_embd, r->opt->memory_bytes / 4, e);
    if (rc == 0 && !*out)
        rc = err_set(e, ERR_FORMAT,
                     "%s: the states of the reference are damaged; remove the file %.32s.states",
                     r->store->folder, key);
    return rc;
}

/* Scores of one stretch from the states of the model at work, and their file. */
static int score_stretch(struct run *r, size_t stretch, const struct hidden_states *states, double seconds,
                         struct err *e)
{
    const struct head_options h = evaluate_head(r->opt, (struct progress){show, r});
    struct score_unit u = unit_of(r, r->model, stretch);
    struct hidden_states *reference = NULL;
    char key[65];
    size_t n_heads = r->model ? 2 : 1;
    const struct evaluate_model *m = &r->models[r->model], *first = &r->models[0];
    struct head_score *scores = malloc(n_heads * u.n * sizeof *scores + 1);
    int rc = scores ? 0 : err_set(e, ERR_NOMEM, "out of memory for %zu scores", u.n);
    double start = clock_seconds();
    if (rc == 0 && r->model)
        rc = load_reference(r, stretch, &reference, e);
    struct head_model heads[2] = {{first->net, first->weights, reference}, {m->net, m->weights, states}};
    if (rc == 0)
        rc = head_score(heads + (r->model ? 0 : 1), n_heads,
                        r->w->targets + first_window(r, stretch) * r->v.run, u.n, &h, scores, e);
    const struct head_score *own = scores + (n_heads - 1) * u.n;
    for (size_t i = 0; rc == 0 && i < u.n; i++) {
        u.nll[i] = own[i].nll;
        u.kld[i] = own[i].kld;
        u.top[i] = own[i].top;
    }
    u.seconds = seconds + clock_seconds() - start;
    key_of(r, r->model, stretch, key);
    if (rc == 0 && !r->model && (r->n_models > 1 || r->opt->take_reference))
        rc = score_store_save_states(states, r->store, key, e);
    if (rc == 0)
        rc = score_store_save(&u, r->store, key, e);
    if (rc == 0) {
        r->v.seconds[r->model] += u.seconds;
        r->done[r->model][stretch] = true;
        r->n_done++;
        r->n_pass--;
    }
    hidden_states_free(reference);
    free(scores);
    return rc;
}

/* Forward and scores of the stretches [at, at + n_pass). */
static int pass(struct run *r, struct err *e)
{
    const struct evaluate_model *m = &r->models[r->model];
    const struct windows *w = r->w;
    const size_t n = r->n_pass, from = first_window(r, r->at), n_all = n_windows(r, r->at, n);
    struct forward_options f = evaluate_forward(r->opt, w, m, (struct progress){show, r});
    f.memory_bytes /= 2;
    struct hidden_states *states = NULL, *part = NULL;
    double start = clock_seconds();
    int rc = forward_run(&states, m->net, m->weights, w->inputs + from * w->ctx, n_all, w->ctx, &f, e);
    double seconds = clock_seconds() - start;
    r->scoring = true;
    for (size_t i = r->at; rc == 0 && i < r->at + n; i++) {
        size_t row = (first_window(r, i) - from) * r->v.run, n_rows = n_windows(r, i, 1) * r->v.run;
        part = NULL;
        if (n > 1)
            rc = hidden_states_rows(&part, states, row, n_rows, e);
        if (rc == 0)
            rc = score_stretch(r, i, part ? part : states,
                               seconds * (double)n_windows(r, i, 1) / (double)n_all, e);
        hidden_states_free(part);
    }
    r->scoring = false;
    hidden_states_free(states);
    return rc;
}

/* All that the model at work lacks. */
static int run_model(struct run *r, struct err *e)
{
    const bool in_waves = wave_is_free(r->models[r->model].weights);
    int rc = 0;
    for (r->at = 0; rc == 0 && r->at < r->n_stretches; r->at++) {
        const bool *done = r->done[r->model] + r->at;
        if (done[0])
            continue;
        r->n_pass = 1;
        while (!in_waves && r->at + r->n_pass < r->n_stretches && !done[r->n_pass])
            r->n_pass++;
        rc = pass(r, e);
    }
    return rc;
}

/* What the reference's listener wants, when all is there. */
static int tell_reference(struct run *r, struct err *e)
{
    const struct head_options h = evaluate_head(r->opt, (struct progress){0});
    int rc = 0;
    for (size_t i = 0; rc == 0 && r->opt->take_reference && i < r->n_stretches; i++) {
        struct score_unit u = unit_of(r, 0, i);
        struct head_model head = {r->models[0].net, r->models[0].weights, NULL};
        struct hidden_states *states = NULL;
        struct head_score *scores = malloc(u.n * sizeof *scores + 1);
        rc = scores ? load_reference(r, i, &states, e) : err_set(e, ERR_NOMEM, "out of memory for scores");
        for (size_t k = 0; rc == 0 && k < u.n; k++)
            scores[k] = (struct head_score){u.nll[k], u.kld[k], u.top[k]};
        head.states = states;
        if (rc == 0)
            rc = r->opt->take_reference(r->opt->take_ctx, &head, scores, u.n, &h, e);
        hidden_states_free(states);
        free(scores);
    }
    return rc;
}

int evaluate_kept(struct evaluation *out, const struct evaluate_model *models, const char *const *identities,
                  size_t n_models, const struct windows *w, struct score_store *store,
                  const struct evaluate_options *opt, size_t *n_found, size_t *n_units, struct err *e)
{
    struct run r = {
        .models = models, .identities = identities, .w = w, .opt = opt, .store = store, .n_models = n_models};
    r.stretch = wave_windows(w, STRETCH_TOKENS);
    r.n_stretches = (w->n + r.stretch - 1) / r.stretch;
    r.v.run = windows_n_scored(w);
    r.v.n_windows = w->n;
    r.v.n = w->n * r.v.run;
    int rc = score_store_open(store, e);
    for (size_t m = 0; rc == 0 && m < n_models; m++)
        rc = net_need_tokens(models[m].net, "scoring windows of text", e);
    if (rc == 0)
        rc = allocate(&r, e);
    if (rc == 0)
        look(&r);
    *n_found = r.n_done;
    *n_units = n_models * r.n_stretches;
    for (r.model = 0; rc == 0 && r.model < n_models; r.model++)
        rc = run_model(&r, e);
    if (rc == 0)
        rc = tell_reference(&r, e);
    for (size_t m = 0; rc == 0 && m < n_models; m++)
        rc = evaluation_check_finite(&r.v, m, models[m].name, e);
    for (size_t m = 0; rc == 0 && m < n_models; m++)
        for (size_t i = 0; i < r.v.n; i++)
            r.v.same_top[m][i] = r.top[m][i] == r.top[0][i];
    if (rc == ERR_CANCELLED)
        err_set(e, rc,
                ERR_STOPPED ": %zu of %zu measurements are kept in %s; the same command goes on from there",
                r.n_done, *n_units, store->folder);
    release_run(&r);
    if (rc != 0)
        evaluation_release(&r.v);
    else
        *out = r.v;
    return rc;
}
