/* json_write.c - the writing half of json.h: the streaming writer, and a parsed node back to text.
 *
 * cJSON's own printer is not used: it compares doubles with a tolerance, so what it writes may not read back
 * equal. */
#include "json.h"

#include "libquant/base/printed.h"
#include "utf8.h"

#include <assert.h>
#include <float.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define MAX_LEVELS 60

/* Shortest decimal that reads back as `v`. Any decimal of up to 15 digits survives the way through a double,
 * so %.15g (which drops trailing zeros) is the shortest if it reads back; only subnormals need fewer. */
static void format_double(char text[32], double v)
{
    for (int digits = fabs(v) < DBL_MIN ? 1 : 15; digits <= 17; digits++) {
        snprintf(text, 32, "%.*g", digits, v);
        if (strtod(text, NULL) == v)
            break;
    }
    for (char *p = text; *p; p++) /* the host program may have set a locale with a decimal comma */
        if (!strchr("0123456789+-e", *p))
            *p = '.';
}

/* A string's characters, escaped, without the quotes. */
static void put_text(FILE *f, const char *s, size_t n)
{
    while (n) {
        size_t good = utf8_prefix(s, n);
        for (size_t i = 0; i < good; i++) {
            unsigned char c = (unsigned char)s[i];
            const char *name = c == '"'    ? "\\\""
                               : c == '\\' ? "\\\\"
                               : c == '\n' ? "\\n"
                               : c == '\r' ? "\\r"
                               : c == '\t' ? "\\t"
                                           : NULL;
            if (name)
                fputs(name, f);
            else if (c < 0x20 || c == 0x7f)
                fprintf(f, "\\u%04x", c);
            else
                putc(c, f);
        }
        s += good;
        n -= good;
        if (n) {
            fputs("\xef\xbf\xbd", f);
            s++;
            n--;
        }
    }
}

static void put_string(FILE *f, const char *s, size_t n)
{
    putc('"', f);
    put_text(f, s, n);
    putc('"', f);
}

/* --- the writer --- */

void jw_begin(struct json_writer *w, FILE *file)
{
    memset(w, 0, sizeof *w);
    w->file = file;
}

static void new_line(struct json_writer *w)
{
    if (w->one_line) {
        putc(' ', w->file);
        return;
    }
    putc('\n', w->file);
    for (unsigned i = 0; i < w->depth; i++)
        fputs("  ", w->file);
}

/* What stands between the previous value and the next one. */
static void separate(struct json_writer *w, bool is_container)
{
    uint64_t bit = (uint64_t)1 << w->depth;
    if (w->after_key) {
        w->after_key = false;
        return;
    }
    if (w->depth == 0)
        return;
    bool first = !(w->has_item & bit);
    if (!first)
        putc(',', w->file);
    if (is_container || !(w->is_array & bit) || (w->is_broken & bit)) {
        new_line(w);
        w->is_broken |= bit;
    } else if (!first) {
        putc(' ', w->file);
    }
    w->has_item |= bit;
}

static void open_level(struct json_writer *w, bool is_array)
{
    assert(w->depth < MAX_LEVELS);
    separate(w, true);
    putc(is_array ? '[' : '{', w->file);
    w->depth++;
    uint64_t bit = (uint64_t)1 << w->depth;
    w->has_item &= ~bit;
    w->is_broken &= ~bit;
    w->is_array = is_array ? w->is_array | bit : w->is_array & ~bit;
}

void jw_object(struct json_writer *w)
{
    open_level(w, false);
}

void jw_array(struct json_writer *w)
{
    open_level(w, true);
}

void jw_end(struct json_writer *w)
{
    assert(w->depth > 0 && !w->after_key);
    uint64_t bit = (uint64_t)1 << w->depth;
    w->depth--;
    if (w->is_broken & bit)
        new_line(w);
    putc(w->is_array & bit ? ']' : '}', w->file);
    if (w->depth == 0)
        putc('\n', w->file);
}

void jw_key(struct json_writer *w, const char *key)
{
    assert(w->depth > 0 && !w->after_key);
    separate(w, false);
    put_string(w->file, key, strlen(key));
    fputs(": ", w->file);
    w->after_key = true;
}

void jw_joined(struct json_writer *w, size_t n, const char *(*part)(const void *ctx, size_t i),
               const void *ctx, const char *between)
{
    separate(w, false);
    putc('"', w->file);
    for (size_t i = 0; i < n; i++) {
        const char *text = part(ctx, i);
        put_text(w->file, between, i ? strlen(between) : 0);
        put_text(w->file, text, strlen(text));
    }
    putc('"', w->file);
}

void jw_string_n(struct json_writer *w, const char *s, size_t n)
{
    separate(w, false);
    if (s)
        put_string(w->file, s, n);
    else
        fputs("null", w->file);
}

void jw_string(struct json_writer *w, const char *s)
{
    jw_string_n(w, s, s ? strlen(s) : 0);
}

void jw_int(struct json_writer *w, int64_t v)
{
    separate(w, false);
    fprintf(w->file, "%" PRId64, v);
}

void jw_uint(struct json_writer *w, uint64_t v)
{
    separate(w, false);
    fprintf(w->file, "%" PRIu64, v);
}

void jw_double(struct json_writer *w, double v)
{
    char text[32] = "null";
    if (isfinite(v))
        format_double(text, v);
    separate(w, false);
    fputs(text, w->file);
}

void jw_bool(struct json_writer *w, bool v)
{
    separate(w, false);
    fputs(v ? "true" : "false", w->file);
}

void jw_null(struct json_writer *w)
{
    separate(w, false);
    fputs("null", w->file);
}

/* --- a parsed node as compact text --- */

/* Recursion is bounded by the parser's 64 levels. */
static void put_node(FILE *f, const struct json *j)
{
    double d;
    int64_t i;
    bool b;
    if (json_is_object(j) || json_is_array(j)) {
        bool is_array = json_is_array(j);
        putc(is_array ? '[' : '{', f);
        for (const struct json *c = json_first(j); c; c = json_next(c)) {
            if (!is_array) {
                put_string(f, json_key(c), strlen(json_key(c)));
                putc(':', f);
            }
            put_node(f, c);
            if (json_next(c))
                putc(',', f);
        }
        putc(is_array ? ']' : '}', f);
    } else if (json_int(j, &i)) { /* as digits: 1e+15 would no longer be an integer */
        fprintf(f, "%" PRId64, i);
    } else if (json_number(j, &d)) {
        char text[32];
        format_double(text, d);
        fputs(text, f);
        if (!strpbrk(text, ".e")) /* what was no integer must not become one */
            fputs(".0", f);
    } else if (json_is_string(j)) {
        put_string(f, json_string(j), strlen(json_string(j)));
    } else {
        fputs(json_bool(j, &b) ? b ? "true" : "false" : "null", f);
    }
}

char *json_to_text(const struct json *j)
{
    struct printed p;
    if (printed_begin(&p) != 0)
        return NULL;
    put_node(p.out, j);
    return printed_end(&p);
}

void jw_key_string(struct json_writer *w, const char *key, const char *v)
{
    jw_key(w, key);
    jw_string(w, v);
}

void jw_key_uint(struct json_writer *w, const char *key, uint64_t v)
{
    jw_key(w, key);
    jw_uint(w, v);
}

void jw_key_double(struct json_writer *w, const char *key, double v)
{
    jw_key(w, key);
    jw_double(w, v);
}
