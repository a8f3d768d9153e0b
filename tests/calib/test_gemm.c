/* test_gemm.c - products of whole matrices: right, and each element independent of its company. */
#include "calib/compute/gemm.h"
#include "libquant/base/rng.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

struct matrices {
    size_t m, n, depth;
    float *a, *b, *c; /* [m, depth], [n, depth], [m, n] */
};

static float *random_floats(size_t n, uint64_t seed)
{
    struct rng r = {seed};
    float *x = malloc(n * sizeof *x + 1);
    assert_non_null(x);
    for (size_t i = 0; i < n; i++)
        x[i] = (float)((double)(rng_u64(&r) >> 40) / 16777216.0 - 0.5);
    return x;
}

static struct matrices make(size_t m, size_t n, size_t depth)
{
    return (struct matrices){
        m, n, depth, random_floats(m * depth, 1), random_floats(n * depth, 2), random_floats(m * n, 3)};
}

static void release(struct matrices *x)
{
    free(x->a);
    free(x->b);
    free(x->c);
}

static struct gemm_matrix packed(const struct kern_product *kern, size_t n_rows, size_t depth)
{
    size_t n_bytes = (gemm_floats(kern, n_rows, depth) * sizeof(float) + 63) / 64 * 64;
    struct gemm_matrix b = {kern, n_rows, depth, aligned_alloc(64, n_bytes)};
    assert_non_null(b.data);
    return b;
}

static void products_agree_with_sums_in_double(void **state)
{
    (void)state;
    const size_t sizes[][3] = {{1, 1, 1},     {3, 5, 7},       {12, 32, 512},  {13, 33, 513},
                               {25, 97, 700}, {40, 700, 1100}, {7, 1030, 130}, {130, 20, 1537}};
    for (const char *const *name = kern_names(); *name; name++)
        for (size_t k = 0; k < sizeof sizes / sizeof *sizes; k++)
            for (int add = 0; add < 2; add++) {
                struct matrices x = make(sizes[k][0], sizes[k][1], sizes[k][2]);
                struct gemm_matrix b = packed(kern_by_name(*name)->product, x.n, x.depth);
                float *before = random_floats(x.m * x.n, 3);
                gemm_pack_rows(&b, 0, x.n, x.b, x.depth);
                gemm(x.m, x.a, x.depth, &b, x.c, x.n, add != 0);
                for (size_t i = 0; i < x.m; i++)
                    for (size_t j = 0; j < x.n; j++) {
                        double want = add ? (double)before[i * x.n + j] : 0, size = fabs(want);
                        for (size_t p = 0; p < x.depth; p++) {
                            double term = (double)x.a[i * x.depth + p] * (double)x.b[j * x.depth + p];
                            want += term;
                            size += fabs(term);
                        }
                        double off = fabs((double)x.c[i * x.n + j] - want);
                        if (!(off <= 4e-7 * size))
                            fail_msg("%s, %zu x %zu x %zu: [%zu][%zu] is off by %g of %g", *name, x.m, x.n,
                                     x.depth, i, j, off, size);
                    }
                free(before);
                free(b.data);
                release(&x);
            }
}

/* All levels, any subset of rows of A, strips of B packed in any order, B given by columns: the same bits. */
static void an_element_does_not_depend_on_its_company(void **state)
{
    (void)state;
    struct matrices x = make(31, 90, 1200);
    float *columns = malloc(x.n * x.depth * sizeof *columns), *first = malloc(x.m * x.n * sizeof *first);
    assert_true(columns && first);
    for (size_t j = 0; j < x.n; j++)
        for (size_t p = 0; p < x.depth; p++)
            columns[p * x.n + j] = x.b[j * x.depth + p];
    for (const char *const *name = kern_names(); *name; name++) {
        struct gemm_matrix b = packed(kern_by_name(*name)->product, x.n, x.depth);
        gemm_pack_rows(&b, 0, x.n, x.b, x.depth);
        gemm(x.m, x.a, x.depth, &b, x.c, x.n, false);
        if (name == kern_names())
            memcpy(first, x.c, x.m * x.n * sizeof *first);
        assert_memory_equal(first, x.c, x.m * x.n * sizeof *first);

        memset(b.data, 0x7f, gemm_floats(b.kern, x.n, x.depth) * sizeof(float));
        size_t most = gemm_rows_at_once(b.kern);
        for (size_t row = (x.n - 1) / most * most, n = x.n - row;; row -= most, n = most) {
            gemm_pack_rows(&b, row, n, x.b + row * x.depth, x.depth);
            if (row == 0)
                break;
        }
        memset(x.c, 0x7f, x.m * x.n * sizeof *x.c);
        for (size_t i = 0, n = 1; i < x.m; i += n, n = n % 5 + 1)
            gemm(i + n > x.m ? x.m - i : n, x.a + i * x.depth, x.depth, &b, x.c + i * x.n, x.n, false);
        assert_memory_equal(first, x.c, x.m * x.n * sizeof *first);

        gemm_pack_columns(&b, columns, x.n);
        gemm(x.m, x.a, x.depth, &b, x.c, x.n, false);
        assert_memory_equal(first, x.c, x.m * x.n * sizeof *first);
        free(b.data);
    }
    free(columns);
    free(first);
    release(&x);
}

