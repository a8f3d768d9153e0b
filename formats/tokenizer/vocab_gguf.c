/* vocab_gguf.c - vocabularies out of and into the tokenizer.* keys of GGUF metadata (specification,
 * architectures 19.1).
 *
 * Reading is lenient where runtimes are (missing types or scores, repeated texts: a warning), because such
 * files exist and can still be tokenized with; writing is strict. */
#include "vocab_build.h"

#include "pretokenize.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

static const char KEY_NORMALIZER[] = "tokenizer.kerf.normalizer";
static const char KEY_IGNORE_MERGES[] = "tokenizer.kerf.ignore_merges";

struct id_key {
    const char *key;
    size_t offset; /* of the int64_t in struct vocabulary */
};

static const struct id_key IDS[] = {
    {"tokenizer.ggml.bos_token_id", offsetof(struct vocabulary, bos)},
    {"tokenizer.ggml.eos_token_id", offsetof(struct vocabulary, eos)},
    {"tokenizer.ggml.unknown_token_id", offsetof(struct vocabulary, unk)},
    {"tokenizer.ggml.seperator_token_id", offsetof(struct vocabulary, sep)}, /* the format's own spelling */
    {"tokenizer.ggml.padding_token_id", offsetof(struct vocabulary, pad)},
    {"tokenizer.ggml.mask_token_id", offsetof(struct vocabulary, mask)},
    {"tokenizer.ggml.eot_token_id", offsetof(struct vocabulary, eot)},
    {"tokenizer.ggml.eom_token_id", offsetof(struct vocabulary, eom)},
};

static const struct id_key FLAGS[] = {
    {"tokenizer.ggml.add_bos_token", offsetof(struct vocabulary, add_bos)},
    {"tokenizer.ggml.add_eos_token", offsetof(struct vocabulary, add_eos)},
    {"tokenizer.ggml.add_sep_token", offsetof(struct vocabulary, add_sep)},
    {"tokenizer.ggml.add_space_prefix", offsetof(struct vocabulary, add_space_prefix)},
};

enum { N_IDS = sizeof IDS / sizeof *IDS, N_FLAGS = sizeof FLAGS / sizeof *FLAGS };

static bool equals(struct gguf_string s, const char *text)
{
    return s.len == strlen(text) && memcmp(s.data, text, s.len) == 0;
}

/* --- reading
 * ------------------------------------------------------------------------------------------------- */

/* A string array, or NULL with a message. */
static const struct gguf_value *string_array(const struct gguf_meta *meta, const char *key, uint64_t max,
                                             struct err *e)
{
    const struct gguf_value *v = gguf_meta_find(meta, key);
    if (!v) {
        err_set(e, ERR_FORMAT, "key '%s' is missing", key);
        return NULL;
    }
    if (v->type != GGUF_ARRAY || v->a.elem != GGUF_STRING || v->a.n > max) {
        err_set(e, ERR_FORMAT, "key '%s' is not an array of at most %llu strings", key,
                (unsigned long long)max);
        return NULL;
    }
    return v;
}

static int read_tokens(struct vocab_build *b, const struct gguf_meta *meta, struct err *e)
{
    const struct gguf_value *tokens = string_array(meta, "tokenizer.ggml.tokens", VOCAB_MAX_TOKENS, e);
    const struct gguf_value *types = gguf_meta_find(meta, "tokenizer.ggml.token_type");
    const struct gguf_value *scores = gguf_meta_find(meta, "tokenizer.ggml.scores");
    if (!tokens)
        return ERR_FORMAT;
    const struct gguf_string *text = tokens->a.data;
    size_t n = (size_t)tokens->a.n, n_odd = 0;
    if (n == 0)
        return err_set(e, ERR_FORMAT, "key 'tokenizer.ggml.tokens' is empty");
    if (!types)
        vocab_warn(b, "[vocabulary-key] key 'tokenizer.ggml.token_type' is missing: every token is taken as "
                      "a normal one");
    if (b->v->model == VOCAB_SPM && !scores)
        return err_set(e, ERR_FORMAT, "key 'tokenizer.ggml.scores' is missing");
    for (size_t i = 0; i < n; i++) {
        int64_t type = TOKEN_NORMAL;
        double score = 0;
        if (types && !gguf_array_i64(types, i, &type))
            return err_set(e, ERR_FORMAT, "key 'tokenizer.ggml.token_type' has no integer for token %zu", i);
        if (scores && !gguf_array_f64(scores, i, &score))
            return err_set(e, ERR_FORMAT, "key 'tokenizer.ggml.scores' has no number for token %zu", i);
        if (type < TOKEN_NORMAL || type > TOKEN_BYTE) {
            n_odd++;
            type = TOKEN_NORMAL;
        }
        int rc = vocab_set(b, i, text[i].data, (size_t)text[i].len, (enum token_type)type, (float)score, e);
        if (rc != 0)
            return rc;
        /* the rule of specification, architectures 19.2, which runtimes also apply to files that did not */
        if (type == TOKEN_USER_DEFINED && vocab_looks_special(b->v->tokens[i].text))
            b->v->tokens[i].type = TOKEN_CONTROL;
    }
    if (n_odd)
        vocab_warn(b,
                   "[vocabulary-key] key 'tokenizer.ggml.token_type': %zu values that are not token types "
                   "are taken as normal",
                   n_odd);
    return 0;
}

