/* hidden_states.h - the states of all tokens between two layers: a matrix of float32 rows that may be larger
 * than memory.
 *
 * hidden_states_new keeps them on the host: in memory when they fit the bound, else in an unlinked temporary
 * file. A back end with memory of its own makes others (compute.h, states_new); what is below works on all of
 * them, as the host sees the rows. */
#ifndef KERF_HIDDEN_STATES_H
#define KERF_HIDDEN_STATES_H

#include "libquant/base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct hidden_states;

/* How states of one kind are kept; the functions of the same names say what each does. */
struct hidden_states_kind {
    void (*free)(struct hidden_states *h);
    int (*get)(const struct hidden_states *h, size_t row0, size_t n, float *buffer, float **rows,
               struct err *e);
    int (*put)(struct hidden_states *h, size_t row0, size_t n, const float *rows, struct err *e);
    bool (*in_memory)(const struct hidden_states *h);
};

/* What every kind begins with. */
struct hidden_states {
    const struct hidden_states_kind *kind;
    size_t n_rows, n_cols;
};

/* n_rows x n_cols, contents undefined. A file (in $TMPDIR, else /var/tmp) is used beyond `memory_bytes`.
 * *out: caller frees with hidden_states_free. */
int hidden_states_new(struct hidden_states **out, size_t n_rows, size_t n_cols, uint64_t memory_bytes,
                      struct err *e);
void hidden_states_free(struct hidden_states *h);

size_t hidden_states_n_rows(const struct hidden_states *h);
size_t hidden_states_n_cols(const struct hidden_states *h);

/* Rows [first, first + n) of `of`, which is borrowed, as states of their own. *out: caller frees with
 * hidden_states_free, before `of`. ERR_NOMEM. */
int hidden_states_rows(struct hidden_states **out, struct hidden_states *of, size_t first, size_t n,
                       struct err *e);

/* Rows [at, at + n) of `to` become rows [first, first + n) of `from`, which has as many columns. */
int hidden_states_copy(struct hidden_states *to, size_t at, const struct hidden_states *from, size_t first,
                       size_t n, struct err *e);

/* True when rows can be worked on where they are, so that no buffer is needed. */
bool hidden_states_in_memory(const struct hidden_states *h);

/* Rows [row0, row0+n): *rows points into the store, or to `buffer` [n, n_cols], which was filled from the
 * file. Threads may read at the same time, each with a buffer of its own. */
int hidden_states_get(const struct hidden_states *h, size_t row0, size_t n, float *buffer, float **rows,
                      struct err *e);

/* Store rows that hidden_states_get gave or `buffer` holds; nothing to do when `rows` points into the store.
 */
int hidden_states_put(struct hidden_states *h, size_t row0, size_t n, const float *rows, struct err *e);

#endif
