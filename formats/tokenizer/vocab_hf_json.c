/* vocab_hf_json.c - byte-level BPE from tokenizer.json, or from vocab.json and merges.txt.
 *
 * What the file says about normaliser and pre-tokenizer decides the GGUF names (specification,
 * architectures 19.3): the split pattern is compared, not a hash of the ids of a probe text. A tokenizer.json
 * of the SentencePiece kind (BPE with byte fallback, Llama 2 without its tokenizer.model) becomes a
 * SentencePiece vocabulary: pieces are scored by the order of the merges that form them, which is the order
 * SentencePiece itself would merge in. The peer gives every such piece the same score, which loses that
 * order.
 *
 * Refuses: other models (Unigram, WordPiece), sub-word affixes, unknown split patterns. */
#include "vocab_build.h"

#include "formats/utf8.h"
#include "libquant/base/filemap.h"
#include "pretokenize.h"

#include <stdlib.h>
#include <string.h>

static bool is_type(const struct json *j, const char *type)
{
    const char *s = json_string(json_get(j, "type"));
    return s && strcmp(s, type) == 0;
}

static bool json_true(const struct json *object, const char *key, bool fallback)
{
    bool v;
    return json_bool(json_get(object, key), &v) ? v : fallback;
}

/* --- vocabulary and merges
 * ----------------------------------------------------------------------------------- */

static int read_vocab_object(struct vocab_build *b, const struct json *vocab, const char *what, struct err *e)
{
    if (!json_is_object(vocab))
        return err_set(e, ERR_FORMAT, "%s: the vocabulary is not an object of text to id", what);
    for (const struct json *t = json_first(vocab); t; t = json_next(t)) {
        uint64_t id;
        const char *text = json_key(t);
        if (!json_uint(t, &id))
            return err_set(e, ERR_FORMAT, "%s: token '%.60s' has no valid id", what, text);
        if (vocab_has(b, id))
            return err_set(e, ERR_FORMAT, "%s: id %llu belongs to both '%.60s' and '%.60s'", what,
                           (unsigned long long)id, b->v->tokens[id].text, text);
        int rc = vocab_set(b, id, text, strlen(text), TOKEN_NORMAL, 0, e);
        if (rc != 0)
            return err_context(e, rc, "%s", what);
    }
    return 0;
}

/* Parts of the array form may hold a space where the byte alphabet has U+0120. */
static const char *encode_spaces(struct vocab_build *b, const char *s)
{
    size_t n = strlen(s), k = 0;
    if (!strchr(s, ' '))
        return s;
    char *out = arena_alloc(b->arena, 2 * n + 1);
    if (!out)
        return NULL;
    for (size_t i = 0; i < n; i++) {
        if (s[i] == ' ') {
            out[k++] = '\xC4';
            out[k++] = '\xA0';
        } else {
            out[k++] = s[i];
        }
    }
    return out;
}

static int read_merge(struct vocab_build *b, const struct json *m, size_t i, struct err *e)
{
    const char *left, *right, *text = json_string(m);
    if (text) {
        const char *space = *text ? strchr(text + 1, ' ') : NULL;
        if (!space || !space[1])
            return err_set(e, ERR_FORMAT, "tokenizer.json: merge %zu ('%.60s') is not two parts", i, text);
        return vocab_add_merge(b, text, (size_t)(space - text), space + 1, strlen(space + 1), e);
    }
    left = json_string(json_first(m));
    right = json_string(json_next(json_first(m)));
    if (!json_is_array(m) || !left || !right || json_n_children(m) != 2 || !*left || !*right)
        return err_set(e, ERR_FORMAT, "tokenizer.json: merge %zu is neither a text nor a pair of texts", i);
    left = encode_spaces(b, left);
    right = encode_spaces(b, right);
    if (!left || !right)
        return err_set(e, ERR_NOMEM, "out of memory for merges");
    return vocab_add_merge(b, left, strlen(left), right, strlen(right), e);
}

static int read_merges(struct vocab_build *b, const struct json *merges, struct err *e)
{
    if (!json_is_array(merges))
        return err_set(e, ERR_FORMAT, "tokenizer.json: model.merges is not a list");
    size_t i = 0;
    for (const struct json *m = json_first(merges); m; m = json_next(m), i++) {
        int rc = read_merge(b, m, i, e);
        if (rc != 0)
            return rc;
    }
    return 0;
}

