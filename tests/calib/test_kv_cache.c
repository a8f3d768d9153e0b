/* test_kv_cache.c - keys and values come back as a cache of their type gives them, whatever the back end, the
 * threads and the cut of the work; what cannot be stored is refused. */
#include "calib/compute/cpu.h"
#include "calib/eval/candidate.h"
#include "calib/model/forward.h"
#include "calib/model/kv_cache.h"
#include "far_compute.h"
#include "libquant/quant.h"
#include "toy_family.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void names_are_read_and_written(void **state)
{
    (void)state;
    struct kv_cache c = {0};
    char name[KV_CACHE_NAME];
    assert_true(kv_cache_is_exact(&c));
    assert_true(kv_cache_parse(&c, "Q8_0"));
    assert_true(c.k == QTYPE_Q8_0 && c.v == QTYPE_Q8_0);
    assert_string_equal(kv_cache_name(&c, name), "q8_0");
    assert_true(kv_cache_parse(&c, "bf16/q4_1"));
    assert_string_equal(kv_cache_name(&c, name), "bf16,q4_1");
    static const char *const wrong[] = {"",      "q8",    "q4_K", "q8_0,", ",q8_0", "q8_0,q4_0,q4_0",
                                        "q8_0 ", "IQ4_NL"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        assert_false(kv_cache_parse(&c, wrong[i]));
    assert_string_equal(kv_cache_name(&c, name), "bf16,q4_1"); /* as it was */
}

static void turns_are_those_of_the_runtime(void **state)
{
    (void)state;
    assert_int_equal(kv_cache_turn_keys(QTYPE_Q8_0, 64), 64);
    assert_int_equal(kv_cache_turn_keys(QTYPE_Q8_0, 128), 128);
    assert_int_equal(kv_cache_turn_keys(QTYPE_Q4_0, 192), 64);
    assert_int_equal(kv_cache_turn_keys(QTYPE_Q4_0, 256), 256);
    assert_int_equal(kv_cache_turn_values(QTYPE_Q4_0, 256), 64);
    assert_int_equal(kv_cache_turn_keys(QTYPE_Q8_0, 96), 0);
    assert_int_equal(kv_cache_turn_keys(QTYPE_F16, 128), 0);
}

/* The matrix written out, as its definition has it: entry (i, j) is -1 to the number of common bits. */
static void turn_slowly(double *out, const float *x, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        out[i] = 0;
        for (size_t j = 0; j < n; j++)
            out[i] += (__builtin_popcountll(i & j) % 2 ? -1.0 : 1.0) * (double)x[j];
        out[i] /= sqrt((double)n);
    }
}

static void a_head_is_turned_rounded_and_turned_back(void **state)
{
    (void)state;
    const struct kern *k = kern_native();
    enum { N = 128 };
    float head[N], rounded[N];
    double turned[N], back[N];
    unsigned char blocks[N * 4];
    for (size_t i = 0; i < N; i++)
        head[i] = sinf((float)(i * i)) + (i == 5 ? 20 : 0);
    turn_slowly(turned, head, N);
    for (size_t i = 0; i < N; i++)
        rounded[i] = (float)turned[i];
    uint64_t n_bytes = 0;
    assert_true(qtype_row_bytes(QTYPE_Q4_0, N, &n_bytes));
    assert_int_equal(quant_encode_rows(k, QTYPE_Q4_0, rounded, blocks, (size_t)n_bytes, 1, N, NULL, NULL), 0);
    assert_int_equal(quant_decode_rows(k, QTYPE_Q4_0, blocks, (size_t)n_bytes, rounded, 1, N, NULL), 0);
    turn_slowly(back, rounded, N);
    double outlier = 0, plain = 0;
    struct cpu_storage turns = {QTYPE_Q4_0, N}, none = {QTYPE_Q4_0, 0};
    float own[N], unturned[N];
    memcpy(own, head, sizeof own);
    memcpy(unturned, head, sizeof unturned);
    assert_int_equal(cpu_store_head(k, &turns, own, N, NULL), 0);
    assert_int_equal(cpu_store_head(k, &none, unturned, N, NULL), 0);
    for (size_t i = 0; i < N; i++) {
        assert_true(fabs((double)own[i] - back[i]) < 1e-5);
        outlier += pow((double)own[i] - (double)head[i], 2);
        plain += pow((double)unturned[i] - (double)head[i], 2);
    }
    assert_true(outlier > 0 && plain > 0);
    /* Without a turn it is what the blocks give back. */
    assert_int_equal(quant_encode_rows(k, QTYPE_Q4_0, head, blocks, (size_t)n_bytes, 1, N, NULL, NULL), 0);
    assert_int_equal(quant_decode_rows(k, QTYPE_Q4_0, blocks, (size_t)n_bytes, rounded, 1, N, NULL), 0);
    assert_memory_equal(rounded, unturned, sizeof rounded);
    /* What is not a number stays. */
    own[3] = NAN;
    memcpy(rounded, own, sizeof own);
    assert_int_equal(cpu_store_head(k, &turns, own, N, NULL), 0);
    assert_memory_equal(rounded, own, sizeof own);
}

