/* test_gram_sums.c - Gram matrices against sums in double; the same bits however the rows are cut, for any
 * number of threads, in memory and on the disk; weights; the squares of chunks. */
#include "calib/stats/gram_sums.h"
#include "libquant/base/pool.h"
#include "libquant/base/rng.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static float *random_rows(size_t n, uint64_t seed)
{
    struct rng r = {seed};
    float *x = malloc(n * sizeof *x);
    for (size_t i = 0; i < n; i++)
        x[i] = (float)rng_normal(&r);
    return x;
}

static size_t at(size_t n, size_t i, size_t j)
{
    return i * (2 * n - i + 1) / 2 + j - i;
}

/* Rows in pieces of `piece`. */
static void collect(struct gram_sums *g, const float *x, const float *w, size_t n, size_t k, size_t chunk,
                    size_t piece, unsigned threads, bool on_disk)
{
    struct pool *pool = NULL;
    struct gram_scratch *s = NULL;
    struct err e = {0};
    assert_int_equal(pool_new(&pool, threads, &e), 0);
    assert_int_equal(gram_scratch_new(&s, kern_native(), pool, &e), 0);
    assert_int_equal(gram_sums_init(g, k, chunk, on_disk, &e), 0);
    for (size_t i = 0; i < n; i += piece)
        assert_int_equal(
            gram_sums_add(g, x + i * k, n - i < piece ? n - i : piece, k, w ? w + i : NULL, pool, s, &e), 0);
    assert_int_equal(gram_sums_flush(g, pool, s, &e), 0);
    gram_scratch_free(s);
    pool_free(pool);
}

static void sums_are_those_of_the_formula(void **state)
{
    (void)state;
    const size_t shapes[][3] = {{3, 5, 2}, {700, 37, 64}, {130, 640, 512}, {65, 129, 64}};
    for (size_t c = 0; c < 4; c++)
        for (int weighted = 0; weighted < 2; weighted++) {
            size_t n = shapes[c][0], k = shapes[c][1], chunk = shapes[c][2];
            float *x = random_rows(n * k, 1), *w = weighted ? random_rows(n, 2) : NULL;
            double total = 0, squares = 0;
            for (size_t i = 0; i < n; i++) {
                if (w)
                    w[i] = fabsf(w[i]);
                total += w ? (double)w[i] : 1;
            }
            struct gram_sums g;
            collect(&g, x, w, n, k, chunk, 7, 2, false);
            for (size_t a = 0; a < k; a++)
                for (size_t b = a; b < k; b++) {
                    double sum = 0, scale = 0;
                    for (size_t i = 0; i < n; i += chunk) {
                        double part = 0;
                        for (size_t t = i; t < n && t < i + chunk; t++) {
                            double v = (double)x[t * k + a] * (double)x[t * k + b] * (w ? (double)w[t] : 1);
                            part += v;
                            scale += fabs(v);
                        }
                        squares += a == b ? 0 : 2 * part * part;
                        sum += part;
                    }
                    assert_true(fabs(sum - g.sums[at(k, a, b)]) <= 1e-5 * scale);
                }
            assert_true(fabs(total - g.figures.weight) <= 1e-9 * total);
            assert_int_equal(g.figures.n_chunks, (n + chunk - 1) / chunk);
            assert_true(fabs(squares - g.figures.squares) <= 1e-4 * squares);
            gram_sums_release(&g);
            free(x), free(w);
        }
}

static void pieces_threads_and_the_disk_change_no_bit(void **state)
{
    (void)state;
    size_t n = 300, k = 200;
    float *x = random_rows(n * k, 3);
    struct gram_sums first, other;
    collect(&first, x, NULL, n, k, 64, n, 1, false);
    const unsigned threads[] = {2, 7};
    for (int i = 0; i < 2; i++) {
        collect(&other, x, NULL, n, k, 64, i ? 1 : 100, threads[i], i);
        assert_memory_equal(first.sums, other.sums, gram_n_values(k) * sizeof(double));
        assert_memory_equal(&first.figures, &other.figures, sizeof first.figures);
        gram_sums_release(&other);
    }
    gram_sums_release(&first);
    free(x);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sums_are_those_of_the_formula),
        cmocka_unit_test(pieces_threads_and_the_disk_change_no_bit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
