/* rewrite_pipeline.c - the jobs of a rewrite: rows in, blocks out.
 *
 * One list of jobs runs over all tensors, so small tensors keep every worker busy too. A job's rows and bytes
 * depend on the shape alone; thread count and memory bound only decide how many rows are held at a time. Each
 * worker reads, encodes and writes its own job; the kernel reads ahead of them (model_want_rows) and the
 * journal's thread pushes finished data to the disk behind them, so reading, computing and writing overlap.
 */
#include "rewrite_internal.h"

#include "libquant/base/checked.h"
#include "libquant/half.h"
#include "libquant/quant.h"
#include "libquant/base/slice.h"

#include <inttypes.h>
#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

/* Scratch of one running job: importance [widest row], one decoded row, then the batch (f32 and blocks). */
struct slot {
    uint8_t *mem;
    bool busy;
    const struct rw_tensor *weights_of; /* whose importance is in `mem`, and of which slice */
    uint64_t weights_mat;
};

struct pipeline {
    struct rw_run *run;
    struct slot *slots; /* fewer than workers when memory is tight: the others wait their turn */
    unsigned n_slots, ahead;
    uint64_t slot_bytes, widest;
    bool check;            /* compare with a finished output instead of writing */
    atomic_bool different; /* it is not what would be written */
    pthread_mutex_t lock;
    pthread_cond_t freed;
};

const struct rw_tensor *rw_job_rows(const struct rw_plan *p, size_t job, uint64_t *row0, uint64_t *n_rows)
{
    size_t lo = 0, hi = p->n_tensors;
    while (hi - lo > 1) { /* the last tensor whose first job is not behind `job` */
        size_t mid = lo + (hi - lo) / 2;
        if (p->tensors[mid].first_job <= job)
            lo = mid;
        else
            hi = mid;
    }
    const struct rw_tensor *t = &p->tensors[lo];
    *row0 = (uint64_t)(job - t->first_job) * t->rows_per_job;
    *n_rows = t->src->n_rows - *row0 < t->rows_per_job ? t->src->n_rows - *row0 : t->rows_per_job;
    return t;
}

/* --- scratch --- */

static struct slot *take_slot(struct pipeline *pl)
{
    struct slot *found = NULL;
    pthread_mutex_lock(&pl->lock);
    while (!found) {
        for (unsigned i = 0; i < pl->n_slots && !found; i++)
            if (!pl->slots[i].busy)
                found = &pl->slots[i];
        if (!found)
            pthread_cond_wait(&pl->freed, &pl->lock);
    }
    found->busy = true;
    pthread_mutex_unlock(&pl->lock);
    return found;
}

static void give_slot(struct pipeline *pl, struct slot *s)
{
    pthread_mutex_lock(&pl->lock);
    s->busy = false;
    pthread_cond_signal(&pl->freed);
    pthread_mutex_unlock(&pl->lock);
}

/* Bytes of scratch for `n_rows` rows of a tensor. Sizes of tensors were checked against 2^63 by the readers.
 */
static bool scratch_bytes(const struct rw_tensor *t, uint64_t widest, uint64_t n_rows, uint64_t *out)
{
    uint64_t row, fixed;
    return checked_mul(t->src->ne[0], 4, &row) && checked_add(row, t->row_bytes, &row) &&
           checked_mul(row, n_rows, &row) && checked_mul(widest, 8, &fixed) && checked_add(row, fixed, out);
}

