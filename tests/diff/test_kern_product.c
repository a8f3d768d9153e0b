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

/* c + p where p is half a step of c, but for 2^-46 to 2^-30 of it: double cannot hold the difference, and
 * rounds to the middle of two floats. Over the whole range of c, subnormal sums and the largest float with
 * it.
 */
static void sums_beside_a_middle_go_to_the_right_side(void **state)
{
    (void)state;
    struct rng r = {7};
    size_t n_doubtful = 0;
    for (const char *const *name = kern_names(); *name; name++) {
        const struct kern_product *t = kern_by_name(*name)->product;
        static _Alignas(64) float a[KERN_TILE_STRIDE], b[2 * KERN_MAX_TILE_COLS], c[KERN_MAX_TILE_COLS];
        static float w[2 * KERN_MAX_TILE_COLS];
        for (int i = 0; i < 20000; i++) {
            int exponent = (int)(rng_u64(&r) % 277) - 149; /* of the last bit of c, and beyond both ends */
            double significand = 8388608.0 + (double)(rng_u64(&r) & 0x7fffff);
            a[0] = (float)ldexp(i % 5 ? significand : 16777215.0, exponent < -149 ? -149 : exponent);
            if (!isfinite(a[0]))
                a[0] = 0x1.fffffep127f;
            int half = ilogb((double)nextafterf(a[0], INFINITY) - (double)a[0] + 0x1p-160) - 1;
            if (half > 102)
                half = 102; /* of the largest float */
            double off = (double)(1 + (rng_u64(&r) & 255)) * 0x1p-23;
            int up = half / 2, sign = rng_u64(&r) & 1 ? 1 : -1;
            a[1] = (float)ldexp(sign * (1 + off), up);
            for (size_t j = 0; j < t->cols; j++) {
                double below = j % 3 == 0 ? 1 - off : j % 3 == 1 ? 1 - off + 0x1p-24 : 1 / (1 + off);
                w[2 * j] = 1;
                w[2 * j + 1] = (float)ldexp(below, half - up);
            }
            t->pack(b, w, 2, t->cols, 2);
            t->tile(1, 2, a, b, c, t->cols, false);
            for (size_t j = 0; j < t->cols; j++) {
                float want = fmaf(a[1], w[2 * j + 1], a[0]);
                n_doubtful += want != (float)((double)a[1] * (double)w[2 * j + 1] + (double)a[0]);
                if (f32_bits(c[j]) != f32_bits(want))
                    fail_msg("%s: %a * %a + %a is %a, expected %a", *name, (double)a[1], (double)w[2 * j + 1],
                             (double)a[0], (double)c[j], (double)want);
            }
        }
    }
    assert_true(n_doubtful > 20000); /* sums that rounding twice gets wrong */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_level_gives_the_bits_of_fused_chains),
        cmocka_unit_test(nothing_is_rounded_twice),
        cmocka_unit_test(sums_beside_a_middle_go_to_the_right_side),
    };
    return cmocka_run_group_tests_name("kern_product", tests, NULL, NULL);
}
