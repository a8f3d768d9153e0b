/* gguf_parts.c - see gguf_parts.h. */
#include "gguf_parts.h"

#include "libquant/base/arena.h"
#include "libquant/base/checked.h"
#include "libquant/base/filemap.h"
#include "libquant/base/path.h"
#include "formats/output/output_set.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct part {
    const char *path; /* in the arena */
    size_t first, n_tensors;
    uint8_t *header; /* owned */
    size_t header_bytes;
    uint64_t file_bytes;
    struct output_file *file; /* owned while open */
};

struct gguf_parts {
    struct arena arena;
    struct gguf_parts_options opt;
    struct gguf_out_tensor *tensors; /* borrowed */
    size_t n_tensors;
    uint32_t *part_of; /* owned; one for each tensor */
    struct part *parts;
    const char **paths; /* of the parts; in the arena */
    size_t n_parts, cap_parts;
};

static int no_memory(struct err *e)
{
    return err_set(e, ERR_NOMEM, "output layout: out of memory");
}

static int add_part(struct gguf_parts *p, size_t first, struct err *e)
{
    if (p->n_parts == UINT16_MAX)
        return err_set(e, ERR_ARG,
                       "a split set has at most 65535 parts; raise the size or number for each part");
    if (p->n_parts == p->cap_parts) {
        size_t cap = p->cap_parts ? p->cap_parts * 2 : 16;
        struct part *grown = realloc(p->parts, cap * sizeof *grown);
        if (!grown)
            return no_memory(e);
        p->parts = grown;
        p->cap_parts = cap;
    }
    p->parts[p->n_parts++] = (struct part){.first = first};
    return 0;
}

/* --- which tensor goes where --- */

static uint64_t record_bytes(const struct gguf_out_tensor *t)
{
    return 8 + strlen(t->name) + 4 + 8 * (uint64_t)t->n_dims + 4 + 8;
}

/* Bytes of a header without tensors, at most one alignment too much. */
static int empty_header_bytes(const struct gguf_meta *meta, uint64_t *out, struct err *e)
{
    uint8_t *header;
    size_t n;
    uint64_t file_bytes;
    int rc = gguf_layout(meta, NULL, 0, &header, &n, &file_bytes, e);
    if (rc)
        return rc;
    free(header);
    *out = n;
    return 0;
}

/* Fill parts greedily in order. `tensors` have their n_bytes from a layout of the whole. `first`, `rest`:
 * metadata of the first part and of the others. */
static int distribute(struct gguf_parts *p, const struct gguf_meta *first, const struct gguf_meta *rest,
                      uint64_t align, struct err *e)
{
    uint64_t max = p->opt.max_bytes ? p->opt.max_bytes : UINT64_MAX;
    uint64_t first_header, rest_header, header, data = 0, n = 0;
    int rc = empty_header_bytes(first, &first_header, e);
    if (rc == 0)
        rc = empty_header_bytes(rest, &rest_header, e);
    if (rc == 0)
        rc = add_part(p, 0, e);
    if (rc)
        return rc;
    if (first_header > max)
        return err_set(e, ERR_ARG,
                       "the metadata alone needs a file of %" PRIu64 " bytes, the limit is %" PRIu64
                       "; raise it",
                       first_header, max);
    header = first_header;
    for (size_t i = 0; i < p->n_tensors; i++) {
        uint64_t record = record_bytes(&p->tensors[i]), padded = 0;
        (void)checked_align(p->tensors[i].n_bytes, align,
                            &padded); /* the whole layout has shown that it fits */
        bool full =
            header + record + align + data + padded > max || (p->opt.max_tensors && n == p->opt.max_tensors);
        if (full && (n || p->n_parts == 1)) { /* the first part may end up with metadata alone */
            rc = add_part(p, i, e);
            if (rc)
                return rc;
            header = rest_header;
            data = n = 0;
            full = header + record + align + padded > max;
        }
        if (full)
            return err_set(e, ERR_ARG,
                           "tensor '%s' alone needs a file of %" PRIu64 " bytes, the limit is %" PRIu64
                           "; raise it",
                           p->tensors[i].name, header + record + align + padded, max);
        p->part_of[i] = (uint32_t)p->n_parts - 1;
        p->parts[p->n_parts - 1].n_tensors++;
        header += record;
        data += padded;
        n++;
    }
    return 0;
}

