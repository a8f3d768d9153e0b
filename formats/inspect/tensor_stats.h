/* tensor_stats.h - what the numbers of a tensor look like: range, mean, spread, zeros, not-a-numbers.
 *
 * Rows are read in chunks whose size depends on the shape alone and whose results are merged in order, so
 * threads and memory bound never change a digit. */
#ifndef KERF_TENSOR_STATS_H
#define KERF_TENSOR_STATS_H

#include "libquant/base/pool.h"

#include <stdint.h>

/* Over finite values only; n_nan and n_inf count the others. Mean, std (population), min and max are 0 when
 * there is no finite value. */
struct tensor_stats {
    uint64_t n, n_zero, n_nan, n_inf;
    double min, max, mean, std;
};

/* Rows [row0, row0+n) of n_cols float32 each; called from several threads. */
typedef int (*tensor_read)(const void *ctx, uint64_t row0, uint64_t n, float *dst, struct err *e);

/* ERR_ARG when one row does not fit `memory_bytes`. */
int tensor_stats(struct tensor_stats *out, uint64_t n_rows, uint64_t n_cols, tensor_read read,
                 const void *ctx, struct pool *pool, uint64_t memory_bytes, struct err *e);

#endif
