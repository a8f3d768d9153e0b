/* json.c - the reading half of json.h, over cJSON.
 *
 * cJSON is lenient where a hostile file needs strictness (control characters, "01", NUL that cuts a string
 * short, duplicate keys), and forgets how a number was written. So the text is checked first by a scanner of
 * our own, which is the whole grammar; cJSON then only builds the tree, and a walk over it rejects duplicate
 * keys and marks the integers the scanner has seen (both go through the document in the same order). */
#include "json.h"

#include "foreign.h"
#include "libquant/base/filemap.h"
#include "libquant/base/strmap.h"
#include "utf8.h"

#include <assert.h>
#include <cjson/cJSON.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define MAX_DEPTH        64
#define MAX_VALUES       ((size_t)1 << 23)
#define MAX_NUMBER_CHARS 63 /* the buffer of cJSON's number parser */
#define DEFAULT_MAX      ((size_t)256 << 20)
#define MAX_EXACT        ((uint64_t)1 << 53)

struct json_doc {
    cJSON *root;
};

/* --- the scanner --- */

/* A word that stands where a number is meant. */
struct word {
    size_t pos, len;
};

struct scan {
    const char *what;
    const unsigned char *text;
    size_t len, pos;
    size_t n_values, max_values;
    uint8_t *is_integer; /* owned; one byte for each number, in document order */
    size_t n_numbers, cap_numbers;
    bool python;
    struct word *words; /* owned; NaN and infinities, with `python` */
    size_t n_words, cap_words;
    struct err *e;
};

static int fail_at(const struct scan *s, size_t pos, const char *problem)
{
    size_t line = 1, column = 1;
    for (size_t i = 0; i < pos && i < s->len; i++) {
        column++;
        if (s->text[i] == '\n') {
            line++;
            column = 1;
        }
    }
    return err_set(s->e, ERR_FORMAT, "%s: not valid JSON: line %zu, column %zu: %s", s->what, line, column,
                   problem);
}

static int fail(const struct scan *s, const char *problem)
{
    return fail_at(s, s->pos, s->pos >= s->len ? "the text ends too early" : problem);
}

static int peek(const struct scan *s)
{
    return s->pos < s->len ? s->text[s->pos] : -1;
}

static void skip_space(struct scan *s)
{
    while (s->pos < s->len && s->text[s->pos] && strchr(" \t\r\n", s->text[s->pos]))
        s->pos++;
}

static bool is_digit(int c)
{
    return c >= '0' && c <= '9';
}

/* Four hexadecimal digits at pos; -1 when they are not. */
static int hex4(const struct scan *s, size_t pos)
{
    int v = 0;
    for (size_t i = pos; i < pos + 4; i++) {
        if (i >= s->len)
            return -1;
        int c = s->text[i];
        int d = is_digit(c)            ? c - '0'
                : c >= 'a' && c <= 'f' ? c - 'a' + 10
                : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                       : -1;
        if (d < 0)
            return -1;
        v = v * 16 + d;
    }
    return v;
}

/* At the backslash of an escape; leaves pos behind it. */
static int scan_escape(struct scan *s)
{
    size_t start = s->pos++;
    int c = peek(s);
    if (c != 'u') {
        if (c <= 0 || !strchr("\"\\/bfnrt", c))
            return fail(s, "unknown escape in a string");
        s->pos++;
        return 0;
    }
    int unit = hex4(s, s->pos + 1);
    s->pos += 5;
    if (unit < 0)
        return fail_at(s, start, "\\u needs four hexadecimal digits");
    if (unit == 0)
        return fail_at(s, start, "a NUL character (\\u0000) inside a string is not supported");
    if (unit >= 0xdc00 && unit <= 0xdfff)
        return fail_at(s, start, "half of a surrogate pair");
    if (unit >= 0xd800 && unit <= 0xdbff) {
        int low = s->len - s->pos >= 6 && s->text[s->pos] == '\\' && s->text[s->pos + 1] == 'u'
                      ? hex4(s, s->pos + 2)
                      : -1;
        if (low < 0xdc00 || low > 0xdfff)
            return fail_at(s, start, "half of a surrogate pair");
        s->pos += 6;
    }
    return 0;
}

