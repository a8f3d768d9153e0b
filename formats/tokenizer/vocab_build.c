/* vocab_build.c - the parts of a vocabulary under construction that all importers share; see vocab_build.h.
 */
#include "vocab_build.h"

#include "formats/hf/hf_checkpoint.h"
#include "libquant/base/path.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Everything a vocabulary owns; vocabulary.owner points here. */
struct vocab_owner {
    struct vocabulary v;
    struct arena arena;
};

int vocab_build_init(struct vocab_build *b, struct err *e)
{
    struct vocab_owner *o = calloc(1, sizeof *o);
    if (!o)
        return err_set(e, ERR_NOMEM, "out of memory for a vocabulary");
    b->v = &o->v;
    b->arena = &o->arena;
    struct vocabulary *v = b->v;
    v->owner = o;
    v->pre = "default";
    v->bos = v->eos = v->unk = v->sep = v->pad = v->mask = v->eot = v->eom = -1;
    v->add_bos = v->add_eos = v->add_sep = v->add_space_prefix = VOCAB_FLAG_UNSET;
    return 0;
}

void vocabulary_free(struct vocabulary *v)
{
    if (!v)
        return;
    struct vocab_owner *o = v->owner;
    free(v->tokens);
    free(v->merges);
    free((void *)v->warnings);
    arena_release(&o->arena);
    free(o);
}

void vocab_build_release(struct vocab_build *b)
{
    json_free(b->tokenizer_json);
    json_free(b->tokenizer_config);
    free(b->added);
    b->tokenizer_json = b->tokenizer_config = NULL;
    b->added = NULL;
}

void vocab_warn(struct vocab_build *b, const char *fmt, ...)
{
    enum { MAX_WARNINGS = 100 }; /* a hostile file must not turn its own length into report lines */
    struct vocabulary *v = b->v;
    if (v->n_warnings >= MAX_WARNINGS)
        return;
    char line[512];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(line, sizeof line, fmt, ap);
    va_end(ap);
    for (char *p = line; *p; p++)
        if ((unsigned char)*p < 0x20 || *p == 0x7F)
            *p = '?';
    const char **grown = realloc((void *)v->warnings, (v->n_warnings + 1) * sizeof *grown);
    const char *text = arena_strdup(b->arena, line);
    if (grown)
        v->warnings = grown;
    if (grown && text)
        v->warnings[v->n_warnings++] = text;
}

int vocab_set(struct vocab_build *b, uint64_t id, const char *text, size_t len, enum token_type type,
              float score, struct err *e)
{
    struct vocabulary *v = b->v;
    if (id >= VOCAB_MAX_TOKENS)
        return err_set(e, ERR_FORMAT, "token id %llu is out of range: at most %d tokens are supported",
                       (unsigned long long)id, VOCAB_MAX_TOKENS);
    if (len > UINT32_MAX)
        return err_set(e, ERR_FORMAT, "the text of token %llu is too long", (unsigned long long)id);
    if (id >= b->cap_tokens) {
        size_t cap = b->cap_tokens ? b->cap_tokens * 2 : 1024;
        while (cap <= id)
            cap *= 2;
        struct vocab_token *grown = realloc(v->tokens, cap * sizeof *grown);
        if (!grown)
            return err_set(e, ERR_NOMEM, "out of memory for %zu tokens", cap);
        memset(grown + b->cap_tokens, 0, (cap - b->cap_tokens) * sizeof *grown);
        v->tokens = grown;
        b->cap_tokens = cap;
    }
    const char *copy = arena_strndup(b->arena, text, len);
    if (!copy)
        return err_set(e, ERR_NOMEM, "out of memory for the text of token %llu", (unsigned long long)id);
    v->tokens[id] = (struct vocab_token){.text = copy, .len = (uint32_t)len, .type = type, .score = score};
    if (id >= v->n_tokens)
        v->n_tokens = (size_t)id + 1;
    return 0;
}

bool vocab_has(const struct vocab_build *b, uint64_t id)
{
    return id < b->v->n_tokens && b->v->tokens[id].text;
}

int vocab_add_merge(struct vocab_build *b, const char *left, size_t n_left, const char *right, size_t n_right,
                    struct err *e)
{
    struct vocabulary *v = b->v;
    if (v->n_merges >= VOCAB_MAX_MERGES || n_left > UINT32_MAX / 4 || n_right > UINT32_MAX / 4)
        return err_set(e, ERR_FORMAT, "more than %d merges, or one that is too long", VOCAB_MAX_MERGES);
    if (v->n_merges == b->cap_merges) {
        size_t cap = b->cap_merges ? b->cap_merges * 2 : 1024;
        struct vocab_merge *grown = realloc(v->merges, cap * sizeof *grown);
        if (!grown)
            return err_set(e, ERR_NOMEM, "out of memory for %zu merges", cap);
        v->merges = grown;
        b->cap_merges = cap;
    }
    char *text = arena_alloc(b->arena, n_left + n_right + 2);
    if (!text)
        return err_set(e, ERR_NOMEM, "out of memory for a merge");
    memcpy(text, left, n_left);
    text[n_left] = ' ';
    memcpy(text + n_left + 1, right, n_right);
    v->merges[v->n_merges++] = (struct vocab_merge){.text = text, .len = (uint32_t)(n_left + n_right + 1)};
    return 0;
}

