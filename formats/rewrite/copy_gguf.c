/* copy_gguf.c - see copy_gguf.h. */
#include "copy_gguf.h"

#include "formats/inspect/model_verify.h"

#include "formats/gguf/gguf_parts.h"
#include "libquant/base/arena.h"
#include "libquant/base/filemap.h"
#include "libquant/base/path.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define PIECE_BYTES ((size_t)8 << 20)
#define MAX_FAULTS  4 /* warnings about the output */

static int refuse_split_key(const char *key, struct err *e)
{
    return strncmp(key, "split.", 6) == 0
               ? err_set(e, ERR_ARG, "key '%s': belongs to the layout of the files and cannot be edited", key)
               : 0;
}

static int edited_meta(struct gguf_meta **out, const struct gguf_reader *in,
                       const struct copy_gguf_options *opt, struct err *e)
{
    struct gguf_meta *m = NULL;
    int rc = gguf_meta_copy(&m, gguf_reader_meta(in), e);
    for (size_t i = 0; i < opt->n_remove && rc == 0; i++) {
        rc = refuse_split_key(opt->remove[i], e);
        if (rc == 0 && !gguf_meta_find(m, opt->remove[i]))
            rc = err_set(e, ERR_ARG, "key '%s': cannot be removed, it is not there", opt->remove[i]);
        else if (rc == 0 && !gguf_meta_remove(m, opt->remove[i]))
            rc = err_set(e, ERR_NOMEM, "key '%s': out of memory", opt->remove[i]);
    }
    for (size_t i = 0; opt->select && i < opt->select->n_removed_keys && rc == 0; i++) {
        const char *key = opt->select->removed_keys[i];
        if (gguf_meta_find(m, key) && !gguf_meta_remove(m, key))
            rc = err_set(e, ERR_NOMEM, "key '%s': out of memory", key);
    }
    for (size_t i = 0; opt->set && i < gguf_meta_n(opt->set) && rc == 0; i++) {
        rc = refuse_split_key(gguf_meta_key(opt->set, i), e);
        if (rc == 0)
            rc = gguf_meta_set(m, gguf_meta_key(opt->set, i), gguf_meta_value(opt->set, i), e);
    }
    if (rc) {
        gguf_meta_free(m);
        return rc;
    }
    *out = m;
    return 0;
}

/* The whole input as a selection. Freed with free(). */
static struct gguf_selected *select_all(const struct gguf_reader *in)
{
    size_t n = gguf_reader_n_tensors(in);
    struct gguf_selected *all = calloc(n + 1, sizeof *all);
    for (size_t i = 0; all && i < n; i++) {
        const struct gguf_tensor *t = gguf_reader_tensor(in, i);
        all[i] = (struct gguf_selected){.from = t, .name = t->name};
    }
    return all;
}

static struct gguf_out_tensor *directory_of(const struct gguf_selected *tensors, size_t n)
{
    struct gguf_out_tensor *out = calloc(n + 1, sizeof *out);
    for (size_t i = 0; out && i < n; i++) {
        const struct gguf_selected *s = &tensors[i];
        out[i] = (struct gguf_out_tensor){.name = s->name, .type = s->from->type, .n_dims = s->from->n_dims};
        memcpy(out[i].ne, s->from->ne, sizeof s->from->ne);
        if (s->kept)
            out[i].ne[s->from->n_dims - 1] = s->n_kept;
    }
    return out;
}

struct copying {
    struct gguf_parts *parts;
    const struct copy_gguf_options *opt;
    uint64_t done, total;
};

/* `n_bytes` of a tensor's data to byte `to` of output tensor i. */
static int copy_bytes(struct copying *c, size_t i, uint64_t to, const uint8_t *data, uint64_t n_bytes,
                      struct err *e)
{
    for (uint64_t at = 0; at < n_bytes;) {
        size_t n = n_bytes - at < PIECE_BYTES ? (size_t)(n_bytes - at) : PIECE_BYTES;
        uint64_t ahead = n_bytes - at - n < PIECE_BYTES ? n_bytes - at - n : PIECE_BYTES;
        filemap_want(data + at + n, ahead);
        int rc = gguf_parts_write(c->parts, i, to + at, data + at, n, e);
        if (rc)
            return rc;
        filemap_drop(data + at, n);
        at += n;
        c->done += n;
        struct progress_step s = {.done = (double)c->done, .total = (double)c->total};
        if (progress_stops(&c->opt->progress, &s))
            return err_set(e, ERR_CANCELLED, ERR_STOPPED ", nothing is kept");
    }
    return 0;
}

