/* tokenizer.c - see tokenizer.h. The order of steps is that of the HuggingFace tokenizers, which is where it
 * matters (overlapping special texts, normalisation) also where the peer's runtime differs:
 *
 *   1. bytes that are not UTF-8 become U+FFFD, one for each maximal ill-formed part;
 *   2. added tokens are cut out of the raw text, leftmost and longest first;
 *   3. what is left is normalised (NFC where the vocabulary asks for it), and added tokens that are to be
 * sought in normalised text are cut out of that;
 *   4. the rest is encoded, fragment by fragment, by bpe.c or spm.c. */
#include "tokenizer.h"

#include "added.h"
#include "bpe.h"
#include "codepoint.h"
#include "formats/utf8.h"
#include "libquant/base/arena.h"
#include "nfc.h"
#include "spm.h"

#include <stdlib.h>
#include <string.h>

struct tokenizer {
    const struct vocabulary *v; /* borrowed */
    struct arena arena;
    struct slice *pieces; /* in the arena */
    struct bpe bpe;
    struct spm spm;
    struct added_set raw, normalized;
    int64_t bos, eos; /* -1: not to be added */
};

/* --- building
 * ------------------------------------------------------------------------------------------------ */

static int add_added(struct tokenizer *t, size_t id, struct err *e)
{
    const struct vocab_token *k = &t->v->tokens[id];
    unsigned flags = (k->type != TOKEN_USER_DEFINED ? ADDED_CONTROL : 0) | (k->lstrip ? ADDED_LSTRIP : 0) |
                     (k->rstrip ? ADDED_RSTRIP : 0) | (k->single_word ? ADDED_SINGLE_WORD : 0);
    if (!k->normalized || !t->v->nfc)
        return added_set_put(&t->raw, k->text, k->len, (int32_t)id, flags, e);
    char *text = NULL;
    size_t len = 0;
    if (!utf8_valid(k->text, k->len))
        return 0;
    int rc = nfc_normalize(&text, &len, k->text, k->len, e);
    if (rc == 0)
        rc = added_set_put(&t->normalized, text ? text : k->text, text ? len : k->len, (int32_t)id, flags, e);
    free(text);
    return rc;
}

/* U+2581 shows as a space, <0xNN> as its byte. */
static int block_piece(struct tokenizer *t, size_t id)
{
    const struct vocab_token *k = &t->v->tokens[id];
    uint8_t *out = arena_alloc(&t->arena, k->len);
    size_t n = 0;
    if (!out)
        return ERR_NOMEM;
    for (size_t i = 0; i < k->len;) {
        if (k->len - i >= 3 && memcmp(k->text + i, "\xE2\x96\x81", 3) == 0) {
            out[n++] = ' ';
            i += 3;
        } else {
            out[n++] = (uint8_t)k->text[i++];
        }
    }
    t->pieces[id] = (struct slice){out, n};
    return 0;
}

static int add_pieces(struct tokenizer *t)
{
    const struct vocabulary *v = t->v;
    const bool spm = v->model == VOCAB_SPM, blocks = spm || t->bpe.escape;
    for (size_t i = 0; i < v->n_tokens; i++) {
        const struct vocab_token *k = &v->tokens[i];
        if (blocks && k->type == TOKEN_NORMAL && block_piece(t, i) != 0)
            return ERR_NOMEM;
        if (!t->pieces[i].data)
            t->pieces[i] = (struct slice){(const uint8_t *)k->text, k->len};
    }
    for (int b = 0; (spm || t->bpe.plain) && b < 256; b++) {
        uint64_t id = spm ? (uint64_t)(int64_t)t->spm.byte_id[b] : t->bpe.byte_symbol[b];
        uint8_t *byte = id < v->n_tokens ? arena_alloc(&t->arena, 1) : NULL;
        if (byte) {
            *byte = (uint8_t)b;
            t->pieces[id] = (struct slice){byte, 1};
        }
    }
    return 0;
}