/* --- metadata of the parts --- */

/* In the order in which the peer writes them. */
static const char *const split_keys[] = {"split.no", "split.tensors.count", "split.count"};

static int copy_without_split(struct gguf_meta **out, const struct gguf_meta *meta, struct err *e)
{
    int rc = gguf_meta_copy(out, meta, e);
    for (size_t i = 0; rc == 0 && i < sizeof split_keys / sizeof *split_keys; i++)
        if (gguf_meta_find(*out, split_keys[i]) && !gguf_meta_remove(*out, split_keys[i]))
            rc = no_memory(e);
    return rc; /* the caller frees *out in either case */
}

static int set_split_keys(struct gguf_meta *m, size_t no, size_t count, size_t n_tensors, struct err *e)
{
    int rc = gguf_meta_set_u16(m, split_keys[0], (uint16_t)no, e);
    if (rc == 0)
        rc = gguf_meta_set_i32(m, split_keys[1], (int32_t)n_tensors, e);
    return rc ? rc : gguf_meta_set_u16(m, split_keys[2], (uint16_t)count, e);
}

static int layout_part(struct gguf_parts *p, struct part *part, const struct gguf_meta *meta, struct err *e)
{
    return gguf_layout(meta, p->tensors + part->first, part->n_tensors, &part->header, &part->header_bytes,
                       &part->file_bytes, e);
}

static int plan_single(struct gguf_parts *p, const struct gguf_meta *meta, const char *path, struct err *e)
{
    int rc = add_part(p, 0, e);
    if (rc)
        return rc;
    p->parts[0].n_tensors = p->n_tensors;
    p->parts[0].path = arena_strdup(&p->arena, path);
    return p->parts[0].path ? layout_part(p, &p->parts[0], meta, e) : no_memory(e);
}

static int plan_split(struct gguf_parts *p, struct gguf_meta *first, const char *path, struct err *e)
{
    struct gguf_meta *rest = NULL;
    size_t prefix_len = strlen(path);
    uint64_t align = GGUF_DEFAULT_ALIGNMENT;
    if (prefix_len > 5 && strcmp(path + prefix_len - 5, ".gguf") == 0)
        prefix_len -= 5;
    if (p->n_tensors > INT32_MAX)
        return err_set(e, ERR_ARG, "%zu tensors are too many for a split set", p->n_tensors);
    int rc = gguf_meta_new(&rest, e);
    const struct gguf_value *v = gguf_meta_find(first, "general.alignment");
    if (rc == 0 && v) { /* every part is a complete file: it must know how its own data is aligned */
        align = v->u;
        rc = gguf_meta_set(rest, "general.alignment", v, e);
    }
    if (rc == 0)
        rc = set_split_keys(first, 0, 1, p->n_tensors, e);
    if (rc == 0)
        rc = set_split_keys(rest, 1, 1, p->n_tensors, e);
    if (rc == 0)
        rc = distribute(p, first, rest, align, e);
    for (size_t i = 0; i < p->n_parts && rc == 0; i++) {
        struct gguf_meta *meta = i == 0 ? first : rest;
        p->parts[i].path =
            arena_printf(&p->arena, "%.*s-%05zu-of-%05zu.gguf", (int)prefix_len, path, i + 1, p->n_parts);
        rc = p->parts[i].path ? set_split_keys(meta, i, p->n_parts, p->n_tensors, e) : no_memory(e);
        if (rc == 0)
            rc = layout_part(p, &p->parts[i], meta, e);
    }
    gguf_meta_free(rest);
    return rc;
}

/* Sizes of all tensors, and all that can be wrong with names, types and shapes, seen over the whole list. */
static int check_whole(const struct gguf_parts *p, const struct gguf_meta *meta, struct err *e)
{
    uint8_t *header;
    size_t n;
    uint64_t file_bytes;
    int rc = gguf_layout(meta, p->tensors, p->n_tensors, &header, &n, &file_bytes, e);
    if (rc == 0)
        free(header);
    return rc;
}

static int list_paths(struct gguf_parts *p, struct err *e)
{
    p->paths = arena_array(&p->arena, p->n_parts, sizeof *p->paths);
    if (!p->paths)
        return no_memory(e);
    for (size_t i = 0; i < p->n_parts; i++)
        p->paths[i] = p->parts[i].path;
    return 0;
}