/* Choose slot size and number within the bound. */
static int size_slots(struct pipeline *pl, struct err *e)
{
    const struct rw_plan *p = pl->run->plan;
    uint64_t memory = pl->run->opt->memory_bytes, need = 0, want = 0;
    unsigned n_threads = pool_n_threads(pl->run->opt->pool);
    const struct rw_tensor *worst = NULL;
    for (size_t i = 0; i < p->n_tensors; i++)
        if (!p->tensors[i].copy && p->tensors[i].src->ne[0] > pl->widest)
            pl->widest = p->tensors[i].src->ne[0];
    for (size_t i = 0; i < p->n_tensors; i++) {
        const struct rw_tensor *t = &p->tensors[i];
        uint64_t one, all;
        if (t->copy || t->src->n_rows == 0)
            continue;
        if (!scratch_bytes(t, pl->widest, 1, &one) || !scratch_bytes(t, pl->widest, t->rows_per_job, &all))
            return err_set(e, ERR_ARG, "tensor '%s': rows of %" PRIu64 " elements are too long", t->src->name,
                           t->src->ne[0]);
        if (one > need) {
            need = one;
            worst = t;
        }
        want = all > want ? all : want;
    }
    if (memory == 0)
        memory = (uint64_t)1 << 30;
    if (need > memory)
        return err_set(e, ERR_ARG,
                       "tensor '%s': one row of %" PRIu64 " elements needs %" PRIu64
                       " bytes of working memory, the bound is %" PRIu64 "; raise --memory",
                       worst->src->name, worst->src->ne[0], need, memory);
    uint64_t share = memory / n_threads;
    pl->slot_bytes = share < need ? need : share > want ? want : share;
    pl->n_slots = n_threads;
    if (pl->slot_bytes && memory / pl->slot_bytes < n_threads)
        pl->n_slots = (unsigned)(memory / pl->slot_bytes);
    pl->slots = calloc(pl->n_slots, sizeof *pl->slots);
    if (!pl->slots)
        return err_set(e, ERR_NOMEM, "out of memory for the workers");
    return 0;
}

/* --- checks --- */

/* Say what is wrong with the value at (row, col). */
static int bad_value(const struct rw_tensor *t, uint64_t row, uint64_t col, float v, struct err *e)
{
    if (isnan(v) || isinf(v))
        return err_set(e, ERR_FORMAT,
                       "tensor '%s' (%s): row %" PRIu64 ", column %" PRIu64
                       ": expected a finite value, found %s; the weights are damaged",
                       t->src->name, t->src->origin, row, col,
                       isnan(v) ? "NaN"
                       : v > 0  ? "+Inf"
                                : "-Inf");
    return err_set(e, ERR_ARG,
                   "tensor '%s' (%s): row %" PRIu64 ", column %" PRIu64
                   ": %.9g does not fit in %s (largest is %g); choose BF16 or F32",
                   t->src->name, t->src->origin, row, col, (double)v, qtype_name(t->type),
                   (double)quant_limit(t->type));
}

static float plain_value(enum qtype type, const uint8_t *p)
{
    if (type == QTYPE_F32)
        return load_f32(p);
    return type == QTYPE_F16 ? f16_to_f32(load_u16(p)) : bf16_to_f32(load_u16(p));
}

/* Stored blocks, read or written: finite plain values, finite scales. `row0` is the number of the first row.
 */
static int check_blocks(const struct rw_tensor *t, uint64_t row0, const uint8_t *blocks, uint64_t n,
                        const char *what, struct err *e)
{
    size_t bad = 0;
    struct err why = {0};
    int rc = quant_validate(t->type, blocks, n, &bad, &why);
    if (rc == 0)
        return 0;
    uint64_t row = row0 + bad / t->row_bytes, at = bad % t->row_bytes;
    if (t->type == QTYPE_F32 || t->type == QTYPE_F16 || t->type == QTYPE_BF16)
        return bad_value(t, row, at / qtype_info(t->type)->block_bytes, plain_value(t->type, blocks + bad),
                         e);
    return err_set(e, rc, "tensor '%s' (%s): row %" PRIu64 ", column %" PRIu64 ": invalid %s block %s: %s",
                   t->src->name, t->src->origin, row,
                   at / qtype_info(t->type)->block_bytes * qtype_info(t->type)->block_elems,
                   qtype_name(t->type), what, why.msg);
}

/* --- jobs --- */

