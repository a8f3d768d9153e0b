/* eval_reference.c - see eval_reference.h. */
#include "eval_reference.h"

#include "formats/model/model_identity.h"
#include "formats/tokenizer/vocabulary.h"

#include <stdlib.h>
#include <string.h>

static int check_settings(const struct eval_run *r, const struct reference_about *a, struct err *e)
{
    const struct text_options *t = r->text;
    const struct windows *w = stored_reference_windows(r->stored);
    if (t->ctx_given && t->ctx != w->ctx)
        return err_set(e, ERR_ARG, "%s: was made of windows of %zu tokens, and --ctx asks for %llu",
                       r->reference_path, w->ctx, (unsigned long long)t->ctx);
    if ((t->answers_only && !a->answers_only) || (t->by_position && !a->by_position))
        return err_set(e, ERR_ARG, "%s: was made without %s, so it does not hold what that needs",
                       r->reference_path,
                       t->answers_only && !a->answers_only ? "--answers-only" : "--by-position");
    if (t->weights && !w->text)
        return err_set(e, ERR_UNSUPPORTED,
                       "%s: was made by a version that did not keep which text a token is from; make it "
                       "again for --weights",
                       r->reference_path);
    if (t->stride != 0 && t->stride != a->stride)
        return err_set(e, ERR_ARG, "%s: was made with a stride of %llu (0: none), and --stride asks for %llu",
                       r->reference_path, (unsigned long long)a->stride, (unsigned long long)t->stride);
    if (strcmp(a->activations, "q8") != 0 && strcmp(a->activations, "f32") != 0)
        return err_set(e, ERR_UNSUPPORTED, "%s: was made with activations '%.20s', expected f32 or q8",
                       r->reference_path, a->activations);
    if (t->activations_given && strcmp(t->activations, a->activations) != 0)
        return err_set(e, ERR_ARG, "%s: was made with activations %s, and --activations asks for %s",
                       r->reference_path, a->activations, t->activations);
    if (t->texts.n == 0 && !t->ids && (t->jsonl || t->parse_special))
        return err_set(e, ERR_ARG, "%s: says what is in a --text, and none is given; the stored one is used",
                       t->jsonl ? "--jsonl" : "--parse-special");
    return 0;
}

/* What counts is what the reference was made for, whether or not it was asked for here. */
static void take_choice(const struct eval_run *r, bool *here, bool there, const char *option)
{
    if (there && !*here)
        cmd_note(r->shared, "%s: was made with %s, which holds here, too", r->reference_path, option);
    *here = there;
}

int eval_reference_open(struct eval_run *r, struct err *e)
{
    int rc = stored_reference_open(&r->stored, r->reference_path, e);
    if (rc == 0)
        rc = check_settings(r, stored_reference_about(r->stored), e);
    if (rc != 0)
        return rc;
    const struct reference_about *a = stored_reference_about(r->stored);
    r->text->activations = strcmp(a->activations, "q8") == 0 ? "q8" : "f32";
    r->text->stride = a->stride;
    take_choice(r, &r->text->answers_only, a->answers_only, "--answers-only");
    take_choice(r, &r->text->by_position, a->by_position, "--by-position");
    r->windows = *stored_reference_windows(r->stored);
    if (r->text->chunks && r->text->chunks < r->windows.n)
        r->windows.n = (size_t)r->text->chunks;
    return 0;
}

int eval_reference_check_tokens(struct eval_run *r, struct err *e)
{
    const struct reference_about *a = stored_reference_about(r->stored);
    for (size_t i = 0; i < r->n_models; i++) {
        const struct vocabulary *v = NULL;
        char hash[65];
        if (model_vocabulary(r->models[i].model, &v, NULL) != 0)
            v = NULL;
        vocabulary_texts_hash(v, hash);
        if (!hash[0] || !a->vocabulary[0])
            cmd_warn(r->shared,
                     "[tokens-unchecked] %s: whether its tokens are those of the reference could not be "
                     "checked, since %s has no vocabulary",
                     r->models[i].path, hash[0] ? "the reference" : "it");
        else if (strcmp(hash, a->vocabulary) != 0)
            return err_set(e, ERR_ARG,
                           "%s: its tokens are not those of the reference stored in %s (%s): the same ids "
                           "would mean other texts",
                           r->models[i].path, r->reference_path, a->model);
    }
    return 0;
}

