/* test_feedback_correction.c - products of two kinds of rows against sums in double, however they are cut;
 * the correction of a row against the equations that define it; both of its forms; and its strength, which is
 * the best one on text that nothing was learned from. */
#include "calib/feedback/feedback_correction.h"
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

enum { N_COLS = 64, N_ROWS = 70 }; /* rows: more than one job of the solver */

static float *random_rows(size_t n, uint64_t seed)
{
    struct rng r = {seed};
    float *x = malloc(n * sizeof *x);
    for (size_t i = 0; i < n; i++)
        x[i] = (float)rng_normal(&r);
    return x;
}

static void cross(struct cross_sums *g, const float *l, const float *r, const float *w, size_t n,
                  size_t piece, unsigned threads, bool on_disk)
{
    struct pool *pool = NULL;
    struct gram_scratch *s = NULL;
    struct err e = {0};
    assert_int_equal(pool_new(&pool, threads, &e), 0);
    assert_int_equal(gram_scratch_new(&s, kern_native(), pool, &e), 0);
    assert_int_equal(cross_sums_init(g, 40, 600, on_disk, &e), 0);
    for (size_t i = 0; i < n; i += piece) {
        size_t now = n - i < piece ? n - i : piece;
        assert_int_equal(cross_sums_add(g, l + i * 40, r + i * 600, now, w ? w + i : NULL, pool, s, &e), 0);
    }
    assert_int_equal(cross_sums_flush(g, pool, s, &e), 0);
    gram_scratch_free(s);
    pool_free(pool);
}

static void cross_sums_are_products(void **state)
{
    (void)state;
    enum { N = 700 };
    float *l = random_rows(N * 40, 1), *r = random_rows(N * 600, 2), *w = random_rows(N, 3);
    struct cross_sums a, b;
    for (size_t i = 0; i < N; i++)
        w[i] = w[i] * w[i];
    cross(&a, l, r, w, N, N, 1, false);
    cross(&b, l, r, w, N, 33, 3, true);
    assert_memory_equal(a.sums, b.sums, 40 * 600 * sizeof *a.sums);
    for (size_t i = 0; i < 40; i += 13)
        for (size_t j = 0; j < 600; j += 199) {
            double sum = 0;
            for (size_t t = 0; t < N; t++)
                sum += (double)w[t] * (double)l[t * 40 + i] * (double)r[t * 600 + j];
            assert_true(fabs(sum - a.sums[i * 600 + j]) < 2e-3);
        }
    cross_sums_release(&a);
    cross_sums_release(&b);
    free(l), free(r), free(w);
}

/* A text: what quantized layers give (x'), and what the original ones do. */
struct text {
    double gram[N_COLS * N_COLS], cross[N_COLS * N_COLS], outputs[N_ROWS * N_COLS];
};

/* x - x' = share * x' mixed by a fixed matrix, and noise. */
static struct text *make_text(const float *w, size_t n, float share, uint64_t seed)
{
    struct text *t = calloc(1, sizeof *t);
    struct rng r = {seed};
    float *mixed = random_rows(N_COLS * N_COLS, 77), x[N_COLS], d[N_COLS];
    for (size_t s = 0; s < n; s++) {
        float common = (float)rng_normal(&r);
        for (size_t k = 0; k < N_COLS; k++)
            x[k] = (float)rng_normal(&r) + common;
        for (size_t k = 0; k < N_COLS; k++) {
            d[k] = (float)rng_normal(&r);
            for (size_t j = 0; j < N_COLS; j++)
                d[k] += share * mixed[k * N_COLS + j] * x[j];
        }
        for (size_t i = 0; i < N_COLS; i++)
            for (size_t j = 0; j < N_COLS; j++) {
                t->gram[i * N_COLS + j] += (double)x[i] * (double)x[j];
                t->cross[i * N_COLS + j] += (double)d[i] * (double)x[j];
            }
        for (size_t i = 0; i < N_ROWS; i++) {
            double y = 0;
            for (size_t k = 0; k < N_COLS; k++)
                y += (double)w[i * N_COLS + k] * ((double)x[k] + (double)d[k]);
            for (size_t j = 0; j < N_COLS; j++)
                t->outputs[i * N_COLS + j] += y * (double)x[j];
        }
    }
    free(mixed);
    return t;
}

static void make_correction(struct feedback_hessian *h, struct feedback_correction *c, const struct text *t,
                            bool of_outputs)
{
    struct gram_figures figures = {1000, 1e6, 0};
    struct err e = {0};
    double *used = malloc(sizeof t->gram);
    memcpy(used, t->gram, sizeof t->gram);
    assert_int_equal(feedback_hessian_make(h, used, N_COLS, &figures, NULL, &e), 0);
    struct correction_sums sums = {t->gram, of_outputs ? t->outputs : t->cross};
    assert_int_equal(feedback_correction_make(c, h, &sums, of_outputs, kern_native(), &e), 0);
    free(used);
}

