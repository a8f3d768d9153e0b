/* test_hessian.c - Hessian files: the same bytes for any threads, memory bound and interruption; the
 * importance that kerf imatrix collects; plain sums agree with it on the diagonal; the mass of a window;
 * merging; attention over latents; damaged and foreign files. */
#include "calib/stats/hessian_collect.h"
#include "calib/stats/imatrix_collect.h"
#include "formats/gguf/imatrix_file.h"
#include "libquant/base/filemap.h"
#include "libquant/base/pool.h"
#include "toy_checkpoint.h"
#include "toy_family.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define CTX       64
#define N_WINDOWS 12

struct bench {
    char folder[32], path[64], state[64];
    struct model *model;
    struct net net;
    struct weights *weights;
    struct corpus corpus;
    struct windows windows;
};

static void open_bench(struct bench *b)
{
    struct err e = {0};
    static int32_t ids[CTX * N_WINDOWS];
    if (model_open(&b->model, b->folder, &(struct model_options){0}, &e) || net_init(&b->net, b->model, &e) ||
        weights_new(&b->weights, b->model, NULL, &e))
        fail_msg("%s", e.msg);
    snprintf(b->path, sizeof b->path, "%s/hessian.gguf", b->folder);
    snprintf(b->state, sizeof b->state, "%s/state", b->folder);
    for (uint64_t i = 0; i < CTX * N_WINDOWS; i++)
        ids[i] = (int32_t)((i * i * i * 101 + i * i * 31 + 7 * i + 11) % b->net.n_vocab);
    assert_int_equal(corpus_add_tokens(&b->corpus, "ids", ids, CTX * N_WINDOWS, NULL, 0, &e), 0);
    assert_int_equal(
        windows_cut(&b->windows, &b->corpus, &(struct window_options){.ctx = CTX, .bos = -1}, &e), 0);
}

static void put(struct bench *b)
{
    struct err e = {0};
    struct toy_spec spec = toy_spec_tiny(TOY_QWEN3);
    *b = (struct bench){.folder = "kerf-toy-XXXXXX"};
    if (!mkdtemp(b->folder) || toy_checkpoint_write(b->folder, &spec, &e))
        fail_msg("%s", e.msg);
    open_bench(b);
}

static void put_family(struct bench *b, const char *name)
{
    struct err e = {0};
    *b = (struct bench){.folder = "kerf-toy-XXXXXX"};
    if (!mkdtemp(b->folder) || toy_family_write(b->folder, name, &e))
        fail_msg("%s", e.msg);
    open_bench(b);
}

static void take_away(struct bench *b)
{
    char command[64];
    windows_release(&b->windows);
    corpus_release(&b->corpus);
    weights_free(b->weights);
    net_release(&b->net);
    model_close(b->model);
    snprintf(command, sizeof command, "rm -r '%s'", b->folder);
    assert_int_equal(system(command), 0);
}

static int stop_after(void *ctx, const struct progress_step *s)
{
    return s->done > (double)*(uint64_t *)ctx;
}

struct run_options {
    unsigned threads;
    uint64_t memory, stop_after; /* 0: never */
    bool resume;
    size_t n_windows;
};

static int collect(struct bench *b, struct run_options o, size_t *n_resumed, struct err *e)
{
    static const char *const datasets[] = {"ids"};
    struct pool *pool = NULL;
    struct windows w = b->windows;
    w.n = o.n_windows ? o.n_windows : w.n;
    assert_int_equal(pool_new(&pool, o.threads ? o.threads : 1, e), 0);
    struct hessian_collect_options opt = {.pool = pool,
                                          .memory_bytes = o.memory ? o.memory : 1 << 28,
                                          .file = {true, o.resume, datasets, 1, NULL},
                                          .state_path = b->state,
                                          .progress = {o.stop_after ? stop_after : NULL, &o.stop_after}};
    memset(opt.source.model_sha256, 'a', 64);
    corpus_hash(&b->corpus, opt.source.ids_sha256);
    int rc = hessian_collect(b->path, &b->net, b->weights, &w, &opt, n_resumed, e);
    pool_free(pool);
    return rc;
}

static void must_collect(struct bench *b, struct run_options o, size_t *n_resumed)
{
    struct err e = {0};
    if (collect(b, o, n_resumed, &e) != 0)
        fail_msg("%s", e.msg);
}

