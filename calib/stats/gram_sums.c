/* gram_sums.c - see gram_sums.h. A job owns a tile of the product, so nothing is added from two sides. */
#include "gram_sums.h"

#include "calib/compute/gemm.h"
#include "libquant/base/checked.h"
#include "libquant/base/pool.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { TILE_ROWS = 128, TILE_COLS = 512 };

_Static_assert(GRAM_CHUNK <= KERN_TILE_DEPTH, "a chunk is one chain of products");

struct gram_scratch {
    const struct kern_product *kern;
    unsigned n_workers;
    size_t n_packed;
    float **workers; /* each: rows of a tile transposed, columns packed, the product */
    double *squares; /* [n_squares] of the tiles */
    size_t n_squares;
};

uint64_t gram_n_values(uint64_t n_cols)
{
    uint64_t n = 0;
    return n_cols < UINT32_MAX && checked_mul(n_cols, n_cols + 1, &n) ? n / 2 : 0;
}

uint64_t gram_pending_bytes(uint64_t n_cols, uint64_t chunk)
{
    return n_cols * chunk * sizeof(float);
}

static int no_memory(size_t n_cols, struct err *e)
{
    return err_set(e, ERR_NOMEM, "out of memory for the Gram matrix of %zu columns", n_cols);
}