static uint64_t slice_bytes(const struct gguf_selected *s)
{
    return s->from->n_bytes / s->from->ne[s->from->n_dims - 1];
}

static int copy_tensor(struct copying *c, size_t i, const struct gguf_selected *s, struct err *e)
{
    if (!s->kept)
        return copy_bytes(c, i, 0, s->from->data, s->from->n_bytes, e);
    uint64_t n = slice_bytes(s);
    int rc = 0;
    for (size_t k = 0; k < s->n_kept && rc == 0; k++)
        rc = copy_bytes(c, i, k * n, s->from->data + s->kept[k] * n, n, e);
    return rc;
}

static int copy_all(struct gguf_parts *parts, const struct gguf_selected *tensors, size_t n,
                    const struct copy_gguf_options *opt, struct err *e)
{
    struct copying c = {.parts = parts, .opt = opt};
    for (size_t i = 0; i < n; i++) {
        c.total += tensors[i].kept ? tensors[i].n_kept * slice_bytes(&tensors[i]) : tensors[i].from->n_bytes;
        if (!tensors[i].from->data)
            return err_set(e, ERR_ARG, "tensor '%s': its data is missing", tensors[i].from->name);
    }
    int rc = gguf_parts_open(parts, e);
    for (size_t i = 0; i < n && rc == 0; i++)
        rc = copy_tensor(&c, i, &tensors[i], e);
    return rc;
}

static int fill_report(struct copy_gguf_report *r, const struct gguf_parts *parts, size_t n_tensors,
                       struct err *e)
{
    struct arena *a = calloc(1, sizeof *a);
    uint32_t n = gguf_parts_n(parts);
    *r = (struct copy_gguf_report){
        .n_bytes = gguf_parts_total_bytes(parts), .n_tensors = n_tensors, .owner = a};
    r->files = a ? arena_array(a, n, sizeof *r->files) : NULL;
    for (uint32_t i = 0; r->files && i < n; i++) {
        r->files[i].path = arena_strdup(a, gguf_parts_path(parts, i));
        r->files[i].n_bytes = gguf_parts_file_bytes(parts, i);
        if (!r->files[i].path)
            break;
        r->n_files++;
    }
    if (r->n_files != n) {
        copy_gguf_report_release(r);
        return err_set(e, ERR_NOMEM, "report: out of memory");
    }
    for (size_t i = 0; i < n_tensors; i++)
        r->files[gguf_parts_of_tensor(parts, i)].n_tensors++;
    return 0;
}

void copy_gguf_report_release(struct copy_gguf_report *r)
{
    if (!r)
        return;
    if (r->owner)
        arena_release(r->owner);
    free(r->owner);
    *r = (struct copy_gguf_report){0};
}

/* Is the output the input under its own name, and not a link to it? */
static bool same_name(const char *input, const char *output)
{
    struct stat st;
    if (lstat(output, &st) != 0 || !S_ISREG(st.st_mode))
        return false;
    char *a = realpath(input, NULL), *b = realpath(output, NULL);
    bool same = a && b && strcmp(a, b) == 0;
    free(a);
    free(b);
    return same;
}

static int check_inputs(const struct gguf_reader *in, const struct gguf_parts *parts,
                        const struct copy_gguf_options *opt, struct err *e)
{
    int rc = 0;
    for (uint32_t i = 0; i < gguf_parts_n(parts); i++)
        for (uint32_t k = 0; k < gguf_reader_n_parts(in) && rc == 0; k++) {
            const char *input = gguf_reader_part_path(in, k), *output = gguf_parts_path(parts, i);
            if (opt->in_place && opt->overwrite && gguf_parts_n(parts) == 1 && gguf_reader_n_parts(in) == 1 &&
                same_name(input, output))
                continue;
            if (opt->in_place && !opt->overwrite && same_name(input, output))
                return err_set(e, ERR_IO, "%s: is the input itself; add --force to change it in place",
                               output);
            rc = output_file_check_input(output, input, e);
        }
    return rc;
}

static int add_warning(void *ctx, const char *text, struct err *e)
{
    struct copy_gguf_report *r = ctx;
    const char **w = arena_array(r->owner, r->n_warnings + 1, sizeof *w);
    if (w && r->n_warnings)
        memcpy(w, r->warnings, r->n_warnings * sizeof *w);
    if (!w || !(w[r->n_warnings] = arena_strdup(r->owner, text)))
        return err_set(e, ERR_NOMEM, "report: out of memory");
    r->warnings = w;
    r->n_warnings++;
    return 0;
}

