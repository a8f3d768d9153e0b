/* gguf_part.c - the header of one GGUF file: counts, metadata and tensor records; see gguf_part.h.
 *
 * Counts and lengths are compared with the bytes that remain before anything is allocated for them, so memory
 * is bounded by a small multiple of the file's size. Truth: specification, architectures 21.1 to 21.3. */
#include "gguf_part.h"

#include "formats/foreign.h"
#include "formats/utf8.h"
#include "gguf_write.h"
#include "libquant/base/checked.h"
#include "libquant/base/slice.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define MIN_KV_BYTES (8 + 1 + 4 + 1) /* key of one byte, type, value of one byte */

/* --- a cursor over the bytes of one part --- */

uint64_t gguf_part_remaining(const struct gguf_part *p)
{
    return p->map.size - p->pos;
}

static int too_short(const struct gguf_part *p, const char *what, uint64_t need, struct err *e)
{
    return err_set(e, ERR_FORMAT,
                   "%s: the file ends inside the header: %s at byte %" PRIu64 " needs %" PRIu64
                   " bytes, %" PRIu64 " are left",
                   p->path, what, p->pos, need, gguf_part_remaining(p));
}

static int take_u32(struct gguf_part *p, const char *what, uint32_t *out, struct err *e)
{
    if (gguf_part_remaining(p) < 4)
        return too_short(p, what, 4, e);
    *out = load_u32(p->map.data + p->pos);
    p->pos += 4;
    return 0;
}

static int take_u64(struct gguf_part *p, const char *what, uint64_t *out, struct err *e)
{
    if (gguf_part_remaining(p) < 8)
        return too_short(p, what, 8, e);
    *out = load_u64(p->map.data + p->pos);
    p->pos += 8;
    return 0;
}

static int take_string(struct gguf_part *p, const char *what, struct gguf_string *out, struct err *e)
{
    uint64_t n = 0;
    int rc = take_u64(p, what, &n, e);
    if (rc)
        return rc;
    if (n > GGUF_MAX_STRING)
        return err_set(e, ERR_FORMAT,
                       "%s: %s at byte %" PRIu64 ": a string of %" PRIu64 " bytes; at most %" PRIu64
                       " are allowed",
                       p->path, what, p->pos - 8, n, GGUF_MAX_STRING);
    if (n > gguf_part_remaining(p))
        return too_short(p, what, n, e);
    *out = (struct gguf_string){(const char *)p->map.data + p->pos, n};
    p->pos += n;
    return 0;
}

/* --- header and metadata --- */

static int take_version(struct gguf_part *p, struct err *e)
{
    if (p->map.size < 4)
        return err_set(e, ERR_FORMAT, "%s: not a GGUF file: only %zu bytes", p->path, p->map.size);
    const uint8_t *m = p->map.data;
    if (memcmp(m, "FUGG", 4) == 0)
        return err_set(e, ERR_UNSUPPORTED,
                       "%s: the magic is reversed (FUGG); only little-endian GGUF files are read", p->path);
    bool has_magic = memcmp(m, "GGUF", 4) == 0;
    int rc = has_magic
                 ? 0
                 : foreign_refuse(p->path, m, p->map.size, FOREIGN_TEXT | FOREIGN_PICKLE, "a GGUF file", e);
    if (rc)
        return rc;
    if (!has_magic)
        return err_set(e, ERR_FORMAT,
                       "%s: not a GGUF file: the magic is %02x %02x %02x %02x, expected 47 47 55 46", p->path,
                       m[0], m[1], m[2], m[3]);
    p->pos = 4;
    rc = take_u32(p, "the version", &p->version, e);
    if (rc)
        return rc;
    if (p->version != 0 && (p->version & 0xffff) == 0)
        return err_set(e, ERR_UNSUPPORTED, "%s: a big-endian GGUF file; only little-endian ones are read",
                       p->path);
    if (p->version == 1)
        return err_set(e, ERR_UNSUPPORTED, "%s: GGUF version 1 is no longer read; convert the model again",
                       p->path);
    if (p->version < 2 || p->version > 3)
        return err_set(e, p->version ? ERR_UNSUPPORTED : ERR_FORMAT,
                       "%s: GGUF version %" PRIu32 "; versions 2 and 3 are read", p->path, p->version);
    return 0;
}