/* Runtimes add BOS to every SentencePiece model, and under some pre-tokenizer names, unless told otherwise;
 * under Gemma 4's they do even then. */
static void settle_bos_eos(struct tokenizer *t)
{
    const struct vocabulary *v = t->v;
    bool spm = v->model == VOCAB_SPM;
    const struct pretokenizer_info *info = spm ? NULL : pretokenizer_find(v->pre);
    bool add_bos =
        v->add_bos == VOCAB_FLAG_UNSET ? spm || (info && info->add_bos) : v->add_bos == VOCAB_FLAG_TRUE;
    add_bos |= info && info->kind == PRE_LINES && info->add_bos;
    bool add_eos = v->add_eos == VOCAB_FLAG_TRUE;
    int64_t bos = v->bos < 0 && spm && v->n_tokens > 2 ? 1 : v->bos;
    int64_t eos = v->eos < 0 && spm && v->n_tokens > 2 ? 2 : v->eos;
    t->bos = add_bos ? bos : -1;
    t->eos = add_eos ? eos : -1;
}

static int build(struct tokenizer *t, struct err *e)
{
    const struct vocabulary *v = t->v;
    if (v->n_tokens > INT32_MAX || v->n_merges > INT32_MAX)
        return err_set(e, ERR_UNSUPPORTED, "a vocabulary of %zu tokens", v->n_tokens);
    t->pieces = arena_array(&t->arena, v->n_tokens, sizeof *t->pieces);
    if (!t->pieces)
        return err_set(e, ERR_NOMEM, "out of memory for a tokenizer of %zu tokens", v->n_tokens);
    int rc = v->model == VOCAB_SPM ? spm_init(&t->spm, v, e) : bpe_init(&t->bpe, v, &t->arena, t->pieces, e);
    for (size_t i = 0; i < v->n_tokens && rc == 0; i++) {
        enum token_type type = v->tokens[i].type;
        if (type == TOKEN_CONTROL || type == TOKEN_USER_DEFINED || type == TOKEN_UNKNOWN)
            rc = add_added(t, i, e);
    }
    if (rc == 0 && add_pieces(t) != 0)
        rc = err_set(e, ERR_NOMEM, "out of memory for a tokenizer of %zu tokens", v->n_tokens);
    settle_bos_eos(t);
    return rc;
}

int tokenizer_new(struct tokenizer **out, const struct vocabulary *v, struct err *e)
{
    struct tokenizer *t = calloc(1, sizeof *t);
    if (!t)
        return err_set(e, ERR_NOMEM, "out of memory for a tokenizer");
    t->v = v;
    int rc = build(t, e);
    if (rc != 0)
        tokenizer_free(t);
    else
        *out = t;
    return rc;
}

void tokenizer_free(struct tokenizer *t)
{
    if (!t)
        return;
    bpe_release(&t->bpe);
    spm_release(&t->spm);
    added_set_release(&t->raw);
    added_set_release(&t->normalized);
    arena_release(&t->arena);
    free(t);
}

/* --- encoding
 * ------------------------------------------------------------------------------------------------ */

struct encoder {
    const struct tokenizer *t;
    struct encode_work *w;
    bool control;       /* control tokens are recognised */
    bool after_special; /* SentencePiece: a space is added after a special token and at the start */
};

static int encode_plain(struct encoder *c, const char *text, size_t len)
{
    const struct tokenizer *t = c->t;
    bool prefix = c->after_special && t->v->add_space_prefix != VOCAB_FLAG_FALSE;
    if (len == 0)
        return 0;
    c->after_special = false;
    return t->v->model == VOCAB_SPM ? spm_encode(&t->spm, c->w, text, len, prefix)
                                    : bpe_encode(&t->bpe, c->w, text, len);
}

typedef int fragment_fn(struct encoder *c, const char *text, size_t len, struct err *e);

