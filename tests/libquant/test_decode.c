/* test_decode.c - decoders against golden vectors of the reference implementation, and the checks around
 * them. */
#include "libquant/quant.h"

#include "libquant/base/rng.h"
#include "libquant/base/sha256.h"
#include "libquant/iquants_grid.h"

#include "decoders.h"
#include "hex.h"

#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void every_decodable_type_has_a_decoder(void **state)
{
    (void)state;
    for (uint32_t id = 0; id < QTYPE_COUNT; id++) {
        const struct qtype_info *info = qtype_info(id);
        const bool has = reference_decoders.decode[id] != NULL;
        assert_int_equal(has, info != NULL && info->can_decode);
        if (info != NULL && info->in_files)
            assert_true(info->can_decode);
    }
}

/* One line of decode.txt: "Q4_K 3072 <hex> <hash>". */
static void check_golden_line(const char *line, size_t len, bool seen[QTYPE_COUNT])
{
    char name[16], hash[65], got[65];
    size_t n_elems, n_bytes;
    int start;
    assert_int_equal(sscanf(line, "%15s %zu %n", name, &n_elems, &start), 2);
    assert_true(len > (size_t)start + 65);
    memcpy(hash, line + len - 64, 64);
    hash[64] = 0;
    enum qtype type;
    assert_true(qtype_from_name(name, &type));
    uint8_t *blocks = hex_bytes(line + start, len - 65 - (size_t)start, &n_bytes);
    float *x = malloc(n_elems * sizeof *x);
    assert_non_null(blocks);
    assert_non_null(x);
    struct err e = {0};
    const size_t n_cols = qtype_info(type)->block_elems;
    if (quant_decode_rows(&reference_decoders, type, blocks, n_bytes, x, n_elems / n_cols, n_cols, &e) != 0)
        fail_msg("%s", e.msg);
    hex_hash_floats(x, n_elems, got);
    if (strcmp(got, hash) != 0)
        fail_msg("%s: hash of the decoded floats is %s, expected %s", name, got, hash);
    seen[type] = true;
    free(x);
    free(blocks);
}

static void golden_blocks_of_every_type_decode_to_the_reference_floats(void **state)
{
    (void)state;
    size_t n;
    char *text = hex_read_file(KERF_TEST_GOLDEN "/decode.txt", &n);
    assert_non_null(text);
    bool seen[QTYPE_COUNT] = {false};
    for (char *line = text; *line != 0;) {
        const size_t len = strcspn(line, "\n");
        if (line[0] != '#')
            check_golden_line(line, len, seen);
        line += len + (line[len] == '\n');
    }
    free(text);
    for (uint32_t id = 0; id < QTYPE_COUNT; id++)
        if (qtype_info(id) != NULL && qtype_info(id)->can_decode && (qtype_info(id)->is_quantized || id == 1))
            assert_true(seen[id]);
}

/* Text after the next `key` at or behind `p`; NULL when there is none. */
static const char *after(const char *p, const char *key)
{
    p = p != NULL ? strstr(p, key) : NULL;
    return p != NULL ? p + strlen(key) : NULL;
}

/* The wider golden set: 24 x 1024 encoded weights, plain and with importance, and the hash of their floats.
 */
static void wider_golden_blocks_decode_to_the_reference_floats(void **state)
{
    (void)state;
    size_t n;
    char *manifest = hex_read_file(KERF_SHARED "/data/golden/blocks/manifest.json", &n);
    if (manifest == NULL)
        skip();
    float *x = malloc(24 * 1024 * sizeof *x);
    assert_non_null(x);
    int n_checked = 0;
    static const char *const variants[2] = {"plain", "imatrix"};
    for (uint32_t id = 0; id < QTYPE_COUNT; id++) {
        for (int v = 0; v < 2; v++) {
            char path[4200], key[64], got[65];
            snprintf(key, sizeof key, "\"%s.%s.bin\"", qtype_name(id), variants[v]);
            const char *hash = after(after(manifest, key), "\"dequantized_sha256\": \"");
            if (hash == NULL)
                continue;
            snprintf(path, sizeof path, KERF_SHARED "/data/golden/blocks/%s.%s.bin", qtype_name(id),
                     variants[v]);
            char *blocks = hex_read_file(path, &n);
            assert_non_null(blocks);
            struct err e = {0};
            if (quant_validate((enum qtype)id, blocks, n, NULL, &e) != 0 ||
                quant_decode_rows(&reference_decoders, (enum qtype)id, blocks, n, x, 24, 1024, &e) != 0)
                fail_msg("%s", e.msg);
            hex_hash_floats(x, 24 * 1024, got);
            if (memcmp(got, hash, 64) != 0)
                fail_msg("%s: hash of the decoded floats is %s", path, got);
            free(blocks);
            n_checked++;
        }
    }
    free(x);
    free(manifest);
    assert_true(n_checked >= 30);
}

