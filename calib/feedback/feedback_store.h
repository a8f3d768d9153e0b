/* feedback_store.h - the blocks that a model's solver makes, in a file beside the output, mapped: for each
 * tensor the rows of the plain encoder and the solved ones. What is done is kept, a layer at a time, when a
 * run is to be resumed. */
#ifndef KERF_FEEDBACK_STORE_H
#define KERF_FEEDBACK_STORE_H

#include "feedback.h"

#include <stdbool.h>

/* What is known of a solved tensor; also what the file keeps of it. */
struct feedback_figures {
    struct feedback_loss loss;
    double gain;   /* sum D / sum H of its rows' Hessians, the mean over rows */
    double lambda; /* shrinkage, the mean over rows */
};

/* The blocks of a tensor that are kept. */
enum feedback_blocks {
    FEEDBACK_PLAIN,     /* of the plain encoder */
    FEEDBACK_SOLVED,    /* under the Hessian of the original model */
    FEEDBACK_CORRECTED, /* behind quantized layers (feedback_sequence.h) */
    FEEDBACK_N_BLOCKS
};

struct feedback_store;

/* n_bytes [n]: of each tensor's blocks, of which the first n_kinds kinds are kept. `resume`: take up a file
 * of the same identity. The file is removed with the store, unless `keep`. *out: caller frees with
 * feedback_store_free. ERR_IO: no room, or a file that is none of ours is there and stays. */
int feedback_store_open(struct feedback_store **out, const char *path, const char identity[65],
                        const uint64_t *n_bytes, size_t n, size_t n_kinds, bool resume, struct err *e);

/* Refuse a file that is none of ours as feedback_store_open does, before the work. */
int feedback_store_check(const char *path, struct err *e);

/* Was there, with `resume`, the file of a run of another identity, and was it given up? */
bool feedback_store_restarted(const struct feedback_store *s);
void feedback_store_free(struct feedback_store *s, bool keep);

uint8_t *feedback_store_blocks(struct feedback_store *s, enum feedback_blocks kind, size_t i);
void feedback_store_copy(struct feedback_store *s, enum feedback_blocks to, enum feedback_blocks from,
                         size_t i);
struct feedback_figures *feedback_store_figures(struct feedback_store *s, size_t i);

/* Layers that are done; setting it puts everything before on the disk. */
uint64_t feedback_store_n_done(const struct feedback_store *s);
int feedback_store_set_done(struct feedback_store *s, uint64_t n, struct err *e);

/* The same of corrected parts of the layers. They depend on what was chosen before (64 digits): those behind
 * other choices are none. */
int feedback_store_begin_corrections(struct feedback_store *s, const char choices[65], struct err *e);
uint64_t feedback_store_n_corrected(const struct feedback_store *s);
int feedback_store_set_corrected(struct feedback_store *s, uint64_t n, struct err *e);

#endif