static int scan_string(struct scan *s)
{
    if (peek(s) != '"')
        return fail(s, "a string in double quotes is expected");
    size_t start = s->pos++;
    for (;;) {
        int c = peek(s);
        if (c < 0)
            return fail_at(s, start, "this string has no end");
        if (c < 0x20)
            return fail(s, "an unescaped control character inside a string");
        if (c == '\\') {
            int rc = scan_escape(s);
            if (rc)
                return rc;
            continue;
        }
        s->pos++;
        if (c == '"')
            return 0;
    }
}

static int note_number(struct scan *s, bool is_integer)
{
    if (s->n_numbers == s->cap_numbers) {
        size_t cap = s->cap_numbers ? s->cap_numbers * 2 : 256;
        uint8_t *p = realloc(s->is_integer, cap);
        if (!p)
            return err_set(s->e, ERR_NOMEM, "%s: out of memory", s->what);
        s->is_integer = p;
        s->cap_numbers = cap;
    }
    s->is_integer[s->n_numbers++] = is_integer;
    return 0;
}

static int scan_number(struct scan *s)
{
    size_t start = s->pos;
    uint64_t magnitude = 0;
    bool is_integer = true;
    if (peek(s) == '-')
        s->pos++;
    if (!is_digit(peek(s)))
        return fail(s, "a digit is expected");
    bool leading_zero = peek(s) == '0';
    for (size_t n = 0; is_digit(peek(s)); s->pos++, n++) {
        if (leading_zero && n)
            return fail_at(s, start, "a number with a leading zero");
        magnitude = magnitude > MAX_EXACT ? magnitude : magnitude * 10 + (uint64_t)(peek(s) - '0');
    }
    is_integer = magnitude <= MAX_EXACT;
    if (peek(s) == '.') {
        is_integer = false;
        s->pos++;
        if (!is_digit(peek(s)))
            return fail(s, "a digit is expected after the decimal point");
        while (is_digit(peek(s)))
            s->pos++;
    }
    if (peek(s) == 'e' || peek(s) == 'E') {
        is_integer = false;
        s->pos++;
        if (peek(s) == '+' || peek(s) == '-')
            s->pos++;
        if (!is_digit(peek(s)))
            return fail(s, "a digit is expected in the exponent");
        while (is_digit(peek(s)))
            s->pos++;
    }
    if (s->pos - start > MAX_NUMBER_CHARS)
        return fail_at(s, start, "a number of more than 63 characters");
    return note_number(s, is_integer);
}

static int scan_word(struct scan *s, const char *word)
{
    size_t n = strlen(word);
    if (s->len - s->pos < n || memcmp(s->text + s->pos, word, n) != 0)
        return fail(s, "a value is expected (object, array, string, number, true, false or null)");
    s->pos += n;
    return 0;
}

/* NaN, Infinity, -Infinity. */
static size_t python_word(const struct scan *s)
{
    static const char *const words[] = {"NaN", "Infinity", "-Infinity"};
    for (size_t i = 0; s->python && i < 3; i++) {
        size_t n = strlen(words[i]);
        if (s->len - s->pos >= n && memcmp(s->text + s->pos, words[i], n) == 0)
            return n;
    }
    return 0;
}

static int note_word(struct scan *s, size_t len)
{
    if (s->n_words == s->cap_words) {
        size_t cap = s->cap_words ? s->cap_words * 2 : 16;
        struct word *p = realloc(s->words, cap * sizeof *p);
        if (!p)
            return err_set(s->e, ERR_NOMEM, "%s: out of memory", s->what);
        s->words = p;
        s->cap_words = cap;
    }
    s->words[s->n_words++] = (struct word){s->pos, len};
    s->pos += len;
    return 0;
}

