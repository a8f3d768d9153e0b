/* report.c - taking the figures of an evaluation, and the report as JSON. */
#include "report.h"

#include "report_parts.h"
#include "report_profile.h"

#include "formats/json.h"
#include "formats/model/model_sum.h"
#include "libquant/base/path.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

const char *report_name(const struct report_model *m)
{
    return m->shown ? m->shown : m->type ? m->type : m->name ? m->name : model_sum_label(m->path);
}

/* One folder more in front of `name`, which ends `path`; `path` itself when there is none. */
static const char *longer_name(const char *path, const char *name)
{
    if (name > path)
        name--; /* the slash */
    while (name > path && name[-1] != '/')
        name--;
    return name;
}

/* Could `name`, the end of candidate i's path, be said of another file as well? */
static bool is_ambiguous(const struct report *r, size_t i, const char *name)
{
    for (size_t k = 0; k < r->n_candidates; k++) {
        const char *other = r->candidates[k].path;
        size_t n = strlen(other), len = strlen(name);
        if (!r->candidates[k].type && strcmp(other, r->candidates[i].path) != 0 &&
            path_ends_with(other, name) && (n == len || other[n - len - 1] == '/'))
            return true;
    }
    return false;
}

void report_name_candidates(struct report *r)
{
    for (size_t i = 0; i < r->n_candidates; i++) {
        struct report_model *c = &r->candidates[i];
        if (c->type)
            continue;
        c->name = model_sum_label(c->path);
        while (c->name > c->path && is_ambiguous(r, i, c->name))
            c->name = longer_name(c->path, c->name);
    }
}

/* The mean of each of `n` windows, NaN where nothing of it counts; NULL when memory is out. */
static double *means_of_windows(const double *values, const struct evaluation *v)
{
    double *means = malloc(v->n_windows * sizeof *means + 1);
    for (size_t i = 0; means && i < v->n_windows; i++) {
        size_t begin = !v->ends ? i * v->run
                       : i      ? v->ends[i - 1]
                                : 0,
               end = v->ends ? v->ends[i] : begin + v->run;
        means[i] = stat_mean(values + begin, end - begin).value;
    }
    return means;
}

/* Errors from windows that have not equally many positions. */
static void errors_of_windows(struct perplexity *p, struct divergence *d, const struct evaluation *v,
                              size_t m)
{
    if (!v->ends)
        return;
    p->window_stderr = p->perplexity * stat_mean_of_groups(v->nll[m], v->ends, v->n_windows).error;
    if (d)
        d->kld_window_stderr = stat_mean_of_groups(v->kld[m], v->ends, v->n_windows).error;
}

static int take_candidate(struct report *r, size_t i, const struct evaluation *v, double n_tokens,
                          double *scratch)
{
    struct report_model *c = &r->candidates[i];
    struct divergence_series s = {v->nll[0], v->nll[i + 1], v->kld[i + 1], v->same_top[i + 1], v->n, v->run};
    divergence_of(&c->d, &s, scratch);
    errors_of_windows(&c->d.ppl, &c->d, v, i + 1);
    c->ppl = c->d.ppl;
    c->kld_windows = means_of_windows(v->kld[i + 1], v);
    c->tokens_per_second = n_tokens / v->seconds[i + 1];
    c->has_step = i > 0;
    if (i > 0)
        c->step = stat_mean_difference(v->kld[i + 1], v->kld[i], v->n);
    return c->kld_windows ? 0 : ERR_NOMEM;
}

static int no_memory(const struct evaluation *v, struct err *e)
{
    return err_set(e, ERR_NOMEM, "out of memory for the report on %zu positions", v->n);
}

static int take(struct report *r, const struct evaluation *v, const struct windows *w, struct err *e)
{
    double *scratch = malloc(v->n * sizeof *scratch + 1);
    r->candidates = calloc(v->n_models, sizeof *r->candidates);
    if (!scratch || !r->candidates) {
        free(scratch);
        return no_memory(v, e);
    }
    r->n_candidates = v->n_models - 1;
    r->ctx = w->ctx;
    r->n_windows = v->n_windows;
    r->n_windows_asked = w->n;
    r->run = v->run;
    r->n_scored = v->n;
    r->partial = v->partial;
    perplexity_of(&r->reference.ppl, v->nll[0], v->n, v->run);
    errors_of_windows(&r->reference.ppl, NULL, v, 0);
    double n_tokens = (double)v->n_windows * (double)w->ctx;
    r->reference.tokens_per_second = n_tokens / v->seconds[0];
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < r->n_candidates; i++)
        rc = take_candidate(r, i, v, n_tokens, scratch);
    free(scratch);
    return rc == 0 ? 0 : no_memory(v, e);
}