static uint8_t *bytes_of(const char *path, size_t *n)
{
    struct filemap map;
    struct err e = {0};
    if (filemap_open(&map, path, &e) != 0)
        fail_msg("%s", e.msg);
    uint8_t *copy = malloc(map.size);
    memcpy(copy, map.data, map.size);
    *n = map.size;
    filemap_close(&map);
    return copy;
}

static void threads_memory_and_interruptions_change_no_byte(void **state)
{
    (void)state;
    struct bench b;
    struct err e = {0};
    size_t n, m, n_resumed = 99;
    put(&b);
    must_collect(&b, (struct run_options){0}, &n_resumed);
    uint8_t *first = bytes_of(b.path, &n), *other;
    assert_int_equal(n_resumed, 0);
    const struct run_options runs[] = {{2, 0, 0, false, 0}, {7, 1 << 20, 0, false, 0}};
    for (int i = 0; i < 2; i++) {
        must_collect(&b, runs[i], NULL);
        other = bytes_of(b.path, &m);
        assert_int_equal(n, m);
        assert_memory_equal(first, other, n);
        free(other);
    }
    unlink(b.path);
    /* stopped in the second layer, then resumed */
    struct run_options stopped = {2, 0, CTX * N_WINDOWS, true, 0}, again = {1, 0, 0, true, 0};
    char part[300], sentence[500];
    snprintf(part, sizeof part, "%s.kerf-part", b.path);
    snprintf(sentence, sizeof sentence, "1 of 2 layers are done and kept in %s; --resume continues", part);
    assert_int_equal(collect(&b, stopped, NULL, &e), ERR_CANCELLED);
    assert_non_null(strstr(e.msg, sentence));
    assert_int_equal(access(part, F_OK), 0);
    assert_int_equal(access(b.path, F_OK), -1);
    must_collect(&b, again, &n_resumed);
    assert_int_equal(n_resumed, 1);
    other = bytes_of(b.path, &m);
    assert_int_equal(n, m);
    assert_memory_equal(first, other, n);
    assert_int_equal(access(b.state, F_OK), -1);
    free(other);
    free(first);
    unlink(b.path);
    /* stopped where nothing can be kept, and where nothing is to be */
    const struct run_options at_once = {1, 0, 1, true, 0}, unkept = {1, 0, CTX * N_WINDOWS, false, 0};
    assert_int_equal(collect(&b, at_once, NULL, &e), ERR_CANCELLED);
    assert_non_null(strstr(e.msg, "before the first layer was complete, so nothing is kept"));
    assert_int_equal(collect(&b, unkept, NULL, &e), ERR_CANCELLED);
    assert_string_equal(e.msg, ERR_STOPPED_UNKEPT);
    assert_int_equal(access(part, F_OK), -1);
    /* failed before there is anything to keep */
    b.windows.inputs[CTX + 1] = 999999;
    assert_int_equal(collect(&b, again, NULL, &e), ERR_ARG);
    assert_non_null(strstr(e.msg, "token id 999999"));
    assert_int_equal(access(part, F_OK), -1);
    take_away(&b);
}

/* Importance weighed by attention has the diagonals of the weighed Gram matrices, and the plain ones
 * elsewhere; threads and waves change no bit. */
