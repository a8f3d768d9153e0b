/* imatrix_sums.h - the growing sums of a collection: one accumulator for each distinct input, shared by the
 * matrices that multiply it (q, k and v; gate and up). Internal to calib/stats. */
#ifndef KERF_IMATRIX_SUMS_H
#define KERF_IMATRIX_SUMS_H

#include "calib/model/forward.h"
#include "formats/gguf/imatrix_file.h"
#include "libquant/base/arena.h"
#include "libquant/base/strmap.h"

struct sums_entry {
    const char *name; /* of the tensor that came first */
    uint64_t n_cols, n_mats;
    double *sums;        /* [n_mats, n_cols] */
    double *counts;      /* [n_mats] */
    const char **others; /* further tensors with the same input */
    size_t n_others;
};

struct imatrix_sums {
    struct arena arena;
    struct strmap by_name; /* first tensor's name -> index */
    struct sums_entry *entries;
    size_t n, cap;
    struct pool *pool;
    const struct model_tensor *head; /* left out unless `process_output` */
    bool process_output;
    bool by_router; /* rows of experts count by the router's weight */
};

void imatrix_sums_release(struct imatrix_sums *s);

/* observe_fn; ctx is a struct imatrix_sums. */
int imatrix_sums_observe(void *ctx, const struct observation *o, struct err *e);

/* observe_attention_fn, beside the other: keys and values get entries of their own, weighed by what attention
 * does with each token, as Hessians of them are (hessian_plan.h). Each window counts as its tokens. Fused
 * ones stay with the queries. */
int imatrix_sums_observe_attention(void *ctx, const struct attention_observation *o, struct err *e);

/* ERR_FORMAT when a sum is not finite: the message names the tensor. */
int imatrix_sums_check(const struct imatrix_sums *s, struct err *e);

/* All entries as an importance matrix. */
int imatrix_sums_finish(struct imatrix **out, const struct imatrix_sums *s, struct err *e);

/* A new entry with zeroed sums and room for the names of n_others tensors. The name is copied. */
int imatrix_sums_add(struct imatrix_sums *s, const char *name, uint64_t n_cols, uint64_t n_mats,
                     size_t n_others, struct sums_entry **out, struct err *e);
int imatrix_sums_no_memory(const char *name, struct err *e);

/* State of a run that is not finished: the sums, the negative log-likelihoods so far, and what the run is
 * about. */
struct imatrix_state {
    const char *identity;
    uint64_t n_windows; /* finished */
    double *nll;        /* [n_nll] */
    size_t n_nll;
};

/* A GGUF file of float64 tensors with a checksum, written whole or not at all. */
int imatrix_state_save(const char *path, const struct imatrix_sums *s, const struct imatrix_state *state,
                       struct err *e);

/* Into empty sums; `state->identity` says what is expected, `state->nll` has room for max_nll values. *found
 * false: there is no such file, and nothing is changed. ERR_ARG: it is about another run; ERR_FORMAT: it is
 * damaged. After a failure the sums are good for release only. */
int imatrix_state_load(const char *path, struct imatrix_sums *s, struct imatrix_state *state, size_t max_nll,
                       bool *found, struct err *e);

/* The same from bytes in memory (fuzzing). */
int imatrix_state_load_memory(const void *data, size_t n_bytes, struct imatrix_sums *s,
                              struct imatrix_state *state, size_t max_nll, struct err *e);

#endif
