/* eval_command.c - see eval_command.h. */
#include "eval_command.h"

#include "tools/options/adapter_options.h"
#include "eval_kept.h"
#include "eval_profile.h"
#include "eval_reference.h"
#include "tools/outcome.h"

#include "calib/eval/evaluate_stored.h"
#include "formats/model/model_sum.h"
#include "formats/model/model_files.h"
#include "formats/remark.h"
#include "formats/tokenizer/tokenizer.h"
#include "formats/utf8.h"
#include "libquant/base/path.h"
#include "formats/output/output_file.h"
#include "formats/output/text_file.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int eval_parse_cache(const struct opt_command *cmd, struct kv_cache *out, const char *text)
{
    if (text && !kv_cache_parse(out, text))
        return cmd_usage(
            cmd, "--kv-type '%s': expected a type, or two with a comma between, of " KV_CACHE_TYPES, text);
    return 0;
}

/* The weights of n texts, so that their sum is 1, into `out` [n] (may be NULL). -1: there are not as many, or
 * something else than numbers above 0. */
static int parse_weights(const struct text_options *t, size_t n, double *out)
{
    const char *p = t->weights;
    double sum = 0;
    for (size_t i = 0; i < n; i++) {
        char *end = NULL;
        double v = strtod(p, &end);
        if (end == p || !isfinite(v) || !(v > 0) || *end != (i + 1 < n ? ',' : 0))
            return -1;
        if (out)
            out[i] = v;
        sum += v;
        p = end + 1;
    }
    for (size_t i = 0; out && i < n; i++)
        out[i] /= sum;
    return n ? 0 : -1;
}

static struct given_text given_text(const struct text_options *t)
{
    return (struct given_text){.texts = &t->texts,
                               .ids = t->ids,
                               .jsonl = t->jsonl,
                               .parse_special = t->parse_special,
                               .answers = t->answers_only};
}

int eval_check_options(const struct opt_command *cmd, struct text_options *t, bool optional)
{
    const struct given_text given = given_text(t);
    bool none = !given_text_is_there(&given);
    if (none && !optional)
        return cmd_usage(cmd, "give a text with --text (or ids with --ids)");
    int status = given_text_check(cmd, &given);
    if (status != 0)
        return status;
    none &= optional; /* then a stored reference says what the texts are */
    if (t->answers_only && !t->jsonl && !none)
        return cmd_usage(cmd, "--answers-only: chats come from --jsonl FIELD");
    if (t->weights && !none && parse_weights(t, t->texts.n, NULL) != 0)
        return cmd_usage(cmd,
                         "--weights %s: expected a number above 0 for each --text, of which there are %zu",
                         t->weights, t->texts.n);
    if (t->stride >= t->ctx)
        return cmd_usage(cmd, "--stride %llu: expected less than --ctx (%llu)", (unsigned long long)t->stride,
                         (unsigned long long)t->ctx);
    return eval_parse_cache(cmd, &t->cache, t->kv_type);
}

enum activations eval_activations(const struct text_options *t)
{
    return strcmp(t->activations, "q8") == 0 ? ACTIVATIONS_Q8 : ACTIVATIONS_F32;
}

/* A candidate without a model of its own has that of another one. */
static int check_model(const struct candidate *c, const char *path, struct err *e)
{
    size_t n = c->model ? model_n_adapters(c->model) : 0;
    int rc = c->model ? model_files_refuse(model_path(c->model), path, e) : 0;
    for (size_t i = 0; rc == 0 && i < n; i++)
        rc = adapter_check_output(model_adapter_report(c->model, i).path, path, e);
    return rc;
}

