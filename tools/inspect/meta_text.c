/* meta_text.c - see meta_text.h. */
#include "meta_text.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static bool is_signed(enum gguf_type t)
{
    return t == GGUF_I8 || t == GGUF_I16 || t == GGUF_I32 || t == GGUF_I64;
}

size_t meta_escape(char out[5], unsigned char c)
{
    static const struct {
        char c, letter;
    } named[] = {{'\n', 'n'}, {'\r', 'r'}, {'\t', 't'}, {'\\', '\\'}};
    for (size_t i = 0; i < sizeof named / sizeof *named; i++)
        if (c == (unsigned char)named[i].c)
            return (size_t)snprintf(out, 5, "\\%c", named[i].letter);
    return (size_t)snprintf(out, 5, c < 0x20 || c == 0x7f ? "\\x%02x" : "%c", c);
}

/* Copy up to `max` bytes of a string as one printable line; a cut is marked. */
static size_t put_string(char *out, size_t size, struct gguf_string s, uint64_t max)
{
    uint64_t n = s.len < max ? s.len : max;
    while (n < s.len && n && ((unsigned char)s.data[n] & 0xc0) == 0x80)
        n--; /* not inside a character */
    size_t at = 0;
    for (uint64_t i = 0; i < n && at + 8 < size; i++) {
        char text[5];
        size_t len = meta_escape(text, (unsigned char)s.data[i]);
        memcpy(out + at, text, len);
        at += len;
    }
    if (n < s.len && at + 4 < size) {
        memcpy(out + at, "...", 3);
        at += 3;
    }
    if (size)
        out[at] = 0;
    return at;
}

static size_t put_scalar(char *out, size_t size, const struct gguf_value *v, uint64_t max_string)
{
    if (size < 40) {
        out[0] = 0;
        return 0;
    }
    if (v->type == GGUF_STRING)
        return put_string(out, size, v->s, max_string);
    if (v->type == GGUF_BOOL)
        return (size_t)snprintf(out, size, "%s", v->u ? "true" : "false");
    if (v->type == GGUF_F32 || v->type == GGUF_F64)
        return (size_t)snprintf(out, size, "%.*g", v->type == GGUF_F32 ? 9 : 17, v->f);
    return (size_t)(is_signed(v->type) ? snprintf(out, size, "%" PRId64, v->i)
                                       : snprintf(out, size, "%" PRIu64, v->u));
}

/* Element i of an array as a scalar value. */
static struct gguf_value element(const struct gguf_value *v, uint64_t i)
{
    struct gguf_value x = {.type = v->a.elem};
    int64_t n;
    double f;
    if (v->a.elem == GGUF_STRING)
        x.s = ((const struct gguf_string *)v->a.data)[i];
    else if ((v->a.elem == GGUF_F32 || v->a.elem == GGUF_F64) && gguf_array_f64(v, i, &f))
        x.f = f;
    else if (gguf_array_i64(v, i, &n))
        x.i = n;
    else if (v->a.elem == GGUF_U64)
        memcpy(&x.u, (const uint8_t *)v->a.data + 8 * i, 8); /* above the signed range */
    return x;
}

const char *meta_value_text(const struct gguf_value *v, char *out, size_t size)
{
    if (v->type != GGUF_ARRAY) {
        put_scalar(out, size, v, 70);
        return out;
    }
    size_t at = (size_t)snprintf(out, size, "[");
    for (uint64_t i = 0; i < v->a.n && i < 6 && at + 64 < size; i++) {
        struct gguf_value x = element(v, i);
        at += (size_t)snprintf(out + at, size - at, "%s", i ? ", " : "");
        at += put_scalar(out + at, size - at, &x, 16);
    }
    snprintf(out + at, size - at, "%s]", v->a.n > 6 ? ", ..." : "");
    return out;
}

