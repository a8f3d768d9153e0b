/* vocab_added.c - added tokens: where they are written down, and what type each one gets.
 *
 * Specification, architectures 19.2 A. Three files may name them, and all three occur: tokenizer.json
 * (authoritative), tokenizer_config.json (the flags of repositories without tokenizer.json),
 * added_tokens.json (the oldest).
 */
#include "vocab_build.h"

#include <stdlib.h>
#include <string.h>

struct collector {
    struct vocab_build *b;
    struct strmap ids; /* decimal id -> index in b->added */
    size_t cap;
};

static int collect(struct collector *c, const struct added_token *t, struct err *e)
{
    struct vocab_build *b = c->b;
    char *key = arena_printf(b->arena, "%llu", (unsigned long long)t->id);
    if (!key)
        return err_set(e, ERR_NOMEM, "out of memory for added tokens");
    uint64_t known;
    if (strmap_find(&c->ids, key, strlen(key), &known)) {
        b->added[known].in_config |= t->in_config;
        return 0;
    }
    if (b->n_added == c->cap) {
        size_t cap = c->cap ? c->cap * 2 : 64;
        struct added_token *grown = realloc(b->added, cap * sizeof *grown);
        if (!grown)
            return err_set(e, ERR_NOMEM, "out of memory for added tokens");
        b->added = grown;
        c->cap = cap;
    }
    struct added_token copy = *t;
    copy.text = arena_strdup(b->arena, t->text);
    if (!copy.text || strmap_put(&c->ids, key, strlen(key), b->n_added, NULL) != 0)
        return err_set(e, ERR_NOMEM, "out of memory for added tokens");
    b->added[b->n_added++] = copy;
    return 0;
}

static bool flag(const struct json *j, const char *key, bool fallback)
{
    bool v;
    return json_bool(json_get(j, key), &v) ? v : fallback;
}

static int collect_entry(struct collector *c, const struct json *entry, uint64_t id, const char *where,
                         bool in_tokenizer_json, struct err *e)
{
    const char *text = json_string(json_get(entry, "content"));
    if (!text || !*text)
        return err_set(e, ERR_FORMAT, "%s: added token %llu has no 'content'", where, (unsigned long long)id);
    bool special = flag(entry, "special", false);
    struct added_token t = {
        .id = id,
        .text = text,
        .special = special,
        .lstrip = flag(entry, "lstrip", false),
        .rstrip = flag(entry, "rstrip", false),
        .single_word = flag(entry, "single_word", false),
        .normalized = flag(entry, "normalized", !special),
        .in_tokenizer_json = in_tokenizer_json,
        .in_config = !in_tokenizer_json,
    };
    return collect(c, &t, e);
}

static bool parse_id(const char *s, uint64_t *out)
{
    uint64_t v = 0;
    if (!*s || strlen(s) > 9)
        return false;
    for (; *s; s++) {
        if (*s < '0' || *s > '9')
            return false;
        v = v * 10 + (uint64_t)(*s - '0');
    }
    *out = v;
    return true;
}

static int collect_lists(struct collector *c, const struct json *added_json, struct err *e)
{
    struct vocab_build *b = c->b;
    int rc;
    const struct json *list = json_get(json_root(b->tokenizer_json), "added_tokens");
    for (const struct json *t = json_first(list); t; t = json_next(t)) {
        uint64_t id;
        if (!json_uint(json_get(t, "id"), &id))
            return err_set(e, ERR_FORMAT, "tokenizer.json: an added token has no valid 'id'");
        if ((rc = collect_entry(c, t, id, "tokenizer.json", true, e)) != 0)
            return rc;
    }
    list = json_get(json_root(b->tokenizer_config), "added_tokens_decoder");
    for (const struct json *t = json_is_object(list) ? json_first(list) : NULL; t; t = json_next(t)) {
        uint64_t id;
        if (!parse_id(json_key(t), &id))
            return err_set(e, ERR_FORMAT,
                           "tokenizer_config.json: added_tokens_decoder: '%.60s' is not a token id",
                           json_key(t));
        if ((rc = collect_entry(c, t, id, "tokenizer_config.json", false, e)) != 0)
            return rc;
    }
    for (const struct json *t = json_is_object(added_json) ? json_first(added_json) : NULL; t;
         t = json_next(t)) {
        struct added_token a = {
            .text = json_key(t), .normalized = true, .in_config = true, .of_no_kind = true};
        if (!json_uint(t, &a.id) || !*a.text)
            return err_set(e, ERR_FORMAT, "added_tokens.json: '%.60s' has no valid id", json_key(t));
        if ((rc = collect(c, &a, e)) != 0)
            return rc;
    }
    return 0;
}

