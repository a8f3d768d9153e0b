/* bench_forward.c - speed of the forward pass and of scoring on a model file: bench_forward MODEL [WINDOWS
 * [CTX [THREADS]]]. Also the product alone, at each level, and OpenBLAS on its own threads where it was
 * installed.
 *
 * Beside wall time it prints processor time, which a busy machine distorts less: GFLOP per processor second
 * is what one core does. */
#include "calib/model/forward.h"
#include "calib/model/head.h"
#include "calib/compute/gemm.h"
#include "libquant/base/clock.h"

#ifdef KERF_BENCH_BLAS
#include <cblas.h>
#endif
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct clock {
    double wall, cpu;
};

static struct clock now(void)
{
    return (struct clock){clock_seconds(), clock_read(CLOCK_PROCESS_CPUTIME_ID)};
}

static void print(const char *what, struct clock start, double n_tokens, double flops)
{
    struct clock end = now();
    double wall = end.wall - start.wall, cpu = end.cpu - start.cpu;
    printf("%-28s %8.2f s wall %8.2f s cpu", what, wall, cpu);
    if (n_tokens > 0)
        printf(" %9.0f tokens/s %9.0f tokens/cpu-s", n_tokens / wall, n_tokens / cpu);
    printf(" %7.1f GFLOP/s %7.1f GFLOP/cpu-s\n", flops / wall * 1e-9, flops / cpu * 1e-9);
}

struct tiles {
    const struct kern_product *kern;
    const float *x, *w;
    float *y, *packed; /* a panel for each worker */
    size_t n_tokens, n_rows, n_cols;
};

enum { TILE = 1024, PANEL = 512 };

static int tile_job(void *ctx, size_t job, unsigned worker, struct err *e)
{
    (void)e;
    const struct tiles *t = ctx;
    size_t row = job * PANEL, n = t->n_rows - row < PANEL ? t->n_rows - row : PANEL;
    struct gemm_matrix b = {t->kern, n, t->n_cols,
                            t->packed + worker * gemm_floats(t->kern, PANEL, t->n_cols)};
    gemm_pack_rows(&b, 0, n, t->w + row * t->n_cols, t->n_cols);
    for (size_t k = 0; k < t->n_tokens; k += TILE)
        gemm(TILE, t->x + k * t->n_cols, t->n_cols, &b, t->y + k * t->n_rows + row, t->n_rows, false);
    return 0;
}

static void bench_product(struct pool *pool, size_t n_rows, size_t n_cols)
{
    const size_t n_tokens = 4096;
    float *x = calloc(n_tokens * n_cols, sizeof *x), *w = calloc(n_rows * n_cols, sizeof *w);
    float *y = calloc(n_tokens * n_rows, sizeof *y);
    char what[64];
    for (size_t i = 0; x && i < n_tokens * n_cols; i++)
        x[i] = (float)(i % 17) * 0.1f;
    for (size_t i = 0; w && i < n_rows * n_cols; i++)
        w[i] = (float)(i % 13) * 0.1f;
    for (const char *const *isa = kern_names(); x && w && y && *isa; isa++) {
        const bool slow = strcmp(*isa, "ref") == 0 || strcmp(*isa, "sse2") == 0;
        const size_t repeat = slow ? 1 : 4, n = slow ? 1024 : n_tokens;
        const struct kern_product *kern = kern_by_name(*isa)->product;
        size_t n_packed = pool_n_threads(pool) * gemm_floats(kern, PANEL, n_cols);
        struct tiles t = {kern, x, w, y, aligned_alloc(64, n_packed * sizeof *x), n, n_rows, n_cols};
        struct clock start = now();
        for (size_t i = 0; t.packed && i < repeat; i++)
            pool_run(pool, (n_rows + PANEL - 1) / PANEL, tile_job, &t, NULL);
        snprintf(what, sizeof what, "%zu x %zu, %s", n_rows, n_cols, *isa);
        print(what, start, 0, 2.0 * (double)(repeat * n) * (double)n_rows * (double)n_cols);
        free(t.packed);
    }
#ifdef KERF_BENCH_BLAS
    openblas_set_num_threads((int)pool_n_threads(pool));
    struct clock start = now();
    for (size_t i = 0; i < 4; i++)
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (blasint)n_tokens, (blasint)n_rows,
                    (blasint)n_cols, 1.0f, x, (blasint)n_cols, w, (blasint)n_cols, 0.0f, y, (blasint)n_rows);
    snprintf(what, sizeof what, "%zu x %zu, OpenBLAS", n_rows, n_cols);
    print(what, start, 0, 8.0 * (double)n_tokens * (double)n_rows * (double)n_cols);