const char *meta_type_text(const struct gguf_value *v, char *out, size_t size)
{
    if (v->type == GGUF_ARRAY)
        snprintf(out, size, "%s[%" PRIu64 "]", gguf_type_name(v->a.elem), v->a.n);
    else
        snprintf(out, size, "%s", gguf_type_name(v->type));
    return out;
}

/* A scalar whole: a text as it is, or escaped into a line. */
static void print_scalar(const struct gguf_value *v, bool escaped, FILE *out)
{
    char text[64];
    if (v->type != GGUF_STRING) {
        put_scalar(text, sizeof text, v, 0);
        fputs(text, out);
    } else if (!escaped) {
        fwrite(v->s.data, 1, v->s.len, out);
    } else {
        for (uint64_t i = 0; i < v->s.len; i++) {
            size_t n = meta_escape(text, (unsigned char)v->s.data[i]);
            fwrite(text, 1, n, out);
        }
    }
    putc('\n', out);
}

void meta_value_print(const struct gguf_value *v, FILE *out)
{
    if (v->type != GGUF_ARRAY) {
        print_scalar(v, false, out);
        return;
    }
    for (uint64_t i = 0; i < v->a.n; i++) {
        struct gguf_value x = element(v, i);
        print_scalar(&x, true, out);
    }
}

void meta_value_line(const struct gguf_value *v, FILE *out)
{
    if (v->type != GGUF_ARRAY) {
        print_scalar(v, true, out);
        return;
    }
    struct json_writer w;
    jw_begin(&w, out);
    w.one_line = true;
    meta_value_json(&w, v, UINT64_MAX);
}

void meta_value_json(struct json_writer *w, const struct gguf_value *v, uint64_t max_elems)
{
    switch (v->type) {
    case GGUF_STRING: jw_string_n(w, v->s.data, v->s.len); return;
    case GGUF_BOOL: jw_bool(w, v->u != 0); return;
    case GGUF_F32:
    case GGUF_F64: jw_double(w, v->f); return;
    case GGUF_ARRAY: break;
    default:
        if (is_signed(v->type))
            jw_int(w, v->i);
        else
            jw_uint(w, v->u);
        return;
    }
    if (v->a.n > max_elems) {
        jw_object(w);
        jw_key(w, "array"), jw_string(w, gguf_type_name(v->a.elem));
        jw_key(w, "n"), jw_uint(w, v->a.n);
        jw_end(w);
        return;
    }
    jw_array(w);
    for (uint64_t i = 0; i < v->a.n; i++) {
        struct gguf_value x = element(v, i);
        meta_value_json(w, &x, max_elems);
    }
    jw_end(w);
}

void meta_json_node(struct json_writer *w, const struct json *j)
{
    int64_t i;
    double d;
    bool b;
    if (json_is_object(j) || json_is_array(j)) {
        bool object = json_is_object(j);
        object ? jw_object(w) : jw_array(w);
        for (const struct json *c = json_first(j); c; c = json_next(c)) {
            if (object)
                jw_key(w, json_key(c));
            meta_json_node(w, c);
        }
        jw_end(w);
    } else if (json_is_string(j)) {
        jw_string(w, json_string(j));
    } else if (json_int(j, &i)) {
        jw_int(w, i);
    } else if (json_number(j, &d)) {
        jw_double(w, d);
    } else if (json_bool(j, &b)) {
        jw_bool(w, b);
    } else {
        jw_null(w);
    }
}

void meta_json_members(struct json_writer *w, const struct gguf_meta *m, uint64_t max_elems)
{
    for (size_t i = 0; i < gguf_meta_n(m); i++) {
        jw_key(w, gguf_meta_key(m, i));
        meta_value_json(w, gguf_meta_value(m, i), max_elems);
    }
}

void meta_json(struct json_writer *w, const struct gguf_meta *m, uint64_t max_elems)
{
    jw_object(w);
    meta_json_members(w, m, max_elems);
    jw_end(w);
}
