/* hessian_collect.h - Hessians from the forward pass, into a file: Gram matrices of the inputs of every
 * product, and beside them the importance matrix that `kerf imatrix` would collect.
 *
 * All windows go through a layer before the next one, so one layer's matrices are held at a time; they go to
 * the file when the layer is done, and a run that was killed goes on behind its last complete layer (the
 * forward pass up to there is run again, without sums). Sums have the same bits for any number of threads,
 * any bound of memory and any interruption. Memory: 4 n_cols (n_cols + 1) bytes for each matrix of a layer,
 * in a temporary file when they do not fit into half of the bound. */
#ifndef KERF_HESSIAN_COLLECT_H
#define KERF_HESSIAN_COLLECT_H

#include "hessian_file.h"

#include "calib/corpus.h"
#include "calib/compute/activations.h"
#include "calib/model/weights.h"
#include "libquant/base/progress.h"

struct hessian_collect_options {
    struct pool *pool;
    uint64_t memory_bytes;
    enum activations activations;
    struct hessian_source source;       /* what is of the windows is filled in from them */
    struct hessian_writer_options file; /* `resume`: go on with a stopped run's file, and keep this one's */
    const char *state_path;             /* where it is kept how far the run came */
    struct progress progress;           /* in tokens x layers; counts layers */
};

/* Run all windows of `w` through the model and write `path`. The state at state_path is removed once the file
 * stands under its name. *n_resumed (may be NULL): layers that an earlier run had done. ERR_ARG: the state is
 * about another run; ERR_FORMAT: a sum is not finite. */
int hessian_collect(const char *path, const struct net *net, struct weights *weights, const struct windows *w,
                    const struct hessian_collect_options *opt, size_t *n_resumed, struct err *e);

#endif