#endif
    free(x);
    free(w);
    free(y);
}

/* Multiplications and additions of all plain matrices per token; experts count as far as they are used. */
static double layer_flops(const struct net *net)
{
    double n = 0;
    for (uint32_t i = 0; i < net->n_layers; i++)
        for (size_t k = 0; k < net->layers[i].n_matrices; k++) {
            const struct model_tensor *t = net->layers[i].matrices[k];
            double used = t->ne[2] > 1 ? (double)net->layers[i].moe.n_used : 1;
            n += 2.0 * (double)t->ne[0] * (double)t->ne[1] * used;
        }
    return n;
}

static int bench_model(struct pool *pool, const char *path, size_t n, size_t ctx, struct err *e)
{
    struct model *m = NULL;
    struct net net = {0};
    struct weights *w = NULL;
    struct hidden_states *states = NULL;
    int32_t *ids = calloc(n * ctx, sizeof *ids);
    struct head_score *scores = calloc(n * ctx, sizeof *scores);
    int rc = ids && scores ? model_open(&m, path, &(struct model_options){0}, e) : ERR_NOMEM;
    if (rc == 0)
        rc = net_init(&net, m, e);
    if (rc == 0)
        rc = weights_new(&w, m, NULL, e);
    for (size_t i = 0; rc == 0 && i < n * ctx; i++)
        ids[i] = (int32_t)(i * 7919 % net.n_vocab);
    struct forward_options f = {
        .pool = pool, .memory_bytes = (uint64_t)1 << 30, .keep_first = ctx / 2, .keep_end = ctx};
    struct head_options h = {.pool = pool, .memory_bytes = f.memory_bytes};
    struct clock start = now();
    if (rc == 0)
        rc = forward_run(&states, &net, w, ids, n, ctx, &f, e);
    if (rc == 0)
        print("layers", start, (double)(n * ctx), (double)(n * ctx) * layer_flops(&net));
    struct head_model head = {&net, w, states};
    start = now();
    if (rc == 0)
        rc = head_score(&head, 1, ids, n * (ctx - ctx / 2), &h, scores, e);
    if (rc == 0)
        print("head (half the positions)", start, (double)(n * ctx),
              2.0 * (double)(n * (ctx - ctx / 2)) * net.n_embd * net.n_vocab);
    free(ids);
    free(scores);
    hidden_states_free(states);
    weights_free(w);
    net_release(&net);
    model_close(m);
    return rc;
}

int main(int argc, char **argv)
{
    struct pool *pool = NULL;
    struct err e = {0};
    if (argc < 2) {
        fputs("usage: bench_forward MODEL [WINDOWS [CTX [THREADS]]]\n", stderr);
        return 2;
    }
    size_t n = argc > 2 ? strtoul(argv[2], NULL, 10) : 8, ctx = argc > 3 ? strtoul(argv[3], NULL, 10) : 512;
    int rc = pool_new(&pool, argc > 4 ? (unsigned)strtoul(argv[4], NULL, 10) : 0, &e);
    if (rc == 0) {
        bench_product(pool, 3072, 1024);
        bench_product(pool, 1024, 3072);
        rc = bench_model(pool, argv[1], n, ctx, &e);
    }
    pool_free(pool);
    if (rc != 0)
        fprintf(stderr, "bench_forward: %s\n", e.msg);
    return rc != 0;
}