int report_take(struct report *r, const struct evaluation *v, const struct windows *w, struct err *e)
{
    struct evaluation scored = {0};
    if (!w->use)
        return take(r, v, w, e);
    int rc = evaluation_select(&scored, v, w->use, WINDOW_SCORED, e);
    if (rc == 0)
        rc = take(r, &scored, w, e);
    evaluation_release(&scored);
    return rc;
}

static void unknown_perplexity(struct perplexity *p, size_t n_scored)
{
    const struct estimate none = {NAN, NAN};
    *p = (struct perplexity){n_scored, none, NAN, NAN, NAN};
}

static void unknown_divergence(struct divergence *d, size_t n_scored)
{
    const struct estimate none = {NAN, NAN};
    *d = (struct divergence){.ppl_ratio = none,
                             .ln_ratio = none,
                             .ppl_difference = none,
                             .correlation = NAN,
                             .kld = none,
                             .kld_window_stderr = NAN,
                             .delta_p = none,
                             .delta_p_rms = none,
                             .top1 = none};
    unknown_perplexity(&d->ppl, n_scored);
    for (size_t i = 0; i < DIVERGENCE_N_PERCENTILES; i++)
        d->kld_at[i] = d->delta_p_at[i] = NAN;
}

static size_t n_scored(const struct windows *w)
{
    size_t n = w->n * windows_n_scored(w), n_used = 0;
    for (size_t i = 0; w->use && i < n; i++)
        n_used += (w->use[i] & WINDOW_SCORED) != 0;
    return w->use ? n_used : n;
}

int report_plan(struct report *r, size_t n_candidates, const struct windows *w, struct err *e)
{
    r->candidates = calloc(n_candidates + 1, sizeof *r->candidates);
    if (!r->candidates)
        return err_set(e, ERR_NOMEM, "out of memory for the report");
    r->planned = true;
    r->n_candidates = n_candidates;
    r->ctx = w->ctx;
    r->n_windows = r->n_windows_asked = w->n;
    r->run = windows_n_scored(w);
    r->n_scored = n_scored(w);
    unknown_perplexity(&r->reference.ppl, r->n_scored);
    r->reference.tokens_per_second = NAN;
    for (size_t i = 0; i < n_candidates; i++) {
        struct report_model *c = &r->candidates[i];
        unknown_divergence(&c->d, r->n_scored);
        c->ppl = c->d.ppl;
        c->tokens_per_second = NAN;
    }
    return 0;
}

/* What is known of single texts without running them. */
static void count_texts(struct report *r, enum net_answer answer, const struct passages *p, size_t ctx)
{
    r->ctx = ctx;
    r->answer = answer;
    r->n_texts = r->n_texts_asked = p->n;
    r->n_texts_cut = p->n_cut;
    r->n_answers = answer == NET_SCORE ? p->n_points : p->n;
    for (size_t i = 0; i < p->n; i++)
        r->n_text_tokens += p->items[i].len;
}

int report_plan_texts(struct report *r, size_t n_candidates, enum net_answer answer, const struct passages *p,
                      size_t ctx, struct err *e)
{
    struct windows none = {.ctx = ctx};
    int rc = report_plan(r, n_candidates, &none, e);
    count_texts(r, answer, p, ctx);
    for (size_t i = 0; rc == 0 && i < n_candidates + 1; i++)
        answer_change_unknown(i ? &r->candidates[i - 1].change : &r->reference.change);
    return rc;
}

int report_take_texts(struct report *r, const struct text_evaluation *v, const struct passages *p, size_t ctx,
                      struct err *e)
{
    r->candidates = calloc(v->n_models, sizeof *r->candidates);
    if (!r->candidates)
        return err_set(e, ERR_NOMEM, "out of memory for the report on %zu texts", v->n_texts);
    r->n_candidates = v->n_models - 1;
    count_texts(r, v->answer, p, ctx);
    r->has_probability = v->has_probability;
    r->n_texts = v->n_texts;
    r->n_text_tokens = v->n_tokens;
    r->n_answers = v->n;
    r->partial = v->partial;
    int rc = 0;
    for (size_t m = 0; rc == 0 && m < v->n_models; m++) {
        struct report_model *c = m ? &r->candidates[m - 1] : &r->reference;
        unknown_divergence(&c->d, 0);
        c->ppl = c->d.ppl;
        c->tokens_per_second = (double)v->n_tokens / v->seconds[m];
        rc = answer_change_of(&c->change, v, m, e);
    }
    return rc;
}

