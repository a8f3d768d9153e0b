/* copy_gguf.h - copy a GGUF model with its tensor bytes as they are: merge a split set into one file, split
 * one, edit metadata. Memory stays bounded: data goes from the map to the output in pieces. */
#ifndef KERF_COPY_H
#define KERF_COPY_H

#include "formats/gguf/gguf_read.h"
#include "libquant/base/progress.h"

/* A tensor of the output: one of the input under this name, or with `kept` those slices of its slowest
 * dimension, in this order. */
struct gguf_selected {
    const struct gguf_tensor *from;
    const char *name;
    const uint32_t *kept; /* n_kept indices; NULL: all of it */
    size_t n_kept;
};

/* What a copy consists of (prune.h makes one). */
struct gguf_selection {
    struct gguf_selected *tensors;
    size_t n;
    const char **removed_keys; /* metadata that goes with what is left out */
    size_t n_removed_keys;
    void *owner; /* internal */
};

struct copy_gguf_options {
    bool overwrite;
    bool in_place;               /* the one output may replace the one input, as an edit does */
    bool dry_run;                /* plan and report, and refuse what stands in the way, only */
    bool check;                  /* warn of what model_verify finds in the output and not in `in` */
    uint64_t max_bytes;          /* of each part, header included; 0: no bound */
    uint64_t max_tensors;        /* in each part; 0: no bound. With a bound the output is a split set. */
    const struct gguf_meta *set; /* keys to set or replace; NULL: none */
    const char *const *remove;   /* keys to remove: each must be there */
    size_t n_remove;
    const struct gguf_selection *select; /* NULL: every tensor as it is */
    struct progress progress;            /* in bytes */
};

struct copy_gguf_report {
    uint64_t n_bytes; /* of all files */
    size_t n_tensors;
    size_t n_files;
    struct copy_gguf_file {
        const char *path;
        uint64_t n_bytes;
        size_t n_tensors;
    } * files;
    size_t n_warnings;
    const char **warnings;
    void *owner; /* internal */
};

/* Write `in` to `path`, or with a bound to the split set of that prefix (a final ".gguf" is dropped). The
 * files appear under their names all together at the end. split.* keys belong to the layout and cannot be
 * edited. An output that is a part of `in`, by whatever name, is refused (ERR_ARG); with in_place and
 * overwrite a model of one file may be replaced under its own name. `opt` NULL: one file, no edits. *report
 * (may be NULL): caller frees with copy_gguf_report_release. ERR_ARG for edits that are not possible, and as
 * gguf_parts_plan. */
int copy_gguf(const struct gguf_reader *in, const char *path, const struct copy_gguf_options *opt,
              struct copy_gguf_report *report, struct err *e);
void copy_gguf_report_release(struct copy_gguf_report *r);

#endif