static void integers_and_doubles_become_the_nearest_float(void **state)
{
    (void)state;
    float x[3];
    struct err e = {0};
    const int8_t i8[3] = {-128, 0, 127};
    assert_int_equal(quant_decode_rows(&reference_decoders, QTYPE_I8, i8, 3, x, 1, 3, &e), 0);
    assert_true(x[0] == -128.0f && x[1] == 0.0f && x[2] == 127.0f);
    const int16_t i16[3] = {-32768, -1, 32767};
    assert_int_equal(quant_decode_rows(&reference_decoders, QTYPE_I16, i16, 6, x, 1, 3, &e), 0);
    assert_true(x[0] == -32768.0f && x[1] == -1.0f && x[2] == 32767.0f);
    const int32_t i32[3] = {INT32_MIN, 16777217, INT32_MAX};
    assert_int_equal(quant_decode_rows(&reference_decoders, QTYPE_I32, i32, 12, x, 3, 1, &e), 0);
    assert_true(x[0] == -0x1p31f && x[1] == 16777216.0f && x[2] == 0x1p31f);
    const int64_t i64[3] = {INT64_MIN, -3, INT64_MAX};
    assert_int_equal(quant_decode_rows(&reference_decoders, QTYPE_I64, i64, 24, x, 1, 3, &e), 0);
    assert_true(x[0] == -0x1p63f && x[1] == -3.0f && x[2] == 0x1p63f);
    const double f64[3] = {1e300, 0.1, -0.0};
    assert_int_equal(quant_decode_rows(&reference_decoders, QTYPE_F64, f64, 24, x, 1, 3, &e), 0);
    assert_true(isinf(x[0]) && x[1] == 0.1f && x[2] == 0.0f && signbit(x[2]));
}

/* Whatever the bytes and wherever they lie, decoding writes its floats and nothing else; and blocks that
 * pass quant_validate decode to finite values for scales of ordinary size. */
static void random_bytes_at_odd_addresses_decode_in_bounds(void **state)
{
    (void)state;
    struct rng r = {7};
    for (uint32_t id = 0; id < QTYPE_COUNT; id++) {
        const struct qtype_info *info = qtype_info(id);
        if (info == NULL || !info->can_decode)
            continue;
        const size_t n_blocks = 64, n_elems = n_blocks * info->block_elems,
                     n_bytes = n_blocks * info->block_bytes;
        /* exact allocations, so that the sanitizer sees a step too far; the block address is odd */
        uint8_t *bytes = malloc(n_bytes + 1);
        float *x = malloc(n_elems * sizeof *x);
        assert_non_null(bytes);
        assert_non_null(x);
        for (int round = 0; round < 8; round++) {
            for (size_t i = 0; i < n_bytes; i++)
                bytes[i + 1] = (uint8_t)rng_u64(&r);
            size_t bad = SIZE_MAX;
            const int rc = quant_validate((enum qtype)id, bytes + 1, n_bytes, &bad, NULL);
            assert_true(rc == 0 || (rc == ERR_FORMAT && bad < n_bytes && bad % info->block_bytes == 0));
            assert_int_equal(quant_decode_rows(&reference_decoders, (enum qtype)id, bytes + 1, n_bytes, x,
                                               n_blocks, info->block_elems, NULL),
                             0);
            /* each product of a binary16 with the codes stays far below the largest float32; the exponents
             * 253 and 254 of mxfp4 do not, and are allowed in files */
            if (rc == 0 && id != QTYPE_MXFP4)
                assert_int_equal(quant_find_bad(x, n_elems, FLT_MAX), n_elems);
        }
        free(x);
        free(bytes);
    }
}

static void decoding_refuses_what_does_not_fit(void **state)
{
    (void)state;
    uint8_t b[144] = {0};
    float x[256];
    struct err e = {0};
    const struct kern *k = &reference_decoders;
    assert_int_equal(quant_decode_rows(k, QTYPE_Q4_K, b, 144, x, 1, 256, &e), 0);
    assert_int_equal(quant_decode_rows(k, QTYPE_Q4_K, b, 143, x, 1, 256, &e), ERR_ARG);
    assert_non_null(strstr(e.msg, "143"));
    assert_int_equal(quant_decode_rows(k, QTYPE_Q4_K, b, 144, x, 1, 255, &e), ERR_ARG);
    assert_int_equal(quant_decode_rows(k, QTYPE_Q4_K, b, 144, x, 2, 256, &e), ERR_ARG);
    assert_int_equal(quant_decode_rows(k, QTYPE_Q4_K, b, 0, x, SIZE_MAX / 2, SIZE_MAX / 512 * 256, &e),
                     ERR_ARG);
    assert_int_equal(quant_decode_rows(k, QTYPE_Q8_K, b, 0, x, 0, 256, &e), ERR_UNSUPPORTED);
    assert_int_equal(quant_decode_rows(k, (enum qtype)4, b, 0, x, 0, 256, &e), ERR_ARG);
    assert_int_equal(quant_decode_rows(k, (enum qtype)1000000, b, 0, x, 0, 256, &e), ERR_ARG);
    assert_int_equal(quant_decode_rows(k, QTYPE_Q4_K, NULL, 0, NULL, 0, 256, &e), 0);
}