int vocab_collect_added(struct vocab_build *b, struct err *e)
{
    struct json_doc *added_json = NULL;
    struct collector c = {.b = b};
    int rc = 0;
    if (vocab_file_exists(b, "added_tokens.json"))
        rc = vocab_load_json(&added_json, b, "added_tokens.json", e);
    if (rc == 0)
        rc = collect_lists(&c, json_root(added_json), e);
    strmap_release(&c.ids);
    json_free(added_json);
    return rc;
}

bool vocab_looks_special(const char *text)
{
    static const char *const exact[] = {"<pad>", "<mask>", "<2mass>", "[@BOS@]"};
    static const struct {
        const char *head, *tail;
    } around[] = {{"<|", "|>"}, {"<\xEF\xBD\x9C", "\xEF\xBD\x9C>"}, {"<unused", ">"}};
    for (size_t i = 0; i < sizeof exact / sizeof *exact; i++)
        if (strcmp(text, exact[i]) == 0)
            return true;
    size_t n = strlen(text);
    for (size_t i = 0; i < sizeof around / sizeof *around; i++) {
        size_t h = strlen(around[i].head), t = strlen(around[i].tail);
        if (n >= h && n >= t && memcmp(text, around[i].head, h) == 0 &&
            memcmp(text + n - t, around[i].tail, t) == 0)
            return true;
    }
    return false;
}

/* Every U+2581 becomes a space. */
static size_t lower_block_to_space(char *s)
{
    char *out = s;
    for (const char *p = s; *p;) {
        if (memcmp(p, "\xE2\x96\x81", strnlen(p, 3)) == 0 && strnlen(p, 3) == 3) {
            *out++ = ' ';
            p += 3;
        } else {
            *out++ = *p++;
        }
    }
    *out = 0;
    return (size_t)(out - s);
}

/* Is it there already, as a token that is no text? A list of ids and texts makes it none. */
static bool restates(const struct vocab_build *b, const struct added_token *a)
{
    if (!a->of_no_kind || !vocab_has(b, a->id))
        return false;
    const struct vocab_token *t = &b->v->tokens[a->id];
    return (t->type == TOKEN_CONTROL || t->type == TOKEN_UNKNOWN) && strcmp(t->text, a->text) == 0;
}

static int apply(struct vocab_build *b, const struct added_token *a, float score, struct err *e)
{
    if (restates(b, a))
        return 0;
    bool control = a->special || vocab_looks_special(a->text);
    char *text = arena_strdup(b->arena, a->text);
    if (!text)
        return err_set(e, ERR_NOMEM, "out of memory for added tokens");
    size_t len = control ? strlen(text) : lower_block_to_space(text);
    int rc = vocab_set(b, a->id, text, len, control ? TOKEN_CONTROL : TOKEN_USER_DEFINED, score, e);
    if (rc != 0)
        return rc;
    struct vocab_token *t = &b->v->tokens[a->id];
    t->lstrip = a->lstrip;
    t->rstrip = a->rstrip;
    t->single_word = a->single_word;
    t->normalized = a->normalized;
    return 0;
}

int vocab_apply_added(struct vocab_build *b, float score, struct err *e)
{
    int rc = 0;
    for (size_t i = 0; i < b->n_added && rc == 0; i++)
        rc = apply(b, &b->added[i], score, e);
    return rc;
}

int vocab_apply_added_spm(struct vocab_build *b, struct err *e)
{
    int rc = 0;
    for (size_t i = 0; i < b->n_added && rc == 0; i++) {
        const struct added_token *a = &b->added[i];
        if (!a->in_config && vocab_has(b, a->id))
            continue;
        if (b->n_rows && a->id >= b->n_rows)
            vocab_warn(
                b, "[token-dropped] added token %llu ('%.60s') is dropped: the model has %llu embedding rows",
                (unsigned long long)a->id, a->text, (unsigned long long)b->n_rows);
        else
            rc = apply(b, a, -1000, e);
    }
    return rc;
}