static int read_merges(struct vocab_build *b, const struct gguf_meta *meta, struct err *e)
{
    const struct gguf_value *merges = string_array(meta, "tokenizer.ggml.merges", VOCAB_MAX_MERGES, e);
    if (!merges)
        return ERR_FORMAT;
    const struct gguf_string *text = merges->a.data;
    for (size_t i = 0; i < merges->a.n; i++) {
        const char *s = text[i].data, *end = s + text[i].len;
        const char *space = text[i].len > 2 ? memchr(s + 1, ' ', (size_t)text[i].len - 2) : NULL;
        if (!space)
            return err_set(e, ERR_FORMAT, "key 'tokenizer.ggml.merges': entry %zu is not two parts", i);
        int rc = vocab_add_merge(b, s, (size_t)(space - s), space + 1, (size_t)(end - space - 1), e);
        if (rc != 0)
            return rc;
    }
    return 0;
}

static void read_ids(struct vocab_build *b, const struct gguf_meta *meta)
{
    struct vocabulary *v = b->v;
    for (size_t i = 0; i < N_IDS; i++) {
        uint64_t id;
        if (!gguf_meta_get_u64(meta, IDS[i].key, &id))
            continue;
        if (id < v->n_tokens) {
            int64_t value = (int64_t)id;
            memcpy((char *)v + IDS[i].offset, &value, sizeof value);
        } else {
            vocab_warn(b, "[vocabulary-key] key '%s' is ignored: %llu is not a token id", IDS[i].key,
                       (unsigned long long)id);
        }
    }
    for (size_t i = 0; i < N_FLAGS; i++) {
        bool on;
        enum vocab_flag flag;
        if (!gguf_meta_get_bool(meta, FLAGS[i].key, &on))
            continue;
        flag = on ? VOCAB_FLAG_TRUE : VOCAB_FLAG_FALSE;
        memcpy((char *)v + FLAGS[i].offset, &flag, sizeof flag);
    }
}

/* The two vocabularies of plain text that have a model of their own, which stands for the pre-tokenizer. */
static const char *model_of_plain(struct gguf_string s)
{
    return equals(s, "gemma4") ? "gemma4" : equals(s, "whitespace") ? "whitespace" : NULL;
}

static int read_model(struct vocab_build *b, const struct gguf_meta *meta, struct err *e)
{
    struct vocabulary *v = b->v;
    struct gguf_string s;
    if (!gguf_meta_get_string(meta, "tokenizer.ggml.model", &s))
        return err_set(e, ERR_FORMAT, "key 'tokenizer.ggml.model' is missing: the file has no vocabulary");
    const char *plain = model_of_plain(s);
    if (equals(s, "gpt2") || plain)
        v->model = VOCAB_BPE;
    else if (equals(s, "llama"))
        v->model = VOCAB_SPM;
    else if (equals(s, "none") || equals(s, "no_vocab"))
        return err_set(e, ERR_UNSUPPORTED, "the file was written without a vocabulary");
    else
        return err_set(e, ERR_UNSUPPORTED,
                       "tokenizer model '%.*s'; 'gpt2', 'llama', 'gemma4' and 'whitespace' are supported",
                       (int)(s.len < 60 ? s.len : 60), s.data);
    if (plain) {
        v->pre = plain;
    } else if (gguf_meta_get_string(meta, "tokenizer.ggml.pre", &s)) {
        v->pre = arena_strndup(b->arena, s.data, (size_t)s.len);
        if (!v->pre)
            return err_set(e, ERR_NOMEM, "out of memory for the vocabulary");
    } else if (v->model == VOCAB_BPE) {
        vocab_warn(b, "[pretokenizer-unknown] key 'tokenizer.ggml.pre' is missing: text is split as "
                      "runtimes do it then, which may not be as the model learned it");
    }
    const struct pretokenizer_info *info = v->model == VOCAB_BPE ? pretokenizer_find(v->pre) : NULL;
    v->nfc = info && info->nfc;
    v->ignore_merges = info && info->ignore_merges;
    if (gguf_meta_get_string(meta, KEY_NORMALIZER, &s)) {
        if (!equals(s, "NFC") && !equals(s, "none"))
            return err_set(e, ERR_FORMAT, "key '%s' is neither 'NFC' nor 'none'", KEY_NORMALIZER);
        v->nfc = equals(s, "NFC");
    }
    gguf_meta_get_bool(meta, KEY_IGNORE_MERGES, &v->ignore_merges);
    return 0;
}

