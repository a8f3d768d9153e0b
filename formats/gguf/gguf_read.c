/* gguf_read.c - see gguf_read.h: one map per part, one arena, one list of tensors.
 *
 * Counts and lengths are compared with the bytes that remain before anything is allocated for them, so memory
 * is bounded by a small multiple of the file's size. Where the format leaves room, what the runtime accepts
 * decides (offsets in record order without gaps, names of at most 63 bytes), and what would make it crash is
 * refused (dimensions of 0). */
#include "gguf_read.h"

#include "formats/utf8.h"
#include "gguf_write.h"
#include "libquant/base/arena.h"
#include "libquant/base/checked.h"
#include "libquant/base/filemap.h"
#include "libquant/base/slice.h"
#include "libquant/base/strmap.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MIN_KV_BYTES     (8 + 1 + 4 + 1)     /* key of one byte, type, value of one byte */
#define MIN_TENSOR_BYTES (8 + 1 + 4 + 4 + 8) /* name of one byte, no dimensions, type, offset */

struct part {
    const char *path; /* in the arena */
    struct filemap map;
    struct gguf_meta *meta;
    uint32_t version;
    uint64_t alignment;
    uint64_t n_tensors, n_kv;
    uint64_t pos; /* how far the header has been read */
};

struct gguf_reader {
    struct arena arena;
    struct part *parts;
    uint32_t n_parts;
    struct gguf_tensor *tensors; /* malloc'ed, in file order */
    size_t n_tensors, cap_tensors;
    struct strmap by_name;
    bool header_only;
};

/* --- a cursor over the bytes of one part --- */

static uint64_t remaining(const struct part *p)
{
    return p->map.size - p->pos;
}

static int too_short(const struct part *p, const char *what, uint64_t need, struct err *e)
{
    return err_set(e, ERR_FORMAT,
                   "%s: the file ends inside the header: %s at byte %" PRIu64 " needs %" PRIu64
                   " bytes, %" PRIu64 " are left",
                   p->path, what, p->pos, need, remaining(p));
}

static int take_u32(struct part *p, const char *what, uint32_t *out, struct err *e)
{
    if (remaining(p) < 4)
        return too_short(p, what, 4, e);
    *out = load_u32(p->map.data + p->pos);
    p->pos += 4;
    return 0;
}

static int take_u64(struct part *p, const char *what, uint64_t *out, struct err *e)
{
    if (remaining(p) < 8)
        return too_short(p, what, 8, e);
    *out = load_u64(p->map.data + p->pos);
    p->pos += 8;
    return 0;
}

static int take_string(struct part *p, const char *what, struct gguf_string *out, struct err *e)
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
    if (n > remaining(p))
        return too_short(p, what, n, e);
    *out = (struct gguf_string){(const char *)p->map.data + p->pos, n};
    p->pos += n;
    return 0;
}

/* --- header and metadata --- */