#define N_WINDOWS 2
#define CTX       20

static struct candidate demo;
static struct pool *pools[2];

static void pass(float *out, size_t k, const struct compute_ops *ops, uint64_t memory, enum activations a,
                 struct kv_cache cache)
{
    int32_t ids[N_WINDOWS * CTX];
    struct hidden_states *states = NULL;
    struct err e = {0};
    float *rows = NULL;
    for (size_t i = 0; i < N_WINDOWS * CTX; i++)
        ids[i] = (int32_t)((i * i * 31 + 7 * i + 11) % demo.net.n_vocab);
    struct forward_options f = {.compute = ops,
                                .pool = pools[k],
                                .memory_bytes = memory,
                                .activations = a,
                                .cache = cache,
                                .keep_end = CTX};
    if (forward_run(&states, &demo.net, demo.weights, ids, N_WINDOWS, CTX, &f, &e) != 0)
        fail_msg("%s", e.msg);
    assert_int_equal(hidden_states_get(states, 0, N_WINDOWS * CTX, out, &rows, NULL), 0);
    if (rows != out)
        memcpy(out, rows, N_WINDOWS * CTX * demo.net.n_embd * sizeof *out);
    hidden_states_free(states);
}

static double distance(const float *a, const float *b, size_t n)
{
    double s = 0;
    for (size_t i = 0; i < n; i++)
        s += pow((double)a[i] - (double)b[i], 2);
    return sqrt(s / (double)n);
}

static void figures_do_not_depend_on_who_computes(void **state)
{
    (void)state;
    struct err e = {0};
    assert_int_equal(pool_new(&pools[0], 1, &e), 0);
    assert_int_equal(pool_new(&pools[1], 3, &e), 0);
    assert_int_equal(candidate_open_file(&demo, KERF_TEST_DATA "/demo-qwen3", NULL, &e), 0);
    static const struct kv_cache caches[] = {
        {QTYPE_Q8_0, QTYPE_Q8_0}, {QTYPE_Q5_1, QTYPE_Q5_1}, {QTYPE_Q4_0, QTYPE_Q4_0}};
    size_t n = N_WINDOWS * CTX * (size_t)demo.net.n_embd;
    float *exact = malloc(3 * n * sizeof *exact), *want = exact + n, *found = exact + 2 * n;
    double before = 0;
    assert_non_null(exact);
    pass(exact, 0, NULL, 1 << 26, ACTIVATIONS_F32, (struct kv_cache){QTYPE_F32, QTYPE_F32});
    for (size_t i = 0; i < 3; i++) {
        pass(want, 0, NULL, 1 << 26, ACTIVATIONS_F32, caches[i]);
        pass(found, 1, NULL, 1 << 16, ACTIVATIONS_F32, caches[i]);
        assert_memory_equal(want, found, n * sizeof *want);
        if (i == 2) {
            pass(found, 1, &compute_far, 1 << 26, ACTIVATIONS_F32, caches[i]);
            assert_memory_equal(want, found, n * sizeof *want);
        }
        double d = distance(exact, want, n);
        assert_true(d > before); /* fewer bits lose more */
        before = d;
        pass(want, 0, NULL, 1 << 26, ACTIVATIONS_Q8, caches[i]);
        pass(found, 1, NULL, 1 << 16, ACTIVATIONS_Q8, caches[i]);
        assert_memory_equal(want, found, n * sizeof *want);
    }
    free(exact);
    candidate_close(&demo);
    pool_free(pools[0]);
    pool_free(pools[1]);
}

