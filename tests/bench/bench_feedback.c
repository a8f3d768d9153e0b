/* bench_feedback.c - what each stage of the error feedback gains, in layer loss and in divergence, and what
 * it costs.
 *
 *     bench_feedback MODEL HESSIAN TEXT TYPE [WINDOWS [FIRST [VARIANTS [ISA]]]]
 *
 * All matrices of the layers in one type; head and embedding as they are. WINDOWS (8) windows of 512 tokens
 * from window FIRST (0) of the text, which should not be the Hessians'. ISA: as of kerf --isa. */
#include "calib/corpus.h"
#include "calib/eval/candidate.h"
#include "calib/feedback/feedback_model.h"
#include "calib/stats/hessian_file.h"
#include "formats/gguf/imatrix_file.h"
#include "formats/tokenizer/tokenizer.h"
#include "libquant/base/clock.h"
#include "libquant/base/pool.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const struct variant {
    const char *name;
    struct feedback_stages stages;
    bool plain_weighting, least_shrinkage;
} variants[] = {
    {"all", {true, FEEDBACK_SWEEPS}, false, false},
    {"k and v with the plain Hessian", {true, FEEDBACK_SWEEPS}, true, false},
    {"no refinement", {true, 0}, false, false},
    {"one sweep", {true, 1}, false, false},
    {"no feedback, refinement alone", {false, FEEDBACK_SWEEPS}, false, false},
    {"least shrinkage", {true, FEEDBACK_SWEEPS}, false, true},
};

static bool one_type(void *ctx, const struct model_tensor *t, enum qtype *out)
{
    *out = *(const enum qtype *)ctx;
    return !t->always_f32 && strncmp(t->name, "blk.", 4) == 0;
}

static double cpu_seconds(void)
{
    return clock_read(CLOCK_PROCESS_CPUTIME_ID);
}

struct bench {
    struct candidate model;
    struct hessian_file *hessian;
    struct imatrix *imatrix;
    struct pool *pool;
    const struct kern *kern;
    struct corpus corpus;
    struct windows all, windows;
    enum qtype type;
};

static int open_text(struct bench *b, const char *path, size_t n, size_t first, struct err *e)
{
    const struct vocabulary *v;
    struct tokenizer *t = NULL;
    struct window_options opt = {.ctx = 512, .max_windows = first + n, .bos = -1};
    int rc = model_vocabulary(b->model.model, &v, e);
    if (rc == 0)
        rc = tokenizer_new(&t, v, e);
    if (rc == 0)
        rc = corpus_add_text(&b->corpus, t, path, false, e);
    if (rc == 0 && tokenizer_adds_bos(t))
        opt.bos = (int32_t)v->bos;
    if (rc == 0)
        rc = windows_cut(&b->all, &b->corpus, &opt, e);
    tokenizer_free(t);
    if (rc == 0 && b->all.n <= first)
        rc = err_set(e, ERR_ARG, "%s: only %zu windows", path, b->all.n);
    if (rc != 0)
        return rc;
    b->windows = b->all;
    b->windows.n -= first;
    b->windows.inputs += first * b->all.ctx;
    b->windows.targets += first * windows_n_scored(&b->all);
    return 0;
}

static int run(struct bench *b, const struct variant *v, struct err *e)
{
    struct feedback_model *f = NULL;
    char path[64];
    snprintf(path, sizeof path, "bench-feedback-%ld.tmp", (long)getpid());
    struct feedback_model_options opt = {.pool = b->pool,
                                         .kern = b->kern,
                                         .memory_bytes = (uint64_t)8 << 30,
                                         .hessian = b->hessian,
                                         .imatrix = b->imatrix,
                                         .stages = v->stages,
                                         .plain_weighting = v->plain_weighting,
                                         .least_shrinkage = v->least_shrinkage,
                                         .store_path = path,
                                         .identity = ""};
    int rc = feedback_model_new(&f, &b->model.net, one_type, &b->type, &opt, e);
    double begin = cpu_seconds(), n_weights = 0, plain = 0, solved = 0;
    if (rc == 0)
        rc = feedback_model_solve(f, e);
    double seconds = cpu_seconds() - begin;
    if (rc == 0)
        rc = feedback_model_compare(f, &b->windows, e);
    for (size_t i = 0; rc == 0 && i < feedback_model_n(f); i++) {
        const struct feedback_tensor *t = feedback_model_tensor(f, i);
        n_weights += (double)(t->tensor->ne[0] * t->tensor->n_rows);
        plain += t->figures.loss.plain;
        solved += t->figures.loss.solved;
    }
    if (rc == 0) {
        const struct feedback_result *r = feedback_model_result(f);
        printf("| %s | %.3f | %.5f | %.5f | %.3f ± %.3f | %.3f |\n", v->name, solved / plain, r->plain_kld,
               r->kld, r->kld / r->plain_kld, r->error / r->plain_kld, 1e6 * seconds / n_weights);
        fflush(stdout);
    }
    feedback_model_free(f, true);
    return rc;
}

int main(int argc, char **argv)
{
    struct bench b = {0};
    struct err e = {0};
    if (argc < 5 || !qtype_from_name(argv[4], &b.type)) {
        fprintf(stderr, "usage: bench_feedback MODEL HESSIAN TEXT TYPE [WINDOWS [FIRST [VARIANTS [ISA]]]]\n");
        return 2;
    }
    size_t n = argc > 5 ? strtoul(argv[5], NULL, 10) : 8, first = argc > 6 ? strtoul(argv[6], NULL, 10) : 0,
           n_variants = sizeof variants / sizeof *variants,
           most = argc > 7 ? strtoul(argv[7], NULL, 10) : n_variants;
    b.kern = argc > 8 ? kern_by_name(argv[8]) : kern_native();
    int rc = b.kern ? pool_new(&b.pool, 0, &e) : err_set(&e, ERR_ARG, "%s: not supported here", argv[8]);
    if (rc == 0)
        rc = candidate_open_file(&b.model, argv[1], b.kern, &e);
    if (rc == 0)
        rc = hessian_file_open(&b.hessian, argv[2], &e);
    if (rc == 0)
        rc = imatrix_load(&b.imatrix, argv[2], &e);
    if (rc == 0)
        rc = open_text(&b, argv[3], n, first, &e);
    if (rc == 0)
        printf("| %s, %zu windows | layer loss | KLD plain | KLD | ratio | us of CPU per weight "
               "|\n|---|---:|---:|---:|---:|---:|\n",
               argv[4], b.windows.n);
    for (size_t i = 0; rc == 0 && i < n_variants && i < most; i++)
        rc = run(&b, &variants[i], &e);
    if (rc != 0)
        fprintf(stderr, "bench_feedback: %s\n", e.msg);
    windows_release(&b.all);
    corpus_release(&b.corpus);
    imatrix_free(b.imatrix);
    hessian_file_close(b.hessian);
    candidate_close(&b.model);
    pool_free(b.pool);
    return rc != 0;
}