int eval_check_inputs(const struct eval_run *r, const char *path, struct err *e)
{
    int rc = 0;
    if (!path)
        return 0;
    for (size_t i = 0; rc == 0 && i < r->n_models; i++)
        rc = check_model(&r->models[i], path, e);
    for (size_t i = 0; i < r->n_models; i++)
        for (size_t k = 0; rc == 0 && k < r->models[i].inputs.n; k++)
            rc = output_file_check_input(path, r->models[i].inputs.items[k], e);
    const struct given_text given = given_text(r->text);
    if (rc == 0)
        rc = given_text_check_output(&given, path, e);
    if (rc == 0 && r->imatrix_path)
        rc = output_file_check_input(path, r->imatrix_path, e);
    if (rc == 0 && r->reference_path)
        rc = output_file_check_input(path, r->reference_path, e);
    return rc;
}

static void warn_of(struct eval_run *r, const struct candidate *c)
{
    for (size_t i = 0; i < model_n_warnings(c->model); i++)
        cmd_warn_of(r->shared, c->path, model_warning(c->model, i));
}

/* What kerf quantize would warn of. Of the importance matrix it is the same for every mix, so it is told
 * once. */
static void warn_of_mix(struct eval_run *r, const struct candidate *c)
{
    for (size_t i = 0; i < c->warnings.n; i++) {
        const char *text = c->warnings.items[i];
        bool of_mix = remark_has_code(text, "type-fallback") || remark_has_code(text, "mix-base-absent") ||
                      c->inputs.n > 0;
        cmd_warn_of(r->shared, of_mix ? c->type : NULL, text);
    }
}

int eval_add_file(struct eval_run *r, const char *path, struct err *e)
{
    int rc = candidate_open_file(&r->models[r->n_models], path, r->session.kern, e);
    if (rc == 0)
        warn_of(r, &r->models[r->n_models++]);
    return rc;
}

static struct candidate_mix_options mix_options(const struct eval_run *r, bool requantize)
{
    return (struct candidate_mix_options){.recipe = r->recipe,
                                          .imatrix = r->imatrix,
                                          .imatrix_path = r->imatrix_path,
                                          .no_fallback = r->no_fallback,
                                          .requantize = requantize,
                                          .kern = r->session.kern,
                                          .pool = r->session.pool};
}

int eval_add_mix(struct eval_run *r, const struct mix *mix, bool requantize, struct err *e)
{
    struct candidate_mix_options opt = mix_options(r, requantize);
    int rc = candidate_open_mix(&r->models[r->n_models], &r->models[0], mix, &opt, e);
    if (rc == 0)
        warn_of_mix(r, &r->models[r->n_models++]);
    return rc;
}

static int add_from_file(struct eval_run *r, const struct candidate_arg *a, bool requantize, struct err *e)
{
    struct candidate_mix_options opt = mix_options(r, requantize);
    struct candidate *c = &r->models[r->n_models], *base = &r->models[0];
    int rc = a->kind == CANDIDATE_PLAN ? candidate_open_plan(c, base, a->text, a->path, &opt, e)
                                       : candidate_open_recipe_file(c, base, a->text, a->path, &opt, e);
    if (rc == 0)
        warn_of_mix(r, &r->models[r->n_models++]);
    return rc;
}

static int add_same(struct eval_run *r, const char *name, struct err *e)
{
    int rc = candidate_open_same(&r->models[r->n_models], &r->models[0], name, r->session.kern, e);
    r->n_models += rc == 0;
    return rc;
}

static int open_candidate(struct eval_run *r, const struct candidate_arg *a, bool requantize, struct err *e)
{
    switch (a->kind) {
    case CANDIDATE_FILE: return eval_add_file(r, a->path, e);
    case CANDIDATE_MIX: return eval_add_mix(r, a->mix, requantize, e);
    case CANDIDATE_SAME: return add_same(r, a->text, e);
    default: return add_from_file(r, a, requantize, e);
    }
}

