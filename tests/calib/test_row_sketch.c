/* test_row_sketch.c - a sketch of a distribution tells the divergence of another one, and damaged bytes are
 * refused. */
#include "calib/eval/row_sketch.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define ROWS 400

static double uniform(uint64_t *s)
{
    *s = *s * 6364136223846793005u + 1442695040888963407u;
    return ((double)(*s >> 11) + 0.5) / 9007199254740992.0;
}

static float normal(uint64_t *s)
{
    double u = uniform(s);
    return (float)(sqrt(-2 * log(u)) * cos(6.283185307179586 * uniform(s)));
}

static double exact(const float *z, const float *w, size_t n, double lse_z, double lse_w)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += exp((double)z[i] - lse_z) * ((double)z[i] - lse_z - ((double)w[i] - lse_w));
    return sum;
}

struct error {
    double mean, exact_mean, largest; /* relative, of single rows */
    size_t most_bytes;
};

/* Rows of n logits with a few likely tokens, and others at a distance of `noise`. */
static struct error errors_of(size_t n, float spread, float noise)
{
    float *z = malloc(3 * n * sizeof *z), *w = z + n, *p = w + n;
    uint8_t sketch[ROW_SKETCH_BYTES];
    struct error r = {0};
    uint64_t s = 17;
    assert_non_null(z);
    for (size_t row = 0; row < ROWS; row++) {
        for (size_t i = 0; i < n; i++)
            z[i] = spread * normal(&s);
        for (size_t i = 0; i < 20; i++)
            z[(size_t)(uniform(&s) * (double)n)] += (float)(12 * uniform(&s));
        for (size_t i = 0; i < n; i++)
            w[i] = z[i] + noise * normal(&s);
        struct row_sum a, b;
        struct err e = {0};
        row_sum(&a, z, n);
        row_sum(&b, w, n);
        size_t n_bytes = row_sketch_encode(sketch, z, n, a.lse, uniform(&s), p);
        assert_int_equal(row_sketch_check(sketch, n_bytes, n, &e), 0);
        double kl = exact(z, w, n, a.lse, b.lse), found = row_sketch_divergence(sketch, n_bytes, w, n, b.lse);
        r.mean += found / ROWS;
        r.exact_mean += kl / ROWS;
        r.largest = fmax(r.largest, fabs(found / kl - 1));
        r.most_bytes = n_bytes > r.most_bytes ? n_bytes : r.most_bytes;
    }
    free(z);
    return r;
}

static void divergences_are_found_within_a_thousandth(void **state)
{
    (void)state;
    static const struct {
        size_t n;
        float spread, noise;
    } cases[] = {{600, 2, 0.2f}, {5000, 2.5f, 0.01f}, {5000, 2.5f, 0.5f}, {30000, 3.5f, 0.1f}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct error r = errors_of(cases[i].n, cases[i].spread, cases[i].noise);
        printf("n %zu: mean KL %.6f, relative error %.1e, of a row at most %.1e, %zu bytes\n", cases[i].n,
               r.exact_mean, r.mean / r.exact_mean - 1, r.largest, r.most_bytes);
        assert_true(fabs(r.mean / r.exact_mean - 1) < 1e-3 || fabs(r.mean - r.exact_mean) < 1e-6);
        assert_true(r.largest < 0.3);
        assert_true(r.most_bytes <= ROW_SKETCH_BYTES);
    }
}

static void what_rises_far_above_is_seen(void **state)
{
    (void)state;
    enum { N = 20000 };
    float *z = calloc(3 * N, sizeof *z), *w = z + N;
    uint8_t sketch[ROW_SKETCH_BYTES];
    struct row_sum a, b;
    assert_non_null(z);
    z[5] = 20;
    for (size_t i = 6; i < N; i++)
        z[i] = -2; /* tokens of p about 3e-10, which no sample sees */
    memcpy(w, z, N * sizeof *z);
    w[12345] = 19;
    row_sum(&a, z, N);
    row_sum(&b, w, N);
    assert_int_equal(a.top, 5);
    size_t n_bytes = row_sketch_encode(sketch, z, N, a.lse, 0.5, w + N);
    double kl = exact(z, w, N, a.lse, b.lse), found = row_sketch_divergence(sketch, n_bytes, w, N, b.lse);
    assert_true(kl > 0.3 && fabs(found / kl - 1) < 1e-3);
    free(z);
}