static int read_templates(struct vocab_build *b, const struct gguf_meta *meta, struct err *e)
{
    static const char prefix[] = "tokenizer.chat_template.";
    struct vocabulary *v = b->v;
    struct gguf_string s;
    size_t n = 0;
    if (gguf_meta_get_string(meta, "tokenizer.chat_template", &s) &&
        !(v->chat_template = arena_strndup(b->arena, s.data, (size_t)s.len)))
        return err_set(e, ERR_NOMEM, "out of memory for the chat template");
    for (size_t i = 0; i < gguf_meta_n(meta); i++)
        n += strncmp(gguf_meta_key(meta, i), prefix, sizeof prefix - 1) == 0;
    if (n == 0)
        return 0;
    v->named_templates = arena_array(b->arena, n, sizeof *v->named_templates);
    if (!v->named_templates)
        return err_set(e, ERR_NOMEM, "out of memory for chat templates");
    for (size_t i = 0; i < gguf_meta_n(meta); i++) {
        const char *key = gguf_meta_key(meta, i);
        if (strncmp(key, prefix, sizeof prefix - 1) != 0 || !gguf_meta_get_string(meta, key, &s))
            continue;
        const char *name = arena_strdup(b->arena, key + sizeof prefix - 1);
        const char *text = arena_strndup(b->arena, s.data, (size_t)s.len);
        if (!name || !text)
            return err_set(e, ERR_NOMEM, "out of memory for chat templates");
        v->named_templates[v->n_named_templates++] = (struct vocab_template){name, text};
    }
    return 0;
}

int vocabulary_from_gguf(struct vocabulary **out, const struct gguf_meta *meta, struct err *e)
{
    struct vocab_build b = {0};
    struct err dup = {0};
    int rc = vocab_build_init(&b, e);
    if (rc != 0)
        return rc;
    rc = read_model(&b, meta, e);
    if (rc == 0)
        rc = read_tokens(&b, meta, e);
    if (rc == 0 && b.v->model == VOCAB_BPE)
        rc = read_merges(&b, meta, e);
    if (rc == 0) {
        read_ids(&b, meta);
        rc = read_templates(&b, meta, e);
    }
    int repeats = rc == 0 ? vocab_check_unique(b.v, &dup) : 0;
    if (repeats == ERR_NOMEM)
        rc = err_set(e, repeats, "%s", dup.msg);
    else if (repeats != 0)
        vocab_warn(&b, "[vocabulary-repeats] %s; other programs may refuse this file", dup.msg);
    if (rc != 0)
        vocabulary_free(b.v);
    else
        *out = b.v;
    vocab_build_release(&b);
    return rc;
}

/* --- writing
 * ------------------------------------------------------------------------------------------------- */

static int write_tokens(const struct vocabulary *v, struct gguf_meta *meta, struct err *e)
{
    struct gguf_string *text = malloc(v->n_tokens * sizeof *text);
    struct gguf_string *merge = malloc((v->n_merges ? v->n_merges : 1) * sizeof *merge);
    int32_t *type = malloc(v->n_tokens * sizeof *type);
    float *score = malloc(v->n_tokens * sizeof *score);
    int rc = text && merge && type && score ? 0 : err_set(e, ERR_NOMEM, "out of memory for the vocabulary");
    for (size_t i = 0; i < v->n_tokens && rc == 0; i++) {
        text[i] = (struct gguf_string){v->tokens[i].text, v->tokens[i].len};
        type[i] = v->tokens[i].type;
        score[i] = v->tokens[i].score;
    }
    for (size_t i = 0; i < v->n_merges && rc == 0; i++)
        merge[i] = (struct gguf_string){v->merges[i].text, v->merges[i].len};
    if (rc == 0)
        rc = gguf_meta_set_strings(meta, "tokenizer.ggml.tokens", text, v->n_tokens, e);
    if (rc == 0 && v->model == VOCAB_SPM)
        rc = gguf_meta_set_array(meta, "tokenizer.ggml.scores", GGUF_F32, score, v->n_tokens, e);
    if (rc == 0)
        rc = gguf_meta_set_array(meta, "tokenizer.ggml.token_type", GGUF_I32, type, v->n_tokens, e);
    if (rc == 0 && v->n_merges)
        rc = gguf_meta_set_strings(meta, "tokenizer.ggml.merges", merge, v->n_merges, e);
    free(text);
    free(merge);
    free(type);
    free(score);
    return rc;
}

