/* safetensors_read.c - the strict reader: one rejection rule after another, in the order of the
 * specification, architectures 22.2, so that after opening no other module has to doubt a size again.
 *
 * Refuses to interpret: names and shapes are opaque, elements are bytes at any alignment.
 * Cost is that of sorting: 100000 tensors open in well under a second. */
#include "safetensors_read.h"

#include "formats/foreign.h"
#include "formats/json.h"
#include "libquant/base/arena.h"
#include "libquant/base/checked.h"
#include "libquant/base/filemap.h"
#include "libquant/base/slice.h"
#include "libquant/base/strmap.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define LENGTH_BYTES     8
#define MAX_HEADER_BYTES 100000000u /* the reference implementation's own limit */
#define METADATA_KEY     "__metadata__"

struct safetensors_reader {
    struct filemap map; /* empty when the bytes are the caller's */
    const uint8_t *base;
    size_t size;
    const char *path;
    struct arena arena; /* names, tensors, metadata */
    struct st_tensor *tensors;
    size_t n_tensors;
    const char **meta; /* key, value, key, value ... */
    size_t n_meta;
    struct strmap by_name; /* name -> index in tensors */
};

/* --- messages --------------------------------------------------------------------------------------------
 */

/* Names are as long as the file likes; a message shows this much of one. */
#define NAME_FMT "%.200s"

static const char *kind_of(const struct json *j)
{
    return !j                  ? "nothing"
           : json_is_object(j) ? "an object"
           : json_is_array(j)  ? "an array"
           : json_is_string(j) ? "a string"
           : json_is_number(j) ? "a number that is negative, fractional or above 2^53"
           : json_is_bool(j)   ? "true or false"
                               : "null";
}

/* "BF16 [151936, 2560]" in a fixed buffer. */
static const char *shape_text(char out[224], const struct st_tensor *t)
{
    size_t n = (size_t)snprintf(out, 224, "%s [", st_dtype_name(t->dtype));
    for (uint32_t i = 0; i < t->n_dims; i++)
        n += (size_t)snprintf(out + n, 224 - n, "%s%" PRIu64, i ? ", " : "", t->shape[i]);
    snprintf(out + n, 224 - n, "]");
    return out;
}

/* --- the header's bytes (rules 1 and 2) ------------------------------------------------------------------
 */

