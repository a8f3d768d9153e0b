/* plan.c - read a plan (plan.h): one line, one pattern, one type.
 *
 * A plan is text from outside: its size, its lines and its patterns are bounded, and every complaint names
 * the file and the line. Comments start with '#' at the beginning of a line or behind white space, so a
 * pattern may hold one. The first line may say "# kerf plan 1"; another number there is refused. */
#include "plan.h"

#include "pattern.h"

#include "formats/foreign.h"
#include "libquant/base/filemap.h"
#include "libquant/base/sha256.h"
#include "libquant/base/slice.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    PLAN_BYTES_MAX = 16 << 20,
    PLAN_LINES_MAX = 100000, /* the largest models have some thousands of tensors */
};

struct plan_line {
    char *text; /* the pattern, NUL-terminated */
    struct pattern *pattern;
    enum qtype type;
    bool whole; /* see pattern_new */
};

struct plan {
    struct plan_line *lines;
    size_t n, cap;
    char *name;                       /* of the file, for messages */
    char weights[65], importance[65]; /* of the head's comments; "" where it says nothing */
};

static bool is_blank(char c)
{
    return c == ' ' || c == '\t';
}

/* Next word of a line at *p; its length is 0 at the end of the line or of what stands before a comment. */
static struct slice next_word(const char **p, const char *end)
{
    const char *s = *p;
    while (s < end && is_blank(*s))
        s++;
    const char *word = s;
    if (s < end && *s != '#')
        while (s < end && !is_blank(*s))
            s++;
    *p = s;
    return (struct slice){(const uint8_t *)word, (size_t)(s - word)};
}

static int add_line(struct plan *plan, struct slice pattern, bool whole, enum qtype type, struct err *e)
{
    if (plan->n == PLAN_LINES_MAX)
        return err_set(e, ERR_FORMAT, "more than %d entries", PLAN_LINES_MAX);
    if (plan->n == plan->cap) {
        const size_t cap = plan->cap == 0 ? 64 : 2 * plan->cap;
        struct plan_line *lines = realloc(plan->lines, cap * sizeof *lines);
        if (lines == NULL)
            return err_set(e, ERR_NOMEM, "out of memory for a plan");
        plan->lines = lines;
        plan->cap = cap;
    }
    struct plan_line line = {.type = type, .whole = whole};
    int rc = pattern_new(&line.pattern, (const char *)pattern.data, pattern.len, whole, e);
    if (rc != 0)
        return rc == ERR_ARG ? ERR_FORMAT : rc;
    line.text = strndup((const char *)pattern.data, pattern.len);
    if (line.text == NULL) {
        pattern_free(line.pattern);
        return err_set(e, ERR_NOMEM, "out of memory for a plan");
    }
    plan->lines[plan->n++] = line;
    return 0;
}

/* "# kerf plan N" as the whole line: only 1 is known. Other comments say nothing. */
static int check_version(const char *line, size_t len, struct err *e)
{
    static const char head[] = "# kerf plan ";
    if (len < sizeof head || strncmp(line, head, sizeof head - 1) != 0)
        return 0;
    if (line[sizeof head - 1] == '1' && len == sizeof head)
        return 0;
    return err_set(e, ERR_UNSUPPORTED, "plan version '%.*s', expected 1",
                   (int)(len < 40 ? len + 1 - sizeof head : 16), line + sizeof head - 1);
}

/* "# weights HASH" and "# importance HASH", or "none", above the first entry: what a plan was measured with.
 * Anything else is a comment. */
static void read_origin(struct plan *plan, const char *line, size_t len)
{
    char text[128], key[16], value[66];
    if (plan->n > 0 || len >= sizeof text)
        return;
    snprintf(text, sizeof text, "%.*s", (int)len, line);
    if (sscanf(text, "# %15s %65s", key, value) != 2)
        return;
    const bool is_hash = strlen(value) == 64 && strspn(value, "0123456789abcdef") == 64;
    if (strcmp(key, "weights") == 0 && is_hash)
        memcpy(plan->weights, value, 65);
    else if (strcmp(key, "importance") == 0 && (is_hash || strcmp(value, "none") == 0))
        memcpy(plan->importance, value, strlen(value) + 1);
}

/* "REGEX=TYPE", as llama-quantize reads it from a --tensor-type-file: its expression is found anywhere in the
 * name. False: the word is no such rule. */
static bool split_rule(struct slice word, struct slice *pattern, enum qtype *type)
{
    char text[32];
    size_t n = word.len;
    while (n > 0 && word.data[n - 1] != '=')
        n--;
    if (n < 2 || word.len - n >= sizeof text)
        return false;
    snprintf(text, sizeof text, "%.*s", (int)(word.len - n), (const char *)word.data + n);
    *pattern = (struct slice){word.data, n - 1};
    return qtype_from_name(text, type);
}

/* A line of such rules; *n: how many there were. */
static int parse_rules(struct plan *plan, const char *p, const char *end, size_t *n, struct err *e)
{
    int rc = 0;
    struct slice word, pattern;
    enum qtype type;
    for (*n = 0; rc == 0 && (word = next_word(&p, end)).len > 0; ++*n) {
        if (!split_rule(word, &pattern, &type))
            return *n == 0
                       ? 0
                       : err_set(e, ERR_FORMAT, "'%.*s' is not of the form REGEX=TYPE, as what is before it",
                                 (int)(word.len < 100 ? word.len : 100), (const char *)word.data);
        rc = add_line(plan, pattern, false, type, e);
    }
    return rc;
}