static int write_ids(const struct vocabulary *v, struct gguf_meta *meta, struct err *e)
{
    int rc = 0;
    for (size_t i = 0; i < N_IDS && rc == 0; i++) {
        int64_t id;
        memcpy(&id, (const char *)v + IDS[i].offset, sizeof id);
        if (id >= 0 && id <= UINT32_MAX)
            rc = gguf_meta_set_u32(meta, IDS[i].key, (uint32_t)id, e);
    }
    for (size_t i = 0; i < N_FLAGS && rc == 0; i++) {
        enum vocab_flag flag;
        memcpy(&flag, (const char *)v + FLAGS[i].offset, sizeof flag);
        if (flag != VOCAB_FLAG_UNSET)
            rc = gguf_meta_set_bool(meta, FLAGS[i].key, flag == VOCAB_FLAG_TRUE, e);
    }
    return rc;
}

/* What this program knows and the format's own keys cannot say. */
static int write_private(const struct vocabulary *v, struct gguf_meta *meta, struct err *e)
{
    const struct pretokenizer_info *info = v->model == VOCAB_BPE ? pretokenizer_find(v->pre) : NULL;
    bool nfc = info && info->nfc, ignore = info && info->ignore_merges;
    int rc = 0;
    if (v->nfc != nfc)
        rc = gguf_meta_set_string(meta, KEY_NORMALIZER, v->nfc ? "NFC" : "none", e);
    if (rc == 0 && v->ignore_merges != ignore)
        rc = gguf_meta_set_bool(meta, KEY_IGNORE_MERGES, v->ignore_merges, e);
    return rc;
}

static int write_templates(const struct vocabulary *v, struct gguf_meta *meta, struct err *e)
{
    char key[256];
    int rc = 0;
    if (v->chat_template && *v->chat_template)
        rc = gguf_meta_set_string(meta, "tokenizer.chat_template", v->chat_template, e);
    if (v->n_named_templates == 0 || rc != 0)
        return rc;
    struct gguf_string *names = malloc(v->n_named_templates * sizeof *names);
    if (!names)
        return err_set(e, ERR_NOMEM, "out of memory for chat templates");
    for (size_t i = 0; i < v->n_named_templates && rc == 0; i++) {
        const struct vocab_template *t = &v->named_templates[i];
        names[i] = (struct gguf_string){t->name, strlen(t->name)};
        if (names[i].len > 200)
            rc = err_set(e, ERR_FORMAT, "chat template name '%.60s...' is too long", t->name);
        else {
            strcat(strcpy(key, "tokenizer.chat_template."), t->name);
            rc = gguf_meta_set_string(meta, key, t->text, e);
        }
    }
    if (rc == 0)
        rc = gguf_meta_set_strings(meta, "tokenizer.chat_templates", names, v->n_named_templates, e);
    free(names);
    return rc;
}

static int write_model(const struct vocabulary *v, struct gguf_meta *meta, struct err *e)
{
    const struct gguf_string pre = {v->pre, strlen(v->pre)};
    const char *plain = v->model == VOCAB_BPE ? model_of_plain(pre) : NULL;
    const char *name = plain ? plain : v->model == VOCAB_BPE ? "gpt2" : "llama";
    int rc = gguf_meta_set_string(meta, "tokenizer.ggml.model", name, e);
    return rc == 0 ? gguf_meta_set_string(meta, "tokenizer.ggml.pre", v->pre, e) : rc;
}

int vocabulary_to_gguf(const struct vocabulary *v, struct gguf_meta *meta, struct err *e)
{
    int rc = vocab_check_unique(v, e);
    if (rc == 0)
        rc = write_model(v, meta, e);
    if (rc == 0)
        rc = write_tokens(v, meta, e);
    if (rc == 0)
        rc = write_ids(v, meta, e);
    if (rc == 0)
        rc = write_private(v, meta, e);
    return rc == 0 ? write_templates(v, meta, e) : rc;
}