/* --- normaliser and pre-tokenizer
 * ---------------------------------------------------------------------------- */

static void read_normalizer(struct vocab_build *b, const struct json *n)
{
    if (!n || json_is_null(n))
        return;
    if (is_type(n, "Sequence")) {
        for (const struct json *j = json_first(json_get(n, "normalizers")); j; j = json_next(j))
            if (!is_type(j, "Sequence")) /* one level: deeper nesting does not occur */
                read_normalizer(b, j);
        return;
    }
    if (is_type(n, "NFC")) {
        b->v->nfc = true;
        return;
    }
    const char *type = json_string(json_get(n, "type"));
    vocab_warn(b,
               "[tokenizer-normaliser] tokenizer.json: the normaliser '%.60s' is not applied; token ids of "
               "texts it changes differ",
               type ? type : "?");
}

static int unknown_pattern(struct err *e, const char *pattern)
{
    return err_set(
        e, ERR_UNSUPPORTED,
        "tokenizer.json: this pre-tokenizer is none of those that GGUF files have a name for; its pattern "
        "is %.200s",
        pattern);
}

static bool added_contains(const struct vocab_build *b, const char *text)
{
    for (size_t i = 0; i < b->n_added; i++)
        if (strcmp(b->added[i].text, text) == 0)
            return true;
    return false;
}

/* GGUF name of a pattern. One pattern has several names, which differ in what runtimes derive from them. */
static const char *gguf_name(const struct vocab_build *b, enum pretokenizer kind)
{
    const char *name = pretokenizer_name(kind);
    if (name)
        return name;
    switch (kind) {
    case PRE_QWEN35: return "qwen35";
    case PRE_LLAMA3:
        return b->v->ignore_merges || added_contains(b, "<|begin_of_text|>") ? "llama-bpe" : "dbrx";
    case PRE_GPT2: return "gpt-2";
    case PRE_STARCODER: return "starcoder";
    default: break;
    }
    /* <｜begin▁of▁sentence｜>, DeepSeek's marker */
    return added_contains(b, "<\xEF\xBD\x9C"
                             "begin\xE2\x96\x81of\xE2\x96\x81sentence\xEF\xBD\x9C>")
               ? "deepseek-r1-qwen"
               : "qwen2";
}

/* The pattern of one step; NULL with *bytes: byte-level without a pattern of its own; NULL: not known here.
 */
static const char *step_pattern(const struct json *step, bool alone, bool *bytes)
{
    *bytes = is_type(step, "ByteLevel");
    if (*bytes)
        return json_true(step, "use_regex", true) && !(alone && json_true(step, "add_prefix_space", true))
                   ? PRETOKENIZE_GPT2
                   : NULL;
    if (is_type(step, "Digits"))
        return json_true(step, "individual_digits", false) ? "\\p{N}" : "\\p{N}+";
    const char *how = json_string(json_get(step, "behavior"));
    if (is_type(step, "Punctuation"))
        return how && strcmp(how, "Contiguous") == 0  ? PRETOKENIZE_PUNCTUATION
               : !how || strcmp(how, "Isolated") == 0 ? PRETOKENIZE_ONE_SIGN
                                                      : NULL;
    bool invert = json_true(step, "invert", false);
    /* "Removed" with `invert` keeps the matches: the same, since every character is in some match */
    if (!is_type(step, "Split") || !how || strcmp(how, invert ? "Removed" : "Isolated") != 0)
        return NULL;
    return json_string(json_get(json_get(step, "pattern"), "Regex"));
}