void report_release(struct report *r)
{
    if (!r)
        return;
    for (size_t i = 0; i < r->n_candidates; i++)
        free(r->candidates[i].kld_windows);
    free(r->candidates);
    r->candidates = NULL;
    r->n_candidates = 0;
}

enum report_verdict report_judge(const struct report *r, const struct report_gate *g,
                                 const struct report_model *c)
{
    double found = g->figure(c);
    bool met = g->at_least ? found >= g->limit : found <= g->limit;
    if (r->planned)
        return REPORT_OPEN;
    return !met ? REPORT_MISSED : r->partial ? REPORT_OPEN : REPORT_MET;
}

enum report_verdict report_judge_all(const struct report *r)
{
    enum report_verdict all = REPORT_MET;
    for (size_t i = 0; i < r->n_candidates; i++)
        for (size_t k = 0; k < r->n_gates; k++) {
            enum report_verdict v = report_judge(r, &r->gates[k], &r->candidates[i]);
            all = v == REPORT_MISSED || all == REPORT_MET ? v : all;
        }
    return all;
}

static const char *text_path(const void *corpus, size_t i)
{
    return ((const struct corpus *)corpus)->texts[i].path;
}

/* One path, or all of them with " + " between. */
static void key_texts(struct json_writer *w, const struct report *r)
{
    jw_key(w, "text");
    jw_joined(w, r->corpus->n_texts, text_path, r->corpus, " + ");
}

/* The members of `perplexity --json`, without the braces. */
static void perplexity_members(struct json_writer *w, const struct report *r)
{
    const struct report_model *m = &r->reference;
    jw_key_string(w, "model", m->path);
    key_texts(w, r);
    jw_key_uint(w, "ctx", r->ctx);
    jw_key_double(w, "n_chunks", r->answer == NET_TOKENS ? (double)r->n_windows : NAN);
    jw_key_double(w, "n_tokens_scored", r->answer == NET_TOKENS ? (double)r->n_scored : NAN);
    jw_key_double(w, "perplexity", m->ppl.perplexity);
    jw_key_double(w, "perplexity_stderr", m->ppl.perplexity_stderr);
    jw_key_double(w, "perplexity_stderr_by_window", m->ppl.window_stderr);
    jw_key_double(w, "nll_mean", m->ppl.nll.value);
    jw_key_double(w, "nll_stderr", m->ppl.nll.error);
    jw_key_double(w, "tokens_per_second", m->tokens_per_second);
    jw_key_uint(w, "n_bytes", m->n_bytes);
    jw_key_double(w, "bits_per_weight", m->bits_per_weight);
    jw_key_string(w, "kv_type", m->kv_type);
    jw_key_string(w, "model_sha256", m->sha256);
}

/* What models without a language head lost; null for the others. */
static void change_members(struct json_writer *w, const struct report *r, const struct answer_change *c)
{
    struct answer_change nothing;
    answer_change_unknown(&nothing);
    if (r->answer == NET_TOKENS)
        c = &nothing;
    jw_key_double(w, "cosine_distance_mean", c->distance.value);
    jw_key_double(w, "cosine_distance_stderr", c->distance.error);
    jw_key_double(w, "cosine_distance_median", c->distance_median);
    jw_key_double(w, "cosine_distance_p95", c->distance_p95);
    jw_key_double(w, "cosine_distance_p99", c->distance_p99);
    jw_key_double(w, "cosine_distance_max", c->distance_max);
    jw_key_double(w, "score_mean", c->score_mean);
    jw_key_double(w, "score_delta_mean", c->delta.value);
    jw_key_double(w, "score_delta_stderr", c->delta.error);
    jw_key_double(w, "score_delta_rms", c->delta_rms);
    jw_key_double(w, "score_delta_max", c->delta_max);
    jw_key_double(w, "probability_delta_rms", c->probability_rms);
    jw_key_double(w, "probability_delta_max", c->probability_max);
    jw_key_double(w, "rank_kendall", c->kendall);
    jw_key_double(w, "rank_spearman", c->spearman);
}