/* How many tokens of the two vocabularies are not the same text, and the first of them. */
static size_t tokens_that_differ(const struct vocabulary *a, const struct vocabulary *b, size_t *first)
{
    size_t n = 0, n_all = a->n_tokens < b->n_tokens ? a->n_tokens : b->n_tokens;
    for (size_t i = 0; i < n_all; i++) {
        const struct vocab_token *s = &a->tokens[i], *t = &b->tokens[i];
        bool unused = s->type == TOKEN_UNUSED || t->type == TOKEN_UNUSED; /* padding has many names */
        if (unused || (s->len == t->len && memcmp(s->text, t->text, s->len) == 0))
            continue;
        if (n++ == 0)
            *first = i;
    }
    return n;
}

/* How much of a token's text a line of warning has room for: whole characters. */
static int shown(const struct vocab_token *t)
{
    return (int)utf8_prefix(t->text, t->len < 40 ? t->len : 40);
}

/* Both vocabularies are of `ref` and `c`, whose first difference is token `at` of n. */
static void warn_of_tokens(const struct eval_run *r, const struct candidate *ref, const struct candidate *c,
                           const struct vocab_token *theirs, const struct vocab_token *ours, size_t n,
                           size_t at)
{
    cmd_warn(r->shared,
             "[tokens-differ] %s: %zu tokens are other texts than in %s, the first is %zu ('%.*s', there "
             "'%.*s'); the ids of the text are those of %s",
             c->path, n, ref->path, at, shown(theirs), theirs->text, shown(ours), ours->text, ref->path);
}

int eval_check_tokens(struct eval_run *r, struct err *e)
{
    const struct candidate *ref = &r->models[0];
    const struct vocabulary *v = NULL, *w = NULL;
    if (ref->net.answer != NET_TOKENS || model_vocabulary(ref->model, &v, NULL) != 0)
        v = NULL;
    for (size_t i = 1; i < r->n_models; i++) {
        const struct candidate *c = &r->models[i];
        size_t first = 0, n = 0;
        if (!c->model || c->model == ref->model || c->net.answer != NET_TOKENS)
            continue;
        if (c->net.n_vocab != ref->net.n_vocab)
            return err_set(e, ERR_ARG,
                           "%s: its vocabulary is of %u tokens, that of %s of %u; predictions of different "
                           "vocabularies cannot be compared, texts can ('kerf score')",
                           c->path, c->net.n_vocab, ref->path, ref->net.n_vocab);
        if (v && model_vocabulary(c->model, &w, NULL) == 0)
            n = tokens_that_differ(v, w, &first);
        if (n > 0)
            warn_of_tokens(r, ref, c, &w->tokens[first], &v->tokens[first], n, first);
    }
    return 0;
}

int eval_set_cache(struct eval_run *r, struct candidate *c, const struct kv_cache *cache, bool named,
                   struct err *e)
{
    if (kv_cache_is_of_keys_alone(&c->net))
        cmd_warn_idle_values(r->shared, c->path, cache);
    return candidate_set_cache(c, cache, named, e);
}

int eval_add_candidate(struct eval_run *r, const struct candidate_arg *a, bool requantize, struct err *e)
{
    const struct kv_cache *cache = a->has_cache ? &a->cache : &r->text->cache;
    int rc = open_candidate(r, a, requantize, e);
    if (rc != 0 || kv_cache_is_exact(cache))
        return rc;
    return eval_set_cache(r, &r->models[r->n_models - 1], cache, a->has_cache && a->kind != CANDIDATE_SAME,
                          e);
}

int eval_open(struct eval_run *r, const char *reference, size_t n_candidates, struct err *e)
{
    r->start = clock_seconds();
    int rc = session_open(&r->session, r->shared, e);
    if (rc != 0)
        return rc;
    r->cap = n_candidates + 1;
    r->models = calloc(r->cap, sizeof *r->models);
    if (!r->models)
        return err_set(e, ERR_NOMEM, "out of memory for %zu models", r->cap);
    if (r->imatrix_path)
        rc = imatrix_load(&r->imatrix, r->imatrix_path, e);
    if (rc != 0)
        return rc;
    return r->reference_path ? eval_reference_open(r, e) : eval_add_file(r, reference, e);
}

