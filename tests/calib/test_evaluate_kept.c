/* test_evaluate_kept.c - a comparison that keeps its scores gives the bits of one that does not, however
 * often it is stopped: with a file, which runs stretch by stretch, and a mix, which runs all it lacks at
 * once. */
#include "calib/eval/candidate.h"
#include "calib/eval/evaluate_kept.h"

#include <dirent.h>
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

#define DEMO KERF_TEST_DATA "/demo-qwen3"
#define CTX  128
#define N    140 /* windows: more than one stretch */
#define M    3

static struct pool *pool;
static struct candidate models[M];
static struct windows windows;
static char folder[] = "/tmp/kerf-kept-XXXXXX";
static const char *const identities[M] = {"reference", "file", "mix"};

static void empty_folder(void)
{
    DIR *d = opendir(folder);
    char path[400];
    for (struct dirent *x; d && (x = readdir(d));) {
        snprintf(path, sizeof path, "%s/%s", folder, x->d_name);
        if (x->d_name[0] != '.')
            unlink(path);
    }
    if (d)
        closedir(d);
}

static int open_all(void **state)
{
    (void)state;
    struct err e = {0};
    struct candidate_mix_options mix = {.recipe = "llama.cpp"};
    windows = (struct windows){.ctx = CTX, .n = N, .first = CTX - 9, .end = CTX - 1};
    size_t run = windows_n_scored(&windows);
    windows.inputs = malloc(N * CTX * sizeof(int32_t));
    windows.targets = malloc(N * run * sizeof(int32_t));
    for (uint32_t i = 0; i < N * CTX; i++)
        windows.inputs[i] = (int32_t)((i * 2654435761u >> 16) % 4096);
    for (size_t i = 0; i < N * run; i++)
        windows.targets[i] = windows.inputs[i / run * CTX + windows.first + 1 + i % run];
    int rc = mkdtemp(folder) ? pool_new(&pool, 2, &e) : -1;
    mix.pool = pool;
    for (size_t i = 0; rc == 0 && i < 2; i++)
        rc = candidate_open_file(&models[i], DEMO, NULL, &e);
    return rc == 0 ? candidate_open_mix(&models[2], &models[0], mix_find("Q2_K"), &mix, &e) : rc;
}

static int close_all(void **state)
{
    (void)state;
    for (size_t i = M; i-- > 0;)
        candidate_close(&models[i]);
    windows_release(&windows);
    pool_free(pool);
    empty_folder();
    rmdir(folder);
    return 0;
}

static void list_models(struct evaluate_model *list)
{
    for (size_t i = 0; i < M; i++)
        list[i] = (struct evaluate_model){
            .name = identities[i], .net = &models[i].net, .weights = models[i].weights};
}

static void assert_same(const struct evaluation *a, const struct evaluation *b)
{
    assert_int_equal(a->n_models, b->n_models);
    assert_int_equal(a->n, b->n);
    assert_int_equal(a->n_windows, b->n_windows);
    for (size_t m = 0; m < a->n_models; m++) {
        assert_memory_equal(a->nll[m], b->nll[m], a->n * sizeof(double));
        assert_memory_equal(a->kld[m], b->kld[m], a->n * sizeof(double));
        assert_memory_equal(a->same_top[m], b->same_top[m], a->n * sizeof(bool));
    }
}

static int stop_at(void *ctx, const struct progress_step *s)
{
    assert_true(s->done <= s->total);
    return progress_share(s) >= *(const double *)ctx;
}

/* Final states that are cut short are no states. */
static void damage_states(void)
{
    DIR *d = opendir(folder);
    char path[400];
    for (struct dirent *x; d && (x = readdir(d));)
        if (strstr(x->d_name, ".states")) {
            snprintf(path, sizeof path, "%s/%s", folder, x->d_name);
            assert_int_equal(truncate(path, 1000), 0);
        }
    if (d)
        closedir(d);
}

static void stops_change_no_bit(void **state)
{
    (void)state;
    struct evaluate_model list[M];
    struct evaluation plain, kept;
    struct score_store store = {.folder = folder, .about = "text"};
    struct err e = {0};
    double at = 0.1;
    size_t n_found = 0, n_units = 0, n_stops = 0, before = 0;
    list_models(list);
    struct evaluate_options opt = {.pool = pool, .memory_bytes = 1 << 26};
    assert_int_equal(evaluate(&plain, list, M, &windows, &opt, &e), 0);
    opt.progress = (struct progress){stop_at, &at};
    int rc = ERR_CANCELLED;
    for (; rc == ERR_CANCELLED && n_stops < 20; at += 0.13) {
        rc = evaluate_kept(&kept, list, identities, M, &windows, &store, &opt, &n_found, &n_units, &e);
        assert_true(rc == 0 || rc == ERR_CANCELLED);
        assert_true(n_found >= before);
        if (rc == ERR_CANCELLED)
            assert_non_null(strstr(e.msg, "measurements are kept in"));
        before = n_found;
        n_stops += rc != 0;
    }
    assert_int_equal(rc, 0);
    assert_true(n_stops >= 3 && n_units == 2 * M);
    assert_same(&plain, &kept);
    evaluation_release(&kept);
    at = 2;
    assert_int_equal(
        evaluate_kept(&kept, list, identities, M, &windows, &store, &opt, &n_found, &n_units, &e), 0);
    assert_int_equal(n_found, n_units);
    assert_same(&plain, &kept);
    evaluation_release(&kept);
    damage_states();
    const char *const renamed[M] = {"reference", "file", "another mix"}; /* which is not kept yet */
    assert_int_equal(evaluate_kept(&kept, list, renamed, M, &windows, &store, &opt, &n_found, &n_units, &e),
                     0);
    assert_int_equal(n_found, n_units - 4); /* the reference again, and the new one, in both stretches */
    assert_true(store.n_damaged >= 2);
    assert_same(&plain, &kept);
    evaluation_release(&kept);
    evaluation_release(&plain);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(stops_change_no_bit)};
    return cmocka_run_group_tests(tests, open_all, close_all);
}
