/* hf_index.h - model.safetensors.index.json: which tensor is in which file. Inside formats/hf.
 * Specification, architectures 22.3. */
#ifndef KERF_HF_INDEX_H
#define KERF_HF_INDEX_H

#include "libquant/base/arena.h"
#include "libquant/base/err.h"
#include "libquant/base/strmap.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define HF_INDEX_NAME "model.safetensors.index.json"

/* The largest models name some 300 000 tensors, all experts of all layers with the scales of each, in 40 MB.
 * A larger file is refused before memory is taken for it. */
#define HF_INDEX_MAX_NAMES ((size_t)1 << 20)
#define HF_INDEX_MAX_BYTES ((size_t)128 << 20)

struct hf_index_entry {
    const char *tensor;
    size_t file; /* into files */
};

/* Caller-owned; a zeroed struct is empty. */
struct hf_index {
    struct arena arena;
    const char **files; /* plain names, sorted, each once */
    size_t n_files;
    struct hf_index_entry *entries; /* in the order of the JSON */
    size_t n_entries;
    struct strmap by_tensor; /* name -> entry */
    bool has_total_size;
    double total_size;
    bool odd_total_size; /* stated, but not a number */
};

/* Read and check the index at `path`: weight_map must map names to plain file names ending in .safetensors.
 * Release with hf_index_release, also after a failure. */
int hf_index_load(struct hf_index *out, const char *path, struct err *e);
void hf_index_release(struct hf_index *x);

#endif
