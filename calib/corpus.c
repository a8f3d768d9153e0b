/* corpus.c - see corpus.h. */
#include "corpus.h"

#include "formats/json.h"
#include "formats/text.h"
#include "formats/tokenizer/codepoint.h"
#include "formats/tokenizer/tokenizer.h"
#include "libquant/base/checked.h"
#include "libquant/base/sha256.h"

#include <stdlib.h>
#include <string.h>

int corpus_add_tokens(struct corpus *c, const char *path, const int32_t *ids, size_t n, const char *sha256,
                      uint64_t n_bytes, struct err *e)
{
    int32_t *grown =
        n < (SIZE_MAX / sizeof *ids) - c->n_ids ? realloc(c->ids, (c->n_ids + n + 1) * sizeof *ids) : NULL;
    if (grown)
        c->ids = grown;
    struct corpus_text *texts = realloc(c->texts, (c->n_texts + 1) * sizeof *texts);
    if (texts)
        c->texts = texts;
    char *name = strdup(path);
    if (!grown || !texts || !name) {
        free(name);
        return err_set(e, ERR_NOMEM, "%s: out of memory for %zu tokens", path, n);
    }
    if (n)
        memcpy(c->ids + c->n_ids, ids, n * sizeof *ids);
    struct corpus_text *t = &c->texts[c->n_texts++];
    *t = (struct corpus_text){.path = name, .begin = c->n_ids, .end = c->n_ids + n, .n_bytes = n_bytes};
    if (sha256) {
        memcpy(t->sha256, sha256, sizeof t->sha256);
    } else {
        t->n_bytes = n * sizeof *ids;
        sha256_hex_of(ids, n * sizeof *ids, t->sha256);
    }
    c->n_ids += n;
    return 0;
}

int corpus_check_tokenizer(const struct corpus *c, const struct tokenizer *t, const char *path, struct err *e)
{
    if (c->allow_eos || !tokenizer_adds_eos(t))
        return 0;
    return err_set(e, ERR_UNSUPPORTED,
                   "%s: the model's vocabulary appends an end-of-text token to every text, so windows of "
                   "running text mean nothing to it; give token ids with --ids",
                   path);
}

void corpus_note_bytes(struct corpus *c, const char *text, size_t len)
{
    struct corpus_text *t = &c->texts[c->n_texts - 1];
    size_t first = 0;
    t->n_replaced = utf8_n_ill_formed(text, len, &first);
    t->first_replaced = first;
    text_sniff(t->doubt, text, len);
}

/* How often the text of a control token stands in a text that is read without them: as many as reading it
 * with them would give. */
static int count_control(struct corpus_form *f, const struct tokenizer *t, const char *text, size_t len,
                         struct err *e)
{
    const size_t most = 1u << 20, left = f->n_looked < most ? (size_t)(most - f->n_looked) : 0,
                 looked_at = len < left ? len : left;
    struct tokenize_options opt = {.parse_special = true};
    int32_t *ids = NULL;
    size_t n = 0;
    f->n_looked += looked_at;
    if (!memchr(text, '<', looked_at) && !memchr(text, '[', looked_at))
        return 0; /* no control token of any vocabulary begins otherwise */
    int rc = tokenizer_encode(t, text, looked_at, &opt, &ids, &n, e);
    for (size_t i = 0; rc == 0 && i < n; i++)
        f->n_control += tokenizer_is_control(t, ids[i]);
    free(ids);
    return rc;
}

int corpus_look_at_form(struct corpus_form *f, const struct tokenizer *t, const char *text, size_t len,
                        bool parse_special, struct err *e)
{
    f->has_bom |= len >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0;
    for (const char *at = memchr(text, '\r', len); at;
         at = memchr(at + 1, '\r', len - (size_t)(at + 1 - text)))
        f->n_crlf += (size_t)(at + 1 - text) < len && at[1] == '\n';
    return parse_special ? 0 : count_control(f, t, text, len, e);
}

