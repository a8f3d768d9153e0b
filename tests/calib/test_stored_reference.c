/* test_stored_reference.c - a comparison with a stored reference is the direct one; files that are damaged,
 * cut or of another kind are refused. */
#include "calib/eval/candidate.h"
#include "calib/eval/evaluate_stored.h"

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
#define CTX  64
#define N    6 /* windows */

static struct pool *pool;
static struct candidate ref, q4;
static struct windows windows;
static struct corpus corpus;
static char path[64];

static int open_all(void **state)
{
    (void)state;
    struct err e = {0};
    struct candidate_mix_options mix = {.recipe = "llama.cpp"};
    int32_t ids[N * CTX];
    for (uint32_t i = 0; i < N * CTX; i++)
        ids[i] = (int32_t)((i * 2654435761u >> 16) % 4096);
    snprintf(path, sizeof path, "/tmp/kerf-reference-%d", (int)getpid());
    struct window_options cut = {.ctx = CTX, .bos = -1};
    int rc = pool_new(&pool, 2, &e);
    mix.pool = pool;
    if (rc == 0)
        rc = corpus_add_tokens(&corpus, "some text", ids, N * CTX, NULL, 0, &e);
    if (rc == 0)
        rc = windows_cut(&windows, &corpus, &cut, &e);
    if (rc == 0)
        rc = candidate_open_file(&ref, DEMO, NULL, &e);
    if (rc == 0)
        rc = candidate_open_mix(&q4, &ref, mix_find("Q4_K_M"), &mix, &e);
    return rc;
}

static int close_all(void **state)
{
    (void)state;
    unlink(path);
    candidate_close(&q4);
    candidate_close(&ref);
    windows_release(&windows);
    corpus_release(&corpus);
    pool_free(pool);
    return 0;
}

static struct evaluate_model model_of(struct candidate *c)
{
    return (struct evaluate_model){
        .name = c->type ? c->type : c->path, .net = &c->net, .weights = c->weights};
}

static int take(void *ctx, const struct head_model *head, const struct head_score *scores, size_t n,
                const struct head_options *opt, struct err *e)
{
    return reference_writer_add(ctx, head, scores, n, opt, e);
}

/* A direct comparison, which leaves the reference at `path`. */
static void store(struct evaluation *direct)
{
    struct evaluate_model list[2] = {model_of(&ref), model_of(&q4)};
    struct reference_about about = {.model = "demo",
                                    .model_identity = "norms",
                                    .architecture = "qwen3",
                                    .activations = "f32",
                                    .n_bytes = 12345,
                                    .n_vocab = ref.net.n_vocab,
                                    .bits_per_weight = 16.01,
                                    .corpus = &corpus};
    struct reference_writer *w = NULL;
    struct err e = {0};
    corpus_hash(&corpus, about.ids_sha256);
    assert_int_equal(reference_writer_open(&w, path, true, &about, &windows, &e), 0);
    struct evaluate_options opt = {
        .pool = pool, .memory_bytes = 1 << 24, .take_reference = take, .take_ctx = w};
    assert_int_equal(evaluate(direct, list, 2, &windows, &opt, &e), 0);
    uint64_t n_bytes = 0;
    assert_int_equal(reference_writer_commit(w, &n_bytes, &e), 0);
    assert_true(n_bytes > 0 && n_bytes < (uint64_t)direct->n * 4096);
}

static void a_stored_reference_gives_the_direct_figures(void **state)
{
    (void)state;
    struct evaluation direct, stored;
    struct stored_reference *r = NULL;
    struct err e = {0};
    struct evaluate_options opt = {.pool = pool, .memory_bytes = 1 << 22};
    struct evaluate_model cand = model_of(&q4);
    store(&direct);
    assert_int_equal(stored_reference_open(&r, path, &e), 0);
    const struct reference_about *a = stored_reference_about(r);
    assert_string_equal(a->model, "demo");
    assert_int_equal(a->n_bytes, 12345);
    assert_string_equal(a->corpus->texts[0].path, "some text");
    assert_memory_equal(stored_reference_windows(r)->inputs, windows.inputs, N * CTX * sizeof(int32_t));
    assert_memory_equal(stored_reference_windows(r)->targets, windows.targets, direct.n * sizeof(int32_t));
    assert_int_equal(evaluate_stored(&stored, r, &cand, 1, 0, &opt, &e), 0);
    assert_int_equal(stored.n, direct.n);
    double sum = 0, direct_sum = 0;
    for (size_t m = 0; m < 2; m++)
        assert_memory_equal(stored.nll[m], direct.nll[m], direct.n * sizeof(double));
    assert_memory_equal(stored.same_top[1], direct.same_top[1], direct.n * sizeof(bool));
    for (size_t i = 0; i < direct.n; i++) {
        assert_true(fabs(stored.kld[1][i] - direct.kld[1][i]) < 0.15 * direct.kld[1][i]);
        sum += stored.kld[1][i];
        direct_sum += direct.kld[1][i];
    }
    printf("mean KLD: relative error %.1e over %zu positions\n", sum / direct_sum - 1, direct.n);
    assert_true(fabs(sum / direct_sum - 1) < 4e-3); /* 1e-3 of two thousand positions is 3e-3 of so few */
    evaluation_release(&stored);
    assert_int_equal(evaluate_stored(&stored, r, &cand, 1, 2, &opt, &e), 0);
    assert_int_equal(stored.n_windows, 2);
    assert_memory_equal(stored.nll[1], direct.nll[1], stored.n * sizeof(double));
    evaluation_release(&stored);
    evaluation_release(&direct);
    stored_reference_close(r);
}