int gguf_parts_plan(struct gguf_parts **out, const struct gguf_meta *meta, struct gguf_out_tensor *tensors,
                    size_t n_tensors, const char *path, const struct gguf_parts_options *opt, struct err *e)
{
    struct gguf_meta *own = NULL;
    struct gguf_parts *p = calloc(1, sizeof *p);
    if (!p)
        return no_memory(e);
    if (opt)
        p->opt = *opt;
    p->tensors = tensors;
    p->n_tensors = n_tensors;
    p->part_of = calloc(n_tensors + 1, sizeof *p->part_of);
    bool split = p->opt.max_bytes || p->opt.max_tensors;
    int rc = p->part_of ? copy_without_split(&own, meta, e) : no_memory(e);
    if (rc == 0 && split)
        rc = check_whole(p, own, e);
    if (rc == 0)
        rc = split ? plan_split(p, own, path, e) : plan_single(p, own, path, e);
    if (rc == 0)
        rc = list_paths(p, e);
    gguf_meta_free(own);
    if (rc) {
        gguf_parts_free(p);
        return err_context(e, rc, "%s", path);
    }
    *out = p;
    return 0;
}

uint32_t gguf_parts_n(const struct gguf_parts *p)
{
    return (uint32_t)p->n_parts;
}

const char *gguf_parts_path(const struct gguf_parts *p, uint32_t part)
{
    return p->parts[part].path;
}

uint64_t gguf_parts_file_bytes(const struct gguf_parts *p, uint32_t part)
{
    return p->parts[part].file_bytes;
}

uint64_t gguf_parts_total_bytes(const struct gguf_parts *p)
{
    uint64_t total = 0;
    for (size_t i = 0; i < p->n_parts; i++)
        total += p->parts[i].file_bytes;
    return total;
}

uint32_t gguf_parts_of_tensor(const struct gguf_parts *p, size_t tensor)
{
    return p->part_of[tensor];
}

struct output_file *gguf_parts_output_file(const struct gguf_parts *p, uint32_t part)
{
    return p->parts[part].file;
}

/* --- what stands beside the output --- */

/* The count in the name of the first file; look_beside asks for no other names. */
static uint32_t own_count(const struct gguf_parts *p)
{
    size_t prefix_len;
    uint32_t no, count = 0;
    return gguf_split_parse(p->parts[0].path, &prefix_len, &no, &count) ? count : 0;
}

/* "<base>-00001-of-00003.gguf<ending>" with another count than ours? `base`: the prefix without its folder.
 * One file may also have been given the name of a part of a larger set, so it is the name that tells, not the
 * number of files. */
static bool other_count(const struct gguf_parts *p, const char *base, const char *name, const char *ending,
                        uint32_t *count)
{
    size_t len = strlen(name), n_end = strlen(ending), prefix_len;
    char part[NAME_MAX + 1];
    uint32_t no;
    if (!path_ends_with(name, ending) || len - n_end > NAME_MAX)
        return false;
    memcpy(part, name, len - n_end);
    part[len - n_end] = 0;
    return gguf_split_parse(part, &prefix_len, &no, count) && no == 0 && prefix_len == strlen(base) &&
           memcmp(part, base, prefix_len) == 0 && *count != own_count(p);
}

/* What sees a file of the output's folder; nonzero ends the look. */
typedef int see_fn(const struct gguf_parts *p, const char *base, const char *folder, const char *name,
                   void *ctx, struct err *e);

/* Nothing when the output is one file of a plain name. */
static int look_beside(const struct gguf_parts *p, see_fn *see, void *ctx, struct err *e)
{
    size_t prefix_len;
    uint32_t no, count;
    if (!gguf_split_parse(p->parts[0].path, &prefix_len, &no, &count))
        return 0;
    char *copy = strdup(p->parts[0].path), *prefix = strndup(p->parts[0].path, prefix_len);
    const char *folder = copy ? dirname(copy) : NULL;
    errno = 0;
    DIR *d = folder && prefix ? opendir(folder) : NULL;
    int rc = folder && prefix && (d || errno != ENOMEM) ? 0 : no_memory(e);
    for (struct dirent *ent; rc == 0 && d && (ent = readdir(d));) {
        const char *base = strrchr(prefix, '/');
        rc = see(p, base ? base + 1 : prefix, folder, ent->d_name, ctx, e);
    }
    if (d)
        closedir(d);
    free(copy);
    free(prefix);
    return rc;
}