static const char *pooling_name(enum net_pooling p)
{
    static const char *const names[] = {NULL, "mean", "first", "last", "last"};
    return names[p];
}

static void answer_members(struct json_writer *w, const struct report *r)
{
    bool texts = r->answer != NET_TOKENS;
    jw_key_string(w, "answer", r->answer == NET_EMBEDDING ? "embedding" : texts ? "score" : "tokens");
    jw_key_string(w, "pooling", texts ? pooling_name(r->pooling) : NULL);
    jw_key_string(w, "score_label", r->answer == NET_SCORE ? r->label : NULL);
    jw_key_double(w, "n_texts", texts ? (double)r->n_texts : NAN);
    jw_key_double(w, "n_texts_cut", texts ? (double)r->n_texts_cut : NAN);
    jw_key_double(w, "n_answers", texts ? (double)r->n_answers : NAN);
}

static void settings_members(struct json_writer *w, const struct report *r)
{
    jw_key(w, "texts");
    jw_array(w);
    for (size_t i = 0; i < r->corpus->n_texts; i++) {
        const struct corpus_text *t = &r->corpus->texts[i];
        jw_object(w);
        jw_key_string(w, "path", t->path);
        jw_key_uint(w, "n_bytes", t->n_bytes);
        jw_key_uint(w, "n_tokens", t->end - t->begin);
        jw_key_string(w, "sha256", t->sha256);
        jw_end(w);
    }
    jw_end(w);
    jw_key_string(w, "ids_sha256", r->ids_sha256);
    jw_key_uint(w, "stride", r->stride);
    jw_key(w, "answers_only");
    jw_bool(w, r->answers_only);
    jw_key_string(w, "activations", r->activations == ACTIVATIONS_Q8 ? "q8" : "f32");
    jw_key_string(w, "imatrix", r->imatrix);
    jw_key_string(w, "recipe", r->recipe);
    if (r->kind == REPORT_LADDER) {
        jw_key_string(w, "method", r->hessian ? "feedback" : "fast");
        jw_key_string(w, "hessian", r->hessian);
    }
    jw_key_string(w, "html", r->html);
    jw_key_string(w, "logits", r->logits);
    jw_key_string(w, "saved_reference", r->saved);
    jw_key_string(w, "stored_reference", r->stored);
    jw_key_string(w, "version", r->version);
    jw_key_double(w, "seconds", r->seconds);
    jw_key(w, "partial");
    jw_bool(w, r->partial);
    jw_key(w, "profiles_partial");
    jw_bool(w, r->profiles_partial);
}

static void key_percentiles(struct json_writer *w, const char *key, const double *at)
{
    jw_key(w, key);
    jw_array(w);
    for (size_t i = 0; i < DIVERGENCE_N_PERCENTILES; i++) {
        jw_array(w);
        jw_double(w, divergence_percentiles[i]);
        jw_double(w, at[i]);
        jw_end(w);
    }
    jw_end(w);
}

/* Mean KLD of each window: two reports on the same text give paired differences. */
static void key_windows(struct json_writer *w, const struct report *r, const struct report_model *c)
{
    jw_key(w, "kld_windows");
    jw_array(w);
    for (size_t i = 0; c->kld_windows && i < r->n_windows; i++)
        jw_double(w, c->kld_windows[i]);
    jw_end(w);
}

static double kld_at(const struct divergence *d, double share)
{
    for (size_t i = 0; i < DIVERGENCE_N_PERCENTILES; i++)
        if (divergence_percentiles[i] == share)
            return d->kld_at[i];
    return NAN;
}

static void key_verdict(struct json_writer *w, const char *key, enum report_verdict v)
{
    jw_key(w, key);
    if (v == REPORT_OPEN)
        jw_null(w);
    else
        jw_bool(w, v == REPORT_MET);
}

/* What was asked, what was found, and whether that will do. */
static void key_gates(struct json_writer *w, const struct report *r, const struct report_model *c)
{
    jw_key(w, "gates");
    jw_array(w);
    for (size_t i = 0; i < r->n_gates; i++) {
        const struct report_gate *g = &r->gates[i];
        jw_object(w);
        jw_key_string(w, "gate", g->name);
        jw_key_double(w, "limit", g->limit);
        jw_key_double(w, "found", g->figure(c));
        key_verdict(w, "met", report_judge(r, g, c));
        jw_end(w);
    }
    jw_end(w);
}