static int read_pretokenizer(struct vocab_build *b, const struct json *pt, struct err *e)
{
    const char *patterns[PRE_MAX_STEPS];
    size_t n = 0;
    enum pretokenizer kind;
    bool sequence = is_type(pt, "Sequence"), any_bytes = false;
    /* of that class alone: elsewhere a pre-tokenizer that cuts words from punctuation, and has no name */
    if (is_type(pt, "Whitespace") && b->config &&
        strncmp(hf_config_architecture(b->config), "JinaBert", 8) == 0) {
        b->v->pre = "whitespace";
        return 0;
    }
    const struct json *step = sequence ? json_first(json_get(pt, "pretokenizers")) : pt;
    for (; step; step = sequence ? json_next(step) : NULL) {
        bool bytes, alone = n == 0 && !(sequence && json_next(step));
        const char *pattern = step_pattern(step, alone, &bytes);
        if (bytes && alone && !pattern)
            return unknown_pattern(e, "ByteLevel with add_prefix_space, or by itself without a pattern");
        if (!pattern && !bytes)
            return unknown_pattern(e, any_bytes || sequence || is_type(step, "Split")
                                          ? "a step of another kind"
                                          : "not byte-level");
        any_bytes |= bytes;
        if (pattern && n == PRE_MAX_STEPS)
            return unknown_pattern(e, "a sequence of more than six steps");
        if (pattern)
            patterns[n++] = pattern;
    }
    if (!any_bytes)
        return unknown_pattern(e, "not byte-level");
    if (!pretokenizer_from_patterns(patterns, n, &kind))
        return unknown_pattern(e, n ? patterns[n - 1] : "no pattern");
    b->v->pre = gguf_name(b, kind);
    return 0;
}

/* --- tokens that only the configuration calls special
 * -------------------------------------------------------- */

static void mark_special(struct vocab_build *b, const struct strmap *texts, const char *text)
{
    uint64_t id;
    if (text && !added_contains(b, text) && strmap_find(texts, text, strlen(text), &id) &&
        b->v->tokens[id].type == TOKEN_NORMAL)
        b->v->tokens[id].type = TOKEN_CONTROL;
}

/* HuggingFace turns vocabulary entries that tokenizer_config.json names into special tokens when it loads. */
static int mark_named_specials(struct vocab_build *b, const char *fallback, struct err *e)
{
    static const char *const keys[] = {"bos_token", "eos_token", "unk_token", "sep_token",
                                       "pad_token", "cls_token", "mask_token"};
    const struct json *config = json_root(b->tokenizer_config);
    struct vocabulary *v = b->v;
    struct strmap texts = {0};
    for (size_t i = 0; i < v->n_tokens; i++)
        if (v->tokens[i].text && strmap_put(&texts, v->tokens[i].text, v->tokens[i].len, i, NULL) != 0) {
            strmap_release(&texts);
            return err_set(e, ERR_NOMEM, "out of memory for the vocabulary");
        }
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        const struct json *j = json_get(config, keys[i]);
        mark_special(b, &texts, json_string(j) ? json_string(j) : json_string(json_get(j, "content")));
    }
    for (const struct json *j = json_first(json_get(config, "additional_special_tokens")); j;
         j = json_next(j))
        mark_special(b, &texts, json_string(j) ? json_string(j) : json_string(json_get(j, "content")));
    mark_special(b, &texts, fallback);
    strmap_release(&texts);
    return 0;
}

/* --- SentencePiece in tokenizer.json's clothes
 * --------------------------------------------------------------- */

static bool is_byte_token(const char *s)
{
    static const char hex[] = "0123456789ABCDEFabcdef";
    return strlen(s) == 6 && memcmp(s, "<0x", 3) == 0 && s[5] == '>' && strchr(hex, s[3]) &&
           strchr(hex, s[4]);
}

/* Scores 0, -1, -2, ... in the order of the first merge that forms a piece; pieces that no merge forms
 * (single characters) follow in the order of their ids. */