/* Tiles of 3 x 7, which divide nothing: what holds for them holds for the shapes of processors that are not
 * here. */
static void odd_tile(size_t n_rows, size_t depth, const float *a, const float *b, float *c, size_t ldc,
                     bool add)
{
    for (size_t r = 0; r < n_rows; r++)
        for (size_t j = 0; j < 7; j++) {
            float sum = 0;
            for (size_t p = 0; p < depth; p++)
                sum = fmaf(a[r * KERN_TILE_STRIDE + p], b[p * 7 + j], sum);
            c[r * ldc + j] = add ? c[r * ldc + j] + sum : sum;
        }
}

static void odd_pack(float *b, const float *src, size_t ld, size_t n_rows, size_t depth)
{
    for (size_t p = 0; p < depth; p++)
        for (size_t j = 0; j < 7; j++)
            b[p * 7 + j] = j < n_rows ? src[j * ld + p] : 0;
}

static void the_shape_of_tiles_does_not_matter(void **state)
{
    (void)state;
    const struct kern_product odd = {3, 7, odd_tile, odd_pack}, *kerns[] = {kern_native()->product, &odd};
    struct matrices x = make(11, 1100, 530);
    float *first = malloc(x.m * x.n * sizeof *first);
    assert_non_null(first);
    for (size_t k = 0; k < 2; k++) {
        struct gemm_matrix b = packed(kerns[k], x.n, x.depth);
        gemm_pack_rows(&b, 0, x.n, x.b, x.depth);
        gemm(x.m, x.a, x.depth, &b, k == 0 ? first : x.c, x.n, false);
        free(b.data);
    }
    assert_memory_equal(first, x.c, x.m * x.n * sizeof *first);
    free(first);
    release(&x);
}

/* Rows that lie apart: what is between them stays. */
static void gaps_between_rows_are_left_alone(void **state)
{
    (void)state;
    enum { M = 5, N = 9, K = 20, LDA = 23, LDC = 14 };
    float *a = random_floats(M * LDA, 4), *w = random_floats(N * K, 5), c[M * LDC];
    struct gemm_matrix b = packed(kern_native()->product, N, K);
    gemm_pack_rows(&b, 0, N, w, K);
    memset(c, 0x55, sizeof c);
    gemm(M, a, LDA, &b, c, LDC, false);
    uint32_t untouched = 0x55555555;
    for (size_t i = 0; i < M * LDC; i++) {
        if (i % LDC >= N) {
            assert_memory_equal(&c[i], &untouched, 4);
            continue;
        }
        float sum = 0;
        for (size_t p = 0; p < K; p++)
            sum = fmaf(a[i / LDC * LDA + p], w[i % LDC * K + p], sum);
        assert_true(c[i] == sum);
    }
    free(a);
    free(w);
    free(b.data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(products_agree_with_sums_in_double),
        cmocka_unit_test(an_element_does_not_depend_on_its_company),
        cmocka_unit_test(the_shape_of_tiles_does_not_matter),
        cmocka_unit_test(gaps_between_rows_are_left_alone),
    };
    return cmocka_run_group_tests_name("gemm", tests, NULL, NULL);
}
