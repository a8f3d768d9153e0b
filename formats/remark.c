/* remark.c - see remark.h. */
#include "remark.h"

#include "libquant/base/printable.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Length of the code at `s`; 0: there is none. */
static size_t code_length(const char *s)
{
    size_t n = strspn(s, "abcdefghijklmnopqrstuvwxyz0123456789-");
    return s[n] == ']' || s[n] == '|' ? n : 0;
}

/* The head of `text` in its parts; false when it has none. A tensor's name may hold anything, so it ends at
 * the first "] " alone. */
static bool split(const char *text, const char **code, size_t *n_code, const char **tensor, size_t *n_tensor,
                  const char **sentence)
{
    *sentence = text;
    *n_code = text[0] == '[' ? code_length(text + 1) : 0;
    if (*n_code == 0)
        return false;
    *code = text + 1;
    *tensor = NULL;
    *n_tensor = 0;
    const char *end = *code + *n_code;
    if (*end == '|') {
        *tensor = end + 1;
        end = strstr(*tensor, "] ");
        if (!end)
            return false;
        *n_tensor = (size_t)(end - *tensor);
    }
    *sentence = end[1] == ' ' ? end + 2 : end + 1;
    return true;
}

const char *remark_sentence(const char *text)
{
    const char *code, *tensor, *sentence;
    size_t n, m;
    split(text, &code, &n, &tensor, &m, &sentence);
    return sentence;
}

bool remark_has_code(const char *text, const char *want)
{
    const char *code, *tensor, *sentence;
    size_t n, m;
    return split(text, &code, &n, &tensor, &m, &sentence) && strlen(want) == n && memcmp(code, want, n) == 0;
}

static void release(struct remark *r)
{
    free(r->code);
    free(r->tensor);
    free(r->message);
    *r = (struct remark){0};
}

/* "file: sentence" */
static char *message_of(const char *file, const char *sentence)
{
    size_t n = file ? strlen(file) : 0, size = n + strlen(sentence) + 3;
    if (!file || (strncmp(sentence, file, n) == 0 && sentence[n] == ':'))
        return strdup(sentence);
    char *out = malloc(size);
    if (out)
        snprintf(out, size, "%s: %s", file, sentence);
    return out;
}

static bool make(struct remark *r, const char *file, const char *text)
{
    const char *code, *tensor, *sentence;
    size_t n_code, n_tensor;
    bool has_head = split(text, &code, &n_code, &tensor, &n_tensor, &sentence);
    *r = (struct remark){.count = 1};
    r->code = has_head ? strndup(code, n_code) : strdup("other");
    r->tensor = has_head && tensor ? strndup(tensor, n_tensor) : NULL;
    r->message = message_of(file, sentence);
    if (r->code && r->message && (r->tensor || !has_head || !tensor)) {
        printable(r->message); /* as err_set does with its own */
        return true;
    }
    release(r);
    return false;
}

/* Of the same kind: a tensor each, in the same file; or the same words. The file is what the messages begin
 * with, up to the first colon. */
static bool belongs(const struct remark *r, const struct remark *x, const char *file)
{
    if (strcmp(r->code, x->code) != 0)
        return false;
    if (!r->tensor || !x->tensor)
        return !r->tensor && !x->tensor && strcmp(r->message, x->message) == 0;
    size_t n = file ? strlen(file) : 0;
    return strncmp(r->message, x->message, n) == 0;
}

struct remark *remark_list_add(struct remark_list *l, const char *file, const char *text, bool group)
{
    struct remark r;
    if (!make(&r, file, text)) {
        l->n_lost++;
        return NULL;
    }
    for (size_t i = 0; group && i < l->n; i++)
        if (belongs(&l->items[i], &r, file)) {
            l->items[i].count++;
            release(&r);
            return &l->items[i];
        }
    struct remark *grown = realloc(l->items, (l->n + 1) * sizeof *grown);
    if (!grown) {
        release(&r);
        l->n_lost++;
        return NULL;
    }
    l->items = grown;
    l->items[l->n] = r;
    return &l->items[l->n++];
}

const char *remark_count(const struct remark *r, char out[REMARK_COUNT_BYTES])
{
    out[0] = 0;
    if (r->count > 1 && r->tensor)
        snprintf(out, REMARK_COUNT_BYTES, " (and %" PRIu64 " more tensor%s; --verbose lists them)",
                 r->count - 1, r->count == 2 ? "" : "s");
    else if (r->count > 1)
        snprintf(out, REMARK_COUNT_BYTES, " (%" PRIu64 " times)", r->count);
    return out;
}

static const char *part_of(const void *ctx, size_t i)
{
    return ((const char *const *)ctx)[i];
}

void remark_list_json(struct json_writer *w, const struct remark_list *l)
{
    jw_array(w);
    for (size_t i = 0; i < l->n; i++) {
        char count[REMARK_COUNT_BYTES];
        const char *const text[] = {l->items[i].message, remark_count(&l->items[i], count)};
        jw_object(w);
        jw_key(w, "code"), jw_string(w, l->items[i].code);
        jw_key(w, "message"), jw_joined(w, 2, part_of, text, "");
        jw_key(w, "tensor"), jw_string(w, l->items[i].tensor);
        jw_key(w, "count"), jw_uint(w, l->items[i].count);
        jw_end(w);
    }
    if (l->n_lost) {
        jw_object(w);
        jw_key(w, "code"), jw_string(w, "out-of-memory");
        jw_key(w, "message"), jw_string(w, "memory did not suffice for the text of some warnings");
        jw_key(w, "tensor"), jw_null(w);
        jw_key(w, "count"), jw_uint(w, l->n_lost);
        jw_end(w);
    }
    jw_end(w);
}

void remark_list_release(struct remark_list *l)
{
    for (size_t i = 0; i < l->n; i++)
        release(&l->items[i]);
    free(l->items);
    *l = (struct remark_list){0};
}