int corpus_add_text(struct corpus *c, const struct tokenizer *t, const char *path, bool parse_special,
                    struct err *e)
{
    char *text = NULL, sha256[65];
    int32_t *ids = NULL;
    size_t len = 0, n = 0;
    int rc = corpus_check_tokenizer(c, t, path, e);
    if (rc != 0)
        return rc;
    rc = text_read(&text, &len, path, 0, e);
    if (rc != 0)
        return rc;
    rc = text_refuse(path, text, len, e);
    if (rc != 0) {
        free(text);
        return rc;
    }
    sha256_hex_of(text, len, sha256);
    struct tokenize_options opt = {.add_special = true, .parse_special = parse_special};
    rc = tokenizer_encode(t, text, len, &opt, &ids, &n, e);
    if (rc == 0)
        rc = corpus_add_tokens(c, path, ids, n, sha256, len, e);
    else
        err_context(e, rc, "%s", path);
    if (rc == 0)
        corpus_note_bytes(c, text, len);
    if (rc == 0)
        rc = corpus_look_at_form(&c->texts[c->n_texts - 1].form, t, text, len, parse_special, e);
    free(ids);
    free(text);
    return rc;
}

int corpus_end_record(struct corpus *c, size_t at, struct err *e)
{
    if (c->n_records == c->records_cap) {
        size_t cap = c->records_cap ? 2 * c->records_cap : 256;
        size_t *grown = cap < SIZE_MAX / sizeof *grown ? realloc(c->record_ends, cap * sizeof *grown) : NULL;
        if (grown)
            c->record_ends = grown;
        bool *cut = grown ? realloc(c->record_cut, cap * sizeof *cut) : NULL;
        if (!cut)
            return err_set(e, ERR_NOMEM, "out of memory for %zu texts", cap);
        c->record_cut = cut;
        c->records_cap = cap;
    }
    c->record_cut[c->n_records] = false;
    c->record_ends[c->n_records++] = at;
    return 0;
}

static int no_id(const char *path, size_t i, struct err *e)
{
    return err_set(e, ERR_FORMAT, "%s: element %zu is not a token id (a whole number from 0)", path, i);
}

static int ids_of_json(int32_t *ids, size_t *n, const char *path, const char *text, size_t len, struct err *e)
{
    struct json_doc *doc = NULL;
    int rc = json_parse(&doc, text, len, path, e);
    if (rc != 0)
        return rc;
    const struct json *list = json_root(doc);
    if (json_is_object(list))
        list = json_get(list, "ids");
    if (!json_is_array(list))
        rc = err_set(e, ERR_FORMAT,
                     "%s: expected token ids: a JSON array, or what 'kerf tokenize' prints, with or without "
                     "--json",
                     path);
    for (const struct json *j = rc == 0 ? json_first(list) : NULL; rc == 0 && j; j = json_next(j)) {
        int64_t v;
        if (!json_int(j, &v) || v < 0 || v > INT32_MAX)
            rc = no_id(path, *n, e);
        else
            ids[(*n)++] = (int32_t)v;
    }
    json_free(doc);
    return rc;
}

static int ids_of_numbers(int32_t *ids, size_t *n, const char *path, const char *text, struct err *e)
{
    static const char blanks[] = " \t\r\n";
    for (text += strspn(text, blanks); *text; text += strspn(text, blanks)) {
        size_t n_digits = strspn(text, "0123456789");
        long long v = n_digits > 0 && n_digits < 11 ? strtoll(text, NULL, 10) : -1;
        text += n_digits;
        if (v < 0 || v > INT32_MAX || (*text && !strchr(blanks, *text)))
            return no_id(path, *n, e);
        ids[(*n)++] = (int32_t)v;
    }
    return 0;
}