/* Finished rows, from row `row0` of the tensor: to the output, or compared with it. */
static int put_rows(struct pipeline *pl, const struct rw_tensor *t, uint64_t row0, const void *data,
                    uint64_t n_bytes, struct err *e)
{
    const struct gguf_parts *parts = pl->run->plan->parts;
    size_t i = (size_t)(t - pl->run->plan->tensors);
    uint64_t at = row0 * t->row_bytes;
    if (!pl->check)
        return gguf_parts_write(pl->run->plan->parts, i, at, data, n_bytes, e);
    if (!gguf_parts_holds(parts, i, at, data, n_bytes))
        atomic_store(&pl->different, true);
    return 0;
}

static int copy_rows(struct pipeline *pl, const struct rw_tensor *t, uint64_t row0, uint64_t n, struct err *e)
{
    const uint8_t *from = t->src->raw + row0 * t->row_bytes;
    uint64_t n_bytes = n * t->row_bytes;
    int rc = check_blocks(t, row0, from, n_bytes, "in the source", e);
    if (rc)
        return rc;
    return put_rows(pl, t, row0, from, n_bytes, e);
}

/* Squared distance of one row. Eight lanes in a fixed order: fast, and the same sum on every machine. */
static double row_sse(const float *a, const float *b, uint64_t n)
{
    double lane[8] = {0};
    uint64_t i = 0;
    for (; i + 8 <= n; i += 8)
        for (unsigned k = 0; k < 8; k++) {
            double d = (double)a[i + k] - (double)b[i + k];
            lane[k] += d * d;
        }
    for (; i < n; i++) {
        double d = (double)a[i] - (double)b[i];
        lane[0] += d * d;
    }
    return ((lane[0] + lane[1]) + (lane[2] + lane[3])) + ((lane[4] + lane[5]) + (lane[6] + lane[7]));
}

/* Rows that were encoded, divided by their factor, against what is read back. */
static int measure_rows(struct pipeline *pl, const struct rw_tensor *t, const float *rows, uint64_t row0,
                        const uint8_t *blocks, uint64_t n, float *decoded, struct rw_error *sum,
                        struct err *e)
{
    uint64_t n_cols = t->src->ne[0];
    for (uint64_t r = 0; r < n; r++) {
        const double factor = t->factors ? (double)t->factors[(row0 + r) / t->src->ne[1]] : 1;
        int rc = quant_decode_rows(pl->run->opt->kern, t->type, blocks + r * t->row_bytes, t->row_bytes,
                                   decoded, 1, n_cols, e);
        if (rc)
            return rc;
        sum->sse += factor * factor * row_sse(decoded, rows + r * n_cols, n_cols);
        quant_count_losses(&sum->losses, t->type, rows + r * n_cols, decoded, n_cols);
    }
    return 0;
}

/* Weights relative to the factor that stands beside their blocks. */
static void divide_rows(const struct rw_tensor *t, float *rows, uint64_t row0, uint64_t n)
{
    const uint64_t n_cols = t->src->ne[0];
    for (uint64_t r = 0; t->factors && r < n; r++) {
        const float factor = t->factors[(row0 + r) / t->src->ne[1]];
        for (uint64_t i = 0; i < n_cols; i++)
            rows[r * n_cols + i] /= factor;
    }
}

/* Encode rows [row0, row0+n), slice by slice, since each slice (expert) has its own importance. */
static int encode_rows(struct pipeline *pl, struct slot *s, const struct rw_tensor *t, const float *rows,
                       uint8_t *blocks, uint64_t row0, uint64_t n, struct err *e)
{
    const struct rewrite_options *opt = pl->run->opt;
    float *weights = (float *)s->mem;
    uint64_t n_cols = t->src->ne[0], per_mat = t->src->ne[1];
    const uint8_t *made = opt->blocks ? opt->blocks(opt->blocks_ctx, t->src, t->type) : NULL;
    if (made) {
        memcpy(blocks, made + row0 * t->row_bytes, n * t->row_bytes);
        return 0;
    }
    for (uint64_t r = 0; r < n;) {
        uint64_t mat = (row0 + r) / per_mat, k = per_mat - (row0 + r) % per_mat;
        int rc = 0;
        if (k > n - r)
            k = n - r;
        if (t->imat && (s->weights_of != t || s->weights_mat != mat)) {
            s->weights_of = NULL;
            rc = imatrix_weights(t->imat, mat, t->n_mats, n_cols, weights, e);
            if (rc)
                return err_context(e, rc, "importance of tensor '%s'", t->src->name);
            s->weights_of = t;
            s->weights_mat = mat;
        }
        rc = quant_encode_informed(opt->kern, t->type, rows + r * n_cols, blocks + r * t->row_bytes,
                                   k * t->row_bytes, k, n_cols, t->imat ? weights : NULL, e);
        if (rc)
            return err_context(e, rc, "tensor '%s'", t->src->name);
        r += k;
    }
    return 0;
}