/* The same tokens may be cut into texts in another way, and figures by text would be of other texts. */
static int check_division(const struct eval_run *r, const struct windows *given, struct err *e)
{
    const struct windows *w = &r->windows;
    for (size_t i = 0; w->text && given->text && i < w->n; i++)
        if (w->text[i] != given->text[i])
            return err_set(e, ERR_ARG,
                           "%s: was made of these tokens in other texts: window %zu is of text %u there, and "
                           "of text %u here; give the files that it was made of, or leave --text out",
                           r->reference_path, i + 1, w->text[i] + 1, given->text[i] + 1);
    return 0;
}

int eval_reference_check_text(const struct eval_run *r, const struct windows *given, struct err *e)
{
    const struct windows *w = &r->windows;
    const struct reference_about *a = stored_reference_about(r->stored);
    size_t n = given->n < w->n ? given->n : w->n;
    bool same = given->ctx == w->ctx && given->first == w->first && given->n >= w->n &&
                memcmp(given->inputs, w->inputs, n * w->ctx * sizeof *w->inputs) == 0 &&
                !given->use == !w->use &&
                (!w->use || memcmp(given->use, w->use, n * windows_n_scored(w)) == 0);
    if (same)
        return check_division(r, given, e);
    return err_set(e, ERR_ARG,
                   "%s: was made of other tokens than this text gives: of %zu windows of %zu tokens of %s "
                   "(SHA-256 %.12s...); leave --text out to compare on those",
                   r->reference_path, w->n, w->ctx, a->corpus->texts[0].path, a->corpus->texts[0].sha256);
}

void eval_reference_describe(const struct eval_run *r, struct report *p)
{
    const struct reference_about *a = stored_reference_about(r->stored);
    p->reference.path = a->model;
    p->reference.n_bytes = a->n_bytes;
    p->reference.bits_per_weight = a->bits_per_weight;
    p->architecture = a->architecture;
    p->n_parameters = a->n_parameters;
    p->corpus = a->corpus;
    memcpy(p->ids_sha256, a->ids_sha256, sizeof p->ids_sha256);
}

/* --- storing one --- */

static int take(void *ctx, const struct head_model *reference, const struct head_score *scores, size_t n,
                const struct head_options *opt, struct err *e)
{
    return reference_writer_add(ctx, reference, scores, n, opt, e);
}

int eval_reference_begin(struct eval_run *r, struct evaluate_options *opt, struct err *e)
{
    const struct candidate *ref = &r->models[0];
    const struct vocabulary *v = NULL;
    char identity[MODEL_IDENTITY_BYTES] = "", vocabulary[65], title[200];
    if (!r->save_reference)
        return 0;
    if (ref->net.answer != NET_TOKENS)
        return err_set(
            e, ERR_UNSUPPORTED,
            "--save-reference: %s answers once for a text; stored references are of language models",
            ref->path);
    int rc = model_identity(identity, ref->model, e);
    if (model_vocabulary(ref->model, &v, NULL) != 0)
        v = NULL;
    vocabulary_texts_hash(v, vocabulary);
    eval_title(ref, title);
    struct reference_about about = {.model = ref->path,
                                    .model_identity = identity,
                                    .architecture = model_arch_name(ref->model),
                                    .title = title,
                                    .version = KERF_VERSION,
                                    .vocabulary = vocabulary,
                                    .activations = r->text->activations,
                                    .n_bytes = ref->n_bytes,
                                    .n_parameters = weights_n_parameters(ref->weights),
                                    .n_vocab = ref->net.n_vocab,
                                    .stride = r->text->stride,
                                    .answers_only = r->text->answers_only,
                                    .by_position = r->text->by_position,
                                    .bits_per_weight = ref->bits_per_weight,
                                    .corpus = &r->corpus};
    corpus_hash(&r->corpus, about.ids_sha256);
    if (rc == 0)
        rc = reference_writer_open(&r->writer, r->save_reference, r->shared->force, &about, &r->windows, e);
    if (rc == 0) {
        opt->take_reference = take;
        opt->take_ctx = r->writer;
    }
    return rc;
}

int eval_reference_end(struct eval_run *r, int rc, struct err *e)
{
    struct reference_writer *w = r->writer;
    r->writer = NULL;
    if (w && rc == 0 && !r->evaluation.partial)
        return reference_writer_commit(w, &r->n_reference_bytes, e);
    reference_writer_abort(w);
    return rc;
}
