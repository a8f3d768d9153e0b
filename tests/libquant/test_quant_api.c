/* test_quant_api.c - the public face of the coders, through the shared library itself: the same bytes as
 * inside, and refusals that leave outputs alone. */
#include <kerf/quant.h>

#include "libquant/quant.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

enum { N_ROWS = 3, N_COLS = 512, N = N_ROWS * N_COLS };

static float weights[N], importance[N_COLS];

static int fill(void **state)
{
    (void)state;
    for (int i = 0; i < N; i++)
        weights[i] = 0.05f * sinf(0.7f * (float)i) * (1 + (float)(i % 11));
    for (int i = 0; i < N_COLS; i++)
        importance[i] = 0.1f + (float)(i % 7);
    return 0;
}

static void types_have_names_and_sizes(void **state)
{
    (void)state;
    enum kerf_type type;
    uint64_t n = 7;
    struct kerf_error e;
    assert_true(kerf_type_find(&type, "q4_k"));
    assert_int_equal(type, KERF_TYPE_Q4_K);
    assert_string_equal(kerf_type_name(type), "Q4_K");
    assert_int_equal(kerf_type_block_weights(type), 256);
    assert_int_equal(kerf_type_block_bytes(type), 144);
    assert_int_equal(kerf_row_bytes(&n, type, 512, &e), 0);
    assert_int_equal(n, 288);
    assert_int_equal(kerf_row_bytes(&n, type, 500, &e), KERF_ERROR_ARGUMENT);
    assert_non_null(strstr(e.message, "500"));
    assert_int_equal(n, 288);
    assert_int_equal(kerf_row_bytes(&n, (enum kerf_type)4, 512, NULL), KERF_ERROR_ARGUMENT);
    /* never in files: no types out here */
    assert_false(kerf_type_find(&type, "Q8_K"));
    assert_false(kerf_type_find(&type, ""));
    assert_string_equal(kerf_type_name((enum kerf_type)15), "?");
    assert_int_equal(kerf_type_block_bytes((enum kerf_type)1000), 0);
    assert_true(kerf_type_needs_importance(KERF_TYPE_IQ2_XXS));
    assert_false(kerf_type_needs_importance(KERF_TYPE_Q4_K));
    assert_true(kerf_type_can_dequantize(KERF_TYPE_IQ2_XXS));
    assert_false(kerf_type_can_quantize(KERF_TYPE_I8));
}

/* Every type that is written, on every level: blocks and weights of the rooms, bit for bit. */
static void bytes_are_those_of_the_coders(void **state)
{
    (void)state;
    static uint8_t ours[N * 8], theirs[N * 8];
    static float a[N], b[N];
    int n_types = 0;
    for (uint32_t id = 0; id < QTYPE_COUNT; id++) {
        enum kerf_type type = (enum kerf_type)id;
        uint64_t row;
        if (!kerf_type_can_quantize(type))
            continue;
        n_types++;
        assert_int_equal(kerf_row_bytes(&row, type, N_COLS, NULL), 0);
        size_t n = N_ROWS * (size_t)row;
        const float *w = kerf_type_needs_importance(type) || id % 2 ? importance : NULL;
        assert_int_equal(quant_encode_rows(kern_by_name("ref"), (enum qtype)id, weights, theirs, n, N_ROWS,
                                           N_COLS, w, NULL),
                         0);
        assert_int_equal(
            quant_decode_rows(kern_by_name("ref"), (enum qtype)id, theirs, n, b, N_ROWS, N_COLS, NULL), 0);
        for (const char *const *isa = kerf_isa_names(); *isa; isa++) {
            memset(ours, 0xaa, sizeof ours);
            assert_int_equal(
                kerf_quantize_rows(kerf_isa_find(*isa), type, weights, ours, n, N_ROWS, N_COLS, w, NULL), 0);
            assert_memory_equal(ours, theirs, n);
            assert_int_equal(ours[n], 0xaa);
            assert_int_equal(
                kerf_dequantize_rows(kerf_isa_find(*isa), type, ours, n, a, N_ROWS, N_COLS, NULL), 0);
            assert_memory_equal(a, b, sizeof a);
        }
        assert_int_equal(kerf_validate_blocks(type, ours, n, NULL, NULL), 0);
    }
    assert_true(n_types >= 20);
    assert_null(kerf_isa_find("mmx"));
    assert_non_null(kerf_isa_find("native"));
}

