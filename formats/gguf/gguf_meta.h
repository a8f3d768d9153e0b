/* gguf_meta.h - GGUF metadata as an ordered list of typed key/value pairs.
 *
 * The same list serves the reader, the writer, the converter (which builds one from a HuggingFace folder) and
 * the forward pass (which reads the model's shape from it). Order is kept; keys are unique. */
#ifndef KERF_GGUF_META_H
#define KERF_GGUF_META_H

#include "libquant/base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum gguf_type { /* ids fixed by the format */
                 GGUF_U8 = 0,
                 GGUF_I8 = 1,
                 GGUF_U16 = 2,
                 GGUF_I16 = 3,
                 GGUF_U32 = 4,
                 GGUF_I32 = 5,
                 GGUF_F32 = 6,
                 GGUF_BOOL = 7,
                 GGUF_STRING = 8,
                 GGUF_ARRAY = 9,
                 GGUF_U64 = 10,
                 GGUF_I64 = 11,
                 GGUF_F64 = 12,
                 GGUF_TYPE_COUNT = 13,
};

struct gguf_string {
    const char *data; /* borrowed from the list (or its reader's map); NOT NUL-terminated in general */
    uint64_t len;
};

struct gguf_value {
    enum gguf_type type;
    union {
        uint64_t u; /* U8..U64, BOOL */
        int64_t i;  /* I8..I64 */
        double f;   /* F32 (exactly widened), F64 */
        struct gguf_string s;
        struct {
            enum gguf_type elem; /* never ARRAY */
            uint64_t n;
            const void
                *data; /* packed elements as in the file, unaligned; for STRING: struct gguf_string[n] */
        } a;
    };
};

struct gguf_meta; /* owns keys and values (or borrows array bytes from a map, see gguf_meta_set) */

int gguf_meta_new(struct gguf_meta **out, struct err *e);
void gguf_meta_free(struct gguf_meta *m);
int gguf_meta_copy(struct gguf_meta **out, const struct gguf_meta *m, struct err *e); /* deep */

size_t gguf_meta_n(const struct gguf_meta *m);
const char *gguf_meta_key(const struct gguf_meta *m, size_t i); /* NUL-terminated; i < n */
const struct gguf_value *gguf_meta_value(const struct gguf_meta *m, size_t i);
const struct gguf_value *gguf_meta_find(const struct gguf_meta *m, const char *key); /* NULL if absent */

/* Set or replace in place (a replaced key keeps its position). Everything is copied. 0, ERR_NOMEM, or ERR_ARG
 * for an empty key, a key or string that is not UTF-8, a value that does not fit its type, or an array of
 * arrays. The strings of an array may be any bytes: vocabularies of real models hold pieces of characters. */
int gguf_meta_set(struct gguf_meta *m, const char *key, const struct gguf_value *v, struct err *e);
int gguf_meta_set_u32(struct gguf_meta *m, const char *key, uint32_t v, struct err *e);
int gguf_meta_set_i32(struct gguf_meta *m, const char *key, int32_t v, struct err *e);
int gguf_meta_set_u16(struct gguf_meta *m, const char *key, uint16_t v, struct err *e);
int gguf_meta_set_u64(struct gguf_meta *m, const char *key, uint64_t v, struct err *e);
int gguf_meta_set_f32(struct gguf_meta *m, const char *key, float v, struct err *e);
int gguf_meta_set_bool(struct gguf_meta *m, const char *key, bool v, struct err *e);
int gguf_meta_set_string(struct gguf_meta *m, const char *key, const char *v, struct err *e);
int gguf_meta_set_strings(struct gguf_meta *m, const char *key, const struct gguf_string *v, uint64_t n,
                          struct err *e);
int gguf_meta_set_array(struct gguf_meta *m, const char *key, enum gguf_type elem, const void *data,
                        uint64_t n,
                        struct err *e); /* elem: fixed-size types only; data packed little-endian */

/* True if it was there and is gone. False with the list unchanged when it was not, or when memory is refused.
 */
bool gguf_meta_remove(struct gguf_meta *m, const char *key);

/* For readers: append a key (the bytes of `key` are copied and must be non-empty, unique, UTF-8 and free of
 * NUL) whose string or array stays where it is, borrowed until the list is freed. ERR_FORMAT for a bad key.
 */
int gguf_meta_append_borrowed(struct gguf_meta *m, const char *key, size_t key_len,
                              const struct gguf_value *v, struct err *e);

/* For readers: `n` zeroed strings that live as long as the list; NULL when memory is refused. */
struct gguf_string *gguf_meta_new_strings(struct gguf_meta *m, uint64_t n);

/* Typed look-ups; false when absent or of another kind. The integer form accepts every integer width (value
 * must fit), the number form integers and floats; a bool is neither. */
bool gguf_meta_get_u64(const struct gguf_meta *m, const char *key, uint64_t *out);
bool gguf_meta_get_i64(const struct gguf_meta *m, const char *key, int64_t *out);
bool gguf_meta_get_f64(const struct gguf_meta *m, const char *key, double *out);
bool gguf_meta_get_bool(const struct gguf_meta *m, const char *key, bool *out);
bool gguf_meta_get_string(const struct gguf_meta *m, const char *key, struct gguf_string *out);

/* Element i of a numeric array as a double / signed integer; false when out of range or of another kind. The
 * elements of a bool array count as 0 and 1. */
bool gguf_array_f64(const struct gguf_value *v, uint64_t i, double *out);
bool gguf_array_i64(const struct gguf_value *v, uint64_t i, int64_t *out);

/* Element i of a string array; false when out of range or of another kind. */
bool gguf_array_string(const struct gguf_value *v, uint64_t i, struct gguf_string *out);

/* Same type and same bytes? */
bool gguf_value_equal(const struct gguf_value *a, const struct gguf_value *b);

/* Is this a string with exactly the text of `literal`? */
bool gguf_string_is(struct gguf_string s, const char *literal);

const char *gguf_type_name(enum gguf_type t); /* "u32", "string", ... ; "?" when unknown */
size_t gguf_type_size(enum gguf_type t);      /* bytes of one element; 0 for STRING and ARRAY */

#endif