static int stop_at(void *ctx, const struct progress_step *s)
{
    return progress_share(s) >= *(const double *)ctx;
}

static void a_stop_keeps_whole_candidates(void **state)
{
    (void)state;
    struct evaluation v;
    struct stored_reference *r = NULL;
    struct err e = {0};
    double at = 0.7;
    struct evaluate_options opt = {.pool = pool, .memory_bytes = 1 << 22, .progress = {stop_at, &at}};
    struct evaluate_model list[2] = {model_of(&q4), model_of(&ref)};
    assert_int_equal(stored_reference_open(&r, path, &e), 0);
    assert_int_equal(evaluate_stored(&v, r, list, 2, 0, &opt, &e), 0);
    assert_true(v.partial && v.n_models == 2 && isnan(v.seconds[0]));
    evaluation_release(&v);
    at = 0.2;
    assert_int_equal(evaluate_stored(&v, r, list, 2, 0, &opt, &e), ERR_CANCELLED);
    stored_reference_close(r);
}

static void damage_is_told(void **state)
{
    (void)state;
    struct stored_reference *r = NULL;
    struct err e = {0};
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    fseek(f, 0, SEEK_END);
    size_t n = (size_t)ftell(f), n_unseen = 0;
    uint8_t *data = malloc(n);
    assert_non_null(data);
    rewind(f);
    assert_int_equal(fread(data, 1, n, f), n);
    fclose(f);
    assert_int_equal(stored_reference_open_memory(&r, data, n, &e), 0);
    stored_reference_close(r);
    for (size_t i = 0; i < n; i += i < 4000 ? 7 : 1009) {
        data[i] ^= 0x10;
        if (stored_reference_open_memory(&r, data, n, &e) != 0) {
            assert_true(e.code != ERR_OK && e.msg[0]);
        } else {
            assert_int_equal(data[i], 0x10); /* padding, which nothing reads */
            stored_reference_close(r);
            n_unseen++;
        }
        data[i] ^= 0x10;
    }
    assert_true(n_unseen < 8);
    for (size_t cut = 0; cut < n; cut += 1 + n / 50)
        assert_int_not_equal(stored_reference_open_memory(&r, data, cut, &e), 0);
    free(data);
    assert_int_equal(stored_reference_open(&r, DEMO "/config.json", &e), ERR_FORMAT);
}

static void an_unfinished_one_leaves_nothing(void **state)
{
    (void)state;
    struct reference_about about = {.model = "demo", .n_vocab = ref.net.n_vocab, .corpus = &corpus};
    struct reference_writer *w = NULL;
    struct err e = {0};
    char other[80];
    snprintf(other, sizeof other, "%s-2", path);
    memset(about.ids_sha256, '0', 64);
    assert_int_equal(reference_writer_open(&w, path, false, &about, &windows, &e), ERR_EXISTS);
    assert_int_equal(reference_writer_open(&w, other, false, &about, &windows, &e), 0);
    assert_int_equal(reference_writer_commit(w, NULL, &e), ERR_ARG);
    assert_int_not_equal(access(other, F_OK), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_stored_reference_gives_the_direct_figures),
        cmocka_unit_test(a_stop_keeps_whole_candidates),
        cmocka_unit_test(damage_is_told),
        cmocka_unit_test(an_unfinished_one_leaves_nothing),
    };
    return cmocka_run_group_tests(tests, open_all, close_all);
}