/* Where each type keeps its binary16 scales, by the specification and not by our structs. */
static const struct {
    enum qtype type;
    int n, at[2];
} scale_places[] = {
    {QTYPE_F16, 1, {0}},     {QTYPE_Q4_0, 1, {0}},    {QTYPE_Q4_1, 2, {0, 2}},   {QTYPE_Q5_0, 1, {0}},
    {QTYPE_Q5_1, 2, {0, 2}}, {QTYPE_Q8_0, 1, {0}},    {QTYPE_Q2_K, 2, {80, 82}}, {QTYPE_Q3_K, 1, {108}},
    {QTYPE_Q4_K, 2, {0, 2}}, {QTYPE_Q5_K, 2, {0, 2}}, {QTYPE_Q6_K, 1, {208}},    {QTYPE_IQ2_XXS, 1, {0}},
    {QTYPE_IQ2_XS, 1, {0}},  {QTYPE_IQ2_S, 1, {0}},   {QTYPE_IQ3_XXS, 1, {0}},   {QTYPE_IQ3_S, 1, {0}},
    {QTYPE_IQ1_S, 1, {0}},   {QTYPE_IQ4_NL, 1, {0}},  {QTYPE_IQ4_XS, 1, {0}},    {QTYPE_TQ1_0, 1, {52}},
    {QTYPE_TQ2_0, 1, {64}},  {QTYPE_Q1_0, 1, {0}},    {QTYPE_Q2_0, 1, {0}},
};

static void expect_bad(enum qtype type, const uint8_t *blocks, size_t n_bytes, size_t where)
{
    struct err e = {0};
    size_t bad = SIZE_MAX;
    assert_int_equal(quant_validate(type, blocks, n_bytes, &bad, &e), ERR_FORMAT);
    assert_int_equal(bad, where);
    assert_non_null(strstr(e.msg, qtype_name(type)));
}

static void validation_finds_each_bad_scale_field(void **state)
{
    (void)state;
    uint8_t blocks[3 * 292];
    for (size_t t = 0; t < sizeof scale_places / sizeof *scale_places; t++) {
        const enum qtype type = scale_places[t].type;
        const size_t size = qtype_info(type)->block_bytes;
        for (int f = 0; f < scale_places[t].n; f++) {
            memset(blocks, 0, sizeof blocks);
            assert_int_equal(quant_validate(type, blocks, 3 * size, NULL, NULL), 0);
            uint8_t *high = blocks + 2 * size + scale_places[t].at[f] + 1;
            *high = 0x7b; /* the largest finite exponent */
            assert_int_equal(quant_validate(type, blocks, 3 * size, NULL, NULL), 0);
            *high = 0x7c; /* +Inf */
            expect_bad(type, blocks, 3 * size, 2 * size);
            *high = 0xfe; /* NaN */
            expect_bad(type, blocks, 3 * size, 2 * size);
        }
        /* everything else may hold any bits */
        memset(blocks, 0xff, size);
        for (int f = 0; f < scale_places[t].n; f++)
            blocks[scale_places[t].at[f] + 1] = 0;
        assert_int_equal(quant_validate(type, blocks, size, NULL, NULL), 0);
    }
}

static void validation_knows_the_types_with_other_rules(void **state)
{
    (void)state;
    uint8_t b[64];
    memset(b, 0xff, sizeof b);
    assert_int_equal(quant_validate(QTYPE_NVFP4, b, 36, NULL, NULL), 0);
    assert_int_equal(quant_validate(QTYPE_I32, b, 64, NULL, NULL), 0);
    expect_bad(QTYPE_F32, b, 8, 0);
    expect_bad(QTYPE_BF16, b, 8, 0);
    expect_bad(QTYPE_MXFP4, b, 17, 0);
    b[0] = 254;
    assert_int_equal(quant_validate(QTYPE_MXFP4, b, 17, NULL, NULL), 0);
    const double big[2] = {1.0, 1e39};
    expect_bad(QTYPE_F64, (const uint8_t *)big, 16, 8);
    /* the scale of iq1_m is in the top nibbles of its last four 16-bit words */
    memset(b, 0xff, sizeof b);
    expect_bad(QTYPE_IQ1_M, b, 56, 0);
    b[55] = 0x0f; /* clears the sign and the upper exponent bits */
    assert_int_equal(quant_validate(QTYPE_IQ1_M, b, 56, NULL, NULL), 0);
    struct err e = {0};
    assert_int_equal(quant_validate(QTYPE_Q4_0, b, 17, NULL, &e), ERR_ARG);
    assert_int_equal(quant_validate((enum qtype)5, b, 0, NULL, &e), ERR_ARG);
}

