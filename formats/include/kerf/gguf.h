/* kerf/gguf.h - a GGUF file, or a split set of them, as metadata and a directory of tensors.
 *
 *     struct kerf_gguf *g;
 *     if (kerf_gguf_open(&g, "model.gguf", &e) != 0) return report(&e);
 *     for (size_t i = 0; i < kerf_gguf_n_tensors(g); i++)
 *         show(kerf_gguf_tensor_at(g, i).name);
 *     kerf_gguf_close(g);
 *
 * Opening maps the file and checks all of it but the weights: after it succeeds every pointer below lies
 * inside the file. An open file does not change, so threads may share it. Whatever it hands out is borrowed
 * until kerf_gguf_close. */
#ifndef KERF_PUBLIC_GGUF_H
#define KERF_PUBLIC_GGUF_H

#include <kerf/quant.h>

#ifdef __cplusplus
extern "C" {
#endif

struct kerf_gguf;

/* Open `path`, a GGUF file of version 2 or 3; of a split set any part, the others are found by their names.
 * *out: caller frees with kerf_gguf_close. KERF_ERROR_FORMAT names key or tensor and byte;
 * KERF_ERROR_UNSUPPORTED: another version, big-endian, a type that is retired or unknown; KERF_ERROR_IO;
 * KERF_ERROR_MEMORY. */
KERF_API int kerf_gguf_open(struct kerf_gguf **out, const char *path, struct kerf_error *e);
KERF_API void kerf_gguf_close(struct kerf_gguf *g); /* NULL is allowed */

/* --- tensors --- */

struct kerf_gguf_tensor {
    const char *name; /* NULL: there is no such tensor */
    enum kerf_type type;
    uint32_t n_dims;
    uint64_t dims[4];    /* dims[0] is the length of a row, unused ones are 1 */
    const uint8_t *data; /* at any alignment */
    uint64_t n_bytes;
};

KERF_API size_t kerf_gguf_n_tensors(const struct kerf_gguf *g);
KERF_API struct kerf_gguf_tensor kerf_gguf_tensor_at(const struct kerf_gguf *g, size_t i); /* file order */
KERF_API struct kerf_gguf_tensor kerf_gguf_find_tensor(const struct kerf_gguf *g, const char *name);

/* --- metadata --- */

/* Ids as the files have them. */
enum kerf_gguf_kind {
    KERF_GGUF_U8 = 0,
    KERF_GGUF_I8 = 1,
    KERF_GGUF_U16 = 2,
    KERF_GGUF_I16 = 3,
    KERF_GGUF_U32 = 4,
    KERF_GGUF_I32 = 5,
    KERF_GGUF_F32 = 6,
    KERF_GGUF_BOOL = 7,
    KERF_GGUF_STRING = 8,
    KERF_GGUF_ARRAY = 9,
    KERF_GGUF_U64 = 10,
    KERF_GGUF_I64 = 11,
    KERF_GGUF_F64 = 12,
};

KERF_API size_t kerf_gguf_n_keys(const struct kerf_gguf *g);
KERF_API const char *kerf_gguf_key_at(const struct kerf_gguf *g, size_t i); /* NULL: i is too large */

/* The kind of a value; false when the key is absent. */
KERF_API bool kerf_gguf_kind(const struct kerf_gguf *g, const char *key, enum kerf_gguf_kind *out);

/* Values. False, with *out untouched, when the key is absent or its value is of another kind. The forms for
 * integers take every width, if the number fits; f64 takes integers and floats; a bool is neither. Strings
 * are not NUL-terminated. */
KERF_API bool kerf_gguf_get_u64(const struct kerf_gguf *g, const char *key, uint64_t *out);
KERF_API bool kerf_gguf_get_i64(const struct kerf_gguf *g, const char *key, int64_t *out);
KERF_API bool kerf_gguf_get_f64(const struct kerf_gguf *g, const char *key, double *out);
KERF_API bool kerf_gguf_get_bool(const struct kerf_gguf *g, const char *key, bool *out);
KERF_API bool kerf_gguf_get_string(const struct kerf_gguf *g, const char *key, const char **text,
                                   size_t *n_bytes);

/* Arrays: the kind of the elements and their number, and element i. The elements of a bool array are 0 and 1.
 */
KERF_API bool kerf_gguf_get_array(const struct kerf_gguf *g, const char *key, enum kerf_gguf_kind *element,
                                  uint64_t *n);
KERF_API bool kerf_gguf_get_array_i64(const struct kerf_gguf *g, const char *key, uint64_t i, int64_t *out);
KERF_API bool kerf_gguf_get_array_f64(const struct kerf_gguf *g, const char *key, uint64_t i, double *out);
KERF_API bool kerf_gguf_get_array_string(const struct kerf_gguf *g, const char *key, uint64_t i,
                                         const char **text, size_t *n_bytes);

#ifdef __cplusplus
}
#endif

#endif