static int take_counts(struct gguf_part *p, struct err *e)
{
    int rc = take_u64(p, "the number of tensors", &p->n_tensors, e);
    if (rc == 0)
        rc = take_u64(p, "the number of keys", &p->n_kv, e);
    if (rc)
        return rc;
    if (p->n_kv > gguf_part_remaining(p) / MIN_KV_BYTES)
        return err_set(e, ERR_FORMAT,
                       "%s: %" PRIu64 " keys cannot fit into the %" PRIu64 " bytes that are left", p->path,
                       p->n_kv, gguf_part_remaining(p));
    if (p->n_tensors > gguf_part_remaining(p) / GGUF_MIN_TENSOR_BYTES)
        return err_set(e, ERR_FORMAT,
                       "%s: %" PRIu64 " tensors cannot fit into the %" PRIu64 " bytes that are left", p->path,
                       p->n_tensors, gguf_part_remaining(p));
    return 0;
}

static int take_scalar(struct gguf_part *p, const char *what, struct gguf_value *v, struct err *e)
{
    size_t size = gguf_type_size(v->type);
    if (gguf_part_remaining(p) < size)
        return too_short(p, what, size, e);
    const uint8_t *d = p->map.data + p->pos;
    switch (v->type) {
    case GGUF_BOOL:
    case GGUF_U8: v->u = d[0]; break;
    case GGUF_I8: v->i = (int8_t)d[0]; break;
    case GGUF_U16: v->u = load_u16(d); break;
    case GGUF_I16: v->i = (int16_t)load_u16(d); break;
    case GGUF_U32: v->u = load_u32(d); break;
    case GGUF_I32: v->i = (int32_t)load_u32(d); break;
    case GGUF_F32: v->f = load_f32(d); break;
    case GGUF_F64: v->f = load_f64(d); break;
    default: v->u = load_u64(d); break; /* U64, I64: the same bits */
    }
    if (v->type == GGUF_BOOL && v->u > 1)
        return err_set(e, ERR_FORMAT, "%s: %s at byte %" PRIu64 ": a bool must be 0 or 1, found %" PRIu64,
                       p->path, what, p->pos, v->u);
    p->pos += size;
    return 0;
}

static int take_string_array(struct gguf_part *p, const char *what, struct gguf_value *v, struct err *e)
{
    if (v->a.n > gguf_part_remaining(p) / 8)
        return err_set(e, ERR_FORMAT,
                       "%s: %s: %" PRIu64 " strings cannot fit into the %" PRIu64 " bytes that are left",
                       p->path, what, v->a.n, gguf_part_remaining(p));
    struct gguf_string *strings = gguf_meta_new_strings(p->meta, v->a.n);
    if (!strings)
        return err_set(e, ERR_NOMEM, "%s: %s: out of memory", p->path, what);
    v->a.data = strings;
    int rc = 0;
    for (uint64_t i = 0; i < v->a.n && rc == 0; i++)
        rc = take_string(p, what, &strings[i], e);
    return rc;
}

static int take_array(struct gguf_part *p, const char *what, struct gguf_value *v, struct err *e)
{
    uint32_t elem = 0;
    int rc = take_u32(p, what, &elem, e);
    if (rc == 0)
        rc = take_u64(p, what, &v->a.n, e);
    if (rc)
        return rc;
    if (elem == GGUF_ARRAY)
        return err_set(e, ERR_FORMAT, "%s: %s: an array of arrays is not allowed", p->path, what);
    if (elem >= GGUF_TYPE_COUNT)
        return err_set(e, ERR_FORMAT, "%s: %s: unknown element type %" PRIu32, p->path, what, elem);
    if (v->a.n > GGUF_MAX_ARRAY)
        return err_set(e, ERR_FORMAT,
                       "%s: %s: an array of %" PRIu64 " elements; at most %" PRIu64 " are allowed", p->path,
                       what, v->a.n, GGUF_MAX_ARRAY);
    v->a.elem = (enum gguf_type)elem;
    if (elem == GGUF_STRING)
        return take_string_array(p, what, v, e);
    size_t size = gguf_type_size(v->a.elem);
    if (v->a.n > gguf_part_remaining(p) / size)
        return too_short(p, what, v->a.n * size, e);
    v->a.data = p->map.data + p->pos;
    for (uint64_t i = 0; elem == GGUF_BOOL && i < v->a.n; i++)
        if (p->map.data[p->pos + i] > 1)
            return err_set(e, ERR_FORMAT, "%s: %s at byte %" PRIu64 ": a bool must be 0 or 1, found %u",
                           p->path, what, p->pos + i, p->map.data[p->pos + i]);
    p->pos += v->a.n * size;
    return 0;
}

