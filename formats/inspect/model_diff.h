/* model_diff.h - what differs between two models: metadata, tensors, and how far their values are apart.
 *
 * Tensors pair up by GGUF name, whatever the sources are, so a checkpoint compares with its conversion and a
 * quantized file with its original. */
#ifndef KERF_MODEL_DIFF_H
#define KERF_MODEL_DIFF_H

#include "formats/model/model.h"

#include "libquant/base/pool.h"
#include "libquant/base/progress.h"

enum diff_status {
    DIFF_SAME,   /* type, shape and bytes (or, where a source has no bytes of its own, all values) agree */
    DIFF_TYPE,   /* another type; rmse tells about the values */
    DIFF_VALUES, /* same type and shape, other values */
    DIFF_SHAPE,
    DIFF_ONLY_A,
    DIFF_ONLY_B,
};
const char *diff_status_name(enum diff_status s); /* "same", "type", ... */

struct diff_tensor {
    const char *name; /* borrowed from its model */
    enum diff_status status;
    const struct model_tensor *a, *b; /* NULL where there is none */
    double rmse, max_abs;             /* of values(b) - values(a); NaN when they were not compared */
    double rms_a;                     /* sqrt(mean(values(a)^2)), to relate rmse to; NaN likewise */
};

struct diff_key {
    const char *key;
    const struct gguf_value *a, *b; /* NULL where there is none; borrowed from the models */
};

struct model_diff {
    struct diff_tensor *tensors; /* order of a, then what only b has */
    size_t n_tensors, n_same;
    struct diff_key *keys; /* only those that differ; order of a, then of b */
    size_t n_keys;
};

/* *out: caller frees with model_diff_release; it borrows from both models. `progress` as in rewrite.h, with
 * bytes of both sources. */
int model_diff(struct model_diff *out, const struct model *a, const struct model *b, struct pool *pool,
               const struct progress *progress, struct err *e);
void model_diff_release(struct model_diff *d);

#endif
