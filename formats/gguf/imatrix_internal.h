/* imatrix_internal.h - what the files of the importance matrix share among themselves; no one else includes
 * this.
 */
#ifndef KERF_IMATRIX_INTERNAL_H
#define KERF_IMATRIX_INTERNAL_H

#include "imatrix_file.h"
#include "libquant/base/arena.h"
#include "formats/output/output_file.h"
#include "libquant/base/strmap.h"

struct imatrix {
    struct arena arena;             /* entries, names, sums, counts */
    struct imatrix_entry **entries; /* sorted by name, but for a file that is being read */
    size_t n, cap;
    struct strmap by_name; /* name -> address of the entry */
    const char **datasets;
    size_t n_datasets, cap_datasets;
    uint32_t chunk_size, chunk_count;
    bool counts_are_chunks; /* from the legacy form: one count per entry, sums divided by the chunk size */
    size_t n_ignored;
    char model[IMATRIX_MODEL_BYTES], run[IMATRIX_RUN_BYTES];
    bool all_experts;      /* every expert saw every token, whatever the router chose */
    bool by_router;        /* ... which counts for it by the router's weight */
    uint32_t expert_prior; /* tokens' worth of the layer's mean in every expert; 0: none */
};

/* A new entry at the end; the name is not there yet. Afterwards imatrix_sort. */
int imatrix_append(struct imatrix *m, const char *name, size_t name_len, uint64_t n_values, uint64_t n_mats,
                   struct imatrix_entry **out, struct err *e);
void imatrix_sort(struct imatrix *m);
int imatrix_add_dataset_n(struct imatrix *m, const char *name, size_t len, struct err *e);
double imatrix_max_count(const struct imatrix *m);

int imatrix_parse_dat(struct imatrix *m, const void *data, size_t len, const char *what, struct err *e);
int imatrix_parse_gguf(struct imatrix *m, const void *data, size_t len, const char *what, struct err *e);

/* The whole file in memory; caller frees *data with free(). */
int imatrix_build_dat(const struct imatrix *m, void **data, size_t *n, struct err *e);
int imatrix_build_gguf(const struct imatrix *m, void **data, size_t *n, struct err *e);

#endif
