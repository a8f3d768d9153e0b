/* test_tensor_stats.c - statistics over many chunks are those of the whole, for any number of threads, and
 * numbers that are none are counted apart. */
#include "formats/inspect/tensor_stats.h"
#include "libquant/base/rng.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define N_ROWS 700
#define N_COLS 1024 /* three chunks, the last one smaller */

static int read_rows(const void *ctx, uint64_t row0, uint64_t n, float *dst, struct err *e)
{
    (void)e;
    memcpy(dst, (const float *)ctx + row0 * N_COLS, n * N_COLS * sizeof *dst);
    return 0;
}

/* Values that rise, so that the means of the chunks differ and their own spreads say little of the whole. */
static float *rising_values(void)
{
    struct rng rng = {5};
    float *x = malloc((size_t)N_ROWS * N_COLS * sizeof *x);
    assert_non_null(x);
    for (size_t i = 0; i < (size_t)N_ROWS * N_COLS; i++)
        x[i] = (float)(10.0 * (double)i / (N_ROWS * N_COLS) + rng_uniform(&rng));
    return x;
}

static struct tensor_stats stats_of(const float *x, unsigned n_threads)
{
    struct tensor_stats s;
    struct pool *pool = NULL;
    struct err e = {0};
    assert_int_equal(pool_new(&pool, n_threads, &e), 0);
    assert_int_equal(tensor_stats(&s, N_ROWS, N_COLS, read_rows, x, pool, 1 << 26, &e), 0);
    pool_free(pool);
    return s;
}

/* Mutation: the means of two chunks do not count in the spread of both. */
static void chunks_merge_into_the_figures_of_the_whole(void **state)
{
    (void)state;
    float *x = rising_values();
    const size_t n = (size_t)N_ROWS * N_COLS;
    double mean = 0, squares = 0;
    for (size_t i = 0; i < n; i++)
        mean += (double)x[i] / (double)n;
    for (size_t i = 0; i < n; i++)
        squares += ((double)x[i] - mean) * ((double)x[i] - mean) / (double)n;
    struct tensor_stats one = stats_of(x, 1), three = stats_of(x, 3);
    assert_memory_equal(&one, &three, sizeof one);
    assert_int_equal(one.n, n);
    assert_true(fabs(one.mean - mean) < 1e-9);
    assert_true(fabs(one.std - sqrt(squares)) < 1e-9);
    assert_true(one.std > 2.9);
    free(x);
}

static void what_is_no_number_is_counted_apart(void **state)
{
    (void)state;
    float *x = rising_values();
    x[0] = NAN;
    x[N_COLS * 600] = INFINITY;
    x[N_COLS * 300] = 0;
    x[N_COLS * 301] = -7;
    struct tensor_stats s = stats_of(x, 2);
    assert_true(s.n_nan == 1 && s.n_inf == 1 && s.n_zero == 1);
    assert_true(s.min == -7 && s.max < 11.1 && isfinite(s.mean) && isfinite(s.std));
    free(x);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(chunks_merge_into_the_figures_of_the_whole),
        cmocka_unit_test(what_is_no_number_is_counted_apart),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
