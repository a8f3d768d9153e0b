/* test_attention.c - tiled attention against the formula, for grouped heads, sliding windows, several windows
 * in a block, and blocks that are parts of one window; and the rounding that imitates other runtimes. */
#include "calib/model/activations.h"
#include "calib/model/attention.h"
#include "libquant/base/rng.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

struct shape {
    size_t n_heads, n_kv, k_dim, v_dim, ctx, n_windows, window, stride;
};

static float *random_floats(size_t n, uint64_t seed)
{
    struct rng r = {seed};
    float *x = malloc(n * sizeof *x);
    for (size_t i = 0; i < n; i++)
        x[i] = (float)rng_normal(&r);
    return x;
}

/* Softmax attention as it is written down, in double. */
static void expected(double *out, const struct shape *s, const float *q, const float *k, const float *v,
                     size_t token, size_t head)
{
    size_t first = token / s->ctx * s->ctx, kv = head / (s->n_heads / s->n_kv);
    if (s->window && token + 1 > s->window + first)
        first = token + 1 - s->window;
    double sum = 0;
    memset(out, 0, s->v_dim * sizeof *out);
    for (size_t j = first; j <= token; j++) {
        double dot = 0;
        for (size_t i = 0; i < s->k_dim; i++)
            dot += (double)q[(token * s->n_heads + head) * s->stride + i] *
                   (double)k[(j * s->n_kv + kv) * s->k_dim + i];
        double w = exp(dot / sqrt((double)s->k_dim));
        sum += w;
        for (size_t i = 0; i < s->v_dim; i++)
            out[i] += w * (double)v[(j * s->n_kv + kv) * s->v_dim + i];
    }
    for (size_t i = 0; i < s->v_dim; i++)
        out[i] /= sum;
}

/* `block`: queries at once. Returns the largest error. */
static double run(const struct shape *s, size_t block, unsigned threads)
{
    size_t n = s->ctx * s->n_windows, n_q = n * s->n_heads * s->stride;
    float *q = random_floats(n_q, 1), *k = random_floats(n * s->n_kv * s->k_dim, 2);
    float *v = random_floats(n * s->n_kv * s->v_dim, 3), *out = malloc(n_q * sizeof *out);
    double *want = malloc(s->v_dim * sizeof *want), worst = 0;
    memcpy(out, q, n_q * sizeof *out);
    struct pool *pool = NULL;
    struct ops ops;
    assert_int_equal(pool_new(&pool, threads, NULL), 0);
    assert_int_equal(ops_init(&ops, pool, kern_native(), ACTIVATIONS_F32, s->ctx, NULL), 0);
    for (size_t t = 0; t < n; t += block) {
        struct attention_heads a = {(uint32_t)s->n_heads,
                                    (uint32_t)s->n_kv,
                                    (uint32_t)s->k_dim,
                                    (uint32_t)s->v_dim,
                                    (uint32_t)s->window,
                                    s->stride,
                                    out + t * s->n_heads * s->stride,
                                    k,
                                    v,
                                    t,
                                    n - t < block ? n - t : block,
                                    s->ctx};
        assert_int_equal(attention_run(&ops, &a, NULL), 0);
    }
    for (size_t t = 0; t < n; t++)
        for (size_t h = 0; h < s->n_heads; h++) {
            expected(want, s, q, k, v, t, h);
            for (size_t i = 0; i < s->v_dim; i++)
                worst = fmax(worst, fabs(want[i] - (double)out[(t * s->n_heads + h) * s->stride + i]));
        }
    ops_release(&ops);
    pool_free(pool);
    free(q);
    free(k);
    free(v);
    free(out);
    free(want);
    return worst;
}

static void tiles_agree_with_the_formula(void **state)
{
    (void)state;
    const struct shape shapes[] = {
        {1, 1, 8, 8, 1, 3, 0, 8},        {4, 2, 16, 16, 50, 3, 0, 16},   {6, 1, 16, 8, 200, 1, 0, 16},
        {2, 2, 16, 16, 300, 1, 40, 16},  {2, 1, 8, 8, 130, 2, 1, 8},     {2, 1, 8, 8, 300, 1, 299, 16},
        {2, 2, 16, 16, 33, 4, 1000, 32}, {4, 2, 16, 24, 1300, 1, 0, 24}, {2, 1, 8, 8, 1200, 1, 520, 8},
        {2, 1, 8, 8, 1100, 1, 5, 8},
    };
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        assert_true(run(&shapes[i], shapes[i].ctx * shapes[i].n_windows, 1) < 2e-6);
}

