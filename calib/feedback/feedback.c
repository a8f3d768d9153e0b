/* feedback.c - see feedback.h: rows in, chunks of 64 through the solver, blocks out. */
#include "feedback.h"

#include "calib/compute/gemm.h"
#include "libquant/base/pool.h"
#include "libquant/quant.h"

#include <stdlib.h>
#include <string.h>

struct encoding {
    const struct feedback_job *job;
    const struct feedback_format *format;
    feedback_rows_fn *solve;
    uint8_t *blocks;
    uint64_t row_bytes;
    struct feedback_loss *losses; /* [n_chunks] */
};

static feedback_rows_fn *rows_fn(const struct kern *kern)
{
#if defined(__x86_64__)
    if (strcmp(kern->isa, "avx512") == 0)
        return feedback_rows_avx512;
    if (strcmp(kern->isa, "avx2") == 0)
        return feedback_rows_avx2;
#endif
    (void)kern;
    return feedback_rows_base;
}

/* The arrays of a chunk, in floats. */
static size_t chunk_floats(size_t n_cols, const struct kern_product *kern, struct feedback_chunk *c)
{
    size_t wide = n_cols * FEEDBACK_ROWS, at = 0;
    struct {
        float **p;
        size_t n;
    } parts[] = {
        {&c->weights, wide},
        {&c->work, wide},
        {&c->codes, wide},
        {&c->scales, wide / 16},
        {&c->mins, wide / 16},
        {&c->d, wide / 32},
        {&c->dmin, wide / 32},
        {&c->delta, (size_t)FEEDBACK_PANEL * FEEDBACK_ROWS},
        {&c->packed, gemm_floats(kern, FEEDBACK_ROWS, n_cols > FEEDBACK_PANEL ? n_cols : FEEDBACK_PANEL)}};
    float *base = c->weights; /* NULL: count only */
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        if (base)
            *parts[i].p = base + at;
        at += (parts[i].n + 15) / 16 * 16;
    }
    return at;
}

uint64_t feedback_chunk_bytes(uint64_t n_cols)
{
    struct feedback_chunk c = {0};
    /* and rows as they are read */
    return 4 * ((uint64_t)chunk_floats((size_t)n_cols, kern_native()->product, &c) + FEEDBACK_ROWS * n_cols);
}

/* Row-major to columns outside, or back. */
static void turn(float *to, const float *from, size_t n_rows, size_t n_cols)
{
    for (size_t r = 0; r < FEEDBACK_ROWS; r++)
        for (size_t k = 0; k < n_cols; k++)
            to[k * FEEDBACK_ROWS + r] = r < n_rows ? from[r * n_cols + k] : 0;
}

static void take_block(const struct feedback_chunk *c, size_t col, size_t r, struct feedback_block *b)
{
    const struct feedback_format *f = c->format;
    size_t block = col / f->block * FEEDBACK_ROWS + r;
    b->d = c->d[block];
    b->dmin = c->dmin[block];
    for (unsigned i = 0; i < f->block; i++)
        b->code[i] = (int)c->codes[(col + i) * FEEDBACK_ROWS + r];
    for (unsigned s = 0; f->has_scales && s < f->n_sub; s++) {
        b->scale[s] = (int)c->scales[(col / f->sub + s) * FEEDBACK_ROWS + r];
        b->min[s] = f->has_min ? (int)c->mins[(col / f->sub + s) * FEEDBACK_ROWS + r] : 0;
    }
}

/* tr(E H E^T) of each row: `errors` [64 x n_cols] by columns, their product with H in `work`. */
static void row_losses(const float *errors, const float *work, size_t n_cols, double out[FEEDBACK_ROWS])
{
    memset(out, 0, FEEDBACK_ROWS * sizeof *out);
    for (size_t k = 0; k < n_cols; k++)
        for (size_t r = 0; r < FEEDBACK_ROWS; r++)
            out[r] += (double)errors[k * FEEDBACK_ROWS + r] * (double)work[k * FEEDBACK_ROWS + r];
}

/* The losses of rows of blocks: decoded into `rows`, errors into codes (free by now), products into work. */
static int losses_of(const struct encoding *n, struct feedback_chunk *c, const uint8_t *blocks, size_t n_rows,
                     float *rows, double out[FEEDBACK_ROWS], struct err *e)
{
    size_t n_cols = c->h->n_cols;
    int rc = quant_decode_rows(n->job->kern, n->format->type, blocks, n_rows * n->row_bytes, rows, n_rows,
                               n_cols, e);
    if (rc != 0)
        return rc;
    turn(c->codes, rows, n_rows, n_cols);
    for (size_t i = 0; i < n_cols * FEEDBACK_ROWS; i++)
        c->codes[i] = c->weights[i] - c->codes[i];
    struct gemm_matrix b = {c->kern, FEEDBACK_ROWS, n_cols, c->packed};
    gemm_pack_columns(&b, c->codes, FEEDBACK_ROWS);
    gemm(n_cols, c->h->matrix, n_cols, &b, c->work, FEEDBACK_ROWS, false);
    row_losses(c->codes, c->work, n_cols, out);
    return 0;
}