static int score_by_merges(struct vocab_build *b, struct err *e)
{
    struct vocabulary *v = b->v;
    struct strmap texts = {0};
    char *joined = NULL;
    bool *scored = calloc(v->n_tokens ? v->n_tokens : 1, 1);
    size_t cap = 0;
    float next = 0;
    int rc = scored ? strmap_reserve(&texts, v->n_tokens) : ERR_NOMEM;
    for (size_t i = 0; i < v->n_tokens && rc == 0; i++)
        if (v->tokens[i].text && v->tokens[i].type == TOKEN_NORMAL)
            rc = strmap_put(&texts, v->tokens[i].text, v->tokens[i].len, i, NULL);
    for (size_t i = 0; i < v->n_merges && rc == 0; i++) {
        const struct vocab_merge *m = &v->merges[i];
        if (m->len > cap) {
            char *grown = realloc(joined, cap = 2 * (size_t)m->len);
            if (!grown) {
                rc = ERR_NOMEM;
                break;
            }
            joined = grown;
        }
        const char *space = memchr(m->text + 1, ' ', m->len - 1);
        size_t n_left = (size_t)(space - m->text), n = m->len - 1;
        memcpy(joined, m->text, n_left);
        memcpy(joined + n_left, space + 1, n - n_left);
        uint64_t id;
        if (!strmap_find(&texts, joined, n, &id)) {
            free(joined);
            free(scored);
            strmap_release(&texts);
            return err_set(e, ERR_FORMAT, "tokenizer.json: merge %zu ('%.60s') forms no token", i, m->text);
        }
        if (!scored[id]) {
            scored[id] = true;
            v->tokens[id].score = -next;
            next += 1;
        }
    }
    for (size_t i = 0; i < v->n_tokens && rc == 0; i++)
        if (v->tokens[i].text && v->tokens[i].type == TOKEN_NORMAL && !scored[i]) {
            v->tokens[i].score = -next;
            next += 1;
        }
    free(joined);
    free(scored);
    strmap_release(&texts);
    return rc == 0 ? 0 : err_set(e, ERR_NOMEM, "out of memory for the vocabulary");
}

static int spm_refusal(struct err *e, const char *what)
{
    return err_set(e, ERR_UNSUPPORTED,
                   "tokenizer.json: %s; only the plain SentencePiece form of Llama 2 can be derived from it: "
                   "put the model's tokenizer.model beside it",
                   what);
}

/* A split at spaces finds none where the normaliser has replaced them (Gemma). */
static bool is_idle_split(const struct json *pt)
{
    const char *text = json_string(json_get(json_get(pt, "pattern"), "String"));
    return is_type(pt, "Split") && text && strcmp(text, " ") == 0;
}

/* Prepend U+2581 and Replace " " by U+2581, or the Metaspace pre-tokenizer, which does both. */
static int read_spm_normalizer(struct vocab_build *b, const struct json *root, struct err *e)
{
    static const char block[] = "\xE2\x96\x81";
    const struct json *n = json_get(root, "normalizer"), *pt = json_get(root, "pre_tokenizer");
    bool replaced = false, prepended = false;
    const struct json *list = json_get(n, "normalizers");
    for (const struct json *j = list ? json_first(list) : n; j && !json_is_null(j);
         j = list ? json_next(j) : NULL) {
        const char *text = json_string(json_get(j, is_type(j, "Prepend") ? "prepend" : "content"));
        if (!text || strcmp(text, block) != 0)
            return spm_refusal(e, "it normalises in an unknown way");
        if (is_type(j, "Prepend"))
            prepended = true;
        else if (is_type(j, "Replace"))
            replaced = true;
        else
            return spm_refusal(e, "it normalises in an unknown way");
    }
    if (is_type(pt, "Metaspace")) {
        const char *scheme = json_string(json_get(pt, "prepend_scheme"));
        replaced = true;
        prepended = scheme ? strcmp(scheme, "never") != 0 : json_true(pt, "add_prefix_space", true);
        if (json_true(pt, "split", true) && !json_true(pt, "add_prefix_space", true))
            return spm_refusal(e, "its Metaspace splits without a prefix");
    } else if (pt && !json_is_null(pt) && !(replaced && is_idle_split(pt))) {
        return spm_refusal(e, "it splits text before merging");
    }
    if (!replaced)
        return spm_refusal(e, "it does not write spaces as U+2581");
    b->v->add_space_prefix = prepended ? VOCAB_FLAG_TRUE : VOCAB_FLAG_FALSE;
    return 0;
}

/* Which name of plain BPE a tokenizer.json with byte fallback goes by; NULL: that of SentencePiece. */
static const char *plain_name(const struct vocab_build *b)
{
    const char *arch = b->config ? hf_config_architecture(b->config) : "";
    return strncmp(arch, "Gemma4", 6) == 0        ? "gemma4"
           : strncmp(arch, "SarvamMoE", 9) == 0   ? "sarvam-moe"
           : strncmp(arch, "ModernBert", 10) == 0 ? "granite-embed-multi-311m"
                                                  : NULL;
}