static void bad_values_are_found_by_their_place(void **state)
{
    (void)state;
    float x[5] = {1, -65504, 65505, INFINITY, NAN};
    assert_int_equal(quant_find_bad(x, 2, quant_limit(QTYPE_F16)), 2);
    assert_int_equal(quant_find_bad(x, 5, quant_limit(QTYPE_F16)), 2);
    assert_int_equal(quant_find_bad(x, 5, quant_limit(QTYPE_Q4_K)), 3);
    assert_int_equal(quant_find_bad(x + 4, 1, FLT_MAX), 0);
    assert_int_equal(quant_find_bad(NULL, 0, FLT_MAX), 0);
}

/* Long rows are looked at by the block of 64; a mutation that ignores signs or NaN there is caught here. */
static void bad_values_are_found_at_every_place_of_a_long_row(void **state)
{
    (void)state;
    const float bad[] = {INFINITY, -INFINITY, NAN, -NAN, 65505, -65505};
    float x[200];
    for (size_t i = 0; i < 200; i++)
        x[i] = i % 3 == 0 ? -65504.0f : i % 3 == 1 ? 0x1p-149f : -0.0f;
    for (size_t i = 0; i < 200; i++)
        for (size_t k = 0; k < 6; k++) {
            const float good = x[i];
            x[i] = bad[k];
            assert_int_equal(quant_find_bad(x, 200, quant_limit(QTYPE_F16)), i);
            assert_int_equal(quant_find_bad(x, 200, quant_limit(QTYPE_Q4_K)), k < 4 ? i : 200);
            x[i] = good;
        }
    assert_int_equal(quant_find_bad(x, 200, quant_limit(QTYPE_F16)), 200);
}

static void code_books_are_the_published_ones(void **state)
{
    (void)state;
    static const struct {
        const void *data;
        size_t n_bytes;
        const char *hash;
    } grids[] = {
        {iq2xxs_grid, sizeof iq2xxs_grid, "05826b5d3e472a3a78f196be62ac78acf81df0f909626e12ab9fa2a5d490dd54"},
        {iq2xs_grid, sizeof iq2xs_grid, "06e47aaca60b4dc1d9b5a3f34540437058a6b142b4d7a59d5ded769b4d1bf1de"},
        {iq2s_grid, sizeof iq2s_grid, "e1aa1473412b0552c2174c30ef22ab4073f6a181b85a17056e8249bd2932fd88"},
        {iq3xxs_grid, sizeof iq3xxs_grid, "46e35f5a997efdee6c99ce57854c8a0d4f0ff8ca57e5e8a60c0793ea580acf5d"},
        {iq3s_grid, sizeof iq3s_grid, "bd1af4945a1717c65610b0284e4628b9a1ba3b306fae3a06f6e5f597356e349f"},
        {iq1s_grid, sizeof iq1s_grid, "07540ffc1aeaf6ad4d97e96b0fcc765aae39671d4ae4a27bbd0e796fde167c6a"},
    };
    for (size_t i = 0; i < sizeof grids / sizeof *grids; i++) {
        struct sha256 s;
        uint8_t digest[32];
        char got[65];
        sha256_init(&s);
        sha256_update(&s, grids[i].data, grids[i].n_bytes);
        sha256_final(&s, digest);
        sha256_hex(digest, got);
        assert_string_equal(got, grids[i].hash);
    }
    for (unsigned s = 0; s < 128; s++)
        assert_int_equal(__builtin_popcount(sign8(s)) % 2, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_decodable_type_has_a_decoder),
        cmocka_unit_test(golden_blocks_of_every_type_decode_to_the_reference_floats),
        cmocka_unit_test(wider_golden_blocks_decode_to_the_reference_floats),
        cmocka_unit_test(integers_and_doubles_become_the_nearest_float),
        cmocka_unit_test(random_bytes_at_odd_addresses_decode_in_bounds),
        cmocka_unit_test(decoding_refuses_what_does_not_fit),
        cmocka_unit_test(validation_finds_each_bad_scale_field),
        cmocka_unit_test(validation_knows_the_types_with_other_rules),
        cmocka_unit_test(bad_values_are_found_by_their_place),
        cmocka_unit_test(bad_values_are_found_at_every_place_of_a_long_row),
        cmocka_unit_test(code_books_are_the_published_ones),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