static void a_row_against_itself_is_zero(void **state)
{
    (void)state;
    enum { N = 3000 };
    float z[N], p[N];
    uint8_t sketch[ROW_SKETCH_BYTES];
    struct row_sum a;
    uint64_t s = 3;
    for (size_t i = 0; i < N; i++)
        z[i] = 3 * normal(&s);
    row_sum(&a, z, N);
    size_t n_bytes = row_sketch_encode(sketch, z, N, a.lse, 0.1, p);
    double found = row_sketch_divergence(sketch, n_bytes, z, N, a.lse);
    assert_true(found >= 0 && found < 1e-7);
}

static void flat_and_single_rows_have_room(void **state)
{
    (void)state;
    enum { N = 50000 };
    float *z = calloc(2 * N, sizeof *z);
    uint8_t sketch[ROW_SKETCH_BYTES];
    struct row_sum a;
    struct err e = {0};
    assert_non_null(z);
    for (int k = 0; k < 3; k++) {
        z[N - 1] = k == 1 ? 1000 : 0;
        z[7] = k == 2 ? -INFINITY : z[7];
        row_sum(&a, z, N);
        size_t n_bytes = row_sketch_encode(sketch, z, N, a.lse, 0.999999, z + N);
        assert_true(n_bytes <= ROW_SKETCH_BYTES);
        assert_int_equal(row_sketch_check(sketch, n_bytes, N, &e), 0);
        assert_true(fabs(row_sketch_divergence(sketch, n_bytes, z, N, a.lse)) < 1e-6);
    }
    free(z);
}

static void damaged_bytes_are_refused_or_read_inside(void **state)
{
    (void)state;
    enum { N = 1000 };
    float z[N], p[N];
    uint8_t sketch[ROW_SKETCH_BYTES];
    struct row_sum a;
    struct err e = {0};
    uint64_t s = 9;
    for (size_t i = 0; i < N; i++)
        z[i] = 2 * normal(&s);
    row_sum(&a, z, N);
    size_t n = row_sketch_encode(sketch, z, N, a.lse, 0.3, p), n_read = 0;
    for (size_t cut = 0; cut < n; cut++) {
        uint8_t *copy = malloc(cut + 1); /* of that size, for the sanitizer */
        assert_non_null(copy);
        memcpy(copy, sketch, cut);
        assert_int_equal(row_sketch_check(copy, cut, N, &e), ERR_FORMAT);
        free(copy);
    }
    uint8_t *copy = malloc(n);
    assert_non_null(copy);
    for (size_t i = 0; i < 4 * n; i++) {
        memcpy(copy, sketch, n);
        copy[i / 4] ^= (uint8_t)(1u << (2 * (i % 4)));
        if (row_sketch_check(copy, n, N, &e) != 0)
            continue;
        double found = row_sketch_divergence(copy, n, z, N, a.lse);
        n_read += !isnan(found);
    }
    free(copy);
    assert_true(n_read > n); /* most flips change a value, no structure */
    assert_int_equal(row_sketch_check(sketch, n, N / 2, &e), ERR_FORMAT);
    assert_non_null(strstr(e.msg, "beyond the vocabulary"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(divergences_are_found_within_a_thousandth),
        cmocka_unit_test(what_rises_far_above_is_seen),
        cmocka_unit_test(a_row_against_itself_is_zero),
        cmocka_unit_test(flat_and_single_rows_have_room),
        cmocka_unit_test(damaged_bytes_are_refused_or_read_inside),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