static int scan_scalar(struct scan *s)
{
    int c = peek(s);
    size_t word = python_word(s);
    if (word)
        return note_word(s, word);
    if (c == '"')
        return scan_string(s);
    if (c == '-' || is_digit(c))
        return scan_number(s);
    return scan_word(s, c == 't' ? "true" : c == 'f' ? "false" : "null");
}

static int scan_key(struct scan *s)
{
    skip_space(s);
    int rc = scan_string(s);
    if (rc)
        return rc;
    skip_space(s);
    if (peek(s) != ':')
        return fail(s, "':' is expected after a key");
    s->pos++;
    return 0;
}

/* The open levels are bits of `arrays` (1: array, 0: object), the innermost in bit 0. */
static int scan_value(struct scan *s)
{
    uint64_t arrays = 0;
    unsigned depth = 0;
    for (;;) {
        skip_space(s);
        int rc, c = peek(s);
        if (++s->n_values > s->max_values)
            return err_set(s->e, ERR_FORMAT, "%s: more than %zu values, the most that is read of this file",
                           s->what, s->max_values);
        if (c == '{' || c == '[') {
            if (depth++ == MAX_DEPTH)
                return fail(s, "more than 64 levels");
            arrays = arrays << 1 | (c == '[');
            s->pos++;
            skip_space(s);
            if (peek(s) != (c == '[' ? ']' : '}')) {
                rc = c == '{' ? scan_key(s) : 0;
                if (rc)
                    return rc;
                continue;
            }
        } else {
            rc = scan_scalar(s);
            if (rc)
                return rc;
        }
        /* a value is complete, or an empty container is about to close */
        for (;; s->pos++) {
            if (depth == 0)
                return 0;
            skip_space(s);
            if (peek(s) != (arrays & 1 ? ']' : '}'))
                break;
            depth--;
            arrays >>= 1;
        }
        if (peek(s) != ',')
            return fail(s, arrays & 1 ? "',' or ']' is expected" : "',' or '}' is expected");
        s->pos++;
        rc = arrays & 1 ? 0 : scan_key(s);
        if (rc)
            return rc;
    }
}

static int scan_document(struct scan *s)
{
    if (s->len >= 3 && memcmp(s->text, "\xef\xbb\xbf", 3) == 0)
        return fail(s, "a byte order mark; save the file as UTF-8 without one");
    size_t good = utf8_prefix(s->text, s->len);
    if (good < s->len)
        return fail_at(s, good, "not UTF-8");
    int rc = scan_value(s);
    if (rc)
        return rc;
    skip_space(s);
    return s->pos < s->len ? fail(s, "trailing data after the value") : 0;
}

/* --- the tree --- */

struct walk {
    const struct scan *scan;
    size_t next_number;
};

/* Keep the last value of each key. */
static int drop_repeated(cJSON *object, const struct scan *s)
{
    struct strmap seen = {0};
    int rc = 0;
    cJSON *last = object->child ? object->child->prev : NULL; /* the list is circular backwards */
    for (cJSON *c = last, *before; c && rc == 0; c = before) {
        bool existing = false;
        before = c == object->child ? NULL : c->prev;
        rc = strmap_put(&seen, c->string, strlen(c->string), 0, &existing);
        if (rc == 0 && existing)
            cJSON_Delete(cJSON_DetachItemViaPointer(object, c));
    }
    strmap_release(&seen);
    return rc ? err_set(s->e, ERR_NOMEM, "%s: out of memory", s->what) : 0;
}

