/* evaluate_stored.c - see evaluate_stored.h. One candidate after the other; rows of its logits exist for a
 * moment each, in blocks that fit the memory bound. */
#include "evaluate_stored.h"

#include "row_sketch.h"

#include "calib/model/forward.h"
#include "calib/waves.h"
#include "libquant/base/clock.h"

#include <math.h>
#include <stdlib.h>

#define WAVE_TOKENS  16384
#define ROWS_PER_JOB 8
#define HEAD_SHARE   0.25 /* of the work of a wave, for the progress bar only */

struct run {
    const struct stored_reference *ref;
    const struct evaluate_model *models;
    const struct evaluate_options *opt;
    struct evaluation v;
    size_t n_asked, model; /* candidates; the one at work */
    size_t n_windows, first, n;
    bool scoring;
    const float *logits; /* [block, n_vocab] of positions from `position` on */
    size_t position, block, n_vocab;
};

static int show(void *ctx, const struct progress_step *s)
{
    const struct run *r = ctx;
    double part = progress_share(s);
    double in_wave = r->scoring ? 1 - HEAD_SHARE + part * HEAD_SHARE : part * (1 - HEAD_SHARE);
    double in_model = ((double)r->first + in_wave * (double)r->n) / (double)r->n_windows;
    struct progress_step of_run = {.done = (double)r->model + in_model,
                                   .total = (double)r->n_asked,
                                   .what = r->models[r->model].name,
                                   .counted = "windows",
                                   .n_done = r->first,
                                   .n = r->n_windows,
                                   .perplexity = NAN};
    return progress_stops(&r->opt->progress, &of_run);
}

static int row_job(void *ctx, size_t job, unsigned worker, struct err *e)
{
    (void)worker, (void)e;
    struct run *r = ctx;
    struct evaluation *v = &r->v;
    const struct windows *w = stored_reference_windows(r->ref);
    for (size_t i = job * ROWS_PER_JOB; i < (job + 1) * ROWS_PER_JOB && i < r->block; i++) {
        const float *row = r->logits + i * r->n_vocab;
        size_t at = r->position + i, m = r->model + 1, n_bytes = 0;
        const uint8_t *sketch = stored_reference_sketch(r->ref, at, &n_bytes);
        struct row_sum sum;
        row_sum(&sum, row, r->n_vocab);
        v->nll[m][at] = sum.lse - (double)row[w->targets[at]];
        v->kld[m][at] = /* an empty sketch: the position counts for nothing */
            n_bytes ? row_sketch_divergence(sketch, n_bytes, row, r->n_vocab, sum.lse) : 0;
        v->same_top[m][at] = sum.top == stored_reference_top(r->ref, at);
    }
    return 0;
}

static int score(struct run *r, const struct hidden_states *states, struct err *e)
{
    const struct evaluate_model *m = &r->models[r->model];
    const struct head_options h = evaluate_head(r->opt, (struct progress){0});
    struct head_model head = {m->net, m->weights, states};
    size_t n = r->n * r->v.run, most = logit_rows_at_once(r->n_vocab, n, r->opt->memory_bytes);
    float *logits = malloc(most * r->n_vocab * sizeof *logits);
    int rc = logits ? 0 : err_set(e, ERR_NOMEM, "out of memory for %zu rows of logits", most);
    r->logits = logits;
    r->scoring = true;
    for (size_t i = 0; rc == 0 && i < n; i += r->block) {
        r->block = n - i < most ? n - i : most;
        r->position = r->first * r->v.run + i;
        rc = head_logits(&head, i, r->block, &h, logits, e);
        if (rc == 0)
            rc = pool_run(r->opt->pool, (r->block + ROWS_PER_JOB - 1) / ROWS_PER_JOB, row_job, r, e);
        struct progress_step done = {.done = (double)(i + r->block), .total = (double)n};
        if (rc == 0 && show(r, &done) != 0)
            rc = err_set(e, ERR_CANCELLED, ERR_STOPPED);
    }
    r->scoring = false;
    free(logits);
    return rc;
}