int corpus_add_ids(struct corpus *c, const char *path, struct err *e)
{
    char *text = NULL;
    size_t len = 0, n = 0;
    int rc = text_read(&text, &len, path, 0, e);
    if (rc != 0)
        return rc;
    int32_t *ids = malloc((len / 2 + 2) * sizeof *ids); /* each has a digit, and something behind it */
    if (!ids)
        rc = err_set(e, ERR_NOMEM, "%s: out of memory for the ids in %zu bytes", path, len);
    else if (strlen(text) != len) /* what follows would not be read */
        rc = err_set(e, ERR_FORMAT, "%s: a NUL byte at offset %zu; token ids are text without any", path,
                     strlen(text));
    else if (text[strspn(text, " \t\r\n")] >= '0' && text[strspn(text, " \t\r\n")] <= '9')
        rc = ids_of_numbers(ids, &n, path, text, e);
    else
        rc = ids_of_json(ids, &n, path, text, len, e);
    if (rc == 0) {
        c->from_ids = true;
        rc = corpus_add_tokens(c, path, ids, n, NULL, 0, e);
    }
    free(ids);
    free(text);
    return rc;
}

int corpus_check_ids(const struct corpus *c, uint32_t n_vocab, struct err *e)
{
    for (size_t t = 0; t < c->n_texts; t++)
        for (size_t i = c->texts[t].begin; i < c->texts[t].end; i++)
            if (c->ids[i] < 0 || (uint32_t)c->ids[i] >= n_vocab)
                return err_set(e, ERR_ARG, "%s: token id %d at position %zu is outside the vocabulary of %u",
                               c->texts[t].path, c->ids[i], i - c->texts[t].begin, n_vocab);
    return 0;
}

void corpus_release(struct corpus *c)
{
    if (!c)
        return;
    for (size_t i = 0; i < c->n_texts; i++)
        free(c->texts[i].path);
    free(c->texts);
    free(c->ids);
    free(c->answers);
    free(c->record_ends);
    free(c->record_cut);
    *c = (struct corpus){0};
}

void corpus_hash(const struct corpus *c, char out[65])
{
    sha256_hex_of(c->ids, c->n_ids * sizeof *c->ids, out);
}

static size_t windows_of(size_t n_tokens, size_t ctx, size_t stride)
{
    if (stride == 0)
        return n_tokens / ctx;
    return n_tokens > ctx ? (n_tokens - ctx + stride - 1) / stride : 0;
}

size_t windows_n_scored(const struct windows *w)
{
    return w->end - w->first;
}

struct cutting {
    const struct corpus *c;
    const struct window_options *opt;
    size_t scored_first; /* position from which the figures of the text count */
};

/* What the targets of a window whose first token is id `at` of the corpus count for. */
static void mark_use(struct windows *w, const struct cutting *k, size_t at)
{
    uint8_t *use = w->use + w->n * windows_n_scored(w);
    for (size_t p = w->first; p < w->end; p++) {
        bool counts = !k->c->answers || k->c->answers[at + p + 1];
        use[p - w->first] = (uint8_t)(!counts               ? 0
                                      : p < k->scored_first ? WINDOW_DEPTH
                                                            : WINDOW_DEPTH | WINDOW_SCORED);
    }
}

/* n windows of a text. */
static void cut_text(struct windows *w, const struct cutting *k, size_t text, size_t n)
{
    size_t step = k->opt->stride ? k->opt->stride : w->ctx, at = k->c->texts[text].begin;
    for (size_t i = 0; i < n; i++, w->n++, at += step) {
        int32_t *in = w->inputs + w->n * w->ctx;
        memcpy(in, k->c->ids + at, w->ctx * sizeof *in);
        memcpy(w->targets + w->n * windows_n_scored(w), in + w->first + 1, windows_n_scored(w) * sizeof *in);
        if (k->opt->bos >= 0)
            in[0] = k->opt->bos;
        w->text[w->n] = (uint32_t)text;
        if (w->use)
            mark_use(w, k, at);
    }
}