static bool single_texts(const struct eval_run *r)
{
    return r->take_texts && r->models[0].net.answer != NET_TOKENS;
}

/* The prompt of a reranker, NUL-terminated; caller frees. NULL: the model has none. */
static char *pair_template(const struct model *m)
{
    struct gguf_string s = {0};
    return gguf_meta_get_string(model_meta(m), "tokenizer.chat_template.rerank", &s) ? strndup(s.data, s.len)
                                                                                     : NULL;
}

static int read_single_texts(struct eval_run *r, const struct tokenizer *t, const char *chat_template,
                             struct err *e)
{
    const struct text_options *o = r->text;
    char *pair = pair_template(r->models[0].model);
    const struct jsonl_options jsonl = {.field = o->jsonl,
                                        .chat_template = chat_template,
                                        .parse_special = o->parse_special,
                                        .separate = true,
                                        .pair_template = pair,
                                        .ctx = (size_t)o->ctx,
                                        .answers = o->answers_only};
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < o->texts.n; i++)
        rc = o->jsonl ? corpus_add_jsonl(&r->corpus, t, o->texts.items[i], &jsonl, e)
                      : corpus_add_lines(&r->corpus, t, o->texts.items[i], o->parse_special, e);
    if (rc == 0)
        given_text_warn(&r->corpus, r->shared);
    free(pair);
    return rc;
}

/* The separator of solution steps that process reward models score (their model card), -1: none. */
static int32_t step_token(const struct net *net, const struct vocabulary *v)
{
    for (size_t i = 0; v && net->score.hidden.tensor && net->score.n_labels == 2 && i < v->n_tokens; i++)
        if (strcmp(v->tokens[i].text, "<extra_0>") == 0)
            return (int32_t)i;
    return -1;
}

static int cut_texts(struct eval_run *r, const struct vocabulary *v, bool adds_eos, struct err *e)
{
    struct passage_options opt = {.ctx = (size_t)r->text->ctx,
                                  .max = (size_t)r->text->chunks,
                                  .eos = adds_eos ? (int32_t)v->eos : -1,
                                  .step = step_token(&r->models[0].net, v)};
    if (r->text->answers_only || r->text->by_position || r->text->weights)
        return err_set(
            e, ERR_ARG,
            "--answers-only, --by-position, --weights: %s answers once for each text; they are for "
            "language models",
            r->models[0].path);
    int rc =
        r->text->stride
            ? err_set(e, ERR_ARG, "--stride: %s answers once for each text; there are no windows to overlap",
                      r->models[0].path)
            : passages_cut(&r->passages, &r->corpus, &opt, e);
    if (rc == 0 && r->passages.n_cut)
        cmd_warn(r->shared, "[text-cut] %zu of %zu texts are longer than %zu tokens and were cut; see --ctx",
                 r->passages.n_cut, r->passages.n, opt.ctx);
    return rc;
}

/* The texts of the figures: as read, or as a stored reference has them. */
static const struct corpus *texts_of(const struct eval_run *r)
{
    return r->stored ? stored_reference_about(r->stored)->corpus : &r->corpus;
}

/* A mean over the texts needs a figure of each. */
static int check_weighted(const struct eval_run *r, const struct windows *w, struct err *e)
{
    const struct corpus *corpus = texts_of(r);
    bool found = true;
    for (size_t t = 0; r->text->weights && t < corpus->n_texts; t++) {
        found = false;
        for (size_t i = 0; i < w->n * windows_n_scored(w) && !found; i++)
            found = w->text[i / windows_n_scored(w)] == t && (!w->use || (w->use[i] & WINDOW_SCORED));
        if (!found)
            return err_set(
                e, ERR_ARG,
                "%s: nothing of it is scored, and --weights wants a figure of each text; give a longer "
                "text, a smaller --ctx or more --chunks",
                corpus->texts[t].path);
    }
    return 0;
}

