/* test_attention.c - tiled attention against the formula, for grouped heads, sliding windows, several windows
 * in a block, and blocks that are parts of one window; and the rounding that imitates other runtimes. */
#include "calib/compute/cpu.h"
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
    bool sinks; /* a score of each head beside those of its keys */
};

static float *random_floats(size_t n, uint64_t seed)
{
    struct rng r = {seed};
    float *x = malloc(n * sizeof *x);
    for (size_t i = 0; i < n; i++)
        x[i] = (float)rng_normal(&r);
    return x;
}

static const float some_sinks[] = {0.5f, -1, 2, 3.5f, -4, 1};

/* Softmax attention as it is written down, in double. */
static void expected(double *out, const struct shape *s, const float *q, const float *k, const float *v,
                     size_t token, size_t head)
{
    size_t first = token / s->ctx * s->ctx, kv = head / (s->n_heads / s->n_kv);
    if (s->window && token + 1 > s->window + first)
        first = token + 1 - s->window;
    double sum = s->sinks ? exp((double)some_sinks[head]) : 0;
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
    struct compute *c = NULL;
    assert_int_equal(pool_new(&pool, threads, NULL), 0);
    struct compute_setup setup = {pool, NULL, ACTIVATIONS_F32, s->ctx};
    assert_int_equal(compute_open(&c, NULL, &setup, NULL), 0);
    for (size_t t = 0; t < n; t += block) {
        struct attention_heads a = {(uint32_t)s->n_heads,
                                    (uint32_t)s->n_kv,
                                    (uint32_t)s->k_dim,
                                    (uint32_t)s->v_dim,
                                    (uint32_t)s->window,
                                    s->stride,
                                    cpu_region(out + t * s->n_heads * s->stride),
                                    cpu_region(k),
                                    cpu_region(v),
                                    t,
                                    n - t < block ? n - t : block,
                                    s->ctx,
                                    0,
                                    0,
                                    s->sinks ? some_sinks : NULL,
                                    NULL,
                                    0};
        assert_int_equal(c->ops->attention(c, &a, NULL), 0);
    }
    for (size_t t = 0; t < n; t++)
        for (size_t h = 0; h < s->n_heads; h++) {
            expected(want, s, q, k, v, t, h);
            for (size_t i = 0; i < s->v_dim; i++)
                worst = fmax(worst, fabs(want[i] - (double)out[(t * s->n_heads + h) * s->stride + i]));
        }
    compute_close(c);
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
        {1, 1, 8, 8, 1, 3, 0, 8, false},        {4, 2, 16, 16, 50, 3, 0, 16, false},
        {6, 1, 16, 8, 200, 1, 0, 16, false},    {2, 2, 16, 16, 300, 1, 40, 16, false},
        {2, 1, 8, 8, 130, 2, 1, 8, false},      {2, 1, 8, 8, 300, 1, 299, 16, false},
        {2, 2, 16, 16, 33, 4, 1000, 32, false}, {4, 2, 16, 24, 1300, 1, 0, 24, false},
        {2, 1, 8, 8, 1200, 1, 520, 8, false},   {2, 1, 8, 8, 1100, 1, 5, 8, false},
    };
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        assert_true(run(&shapes[i], shapes[i].ctx * shapes[i].n_windows, 1) < 2e-6);
}