static bool is_json_space(uint8_t c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

static int find_header(struct slice *out, const struct safetensors_reader *r, struct err *e)
{
    int rc = foreign_refuse(r->path, r->base, r->size, FOREIGN_GGUF | FOREIGN_TEXT | FOREIGN_PICKLE,
                            "a safetensors file", e);
    if (rc)
        return rc;
    if (r->size < LENGTH_BYTES)
        return err_set(e, ERR_FORMAT, "%s: expected at least %d bytes of header length, the file has %zu",
                       r->path, LENGTH_BYTES, r->size);
    uint64_t n = load_u64(r->base);
    if (n > MAX_HEADER_BYTES)
        return err_set(e, ERR_FORMAT, "%s: header length %" PRIu64 " exceeds the format's limit of %u",
                       r->path, n, MAX_HEADER_BYTES);
    if (n > r->size - LENGTH_BYTES)
        return err_set(e, ERR_FORMAT,
                       "%s: header needs %" PRIu64 " bytes after the first %d, the file has %zu; truncated?",
                       r->path, n, LENGTH_BYTES, r->size - LENGTH_BYTES);
    const uint8_t *text = r->base + LENGTH_BYTES;
    size_t start = 0, end = (size_t)n;
    while (start < end && is_json_space(text[start]))
        start++;
    if (start == end || text[start] != '{')
        return err_set(e, ERR_FORMAT, "%s: header must begin with '{', found %s", r->path,
                       n == 0 ? "an empty header" : "another byte");
    while (is_json_space(text[end - 1]))
        end--;
    if (text[end - 1] != '}')
        return err_set(e, ERR_FORMAT,
                       "%s: header must end with '}' and then white space only, found byte 0x%02x at %zu",
                       r->path, text[end - 1], LENGTH_BYTES + end - 1);
    *out = (struct slice){text + start, end - start};
    return 0;
}

/* --- one tensor (rules 3, 4 and 6) -----------------------------------------------------------------------
 */

static int bad_field(const struct safetensors_reader *r, const char *name, const char *field,
                     const char *expected, const struct json *found, struct err *e)
{
    return err_set(e, ERR_FORMAT, "%s: tensor '" NAME_FMT "': %s must be %s, found %s", r->path, name, field,
                   expected, kind_of(found));
}

static int read_shape(struct st_tensor *t, const struct json *shape, const struct safetensors_reader *r,
                      struct err *e)
{
    if (!json_is_array(shape))
        return bad_field(r, t->name, "shape", "an array of whole numbers", shape, e);
    for (const struct json *j = json_first(shape); j; j = json_next(j)) {
        uint64_t v;
        if (!json_uint(j, &v))
            return bad_field(r, t->name, "every entry of shape", "a whole number", j, e);
        if (t->n_dims == ST_MAX_DIMS)
            return err_set(e, ERR_UNSUPPORTED,
                           "%s: tensor '" NAME_FMT "': at most %d dimensions are supported, found %zu",
                           r->path, t->name, ST_MAX_DIMS, json_n_children(shape));
        t->shape[t->n_dims++] = v;
    }
    return 0;
}

static int read_offsets(struct st_tensor *t, const struct json *offsets, const struct safetensors_reader *r,
                        struct err *e)
{
    const struct json *first = json_first(offsets), *second = json_next(first);
    if (!json_is_array(offsets) || !second || json_next(second)) {
        char found[40];
        snprintf(found, sizeof found, "an array of %zu", json_n_children(offsets));
        return err_set(e, ERR_FORMAT,
                       "%s: tensor '" NAME_FMT "': data_offsets must be an array of two whole numbers, "
                       "found %s",
                       r->path, t->name, json_is_array(offsets) ? found : kind_of(offsets));
    }
    uint64_t begin, end;
    if (!json_uint(first, &begin))
        return bad_field(r, t->name, "data_offsets[0]", "a whole number", first, e);
    if (!json_uint(second, &end))
        return bad_field(r, t->name, "data_offsets[1]", "a whole number", second, e);
    if (end < begin)
        return err_set(e, ERR_FORMAT,
                       "%s: tensor '" NAME_FMT "': data_offsets end %" PRIu64 " is before begin %" PRIu64,
                       r->path, t->name, end, begin);
    t->offset = begin; /* of the data section until resolve_tensors moves it */
    t->n_bytes = end - begin;
    return 0;
}

/* Shape times width, exactly the bytes that the offsets span. */
static int check_size(struct st_tensor *t, const struct safetensors_reader *r, struct err *e)
{
    char text[224];
    uint64_t n = 1, n_bits;
    /* A zero anywhere makes the tensor empty, yet the other sizes must still multiply without overflow:
     * the reference multiplies in order and refuses as well. */
    for (uint32_t i = 0; i < t->n_dims; i++)
        if (!checked_mul(n, t->shape[i], &n))
            return err_set(e, ERR_FORMAT, "%s: tensor '" NAME_FMT "': number of elements of %s overflows",
                           r->path, t->name, shape_text(text, t));
    if (!checked_mul(n, st_dtype_bits(t->dtype), &n_bits))
        return err_set(e, ERR_FORMAT, "%s: tensor '" NAME_FMT "': size of %s overflows", r->path, t->name,
                       shape_text(text, t));
    if (n_bits % 8 != 0)
        return err_set(e, ERR_FORMAT,
                       "%s: tensor '" NAME_FMT "': %s takes %" PRIu64 " bits, not a whole number of bytes",
                       r->path, t->name, shape_text(text, t), n_bits);
    if (n_bits / 8 != t->n_bytes)
        return err_set(e, ERR_FORMAT,
                       "%s: tensor '" NAME_FMT "': %s needs %" PRIu64 " bytes, data_offsets [%" PRIu64
                       ", %" PRIu64 "] span %" PRIu64,
                       r->path, t->name, shape_text(text, t), n_bits / 8, t->offset, t->offset + t->n_bytes,
                       t->n_bytes);
    t->n_elems = n;
    return 0;
}

static int read_tensor(struct st_tensor *t, const struct json *j, struct safetensors_reader *r, struct err *e)
{
    const char *name = json_key(j);
    *t = (struct st_tensor){.name = name};
    if (!json_is_object(j))
        return err_set(e, ERR_FORMAT, "%s: tensor '" NAME_FMT "': expected an object, found %s", r->path,
                       name, kind_of(j));
    /* One walk instead of three look-ups: an object of a million unknown fields costs no more than its size.
     * Fields beyond the three are ignored, as the reference does. */
    const struct json *dtype = NULL, *shape = NULL, *offsets = NULL;
    for (const struct json *f = json_first(j); f; f = json_next(f)) {
        const char *key = json_key(f);
        if (strcmp(key, "dtype") == 0)
            dtype = f;
        else if (strcmp(key, "shape") == 0)
            shape = f;
        else if (strcmp(key, "data_offsets") == 0)
            offsets = f;
    }
    if (!json_is_string(dtype))
        return bad_field(r, name, "dtype", "a string", dtype, e);
    if (!st_dtype_find(&t->dtype, json_string(dtype)))
        return err_set(e, ERR_FORMAT, "%s: tensor '" NAME_FMT "': dtype '%.40s' is not one of the format",
                       r->path, name, json_string(dtype));
    int rc = read_shape(t, shape, r, e);
    if (rc == 0)
        rc = read_offsets(t, offsets, r, e);
    if (rc == 0)
        rc = check_size(t, r, e);
    if (rc == 0) {
        t->name = arena_strdup(&r->arena, name);
        if (!t->name)
            rc = err_set(e, ERR_NOMEM, "%s: out of memory for tensor names", r->path);
    }
    return rc;
}

/* --- the whole header ------------------------------------------------------------------------------------
 */

static int read_metadata(struct safetensors_reader *r, const struct json *j, struct err *e)
{
    if (json_is_null(j))
        return 0;
    if (!json_is_object(j))
        return err_set(e, ERR_FORMAT, "%s: " METADATA_KEY " must be an object, found %s", r->path,
                       kind_of(j));
    size_t n = json_n_children(j);
    r->meta = arena_array(&r->arena, n ? n : 1, 2 * sizeof *r->meta);
    if (!r->meta)
        return err_set(e, ERR_NOMEM, "%s: out of memory for metadata", r->path);
    for (const struct json *v = json_first(j); v; v = json_next(v)) {
        if (!json_is_string(v))
            return err_set(e, ERR_FORMAT,
                           "%s: " METADATA_KEY " entry '" NAME_FMT "' must be a string, found %s", r->path,
                           json_key(v), kind_of(v));
        const char *key = arena_strdup(&r->arena, json_key(v));
        const char *value = arena_strdup(&r->arena, json_string(v));
        if (!key || !value)
            return err_set(e, ERR_NOMEM, "%s: out of memory for metadata", r->path);
        r->meta[2 * r->n_meta] = key;
        r->meta[2 * r->n_meta + 1] = value;
        r->n_meta++;
    }
    return 0;
}

static int read_header(struct safetensors_reader *r, const struct json *root, struct err *e)
{
    if (!json_is_object(root))
        return err_set(e, ERR_FORMAT, "%s: header must be an object, found %s", r->path, kind_of(root));
    size_t n = json_n_children(root);
    r->tensors = arena_array(&r->arena, n ? n : 1, sizeof *r->tensors);
    if (!r->tensors)
        return err_set(e, ERR_NOMEM, "%s: out of memory for %zu tensors", r->path, n);
    for (const struct json *j = json_first(root); j; j = json_next(j)) {
        int rc = strcmp(json_key(j), METADATA_KEY) == 0 ? read_metadata(r, j, e)
                                                        : read_tensor(&r->tensors[r->n_tensors++], j, r, e);
        if (rc != 0)
            return rc;
    }
    return 0;
}

/* Names break the tie among empty tensors at one place, so that the order never depends on the sort. */
static int by_place(const void *pa, const void *pb)
{
    const struct st_tensor *a = pa, *b = pb;
    if (a->offset != b->offset)
        return a->offset < b->offset ? -1 : 1;
    if (a->n_bytes != b->n_bytes)
        return a->n_bytes < b->n_bytes ? -1 : 1;
    return strcmp(a->name, b->name);
}

/* Rules 5 and 7: sorted by place the tensors tile the data section; then offsets become addresses. */
static int resolve_tensors(struct safetensors_reader *r, uint64_t data_start, struct err *e)
{
    qsort(r->tensors, r->n_tensors, sizeof *r->tensors, by_place);
    uint64_t end = 0, n_data = r->size - data_start;
    const char *before = "the start of the data";
    for (size_t i = 0; i < r->n_tensors; i++) {
        struct st_tensor *t = &r->tensors[i];
        if (t->offset != end)
            return err_set(e, ERR_FORMAT,
                           "%s: tensor '" NAME_FMT "' begins at %" PRIu64 " but '" NAME_FMT
                           "' ends at %" PRIu64 ": the format allows no %s",
                           r->path, t->name, t->offset, before, end, t->offset < end ? "overlap" : "hole");
        end += t->n_bytes; /* both below 2^54 by the JSON guard */
        before = t->name;
        if (end > n_data)
            return err_set(e, ERR_FORMAT,
                           "%s: tensor '" NAME_FMT "' ends at %" PRIu64 " of a data section of %" PRIu64
                           " bytes; truncated?",
                           r->path, t->name, end, n_data);
        t->offset += data_start;
        t->data = r->base + t->offset;
    }
    if (end != n_data)
        return err_set(e, ERR_FORMAT,
                       "%s: the last tensor ends at %" PRIu64 " but the data section has %" PRIu64 " bytes",
                       r->path, end, n_data);
    return 0;
}

static int index_names(struct safetensors_reader *r, struct err *e)
{
    if (strmap_reserve(&r->by_name, r->n_tensors) != 0)
        return err_set(e, ERR_NOMEM, "%s: out of memory for %zu tensor names", r->path, r->n_tensors);
    for (size_t i = 0; i < r->n_tensors; i++) {
        const char *name = r->tensors[i].name;
        bool existing = false;
        if (strmap_put(&r->by_name, name, strlen(name), i, &existing) != 0)
            return err_set(e, ERR_NOMEM, "%s: out of memory for tensor names", r->path);
        if (existing)
            return err_set(e, ERR_FORMAT, "%s: duplicate tensor '" NAME_FMT "'", r->path, name);
    }
    return 0;
}

static int load(struct safetensors_reader *r, struct err *e)
{
    struct slice header = {NULL, 0};
    struct json_doc *doc = NULL;
    int rc = find_header(&header, r, e);
    if (rc == 0)
        rc = json_parse(&doc, (const char *)header.data, header.len, r->path, e);
    if (rc == 0)
        rc = read_header(r, json_root(doc), e);
    if (rc == 0)
        rc = resolve_tensors(r, LENGTH_BYTES + load_u64(r->base), e);
    if (rc == 0)
        rc = index_names(r, e);
    json_free(doc);
    return rc;
}

static struct safetensors_reader *new_reader(const char *what, struct err *e)
{
    struct safetensors_reader *r = calloc(1, sizeof *r);
    if (r)
        r->path = arena_strdup(&r->arena, what);
    if (!r || !r->path) {
        err_set(e, ERR_NOMEM, "%s: out of memory", what);
        safetensors_close(r);
        return NULL;
    }
    return r;
}

int safetensors_open(struct safetensors_reader **out, const char *path, struct err *e)
{
    struct safetensors_reader *r = new_reader(path, e);
    if (!r)
        return ERR_NOMEM;
    int rc = filemap_open(&r->map, path, e);
    if (rc == 0) {
        r->base = r->map.data;
        r->size = r->map.size;
        rc = load(r, e);
    }
    if (rc == 0)
        *out = r;
    else
        safetensors_close(r);
    return rc;
}

int safetensors_open_memory(struct safetensors_reader **out, const void *data, size_t len, const char *what,
                            struct err *e)
{
    struct safetensors_reader *r = new_reader(what, e);
    if (!r)
        return ERR_NOMEM;
    r->base = data;
    r->size = len;
    int rc = load(r, e);
    if (rc == 0)
        *out = r;
    else
        safetensors_close(r);
    return rc;
}

void safetensors_close(struct safetensors_reader *r)
{
    if (!r)
        return;
    filemap_close(&r->map);
    strmap_release(&r->by_name);
    arena_release(&r->arena);
    free(r);
}

/* --- answers ---------------------------------------------------------------------------------------------
 */

const char *safetensors_path(const struct safetensors_reader *r)
{
    return r->path;
}

size_t safetensors_n_tensors(const struct safetensors_reader *r)
{
    return r->n_tensors;
}

const struct st_tensor *safetensors_tensor(const struct safetensors_reader *r, size_t i)
{
    return i < r->n_tensors ? &r->tensors[i] : NULL;
}

const struct st_tensor *safetensors_find(const struct safetensors_reader *r, const char *name)
{
    uint64_t i;
    return strmap_find(&r->by_name, name, strlen(name), &i) ? &r->tensors[i] : NULL;
}

size_t safetensors_n_metadata(const struct safetensors_reader *r)
{
    return r->n_meta;
}

void safetensors_metadata(const struct safetensors_reader *r, size_t i, const char **key, const char **value)
{
    *key = r->meta[2 * i];
    *value = r->meta[2 * i + 1];
}