/* What is wrong with the file at `path` but for the values of its tensors, which are copied as they are. A
 * file that is no model has no findings. */
static int find_faults(struct verify_report *out, const char *path, struct err *e)
{
    struct model *m = NULL;
    struct err why = {0};
    int rc = model_open(&m, path, NULL, &why);
    if (rc == 0)
        rc = model_verify(out, m, NULL, NULL, &why);
    model_close(m);
    return rc == ERR_NOMEM ? err_set(e, rc, "%s", why.msg) : 0;
}

static bool is_among(const struct verify_report *r, const char *finding)
{
    for (size_t i = 0; i < r->n_findings; i++)
        if (strcmp(r->findings[i], finding) == 0)
            return true;
    return false;
}

/* What is wrong with the output at `path` and was not with the input; looked for while the output still has
 * its temporary name, since nothing may fail once it has its own. A wrong number makes a finding of each
 * tensor it should fit; a few of them will do. */
static int warn_new_faults(struct copy_gguf_report *r, const struct verify_report *before, const char *path,
                           struct err *e)
{
    struct verify_report after = {0};
    char text[1024];
    size_t n = 0;
    char *unfinished = path_with(path, PATH_PART);
    int rc =
        unfinished ? find_faults(&after, unfinished, e) : err_set(e, ERR_NOMEM, "%s: out of memory", path);
    free(unfinished);
    for (size_t i = 0; rc == 0 && i < after.n_findings; i++) {
        if (is_among(before, after.findings[i]) || n++ >= MAX_FAULTS)
            continue;
        snprintf(text, sizeof text, "[invalid-model] %s: %s", path, after.findings[i]);
        rc = add_warning(r, text, e);
    }
    if (rc == 0 && n > MAX_FAULTS) {
        snprintf(text, sizeof text, "[invalid-model] %s: %zu more problems, which 'kerf verify' lists", path,
                 n - MAX_FAULTS);
        rc = add_warning(r, text, e);
    }
    verify_report_release(&after);
    return rc;
}

int copy_gguf(const struct gguf_reader *in, const char *path, const struct copy_gguf_options *opt,
              struct copy_gguf_report *report, struct err *e)
{
    static const struct copy_gguf_options defaults;
    struct gguf_meta *meta = NULL;
    struct gguf_parts *parts = NULL;
    struct copy_gguf_report done = {0};
    struct verify_report before = {0};
    if (!opt)
        opt = &defaults;
    struct gguf_selected *all = opt->select ? NULL : select_all(in);
    const struct gguf_selected *from = opt->select ? opt->select->tensors : all;
    size_t n = opt->select ? opt->select->n : gguf_reader_n_tensors(in);
    struct gguf_out_tensor *tensors = from ? directory_of(from, n) : NULL;
    int rc = tensors ? edited_meta(&meta, in, opt, e) : err_set(e, ERR_NOMEM, "%s: out of memory", path);
    struct gguf_parts_options layout = {
        .overwrite = opt->overwrite, .max_bytes = opt->max_bytes, .max_tensors = opt->max_tensors};
    if (rc == 0)
        rc = gguf_parts_plan(&parts, meta, tensors, n, path, &layout, e);
    if (rc == 0)
        rc = fill_report(&done, parts, n, e);
    if (rc == 0)
        rc = check_inputs(in, parts, opt, e);
    if (rc == 0 && opt->dry_run)
        rc = gguf_parts_check(parts, e);
    if (rc == 0 && !opt->dry_run && opt->check)
        rc = find_faults(&before, gguf_reader_part_path(in, 0), e); /* now: the output may replace it */
    if (rc == 0 && !opt->dry_run)
        rc = copy_all(parts, from, n, opt, e);
    if (rc == 0)
        rc = gguf_parts_remarks(parts, add_warning, &done, e);
    if (rc == 0 && !opt->dry_run && opt->check)
        rc = warn_new_faults(&done, &before, gguf_parts_path(parts, 0), e);
    if (rc == 0 && !opt->dry_run)
        rc = gguf_parts_commit(parts, e);
    if (rc == 0 && report) {
        *report = done;
        done = (struct copy_gguf_report){0};
    }
    verify_report_release(&before);
    copy_gguf_report_release(&done);
    gguf_parts_free(parts);
    gguf_meta_free(meta);
    free(tensors);
    free(all);
    return rc;
}