/* A text that --chunks leaves nothing of is not what was asked for. */
static void warn_unused_texts(const struct eval_run *r, const struct windows *w)
{
    for (size_t i = 0; w->n && i < r->corpus.n_texts; i++)
        if (!windows_use_text(w, i))
            cmd_warn(r->shared,
                     "[text-unused] %s: no window of it is used: --chunks %" PRIu64
                     " takes the first ones of all texts in their order; raise it, or cut the texts before",
                     r->corpus.texts[i].path, r->text->chunks);
}

/* Texts that models[0] answers once for each, into r->passages. */
static int open_single_texts(struct eval_run *r, struct err *e)
{
    const struct vocabulary *v = NULL;
    struct tokenizer *t = NULL;
    bool adds_eos = false;
    int rc = 0;
    if (r->text->ids) {
        rc = corpus_add_ids(&r->corpus, r->text->ids, e);
        if (rc == 0)
            rc = corpus_check_ids(&r->corpus, r->models[0].net.n_vocab, e);
        if (model_vocabulary(r->models[0].model, &v, NULL) != 0)
            v = NULL; /* it would only have told which ids end a step */
    } else {
        rc = given_text_tokenizer(&t, &v, r->models[0].model, r->shared, e);
        if (rc == 0)
            rc = read_single_texts(r, t, v->chat_template, e);
        adds_eos = rc == 0 && tokenizer_adds_eos(t) && v->eos >= 0;
    }
    tokenizer_free(t);
    return rc == 0 ? cut_texts(r, v, adds_eos, e) : rc;
}

/* The text as models[0] reads it, cut into *out, or into r->passages. */
static int open_text(struct eval_run *r, struct windows *out, struct err *e)
{
    const struct given_text given = given_text(r->text);
    struct window_options opt = {.ctx = (size_t)r->text->ctx,
                                 .max_windows = (size_t)r->text->chunks,
                                 .stride = (size_t)r->text->stride,
                                 .all_positions = r->text->by_position};
    /* What llama.cpp allows, too: the end token belongs to texts of such a model. */
    r->corpus.allow_eos = single_texts(r) || r->models[0].net.pooling == NET_POOLING_LAST;
    if (single_texts(r))
        return open_single_texts(r, e);
    int rc = given_text_read(&r->corpus, &opt.bos, &given, r->models[0].model, r->shared, e);
    if (rc == 0)
        rc = corpus_check_ids(&r->corpus, r->models[0].net.n_vocab, e);
    if (rc == 0)
        rc = windows_cut(out, &r->corpus, &opt, e);
    if (rc == 0 && r->text->chunks && !r->text->ids)
        warn_unused_texts(r, out);
    return rc;
}

/* The windows are in the file; a text that is given has to give the same. */
static int open_stored_text(struct eval_run *r, struct err *e)
{
    struct windows given = {0};
    bool has_text = r->text->texts.n > 0 || r->text->ids;
    int rc = eval_reference_check_tokens(r, e);
    r->text->ctx = r->windows.ctx;
    if (rc == 0 && has_text)
        rc = open_text(r, &given, e);
    if (rc == 0 && has_text)
        rc = eval_reference_check_text(r, &given, e);
    windows_release(&given);
    if (rc == 0 && r->text->weights &&
        parse_weights(r->text, stored_reference_about(r->stored)->corpus->n_texts, NULL) != 0)
        rc = err_set(e, ERR_ARG,
                     "--weights %s: expected a number above 0 for each text of %s, of which there are %zu",
                     r->text->weights, r->reference_path, stored_reference_about(r->stored)->corpus->n_texts);
    return rc;
}