static int check_keys(const cJSON *object, const struct scan *s)
{
    size_t n = 0;
    for (const cJSON *c = object->child; c; c = c->next)
        n++;
    const char *twice = NULL;
    if (n <= 8) { /* a table costs more than the few comparisons */
        for (const cJSON *c = object->child; c && !twice; c = c->next)
            for (const cJSON *d = c->next; d && !twice; d = d->next)
                if (strcmp(c->string, d->string) == 0)
                    twice = c->string;
    } else {
        struct strmap seen = {0};
        int rc = strmap_reserve(&seen, n);
        for (const cJSON *c = object->child; c && !twice && rc == 0; c = c->next) {
            bool existing;
            rc = strmap_put(&seen, c->string, strlen(c->string), 0, &existing);
            if (rc == 0 && existing)
                twice = c->string;
        }
        strmap_release(&seen);
        if (rc)
            return err_set(s->e, ERR_NOMEM, "%s: out of memory", s->what);
    }
    if (twice)
        return err_set(s->e, ERR_FORMAT, "%s: duplicate key '%.200s'", s->what, twice);
    return 0;
}

/* Recursion is bounded by MAX_DEPTH. `valueint`, which cJSON itself deprecates, becomes "is an exact
 * integer". */
static int walk_tree(struct walk *w, cJSON *node)
{
    if (cJSON_IsNumber(node)) {
        assert(w->next_number < w->scan->n_numbers);
        node->valueint = w->scan->is_integer[w->next_number++];
        if (!isfinite(node->valuedouble))
            return err_set(w->scan->e, ERR_FORMAT, "%s: a number is too large for a double", w->scan->what);
        return 0;
    }
    int rc = cJSON_IsObject(node) && !w->scan->python ? check_keys(node, w->scan) : 0;
    for (cJSON *c = node->child; c && rc == 0; c = c->next)
        rc = walk_tree(w, c);
    return rc == 0 && cJSON_IsObject(node) && w->scan->python ? drop_repeated(node, w->scan) : rc;
}

/* The text with its words in quotes; malloc'ed. NULL: no memory. */
static char *quote_words(const struct scan *s, size_t *len)
{
    char *out = malloc(s->len + 2 * s->n_words + 1);
    size_t from = 0, n = 0;
    for (size_t i = 0; out && i <= s->n_words; i++) {
        size_t to = i < s->n_words ? s->words[i].pos : s->len;
        memcpy(out + n, s->text + from, to - from);
        n += to - from;
        from = to;
        if (i == s->n_words)
            break;
        out[n++] = '"';
        memcpy(out + n, s->text + from, s->words[i].len);
        n += s->words[i].len;
        from += s->words[i].len;
        out[n++] = '"';
    }
    *len = n;
    return out;
}

/* How a text is to be read. */
struct manner {
    size_t max_values;
    bool python;
};

static int parse(struct json_doc **out, const char *text, size_t len, struct manner manner, const char *what,
                 struct err *e)
{
    struct scan s = {.what = what,
                     .text = (const unsigned char *)text,
                     .len = len,
                     .max_values = manner.max_values,
                     .python = manner.python,
                     .e = e};
    char *quoted = NULL;
    struct json_doc *d = NULL;
    int rc = foreign_refuse(what, text, len, FOREIGN_GGUF, "a JSON file", e);
    if (rc == 0)
        rc = scan_document(&s);
    if (rc)
        goto done;
    rc = ERR_NOMEM;
    d = calloc(1, sizeof *d);
    if (d && s.n_words)
        text = quoted = quote_words(&s, &len);
    if (d && text)
        d->root = cJSON_ParseWithLengthOpts(text, len, NULL, 0);
    if (!d || !d->root) { /* the scanner accepted the text, so only memory can be missing */
        err_set(e, ERR_NOMEM, "%s: out of memory", what);
        goto done;
    }
    struct walk w = {.scan = &s};
    rc = walk_tree(&w, d->root);
    if (rc)
        goto done;
    *out = d;
    d = NULL;
done:
    json_free(d);
    free(s.is_integer);
    free(s.words);
    free(quoted);
    return rc;
}

int json_parse(struct json_doc **out, const char *text, size_t len, const char *what, struct err *e)
{
    return parse(out, text, len, (struct manner){MAX_VALUES, false}, what, e);
}

int json_parse_python(struct json_doc **out, const char *text, size_t len, const char *what, struct err *e)
{
    return parse(out, text, len, (struct manner){MAX_VALUES, true}, what, e);
}