/* Blocks put together from what the checkpoint stores. */
static int repack_rows(struct pipeline *pl, struct slot *s, const struct rw_tensor *t, uint64_t row0,
                       uint64_t n, struct err *e)
{
    uint64_t batch = pl->slot_bytes / t->row_bytes;
    for (uint64_t r = 0; r < n; r += batch) {
        uint64_t k = n - r < batch ? n - r : batch;
        int rc = model_read_blocks(pl->run->model, t->src, row0 + r, k, s->mem, e);
        if (rc == 0)
            rc = check_blocks(t, row0 + r, s->mem, k * t->row_bytes, "in the source", e);
        if (rc == 0)
            rc = put_rows(pl, t, row0 + r, s->mem, k * t->row_bytes, e);
        if (rc)
            return rc;
    }
    return 0;
}

static int convert_rows(struct pipeline *pl, struct slot *s, const struct rw_tensor *t, uint64_t row0,
                        uint64_t n, struct rw_error *sum, struct err *e)
{
    uint64_t n_cols = t->src->ne[0], per_row = 4 * n_cols + t->row_bytes;
    uint64_t batch = (pl->slot_bytes - 8 * pl->widest) / per_row;
    if (batch > t->rows_per_job)
        batch = t->rows_per_job;
    float *decoded = (float *)s->mem + pl->widest, *rows = decoded + pl->widest;
    uint8_t *blocks = (uint8_t *)(rows + batch * n_cols);
    for (uint64_t r = 0; r < n; r += batch) {
        uint64_t k = n - r < batch ? n - r : batch;
        int rc = model_read_rows(pl->run->model, t->src, row0 + r, k, rows, e);
        if (rc)
            return rc;
        size_t bad = quant_find_bad(rows, k * n_cols, quant_limit(t->type));
        if (bad < k * n_cols)
            return bad_value(t, row0 + r + bad / n_cols, bad % n_cols, rows[bad], e);
        divide_rows(t, rows, row0 + r, k);
        rc = encode_rows(pl, s, t, rows, blocks, row0 + r, k, e);
        if (rc == 0)
            rc = check_blocks(t, row0 + r, blocks, k * t->row_bytes, "after quantizing", e);
        if (rc == 0 && pl->run->opt->measure)
            rc = measure_rows(pl, t, rows, row0 + r, blocks, k, decoded, sum, e);
        if (rc == 0)
            rc = put_rows(pl, t, row0 + r, blocks, k * t->row_bytes, e);
        if (rc)
            return rc;
    }
    return 0;
}

static void hint_job(const struct rw_run *run, size_t job)
{
    uint64_t row0, n;
    if (job >= run->plan->n_jobs)
        return;
    const struct rw_tensor *t = rw_job_rows(run->plan, job, &row0, &n);
    if (!t->made_here)
        model_want_rows(run->model, t->src, row0, n);
}

/* The calling thread tells how far we are; it is worker 0 of the pool. */
static void tell(struct rw_run *run, const struct rw_tensor *t)
{
    struct progress_step s = {.done = (double)atomic_load(&run->done_bytes),
                              .total = (double)run->plan->source_bytes,
                              .what = t->src->name};
    if (progress_stops(&run->opt->progress, &s))
        atomic_store(&run->cancelled, true);
}

