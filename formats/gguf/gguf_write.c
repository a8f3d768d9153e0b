/* gguf_write.c - layout and header of a GGUF version 3 file; see gguf_write.h.
 *
 * The header is produced by one routine that runs twice: first it only counts, then it fills a buffer of
 * exactly that size, so that counting and writing cannot disagree. */
#include "gguf_write.h"

#include "formats/utf8.h"
#include "libquant/base/checked.h"
#include "libquant/base/strmap.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

struct sink {
    uint8_t *data; /* NULL: count only */
    uint64_t n;
};

static void put(struct sink *s, const void *data, uint64_t n)
{
    if (s->data && n)
        memcpy(s->data + s->n, data, n);
    s->n += n;
}

static void put_u32(struct sink *s, uint32_t v)
{
    put(s, &v, sizeof v);
}

static void put_u64(struct sink *s, uint64_t v)
{
    put(s, &v, sizeof v);
}

static void put_string(struct sink *s, const char *text, uint64_t n)
{
    put_u64(s, n);
    put(s, text, n);
}

static void put_value(struct sink *s, const struct gguf_value *v)
{
    float f;
    switch (v->type) {
    case GGUF_STRING: put_string(s, v->s.data, v->s.len); break;
    case GGUF_F32:
        f = (float)v->f;
        put(s, &f, sizeof f);
        break;
    case GGUF_F64: put(s, &v->f, sizeof v->f); break;
    case GGUF_ARRAY:
        put_u32(s, v->a.elem);
        put_u64(s, v->a.n);
        if (v->a.elem == GGUF_STRING) {
            const struct gguf_string *strings = v->a.data;
            for (uint64_t i = 0; i < v->a.n; i++)
                put_string(s, strings[i].data, strings[i].len);
        } else {
            put(s, v->a.data, v->a.n * gguf_type_size(v->a.elem));
        }
        break;
    default: put(s, &v->u, gguf_type_size(v->type)); break; /* little-endian: the low bytes come first */
    }
}

static void put_header(struct sink *s, const struct gguf_meta *meta, const struct gguf_out_tensor *tensors,
                       size_t n_tensors, uint64_t data_start)
{
    put(s, "GGUF", 4);
    put_u32(s, 3);
    put_u64(s, n_tensors);
    put_u64(s, gguf_meta_n(meta));
    for (size_t i = 0; i < gguf_meta_n(meta); i++) {
        const struct gguf_value *v = gguf_meta_value(meta, i);
        put_string(s, gguf_meta_key(meta, i), strlen(gguf_meta_key(meta, i)));
        put_u32(s, v->type);
        put_value(s, v);
    }
    for (size_t i = 0; i < n_tensors; i++) {
        const struct gguf_out_tensor *t = &tensors[i];
        put_string(s, t->name, strlen(t->name));
        put_u32(s, t->n_dims);
        for (uint32_t d = 0; d < t->n_dims; d++)
            put_u64(s, t->ne[d]);
        put_u32(s, (uint32_t)t->type);
        put_u64(s, t->offset - data_start);
    }
}

static int check_string(const char *key, uint64_t n, struct err *e)
{
    if (n > GGUF_MAX_STRING)
        return err_set(e, ERR_ARG,
                       "key '%s': a string of %" PRIu64 " bytes; at most %" PRIu64 " can be stored", key, n,
                       GGUF_MAX_STRING);
    return 0;
}

static int check_meta(const struct gguf_meta *meta, uint64_t *align, struct err *e)
{
    const struct gguf_value *a = gguf_meta_find(meta, "general.alignment");
    *align = a ? a->u : GGUF_DEFAULT_ALIGNMENT;
    if (a && (a->type != GGUF_U32 || *align == 0 || (*align & (*align - 1)) != 0))
        return err_set(e, ERR_ARG, "key 'general.alignment': must be a u32 that is a power of two");
    if (*align > GGUF_MAX_WRITE_ALIGNMENT)
        return err_set(e, ERR_ARG,
                       "key 'general.alignment': %" PRIu64
                       " would pad every tensor to that size; at most %d is written",
                       *align, GGUF_MAX_WRITE_ALIGNMENT);
    for (size_t i = 0; i < gguf_meta_n(meta); i++) {
        const char *key = gguf_meta_key(meta, i);
        const struct gguf_value *v = gguf_meta_value(meta, i);
        int rc = check_string(key, strlen(key), e);
        if (rc == 0 && v->type == GGUF_STRING)
            rc = check_string(key, v->s.len, e);
        if (rc == 0 && v->type == GGUF_ARRAY && v->a.n > GGUF_MAX_ARRAY)
            rc = err_set(e, ERR_ARG,
                         "key '%s': an array of %" PRIu64 " elements; at most %" PRIu64 " can be stored", key,
                         v->a.n, GGUF_MAX_ARRAY);
        if (rc == 0 && v->type == GGUF_ARRAY && v->a.elem == GGUF_STRING) {
            const struct gguf_string *strings = v->a.data;
            for (uint64_t k = 0; k < v->a.n && rc == 0; k++)
                rc = check_string(key, strings[k].len, e);
        }
        if (rc)
            return rc;
    }
    return 0;
}

