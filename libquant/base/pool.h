/* pool.h - a fixed set of worker threads that run numbered jobs.
 *
 * Jobs are handed out in rising order. A job must not depend on another one of the same run, and must write
 * only where its number says; then the result cannot depend on the thread count. When jobs fail, the failure
 * of the lowest number is reported, so the message is the same on every run. */
#ifndef KERF_POOL_H
#define KERF_POOL_H

#include "err.h"

#include <stddef.h>

struct pool;

/* `worker` is in [0, pool_n_threads): the index of the worker's scratch space. 0 or a negative err_code. */
typedef int (*pool_job)(void *ctx, size_t job, unsigned worker, struct err *e);

/* `n_threads` 0: one for each core this process may use. The calling thread counts as one of them.
 * *out: caller frees with pool_free. ERR_IO: the system refuses a thread, as at its limit of processes. */
int pool_new(struct pool **out, unsigned n_threads, struct err *e);
void pool_free(struct pool *p);
unsigned pool_n_threads(const struct pool *p);

/* Run jobs 0..n_jobs-1 and wait for all. After a failure no new job starts. Not reentrant. */
int pool_run(struct pool *p, size_t n_jobs, pool_job fn, void *ctx, struct err *e);

/* The same; `watch` is called on the calling thread, 20 times a second while it has no job left and waits for
 * the others, and once behind the last job. For long jobs, which may be told to stop meanwhile. */
typedef void (*pool_watch)(void *ctx);
int pool_run_watched(struct pool *p, size_t n_jobs, pool_job fn, pool_watch watch, void *ctx, struct err *e);

/* Number of cores this process may use (affinity mask), at least 1. */
unsigned pool_n_cores(void);

#endif
