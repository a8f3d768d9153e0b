/* tensor_stats.c - see tensor_stats.h. Partial means and squared deviations are merged by the pairwise update
 * of Chan, Golub and LeVeque (1979), which does not cancel where a sum of squares would. */
#include "tensor_stats.h"

#include <float.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>

#define CHUNK_ELEMS ((uint64_t)1 << 18)

struct partial {
    uint64_t n, n_zero, n_nan, n_inf;
    double min, max, mean, m2;
};

struct job {
    tensor_read read;
    const void *ctx;
    uint64_t n_rows, n_cols, per_chunk;
    struct partial *parts;
};

static void scan(struct partial *p, const float *x, uint64_t n)
{
    double sum = 0, m2 = 0;
    for (uint64_t i = 0; i < n; i++) {
        double v = (double)x[i];
        if (isnan(v)) {
            p->n_nan++;
        } else if (isinf(v)) {
            p->n_inf++;
        } else {
            p->n++;
            p->n_zero += v == 0;
            sum += v;
            p->min = v < p->min ? v : p->min;
            p->max = v > p->max ? v : p->max;
        }
    }
    p->mean = p->n ? sum / (double)p->n : 0;
    for (uint64_t i = 0; i < n; i++)
        if (isfinite(x[i])) {
            double d = (double)x[i] - p->mean;
            m2 += d * d;
        }
    p->m2 = m2;
}

static int run_chunk(void *ctx, size_t index, unsigned worker, struct err *e)
{
    const struct job *j = ctx;
    (void)worker;
    uint64_t row0 = index * j->per_chunk,
             n = j->n_rows - row0 < j->per_chunk ? j->n_rows - row0 : j->per_chunk;
    float *buffer = malloc(n * j->n_cols * sizeof *buffer);
    if (!buffer)
        return err_set(e, ERR_NOMEM, "out of memory for %" PRIu64 " rows", n);
    int rc = j->read(j->ctx, row0, n, buffer, e);
    struct partial p = {.min = DBL_MAX, .max = -DBL_MAX};
    if (rc == 0) {
        scan(&p, buffer, n * j->n_cols);
        j->parts[index] = p;
    }
    free(buffer);
    return rc;
}

static void merge(struct partial *a, const struct partial *b)
{
    uint64_t n = a->n + b->n;
    a->n_zero += b->n_zero;
    a->n_nan += b->n_nan;
    a->n_inf += b->n_inf;
    if (b->n == 0)
        return;
    double d = b->mean - a->mean;
    a->m2 += b->m2 + d * d * ((double)a->n * (double)b->n / (double)n);
    a->mean += d * ((double)b->n / (double)n);
    a->min = b->min < a->min ? b->min : a->min;
    a->max = b->max > a->max ? b->max : a->max;
    a->n = n;
}

int tensor_stats(struct tensor_stats *out, uint64_t n_rows, uint64_t n_cols, tensor_read read,
                 const void *ctx, struct pool *pool, uint64_t memory_bytes, struct err *e)
{
    struct partial total = {.min = DBL_MAX, .max = -DBL_MAX};
    int rc = 0;
    if (n_cols > memory_bytes / sizeof(float))
        return err_set(e, ERR_ARG,
                       "a row of %" PRIu64 " elements does not fit the memory bound; raise --memory", n_cols);
    if (n_rows && n_cols) {
        struct job j = {read, ctx, n_rows, n_cols, n_cols < CHUNK_ELEMS ? CHUNK_ELEMS / n_cols : 1, NULL};
        size_t n = (size_t)((n_rows + j.per_chunk - 1) / j.per_chunk);
        j.parts = calloc(n, sizeof *j.parts);
        if (!j.parts)
            return err_set(e, ERR_NOMEM, "out of memory for statistics");
        rc = pool_run(pool, n, run_chunk, &j, e);
        for (size_t i = 0; rc == 0 && i < n; i++)
            merge(&total, &j.parts[i]);
        free(j.parts);
    }
    if (rc == 0)
        *out = (struct tensor_stats){.n = n_rows * n_cols,
                                     .n_zero = total.n_zero,
                                     .n_nan = total.n_nan,
                                     .n_inf = total.n_inf,
                                     .min = total.n ? total.min : 0,
                                     .max = total.n ? total.max : 0,
                                     .mean = total.mean,
                                     .std = total.n ? sqrt(total.m2 / (double)total.n) : 0};
    return rc;
}
