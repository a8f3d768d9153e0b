/* test_encode_simple.c - the encoders without a search (plain, ternary, fp4) against the bytes of the
 * reference implementation, and what they promise of their errors. */
#include "libquant/fp4.h"
#include "libquant/quant.h"
#include "libquant/ternary.h"

#include "libquant/base/rng.h"

#include "decoders.h"
#include "hex.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void check_line(const char *line, size_t len, const float row[256])
{
    char name[16];
    int start;
    enum qtype type;
    size_t n;
    uint8_t got[1024];
    assert_int_equal(sscanf(line, "%15s %n", name, &start), 1);
    assert_true(qtype_from_name(name, &type));
    uint8_t *expected = hex_bytes(line + start, len - (size_t)start, &n);
    assert_non_null(expected);
    assert_true(n <= sizeof got);
    memset(got, 0xaa, sizeof got);
    reference_decoders.encode[type](got, row, 256, NULL);
    if (memcmp(got, expected, n) != 0)
        fail_msg("%s: the blocks differ from the reference", name);
    free(expected);
}

static void golden_rows_encode_to_the_reference_bytes(void **state)
{
    (void)state;
    size_t n, n_lines = 0;
    char *text = hex_read_file(KERF_TEST_GOLDEN "/encode_simple.txt", &n);
    assert_non_null(text);
    float row[256] = {0};
    for (char *line = text; *line != 0;) {
        const size_t len = strcspn(line, "\n");
        if (strncmp(line, "row ", 4) == 0) {
            uint8_t *bytes = hex_bytes(line + 4, len - 4, &n);
            assert_non_null(bytes);
            assert_int_equal(n, sizeof row);
            memcpy(row, bytes, sizeof row);
            free(bytes);
        } else if (line[0] != '#') {
            check_line(line, len, row);
            n_lines++;
        }
        line += len + (line[len] == '\n');
    }
    free(text);
    assert_int_equal(n_lines, 80);
}

/* The wider golden set: 24 x 1024 weights and their blocks. */
static void wider_golden_rows_encode_to_the_reference_bytes(void **state)
{
    (void)state;
    static const enum qtype types[] = {QTYPE_F16, QTYPE_BF16, QTYPE_TQ1_0, QTYPE_TQ2_0, QTYPE_MXFP4};
    size_t n, n_blocks;
    char *input = hex_read_file(KERF_SHARED "/data/golden/blocks/input.f32", &n);
    if (input == NULL)
        skip();
    assert_int_equal(n, 24 * 1024 * sizeof(float));
    float *x = malloc(n);
    uint8_t *got = malloc(n);
    assert_non_null(x);
    assert_non_null(got);
    memcpy(x, input, n);
    for (size_t t = 0; t < sizeof types / sizeof *types; t++) {
        char path[4200];
        snprintf(path, sizeof path, KERF_SHARED "/data/golden/blocks/%s.plain.bin", qtype_name(types[t]));
        char *blocks = hex_read_file(path, &n_blocks);
        assert_non_null(blocks);
        reference_decoders.encode[types[t]](got, x, 24 * 1024, NULL);
        if (memcmp(got, blocks, n_blocks) != 0)
            fail_msg("%s: the blocks differ from the reference", path);
        free(blocks);
    }
    free(got);
    free(x);
    free(input);
}

/* What a format can hold exactly comes back exactly. */
static void representable_weights_survive(void **state)
{
    (void)state;
    static const enum qtype types[] = {QTYPE_TQ1_0, QTYPE_TQ2_0, QTYPE_Q2_0,
                                       QTYPE_Q1_0,  QTYPE_MXFP4, QTYPE_NVFP4};
    struct rng r = {3};
    for (size_t t = 0; t < sizeof types / sizeof *types; t++) {
        for (int round = 0; round < 50; round++) {
            float x[256], y[256];
            uint8_t blocks[512];
            for (int i = 0; i < 256; i++) {
                const int trit = (int)rng_below(&r, 3) - 1;
                const float level = (float)fp4_levels[rng_below(&r, 16)];
                if (types[t] == QTYPE_MXFP4 || types[t] == QTYPE_NVFP4)
                    x[i] = i % 16 == 0 ? 12.0f : level; /* the largest level is present, so the scale is 1 */
                else if (types[t] == QTYPE_Q1_0)
                    x[i] = trit < 0 ? -0.25f : 0.25f;
                else
                    x[i] = i % 64 == 0 ? 0.375f : 0.375f * (float)trit;
            }
            reference_decoders.encode[types[t]](blocks, x, 256, NULL);
            reference_decoders.decode[types[t]](y, blocks, 256);
            for (int i = 0; i < 256; i++)
                if (x[i] != y[i])
                    fail_msg("%s: %g came back as %g", qtype_name(types[t]), (double)x[i], (double)y[i]);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(golden_rows_encode_to_the_reference_bytes),
        cmocka_unit_test(wider_golden_rows_encode_to_the_reference_bytes),
        cmocka_unit_test(representable_weights_survive),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