int eval_open_text(struct eval_run *r, struct err *e)
{
    int rc = r->stored ? open_stored_text(r, e) : open_text(r, &r->windows, e);
    if (rc == 0 && (r->stored || !single_texts(r)))
        rc = check_weighted(r, &r->windows, e);
    if (rc == 0 && r->windows.ctx > r->models[0].net.context_length)
        cmd_warn(r->shared,
                 "[ctx-beyond-training] windows of %zu tokens are longer than the %u that the model was "
                 "trained for",
                 r->windows.ctx, r->models[0].net.context_length);
    /* Vocabulary and text are there by now, and a part of the bound. */
    r->shared->memory_bytes = session_memory_left(r->shared->memory_bytes);
    return rc;
}

static const char *candidate_label(const struct candidate *c)
{
    return c->type ? c->type : model_sum_label(c->path);
}

static void describe(struct eval_run *r, struct report_model *m, const struct candidate *c)
{
    (void)r;
    m->path = c->path;
    m->type = c->type;
    m->sha256 = c->sha256[0] ? c->sha256 : NULL;
    m->imatrix = c->imatrix;
    m->kv_type = kv_cache_is_exact(&c->cache) ? NULL : c->cache_name;
    m->shown = c->shown;
    m->n_fallbacks = c->n_fallbacks;
    m->n_bytes = c->n_bytes;
    m->bits_per_weight = c->bits_per_weight;
}

/* Models that are candidates, and the first of them. */
static size_t n_candidates(const struct eval_run *r)
{
    return r->stored ? r->n_models : r->n_models - 1;
}

static struct candidate *candidates(const struct eval_run *r)
{
    return r->models + (r->stored ? 0 : 1);
}

static int plan_report(struct eval_run *r, struct err *e)
{
    return single_texts(r) ? report_plan_texts(&r->report, n_candidates(r), r->models[0].net.answer,
                                               &r->passages, (size_t)r->text->ctx, e)
                           : report_plan(&r->report, n_candidates(r), &r->windows, e);
}

/* A reference that is a model, and its text. */
static void describe_reference(struct eval_run *r, struct report *p)
{
    describe(r, &p->reference, &r->models[0]);
    p->architecture = model_arch_name(r->models[0].net.model);
    p->n_parameters = weights_n_parameters(r->models[0].weights);
    p->corpus = &r->corpus;
    corpus_hash(&r->corpus, p->ids_sha256);
}

/* Figures of single texts and of depths, where they are asked for. */
static int take_parts(struct eval_run *r, struct err *e)
{
    const struct text_options *t = r->text;
    const struct corpus *corpus = texts_of(r);
    double *weights = t->weights ? calloc(corpus->n_texts, sizeof *weights) : NULL;
    if (t->weights && (!weights || parse_weights(t, corpus->n_texts, weights) != 0)) {
        free(weights);
        return err_set(e, ERR_NOMEM, "out of memory for the weights of texts");
    }
    int rc = report_parts_take(&r->parts, &r->evaluation, &r->windows, corpus, weights, e);
    r->report.parts = &r->parts;
    free(weights);
    return rc;
}

static int fill_report(struct eval_run *r, enum report_kind kind, struct err *e)
{
    struct report *p = &r->report;
    int rc = r->shared->dry_run ? plan_report(r, e)
             : single_texts(r)
                 ? report_take_texts(p, &r->text_evaluation, &r->passages, (size_t)r->text->ctx, e)
                 : report_take(p, &r->evaluation, &r->windows, e);
    if (rc == 0 && !r->shared->dry_run && !single_texts(r))
        rc = take_parts(r, e);
    if (rc != 0)
        return rc;
    bool mixes = false;
    for (size_t i = 0; i < p->n_candidates; i++) {
        describe(r, &p->candidates[i], &candidates(r)[i]);
        mixes |= candidates(r)[i].type != NULL;
    }
    eval_profiles_describe(r);
    report_name_candidates(p);
    p->kind = kind;
    p->version = KERF_VERSION;
    p->pooling = r->models[0].net.pooling;
    p->label = r->models[0].net.score.label_name;
    p->stored = r->reference_path;
    p->saved = r->evaluation.partial ? NULL : r->save_reference; /* of a part nothing is saved */
    if (r->stored)
        eval_reference_describe(r, p);
    else
        describe_reference(r, p);
    p->stride = (size_t)r->text->stride;
    p->answers_only = r->text->answers_only;
    p->activations = eval_activations(r->text);
    p->imatrix = mixes ? r->imatrix_path : NULL;
    p->recipe = mixes ? r->recipe : NULL;
    p->n_threads = pool_n_threads(r->session.pool);
    p->isa = r->session.kern->isa;
    return 0;
}