static int load(struct json_doc **out, const char *path, size_t max_bytes, struct manner manner,
                struct err *e)
{
    struct filemap m;
    int rc = filemap_open(&m, path, e);
    if (rc)
        return rc;
    if (max_bytes == 0)
        max_bytes = DEFAULT_MAX;
    if (m.size > max_bytes)
        rc = err_set(e, ERR_FORMAT, "%s: %zu bytes are too many for this JSON file; at most %zu are read",
                     path, m.size, max_bytes);
    else
        rc = parse(out, m.data ? (const char *)m.data : "", m.size, manner, path, e);
    filemap_close(&m);
    return rc;
}

int json_load(struct json_doc **out, const char *path, size_t max_bytes, struct err *e)
{
    return load(out, path, max_bytes, (struct manner){MAX_VALUES, false}, e);
}

int json_load_python(struct json_doc **out, const char *path, size_t max_bytes, struct err *e)
{
    return load(out, path, max_bytes, (struct manner){MAX_VALUES, true}, e);
}

int json_load_limited(struct json_doc **out, const char *path, size_t max_bytes, size_t max_values,
                      struct err *e)
{
    return load(out, path, max_bytes, (struct manner){max_values, false}, e);
}

void json_free(struct json_doc *d)
{
    if (!d)
        return;
    cJSON_Delete(d->root);
    free(d);
}

/* --- access: a struct json is a cJSON node --- */

static const cJSON *node_of(const struct json *j)
{
    return (const cJSON *)(const void *)j;
}

static const struct json *json_of(const cJSON *c)
{
    return (const struct json *)(const void *)c;
}

const struct json *json_root(const struct json_doc *d)
{
    return d ? json_of(d->root) : NULL;
}

bool json_is_object(const struct json *j)
{
    return cJSON_IsObject(node_of(j));
}

bool json_is_array(const struct json *j)
{
    return cJSON_IsArray(node_of(j));
}

bool json_is_string(const struct json *j)
{
    return cJSON_IsString(node_of(j));
}

bool json_is_number(const struct json *j)
{
    return cJSON_IsNumber(node_of(j));
}

bool json_is_bool(const struct json *j)
{
    return cJSON_IsBool(node_of(j));
}

bool json_is_null(const struct json *j)
{
    return cJSON_IsNull(node_of(j));
}

const struct json *json_get(const struct json *object, const char *key)
{
    if (!json_is_object(object))
        return NULL;
    return json_of(cJSON_GetObjectItemCaseSensitive(node_of(object), key));
}

const struct json *json_first(const struct json *container)
{
    return json_is_object(container) || json_is_array(container) ? json_of(node_of(container)->child) : NULL;
}

const struct json *json_next(const struct json *child)
{
    return child ? json_of(node_of(child)->next) : NULL;
}

const char *json_key(const struct json *child)
{
    return child ? node_of(child)->string : NULL;
}

size_t json_n_children(const struct json *container)
{
    size_t n = 0;
    for (const struct json *c = json_first(container); c; c = json_next(c))
        n++;
    return n;
}

const char *json_string(const struct json *j)
{
    return json_is_string(j) ? node_of(j)->valuestring : NULL;
}

bool json_int(const struct json *j, int64_t *out)
{
    if (!json_is_number(j) || !node_of(j)->valueint)
        return false;
    *out = (int64_t)node_of(j)->valuedouble;
    return true;
}

bool json_uint(const struct json *j, uint64_t *out)
{
    int64_t v;
    if (!json_int(j, &v) || v < 0)
        return false;
    *out = (uint64_t)v;
    return true;
}

bool json_number(const struct json *j, double *out)
{
    if (!json_is_number(j))
        return false;
    *out = node_of(j)->valuedouble;
    return true;
}

bool json_bool(const struct json *j, bool *out)
{
    if (!json_is_bool(j))
        return false;
    *out = cJSON_IsTrue(node_of(j));
    return true;
}
