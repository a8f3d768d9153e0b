/* test_kern_product.c - the tiles of matrix products: every level gives the bits of the reference, and the
 * reference those of the C library's fmaf. */
#include "libquant/base/rng.h"
#include "libquant/half.h"
#include "libquant/kern/kern.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { MAX_COLS = 64 };

static uint32_t comparable_bits(float v)
{
    return v != v ? 0x7fc00000u : f32_bits(v);
}

/* Mostly ordinary values; `wild`: any bits, so that products overflow, vanish and meet infinities. */
static float value(struct rng *r, bool wild)
{
    uint64_t bits = rng_u64(r);
    if (wild)
        return f32_from_bits((uint32_t)bits);
    return ldexpf((float)(int32_t)(bits & 0xffffff) - 8388608.0f, (int)(bits >> 32 & 15) - 30);
}

/* The contract in kern.h, word for word. */
static float expected(size_t depth, const float *a, const float *w, float c, bool add)
{
    float sum = 0;
    for (size_t p = 0; p < depth; p++)
        sum = fmaf(a[p], w[p], sum);
    return add ? c + sum : sum;
}

static void check_level(const struct kern *k, struct rng *r, size_t depth, size_t n_rows, size_t n_cols,
                        bool wild, bool add)
{
    const struct kern_product *t = k->product;
    static _Alignas(64) float a[KERN_MAX_TILE_ROWS * KERN_TILE_STRIDE], b[KERN_TILE_DEPTH * MAX_COLS];
    static float w[MAX_COLS * (KERN_TILE_DEPTH + 3)], c[KERN_MAX_TILE_ROWS * (MAX_COLS + 5)],
        before[sizeof c / 4];
    const size_t ld = depth + 3, ldc = t->cols + 5;
    for (size_t i = 0; i < sizeof a / sizeof *a; i++)
        a[i] = value(r, wild);
    for (size_t i = 0; i < n_cols * ld; i++)
        w[i] = value(r, wild);
    for (size_t i = 0; i < sizeof c / sizeof *c; i++)
        before[i] = c[i] = value(r, false);
    memset(b, 0x7f, sizeof b);
    t->pack(b, w, ld, n_cols, depth);
    t->tile(n_rows, depth, a, b, c, ldc, add);
    for (size_t i = 0; i < sizeof c / sizeof *c; i++) {
        size_t row = i / ldc, col = i % ldc;
        float want = before[i];
        if (row < n_rows && col < n_cols)
            want = expected(depth, a + row * KERN_TILE_STRIDE, w + col * ld, want, add);
        else if (row < n_rows && col < t->cols)
            continue; /* columns of padding: 0 or, where A is infinite, NaN */
        if (comparable_bits(c[i]) != comparable_bits(want))
            fail_msg("%s, depth %zu, %zu rows, %zu columns: [%zu][%zu] is %a, expected %a", k->isa, depth,
                     n_rows, n_cols, row, col, (double)c[i], (double)want);
    }
}

static void every_level_gives_the_bits_of_fused_chains(void **state)
{
    (void)state;
    const size_t depths[] = {1, 2, 15, 16, 17, 64, 511, KERN_TILE_DEPTH};
    struct rng r = {20261121};
    for (const char *const *name = kern_names(); *name; name++) {
        const struct kern *k = kern_by_name(*name);
        assert_in_range(k->product->rows, 1, KERN_MAX_TILE_ROWS);
        assert_in_range(k->product->cols, 1, KERN_MAX_TILE_COLS);
        for (size_t d = 0; d < sizeof depths / sizeof *depths; d++)
            for (size_t rows = 1; rows <= k->product->rows; rows++)
                for (int kind = 0; kind < 4; kind++) {
                    size_t n_cols =
                        kind < 2 ? k->product->cols : 1 + (size_t)(rng_u64(&r) % k->product->cols);
                    check_level(k, &r, depths[d], rows, n_cols, kind % 2 == 1, kind >= 2);
                }
    }
}

/* 1 + 2^-23 + 2^-24 - 2^-54 lies below the middle of two floats. Rounded to double first, it is the middle,
 * and goes to the even neighbour above. */
static void nothing_is_rounded_twice(void **state)
{
    (void)state;
    const float middle = ldexpf(1.0f, -24), below = 1.0f - ldexpf(1.0f, -15);
    const float w[2] = {1.0f, middle * below};
    for (const char *const *name = kern_names(); *name; name++) {
        const struct kern_product *t = kern_by_name(*name)->product;
        static _Alignas(64) float a[KERN_TILE_STRIDE], b[2 * KERN_MAX_TILE_COLS], c[KERN_MAX_TILE_COLS];
        t->pack(b, w, 2, 1, 2);
        for (int sign = -1; sign <= 1; sign += 2) {
            a[0] = (float)sign * (1.0f + ldexpf(1.0f, -23));
            a[1] = (float)sign * (1.0f + ldexpf(1.0f, -15));
            t->tile(1, 2, a, b, c, t->cols, false);
            assert_true((float)((double)a[0] + (double)a[1] * (double)w[1]) != a[0]);
            assert_true(c[0] == a[0]);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_level_gives_the_bits_of_fused_chains),
        cmocka_unit_test(nothing_is_rounded_twice),
    };
    return cmocka_run_group_tests_name("kern_product", tests, NULL, NULL);
}