static int do_rows(struct pipeline *pl, const struct rw_tensor *t, uint64_t row0, uint64_t n,
                   struct rw_error *sum, struct err *e)
{
    int rc;
    if (t->copy) {
        rc = copy_rows(pl, t, row0, n, e);
    } else {
        struct slot *s = take_slot(pl);
        if (!s->mem)
            s->mem = aligned_alloc(64, (pl->slot_bytes + 63) & ~(uint64_t)63);
        if (s->mem && t->repack) {
            s->weights_of = NULL; /* overwritten */
            rc = repack_rows(pl, s, t, row0, n, e);
        } else if (s->mem)
            rc = convert_rows(pl, s, t, row0, n, sum, e);
        else
            rc = err_set(e, ERR_NOMEM, "out of memory: %" PRIu64 " bytes for a worker; lower --memory",
                         pl->slot_bytes);
        give_slot(pl, s);
    }
    if (!t->made_here)
        model_drop_rows(pl->run->model, t->src, row0, n);
    return rc;
}

static int run_job(void *ctx, size_t job, unsigned worker, struct err *e)
{
    struct pipeline *pl = ctx;
    struct rw_run *run = pl->run;
    uint64_t row0, n;
    const struct rw_tensor *t = rw_job_rows(run->plan, job, &row0, &n);
    if (worker == 0)
        tell(run, t);
    if (atomic_load(&run->cancelled))
        return err_set(e, ERR_CANCELLED, ERR_STOPPED);
    if (atomic_load(&run->done[job]))
        return 0;
    hint_job(run, job + pl->ahead);
    struct rw_error sum = {0};
    int rc = do_rows(pl, t, row0, n, &sum, e);
    if (rc)
        return rc;
    run->errors[job] = sum;
    atomic_fetch_add(&run->done_bytes, t->src->n_rows ? t->src->n_bytes / t->src->n_rows * n : 0);
    atomic_store(&run->done[job], 1); /* releases errors[job] to the journal's thread */
    return 0;
}

/* Rows of a tensor that are compared, spread evenly from the first to the last: enough that other weights,
 * experts or importance show, and a small part of the work of a run. */
#define N_SAMPLES 8

static int check_tensor(void *ctx, size_t i, unsigned worker, struct err *e)
{
    struct pipeline *pl = ctx;
    const struct rw_tensor *t = &pl->run->plan->tensors[i];
    uint64_t n = t->src->n_rows, n_samples = n < N_SAMPLES ? n : N_SAMPLES;
    int rc = 0;
    (void)worker;
    for (uint64_t k = 0; k < n_samples && rc == 0 && !atomic_load(&pl->different); k++) {
        struct rw_error ignored = {0};
        /* n * k could be too large a number */
        uint64_t row = k + 1 == n_samples ? n - 1 : n / n_samples * k;
        rc = do_rows(pl, t, row, 1, &ignored, e);
    }
    return rc;
}

static int run_pipeline(struct pipeline *pl, size_t n_jobs, pool_job job, struct err *e)
{
    struct rw_run *run = pl->run;
    int rc = size_slots(pl, e);
    if (rc)
        return rc;
    pthread_mutex_init(&pl->lock, NULL);
    pthread_cond_init(&pl->freed, NULL);
    for (unsigned i = 0; i < pl->ahead; i++)
        hint_job(run, i);
    rc = pool_run(run->opt->pool, n_jobs, job, pl, e);
    for (unsigned i = 0; i < pl->n_slots; i++)
        free(pl->slots[i].mem);
    free(pl->slots);
    pthread_cond_destroy(&pl->freed);
    pthread_mutex_destroy(&pl->lock);
    return rc;
}

int rw_pipeline_run(struct rw_run *run, struct err *e)
{
    struct pipeline pl = {.run = run, .ahead = 2 * pool_n_threads(run->opt->pool)};
    return run_pipeline(&pl, run->plan->n_jobs, run_job, e);
}

int rw_pipeline_check(struct rw_run *run, bool *same, struct err *e)
{
    struct pipeline pl = {.run = run, .check = true};
    int rc = run_pipeline(&pl, run->plan->n_tensors, check_tensor, e);
    *same = rc == 0 && !atomic_load(&pl.different);
    return rc;
}