static int take_kv(struct gguf_part *p, uint64_t index, struct err *e)
{
    char what[160];
    struct gguf_string key;
    struct gguf_value v = {0};
    uint32_t type = 0;
    uint64_t at = p->pos;
    snprintf(what, sizeof what, "key %" PRIu64, index);
    int rc = take_string(p, what, &key, e);
    if (rc)
        return rc;
    snprintf(what, sizeof what, "key '%.*s'", key.len > 120 ? 120 : (int)key.len, key.data);
    rc = take_u32(p, what, &type, e);
    if (rc)
        return rc;
    if (type >= GGUF_TYPE_COUNT)
        return err_set(e, ERR_FORMAT, "%s: %s at byte %" PRIu64 ": unknown value type %" PRIu32, p->path,
                       what, at, type);
    v.type = (enum gguf_type)type;
    if (type == GGUF_STRING)
        rc = take_string(p, what, &v.s, e);
    else if (type == GGUF_ARRAY)
        rc = take_array(p, what, &v, e);
    else
        rc = take_scalar(p, what, &v, e);
    if (rc)
        return rc;
    rc = gguf_meta_append_borrowed(p->meta, key.data, key.len, &v, e);
    return rc ? err_context(e, rc, "%s: key %" PRIu64 " at byte %" PRIu64, p->path, index, at) : 0;
}

static int take_alignment(struct gguf_part *p, struct err *e)
{
    const struct gguf_value *v = gguf_meta_find(p->meta, "general.alignment");
    p->alignment = GGUF_DEFAULT_ALIGNMENT;
    if (!v)
        return 0;
    if (v->type != GGUF_U32)
        return err_set(e, ERR_FORMAT, "%s: key 'general.alignment': expected a u32, found %s", p->path,
                       gguf_type_name(v->type));
    if (v->u == 0 || (v->u & (v->u - 1)) != 0)
        return err_set(e, ERR_FORMAT, "%s: key 'general.alignment': %" PRIu64 " is not a power of two",
                       p->path, v->u);
    p->alignment = v->u;
    return 0;
}

int gguf_part_take_metadata(struct gguf_part *p, struct err *e)
{
    int rc = take_version(p, e);
    if (rc == 0)
        rc = take_counts(p, e);
    if (rc == 0)
        rc = gguf_meta_new(&p->meta, e);
    for (uint64_t i = 0; i < p->n_kv && rc == 0; i++)
        rc = take_kv(p, i, e);
    return rc ? rc : take_alignment(p, e);
}

/* --- the tensor directory --- */

static int take_name(struct arena *names, struct gguf_part *p, struct gguf_tensor *t, uint64_t index,
                     struct err *e)
{
    char what[64];
    struct gguf_string name;
    uint64_t at = p->pos;
    snprintf(what, sizeof what, "the name of tensor %" PRIu64, index);
    int rc = take_string(p, what, &name, e);
    if (rc)
        return rc;
    if (name.len == 0 || name.len > GGUF_MAX_NAME)
        return err_set(e, ERR_FORMAT, "%s: %s at byte %" PRIu64 " has %" PRIu64 " bytes; 1 to %d are allowed",
                       p->path, what, at, name.len, GGUF_MAX_NAME);
    if (!utf8_valid(name.data, name.len) || memchr(name.data, 0, name.len))
        return err_set(e, ERR_FORMAT, "%s: %s at byte %" PRIu64 " is not UTF-8 text", p->path, what, at);
    t->name = arena_strndup(names, name.data, name.len);
    return t->name ? 0 : err_set(e, ERR_NOMEM, "%s: out of memory", p->path);
}

