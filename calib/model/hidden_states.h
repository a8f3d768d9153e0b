/* hidden_states.h - a matrix of float32 rows that is larger than memory may be: in memory when it fits the
 * bound, else in an unlinked temporary file. Holds the states of all tokens between two layers. */
#ifndef KERF_HIDDEN_STATES_H
#define KERF_HIDDEN_STATES_H

#include "libquant/base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct hidden_states;

/* n_rows x n_cols, contents undefined. A file (in $TMPDIR, else /var/tmp) is used beyond `memory_bytes`.
 * *out: caller frees with hidden_states_free. */
int hidden_states_new(struct hidden_states **out, size_t n_rows, size_t n_cols, uint64_t memory_bytes,
                      struct err *e);
void hidden_states_free(struct hidden_states *h);

size_t hidden_states_n_rows(const struct hidden_states *h);
size_t hidden_states_n_cols(const struct hidden_states *h);
bool hidden_states_in_memory(const struct hidden_states *h);

/* Rows [row0, row0+n): *rows points into the store, or to `buffer` [n, n_cols], which was filled from the
 * file. Threads may read at the same time, each with a buffer of its own. */
int hidden_states_get(const struct hidden_states *h, size_t row0, size_t n, float *buffer, float **rows,
                      struct err *e);

/* Store rows that hidden_states_get gave or `buffer` holds; nothing to do when `rows` points into the store.
 */
int hidden_states_put(struct hidden_states *h, size_t row0, size_t n, const float *rows, struct err *e);

#endif