/* Merges as they are. Gemma 4 has a prefix of its own for what a chat shows, hence no rule for its types. */
static int finish_plain(struct vocab_build *b, const char *name, const struct json *root, struct err *e)
{
    struct vocabulary *v = b->v;
    const char *unk = json_string(json_get(json_get(root, "model"), "unk_token"));
    v->pre = name;
    int rc = vocab_apply_added(b, 0, e);
    for (size_t i = 0; i < v->n_tokens && rc == 0; i++) {
        struct vocab_token *t = &v->tokens[i];
        if (t->text && t->type != TOKEN_USER_DEFINED && unk && strcmp(t->text, unk) == 0)
            t->type = TOKEN_UNKNOWN;
    }
    return rc == 0 ? vocab_finish(b, 0, false, e) : rc;
}

static int finish_spm_like(struct vocab_build *b, const struct json *root, struct err *e)
{
    struct vocabulary *v = b->v;
    const char *unk = json_string(json_get(json_get(root, "model"), "unk_token"));
    int rc = read_spm_normalizer(b, root, e);
    if (rc != 0)
        return rc;
    for (size_t i = 0; i < v->n_tokens; i++)
        if (v->tokens[i].text && is_byte_token(v->tokens[i].text))
            v->tokens[i].type = TOKEN_BYTE;
    const char *plain = b->v->add_space_prefix == VOCAB_FLAG_FALSE ? plain_name(b) : NULL;
    if (plain)
        return finish_plain(b, plain, root, e);
    if ((rc = score_by_merges(b, e)) != 0 || (rc = vocab_apply_added(b, -1000, e)) != 0)
        return rc;
    for (size_t i = 0; i < v->n_tokens; i++) {
        struct vocab_token *t = &v->tokens[i];
        if (!t->text || t->type == TOKEN_NORMAL)
            continue;
        if (unk && strcmp(t->text, unk) == 0)
            t->type = TOKEN_UNKNOWN;
        if (t->type != TOKEN_USER_DEFINED)
            t->score = 0;
    }
    v->model = VOCAB_SPM;
    v->pre = "default";
    v->n_merges = 0; /* the scores carry them */
    return vocab_finish(b, -10000, false, e);
}

/* --- entry points
 * -------------------------------------------------------------------------------------------- */

int vocab_parse_tokenizer_json(struct vocab_build *b, const struct json *root, struct err *e)
{
    const struct json *model = json_get(root, "model");
    const char *type = json_string(json_get(model, "type"));
    if (!json_is_object(model))
        return err_set(e, ERR_FORMAT, "tokenizer.json: there is no 'model'");
    if (type ? strcmp(type, "BPE") != 0 : !json_get(model, "merges"))
        return err_set(e, ERR_UNSUPPORTED, "tokenizer.json: model type '%.60s'; only BPE is supported",
                       type ? type : "?");
    const char *prefix = json_string(json_get(model, "continuing_subword_prefix"));
    const char *suffix = json_string(json_get(model, "end_of_word_suffix"));
    if ((prefix && *prefix) || (suffix && *suffix))
        return err_set(e, ERR_UNSUPPORTED,
                       "tokenizer.json: sub-word prefixes and suffixes are not supported");
    int rc = read_vocab_object(b, json_get(model, "vocab"), "tokenizer.json", e);
    if (rc == 0)
        rc = read_merges(b, json_get(model, "merges"), e);
    if (rc != 0)
        return rc;
    b->v->model = VOCAB_BPE;
    b->v->ignore_merges = json_true(model, "ignore_merges", false);
    if (json_true(model, "byte_fallback", false))
        return finish_spm_like(b, root, e);
    read_normalizer(b, json_get(root, "normalizer"));
    if ((rc = read_pretokenizer(b, json_get(root, "pre_tokenizer"), e)) != 0 ||
        (rc = mark_named_specials(b, NULL, e)) != 0 || (rc = vocab_apply_added(b, 0, e)) != 0)
        return rc;
    return vocab_finish(b, 0, false, e);
}