/* n_bytes of a temporary file that has no name, mapped. */
static void *map_file(uint64_t n_bytes, struct err *e)
{
    const char *folder = getenv("TMPDIR");
    char path[300];
    folder = folder && folder[0] ? folder : "/var/tmp";
    snprintf(path, sizeof path, "%s/kerf-gram-XXXXXX", folder);
    int fd = mkstemp(path);
    int failed = fd < 0 ? errno : 0;
    void *p = MAP_FAILED;
    if (fd >= 0) {
        unlink(path);
        failed = posix_fallocate(fd, 0, (off_t)n_bytes);
        if (failed == 0) {
            p = mmap(NULL, (size_t)n_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
            failed = p == MAP_FAILED ? errno : 0;
        }
        close(fd);
    }
    if (p != MAP_FAILED)
        return p;
    err_set(e, ERR_IO,
            "cannot keep %llu bytes of a Gram matrix in a temporary file in '%s': %s; set TMPDIR to a folder "
            "with room, or raise --memory",
            (unsigned long long)n_bytes, folder, strerror(failed));
    return NULL;
}

int gram_sums_init(struct gram_sums *g, size_t n_cols, size_t chunk, bool on_disk, struct err *e)
{
    uint64_t n = gram_n_values(n_cols), n_bytes = 0, n_pending = gram_pending_bytes(n_cols, chunk);
    *g = (struct gram_sums){.n_cols = n_cols, .chunk = chunk};
    if (n == 0 || !checked_mul(n, sizeof *g->sums, &n_bytes))
        return no_memory(n_cols, e);
    if (on_disk) { /* the pending rows behind the sums: with many experts they are many */
        g->sums = map_file(n_bytes + n_pending, e);
        if (!g->sums)
            return ERR_IO;
        g->n_mapped = n_bytes + n_pending;
        g->pending = (float *)(void *)(g->sums + n);
        return 0;
    }
    g->sums = calloc((size_t)n, sizeof *g->sums);
    g->pending = malloc((size_t)n_pending);
    if (g->sums && g->pending)
        return 0;
    gram_sums_release(g);
    return no_memory(n_cols, e);
}

void gram_sums_release(struct gram_sums *g)
{
    if (g->n_mapped)
        munmap(g->sums, (size_t)g->n_mapped);
    else {
        free(g->sums);
        free(g->pending);
    }
    *g = (struct gram_sums){0};
}

int gram_scratch_new(struct gram_scratch **out, const struct kern *kern, struct pool *pool, struct err *e)
{
    struct gram_scratch *s = calloc(1, sizeof *s);
    if (!s)
        return err_set(e, ERR_NOMEM, "out of memory for the workers");
    s->kern = kern->product;
    s->n_workers = pool_n_threads(pool);
    s->n_packed = gemm_floats(s->kern, TILE_COLS, GRAM_CHUNK);
    s->workers = calloc(s->n_workers, sizeof *s->workers);
    bool ok = s->workers != NULL;
    size_t n = s->n_packed + (size_t)TILE_ROWS * GRAM_CHUNK + (size_t)TILE_ROWS * TILE_COLS;
    for (unsigned i = 0; ok && i < s->n_workers; i++)
        ok = (s->workers[i] = aligned_alloc(64, (n * sizeof(float) + 63) / 64 * 64)) != NULL;
    if (!ok) {
        gram_scratch_free(s);
        return err_set(e, ERR_NOMEM, "out of memory for the workers");
    }
    *out = s;
    return 0;
}

void gram_scratch_free(struct gram_scratch *s)
{
    if (!s)
        return;
    for (unsigned i = 0; s->workers && i < s->n_workers; i++)
        free(s->workers[i]);
    free(s->workers);
    free(s->squares);
    free(s);
}

/* The tile of a product of `depth` rows: c [n_rows, TILE_COLS], scratch of the worker. `left` and `right` are
 * the first of its columns in the two factors, whose rows lie ldl and ldr apart. */
static const float *multiply_tile(const struct gram_scratch *s, unsigned worker, const float *left,
                                  size_t ldl, size_t n_rows, const float *right, size_t ldr, size_t n_cols,
                                  size_t depth)
{
    float *packed = s->workers[worker], *rows = packed + s->n_packed,
          *c = rows + (size_t)TILE_ROWS * GRAM_CHUNK;
    struct gemm_matrix b = {s->kern, n_cols, depth, packed};
    gemm_pack_columns(&b, right, ldr);
    for (size_t t = 0; t < depth; t++)
        for (size_t i = 0; i < n_rows; i++)
            rows[i * depth + t] = left[t * ldl + i];
    gemm(n_rows, rows, depth, &b, c, TILE_COLS, false);
    return c;
}

struct flush_run {
    struct gram_sums *g;
    struct gram_scratch *s;
    size_t tiles_across;
};

/* Add the tile at (row0, col0) of the product, `c` [n_rows, n_cols]; the sum of the squares off the diagonal,
 * both halves. */
static double add_tile(struct gram_sums *g, const float *c, size_t row0, size_t n_rows, size_t col0,
                       size_t n_cols)
{
    double squares = 0;
    for (size_t i = 0; i < n_rows; i++) {
        size_t row = row0 + i, from = row > col0 ? row - col0 : 0;
        double *to = g->sums + (row * (2 * g->n_cols - row + 1) / 2 - row) + col0, own = 0;
        const float *line = c + i * TILE_COLS;
        if (from < n_cols && row == col0 + from)
            own = (double)line[from] * (double)line[from];
        double lanes[8] = {0};
        for (size_t j = from; j < n_cols; j++) {
            double v = (double)line[j];
            to[j] += v;
            lanes[j % 8] += v * v;
        }
        double sum =
            ((lanes[0] + lanes[1]) + (lanes[2] + lanes[3])) + ((lanes[4] + lanes[5]) + (lanes[6] + lanes[7]));
        squares += sum - own;
    }
    return 2 * squares;
}

static int flush_job(void *ctx, size_t job, unsigned worker, struct err *e)
{
    (void)e;
    const struct flush_run *r = ctx;
    struct gram_sums *g = r->g;
    size_t row0 = job / r->tiles_across * TILE_ROWS, col0 = job % r->tiles_across * TILE_COLS,
           n = g->n_pending;
    size_t n_rows = g->n_cols - row0 < TILE_ROWS ? g->n_cols - row0 : TILE_ROWS;
    size_t n_cols = g->n_cols - col0 < TILE_COLS ? g->n_cols - col0 : TILE_COLS;
    r->s->squares[job] = 0;
    if (col0 + n_cols <= row0)
        return 0; /* below the diagonal */
    const float *c = multiply_tile(r->s, worker, g->pending + row0, g->n_cols, n_rows, g->pending + col0,
                                   g->n_cols, n_cols, n);
    r->s->squares[job] = add_tile(g, c, row0, n_rows, col0, n_cols);
    return 0;
}

int gram_sums_flush(struct gram_sums *g, struct pool *pool, struct gram_scratch *s, struct err *e)
{
    struct flush_run r = {g, s, (g->n_cols + TILE_COLS - 1) / TILE_COLS};
    size_t n_jobs = (g->n_cols + TILE_ROWS - 1) / TILE_ROWS * r.tiles_across;
    if (g->n_pending == 0)
        return 0;
    if (n_jobs > s->n_squares) {
        free(s->squares);
        s->squares = malloc(n_jobs * sizeof *s->squares);
        s->n_squares = s->squares ? n_jobs : 0;
        if (!s->squares)
            return no_memory(g->n_cols, e);
    }
    int rc = pool_run(pool, n_jobs, flush_job, &r, e);
    for (size_t i = 0; i < n_jobs; i++)
        g->figures.squares += s->squares[i];
    g->figures.n_chunks++;
    g->n_pending = 0;
    return rc;
}

int gram_sums_add(struct gram_sums *g, const float *rows, size_t n_rows, size_t ld, const float *weights,
                  struct pool *pool, struct gram_scratch *s, struct err *e)
{
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < n_rows; i++) {
        float *to = g->pending + g->n_pending++ * g->n_cols, root = weights ? sqrtf(weights[i]) : 1;
        memcpy(to, rows + i * ld, g->n_cols * sizeof *to);
        for (size_t k = 0; weights && k < g->n_cols; k++)
            to[k] *= root;
        g->figures.weight += weights ? (double)weights[i] : 1;
        if (g->n_pending == g->chunk)
            rc = gram_sums_flush(g, pool, s, e);
    }
    return rc;
}