/* The first part of a set is aside, and none stands under its name: a commit was killed, and these may be the
 * only copies. */
static int refuse_aside(const struct gguf_parts *p, const char *base, const char *folder, const char *name,
                        void *ctx, struct err *e)
{
    uint32_t count;
    char first[PATH_MAX];
    (void)ctx;
    if (!other_count(p, base, name, PATH_OLD, &count))
        return 0;
    snprintf(first, sizeof first, "%s/%.*s", folder, (int)(strlen(name) - strlen(PATH_OLD)), name);
    if (access(first, F_OK) == 0)
        return 0; /* a set stands; see gguf_parts_remarks */
    return err_set(
        e, ERR_IO,
        "%s/%s: a run that split into %" PRIu32 " parts was killed while it replaced a set, which it "
        "had set aside. Run that command again, which puts the set back first; or rename or remove "
        "its *" PATH_OLD " files yourself",
        folder, name, count);
}

struct listener {
    int (*say)(void *ctx, const char *text, struct err *e);
    void *ctx;
};

static int remark(const struct gguf_parts *p, const char *base, const char *folder, const char *name,
                  void *ctx, struct err *e)
{
    const struct listener *l = ctx;
    uint32_t count;
    char text[700];
    (void)folder;
    if (other_count(p, base, name, "", &count))
        snprintf(text, sizeof text,
                 "[older-set] %.300s: an older set of %" PRIu32 " part%s stays beside the new one of %" PRIu32
                 "; remove it if it is not needed",
                 name, count, count == 1 ? "" : "s", own_count(p));
    else if (other_count(p, base, name, PATH_PART, &count))
        snprintf(text, sizeof text,
                 "[left-behind] %.300s: left by a run that split into %" PRIu32
                 " part%s; resume that run with its "
                 "options, or remove its *" PATH_PART " files",
                 name, count, count == 1 ? "" : "s");
    else if (other_count(p, base, name, PATH_OLD, &count))
        snprintf(text, sizeof text,
                 "[left-behind] %.300s: set aside by a run that split into %" PRIu32
                 " part%s and was killed; run the same command again, which puts the older set back",
                 name, count, count == 1 ? "" : "s");
    else
        return 0;
    return l->say(l->ctx, text, e);
}

int gguf_parts_remarks(const struct gguf_parts *p, int (*say)(void *ctx, const char *text, struct err *e),
                       void *ctx, struct err *e)
{
    return look_beside(p, remark, &(struct listener){say, ctx}, e);
}

/* --- writing --- */

/* Does the file begin as this part will? */
static bool has_header(void *ctx, size_t i)
{
    const struct gguf_parts *p = ctx;
    const struct part *part = &p->parts[i];
    struct filemap m;
    if (filemap_open(&m, part->path, NULL) != 0)
        return false;
    bool same = m.size == part->file_bytes && memcmp(m.data, part->header, part->header_bytes) == 0;
    filemap_close(&m);
    return same;
}

bool gguf_parts_finished(const struct gguf_parts *p)
{
    for (size_t i = 0; i < p->n_parts; i++)
        if (!has_header((void *)p, i))
            return false;
    return true;
}

bool gguf_parts_holds(const struct gguf_parts *p, size_t tensor, uint64_t at, const void *data, size_t n)
{
    const struct gguf_out_tensor *t = &p->tensors[tensor];
    assert(at <= t->n_bytes && n <= t->n_bytes - at);
    struct filemap m;
    if (filemap_open(&m, p->parts[p->part_of[tensor]].path, NULL) != 0)
        return false;
    uint64_t begin = t->offset + at;
    bool same = begin <= m.size && n <= m.size - begin && memcmp(m.data + begin, data, n) == 0;
    filemap_close(&m);
    return same;
}

int gguf_parts_recover(struct gguf_parts *p, struct err *e)
{
    return output_set_recover(p->paths, p->n_parts, has_header, p, e);
}