static void blocks_and_threads_do_not_matter(void **state)
{
    (void)state;
    const struct shape one = {2, 1, 8, 8, 400, 1, 0, 8}, many = {2, 1, 8, 8, 40, 6, 0, 8};
    assert_true(run(&one, 128, 2) < 2e-6);
    assert_true(run(&many, 80, 3) < 2e-6);
}

/* How queries are cut into blocks changes no bit, in long windows and in sliding ones. */
static void a_query_depends_on_its_keys_alone(void **state)
{
    (void)state;
    const struct shape shapes[] = {{2, 1, 8, 8, 1300, 1, 0, 8}, {2, 1, 8, 8, 1300, 1, 600, 8}};
    for (size_t k = 0; k < 2; k++) {
        const struct shape *s = &shapes[k];
        size_t n_q = s->ctx * s->n_heads * s->stride;
        float *q = random_floats(n_q, 1), *keys = random_floats(s->ctx * s->n_kv * s->k_dim, 2);
        float *values = random_floats(s->ctx * s->n_kv * s->v_dim, 3), *first = NULL;
        struct pool *pool = NULL;
        struct ops ops;
        assert_int_equal(pool_new(&pool, 2, NULL), 0);
        assert_int_equal(ops_init(&ops, pool, kern_native(), ACTIVATIONS_F32, s->ctx, NULL), 0);
        const size_t blocks[] = {1300, 512, 100, 77};
        for (size_t b = 0; b < 4; b++) {
            float *out = malloc(n_q * sizeof *out);
            assert_non_null(out);
            memcpy(out, q, n_q * sizeof *out);
            for (size_t t = 0; t < s->ctx; t += blocks[b]) {
                struct attention_heads a = {2,
                                            1,
                                            8,
                                            8,
                                            (uint32_t)s->window,
                                            s->stride,
                                            out + t * 2 * s->stride,
                                            keys,
                                            values,
                                            t,
                                            s->ctx - t < blocks[b] ? s->ctx - t : blocks[b],
                                            s->ctx};
                assert_int_equal(attention_run(&ops, &a, NULL), 0);
            }
            if (!first)
                first = out;
            else {
                assert_memory_equal(first, out, n_q * sizeof *out);
                free(out);
            }
        }
        ops_release(&ops);
        pool_free(pool);
        free(first);
        free(q);
        free(keys);
        free(values);
    }
}

static void activations_round_to_the_partner_of_the_weights(void **state)
{
    (void)state;
    assert_int_equal(rounding_of(ACTIVATIONS_F32, QTYPE_Q4_K), ROUND_NONE);
    assert_int_equal(rounding_of(ACTIVATIONS_Q8, QTYPE_F32), ROUND_NONE);
    assert_int_equal(rounding_of(ACTIVATIONS_Q8, QTYPE_BF16), ROUND_BF16);
    assert_int_equal(rounding_of(ACTIVATIONS_Q8, QTYPE_Q5_1), ROUND_Q8_0);
    assert_int_equal(rounding_of(ACTIVATIONS_Q8, QTYPE_IQ4_NL), ROUND_Q8_0);
    assert_int_equal(rounding_of(ACTIVATIONS_Q8, QTYPE_IQ4_XS), ROUND_Q8_K);
    float x[256], y[256];
    for (int i = 0; i < 256; i++)
        x[i] = (float)(i - 100); /* largest magnitude 155, so the scale of the whole block is 155/127 */
    round_row(ROUND_Q8_K, y, x, 256);
    for (int i = 0; i < 256; i++) {
        float scale = 155.0f / 127.0f;
        assert_true(fabsf(y[i] - rintf(x[i] / scale) * scale) < 1e-3f);
    }
    round_row(ROUND_Q8_0, y, x, 40); /* 32 in a block of scale 100/127 kept in half precision; a tail of 8 */
    assert_true(fabsf(y[0] + 100.0f) < 0.05f &&
                fabsf(y[1] - rintf(-99 / (100 / 127.0f)) * (100 / 127.0f)) < 0.05f);
    assert_memory_equal(y + 32, x + 32, 8 * sizeof *x);
    x[0] = 1.00390625f; /* 1 + 2^-8: half way between two bf16 neighbours, goes to the even one */
    round_row(ROUND_BF16, y, x, 1);
    assert_true(y[0] == 1.0f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tiles_agree_with_the_formula),
        cmocka_unit_test(blocks_and_threads_do_not_matter),
        cmocka_unit_test(a_query_depends_on_its_keys_alone),
        cmocka_unit_test(activations_round_to_the_partner_of_the_weights),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