static int take_shape(struct gguf_part *p, struct gguf_tensor *t, struct err *e)
{
    int rc = take_u32(p, t->name, &t->n_dims, e);
    if (rc)
        return rc;
    if (t->n_dims > 4)
        return err_set(e, ERR_FORMAT, "%s: tensor '%s': %" PRIu32 " dimensions; at most 4 are allowed",
                       p->path, t->name, t->n_dims);
    uint64_t n_elems = 1;
    for (uint32_t d = 0; d < 4; d++) {
        t->ne[d] = 1;
        rc = d < t->n_dims ? take_u64(p, t->name, &t->ne[d], e) : 0;
        if (rc)
            return rc;
        if (t->ne[d] == 0)
            return err_set(e, ERR_FORMAT, "%s: tensor '%s': dimension %" PRIu32 " is 0", p->path, t->name, d);
        if (!checked_mul(n_elems, t->ne[d], &n_elems) || n_elems >= INT64_MAX)
            return err_set(e, ERR_FORMAT,
                           "%s: tensor '%s': dimension %" PRIu32 " is %" PRIu64
                           ": the shape has 2^63 elements or more",
                           p->path, t->name, d, t->ne[d]);
    }
    return 0;
}

/* Names of ids that once were in files and were withdrawn; NULL for any other id. */
static const char *retired_name(uint32_t id)
{
    switch (id) {
    case 4: return "Q4_2";
    case 5: return "Q4_3";
    case 31: return "Q4_0_4_4";
    case 32: return "Q4_0_4_8";
    case 33: return "Q4_0_8_8";
    case 36: return "IQ4_NL_4_4";
    case 37: return "IQ4_NL_4_8";
    case 38: return "IQ4_NL_8_8";
    default: return NULL;
    }
}

static int take_type(struct gguf_part *p, struct gguf_tensor *t, struct err *e)
{
    uint32_t id = 0;
    int rc = take_u32(p, t->name, &id, e);
    if (rc)
        return rc;
    const struct qtype_info *info = qtype_info(id);
    if (!info && retired_name(id))
        return err_set(e, ERR_UNSUPPORTED,
                       "%s: tensor '%s': type %s (%" PRIu32
                       ") is retired; quantize the model again from its source",
                       p->path, t->name, retired_name(id), id);
    if (!info)
        return err_set(e, ERR_UNSUPPORTED, "%s: tensor '%s': unknown type %" PRIu32, p->path, t->name, id);
    if (!info->in_files)
        return err_set(e, ERR_FORMAT, "%s: tensor '%s': type %s is for activations only, never in files",
                       p->path, t->name, info->name);
    t->type = (enum qtype)id;
    if (t->ne[0] % info->block_elems != 0)
        return err_set(e, ERR_FORMAT,
                       "%s: tensor '%s': rows of %" PRIu64 " elements do not divide into blocks of %u (%s)",
                       p->path, t->name, t->ne[0], info->block_elems, info->name);
    if (!qtype_row_bytes(id, t->ne[0], &t->n_bytes) ||
        !checked_mul(t->n_bytes, gguf_tensor_n_elems(t) / t->ne[0], &t->n_bytes))
        return err_set(e, ERR_FORMAT, "%s: tensor '%s': its size does not fit 64 bits", p->path, t->name);
    return 0;
}

int gguf_part_take_tensor(struct gguf_part *p, struct arena *names, struct gguf_tensor *t, uint64_t index,
                          struct err *e)
{
    int rc = take_name(names, p, t, index, e);
    if (rc == 0)
        rc = take_shape(p, t, e);
    if (rc == 0)
        rc = take_type(p, t, e);
    if (rc == 0)
        rc = take_u64(p, t->name, &t->offset, e);
    return rc;
}