bool gguf_parts_stands(const struct gguf_parts *p, uint32_t part)
{
    return output_set_stands(p->paths, p->n_parts, part, has_header, (void *)p);
}

int gguf_parts_check(const struct gguf_parts *p, struct err *e)
{
    int rc = look_beside(p, refuse_aside, NULL, e);
    for (uint32_t i = 0; i < p->n_parts && rc == 0; i++) {
        const bool stands = gguf_parts_stands(p, i);
        if (!stands && access(p->paths[i], F_OK) == 0)
            continue; /* of a commit that was killed, and to be taken back */
        rc = output_file_check_target(p->paths[i], p->opt.overwrite, e);
        if (rc == 0 && stands && !p->opt.overwrite) /* set aside, and to be put back */
            rc = output_file_in_the_way(p->paths[i], e);
    }
    return rc;
}

int gguf_parts_open(struct gguf_parts *p, struct err *e)
{
    int rc = gguf_parts_recover(p, e);
    if (rc == 0)
        rc = gguf_parts_check(p, e); /* all, before the first file is made */
    for (size_t i = 0; i < p->n_parts && rc == 0; i++) {
        struct part *part = &p->parts[i];
        struct output_file_options opt = {.overwrite = p->opt.overwrite,
                                          .keep_partial = p->opt.keep_partial,
                                          .resume = p->opt.resume,
                                          .size_bytes = part->file_bytes};
        rc = output_file_open(&part->file, part->path, &opt, e);
        /* A file that was resumed may belong to another plan: its bytes are not touched until the caller
         * knows. */
        if (rc == 0 && !output_file_resumed(part->file))
            rc = output_file_write_at(part->file, 0, part->header, part->header_bytes, e);
    }
    return rc;
}

int gguf_parts_write_headers(struct gguf_parts *p, struct err *e)
{
    int rc = 0;
    for (size_t i = 0; i < p->n_parts && rc == 0; i++)
        rc = output_file_write_at(p->parts[i].file, 0, p->parts[i].header, p->parts[i].header_bytes, e);
    return rc;
}

bool gguf_parts_resumed(const struct gguf_parts *p)
{
    for (size_t i = 0; i < p->n_parts; i++)
        if (!p->parts[i].file || !output_file_resumed(p->parts[i].file))
            return false;
    return true;
}

int gguf_parts_restart(struct gguf_parts *p, struct err *e)
{
    int rc = 0;
    for (size_t i = 0; i < p->n_parts && rc == 0; i++)
        rc = output_file_restart(p->parts[i].file, e);
    return rc == 0 ? gguf_parts_write_headers(p, e) : rc;
}

const uint8_t *gguf_parts_header(const struct gguf_parts *p, uint32_t part, size_t *n_bytes)
{
    *n_bytes = p->parts[part].header_bytes;
    return p->parts[part].header;
}

int gguf_parts_write(struct gguf_parts *p, size_t tensor, uint64_t at, const void *data, size_t n,
                     struct err *e)
{
    const struct gguf_out_tensor *t = &p->tensors[tensor];
    assert(at <= t->n_bytes && n <= t->n_bytes - at);
    return output_file_write_at(p->parts[p->part_of[tensor]].file, t->offset + at, data, n, e);
}

int gguf_parts_commit(struct gguf_parts *p, struct err *e)
{
    struct output_file **files = arena_array(&p->arena, p->n_parts, sizeof *files);
    int rc = files ? 0 : no_memory(e);
    for (size_t i = 0; i < p->n_parts && rc == 0; i++) /* a full disk may show only now */
        rc = output_file_seal(p->parts[i].file, p->parts[i].file_bytes, e);
    if (rc)
        return rc; /* gguf_parts_free drops or keeps them */
    for (size_t i = 0; i < p->n_parts; i++) {
        files[i] = p->parts[i].file;
        p->parts[i].file = NULL; /* freed in every case */
    }
    return output_set_commit(files, p->n_parts, e);
}

void gguf_parts_free(struct gguf_parts *p)
{
    if (!p)
        return;
    for (size_t i = 0; i < p->n_parts; i++) {
        output_file_abort(p->parts[i].file);
        free(p->parts[i].header);
    }
    free(p->parts);
    free(p->part_of);
    arena_release(&p->arena);
    free(p);
}