/* (rows - W) H = W C' in the units of `matrix`. */
static void rows_solve_their_equations(void **state)
{
    (void)state;
    float *w = random_rows(N_ROWS * N_COLS, 5), got[2][8 * N_COLS];
    struct text *t = make_text(w, 1000, 0.05f, 9);
    struct feedback_hessian h;
    struct feedback_correction c;
    struct err e = {0};
    for (int form = 0; form < 2; form++) {
        make_correction(&h, &c, t, form == 1);
        memcpy(got[form], w + 60 * N_COLS, sizeof got[form]);
        assert_int_equal(feedback_correct_rows(&c, 60, 8, got[form], &e), 0);
        for (size_t i = 0; i < 8; i++)
            for (size_t j = 0; j < N_COLS; j++) {
                double left = 0, right = 0;
                for (size_t k = 0; k < N_COLS; k++) {
                    left += ((double)got[form][i * N_COLS + k] - (double)w[(60 + i) * N_COLS + k]) *
                            (double)h.matrix[k * N_COLS + j];
                    right += (double)w[(60 + i) * N_COLS + k] * t->cross[k * N_COLS + j] * h.scale;
                }
                assert_true(fabs(left - right) < 2e-3 * (1 + fabs(right)));
            }
        feedback_correction_release(&c);
        feedback_hessian_release(&h);
    }
    for (size_t i = 0; i < 8 * N_COLS; i++) /* outputs are those of the inputs here */
        assert_true(fabsf(got[0][i] - got[1][i]) < 2e-3f);
    free(w), free(t);
}

static int read_rows(void *ctx, uint64_t row0, uint64_t n, float *rows, struct err *e)
{
    (void)e;
    memcpy(rows, (const float *)ctx + row0 * N_COLS, n * N_COLS * sizeof *rows);
    return 0;
}

static double strength_on(struct feedback_correction *c, const struct text *held_out, float *w,
                          unsigned threads)
{
    struct correction_sums sums = {held_out->gram, c->of_outputs ? held_out->outputs : held_out->cross};
    struct correction_rows rows = {N_ROWS, read_rows, w};
    struct correction_fit fit = {0};
    struct pool *pool = NULL;
    struct err e = {0};
    assert_int_equal(pool_new(&pool, threads, &e), 0);
    assert_int_equal(feedback_correction_fit(&fit, c, &sums, &rows, pool, &e), 0);
    pool_free(pool);
    return feedback_correction_strength(&fit);
}

/* What rows W + a D lose on a text: sum |W (x - x') - a D x'|^2 without what does not depend on a. */
static double loss(struct feedback_correction *c, const struct text *t, const float *w, float a)
{
    float rows[N_ROWS * N_COLS];
    struct err e = {0};
    double sum = 0;
    memcpy(rows, w, sizeof rows);
    c->strength = a;
    assert_int_equal(feedback_correct_rows(c, 0, N_ROWS, rows, &e), 0);
    for (size_t i = 0; i < N_ROWS; i++)
        for (size_t k = 0; k < N_COLS; k++) {
            double d = (double)rows[i * N_COLS + k] - (double)w[i * N_COLS + k], hd = 0, cw = 0;
            for (size_t j = 0; j < N_COLS; j++) {
                hd += ((double)rows[i * N_COLS + j] - (double)w[i * N_COLS + j]) * t->gram[j * N_COLS + k];
                cw += (double)w[i * N_COLS + j] * t->cross[j * N_COLS + k];
            }
            sum += d * (hd - 2 * cw);
        }
    return sum;
}

static void the_strength_is_the_best_on_other_text(void **state)
{
    (void)state;
    float *w = random_rows(N_ROWS * N_COLS, 5);
    struct feedback_hessian h;
    struct feedback_correction c;
    const float shares[] = {0.3f, 0.02f, 0};
    double before = 2;
    for (int i = 0; i < 3; i++) {
        struct text *t = make_text(w, 300, shares[i], 9), *other = make_text(w, 200, shares[i], 10);
        make_correction(&h, &c, t, false);
        double a = strength_on(&c, other, w, 1);
        assert_true(a == strength_on(&c, other, w, 3));
        assert_true(a >= 0 && a <= 1 && a < before);
        if (a > 0 && a < 1) {
            double best = loss(&c, other, w, (float)a);
            assert_true(best < loss(&c, other, w, (float)a + 0.1f));
            assert_true(best < loss(&c, other, w, (float)a - 0.1f));
        }
        before = a;
        feedback_correction_release(&c);
        feedback_hessian_release(&h);
        make_correction(&h, &c, t, true);
        assert_true(fabs(strength_on(&c, other, w, 1) - a) < 1e-2);
        feedback_correction_release(&c);
        feedback_hessian_release(&h);
        free(t), free(other);
    }
    assert_true(before < 0.2); /* noise alone is left alone */
    free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cross_sums_are_products),
        cmocka_unit_test(rows_solve_their_equations),
        cmocka_unit_test(the_strength_is_the_best_on_other_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
