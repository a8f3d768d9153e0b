/* json.h - a guard over cJSON: size and depth caps, exact integers, duplicate keys and embedded NUL rejected;
 * and a small writer. cJSON itself is visible in json.c only. */
#ifndef KERF_JSON_H
#define KERF_JSON_H

#include "libquant/base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

struct json_doc; /* owns the tree */
struct json;     /* one node; borrowed until its document is freed */

/* Parse `len` bytes of UTF-8. `what` (a file name) opens every message. The grammar is RFC 8259 to the
 * letter: no comments, no trailing commas, no NaN or Infinity, no byte order mark. Also rejected with
 * ERR_FORMAT: bytes that are not UTF-8, more than 64 levels, more than 2^23 values, numbers of more than 63
 * characters or beyond a double, duplicate keys in one object, NUL inside strings, anything but white space
 * after the value. Linear in `len`. *out: caller frees with json_free. */
int json_parse(struct json_doc **out, const char *text, size_t len, const char *what, struct err *e);

/* Parse a whole file of at most `max_bytes` (0: 256 MiB). A missing file is ERR_IO. */
int json_load(struct json_doc **out, const char *path, size_t max_bytes, struct err *e);

/* The same for a file that only Python ever reads, by what its json module allows beyond the standard: NaN,
 * Infinity and -Infinity, which become strings of that text, so that whoever wants a number there refuses
 * them; and a key that stands twice, of which the last value counts. */
int json_load_python(struct json_doc **out, const char *path, size_t max_bytes, struct err *e);
int json_parse_python(struct json_doc **out, const char *text, size_t len, const char *what, struct err *e);

/* The same of a file that holds at most `max_values` values of any kind: no memory is taken for a tree that
 * is larger than that. */
int json_load_limited(struct json_doc **out, const char *path, size_t max_bytes, size_t max_values,
                      struct err *e);
void json_free(struct json_doc *d);
const struct json *json_root(const struct json_doc *d);

/* All accessors accept NULL and answer NULL/false/0 for it, so look-ups chain. */
bool json_is_object(const struct json *j);
bool json_is_array(const struct json *j);
bool json_is_string(const struct json *j);
bool json_is_number(const struct json *j);
bool json_is_bool(const struct json *j);
bool json_is_null(const struct json *j);

const struct json *json_get(const struct json *object,
                            const char *key);                /* linear; case-sensitive; NULL if absent */
const struct json *json_first(const struct json *container); /* first child of array or object */
const struct json *json_next(const struct json *child);
const char *json_key(const struct json *child);       /* key of an object's child */
size_t json_n_children(const struct json *container); /* counts: linear */

const char *json_string(const struct json *j); /* NULL if not a string */

/* Numbers written as integers, of magnitude up to 2^53; false otherwise. What counts is how the number is
 * written: "1.0" and "1e3" are not integers, as in Python. */
bool json_int(const struct json *j, int64_t *out);
bool json_uint(const struct json *j, uint64_t *out); /* the same, >= 0 */
bool json_number(const struct json *j, double *out);
bool json_bool(const struct json *j, bool *out);

/* The node as compact JSON text; malloc'ed, caller frees with free(). NULL when memory is refused. */
char *json_to_text(const struct json *j);

/* Writer: streams one value to a FILE with correct escaping and exact numbers. Not-a-number and infinities
 * are written as null. Commas and nesting are kept by the writer; two-space indentation, plain values of an
 * array stay on one line. Write errors are the FILE's: ask ferror at the end. */
struct json_writer {
    FILE *file; /* borrowed */
    unsigned depth;
    uint64_t has_item, is_array, is_broken; /* bit per level; at most 60 levels */
    bool after_key;
    bool one_line; /* set behind jw_begin: no line breaks inside the value, as JSON lines want it */
};

void jw_begin(struct json_writer *w, FILE *file);
void jw_object(struct json_writer *w);
void jw_array(struct json_writer *w);
void jw_end(struct json_writer *w); /* closes the innermost level; closing the outermost also ends the line */
void jw_key(struct json_writer *w, const char *key);
void jw_string(struct json_writer *w, const char *s); /* NULL: null. Invalid UTF-8 becomes U+FFFD */
/* One string of n parts, with `between` between them, without memory of its own. */
void jw_joined(struct json_writer *w, size_t n, const char *(*part)(const void *ctx, size_t i),
               const void *ctx, const char *between);
void jw_string_n(struct json_writer *w, const char *s, size_t n);
void jw_int(struct json_writer *w, int64_t v);
void jw_uint(struct json_writer *w, uint64_t v);
void jw_double(struct json_writer *w, double v); /* shortest form that reads back equal */
void jw_bool(struct json_writer *w, bool v);
void jw_null(struct json_writer *w);
/* A key and its value. */
void jw_key_string(struct json_writer *w, const char *key, const char *v);
void jw_key_uint(struct json_writer *w, const char *key, uint64_t v);
void jw_key_double(struct json_writer *w, const char *key, double v);

#endif