int vocab_import_tokenizer_json(struct vocab_build *b, struct err *e)
{
    return vocab_parse_tokenizer_json(b, json_root(b->tokenizer_json), e);
}

static bool is_blank(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

/* merges.txt: a first line that starts with # is a comment; other lines are two words, anything else is
 * skipped and counted. */
static int parse_merges_txt(struct vocab_build *b, const char *p, size_t len, struct err *e)
{
    const char *end = p + len;
    size_t n_odd = 0;
    for (bool first = true; p < end; first = false) {
        const char *eol = memchr(p, '\n', (size_t)(end - p)), *line = p;
        if (!eol)
            eol = end;
        p = eol < end ? eol + 1 : end;
        const char *word[3];
        size_t n_word[3], n = 0;
        if (first && line < eol && *line == '#')
            continue;
        for (const char *q = line; q < eol && n < 3;) {
            while (q < eol && is_blank(*q))
                q++;
            if (q == eol)
                break;
            word[n] = q;
            while (q < eol && !is_blank(*q))
                q++;
            n_word[n] = (size_t)(q - word[n]);
            n++;
        }
        n_odd += n == 1 || n == 3;
        int rc = n == 2 ? vocab_add_merge(b, word[0], n_word[0], word[1], n_word[1], e) : 0;
        if (rc != 0)
            return rc;
    }
    if (n_odd)
        vocab_warn(b, "[merges-ignored] merges.txt: %zu lines that are not two words are ignored", n_odd);
    return 0;
}

int vocab_pre_from_class(struct vocab_build *b, struct err *e)
{
    const char *arch = b->config ? hf_config_architecture(b->config) : "";
    const char *cls = json_string(json_get(json_root(b->tokenizer_config), "tokenizer_class"));
    cls = cls ? cls : "";
    bool qwen = strncmp(arch, "Qwen", 4) == 0 || strncmp(arch, "QWen", 4) == 0 ||
                strncmp(cls, "Qwen", 4) == 0 || strncmp(cls, "QWen", 4) == 0;
    if (strncmp(arch, "Qwen3_5", 7) == 0) {
        b->v->pre = "qwen35";
        b->v->nfc = true;
    } else if (qwen) {
        b->v->pre = "qwen2";
        b->v->nfc = true;
    } else if (strncmp(cls, "GPT2", 4) == 0 || strncmp(arch, "GPT2", 4) == 0) {
        b->v->pre = "gpt-2";
    } else {
        return err_set(
            e, ERR_UNSUPPORTED,
            "%s: without tokenizer.json the pre-tokenizer of '%s' (tokenizer class '%.60s') is not "
            "known: add the model's tokenizer.json",
            b->folder ? b->folder : "tokenizer", arch, cls);
    }
    return 0;
}

int vocab_import_vocab_merges(struct vocab_build *b, struct err *e)
{
    struct json_doc *vocab = NULL;
    struct filemap m = {0};
    int rc = vocab_pre_from_class(b, e);
    if (rc == 0)
        rc = vocab_load_json(&vocab, b, "vocab.json", e);
    if (rc == 0)
        rc = read_vocab_object(b, json_root(vocab), "vocab.json", e);
    const char *path = vocab_path(b, "merges.txt");
    if (rc == 0)
        rc = path ? filemap_open(&m, path, e) : err_set(e, ERR_NOMEM, "out of memory for a path");
    if (rc == 0 && (m.size > VOCAB_MAX_FILE || !utf8_valid(m.data, m.size)))
        rc = err_set(e, ERR_FORMAT, "%s: not UTF-8 text of at most %d MiB", path, VOCAB_MAX_FILE >> 20);
    if (rc == 0)
        rc = parse_merges_txt(b, (const char *)m.data, m.size, e);
    b->v->model = VOCAB_BPE;
    /* GPT-2 names its one special token in the class, not in a file */
    const char *fallback = strcmp(b->v->pre, "gpt-2") == 0 ? "<|endoftext|>" : NULL;
    if (rc == 0)
        rc = mark_named_specials(b, fallback, e);
    if (rc == 0)
        rc = vocab_apply_added(b, 0, e);
    if (rc == 0)
        rc = vocab_finish(b, 0, false, e);
    filemap_close(&m);
    json_free(vocab);
    return rc;
}