/* What a pass over latents leaves, for a cache of these types. */
static void pass_over_latents(float *out, size_t k, const struct compute_ops *ops, enum activations a,
                              enum qtype keys, enum qtype values)
{
    pass(out, k, ops, 1 << 26, a, (struct kv_cache){keys, values});
}

/* Attention over latents caches keys alone: the type of values says nothing, and rounding costs something. */
static void latents_are_rounded_as_keys(void **state)
{
    (void)state;
    struct err e = {0};
    char folder[] = "kerf-toy-XXXXXX", command[64];
    struct kv_cache q8 = {QTYPE_Q8_0, QTYPE_Q8_0}, mixed = {QTYPE_F16, QTYPE_Q8_0};
    if (!mkdtemp(folder) || toy_family_write(folder, "deepseek3", &e) ||
        candidate_open_file(&demo, folder, NULL, &e))
        fail_msg("%s", e.msg);
    assert_int_equal(pool_new(&pools[0], 1, &e), 0);
    assert_int_equal(pool_new(&pools[1], 3, &e), 0);
    assert_int_equal(kv_cache_check(&mixed, &demo.net, &e), 0);
    assert_int_equal(kv_cache_check(&q8, &demo.net, &e), ERR_ARG); /* latents of 32, but 8 rotated entries */
    assert_non_null(strstr(e.msg, "keys of layer 0 have 40 entries a head"));
    size_t n = N_WINDOWS * CTX * (size_t)demo.net.n_embd;
    float *exact = malloc(4 * n * sizeof *exact), *f16 = exact + n, *bf16 = f16 + n, *found = bf16 + n;
    assert_non_null(exact);
    pass_over_latents(exact, 0, NULL, ACTIVATIONS_F32, QTYPE_F32, QTYPE_F32);
    pass_over_latents(f16, 0, NULL, ACTIVATIONS_F32, QTYPE_F16, QTYPE_F16);
    pass_over_latents(bf16, 0, NULL, ACTIVATIONS_F32, QTYPE_BF16, QTYPE_F16);
    assert_true(distance(exact, f16, n) > 0 && distance(exact, bf16, n) > 2 * distance(exact, f16, n));
    pass_over_latents(found, 1, &compute_far, ACTIVATIONS_F32, QTYPE_BF16, QTYPE_Q4_0);
    assert_memory_equal(bf16, found, n * sizeof *found);
    free(exact);
    candidate_close(&demo);
    pool_free(pools[0]);
    pool_free(pools[1]);
    snprintf(command, sizeof command, "rm -r '%s'", folder);
    assert_int_equal(system(command), 0);
}

static void heads_that_blocks_do_not_divide_are_refused(void **state)
{
    (void)state;
    struct err e = {0};
    struct kv_cache q8 = {QTYPE_Q8_0, QTYPE_Q8_0}, half = {QTYPE_F16, QTYPE_BF16};
    assert_int_equal(candidate_open_file(&demo, KERF_TEST_DATA "/demo-qwen3", NULL, &e), 0);
    assert_int_equal(kv_cache_check(&q8, &demo.net, &e), 0);
    demo.net.layers[2].attention.value_dim = 40;
    assert_int_equal(kv_cache_check(&q8, &demo.net, &e), ERR_ARG);
    assert_non_null(strstr(e.msg, "values of layer 2 have 40 entries a head"));
    assert_int_equal(kv_cache_check(&half, &demo.net, &e), 0);
    candidate_close(&demo);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_are_read_and_written),
        cmocka_unit_test(turns_are_those_of_the_runtime),
        cmocka_unit_test(a_head_is_turned_rounded_and_turned_back),
        cmocka_unit_test(figures_do_not_depend_on_who_computes),
        cmocka_unit_test(latents_are_rounded_as_keys),
        cmocka_unit_test(heads_that_blocks_do_not_divide_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