static int too_short(const struct corpus *c, const struct window_options *opt, struct err *e)
{
    size_t longest = 0;
    for (size_t i = 0; i < c->n_texts; i++)
        if (c->texts[i].end - c->texts[i].begin > longest)
            longest = c->texts[i].end - c->texts[i].begin;
    return err_set(e, ERR_ARG,
                   "%s: %zu tokens do not fill one window of %zu%s; give more text or a smaller --ctx",
                   c->n_texts ? c->texts[0].path : "no text", longest, opt->ctx,
                   opt->stride ? " and a token beyond it" : "");
}

static bool nothing_counts(const struct windows *w)
{
    for (size_t i = 0; w->use && i < w->n * windows_n_scored(w); i++)
        if (w->use[i] & WINDOW_SCORED)
            return false;
    return w->use != NULL;
}

/* Room for n windows; nothing is held on failure. */
static int windows_allocate(struct windows *w, size_t n, bool with_use, struct err *e)
{
    uint64_t n_inputs = 0;
    if (checked_mul(n, w->ctx, &n_inputs) && n_inputs < SIZE_MAX / sizeof(int32_t)) {
        w->inputs = malloc((size_t)n_inputs * sizeof *w->inputs);
        w->targets = malloc(n * windows_n_scored(w) * sizeof *w->targets + 1);
        w->text = malloc(n * sizeof *w->text);
        w->use = with_use ? malloc(n * windows_n_scored(w) + 1) : NULL;
    }
    if (w->inputs && w->targets && w->text && (w->use || !with_use))
        return 0;
    size_t ctx = w->ctx;
    windows_release(w);
    return err_set(e, ERR_NOMEM, "out of memory for %zu windows of %zu tokens", n, ctx);
}

int windows_cut(struct windows *out, const struct corpus *c, const struct window_options *opt, struct err *e)
{
    struct windows w = {.ctx = opt->ctx};
    size_t total = 0, most = opt->max_windows ? opt->max_windows : SIZE_MAX;
    if (c->from_ids && c->n_texts == 1 && c->n_ids < w.ctx)
        w.ctx = c->n_ids;
    if (w.ctx < 2 || opt->stride >= w.ctx)
        return err_set(e, ERR_ARG,
                       "a window of %zu tokens%s is too small: at least 2, and more than the stride", w.ctx,
                       c->from_ids ? " (the list of ids)" : "");
    struct cutting k = {c, opt, opt->stride ? w.ctx - opt->stride - 1 : w.ctx == 2 ? 0 : w.ctx / 2};
    w.first = opt->all_positions ? 0 : k.scored_first;
    w.end = w.ctx - 1;
    for (size_t i = 0; i < c->n_texts; i++)
        total += windows_of(c->texts[i].end - c->texts[i].begin, w.ctx, opt->stride);
    total = total < most ? total : most;
    if (total == 0)
        return too_short(c, opt, e);
    int rc = windows_allocate(&w, total, c->answers || opt->all_positions, e);
    if (rc != 0)
        return rc;
    for (size_t i = 0; i < c->n_texts && w.n < total; i++) {
        size_t n = windows_of(c->texts[i].end - c->texts[i].begin, w.ctx, opt->stride);
        cut_text(&w, &k, i, n < total - w.n ? n : total - w.n);
    }
    if (nothing_counts(&w)) {
        windows_release(&w);
        return err_set(e, ERR_ARG,
                       "%s: no token of an answer stands where tokens are scored; give more text, or a "
                       "smaller --ctx",
                       c->texts[0].path);
    }
    *out = w;
    return 0;
}

