/* gguf_api.c - see include/kerf/gguf.h: the reader behind names that an outside program may link. */
#include <kerf/gguf.h>

#include "gguf_read.h"
#include "libquant/api_error.h"

_Static_assert(KERF_GGUF_U8 == (int)GGUF_U8 && KERF_GGUF_I8 == (int)GGUF_I8 &&
                   KERF_GGUF_U16 == (int)GGUF_U16 && KERF_GGUF_I16 == (int)GGUF_I16 &&
                   KERF_GGUF_U32 == (int)GGUF_U32 && KERF_GGUF_I32 == (int)GGUF_I32 &&
                   KERF_GGUF_F32 == (int)GGUF_F32 && KERF_GGUF_BOOL == (int)GGUF_BOOL &&
                   KERF_GGUF_STRING == (int)GGUF_STRING && KERF_GGUF_ARRAY == (int)GGUF_ARRAY &&
                   KERF_GGUF_U64 == (int)GGUF_U64 && KERF_GGUF_I64 == (int)GGUF_I64 &&
                   KERF_GGUF_F64 == (int)GGUF_F64,
               "the public kinds are those of gguf_meta.h");

/* A kerf_gguf is the reader itself. */
static const struct gguf_reader *reader_of(const struct kerf_gguf *g)
{
    return (const struct gguf_reader *)g;
}

static const struct gguf_meta *meta_of(const struct kerf_gguf *g)
{
    return gguf_reader_meta(reader_of(g));
}

int kerf_gguf_open(struct kerf_gguf **out, const char *path, struct kerf_error *error)
{
    struct err e = {0};
    struct gguf_reader *r = NULL;
    int rc = gguf_reader_open(&r, path, NULL, &e);
    if (rc == 0)
        *out = (struct kerf_gguf *)r;
    return api_error(error, rc, &e);
}

void kerf_gguf_close(struct kerf_gguf *g)
{
    gguf_reader_close((struct gguf_reader *)g);
}

size_t kerf_gguf_n_tensors(const struct kerf_gguf *g)
{
    return gguf_reader_n_tensors(reader_of(g));
}

static struct kerf_gguf_tensor public_tensor(const struct gguf_tensor *t)
{
    if (!t)
        return (struct kerf_gguf_tensor){0};
    return (struct kerf_gguf_tensor){.name = t->name,
                                     .type = (enum kerf_type)t->type,
                                     .n_dims = t->n_dims,
                                     .dims = {t->ne[0], t->ne[1], t->ne[2], t->ne[3]},
                                     .data = t->data,
                                     .n_bytes = t->n_bytes};
}

struct kerf_gguf_tensor kerf_gguf_tensor_at(const struct kerf_gguf *g, size_t i)
{
    return public_tensor(i < kerf_gguf_n_tensors(g) ? gguf_reader_tensor(reader_of(g), i) : NULL);
}

struct kerf_gguf_tensor kerf_gguf_find_tensor(const struct kerf_gguf *g, const char *name)
{
    return public_tensor(gguf_reader_find(reader_of(g), name));
}

size_t kerf_gguf_n_keys(const struct kerf_gguf *g)
{
    return gguf_meta_n(meta_of(g));
}

const char *kerf_gguf_key_at(const struct kerf_gguf *g, size_t i)
{
    return i < kerf_gguf_n_keys(g) ? gguf_meta_key(meta_of(g), i) : NULL;
}

bool kerf_gguf_kind(const struct kerf_gguf *g, const char *key, enum kerf_gguf_kind *out)
{
    const struct gguf_value *v = gguf_meta_find(meta_of(g), key);
    if (v)
        *out = (enum kerf_gguf_kind)v->type;
    return v != NULL;
}

bool kerf_gguf_get_u64(const struct kerf_gguf *g, const char *key, uint64_t *out)
{
    return gguf_meta_get_u64(meta_of(g), key, out);
}

bool kerf_gguf_get_i64(const struct kerf_gguf *g, const char *key, int64_t *out)
{
    return gguf_meta_get_i64(meta_of(g), key, out);
}

bool kerf_gguf_get_f64(const struct kerf_gguf *g, const char *key, double *out)
{
    return gguf_meta_get_f64(meta_of(g), key, out);
}

bool kerf_gguf_get_bool(const struct kerf_gguf *g, const char *key, bool *out)
{
    return gguf_meta_get_bool(meta_of(g), key, out);
}

static bool give_string(bool found, struct gguf_string s, const char **text, size_t *n_bytes)
{
    if (found) {
        *text = s.data;
        *n_bytes = (size_t)s.len;
    }
    return found;
}

bool kerf_gguf_get_string(const struct kerf_gguf *g, const char *key, const char **text, size_t *n_bytes)
{
    struct gguf_string s = {0};
    return give_string(gguf_meta_get_string(meta_of(g), key, &s), s, text, n_bytes);
}

/* NULL when the key is absent or no array. */
static const struct gguf_value *array_of(const struct kerf_gguf *g, const char *key)
{
    const struct gguf_value *v = gguf_meta_find(meta_of(g), key);
    return v && v->type == GGUF_ARRAY ? v : NULL;
}

bool kerf_gguf_get_array(const struct kerf_gguf *g, const char *key, enum kerf_gguf_kind *element,
                         uint64_t *n)
{
    const struct gguf_value *v = array_of(g, key);
    if (v) {
        *element = (enum kerf_gguf_kind)v->a.elem;
        *n = v->a.n;
    }
    return v != NULL;
}

bool kerf_gguf_get_array_i64(const struct kerf_gguf *g, const char *key, uint64_t i, int64_t *out)
{
    const struct gguf_value *v = array_of(g, key);
    return v && gguf_array_i64(v, i, out);
}

bool kerf_gguf_get_array_f64(const struct kerf_gguf *g, const char *key, uint64_t i, double *out)
{
    const struct gguf_value *v = array_of(g, key);
    return v && gguf_array_f64(v, i, out);
}

bool kerf_gguf_get_array_string(const struct kerf_gguf *g, const char *key, uint64_t i, const char **text,
                                size_t *n_bytes)
{
    const struct gguf_value *v = array_of(g, key);
    struct gguf_string s = {0};
    return give_string(v && gguf_array_string(v, i, &s), s, text, n_bytes);
}