static uint64_t n_tokens(const struct eval_run *r)
{
    uint64_t n = (uint64_t)r->windows.n * r->windows.ctx;
    for (size_t i = 0; i < r->passages.n; i++)
        n += r->passages.items[i].len;
    return n;
}

static int run_list(struct eval_run *r, const struct evaluate_model *list, const struct evaluate_options *opt,
                    struct err *e)
{
    if (r->resume && r->resume->resume)
        return eval_kept(r, list, opt, e);
    if (r->stored)
        return evaluate_stored(&r->evaluation, r->stored, list, r->n_models, r->windows.n, opt, e);
    return single_texts(r) ? evaluate_texts(&r->text_evaluation, list, r->n_models, &r->passages, opt, e)
                           : evaluate(&r->evaluation, list, r->n_models, &r->windows, opt, e);
}

static int run_all(struct eval_run *r, const struct evaluate_model *list, struct err *e)
{
    struct evaluate_options opt = {.pool = r->session.pool,
                                   .memory_bytes = r->shared->memory_bytes,
                                   .activations = eval_activations(r->text),
                                   .progress = progress_on(&r->bar)};
    int rc = eval_reference_begin(r, &opt, e);
    if (rc == 0) {
        progress_begin(&r->bar, r->shared, "evaluating", "tokens", n_tokens(r) * r->n_models);
        rc = run_list(r, list, &opt, e);
        progress_end(&r->bar);
    }
    rc = eval_reference_end(r, rc, e);
    if (rc == 0)
        rc = eval_profiles(r, list, single_texts(r), e);
    return rc;
}

int eval_run_models(struct eval_run *r, enum report_kind kind, struct err *e)
{
    struct evaluate_model *list = calloc(r->n_models, sizeof *list);
    if (!list)
        return err_set(e, ERR_NOMEM, "out of memory for %zu models", r->n_models);
    for (size_t i = 0; i < r->n_models; i++)
        list[i] = (struct evaluate_model){.name = candidate_label(&r->models[i]),
                                          .net = &r->models[i].net,
                                          .weights = r->models[i].weights,
                                          .cache = r->models[i].cache};
    int rc = r->shared->dry_run ? eval_profiles_plan(r, list, single_texts(r), e) : run_all(r, list, e);
    free(list);
    return rc == 0 ? fill_report(r, kind, e) : rc;
}
static int write_html(struct eval_run *r, const char *path, struct err *e)
{
    struct text_file f;
    int rc = text_file_begin(&f, path, e);
    if (rc != 0)
        return rc;
    char *command = outcome_command();
    r->report.command = command;
    rc = command ? report_html(&r->report, f.out) : ERR_NOMEM;
    r->report.command = NULL;
    free(command);
    if (rc != 0)
        err_set(e, rc, "%s: out of memory for the page", path);
    return text_file_end(&f, rc, r->shared->force, e);
}

void eval_title(const struct candidate *c, char out[200])
{
    struct gguf_string s = {0};
    out[0] = 0;
    if (gguf_meta_get_string(model_meta(c->model), "general.name", &s))
        snprintf(out, 200, "%.*s", (int)(s.len < 199 ? s.len : 199), s.data);
}

/* What went wrong behind the measurement does not lose it. */
struct outcome {
    const struct eval_run *r;
    struct err e;
};

