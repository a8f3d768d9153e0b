/* score_store.h - a folder that keeps what is measured, so that a comparison can stop and go on, and one more
 * candidate costs no more than itself.
 *
 *     struct score_store s = {.folder = "kerf-scores", .about = hash of text and settings};
 *     score_store_load(&found, &unit, &s, ...)  or, when there is none,  score_store_save(...)
 *
 * A unit is the scores of one model, against one reference, over one stretch of windows; of a reference also
 * its final states. It is a file of its own, named by the hash of all that decides its content, and appears
 * whole or not at all: nothing has to be refused or repaired, and one folder serves any number of texts and
 * models. Numbers are kept to the bit. A file that is damaged counts as absent. */
#ifndef KERF_SCORE_STORE_H
#define KERF_SCORE_STORE_H

#include "calib/compute/hidden_states.h"
#include "libquant/base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct score_store {
    const char *folder;
    char about[65];   /* SHA-256 of text, windows, settings and program; "" : not set yet */
    size_t n_damaged; /* files that were there and could not be used */
};

/* Make the folder, if need be; its parent exists. ERR_IO. */
int score_store_open(struct score_store *s, struct err *e);

/* Name of a unit: 64 digits over `about`, the reference, the model ("" for a reference itself), and which
 * windows. */
void score_store_key(const struct score_store *s, const char *reference, const char *model, size_t first,
                     size_t n_windows, char out[65]);

struct score_unit { /* of n positions; arrays are the caller's */
    size_t n;
    double *nll, *kld;
    int32_t *top;
    double seconds; /* that measuring took */
};

/* *found: the unit was there and is in `u`. Never fails: what cannot be read is not there. */
void score_store_load(bool *found, struct score_unit *u, struct score_store *s, const char *key);
int score_store_save(const struct score_unit *u, const struct score_store *s, const char *key, struct err *e);

/* The same of final states. *out: [n_rows, n_cols], caller frees with hidden_states_free; NULL when they are
 * not there. Fails only for want of memory. */
int score_store_load_states(struct hidden_states **out, struct score_store *s, const char *key, size_t n_rows,
                            size_t n_cols, uint64_t memory_bytes, struct err *e);
int score_store_save_states(const struct hidden_states *h, const struct score_store *s, const char *key,
                            struct err *e);
/* Whether they are there and whole; a damaged file is counted. */
bool score_store_has_states(struct score_store *s, const char *key, size_t n_rows, size_t n_cols);

#endif
