/* gguf_read.c - see gguf_read.h: the parts of a model (read by gguf_part.c), one arena, one list of tensors.
 *
 * Where the format leaves room, what the runtime accepts decides (offsets in record order without gaps, names
 * of at most 63 bytes), and what would make it crash is refused (dimensions of 0). */
#include "gguf_read.h"

#include "gguf_part.h"
#include "gguf_write.h"
#include "libquant/base/checked.h"
#include "libquant/base/strmap.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct gguf_reader {
    struct arena arena;
    struct gguf_part *parts;
    uint32_t n_parts;
    struct gguf_tensor *tensors; /* malloc'ed, in file order */
    size_t n_tensors, cap_tensors;
    struct strmap by_name;
    bool header_only;
};

/* --- the tensor directory --- */

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
        return err_set(e, ERR_FORMAT, "%s: duplicate tensor '%s'%s%s", r->parts[t->part].path, t->name,
                       other == t->part ? "" : ", also in ", other == t->part ? "" : r->parts[other].path);
    }
    r->tensors[r->n_tensors++] = *t;
    return 0;
}

/* The data follows the directory, aligned, in record order without gaps; the padding of the last tensor may
 * be missing. Turns offsets into positions in the file. */
static int place_tensors(struct gguf_reader *r, struct gguf_part *p, size_t first, struct err *e)
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
    if (!checked_add(start, expected, &p->data_end))
        p->data_end = UINT64_MAX;
    return 0;
}

static int take_directory(struct gguf_reader *r, uint32_t index, struct err *e)
{
    struct gguf_part *p = &r->parts[index];
    size_t first = r->n_tensors;
    int rc = 0;
    if (p->n_tensors >
        gguf_part_remaining(p) / GGUF_MIN_TENSOR_BYTES) /* again: the metadata is behind us now */
        return err_set(e, ERR_FORMAT,
                       "%s: %" PRIu64 " tensors cannot fit into the %" PRIu64 " bytes that are left", p->path,
                       p->n_tensors, gguf_part_remaining(p));
    for (uint64_t i = 0; i < p->n_tensors && rc == 0; i++) {
        struct gguf_tensor t = {.part = index};
        rc = gguf_part_take_tensor(p, &r->arena, &t, i, e);
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
    const struct gguf_part *p = &r->parts[index];
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
static int open_set(struct gguf_reader *r, struct gguf_part *given, const char *path, uint64_t count,
                    struct err *e)
{
    size_t prefix_len;
    uint32_t no, name_count;
    if (!gguf_split_parse(path, &prefix_len, &no, &name_count) || name_count != count)
        return err_set(e, ERR_FORMAT,
                       "%s: belongs to a set of %" PRIu64
                       " files, so its name must end in -00001-of-%05" PRIu64
                       ".gguf or the like; rename the parts back (and where they were joined byte by byte: "
                       "'kerf merge' joins them)",
                       path, count, count);
    int rc = set_parts(r, name_count, e);
    if (rc)
        return rc;
    r->parts[no] = *given;
    *given = (struct gguf_part){0};
    for (uint32_t i = 0; i < r->n_parts && rc == 0; i++) {
        struct gguf_part *p = &r->parts[i];
        if (i != no) {
            p->path = arena_printf(&r->arena, "%.*s-%05" PRIu32 "-of-%05" PRIu32 ".gguf", (int)prefix_len,
                                   path, i + 1, r->n_parts);
            if (!p->path)
                return err_set(e, ERR_NOMEM, "%s: out of memory", path);
            rc = filemap_open(&p->map, p->path, e);
            if (rc) {
                bool absent = access(p->path, F_OK) != 0 && errno == ENOENT;
                rc = gguf_split_missing(p->path, absent ? ERR_FORMAT : rc, e); /* the set is not whole */
            }
            if (rc)
                return err_context(e, rc, "%s: part %" PRIu32 " of %" PRIu32 " of its split set is needed",
                                   path, i + 1, r->n_parts);
            rc = gguf_part_take_metadata(p, e);
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

static int open_single(struct gguf_reader *r, struct gguf_part *given, struct err *e)
{
    int rc = set_parts(r, 1, e);
    if (rc)
        return rc;
    r->parts[0] = *given;
    *given = (struct gguf_part){0};
    return take_directory(r, 0, e);
}

int gguf_reader_open(struct gguf_reader **out, const char *path, const struct gguf_read_options *opt,
                     struct err *e)
{
    struct gguf_reader *r = NULL;
    struct gguf_part given = {0};
    uint64_t count;
    int rc = new_reader(&r, opt, path, e);
    if (rc)
        return rc;
    given.path = arena_strdup(&r->arena, path);
    rc = given.path ? filemap_open(&given.map, path, e) : err_set(e, ERR_NOMEM, "%s: out of memory", path);
    rc = rc ? gguf_split_missing(path, rc, e) : gguf_part_take_metadata(&given, e);
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
    struct gguf_part given = {.path = arena_strdup(&r->arena, what), .map = {data, len}};
    rc = given.path ? gguf_part_take_metadata(&given, e) : err_set(e, ERR_NOMEM, "%s: out of memory", what);
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

uint64_t gguf_reader_n_trailing_bytes(const struct gguf_reader *r, uint32_t part)
{
    const struct gguf_part *p = &r->parts[part];
    return p->map.size > p->data_end ? p->map.size - p->data_end : 0;
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