/* Window `from` takes the place of `to`. */
static void move_window(struct windows *w, size_t to, size_t from)
{
    size_t run = windows_n_scored(w);
    memmove(w->inputs + to * w->ctx, w->inputs + from * w->ctx, w->ctx * sizeof *w->inputs);
    memmove(w->targets + to * run, w->targets + from * run, run * sizeof *w->targets);
    if (w->use)
        memmove(w->use + to * run, w->use + from * run, run);
    if (w->text)
        w->text[to] = w->text[from];
}

bool windows_use_text(const struct windows *w, size_t text)
{
    for (size_t i = 0; w->text && i < w->n; i++)
        if (w->text[i] == text)
            return true;
    return !w->text && w->n > 0;
}

void windows_skip(struct windows *w, size_t n)
{
    n = n < w->n ? n : w->n;
    for (size_t i = n; i < w->n; i++)
        move_window(w, i - n, i);
    w->n -= n;
}

void windows_thin(struct windows *w, size_t n)
{
    if (n == 0 || n >= w->n)
        return;
    for (size_t i = 0; i < n; i++) {
        size_t from = (2 * i + 1) * w->n / (2 * n); /* never before i */
        move_window(w, i, from);
    }
    w->n = n;
}

/* *out: the windows of `w` that `taken` [w->n] does not name, n of them at most. */
static int take_others(struct windows *out, const struct windows *w, const bool *taken, size_t n,
                       struct err *e)
{
    size_t run = windows_n_scored(w), n_free = 0, at = 0;
    struct windows rest = {.ctx = w->ctx, .first = w->first, .end = w->end};
    for (size_t i = 0; i < w->n; i++)
        n_free += !taken[i];
    n = n < n_free ? n : n_free;
    rest.inputs = malloc(n * w->ctx * sizeof *rest.inputs + 1);
    rest.targets = malloc(n * run * sizeof *rest.targets + 1);
    if (!rest.inputs || !rest.targets) {
        windows_release(&rest);
        return err_set(e, ERR_NOMEM, "out of memory for %zu windows", n);
    }
    for (size_t i = 0; i < w->n; i++) {
        if (taken[i] || rest.n == n)
            continue;
        if (at++ != (2 * rest.n + 1) * n_free / (2 * n))
            continue;
        memcpy(rest.inputs + rest.n * w->ctx, w->inputs + i * w->ctx, w->ctx * sizeof *w->inputs);
        memcpy(rest.targets + rest.n * run, w->targets + i * run, run * sizeof *w->targets);
        rest.n++;
    }
    *out = rest;
    return 0;
}

int windows_split(struct windows *w, size_t n, struct windows *rest, size_t n_rest, struct err *e)
{
    size_t spare = w->n / 4 ? w->n / 4 : 1;
    if (n == 0 || n + spare > w->n)
        n = w->n > 1 ? w->n - spare : w->n;
    bool *taken = calloc(w->n + 1, sizeof *taken);
    if (!taken)
        return err_set(e, ERR_NOMEM, "out of memory for a list of %zu windows", w->n);
    for (size_t i = 0; i < n; i++)
        taken[(2 * i + 1) * w->n / (2 * n)] = true;
    int rc = take_others(rest, w, taken, n_rest, e);
    free(taken);
    if (rc == 0)
        windows_thin(w, n);
    return rc;
}

void windows_add_to_hash(struct sha256 *h, const struct windows *w)
{
    sha256_update_u64(h, w->n);
    sha256_update_u64(h, w->ctx);
    if (w->n == 0)
        return;
    sha256_update(h, w->inputs, w->n * w->ctx * sizeof *w->inputs);
    sha256_update(h, w->targets, w->n * windows_n_scored(w) * sizeof *w->targets);
}

void windows_hash(const struct windows *w, char out[65])
{
    struct sha256 h;
    sha256_init(&h);
    windows_add_to_hash(&h, w);
    sha256_final_hex(&h, out);
}

void windows_release(struct windows *w)
{
    if (!w)
        return;
    free(w->inputs);
    free(w->targets);
    free(w->use);
    free(w->text);
    *w = (struct windows){0};
}