static void importance_can_be_weighed_the_same_way(void **state)
{
    (void)state;
    struct bench b;
    struct err e = {0};
    struct imatrix_collected plain = {0}, one = {0}, two = {0};
    struct hessian_file *h = NULL;
    struct pool *pools[2];
    put(&b);
    must_collect(&b, (struct run_options){0}, NULL);
    assert_true(pool_new(&pools[0], 1, &e) == 0 && pool_new(&pools[1], 3, &e) == 0);
    struct imatrix_collect_options opt = {.pool = pools[0], .memory_bytes = 1 << 26};
    assert_int_equal(imatrix_collect(&plain, &b.net, b.weights, &b.windows, &opt, &e), 0);
    opt.attention = true;
    assert_int_equal(imatrix_collect(&one, &b.net, b.weights, &b.windows, &opt, &e), 0);
    opt.pool = pools[1];
    opt.save_windows = 5;
    assert_int_equal(imatrix_collect(&two, &b.net, b.weights, &b.windows, &opt, &e), 0);
    assert_int_equal(imatrix_n(one.imatrix), imatrix_n(plain.imatrix));
    assert_int_equal(imatrix_chunk_count(one.imatrix), imatrix_chunk_count(plain.imatrix));
    assert_int_equal(hessian_file_open(&h, b.path, &e), 0);
    const struct hessian_plan *p = hessian_file_plan(h);
    for (size_t g = 0; g < p->n_grams; g++) {
        size_t n = (size_t)p->grams[g].n_cols;
        struct gram_figures f;
        const struct imatrix_entry *x = imatrix_find(one.imatrix, p->grams[g].owner),
                                   *y = imatrix_find(two.imatrix, p->grams[g].owner),
                                   *z = imatrix_find(plain.imatrix, p->grams[g].owner);
        if (p->grams[g].layer == HESSIAN_BEHIND)
            continue;
        double *sums = malloc(n * n * sizeof *sums), difference = 0;
        assert_int_equal(hessian_file_read(h, g, 0, sums, &f, &e), 0);
        double scale = p->grams[g].weighting == HESSIAN_MIXED ? CTX * N_WINDOWS / f.weight : 1;
        for (size_t i = 0; i < n; i++) {
            assert_true(fabs(scale * sums[i * n + i] - x->sums[i]) <= 1e-5 * x->sums[i]);
            assert_true(x->sums[i] == y->sums[i]);
            difference += fabs(x->sums[i] - z->sums[i]);
        }
        assert_true((difference == 0) == (p->grams[g].weighting == HESSIAN_PLAIN));
        assert_true(x->counts[0] == CTX * N_WINDOWS);
        free(sums);
    }
    hessian_file_close(h);
    imatrix_collected_release(&plain);
    imatrix_collected_release(&one);
    imatrix_collected_release(&two);
    pool_free(pools[0]);
    pool_free(pools[1]);
    take_away(&b);
}

static void the_file_is_an_importance_matrix(void **state)
{
    (void)state;
    struct bench b;
    struct err e = {0};
    struct imatrix *found = NULL;
    struct imatrix_collected want = {0};
    struct hessian_file *h = NULL;
    struct pool *pool = NULL;
    put(&b);
    must_collect(&b, (struct run_options){0}, NULL);
    assert_int_equal(pool_new(&pool, 2, &e), 0);
    struct imatrix_collect_options opt = {.pool = pool, .memory_bytes = 1 << 26, .process_output = true};
    assert_int_equal(imatrix_collect(&want, &b.net, b.weights, &b.windows, &opt, &e), 0);
    assert_int_equal(imatrix_load(&found, b.path, &e), 0);
    assert_int_equal(imatrix_n(found) + 1, imatrix_n(want.imatrix)); /* the head has a Gram matrix alone */
    assert_int_equal(imatrix_n_ignored(found), 0);
    assert_int_equal(imatrix_chunk_count(found), imatrix_chunk_count(want.imatrix));
    assert_int_equal(imatrix_chunk_size(found), imatrix_chunk_size(want.imatrix));
    for (size_t i = 0; i < imatrix_n(found); i++) {
        const struct imatrix_entry *x = imatrix_entry_at(found, i), *y = imatrix_find(want.imatrix, x->name);
        assert_non_null(y);
        assert_int_equal(x->n_values, y->n_values);
        for (uint64_t k = 0; k < x->n_values; k++)
            assert_true((float)x->sums[k] == (float)y->sums[k]);
        assert_true(x->counts[0] == y->counts[0]);
    }
    /* The diagonal of a plain Gram matrix is the same sum by another way. */
    assert_int_equal(hessian_file_open(&h, b.path, &e), 0);
    const struct hessian_plan *p = hessian_file_plan(h);
    assert_int_equal(p->n_grams, 2 * 6 + 1); /* q, k, v, o, gate and up, down; the head */
    assert_int_equal(p->n_uses, 2 * 7 + 1);
    assert_true(p->grams[p->n_grams - 1].layer == HESSIAN_BEHIND);
    for (size_t g = 0; g < p->n_grams; g++) {
        size_t n = (size_t)p->grams[g].n_cols;
        double *sums = malloc(n * n * sizeof *sums), trace = 0;
        struct gram_figures f;
        assert_int_equal(hessian_file_read(h, g, 0, sums, &f, &e), 0);
        const struct imatrix_entry *x = imatrix_find(want.imatrix, p->grams[g].owner);
        for (size_t i = 0; i < n; i++) {
            trace += sums[i * n + i];
            if (p->grams[g].weighting == HESSIAN_PLAIN)
                assert_true(fabs(sums[i * n + i] - x->sums[i]) <= 1e-5 * x->sums[i]);
        }
        assert_true(trace > 0 && f.squares > 0);
        if (p->grams[g].weighting == HESSIAN_MIXED) /* about 1.5 rows of each token */
            assert_true(f.weight > 1.2 * CTX * N_WINDOWS && f.weight < 1.8 * CTX * N_WINDOWS);
        else /* the mass of all queries is one each */
            assert_true(fabs(f.weight - CTX * N_WINDOWS) < 1e-3 * CTX * N_WINDOWS);
        free(sums);
    }
    hessian_file_close(h);
    imatrix_free(found);
    imatrix_collected_release(&want);
    pool_free(pool);
    take_away(&b);
}