/* Rows that the solver did not improve keep the plain bytes. */
static int choose_rows(const struct encoding *n, struct feedback_chunk *c, const uint8_t *plain,
                       uint8_t *blocks, size_t n_rows, float *rows, struct feedback_loss *loss, struct err *e)
{
    double before[FEEDBACK_ROWS], after[FEEDBACK_ROWS];
    int rc = losses_of(n, c, plain, n_rows, rows, before, e);
    if (rc == 0)
        rc = losses_of(n, c, blocks, n_rows, rows, after, e);
    for (size_t r = 0; rc == 0 && r < n_rows; r++) {
        bool better = after[r] < before[r];
        if (!better)
            memcpy(blocks + r * n->row_bytes, plain + r * n->row_bytes, n->row_bytes);
        loss->plain += before[r];
        loss->solved += better ? after[r] : before[r];
        loss->n_kept += !better;
        loss->n_rows++;
    }
    return rc;
}

static int encode_chunk(void *ctx, size_t index, unsigned worker, struct err *e)
{
    (void)worker;
    const struct encoding *n = ctx;
    const struct feedback_job *job = n->job;
    const struct feedback_format *f = n->format;
    size_t n_cols = job->h->n_cols, block_bytes = qtype_info((uint32_t)f->type)->block_bytes;
    uint64_t row0 = (uint64_t)index * FEEDBACK_ROWS, left = job->n_rows - row0;
    size_t n_rows = left < FEEDBACK_ROWS ? (size_t)left : FEEDBACK_ROWS;
    struct feedback_chunk c = {.format = f, .h = job->h, .kern = job->kern->product, .stages = job->stages};
    size_t n_floats = chunk_floats(n_cols, c.kern, &c);
    float *mem = aligned_alloc(64, (n_floats + FEEDBACK_ROWS * n_cols) * sizeof *mem);
    if (!mem)
        return err_set(e, ERR_NOMEM, "out of memory for %d rows of %zu weights", FEEDBACK_ROWS, n_cols);
    float *rows = mem + n_floats;
    c.weights = mem;
    chunk_floats(n_cols, c.kern, &c);
    int rc = job->read(job->read_ctx, row0, n_rows, rows, e);
    if (rc == 0) {
        struct feedback_block b = {0};
        turn(c.weights, rows, n_rows, n_cols);
        n->solve(&c);
        for (size_t r = 0; r < n_rows; r++)
            for (size_t col = 0; col < n_cols; col += f->block) {
                take_block(&c, col, r, &b);
                feedback_pack(f, &b, n->blocks + (row0 + r) * n->row_bytes + col / f->block * block_bytes);
            }
        rc = choose_rows(n, &c, job->plain + row0 * n->row_bytes, n->blocks + row0 * n->row_bytes, n_rows,
                         rows, &n->losses[index], e);
    }
    free(mem);
    return rc;
}

int feedback_encode(const struct feedback_job *job, uint8_t *blocks, struct feedback_loss *loss,
                    struct err *e)
{
    struct encoding n = {job, feedback_format(job->type), rows_fn(job->kern), blocks, 0, NULL};
    if (!n.format || !qtype_row_bytes((uint32_t)job->type, job->h->n_cols, &n.row_bytes))
        return err_set(e, ERR_ARG, "%s has no error feedback for rows of %zu weights",
                       qtype_name((uint32_t)job->type), job->h->n_cols);
    size_t n_chunks = (size_t)((job->n_rows + FEEDBACK_ROWS - 1) / FEEDBACK_ROWS);
    n.losses = calloc(n_chunks + 1, sizeof *n.losses);
    if (!n.losses)
        return err_set(e, ERR_NOMEM, "out of memory for %zu chunks", n_chunks);
    int rc = pool_run(job->pool, n_chunks, encode_chunk, &n, e);
    for (size_t i = 0; rc == 0 && i < n_chunks; i++) {
        loss->plain += n.losses[i].plain;
        loss->solved += n.losses[i].solved;
        loss->n_rows += n.losses[i].n_rows;
        loss->n_kept += n.losses[i].n_kept;
    }
    free(n.losses);
    return rc;
}