static int take_version(struct part *p, struct err *e)
{
    if (p->map.size < 4)
        return err_set(e, ERR_FORMAT, "%s: not a GGUF file: only %zu bytes", p->path, p->map.size);
    const uint8_t *m = p->map.data;
    if (memcmp(m, "FUGG", 4) == 0)
        return err_set(e, ERR_UNSUPPORTED,
                       "%s: the magic is reversed (FUGG); only little-endian GGUF files are read", p->path);
    if (memcmp(m, "GGUF", 4) != 0)
        return err_set(e, ERR_FORMAT,
                       "%s: not a GGUF file: the magic is %02x %02x %02x %02x, expected 47 47 55 46", p->path,
                       m[0], m[1], m[2], m[3]);
    p->pos = 4;
    int rc = take_u32(p, "the version", &p->version, e);
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

static int take_counts(struct part *p, struct err *e)
{
    int rc = take_u64(p, "the number of tensors", &p->n_tensors, e);
    if (rc == 0)
        rc = take_u64(p, "the number of keys", &p->n_kv, e);
    if (rc)
        return rc;
    if (p->n_kv > remaining(p) / MIN_KV_BYTES)
        return err_set(e, ERR_FORMAT,
                       "%s: %" PRIu64 " keys cannot fit into the %" PRIu64 " bytes that are left", p->path,
                       p->n_kv, remaining(p));
    if (p->n_tensors > remaining(p) / MIN_TENSOR_BYTES)
        return err_set(e, ERR_FORMAT,
                       "%s: %" PRIu64 " tensors cannot fit into the %" PRIu64 " bytes that are left", p->path,
                       p->n_tensors, remaining(p));
    return 0;
}

static int take_scalar(struct part *p, const char *what, struct gguf_value *v, struct err *e)
{
    size_t size = gguf_type_size(v->type);
    if (remaining(p) < size)
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

static int take_string_array(struct part *p, const char *what, struct gguf_value *v, struct err *e)
{
    if (v->a.n > remaining(p) / 8)
        return err_set(e, ERR_FORMAT,
                       "%s: %s: %" PRIu64 " strings cannot fit into the %" PRIu64 " bytes that are left",
                       p->path, what, v->a.n, remaining(p));
    struct gguf_string *strings = gguf_meta_new_strings(p->meta, v->a.n);
    if (!strings)
        return err_set(e, ERR_NOMEM, "%s: %s: out of memory", p->path, what);
    v->a.data = strings;
    int rc = 0;
    for (uint64_t i = 0; i < v->a.n && rc == 0; i++)
        rc = take_string(p, what, &strings[i], e);
    return rc;
}

static int take_array(struct part *p, const char *what, struct gguf_value *v, struct err *e)
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
    if (v->a.n > remaining(p) / size)
        return too_short(p, what, v->a.n * size, e);
    v->a.data = p->map.data + p->pos;
    for (uint64_t i = 0; elem == GGUF_BOOL && i < v->a.n; i++)
        if (p->map.data[p->pos + i] > 1)
            return err_set(e, ERR_FORMAT, "%s: %s at byte %" PRIu64 ": a bool must be 0 or 1, found %u",
                           p->path, what, p->pos + i, p->map.data[p->pos + i]);
    p->pos += v->a.n * size;
    return 0;
}

static int take_kv(struct part *p, uint64_t index, struct err *e)
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

static int take_alignment(struct part *p, struct err *e)
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

/* Everything up to the tensor directory. */
static int take_metadata(struct part *p, struct err *e)
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

static int take_name(struct gguf_reader *r, struct part *p, struct gguf_tensor *t, uint64_t index,
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
    t->name = arena_strndup(&r->arena, name.data, name.len);
    return t->name ? 0 : err_set(e, ERR_NOMEM, "%s: out of memory", p->path);
}

static int take_shape(struct part *p, struct gguf_tensor *t, struct err *e)
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

static int take_type(struct part *p, struct gguf_tensor *t, struct err *e)
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

/* One record; `offset` is relative to the data here, made absolute by place_tensors. */
static int take_tensor(struct gguf_reader *r, struct part *p, struct gguf_tensor *t, uint64_t index,
                       struct err *e)
{
    int rc = take_name(r, p, t, index, e);
    if (rc == 0)
        rc = take_shape(p, t, e);
    if (rc == 0)
        rc = take_type(p, t, e);
    if (rc == 0)
        rc = take_u64(p, t->name, &t->offset, e);
    return rc;
}

static int add_tensor(struct gguf_reader *r, const struct gguf_tensor *t, struct err *e)
{
    bool existing;
    if (r->n_tensors == r->cap_tensors) {
        size_t cap = r->cap_tensors ? r->cap_tensors * 2 : 256;
        struct gguf_tensor *grown = realloc(r->tensors, cap * sizeof *grown);
        if (!grown)
            return err_set(e, ERR_NOMEM, "%s: out of memory", r->parts[t->part].path);
        r->tensors = grown;
        r->cap_tensors = cap;
    }
    if (strmap_put(&r->by_name, t->name, strlen(t->name), r->n_tensors, &existing) != 0)
        return err_set(e, ERR_NOMEM, "%s: out of memory", r->parts[t->part].path);
    if (existing) {
        uint32_t other = gguf_reader_find(r, t->name)->part;
        return err_set(e, ERR_FORMAT, "%s: tensor '%s' stands twice%s%s", r->parts[t->part].path, t->name,
                       other == t->part ? "" : ", also in ", other == t->part ? "" : r->parts[other].path);
    }
    r->tensors[r->n_tensors++] = *t;
    return 0;
}

/* The data follows the directory, aligned, in record order without gaps; the padding of the last tensor may
 * be missing. Turns offsets into positions in the file. */
static int place_tensors(struct gguf_reader *r, struct part *p, size_t first, struct err *e)
{
    uint64_t start, expected = 0, pos, end;
    if (!checked_align(p->pos, p->alignment, &start))
        return err_set(e, ERR_FORMAT, "%s: no room for tensor data", p->path);
    for (size_t i = first; i < r->n_tensors; i++) {
        struct gguf_tensor *t = &r->tensors[i];
        if (t->offset != expected)
            return err_set(e, ERR_FORMAT,
                           "%s: tensor '%s': its data is at offset %" PRIu64 ", expected %" PRIu64
                           " (in record order, aligned to %" PRIu64 ", without gaps)",
                           p->path, t->name, t->offset, expected, p->alignment);
        if (!checked_add(start, expected, &pos) || !checked_add(pos, t->n_bytes, &end) ||
            !checked_add(expected, t->n_bytes, &expected) ||
            !checked_align(expected, p->alignment, &expected))
            return err_set(e, ERR_FORMAT, "%s: tensor '%s': its offset does not fit 64 bits", p->path,
                           t->name);
        bool inside = end <= p->map.size;
        if (!inside && !r->header_only)
            return err_set(e, ERR_FORMAT,
                           "%s: tensor '%s': its data ends at byte %" PRIu64 ", the file has %zu; is "
                           "it cut short?",
                           p->path, t->name, end, p->map.size);
        t->offset = pos;
        t->data = inside ? p->map.data + pos : NULL;
    }
    return 0;
}

static int take_directory(struct gguf_reader *r, uint32_t index, struct err *e)
{
    struct part *p = &r->parts[index];
    size_t first = r->n_tensors;
    int rc = 0;
    if (p->n_tensors > remaining(p) / MIN_TENSOR_BYTES) /* again: the metadata is behind us now */
        return err_set(e, ERR_FORMAT,
                       "%s: %" PRIu64 " tensors cannot fit into the %" PRIu64 " bytes that are left", p->path,
                       p->n_tensors, remaining(p));
    for (uint64_t i = 0; i < p->n_tensors && rc == 0; i++) {
        struct gguf_tensor t = {.part = index};
        rc = take_tensor(r, p, &t, i, e);
        if (rc == 0)
            rc = add_tensor(r, &t, e);
    }
    return rc ? rc : place_tensors(r, p, first, e);
}

/* --- split sets --- */

static int set_parts(struct gguf_reader *r, uint32_t n, struct err *e)
{
    r->parts = arena_array(&r->arena, n, sizeof *r->parts);
    if (!r->parts)
        return err_set(e, ERR_NOMEM, "out of memory");
    r->n_parts = n;
    return 0;
}

/* A split set has `count` in every part, each part its own number. */
static int check_part_keys(const struct gguf_reader *r, uint32_t index, struct err *e)
{
    const struct part *p = &r->parts[index];
    uint64_t no, count;
    if (!gguf_meta_get_u64(p->meta, "split.no", &no))
        return err_set(e, ERR_FORMAT, "%s: key 'split.no' is missing or not an integer", p->path);
    if (no != index)
        return err_set(e, ERR_FORMAT,
                       "%s: key 'split.no' is %" PRIu64 ", its name says %" PRIu32
                       "; the parts may have been renamed",
                       p->path, no, index);
    if (!gguf_meta_get_u64(p->meta, "split.count", &count) || count != r->n_parts)
        return err_set(e, ERR_FORMAT, "%s: key 'split.count' is not %" PRIu32 ", as the name of the set says",
                       p->path, r->n_parts);
    return 0;
}

static int check_total(const struct gguf_reader *r, struct err *e)
{
    for (uint32_t i = 0; i < r->n_parts; i++) {
        uint64_t total;
        bool there = gguf_meta_get_u64(r->parts[i].meta, "split.tensors.count", &total);
        if (!there && i == 0)
            return err_set(e, ERR_FORMAT, "%s: key 'split.tensors.count' is missing or not an integer",
                           r->parts[i].path);
        if (there && total != r->n_tensors)
            return err_set(e, ERR_FORMAT,
                           "%s: key 'split.tensors.count' is %" PRIu64 ", the %" PRIu32
                           " parts hold %zu tensors",
                           r->parts[i].path, total, r->n_parts, r->n_tensors);
    }
    return 0;
}

/* `given` is the opened part whose metadata has been read and whose name is `path`; it moves into the list.
 */
static int open_set(struct gguf_reader *r, struct part *given, const char *path, uint64_t count,
                    struct err *e)
{
    size_t prefix_len;
    uint32_t no, name_count;
    if (!gguf_split_parse(path, &prefix_len, &no, &name_count) || name_count != count)
        return err_set(e, ERR_FORMAT,
                       "%s: belongs to a set of %" PRIu64
                       " files, so its name must end in -00001-of-%05" PRIu64
                       ".gguf or the like; rename the parts back",
                       path, count, count);
    int rc = set_parts(r, name_count, e);
    if (rc)
        return rc;
    r->parts[no] = *given;
    *given = (struct part){0};
    for (uint32_t i = 0; i < r->n_parts && rc == 0; i++) {
        struct part *p = &r->parts[i];
        if (i != no) {
            p->path = arena_printf(&r->arena, "%.*s-%05" PRIu32 "-of-%05" PRIu32 ".gguf", (int)prefix_len,
                                   path, i + 1, r->n_parts);
            if (!p->path)
                return err_set(e, ERR_NOMEM, "%s: out of memory", path);
            rc = filemap_open(&p->map, p->path, e);
            if (rc)
                return err_context(e, rc, "%s: part %" PRIu32 " of %" PRIu32 " of its split set is needed",
                                   path, i + 1, r->n_parts);
            rc = take_metadata(p, e);
        }
        if (rc == 0)
            rc = check_part_keys(r, i, e);
        if (rc == 0)
            rc = take_directory(r, i, e);
    }
    return rc ? rc : check_total(r, e);
}

/* --- opening --- */

static int new_reader(struct gguf_reader **out, const struct gguf_read_options *opt, const char *what,
                      struct err *e)
{
    struct gguf_reader *r = calloc(1, sizeof *r);
    if (!r)
        return err_set(e, ERR_NOMEM, "%s: out of memory", what);
    r->header_only = opt && opt->header_only;
    *out = r;
    return 0;
}

static int open_single(struct gguf_reader *r, struct part *given, struct err *e)
{
    int rc = set_parts(r, 1, e);
    if (rc)
        return rc;
    r->parts[0] = *given;
    *given = (struct part){0};
    return take_directory(r, 0, e);
}

int gguf_reader_open(struct gguf_reader **out, const char *path, const struct gguf_read_options *opt,
                     struct err *e)
{
    struct gguf_reader *r = NULL;
    struct part given = {0};
    uint64_t count;
    int rc = new_reader(&r, opt, path, e);
    if (rc)
        return rc;
    given.path = arena_strdup(&r->arena, path);
    rc = given.path ? filemap_open(&given.map, path, e) : err_set(e, ERR_NOMEM, "%s: out of memory", path);
    if (rc == 0)
        rc = take_metadata(&given, e);
    if (rc)
        goto done;
    if ((opt && opt->single_part) || !gguf_meta_get_u64(given.meta, "split.count", &count) || count <= 1)
        rc = open_single(r, &given, e);
    else
        rc = open_set(r, &given, path, count, e);
    if (rc)
        goto done;
    *out = r;
    r = NULL;
done:
    gguf_meta_free(given.meta);
    filemap_close(&given.map);
    gguf_reader_close(r);
    return rc;
}

int gguf_reader_open_memory(struct gguf_reader **out, const void *data, size_t len, const char *what,
                            const struct gguf_read_options *opt, struct err *e)
{
    struct gguf_reader *r = NULL;
    int rc = new_reader(&r, opt, what, e);
    if (rc)
        return rc;
    /* The bytes stay the caller's: they are taken out of the part's map again before it could be unmapped. */
    struct part given = {.path = arena_strdup(&r->arena, what), .map = {data, len}};
    rc = given.path ? take_metadata(&given, e) : err_set(e, ERR_NOMEM, "%s: out of memory", what);
    if (rc == 0)
        rc = open_single(r, &given, e);
    if (r->n_parts)
        r->parts[0].map = (struct filemap){0};
    gguf_meta_free(given.meta);
    if (rc)
        gguf_reader_close(r);
    else
        *out = r;
    return rc;
}

void gguf_reader_close(struct gguf_reader *r)
{
    if (!r)
        return;
    for (uint32_t i = 0; i < r->n_parts; i++) {
        gguf_meta_free(r->parts[i].meta);
        filemap_close(&r->parts[i].map);
    }
    strmap_release(&r->by_name);
    free(r->tensors);
    arena_release(&r->arena);
    free(r);
}

uint32_t gguf_reader_version(const struct gguf_reader *r)
{
    return r->parts[0].version;
}

uint32_t gguf_reader_n_parts(const struct gguf_reader *r)
{
    return r->n_parts;
}

const char *gguf_reader_part_path(const struct gguf_reader *r, uint32_t part)
{
    return r->parts[part].path;
}

uint64_t gguf_reader_alignment(const struct gguf_reader *r)
{
    return r->parts[0].alignment;
}

const struct gguf_meta *gguf_reader_meta(const struct gguf_reader *r)
{
    return r->parts[0].meta;
}

size_t gguf_reader_n_tensors(const struct gguf_reader *r)
{
    return r->n_tensors;
}

const struct gguf_tensor *gguf_reader_tensor(const struct gguf_reader *r, size_t i)
{
    return &r->tensors[i];
}

const struct gguf_tensor *gguf_reader_find(const struct gguf_reader *r, const char *name)
{
    uint64_t i;
    return strmap_find(&r->by_name, name, strlen(name), &i) ? &r->tensors[i] : NULL;
}

bool gguf_is_gguf_file(const char *path)
{
    char magic[4];
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return false;
    bool is = read(fd, magic, 4) == 4 && (memcmp(magic, "GGUF", 4) == 0 || memcmp(magic, "FUGG", 4) == 0);
    close(fd);
    return is;
}
