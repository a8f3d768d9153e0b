/* test_head.c - online scores against the formulas written out over full rows of logits. */
#include "calib/model/head.h"
#include "calib/compute/vecmath.h"
#include "libquant/base/rng.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define DEMO KERF_TEST_DATA "/demo-qwen3"
#define V    4096
#define D    256

static struct model *model;
static struct net net;
static struct weights *weights;
static struct pool *pool;

static int open_demo(void **state)
{
    (void)state;
    struct err e = {0};
    return model_open(&model, DEMO, &(struct model_options){0}, &e) || net_init(&net, model, &e) ||
           weights_new(&weights, model, NULL, &e) || pool_new(&pool, 2, &e);
}

static int close_demo(void **state)
{
    (void)state;
    weights_free(weights);
    net_release(&net);
    model_close(model);
    pool_free(pool);
    return 0;
}

static struct hidden_states *random_states(size_t n, double scale, uint64_t seed, uint64_t memory)
{
    struct hidden_states *h = NULL;
    struct rng r = {seed};
    float *x = malloc(n * D * sizeof *x);
    for (size_t i = 0; i < n * D; i++)
        x[i] = (float)(scale * rng_normal(&r));
    assert_int_equal(hidden_states_new(&h, n, D, memory, NULL), 0);
    assert_int_equal(hidden_states_put(h, 0, n, x, NULL), 0);
    free(x);
    return h;
}

static double lse_of(const float *z)
{
    double m = (double)vec_max(z, V), s = 0;
    for (size_t i = 0; i < V; i++)
        s += exp((double)z[i] - m);
    return m + log(s);
}

static int32_t top_of(const float *z)
{
    int32_t best = 0;
    for (int32_t i = 1; i < V; i++)
        best = z[i] > z[best] ? i : best;
    return best;
}

static void one_sweep_gives_the_formulas(void **state)
{
    (void)state;
    enum { n = 600 };
    struct hidden_states *ref = random_states(n, 2, 1, UINT64_MAX),
                         *cand = random_states(n, 2, 2, 0); /* 0: in a file */
    assert_true(hidden_states_in_memory(ref) && !hidden_states_in_memory(cand));
    struct head_model m[3] = {{&net, weights, ref}, {&net, weights, cand}, {&net, weights, ref}};
    struct head_options opt = {.pool = pool, .memory_bytes = 1 << 24};
    struct head_score *s = calloc(3 * n, sizeof *s);
    int32_t *targets = malloc(n * sizeof *targets);
    for (int32_t i = 0; i < n; i++)
        targets[i] = i * 37 % V;
    assert_int_equal(head_score(m, 3, targets, n, &opt, s, NULL), 0);
    float *z = malloc(V * sizeof *z), *w = malloc(V * sizeof *w);
    for (size_t i = 0; i < n; i += 7) {
        assert_int_equal(head_logits(&m[0], i, 1, &opt, z, NULL), 0);
        assert_int_equal(head_logits(&m[1], i, 1, &opt, w, NULL), 0);
        double lz = lse_of(z), lw = lse_of(w), kld = 0;
        for (size_t j = 0; j < V; j++)
            kld += exp((double)z[j] - lz) * ((double)z[j] - lz - (double)w[j] + lw);
        assert_true(fabs(s[i].nll - (lz - (double)z[targets[i]])) < 2e-5);
        assert_true(fabs(s[n + i].nll - (lw - (double)w[targets[i]])) < 2e-5);
        assert_true(fabs(s[n + i].kld - kld) < 1e-5 * (1 + kld));
        assert_int_equal(s[i].top, top_of(z));
        assert_int_equal(s[n + i].top, top_of(w));
        assert_true(s[2 * n + i].kld == 0 && s[2 * n + i].nll == s[i].nll); /* a model against itself */
    }
    free(z);
    free(w);
    free(s);
    free(targets);
    hidden_states_free(ref);
    hidden_states_free(cand);
}

static void targets_outside_the_vocabulary_are_refused(void **state)
{
    (void)state;
    struct hidden_states *h = random_states(2, 1, 3, UINT64_MAX);
    struct head_model m = {&net, weights, h};
    struct head_options opt = {.pool = pool, .memory_bytes = 1 << 24};
    struct head_score s[2];
    struct err e = {0};
    int32_t targets[2] = {0, V};
    assert_int_equal(head_score(&m, 1, targets, 2, &opt, s, &e), ERR_ARG);
    assert_non_null(strstr(e.msg, "4096"));
    hidden_states_free(h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_sweep_gives_the_formulas),
        cmocka_unit_test(targets_outside_the_vocabulary_are_refused),
    };
    return cmocka_run_group_tests(tests, open_demo, close_demo);
}