/* All windows of one candidate. */
static int run_candidate(struct run *r, struct err *e)
{
    const struct windows *w = stored_reference_windows(r->ref);
    const struct evaluate_model *m = &r->models[r->model];
    const struct forward_options f = evaluate_forward(r->opt, w, m, (struct progress){show, r});
    size_t wave = wave_is_free(m->weights) ? wave_windows(w, WAVE_TOKENS) : r->n_windows;
    double start = clock_seconds();
    int rc = 0;
    for (r->first = 0; rc == 0 && r->first < r->n_windows; r->first += rc == 0 ? r->n : 0) {
        struct hidden_states *states = NULL;
        r->n = r->n_windows - r->first < wave ? r->n_windows - r->first : wave;
        rc = forward_run(&states, m->net, m->weights, w->inputs + r->first * w->ctx, r->n, w->ctx, &f, e);
        if (rc == 0)
            rc = score(r, states, e);
        hidden_states_free(states);
    }
    r->v.seconds[r->model + 1] = clock_seconds() - start;
    return rc == 0 ? evaluation_check_finite(&r->v, r->model + 1, m->name, e) : rc;
}

static int check_candidates(const struct run *r, struct err *e)
{
    int rc = 0;
    for (size_t m = 0; rc == 0 && m < r->n_asked; m++) {
        rc = net_need_tokens(r->models[m].net, "scoring windows of text", e);
        if (rc == 0 && r->models[m].net->n_vocab != r->n_vocab)
            rc =
                err_set(e, ERR_ARG,
                        "%s has a vocabulary of %u, the stored reference one of %zu: they cannot be compared",
                        model_path(r->models[m].net->model), r->models[m].net->n_vocab, r->n_vocab);
    }
    return rc;
}

static int allocate(struct run *r, struct err *e)
{
    struct evaluation *v = &r->v;
    size_t n_models = r->n_asked + 1;
    v->nll = calloc(n_models, sizeof *v->nll);
    v->kld = calloc(n_models, sizeof *v->kld);
    v->same_top = calloc(n_models, sizeof *v->same_top);
    v->seconds = calloc(n_models, sizeof *v->seconds);
    bool ok = v->nll && v->kld && v->same_top && v->seconds;
    v->n_models = ok ? n_models : 0;
    for (size_t m = 0; ok && m < n_models; m++) {
        v->nll[m] = malloc(v->n * sizeof **v->nll + 1);
        v->kld[m] = calloc(v->n + 1, sizeof **v->kld);
        v->same_top[m] = malloc(v->n * sizeof **v->same_top + 1);
        ok = v->nll[m] && v->kld[m] && v->same_top[m];
    }
    for (size_t i = 0; ok && i < v->n; i++) {
        v->nll[0][i] = stored_reference_nll(r->ref, i);
        v->same_top[0][i] = true;
    }
    return ok ? 0 : err_set(e, ERR_NOMEM, "out of memory for the scores of %zu positions", v->n);
}

int evaluate_stored(struct evaluation *out, const struct stored_reference *ref,
                    const struct evaluate_model *candidates, size_t n_candidates, size_t n_windows,
                    const struct evaluate_options *opt, struct err *e)
{
    const struct windows *w = stored_reference_windows(ref);
    struct run r = {.ref = ref, .models = candidates, .opt = opt, .n_asked = n_candidates};
    r.n_windows = n_windows && n_windows < w->n ? n_windows : w->n;
    r.n_vocab = (size_t)stored_reference_about(ref)->n_vocab;
    r.v.run = windows_n_scored(w);
    r.v.n_windows = r.n_windows;
    r.v.n = r.n_windows * r.v.run;
    int rc = check_candidates(&r, e);
    if (rc == 0)
        rc = allocate(&r, e);
    for (r.model = 0; rc == 0 && r.model < n_candidates; r.model += rc == 0)
        rc = run_candidate(&r, e);
    if (rc == ERR_CANCELLED && r.model > 0) {
        r.v.partial = true;
        rc = 0;
    }
    if (rc != 0) {
        evaluation_release(&r.v);
        return rc;
    }
    evaluation_keep_models(&r.v, r.model + 1);
    r.v.seconds[0] = NAN; /* it was not run */
    *out = r.v;
    return 0;
}