/* Fill n_bytes, and pad the dimensions that are not stored with 1. */
static int check_tensor(struct gguf_out_tensor *t, struct err *e)
{
    size_t len = strlen(t->name);
    if (len == 0 || len > GGUF_MAX_NAME || !utf8_valid(t->name, len))
        return err_set(e, ERR_ARG, "tensor name '%.200s': must be UTF-8 of 1 to %d bytes, has %zu", t->name,
                       GGUF_MAX_NAME, len);
    const struct qtype_info *info = qtype_info(t->type);
    if (!info || !info->in_files)
        return err_set(e, ERR_ARG, "tensor '%s': type %s (%d) cannot be stored in a file", t->name,
                       qtype_name(t->type), (int)t->type);
    if (t->n_dims > 4)
        return err_set(e, ERR_ARG, "tensor '%s': %" PRIu32 " dimensions; at most 4 can be stored", t->name,
                       t->n_dims);
    uint64_t n_elems = 1, n_bytes;
    for (uint32_t d = 0; d < 4; d++) {
        if (d >= t->n_dims)
            t->ne[d] = 1;
        if (t->ne[d] == 0 || !checked_mul(n_elems, t->ne[d], &n_elems) || n_elems >= INT64_MAX)
            return err_set(e, ERR_ARG,
                           "tensor '%s': impossible shape [%" PRIu64 ", %" PRIu64 ", %" PRIu64 ", %" PRIu64
                           "]",
                           t->name, t->ne[0], t->ne[1], t->ne[2], t->ne[3]);
    }
    if (t->ne[0] % info->block_elems != 0)
        return err_set(e, ERR_ARG,
                       "tensor '%s': rows of %" PRIu64 " elements do not divide into blocks of %u (%s)",
                       t->name, t->ne[0], info->block_elems, info->name);
    if (!qtype_row_bytes(t->type, t->ne[0], &n_bytes) ||
        !checked_mul(n_bytes, n_elems / t->ne[0], &n_bytes) || n_bytes > INT64_MAX)
        return err_set(e, ERR_ARG, "tensor '%s': would be larger than 2^63 bytes", t->name);
    t->n_bytes = n_bytes;
    return 0;
}

static int check_unique(const struct gguf_out_tensor *tensors, size_t n_tensors, struct err *e)
{
    struct strmap names = {0};
    int rc = strmap_reserve(&names, n_tensors);
    bool existing = false;
    size_t i = 0;
    for (; i < n_tensors && rc == 0 && !existing; i++)
        rc = strmap_put(&names, tensors[i].name, strlen(tensors[i].name), i, &existing);
    strmap_release(&names);
    if (rc)
        return err_set(e, ERR_NOMEM, "tensor directory: out of memory");
    return existing ? err_set(e, ERR_ARG, "duplicate tensor '%s'", tensors[i - 1].name) : 0;
}

int gguf_layout(const struct gguf_meta *meta, struct gguf_out_tensor *tensors, size_t n_tensors,
                uint8_t **header, size_t *header_bytes, uint64_t *file_bytes, struct err *e)
{
    uint64_t align, start, pos;
    int rc = check_meta(meta, &align, e);
    for (size_t i = 0; i < n_tensors && rc == 0; i++)
        rc = check_tensor(&tensors[i], e);
    if (rc == 0)
        rc = check_unique(tensors, n_tensors, e);
    if (rc)
        return rc;
    struct sink s = {0};
    put_header(&s, meta, tensors, n_tensors, 0);
    if (!checked_align(s.n, align, &start))
        return err_set(e, ERR_ARG, "the header is too large");
    pos = start;
    for (size_t i = 0; i < n_tensors; i++) {
        tensors[i].offset = pos;
        if (!checked_add(pos, tensors[i].n_bytes, &pos) || !checked_align(pos, align, &pos) ||
            pos > INT64_MAX)
            return err_set(e, ERR_ARG, "tensor '%s': the file would be larger than 2^63 bytes",
                           tensors[i].name);
    }
    s = (struct sink){.data = calloc(1, start)};
    if (!s.data)
        return err_set(e, ERR_NOMEM, "header of %" PRIu64 " bytes: out of memory", start);
    put_header(&s, meta, tensors, n_tensors, start);
    *header = s.data;
    *header_bytes = start;
    *file_bytes = pos;
    return 0;
}