static void candidate(struct json_writer *w, const struct report *r, const struct report_model *c)
{
    const struct divergence *d = &c->d;
    jw_object(w);
    jw_key_string(w, "path", c->path);
    if (c->type || r->kind == REPORT_LADDER)
        jw_key_string(w, "type", c->type);
    jw_key_string(w, "imatrix", c->imatrix);
    jw_key_string(w, "kv_type", c->kv_type);
    jw_key_uint(w, "n_bytes", c->n_bytes);
    jw_key_double(w, "bits_per_weight", c->bits_per_weight);
    jw_key_uint(w, "n_fallbacks", c->n_fallbacks);
    jw_key_double(w, "perplexity", c->ppl.perplexity);
    jw_key_double(w, "perplexity_stderr", c->ppl.perplexity_stderr);
    jw_key_double(w, "ppl_ratio", d->ppl_ratio.value);
    jw_key_double(w, "ppl_ratio_stderr", d->ppl_ratio.error);
    jw_key_double(w, "quality_kept_percent", divergence_kept(d));
    jw_key_double(w, "ln_ppl_ratio", d->ln_ratio.value);
    jw_key_double(w, "ln_ppl_ratio_stderr", d->ln_ratio.error);
    jw_key_double(w, "ppl_correlation", d->correlation);
    jw_key_double(w, "kld_mean", d->kld.value);
    jw_key_double(w, "kld_stderr", d->kld.error);
    jw_key_double(w, "kld_stderr_by_window", d->kld_window_stderr);
    key_windows(w, r, c);
    jw_key_double(w, "kld_median", kld_at(d, 0.50));
    jw_key_double(w, "kld_p90", kld_at(d, 0.90));
    jw_key_double(w, "kld_p95", kld_at(d, 0.95));
    jw_key_double(w, "kld_p99", kld_at(d, 0.99));
    jw_key_double(w, "kld_p999", kld_at(d, 0.999));
    jw_key_double(w, "kld_max", kld_at(d, 1));
    key_percentiles(w, "kld_percentiles", d->kld_at);
    jw_key_double(w, "top1_agreement", d->top1.value);
    jw_key_double(w, "top1_agreement_stderr", d->top1.error);
    jw_key_double(w, "delta_p_mean", d->delta_p.value);
    jw_key_double(w, "delta_p_stderr", d->delta_p.error);
    jw_key_double(w, "delta_p_rms", d->delta_p_rms.value);
    jw_key_double(w, "delta_p_rms_stderr", d->delta_p_rms.error);
    key_percentiles(w, "delta_p_percentiles", d->delta_p_at);
    jw_key_double(w, "kld_step", c->has_step ? c->step.value : NAN);
    jw_key_double(w, "kld_step_stderr", c->has_step ? c->step.error : NAN);
    change_members(w, r, &c->change);
    jw_key_double(w, "tokens_per_second", c->tokens_per_second);
    jw_key_string(w, "model_sha256", c->sha256);
    if (r->kind == REPORT_COMPARE) {
        report_profile_json(c, w);
        key_gates(w, r, c);
    }
    jw_end(w);
}

void report_json(const struct report *r, FILE *out)
{
    struct json_writer w;
    jw_begin(&w, out);
    jw_object(&w);
    if (r->kind == REPORT_PERPLEXITY) {
        perplexity_members(&w, r);
    } else {
        jw_key(&w, "reference");
        jw_object(&w);
        perplexity_members(&w, r);
        jw_key_double(&w, "score_mean", r->answer == NET_TOKENS ? NAN : r->reference.change.score_mean);
        jw_end(&w);
        jw_key(&w, "candidates");
        jw_array(&w);
        for (size_t i = 0; i < r->n_candidates; i++)
            candidate(&w, r, &r->candidates[i]);
        jw_end(&w);
    }
    if (r->kind == REPORT_COMPARE)
        key_verdict(&w, "gates_met", r->n_gates ? report_judge_all(r) : REPORT_OPEN);
    if (r->kind != REPORT_PERPLEXITY)
        answer_members(&w, r);
    report_parts_json(r, &w);
    settings_members(&w, r);
    if (r->members)
        r->members(r->members_ctx, &w);
    jw_end(&w);
}
