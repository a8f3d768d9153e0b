/* test_knapsack.c - the solver against brute force, its bound, its errors, and its speed at the size of a
 * real model. */
#include "calib/solve/knapsack.h"
#include "libquant/base/clock.h"
#include "libquant/base/rng.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

/* Least loss over all choices within the budget, by trying each. */
static double brute_force(const struct knapsack_item *items, size_t n, uint64_t budget)
{
    size_t c[8] = {0};
    double best = INFINITY;
    for (;;) {
        double loss = 0;
        uint64_t bytes = 0;
        for (size_t i = 0; i < n; i++) {
            loss += items[i].options[c[i]].loss;
            bytes += items[i].options[c[i]].n_bytes;
        }
        if (bytes <= budget && loss < best)
            best = loss;
        size_t i = 0;
        while (i < n && ++c[i] == items[i].n_options)
            c[i++] = 0;
        if (i == n)
            return best;
    }
}

static void small_problems_agree_with_brute_force(void **state)
{
    (void)state;
    struct rng r = {7};
    size_t n_feasible = 0;
    for (int round = 0; round < 3000; round++) {
        struct knapsack_option opts[6][5];
        struct knapsack_item items[6];
        size_t n = 1 + rng_below(&r, 6), choice[6];
        uint64_t max_bytes = 0, grain = round % 2 ? 1 : 32; /* coarse sizes make ties */
        for (size_t i = 0; i < n; i++) {
            items[i] = (struct knapsack_item){opts[i], 1 + rng_below(&r, 5)};
            uint64_t most = 0;
            for (size_t c = 0; c < items[i].n_options; c++) {
                opts[i][c].n_bytes = grain * rng_below(&r, 20);
                opts[i][c].loss = round % 3 ? rng_uniform(&r) : (double)rng_below(&r, 4);
                if (opts[i][c].n_bytes > most)
                    most = opts[i][c].n_bytes;
            }
            max_bytes += most;
        }
        uint64_t budget = rng_below(&r, max_bytes + 2);
        struct knapsack_result res;
        struct err e = {0};
        int rc = knapsack_solve(items, n, budget, choice, &res, &e);
        double want = brute_force(items, n, budget);
        if (isinf(want)) {
            assert_int_equal(rc, ERR_ARG);
            assert_true(res.min_bytes > budget);
            continue;
        }
        n_feasible++;
        assert_int_equal(rc, 0);
        double loss = 0;
        uint64_t bytes = 0;
        for (size_t i = 0; i < n; i++) {
            assert_true(choice[i] < items[i].n_options);
            loss += opts[i][choice[i]].loss;
            bytes += opts[i][choice[i]].n_bytes;
        }
        assert_true(bytes <= budget);
        assert_int_equal(bytes, res.n_bytes);
        assert_true(fabs(loss - want) <= 1e-9 * (1 + fabs(want)));
        assert_true(fabs(loss - res.loss) <= 1e-12 * (1 + fabs(loss)));
        assert_true(res.lower_bound <= res.loss);
    }
    assert_true(n_feasible > 1000);
}

static void a_model_of_a_thousand_tensors_is_solved_to_a_proven_optimum(void **state)
{
    (void)state;
    enum { N = 1000, C = 12 };
    static const double bits[C] = {2.0625, 2.5625, 2.625, 3.0625, 3.4375, 4.25,
                                   4.5,    5.0,    5.5,   6.5625, 8.5,    16};
    static struct knapsack_option opts[N][C];
    static struct knapsack_item items[N];
    static size_t choice[N], again[N];
    static const uint64_t sizes[4] = {1 << 20, 1 << 21, 3 << 20, 11 << 19};
    struct rng r = {11};
    uint64_t weights = 0;
    for (size_t i = 0; i < N; i++) {
        uint64_t n = sizes[i % 4];
        double s = exp(2 * rng_normal(&r));
        weights += n;
        for (size_t c = 0; c < C; c++)
            opts[i][c] = (struct knapsack_option){(uint64_t)((double)n * bits[c] / 8),
                                                  s * exp2(-2 * bits[c]) * (1 + 0.2 * rng_uniform(&r))};
        items[i] = (struct knapsack_item){opts[i], C};
    }
    static const double targets[] = {2.5, 3.4, 4.5, 4.87, 6.0};
    for (size_t t = 0; t < sizeof targets / sizeof *targets; t++) {
        struct knapsack_result res;
        struct err e = {0};
        double begin = clock_read(CLOCK_PROCESS_CPUTIME_ID);
        uint64_t budget = (uint64_t)((double)weights * targets[t] / 8);
        assert_int_equal(knapsack_solve(items, N, budget, choice, &res, &e), 0);
        double seconds = clock_read(CLOCK_PROCESS_CPUTIME_ID) - begin;
        printf("target %.2f bits: gap %.3g of the loss, %.3f s\n", targets[t],
               (res.loss - res.lower_bound) / res.loss, seconds);
        assert_true(res.n_bytes <= budget);
        assert_true(res.loss - res.lower_bound <= 1e-6 * res.loss);
        assert_true(seconds < 60); /* a sanitizer build is slow; the figure above is what counts */
        assert_int_equal(knapsack_solve(items, N, budget, again, &res, &e), 0);
        assert_memory_equal(choice, again, sizeof choice);
    }
}

static void impossible_questions_are_refused_by_name(void **state)
{
    (void)state;
    struct knapsack_option o[2] = {{100, 1.0}, {200, NAN}};
    struct knapsack_item item = {o, 1};
    struct knapsack_result res = {0};
    struct err e = {0};
    size_t choice;
    assert_int_equal(knapsack_solve(&item, 1, 99, &choice, &res, &e), ERR_ARG);
    assert_int_equal(res.min_bytes, 100);
    item.n_options = 2;
    assert_int_equal(knapsack_solve(&item, 1, 999, &choice, &res, &e), ERR_ARG);
    item.n_options = 0;
    assert_int_equal(knapsack_solve(&item, 1, 999, &choice, &res, &e), ERR_ARG);
    assert_int_equal(knapsack_solve(&item, 0, 0, &choice, &res, &e), 0);
    assert_int_equal(res.n_bytes, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(small_problems_agree_with_brute_force),
        cmocka_unit_test(a_model_of_a_thousand_tensors_is_solved_to_a_proven_optimum),
        cmocka_unit_test(impossible_questions_are_refused_by_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