/* Cut the added tokens of `set` out of the text and hand what is between them to `rest`. */
static int split(struct encoder *c, const struct added_set *set, const char *text, size_t len,
                 fragment_fn *rest, struct err *e)
{
    struct added_match m;
    size_t done = 0, from = 0;
    int rc = 0;
    while (rc == 0 && added_find(set, text, len, from, done, c->control, &m)) {
        if (m.start > done)
            rc = rest(c, text + done, m.start - done, e);
        if (rc == 0 && (rc = work_push(c->w, m.id)) != 0)
            err_set(e, ERR_NOMEM, "out of memory for token ids");
        c->after_special = true;
        done = m.stop;
        from = m.resume;
    }
    return rc == 0 && done < len ? rest(c, text + done, len - done, e) : rc;
}

static int last_step(struct encoder *c, const char *text, size_t len, struct err *e)
{
    int rc = encode_plain(c, text, len);
    if (rc == ERR_ARG)
        return err_set(e, rc, "a word of %zu bytes is too long to be tokenized", len);
    return rc == 0 ? 0 : err_set(e, rc, "out of memory to tokenize %zu bytes of text", len);
}

static int normalize_and_split(struct encoder *c, const char *text, size_t len, struct err *e)
{
    char *changed = NULL;
    size_t n = 0;
    int rc = nfc_normalize(&changed, &n, text, len, e);
    if (rc == 0)
        rc = split(c, &c->t->normalized, changed ? changed : text, changed ? n : len, last_step, e);
    free(changed);
    return rc;
}

int tokenizer_encode(const struct tokenizer *t, const char *text, size_t len,
                     const struct tokenize_options *opt, int32_t **ids, size_t *n_ids, struct err *e)
{
    struct encode_work w;
    struct encoder c = {.t = t, .w = &w, .control = opt->parse_special, .after_special = true};
    char *repaired = NULL;
    int rc = 0;
    work_begin(&w, len);
    if (!utf8_valid(text, len)) {
        size_t n = 0;
        repaired = utf8_repair(text, len, &n);
        if (!repaired) {
            rc = err_set(e, ERR_NOMEM, "out of memory to tokenize %zu bytes of text", len);
            goto done;
        }
        text = repaired;
        len = n;
    }
    if (opt->add_special && t->bos >= 0 && (rc = work_push(&w, (int32_t)t->bos)) != 0)
        err_set(e, rc, "out of memory for token ids");
    if (rc == 0)
        rc = split(&c, &t->raw, text, len, t->v->nfc ? normalize_and_split : last_step, e);
    if (rc == 0 && opt->add_special && t->eos >= 0 && (rc = work_push(&w, (int32_t)t->eos)) != 0)
        err_set(e, rc, "out of memory for token ids");
    if (rc == 0 && !w.ids && !(w.ids = malloc(sizeof *w.ids)))
        rc = err_set(e, ERR_NOMEM, "out of memory for token ids");
    if (rc == 0) {
        *ids = w.ids;
        *n_ids = w.n_ids;
        w.ids = NULL;
    }
done:
    free(repaired);
    work_release(&w);
    return rc;
}

const char *tokenizer_piece(const struct tokenizer *t, int32_t id, size_t *len)
{
    if (id < 0 || (size_t)id >= t->v->n_tokens) {
        *len = 0;
        return "";
    }
    *len = t->pieces[id].len;
    return (const char *)t->pieces[id].data;
}

bool tokenizer_is_control(const struct tokenizer *t, int32_t id)
{
    return id >= 0 && (size_t)id < t->v->n_tokens && t->v->tokens[id].type == TOKEN_CONTROL;
}

bool tokenizer_adds_bos(const struct tokenizer *t)
{
    return t->bos >= 0;
}

bool tokenizer_adds_eos(const struct tokenizer *t)
{
    return t->eos >= 0;
}