static int parse_line(struct plan *plan, const char *line, size_t len, struct err *e)
{
    for (size_t i = 0; i < len; i++)
        if (((unsigned char)line[i] < ' ' && line[i] != '\t') || line[i] == 127)
            return err_set(e, ERR_FORMAT, "control character 0x%02x", (unsigned char)line[i]);
    const char *p = line, *end = line + len;
    size_t n_rules = 0;
    int rc = parse_rules(plan, line, end, &n_rules, e);
    if (rc != 0 || n_rules > 0)
        return rc;
    const struct slice pattern = next_word(&p, end);
    if (pattern.len == 0)
        return 0;
    const struct slice name = next_word(&p, end);
    if (name.len == 0)
        return err_set(e, ERR_FORMAT, "'%.*s' has no type after it",
                       (int)(pattern.len < 100 ? pattern.len : 100), (const char *)pattern.data);
    char text[32];
    enum qtype type;
    snprintf(text, sizeof text, "%.*s", (int)(name.len < 31 ? name.len : 31), (const char *)name.data);
    if (!qtype_from_name(text, &type))
        return err_set(e, ERR_FORMAT, "'%s' is not a tensor type (such as Q4_K or BF16)", text);
    if (next_word(&p, end).len != 0)
        return err_set(e, ERR_FORMAT, "more than a pattern and a type");
    return add_line(plan, pattern, true, type, e);
}

int plan_parse(struct plan **out, const char *text, size_t len, const char *what, struct err *e)
{
    if (len > PLAN_BYTES_MAX)
        return err_set(e, ERR_FORMAT, "%s: a plan of %zu bytes is too long (at most %d)", what, len,
                       PLAN_BYTES_MAX);
    int rc = foreign_refuse(what, text, len, FOREIGN_GGUF, "a plan", e);
    if (rc != 0)
        return rc;
    struct plan *plan = calloc(1, sizeof *plan);
    if (plan == NULL || (plan->name = strdup(what)) == NULL) {
        plan_free(plan);
        return err_set(e, ERR_NOMEM, "out of memory for a plan");
    }
    size_t number = 1;
    for (size_t at = 0; at < len; number++) {
        const char *line = text + at;
        const char *newline = memchr(line, '\n', len - at);
        size_t n = newline != NULL ? (size_t)(newline - line) : len - at;
        at += n + 1;
        if (n > 0 && line[n - 1] == '\r')
            n--;
        rc = number == 1 ? check_version(line, n, e) : 0;
        if (rc == 0)
            read_origin(plan, line, n);
        if (rc == 0)
            rc = parse_line(plan, line, n, e);
        if (rc != 0) {
            plan_free(plan);
            return err_context(e, rc, "%s: line %zu", what, number);
        }
    }
    *out = plan;
    return 0;
}

int plan_load(struct plan **out, const char *path, struct err *e)
{
    struct filemap map = {0};
    int rc = filemap_open(&map, path, e);
    if (rc != 0)
        return rc;
    rc = plan_parse(out, (const char *)map.data, map.size, path, e);
    filemap_close(&map);
    return rc;
}

void plan_free(struct plan *p)
{
    if (p == NULL)
        return;
    for (size_t i = 0; i < p->n; i++) {
        pattern_free(p->lines[i].pattern);
        free(p->lines[i].text);
    }
    free(p->lines);
    free(p->name);
    free(p);
}

const char *plan_name(const struct plan *p)
{
    return p->name;
}

size_t plan_n(const struct plan *p)
{
    return p->n;
}

const char *plan_pattern(const struct plan *p, size_t i)
{
    return p->lines[i].text;
}

enum qtype plan_type(const struct plan *p, size_t i)
{
    return p->lines[i].type;
}

bool plan_is_whole(const struct plan *p, size_t i)
{
    return p->lines[i].whole;
}

const char *plan_weights(const struct plan *p)
{
    return p->weights;
}

const char *plan_importance(const struct plan *p)
{
    return p->importance;
}

int plan_match(size_t *line, const struct plan *p, const char *tensor, struct err *e)
{
    size_t i = 0;
    for (; i < p->n; i++) {
        bool matches;
        int rc = pattern_test(&matches, p->lines[i].pattern, tensor, e);
        if (rc != 0)
            return err_context(e, rc, "plan entry %zu", i + 1);
        if (matches)
            break;
    }
    *line = i;
    return 0;
}

bool plan_find(const struct plan *p, const char *tensor, enum qtype *out)
{
    size_t i;
    if (plan_match(&i, p, tensor, NULL) != 0 || i == p->n)
        return false;
    *out = p->lines[i].type;
    return true;
}

void plan_hash(const struct plan *p, char out[65])
{
    struct sha256 s;
    sha256_init(&s);
    for (size_t i = 0; i < p->n; i++) {
        const char *type = qtype_name((uint32_t)p->lines[i].type);
        sha256_update(&s, p->lines[i].text, strlen(p->lines[i].text));
        sha256_update(&s, p->lines[i].whole ? " " : "=", 1);
        sha256_update(&s, type, strlen(type));
        sha256_update(&s, "\n", 1);
    }
    sha256_final_hex(&s, out);
}