static void a_sink_takes_its_share_and_gives_nothing(void **state)
{
    (void)state;
    const struct shape shapes[] = {{.n_heads = 6,
                                    .n_kv = 2,
                                    .k_dim = 16,
                                    .v_dim = 8,
                                    .ctx = 200,
                                    .n_windows = 2,
                                    .window = 0,
                                    .stride = 16,
                                    .sinks = true},
                                   {.n_heads = 4,
                                    .n_kv = 4,
                                    .k_dim = 8,
                                    .v_dim = 8,
                                    .ctx = 600,
                                    .n_windows = 1,
                                    .window = 7,
                                    .stride = 8,
                                    .sinks = true}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        assert_true(run(&shapes[i], i == 0 ? 400 : 128, 2) < 2e-6);
}

static void blocks_and_threads_do_not_matter(void **state)
{
    (void)state;
    const struct shape one = {2, 1, 8, 8, 400, 1, 0, 8, false}, many = {2, 1, 8, 8, 40, 6, 0, 8, false};
    assert_true(run(&one, 128, 2) < 2e-6);
    assert_true(run(&many, 80, 3) < 2e-6);
}

/* What attention_look tells of each window, kept. */
struct looked {
    size_t ctx, n_cols, n_mixed; /* of one window */
    float *mass, *mixed;         /* of all windows, in order */
    size_t n_windows;
};

static int take_look(void *ctx, const struct attention_seen *seen, struct err *e)
{
    struct looked *l = ctx;
    size_t first = seen->first_token, n_mixed = seen->n_mixed;
    (void)e;
    assert_int_equal(first, l->n_windows * l->ctx);
    l->n_mixed = n_mixed;
    l->n_windows++;
    l->mass = realloc(l->mass, l->n_windows * l->ctx * sizeof *l->mass);
    l->mixed = realloc(l->mixed, l->n_windows * n_mixed * l->n_cols * sizeof *l->mixed);
    memcpy(l->mass + first, seen->mass, l->ctx * sizeof *l->mass);
    memcpy(l->mixed + (l->n_windows - 1) * n_mixed * l->n_cols, seen->mixed,
           n_mixed * l->n_cols * sizeof *l->mixed);
    return 0;
}

/* Mass and mixed inputs as they are written down: p_ij of every head, and z = sum p_ij x_j of the queries
 * whose position plus head divides by two thirds of the number of heads. Values that are the inputs make z
 * what `expected` calls the output. */
static void look_agrees_with_the_formula(void **state)
{
    (void)state;
    const struct shape shapes[] = {{4, 2, 8, 8, 50, 3, 0, 8, false},
                                   {6, 1, 16, 8, 300, 1, 0, 32, false},
                                   {9, 3, 8, 8, 200, 2, 70, 8, false}};
    for (size_t c = 0; c < sizeof shapes / sizeof *shapes; c++) {
        const struct shape *s = &shapes[c];
        size_t n = s->ctx * s->n_windows, n_cols = s->v_dim, stride = (2 * s->n_heads + 2) / 3, row = 0;
        float *q = random_floats(n * s->n_heads * s->stride, 1),
              *k = random_floats(n * s->n_kv * s->k_dim, 2);
        float *x = random_floats(n * n_cols, 3), *shared = malloc(n * s->n_kv * n_cols * sizeof *shared);
        float *before = malloc(n * s->n_heads * s->stride * sizeof *before);
        memcpy(before, q, n * s->n_heads * s->stride * sizeof *before);
        for (size_t t = 0; t < n * s->n_kv; t++)
            memcpy(shared + t * n_cols, x + t / s->n_kv * n_cols, n_cols * sizeof *x);
        struct looked found[2] = {{.ctx = s->ctx, .n_cols = n_cols}, {.ctx = s->ctx, .n_cols = n_cols}};
        for (unsigned i = 0; i < 2; i++) {
            struct pool *pool = NULL;
            struct compute *o = NULL;
            assert_int_equal(pool_new(&pool, i ? 7 : 1, NULL), 0);
            struct compute_setup setup = {pool, NULL, ACTIVATIONS_F32, s->ctx};
            assert_int_equal(compute_open(&o, NULL, &setup, NULL), 0);
            struct attention_heads a = {(uint32_t)s->n_heads,
                                        (uint32_t)s->n_kv,
                                        (uint32_t)s->k_dim,
                                        (uint32_t)n_cols,
                                        (uint32_t)s->window,
                                        s->stride,
                                        cpu_region(q),
                                        cpu_region(k),
                                        {0},
                                        0,
                                        n,
                                        s->ctx,
                                        0,
                                        0,
                                        NULL,
                                        NULL,
                                        0};
            struct attention_look look = {cpu_region(x), n_cols, take_look, &found[i]};
            assert_int_equal(o->ops->look_at_attention(o, &a, &look, NULL), 0);
            compute_close(o);
            pool_free(pool);
        }
        assert_memory_equal(before, q, n * s->n_heads * s->stride * sizeof *q);
        assert_int_equal(found[0].n_windows, s->n_windows);
        assert_memory_equal(found[0].mass, found[1].mass, n * sizeof(float));
        assert_memory_equal(found[0].mixed, found[1].mixed,
                            s->n_windows * found[0].n_mixed * n_cols * sizeof(float));
        double *mass = calloc(n, sizeof *mass), *want = malloc(s->ctx * sizeof *want), worst = 0, total = 0;
        struct shape unit = *s; /* values e_j: the output is the row of probabilities */
        unit.v_dim = s->ctx;
        float *ones = calloc(n * s->n_kv * s->ctx, sizeof *ones);
        for (size_t t = 0; t < n * s->n_kv; t++)
            ones[t * s->ctx + t / s->n_kv % s->ctx] = 1;
        for (size_t t = 0; t < n; t++)
            for (size_t h = 0; h < s->n_heads; h++) {
                expected(want, &unit, q, k, ones, t, h);
                for (size_t j = 0; j < s->ctx; j++)
                    mass[t / s->ctx * s->ctx + j] += want[j] / (double)s->n_heads;
            }
        for (size_t t = 0; t < n; t++) {
            worst = fmax(worst, fabs(mass[t] - (double)found[0].mass[t]));
            total += (double)found[0].mass[t];
        }
        assert_true(worst < 1e-5);
        assert_true(fabs(total - (double)n) < 1e-3); /* every query gives a mass of one */
        for (size_t w = 0; w < s->n_windows; w++)
            for (size_t h = 0; h < s->n_heads; h++)
                for (size_t i = 0; i < s->ctx; i++)
                    if ((i + h) % stride == 0) {
                        expected(want, s, q, k, shared, w * s->ctx + i, h);
                        for (size_t j = 0; j < n_cols; j++)
                            worst = fmax(worst, fabs(want[j] - (double)found[0].mixed[row * n_cols + j]));
                        row++;
                    }
        assert_int_equal(row, s->n_windows * found[0].n_mixed);
        assert_true(worst < 1e-5);
        for (unsigned i = 0; i < 2; i++) {
            free(found[i].mass);
            free(found[i].mixed);
        }
        free(q), free(k), free(x), free(shared), free(before), free(mass), free(want), free(ones);
    }
}

/* How queries are cut into blocks changes no bit, in long windows and in sliding ones. */
static void a_query_depends_on_its_keys_alone(void **state)
{
    (void)state;
    const struct shape shapes[] = {{2, 1, 8, 8, 1300, 1, 0, 8, false}, {2, 1, 8, 8, 1300, 1, 600, 8, false}};
    for (size_t k = 0; k < 2; k++) {
        const struct shape *s = &shapes[k];
        size_t n_q = s->ctx * s->n_heads * s->stride;
        float *q = random_floats(n_q, 1), *keys = random_floats(s->ctx * s->n_kv * s->k_dim, 2);
        float *values = random_floats(s->ctx * s->n_kv * s->v_dim, 3), *first = NULL;
        struct pool *pool = NULL;
        struct compute *c = NULL;
        assert_int_equal(pool_new(&pool, 2, NULL), 0);
        struct compute_setup setup = {pool, NULL, ACTIVATIONS_F32, s->ctx};
        assert_int_equal(compute_open(&c, NULL, &setup, NULL), 0);
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
                                            cpu_region(out + t * 2 * s->stride),
                                            cpu_region(keys),
                                            cpu_region(values),
                                            t,
                                            s->ctx - t < blocks[b] ? s->ctx - t : blocks[b],
                                            s->ctx,
                                            0,
                                            0,
                                            NULL,
                                            NULL,
                                            0};
                assert_int_equal(c->ops->attention(c, &a, NULL), 0);
            }
            if (!first)
                first = out;
            else {
                assert_memory_equal(first, out, n_q * sizeof *out);
                free(out);
            }
        }
        compute_close(c);
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
        cmocka_unit_test(a_sink_takes_its_share_and_gives_nothing),
        cmocka_unit_test(blocks_and_threads_do_not_matter),
        cmocka_unit_test(look_agrees_with_the_formula),
        cmocka_unit_test(a_query_depends_on_its_keys_alone),
        cmocka_unit_test(activations_round_to_the_partner_of_the_weights),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
