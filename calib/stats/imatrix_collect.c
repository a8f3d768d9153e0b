/* imatrix_collect.c - see imatrix_collect.h.
 *
 * Windows go in waves. A wave passes through all layers once; after it the state is saved, so that a killed
 * run loses one wave at most. Weights that stay in the page cache cost a second wave nothing (a matrix is
 * decoded anew for every few thousand tokens anyway); larger ones would be read from the disk again, so they
 * get one wave. */
#include "imatrix_collect.h"

#include "calib/eval/perplexity.h"
#include "calib/model/forward.h"
#include "calib/model/head.h"
#include "calib/waves.h"
#include "imatrix_sums.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>

#define WAVE_TOKENS 32768

struct run {
    const struct net *net;
    struct weights *weights;
    const struct windows *w;
    const struct imatrix_collect_options *opt;
    struct imatrix_sums sums;
    struct imatrix_state state;
    struct head_score *scores;
    double perplexity; /* of the waves that are done; NaN before */
    size_t n;          /* windows of the wave */
    bool scoring;
};

static void update_perplexity(struct run *r)
{
    double sum = 0;
    for (size_t i = 0; i < r->state.n_nll; i++)
        sum += r->state.nll[i];
    r->perplexity = r->state.n_nll ? exp(sum / (double)r->state.n_nll) : NAN;
}

#define HEAD_SHARE 0.2 /* of a wave's work, for the progress line only */

static int show(void *ctx, const struct progress_step *s)
{
    struct run *r = ctx;
    double part = progress_share(s), share = r->opt->perplexity ? HEAD_SHARE : 0;
    part = r->scoring ? 1 - share + share * part : (1 - share) * part;
    struct progress_step of_run = {.done = (double)r->state.n_windows + part * (double)r->n,
                                   .total = (double)r->w->n,
                                   .counted = "windows",
                                   .n_done = (size_t)r->state.n_windows,
                                   .n = r->w->n,
                                   .perplexity = r->perplexity};
    return progress_stops(&r->opt->progress, &of_run);
}

static int score(struct run *r, const struct hidden_states *states, struct err *e)
{
    size_t run = windows_n_scored(r->w), n = r->n * run;
    struct head_options h = {.pool = r->opt->pool,
                             .memory_bytes = r->opt->memory_bytes,
                             .activations = r->opt->activations,
                             .progress = {show, r},
                             .compute = r->opt->compute};
    struct head_model m = {r->net, r->weights, states};
    r->scoring = true;
    int rc = head_score(&m, 1, r->w->targets + r->state.n_windows * run, n, &h, r->scores, e);
    r->scoring = false;
    for (size_t i = 0; rc == 0 && i < n; i++) {
        if (!isfinite(
                r->scores[i].nll)) /* no input of a product need have shown it: the last norm has none */
            return err_set(e, ERR_FORMAT,
                           "%s: the prediction at scored position %zu"
                           " is not a number; does the model hold damaged weights? (kerf verify)",
                           model_path(r->net->model), r->state.n_nll);
        r->state.nll[r->state.n_nll++] = r->scores[i].nll;
    }
    return rc;
}

static int run_wave(struct run *r, struct err *e)
{
    const struct windows *w = r->w;
    bool with_head = r->opt->perplexity;
    struct hidden_states *states = NULL;
    struct forward_options f = {.pool = r->opt->pool,
                                .memory_bytes = r->opt->memory_bytes,
                                .memory_share = 1,
                                .activations = r->opt->activations,
                                .compute = r->opt->compute,
                                .keep_first = with_head ? w->first : 0,
                                .keep_end = with_head ? w->end : 0,
                                .observe = imatrix_sums_observe,
                                .observe_attention =
                                    r->opt->attention ? imatrix_sums_observe_attention : NULL,
                                .observe_ctx = &r->sums,
                                .all_experts = r->opt->all_experts,
                                .progress = {show, r}};
    int rc = forward_run(with_head ? &states : NULL, r->net, r->weights,
                         w->inputs + r->state.n_windows * w->ctx, r->n, w->ctx, &f, e);
    if (rc == 0 && with_head)
        rc = score(r, states, e);
    hidden_states_free(states);
    if (rc != 0)
        return rc;
    r->state.n_windows += r->n;
    update_perplexity(r);
    rc = imatrix_sums_check(&r->sums, e);
    if (rc == 0 && r->opt->state_path)
        rc = imatrix_state_save(r->opt->state_path, &r->sums, &r->state, e);
    return rc;
}

static size_t wave_size(const struct imatrix_collect_options *opt, const struct weights *weights,
                        const struct windows *w)
{
    if (opt->save_windows >= w->n || (opt->save_windows == 0 && !wave_is_free(weights)))
        return w->n;
    size_t n = wave_windows(w, opt->save_windows ? opt->save_windows * w->ctx : WAVE_TOKENS);
    return n < w->n ? n : w->n;
}