static int quantize(enum kerf_type type, const float *src, uint8_t *dst, size_t n, const float *w,
                    struct kerf_error *e)
{
    return kerf_quantize_rows(NULL, type, src, dst, n, N_ROWS, N_COLS, w, e);
}

static void bad_values_are_refused_with_their_place(void **state)
{
    (void)state;
    static float x[N], w[N_COLS];
    static uint8_t dst[N * 4], untouched[N * 4];
    struct kerf_error e;
    memcpy(x, weights, sizeof x);
    memcpy(w, importance, sizeof w);
    memset(dst, 0x55, sizeof dst);
    memset(untouched, 0x55, sizeof untouched);

    x[N_COLS + 9] = NAN;
    assert_int_equal(quantize(KERF_TYPE_Q4_K, x, dst, N_ROWS * 288, NULL, &e), KERF_ERROR_ARGUMENT);
    assert_int_equal(e.code, KERF_ERROR_ARGUMENT);
    assert_non_null(strstr(e.message, "weight 9 of row 1"));
    x[N_COLS + 9] = 65536;
    assert_int_equal(quantize(KERF_TYPE_F16, x, dst, N * 2, NULL, &e), KERF_ERROR_ARGUMENT);
    assert_non_null(strstr(e.message, "65504"));
    w[3] = -1;
    assert_int_equal(quantize(KERF_TYPE_Q4_K, weights, dst, N_ROWS * 288, w, &e), KERF_ERROR_ARGUMENT);
    assert_non_null(strstr(e.message, "column 3"));
    w[3] = INFINITY;
    assert_int_equal(quantize(KERF_TYPE_Q4_K, weights, dst, N_ROWS * 288, w, NULL), KERF_ERROR_ARGUMENT);
    assert_memory_equal(dst, untouched, sizeof dst);
}

static void lengths_and_types_are_checked_first(void **state)
{
    (void)state;
    uint8_t dst[4] = {0};
    float y[4];
    struct kerf_error e;
    /* no weight may be read here: there is none */
    assert_int_equal(quantize(KERF_TYPE_Q4_K, NULL, dst, sizeof dst, NULL, &e), KERF_ERROR_ARGUMENT);
    assert_int_equal(quantize((enum kerf_type)15, NULL, dst, sizeof dst, NULL, &e), KERF_ERROR_ARGUMENT);
    assert_int_equal(quantize(KERF_TYPE_I8, NULL, dst, N, NULL, &e), KERF_ERROR_UNSUPPORTED);
    assert_int_equal(kerf_dequantize_rows(NULL, KERF_TYPE_Q4_K, dst, 3, y, 1, 256, &e), KERF_ERROR_ARGUMENT);
    assert_int_equal(kerf_dequantize_rows(NULL, (enum kerf_type)99, dst, 4, y, 1, 4, &e),
                     KERF_ERROR_ARGUMENT);
    assert_int_equal(kerf_quantize_rows(NULL, KERF_TYPE_Q4_K, NULL, NULL, 0, 0, 256, NULL, &e), 0);
}

static void a_bad_block_is_found(void **state)
{
    (void)state;
    static uint8_t blocks[N_ROWS * 288];
    struct kerf_error e;
    size_t at = 0;
    assert_int_equal(quantize(KERF_TYPE_Q4_K, weights, blocks, sizeof blocks, NULL, &e), 0);
    blocks[144 + 1] = 0x7c; /* the scale of the second block becomes infinite, or NaN */
    blocks[144] = 0;
    assert_int_equal(kerf_validate_blocks(KERF_TYPE_Q4_K, blocks, sizeof blocks, &at, &e), KERF_ERROR_FORMAT);
    assert_int_equal(at, 144);
    assert_int_equal(kerf_validate_blocks(KERF_TYPE_Q4_K, blocks, 5, &at, &e), KERF_ERROR_ARGUMENT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(types_have_names_and_sizes),
        cmocka_unit_test(bytes_are_those_of_the_coders),
        cmocka_unit_test(bad_values_are_refused_with_their_place),
        cmocka_unit_test(lengths_and_types_are_checked_first),
        cmocka_unit_test(a_bad_block_is_found),
    };
    return cmocka_run_group_tests(tests, fill, NULL);
}
