/* pool.c - see pool.h. One mutex guards everything; a job is long (a row block), so contention does not
 * count. */
#define _GNU_SOURCE
#include "pool.h"

#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define WATCH_NANOSECONDS 50000000

struct pool {
    pthread_mutex_t lock;
    pthread_cond_t work, done;
    pthread_t *threads; /* n_threads - 1 of them */
    unsigned n_threads, n_started;
    bool stop;
    unsigned long round; /* counts pool_run calls, so that a sleeper knows a new one began */
    pool_job fn;
    void *ctx;
    size_t n_jobs, next;
    unsigned n_busy;
    int rc; /* of the failing job with the lowest number */
    size_t rc_job;
    struct err err;
};

struct worker_arg {
    struct pool *pool;
    unsigned index;
};

/* Called with the lock held; takes jobs until none is left. */
static void drain(struct pool *p, unsigned worker)
{
    while (p->next < p->n_jobs && p->rc == 0) {
        size_t job = p->next++;
        pthread_mutex_unlock(&p->lock);
        struct err e = {0};
        int rc = p->fn(p->ctx, job, worker, &e);
        pthread_mutex_lock(&p->lock);
        if (rc != 0 && (p->rc == 0 || job < p->rc_job)) {
            p->rc = rc;
            p->rc_job = job;
            p->err = e;
        }
    }
}

static void *worker_main(void *arg)
{
    struct worker_arg w = *(struct worker_arg *)arg;
    free(arg);
    struct pool *p = w.pool;
    unsigned long seen = 0;
    pthread_mutex_lock(&p->lock);
    for (;;) {
        while (!p->stop && p->round == seen)
            pthread_cond_wait(&p->work, &p->lock);
        if (p->stop)
            break;
        seen = p->round;
        p->n_busy++;
        drain(p, w.index);
        if (--p->n_busy == 0)
            pthread_cond_signal(&p->done);
    }
    pthread_mutex_unlock(&p->lock);
    return NULL;
}

unsigned pool_n_cores(void)
{
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0) {
        int n = CPU_COUNT(&set);
        if (n > 0)
            return (unsigned)n;
    }
    return 1;
}

static int start_one(struct pool *p, struct err *e)
{
    struct worker_arg *arg = malloc(sizeof *arg);
    if (!arg)
        return err_set(e, ERR_NOMEM, "out of memory for the thread pool");
    *arg = (struct worker_arg){p, p->n_started + 1};
    int why = pthread_create(&p->threads[p->n_started], NULL, worker_main, arg);
    if (why != 0) {
        free(arg);
        return err_set(e, ERR_IO, "cannot start thread %u of %u: %s; use fewer (--threads)", p->n_started + 2,
                       p->n_threads, strerror(why));
    }
    p->n_started++;
    return 0;
}

int pool_new(struct pool **out, unsigned n_threads, struct err *e)
{
    if (n_threads == 0)
        n_threads = pool_n_cores();
    if (n_threads > 1024)
        n_threads = 1024;
    struct pool *p = calloc(1, sizeof *p);
    if (!p)
        return err_set(e, ERR_NOMEM, "out of memory for the thread pool");
    p->n_threads = n_threads;
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->work, NULL);
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC); /* somebody may set the other one */
    pthread_cond_init(&p->done, &attr);
    pthread_condattr_destroy(&attr);
    p->threads = calloc(n_threads, sizeof *p->threads);
    int rc = p->threads ? 0 : err_set(e, ERR_NOMEM, "out of memory for the thread pool");
    while (rc == 0 && p->n_started + 1 < n_threads)
        rc = start_one(p, e);
    if (rc != 0)
        pool_free(p);
    else
        *out = p;
    return rc;
}

void pool_free(struct pool *p)
{
    if (!p)
        return;
    pthread_mutex_lock(&p->lock);
    p->stop = true;
    pthread_cond_broadcast(&p->work);
    pthread_mutex_unlock(&p->lock);
    for (unsigned i = 0; i < p->n_started; i++)
        pthread_join(p->threads[i], NULL);
    pthread_cond_destroy(&p->work);
    pthread_cond_destroy(&p->done);
    pthread_mutex_destroy(&p->lock);
    free(p->threads);
    free(p);
}

unsigned pool_n_threads(const struct pool *p)
{
    return p->n_threads;
}

static void wait_a_moment(struct pool *p)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += WATCH_NANOSECONDS;
    if (until.tv_nsec >= 1000000000) {
        until.tv_sec++;
        until.tv_nsec -= 1000000000;
    }
    pthread_cond_timedwait(&p->done, &p->lock, &until);
}

/* Called with the lock held, which `watch` is called without. */
static void wait_for_others(struct pool *p, pool_watch watch, void *ctx)
{
    while (p->n_busy && !watch)
        pthread_cond_wait(&p->done, &p->lock);
    if (!watch)
        return;
    do {
        if (p->n_busy)
            wait_a_moment(p);
        pthread_mutex_unlock(&p->lock);
        watch(ctx);
        pthread_mutex_lock(&p->lock);
    } while (p->n_busy);
}

int pool_run(struct pool *p, size_t n_jobs, pool_job fn, void *ctx, struct err *e)
{
    return pool_run_watched(p, n_jobs, fn, NULL, ctx, e);
}

int pool_run_watched(struct pool *p, size_t n_jobs, pool_job fn, pool_watch watch, void *ctx, struct err *e)
{
    pthread_mutex_lock(&p->lock);
    p->fn = fn;
    p->ctx = ctx;
    p->n_jobs = n_jobs;
    p->next = 0;
    p->rc = 0;
    p->rc_job = 0;
    p->round++;
    if (n_jobs > 1)
        pthread_cond_broadcast(&p->work);
    drain(p, 0);
    wait_for_others(p, watch, ctx);
    p->n_jobs = 0; /* a late riser of this round finds nothing */
    int rc = p->rc;
    if (rc && e)
        *e = p->err;
    pthread_mutex_unlock(&p->lock);
    return rc;
}