static void add_members(void *ctx, struct json_writer *w)
{
    const struct outcome *o = ctx;
    if (o->r->members)
        o->r->members(o->r->members_ctx, w);
    if (o->e.code != ERR_OK)
        cmd_json_error(w, &o->e);
    cmd_json_warnings(w);
}

/* Something that was asked for is missing. */
static bool stopped(const struct eval_run *r)
{
    return r->report.partial || r->report.profiles_partial;
}

int eval_hash_model(struct eval_run *r, struct candidate *c, struct err *e)
{
    const struct progress progress = progress_on(&r->bar);
    if (c->type) /* made on the way: there is no file */
        return 0;
    progress_begin(&r->bar, r->shared, "hashing", "B", 0);
    int rc = candidate_hash(c, r->session.pool, &progress, e);
    progress_end(&r->bar);
    return rc;
}

/* Say in the report which files these figures are of. Not after a request to stop: models may be large. */
static int hash_models(struct eval_run *r, struct err *e)
{
    size_t n_shown = r->report.n_candidates + (r->stored ? 0 : 1);
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < n_shown; i++)
        rc = eval_hash_model(r, &r->models[i], e);
    for (size_t i = 0; rc == 0 && i < r->report.n_candidates; i++)
        describe(r, &r->report.candidates[i], &candidates(r)[i]);
    if (rc == 0 && !r->stored)
        describe(r, &r->report.reference, &r->models[0]);
    return rc;
}

int eval_print(struct eval_run *r, const char *html, struct err *e)
{
    char title[200];
    int rc = 0;
    if (r->stored)
        snprintf(title, sizeof title, "%s", stored_reference_about(r->stored)->title);
    else
        eval_title(&r->models[0], title);
    r->report.title = title;
    r->report.seconds = clock_seconds() - r->start;
    r->report.html = html;
    if ((html || r->shared->json) && !r->shared->dry_run && !stopped(r))
        rc = hash_models(r, e);
    if ((rc == 0 || rc == ERR_CANCELLED) && html && !r->shared->dry_run) { /* hours of figures need no hash */
        int written = write_html(r, html, rc == 0 ? e : NULL);
        rc = rc ? rc : written;
    }
    struct outcome outcome = {r, *e};
    if (rc == 0)
        outcome.e.code = ERR_OK;
    if (rc == 0 && stopped(r))
        err_set(&outcome.e, ERR_CANCELLED, ERR_STOPPED);
    r->report.members = add_members;
    r->report.members_ctx = &outcome;
    cmd_tell_warnings();
    if (r->shared->json)
        report_json(&r->report, stdout);
    else
        report_text(&r->report, stdout);
    r->report.title = NULL;
    r->report.members = NULL;
    return rc;
}

int eval_measure(struct eval_run *r, enum report_kind kind, const char *html, struct err *e)
{
    int rc = eval_check_inputs(r, html, e);
    if (rc == 0)
        rc = eval_check_inputs(r, r->save_reference, e);
    if (rc == 0)
        rc = eval_open_text(r, e);
    if (rc == 0)
        rc = eval_run_models(r, kind, e);
    return rc == 0 ? eval_print(r, html, e) : rc;
}

int eval_status(const struct eval_run *r, int rc, const struct err *e)
{
    return rc ? cmd_fail(e) : stopped(r) ? CMD_FAILED : CMD_DONE;
}

void eval_release(struct eval_run *r)
{
    report_release(&r->report);
    eval_profiles_release(r);
    report_parts_release(&r->parts);
    evaluation_release(&r->evaluation);
    text_evaluation_release(&r->text_evaluation);
    reference_writer_abort(r->writer);
    if (!r->stored)
        windows_release(&r->windows);
    stored_reference_close(r->stored);
    passages_release(&r->passages);
    corpus_release(&r->corpus);
    for (size_t i = r->n_models; i > 0; i--)
        candidate_close(&r->models[i - 1]);
    free(r->models);
    imatrix_free(r->imatrix);
    opt_list_release(&r->text->texts);
    session_close(&r->session);
}