/* --- products of two kinds of rows --- */

int cross_sums_init(struct cross_sums *g, size_t n_left, size_t n_right, bool on_disk, struct err *e)
{
    uint64_t n = (uint64_t)n_left * n_right,
             n_rows = gram_pending_bytes((uint64_t)n_left + n_right, GRAM_CHUNK);
    *g = (struct cross_sums){.n_left = n_left, .n_right = n_right};
    if (n_left > UINT32_MAX / 8 || n_right > UINT32_MAX / 8)
        return no_memory(n_right, e);
    if (on_disk) {
        g->n_mapped = n * sizeof *g->sums + n_rows;
        g->sums = map_file(g->n_mapped, e);
        if (!g->sums)
            return ERR_IO;
        g->left = (float *)(void *)(g->sums + n);
    } else {
        g->sums = calloc((size_t)n + 1, sizeof *g->sums);
        g->left = malloc((size_t)n_rows);
        if (!g->sums || !g->left) {
            cross_sums_release(g);
            return no_memory(n_right, e);
        }
    }
    g->right = g->left + GRAM_CHUNK * n_left;
    return 0;
}

void cross_sums_release(struct cross_sums *g)
{
    if (g->n_mapped && g->sums)
        munmap(g->sums, (size_t)g->n_mapped);
    else if (!g->n_mapped) {
        free(g->sums);
        free(g->left);
    }
    *g = (struct cross_sums){0};
}

struct cross_run {
    struct cross_sums *g;
    struct gram_scratch *s;
    size_t tiles_across;
};

static int cross_job(void *ctx, size_t job, unsigned worker, struct err *e)
{
    (void)e;
    const struct cross_run *r = ctx;
    struct cross_sums *g = r->g;
    size_t row0 = job / r->tiles_across * TILE_ROWS, col0 = job % r->tiles_across * TILE_COLS;
    size_t n_rows = g->n_left - row0 < TILE_ROWS ? g->n_left - row0 : TILE_ROWS;
    size_t n_cols = g->n_right - col0 < TILE_COLS ? g->n_right - col0 : TILE_COLS;
    const float *c = multiply_tile(r->s, worker, g->left + row0, g->n_left, n_rows, g->right + col0,
                                   g->n_right, n_cols, g->n_pending);
    for (size_t i = 0; i < n_rows; i++)
        for (size_t j = 0; j < n_cols; j++)
            g->sums[(row0 + i) * g->n_right + col0 + j] += (double)c[i * TILE_COLS + j];
    return 0;
}

int cross_sums_flush(struct cross_sums *g, struct pool *pool, struct gram_scratch *s, struct err *e)
{
    struct cross_run r = {g, s, (g->n_right + TILE_COLS - 1) / TILE_COLS};
    if (g->n_pending == 0)
        return 0;
    int rc = pool_run(pool, (g->n_left + TILE_ROWS - 1) / TILE_ROWS * r.tiles_across, cross_job, &r, e);
    g->n_pending = 0;
    return rc;
}

int cross_sums_add(struct cross_sums *g, const float *left, const float *right, size_t n_rows,
                   const float *weights, struct pool *pool, struct gram_scratch *s, struct err *e)
{
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < n_rows; i++) {
        float *l = g->left + g->n_pending * g->n_left, *r = g->right + g->n_pending * g->n_right;
        memcpy(l, left + i * g->n_left, g->n_left * sizeof *l);
        memcpy(r, right + i * g->n_right, g->n_right * sizeof *r);
        for (size_t k = 0; weights && k < g->n_left; k++) /* the whole weight: once, for both */
            l[k] *= weights[i];
        if (++g->n_pending == GRAM_CHUNK)
            rc = cross_sums_flush(g, pool, s, e);
    }
    return rc;
}