static int take_over(struct run *r, size_t max_nll, size_t *n_resumed, struct err *e)
{
    bool found;
    if (!r->opt->resume || !r->opt->state_path)
        return 0;
    int rc = imatrix_state_load(r->opt->state_path, &r->sums, &r->state, max_nll, &found, e);
    if (rc != 0 || !found)
        return rc;
    size_t n_nll = r->opt->perplexity ? r->state.n_windows * windows_n_scored(r->w) : 0;
    if (r->state.n_windows > r->w->n || r->state.n_nll != n_nll)
        return err_set(e, ERR_FORMAT, "%s: the state of an earlier run is damaged; remove it to start again",
                       r->opt->state_path);
    *n_resumed = (size_t)r->state.n_windows;
    return 0;
}

static int say_what_is_kept(const struct run *r, struct err *e)
{
    if (r->opt->state_path && r->state.n_windows)
        return err_set(e, ERR_CANCELLED,
                       ERR_STOPPED ": %" PRIu64
                                   " of %zu windows are done and kept in %s; --resume continues from there",
                       r->state.n_windows, r->w->n, r->opt->state_path);
    return err_set(
        e, ERR_CANCELLED,
        ERR_STOPPED
        " before the sums were first saved, so nothing is kept; --save-every N saves them more often");
}

static int finish(struct imatrix_collected *out, const struct run *r, struct err *e)
{
    int rc = imatrix_sums_finish(&out->imatrix, &r->sums, e);
    if (rc != 0)
        return rc;
    double most = 0; /* the peer's chunk count: the largest count in chunks */
    for (size_t i = 0; i < r->sums.n; i++)
        for (uint64_t k = 0; k < r->sums.entries[i].n_mats; k++)
            most = fmax(most, r->sums.entries[i].counts[k]);
    imatrix_set_chunks(out->imatrix, (uint32_t)r->w->ctx, (uint32_t)(most / (double)r->w->ctx));
    out->n_windows = r->w->n;
    out->n_tokens = r->w->n * r->w->ctx;
    out->n_scored = r->state.n_nll;
    out->perplexity = out->perplexity_stderr = NAN;
    if (r->state.n_nll) {
        struct perplexity p;
        perplexity_of(&p, r->state.nll, r->state.n_nll, windows_n_scored(r->w));
        out->perplexity = p.perplexity;
        out->perplexity_stderr = p.perplexity_stderr;
    }
    return 0;
}

/* Log-likelihoods of a whole run. */
static size_t n_scores(const struct net *net, const struct windows *w,
                       const struct imatrix_collect_options *opt)
{
    return opt->perplexity && net->answer == NET_TOKENS ? w->n * windows_n_scored(w) : 0;
}

int imatrix_collect_look(size_t *n_windows, const struct net *net, const struct windows *w,
                         const struct imatrix_collect_options *opt, struct err *e)
{
    struct imatrix_collect_options own = *opt;
    size_t max_nll = n_scores(net, w, opt), n_done = 0;
    own.perplexity = max_nll > 0;
    own.resume = true;
    struct run r = {.net = net, .w = w, .opt = &own};
    r.state.identity = opt->identity ? opt->identity : "";
    r.state.nll = malloc(max_nll * sizeof *r.state.nll + 1);
    int rc = r.state.nll ? take_over(&r, max_nll, &n_done, e)
                         : err_set(e, ERR_NOMEM, "out of memory for %zu positions", max_nll);
    imatrix_sums_release(&r.sums);
    free(r.state.nll);
    if (rc == 0)
        *n_windows = n_done;
    return rc;
}

int imatrix_collect(struct imatrix_collected *out, const struct net *net, struct weights *weights,
                    const struct windows *w, const struct imatrix_collect_options *opt, struct err *e)
{
    struct run r = {.net = net, .weights = weights, .w = w, .opt = opt};
    struct imatrix_collect_options own = *opt;
    own.perplexity &= net->answer == NET_TOKENS;
    opt = r.opt = &own;
    r.sums.pool = opt->pool;
    r.sums.head = net->head.tensor;
    r.sums.process_output = opt->process_output;
    r.sums.by_router = opt->by_router;
    r.state.identity = opt->identity ? opt->identity : "";
    size_t wave = wave_size(opt, weights, w), run = windows_n_scored(w), max_nll = n_scores(net, w, opt);
    struct imatrix_collected c = {0};
    r.state.nll = malloc(max_nll * sizeof *r.state.nll + 1);
    r.scores = malloc((opt->perplexity ? wave * run : 0) * sizeof *r.scores + 1);
    int rc = r.state.nll && r.scores ? 0 : err_set(e, ERR_NOMEM, "out of memory for %zu positions", max_nll);
    if (rc == 0)
        rc = take_over(&r, max_nll, &c.n_resumed, e);
    update_perplexity(&r);
    while (rc == 0 && r.state.n_windows < w->n) {
        size_t left = w->n - (size_t)r.state.n_windows;
        r.n = left < wave ? left : wave;
        rc = run_wave(&r, e);
    }
    if (rc == ERR_CANCELLED)
        say_what_is_kept(&r, e);
    if (rc == 0)
        rc = finish(&c, &r, e);
    imatrix_sums_release(&r.sums);
    free(r.state.nll);
    free(r.scores);
    if (rc == 0)
        *out = c;
    return rc;
}

void imatrix_collected_release(struct imatrix_collected *c)
{
    imatrix_free(c->imatrix);
    *c = (struct imatrix_collected){0};
}