/* The trace of a Gram matrix over all its matrices, whose diagonals are those of the importance matrix. */
static void check_diagonals(struct hessian_file *h, size_t gram, const struct imatrix_entry *x)
{
    const struct hessian_gram *g = &hessian_file_plan(h)->grams[gram];
    size_t n = (size_t)g->n_cols;
    double *sums = malloc(n * n * sizeof *sums);
    struct gram_figures f;
    struct err e = {0};
    assert_int_equal(x->n_values, n * g->n_mats);
    for (uint64_t m = 0; m < g->n_mats; m++) {
        assert_int_equal(hessian_file_read(h, gram, m, sums, &f, &e), 0);
        for (size_t i = 0; i < n; i++) {
            double want = x->sums[m * n + i];
            assert_true(want > 0 && fabs(sums[i * n + i] - want) <= 1e-5 * want);
        }
    }
    free(sums);
}

static void check_latents(const char *name, const char *first, size_t n_grams)
{
    struct bench b;
    struct err e = {0};
    struct hessian_file *h = NULL;
    struct imatrix_collected plain = {0}, weighed = {0};
    struct pool *pool = NULL;
    char owner[64];
    put_family(&b, name);
    must_collect(&b, (struct run_options){.threads = 2}, NULL);
    assert_int_equal(pool_new(&pool, 1, &e), 0);
    struct imatrix_collect_options opt = {.pool = pool, .memory_bytes = 1 << 26};
    assert_int_equal(imatrix_collect(&plain, &b.net, b.weights, &b.windows, &opt, &e), 0);
    opt.attention = true;
    assert_int_equal(imatrix_collect(&weighed, &b.net, b.weights, &b.windows, &opt, &e), 0);
    assert_int_equal(hessian_file_open(&h, b.path, &e), 0);
    const struct hessian_plan *p = hessian_file_plan(h);
    size_t n = 0;
    for (size_t g = 0; g < p->n_grams; g++) {
        bool mass = p->grams[g].weighting == HESSIAN_MASS;
        if (p->grams[g].layer != 0 || !strstr(p->grams[g].owner, "attn"))
            continue;
        snprintf(owner, sizeof owner, "blk.0.%s.weight", first);
        assert_true(n > 0 || strcmp(p->grams[g].owner, owner) == 0);
        assert_true(mass == (strstr(p->grams[g].owner, "kv_a_mqa") != NULL));
        bool of_heads = strstr(p->grams[g].owner, "attn_k_b") || strstr(p->grams[g].owner, "attn_v_b");
        assert_int_equal(p->grams[g].n_mats, of_heads ? 4 : 1);
        check_diagonals(h, g, imatrix_find(mass ? weighed.imatrix : plain.imatrix, p->grams[g].owner));
        n++;
    }
    assert_int_equal(n, n_grams);
    hessian_file_close(h);
    imatrix_collected_release(&plain);
    imatrix_collected_release(&weighed);
    pool_free(pool);
    take_away(&b);
}

/* One matrix for each input: of the latents of queries and keys, of every head's queries and mixtures. */
static void latents_have_matrices_for_each_product(void **state)
{
    (void)state;
    check_latents("deepseek3", "attn_q_a", 6);
    check_latents("deepseek2", "attn_q", 5);
}

