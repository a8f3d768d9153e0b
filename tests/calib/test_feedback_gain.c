/* test_feedback_gain.c - losses as error feedback leaves them: less in its types, the same in others, the
 * same figures for any number of threads; Hessians of another model are refused. */
#include "calib/feedback/feedback_gain.h"
#include "calib/stats/hessian_collect.h"
#include "formats/gguf/imatrix_file.h"
#include "libquant/base/pool.h"
#include "toy_checkpoint.h"
#include "toy_family.h"

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
#define N_WINDOWS 8

struct bench {
    char folder[32], path[64];
    struct model *model;
    struct net net;
    struct hessian_file *hessian;
    struct imatrix *imatrix;
};

static void collect(struct bench *b)
{
    static const char *const datasets[] = {"ids"};
    static int32_t ids[CTX * N_WINDOWS];
    struct pool *pool = NULL;
    struct weights *weights = NULL;
    struct corpus corpus = {0};
    struct windows windows = {0};
    struct err e = {0};
    for (uint64_t i = 0; i < CTX * N_WINDOWS; i++)
        ids[i] = (int32_t)((i * i * i * 101 + i * i * 31 + 7 * i + 11) % b->net.n_vocab);
    assert_int_equal(corpus_add_tokens(&corpus, "ids", ids, CTX * N_WINDOWS, NULL, 0, &e), 0);
    assert_int_equal(windows_cut(&windows, &corpus, &(struct window_options){.ctx = CTX, .bos = -1}, &e), 0);
    assert_int_equal(pool_new(&pool, 2, &e), 0);
    assert_int_equal(weights_new(&weights, b->model, NULL, &e), 0);
    struct hessian_collect_options opt = {
        .pool = pool, .memory_bytes = 1 << 28, .file = {true, false, datasets, 1, NULL}};
    memset(opt.source.model_sha256, 'a', 64);
    corpus_hash(&corpus, opt.source.ids_sha256);
    if (hessian_collect(b->path, &b->net, weights, &windows, &opt, NULL, &e) != 0)
        fail_msg("%s", e.msg);
    windows_release(&windows);
    corpus_release(&corpus);
    weights_free(weights);
    pool_free(pool);
}

/* `family` NULL: a dense model, with a feed-forward part so many times as wide. */
static void put(struct bench *b, const char *family, uint32_t wide)
{
    struct err e = {0};
    struct toy_spec spec = toy_spec_tiny(TOY_QWEN3);
    spec.ffn *= wide;
    *b = (struct bench){.folder = "kerf-toy-XXXXXX"};
    if (!mkdtemp(b->folder) ||
        (family ? toy_family_write(b->folder, family, &e) : toy_checkpoint_write(b->folder, &spec, &e)) ||
        model_open(&b->model, b->folder, &(struct model_options){0}, &e) || net_init(&b->net, b->model, &e))
        fail_msg("%s", e.msg);
    snprintf(b->path, sizeof b->path, "%s/hessian.gguf", b->folder);
    collect(b);
    assert_int_equal(hessian_file_open(&b->hessian, b->path, &e), 0);
    assert_int_equal(imatrix_load(&b->imatrix, b->path, &e), 0);
}

static void take_away(struct bench *b)
{
    char command[64];
    hessian_file_close(b->hessian);
    imatrix_free(b->imatrix);
    net_release(&b->net);
    model_close(b->model);
    snprintf(command, sizeof command, "rm -r '%s'", b->folder);
    assert_int_equal(system(command), 0);
}

static const enum qtype types[] = {QTYPE_Q2_K,  QTYPE_Q3_K,  QTYPE_Q4_0, QTYPE_Q4_K,
                                   QTYPE_IQ3_S, QTYPE_MXFP4, QTYPE_Q8_0};
#define N_TYPES (sizeof types / sizeof *types)

/* A table whose losses are all 1; a wider type has the smaller proxy. */
static void open_table(struct loss_table *t, const struct bench *b)
{
    struct err e = {0};
    if (loss_table_init(t, b->model, b->imatrix, types, N_TYPES, &e) != 0)
        fail_msg("%s", e.msg);
    for (size_t i = 0; i < t->n_tensors; i++)
        for (size_t k = 0; k < t->tensors[i].n_options; k++) {
            t->tensors[i].options[k].proxy = 1.0 / (double)(k + 1);
            t->tensors[i].options[k].loss = 1;
        }
}

static int apply(struct loss_table *t, const struct bench *b, unsigned threads, struct err *e)
{
    struct pool *pool = NULL;
    assert_int_equal(pool_new(&pool, threads, e), 0);
    struct feedback_gain_options opt = {.pool = pool, .kern = kern_native(), .hessian = b->hessian};
    int rc = feedback_gain_apply(t, &opt, e);
    pool_free(pool);
    return rc;
}

static void losses_fall_where_there_is_feedback(void **state)
{
    (void)state;
    struct bench b;
    struct loss_table one = {0}, two = {0};
    struct err e = {0};
    size_t n_less = 0, n_same = 0;
    put(&b, NULL, 1);
    open_table(&one, &b);
    open_table(&two, &b);
    if (apply(&one, &b, 1, &e) != 0 || apply(&two, &b, 3, &e) != 0)
        fail_msg("%s", e.msg);
    for (size_t i = 0; i < one.n_tensors; i++)
        for (size_t k = 0; k < one.tensors[i].n_options; k++) {
            const struct model_tensor *t = one.tensors[i].tensor;
            const struct loss_option *o = &one.tensors[i].options[k];
            bool solves = o->type != QTYPE_MXFP4 && o->type != QTYPE_Q8_0 && o->type != t->type;
            if (solves)
                assert_true(o->loss > 0.05 && o->loss < 0.99);
            else
                assert_true(o->loss == 1);
            assert_true(o->loss == two.tensors[i].options[k].loss);
            n_less += solves;
            n_same += !solves;
        }
    assert_true(n_less > 14 && n_same > 14); /* of every matrix, and of the head */
    loss_table_release(&one);
    loss_table_release(&two);
    take_away(&b);
}

static void experts_are_sampled(void **state)
{
    (void)state;
    struct bench b;
    struct loss_table t = {0};
    struct err e = {0};
    bool found = false;
    put(&b, "qwen3moe", 1);
    open_table(&t, &b);
    if (apply(&t, &b, 2, &e) != 0)
        fail_msg("%s", e.msg);
    for (size_t i = 0; i < t.n_tensors; i++)
        if (strstr(t.tensors[i].tensor->name, "_exps.weight"))
            for (size_t k = 0; k < t.tensors[i].n_options; k++)
                found |= t.tensors[i].options[k].loss < 0.99;
    assert_true(found);
    loss_table_release(&t);
    take_away(&b);
}

static void hessians_of_another_model_are_refused(void **state)
{
    (void)state;
    struct bench b, other;
    struct loss_table t = {0};
    struct err e = {0};
    put(&b, NULL, 1);
    put(&other, NULL, 2);
    open_table(&t, &other);
    assert_int_equal(apply(&t, &b, 1, &e), ERR_ARG);
    assert_non_null(strstr(e.msg, "collect it from this one"));
    loss_table_release(&t);
    take_away(&other);
    take_away(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(losses_fall_where_there_is_feedback),
        cmocka_unit_test(experts_are_sampled),
        cmocka_unit_test(hessians_of_another_model_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