/* Runtimes build a map from text to id and stop when two ids share a text. */
int vocab_check_unique(const struct vocabulary *v, struct err *e)
{
    struct strmap map = {0};
    int rc = strmap_reserve(&map, v->n_tokens);
    if (rc != 0)
        rc = err_set(e, ERR_NOMEM, "out of memory for %zu tokens", v->n_tokens);
    for (size_t i = 0; i < v->n_tokens && rc == 0; i++) {
        const struct vocab_token *t = &v->tokens[i];
        bool existing = false;
        uint64_t other = 0;
        if (t->len == 0)
            rc = err_set(e, ERR_FORMAT, "token %zu has an empty text", i);
        else if (strmap_put(&map, t->text, t->len, i, &existing) != 0)
            rc = err_set(e, ERR_NOMEM, "out of memory for %zu tokens", v->n_tokens);
        else if (existing && strmap_find(&map, t->text, t->len, &other))
            rc = err_set(e, ERR_FORMAT, "tokens %llu and %zu have the same text '%.60s'",
                         (unsigned long long)other, i, t->text);
    }
    strmap_release(&map);
    return rc;
}

int vocabulary_append(struct vocabulary *v, const char *const *texts, size_t n, enum token_type type,
                      struct err *e)
{
    struct vocab_owner *o = v->owner;
    struct vocab_build b = {.v = v, .arena = &o->arena, .cap_tokens = v->n_tokens};
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < n; i++)
        rc = vocab_set(&b, v->n_tokens, texts[i], strlen(texts[i]), type, 0, e);
    return rc != 0 ? rc : vocab_check_unique(v, e);
}

int vocab_finish(struct vocab_build *b, float pad_score, bool clip, struct err *e)
{
    struct vocabulary *v = b->v;
    uint64_t n_rows = b->n_rows ? b->n_rows : v->n_tokens;
    if (n_rows > VOCAB_MAX_TOKENS)
        return err_set(e, ERR_UNSUPPORTED, "a vocabulary of %llu tokens: at most %d are supported",
                       (unsigned long long)n_rows, VOCAB_MAX_TOKENS);
    if (v->n_tokens > n_rows) {
        if (!clip)
            return err_set(e, ERR_FORMAT,
                           "token id %zu ('%.60s'), but the model has only %llu embedding rows (vocab_size)",
                           v->n_tokens - 1, v->tokens[v->n_tokens - 1].text, (unsigned long long)n_rows);
        vocab_warn(b, "[token-dropped] tokens %llu to %zu are dropped: the model has %llu embedding rows",
                   (unsigned long long)n_rows, v->n_tokens - 1, (unsigned long long)n_rows);
        v->n_tokens = (size_t)n_rows;
    }
    for (uint64_t i = 0; i < n_rows; i++) {
        if (vocab_has(b, i))
            continue;
        char text[32];
        int n = snprintf(text, sizeof text, "[PAD%llu]", (unsigned long long)i);
        int rc = vocab_set(b, i, text, (size_t)n, TOKEN_UNUSED, pad_score, e);
        if (rc != 0)
            return rc;
    }
    if (v->n_tokens == 0)
        return err_set(e, ERR_FORMAT, "the vocabulary is empty");
    return vocab_check_unique(v, e);
}

const char *vocab_path(struct vocab_build *b, const char *name)
{
    if (!b->folder)
        return NULL;
    return arena_printf(b->arena, path_ends_with(b->folder, "/") ? "%s%s" : "%s/%s", b->folder, name);
}

bool vocab_file_exists(struct vocab_build *b, const char *name)
{
    return b->folder && hf_file_exists(b->folder, name);
}

int vocab_load_json(struct json_doc **out, struct vocab_build *b, const char *name, struct err *e)
{
    const char *path = vocab_path(b, name);
    if (!path)
        return err_set(e, ERR_NOMEM, "out of memory for the path of %s", name);
    /* tokenizer.json is read by a stricter program */
    return strcmp(name, "tokenizer.json") == 0 ? json_load(out, path, VOCAB_MAX_FILE, e)
                                               : json_load_python(out, path, VOCAB_MAX_FILE, e);
}