static void merged_files_hold_the_sums(void **state)
{
    (void)state;
    struct bench b;
    struct err e = {0};
    char half[64], both[64];
    struct hessian_file *a = NULL, *c = NULL;
    put(&b);
    snprintf(half, sizeof half, "%s/half.gguf", b.folder);
    snprintf(both, sizeof both, "%s/both.gguf", b.folder);
    must_collect(&b, (struct run_options){.n_windows = 5}, NULL);
    assert_int_equal(rename(b.path, half), 0);
    const char *const inputs[] = {half, half};
    if (hessian_merge(inputs, 2, both, false, &e) != 0)
        fail_msg("%s", e.msg);
    assert_int_equal(hessian_file_open(&a, half, &e), 0);
    assert_int_equal(hessian_file_open(&c, both, &e), 0);
    assert_int_equal(hessian_file_source(c)->n_windows, 10);
    size_t n = (size_t)hessian_file_plan(a)->grams[3].n_cols;
    double *x = malloc(n * n * sizeof *x), *y = malloc(n * n * sizeof *y);
    struct gram_figures f, g;
    assert_int_equal(hessian_file_read(a, 3, 0, x, &f, &e), 0);
    assert_int_equal(hessian_file_read(c, 3, 0, y, &g, &e), 0);
    for (size_t i = 0; i < n * n; i++)
        assert_true((float)(2 * x[i]) == (float)y[i]);
    assert_true(g.weight == 2 * f.weight && g.n_chunks == 2 * f.n_chunks && g.squares == 2 * f.squares);
    free(x), free(y);
    hessian_file_close(a);
    hessian_file_close(c);
    take_away(&b);
}

/* Change the first occurrence of `from` behind `after` to `to`, of the same length. */
static void damage(const char *path, const uint8_t *good, size_t n, const char *from, const char *to)
{
    uint8_t *bad = malloc(n);
    size_t len = strlen(from), i = 0;
    memcpy(bad, good, n);
    while (i + len <= n && memcmp(bad + i, from, len) != 0)
        i++;
    assert_true(i + len <= n);
    memcpy(bad + i, to, len);
    FILE *f = fopen(path, "wb");
    assert_true(f && fwrite(bad, 1, n, f) == n && fclose(f) == 0);
    free(bad);
}

static void damaged_and_foreign_files_are_refused(void **state)
{
    (void)state;
    struct bench b;
    struct err e = {0};
    struct hessian_file *h = NULL;
    size_t n;
    put(&b);
    must_collect(&b, (struct run_options){.n_windows = 2}, NULL);
    uint8_t *good = bytes_of(b.path, &n);
    const struct {
        const char *from, *to, *says;
        int rc;
    } cases[] = {
        {"kerf.hessian.version", "kerf.hessian.versiom", "holds no Hessians", ERR_ARG},
        {"kerf.hessian.model_sha256", "kerf.hessian.model_sha257", "does not say", ERR_FORMAT},
        {"kerf.hessian.uses", "kerf.hessian.usus", "do not fit together", ERR_FORMAT},
        {"kerf.hessian.shapes", "kerf.hessian.shapus", "do not fit together", ERR_FORMAT},
        {"kerf.hessian.owners", "kerf.hessian.ownars", "is inconsistent", ERR_FORMAT},
        {"blk.0.attn_q.weight.gram", "blk.0.attn_x.weight.gram", "are missing", ERR_FORMAT},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        damage(b.path, good, n, cases[i].from, cases[i].to);
        int rc = hessian_file_open(&h, b.path, &e);
        if (rc != cases[i].rc || !strstr(e.msg, cases[i].says))
            fail_msg("%s: %d, %s", cases[i].from, rc, e.msg);
    }
    /* a value that is not a number is found when its matrix is read: a NaN in place of every float of the
     * first one */
    uint8_t *bad = malloc(n);
    memcpy(bad, good, n);
    for (size_t i = n - n / 2; i + 4 <= n; i += 4)
        memset(bad + i, 0xff, 4);
    FILE *f = fopen(b.path, "wb");
    assert_true(f && fwrite(bad, 1, n, f) == n && fclose(f) == 0);
    assert_int_equal(hessian_file_open(&h, b.path, &e), 0);
    const struct hessian_plan *p = hessian_file_plan(h);
    size_t last = p->n_grams - 1, k = (size_t)p->grams[last].n_cols;
    double *sums = malloc(k * k * sizeof *sums);
    struct gram_figures figures;
    assert_int_equal(hessian_file_read(h, last, 0, sums, &figures, &e), ERR_FORMAT);
    hessian_file_close(h);
    free(sums);
    free(bad);
    free(good);
    take_away(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(threads_memory_and_interruptions_change_no_byte),
        cmocka_unit_test(the_file_is_an_importance_matrix),
        cmocka_unit_test(importance_can_be_weighed_the_same_way),
        cmocka_unit_test(latents_have_matrices_for_each_product),
        cmocka_unit_test(merged_files_hold_the_sums),
        cmocka_unit_test(damaged_and_foreign_files_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
