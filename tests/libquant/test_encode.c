/* test_encode.c - the reference encoders against blocks made by the reference implementation, bit for bit.
 *
 * Two sources: hashes committed in tests/golden/encode.txt (rows drawn again from their seed), and whole
 * blocks of the wider golden data where that is at hand. */
#include "libquant/base/filemap.h"
#include "libquant/base/rng.h"
#include "libquant/base/sha256.h"
#include "libquant/quant.h"

#include "hard_rows.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { GOLDEN_COLS = 1280 };

static const struct kern *ref(void)
{
    return kern_by_name("ref");
}

/* The first 8 bytes of the hash of the row's blocks, as in the golden file. */
static void hash_row(char out[17], enum qtype type, const float *x, const float *w)
{
    uint8_t blocks[GOLDEN_COLS * 4], digest[32];
    uint64_t n_bytes;
    assert_true(qtype_row_bytes((uint32_t)type, GOLDEN_COLS, &n_bytes));
    struct err e;
    assert_int_equal(quant_encode_rows(ref(), type, x, blocks, (size_t)n_bytes, 1, GOLDEN_COLS, w, &e), 0);
    struct sha256 s;
    sha256_init(&s);
    sha256_update(&s, blocks, (size_t)n_bytes);
    sha256_final(&s, digest);
    char hex[65];
    sha256_hex(digest, hex);
    memcpy(out, hex, 16);
    out[16] = 0;
}

static void blocks_equal_those_of_the_reference_implementation(void **state)
{
    (void)state;
    FILE *f = fopen(KERF_TEST_GOLDEN "/encode.txt", "r");
    assert_non_null(f);
    char line[1024], name[16], importance[16];
    size_t n_checked = 0, n_wrong = 0;
    while (fgets(line, sizeof line, f)) {
        int used;
        if (line[0] == '#' || sscanf(line, "%15s %15s%n", name, importance, &used) != 2)
            continue;
        enum qtype type;
        assert_true(qtype_from_name(name, &type));
        float x[GOLDEN_COLS], w[GOLDEN_COLS];
        const bool weighted = importance[0] != '-';
        if (weighted)
            hard_importance(w, GOLDEN_COLS, (unsigned)atoi(importance), 1);
        for (unsigned kind = 0; kind < N_TAME_ROWS; kind++) {
            char expected[17], found[17];
            int step;
            assert_int_equal(sscanf(line + used, "%16s%n", expected, &step), 1);
            used += step;
            hard_row(x, GOLDEN_COLS, kind, 1);
            hash_row(found, type, x, weighted ? w : NULL);
            n_checked++;
            if (strcmp(found, expected) != 0) {
                n_wrong++;
                print_error("%s, row '%s', importance %s: %s, expected %s\n", name, hard_row_name(kind),
                            weighted ? hard_importance_name((unsigned)atoi(importance)) : "none", found,
                            expected);
            }
        }
    }
    fclose(f);
    assert_int_equal(n_wrong, 0);
    /* 15 types with and without importance, 3 that need it, 1 that has no use for it */
    assert_int_equal(n_checked, (15 * (1 + N_HARD_IMPORTANCE) + 3 * N_HARD_IMPORTANCE + 1) * N_TAME_ROWS);
}

/* Mutation: `x / step` as `x * (1 / step)` in round_signed (encode_parts.h), by which Q3_K and Q6_K round
 * their codes. One weight in millions gets another code; each of these rows, found by search, holds one. The
 * hashes are of ggml_quantize_chunk's blocks, as in tests/golden/encode.txt. */
static void codes_are_quotients(void **state)
{
    (void)state;
    static const struct {
        enum qtype type;
        uint64_t seed;
        const char *hash;
    } rows[] = {{QTYPE_Q3_K, 328873, "00c5a3bfd2a57b5e"}, {QTYPE_Q3_K, 378553, "2658cc19b66c7c33"},
                {QTYPE_Q3_K, 404306, "6a4ccafe913b22b2"}, {QTYPE_Q6_K, 7060, "a9be7d8d963c6669"},
                {QTYPE_Q6_K, 25043, "a272a1888fb8428a"},  {QTYPE_Q6_K, 29784, "2dc398cf7319feba"}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        for (const char *const *isa = kern_names(); *isa; isa++) {
            float x[256];
            uint8_t block[256];
            uint64_t n = 0;
            char hex[65];
            struct rng r = {rows[i].seed};
            for (size_t k = 0; k < 256; k++)
                x[k] = (float)((int32_t)(rng_u64(&r) >> 40) - (1 << 23)) * 0x1p-26f;
            assert_true(qtype_row_bytes((uint32_t)rows[i].type, 256, &n));
            assert_int_equal(
                quant_encode_rows(kern_by_name(*isa), rows[i].type, x, block, (size_t)n, 1, 256, NULL, NULL),
                0);
            sha256_hex_of(block, (size_t)n, hex);
            hex[16] = 0;
            assert_string_equal(hex, rows[i].hash);
        }
}

/* --- the wider golden data: 24 rows of 1024
 * ----------------------------------------------------------------- */

static const char golden_folder[] = KERF_SHARED "/data/golden/blocks";

static int map_golden(struct filemap *m, const char *name, const char *suffix)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s%s", golden_folder, name, suffix);
    struct err e;
    return access(path, R_OK) == 0 ? filemap_open(m, path, &e) : -1;
}

static void whole_rows_equal_the_wider_golden_blocks(void **state)
{
    (void)state;
    struct filemap input = {0}, importance = {0};
    if (map_golden(&input, "input", ".f32") != 0 || map_golden(&importance, "imatrix", ".f32") != 0)
        skip();
    size_t n_compared = 0;
    for (uint32_t type = 0; type < QTYPE_COUNT; type++) {
        const struct qtype_info *info = qtype_info(type);
        if (info == NULL || !info->can_encode)
            continue;
        for (int weighted = 0; weighted < 2; weighted++) {
            struct filemap blocks = {0};
            if (map_golden(&blocks, info->name, weighted ? ".imatrix.bin" : ".plain.bin") != 0)
                continue;
            uint8_t *out = malloc(blocks.size);
            assert_non_null(out);
            struct err e;
            assert_int_equal(quant_encode_rows(ref(), (enum qtype)type, (const float *)input.data, out,
                                               blocks.size, 24, 1024,
                                               weighted ? (const float *)importance.data : NULL, &e),
                             0);
            if (memcmp(out, blocks.data, blocks.size) != 0)
                fail_msg("%s, %s: blocks differ", info->name, weighted ? "importance" : "plain");
            n_compared++;
            free(out);
            filemap_close(&blocks);
        }
    }
    print_message("%zu golden files compared\n", n_compared);
    assert_true(n_compared >= 23);
    filemap_close(&input);
    filemap_close(&importance);
}

/* --- arguments
 * ----------------------------------------------------------------------------------------------- */

static void wrong_arguments_are_named(void **state)
{
    (void)state;
    float x[512] = {0};
    uint8_t out[4096];
    struct err e = {0};
    assert_int_equal(quant_encode_rows(ref(), QTYPE_Q4_K, x, out, 144, 1, 255, NULL, &e), ERR_ARG);
    assert_non_null(strstr(e.msg, "multiple of the block of 256"));
    assert_int_equal(quant_encode_rows(ref(), QTYPE_Q4_K, x, out, 145, 1, 256, NULL, &e), ERR_ARG);
    assert_non_null(strstr(e.msg, "145 bytes"));
    assert_int_equal(quant_encode_rows(ref(), (enum qtype)5, x, out, 144, 1, 256, NULL, &e), ERR_ARG);
    assert_int_equal(quant_encode_rows(ref(), QTYPE_I32, x, out, 1024, 1, 256, NULL, &e), ERR_UNSUPPORTED);
    assert_int_equal(quant_encode_rows(ref(), QTYPE_Q8_0, x, out, 0, SIZE_MAX / 2, 64, NULL, &e), ERR_ARG);
    assert_int_equal(quant_encode_rows(ref(), QTYPE_Q8_0, NULL, NULL, 0, 0, 64, NULL, &e), 0);
}

static void rows_do_not_see_each_other(void **state)
{
    (void)state;
    enum { COLS = 512, ROWS = 5 };
    static float x[ROWS * COLS], w[COLS];
    static uint8_t together[ROWS * COLS * 4], alone[COLS * 4];
    for (unsigned row = 0; row < ROWS; row++)
        hard_row(x + row * COLS, COLS, row == 1 ? 13 : row, 5);
    hard_importance(w, COLS, 0, 5);
    for (uint32_t type = 0; type < QTYPE_COUNT; type++) {
        const struct qtype_info *info = qtype_info(type);
        if (info == NULL || !info->can_encode)
            continue;
        uint64_t n;
        assert_true(qtype_row_bytes(type, COLS, &n));
        struct err e;
        assert_int_equal(quant_encode_rows(ref(), (enum qtype)type, x, together, n * ROWS, ROWS, COLS, w, &e),
                         0);
        for (size_t row = 0; row < ROWS; row++) {
            assert_int_equal(
                quant_encode_rows(ref(), (enum qtype)type, x + row * COLS, alone, n, 1, COLS, w, &e), 0);
            assert_memory_equal(alone, together + row * n, n);
        }
    }
}

static double relative_error(const float *x, const float *y, size_t n)
{
    double error = 0, square = 0;
    for (size_t i = 0; i < n; i++) {
        error += ((double)x[i] - (double)y[i]) * ((double)x[i] - (double)y[i]);
        square += (double)x[i] * (double)x[i];
    }
    return error / square;
}

/* A row of five blocks of 256: importance as usual, none at all in the third, none in columns 16 to 47 of the
 * fourth, and so little in the fifth that products vanish. */
static void blocks_without_importance_are_encoded_as_without(void **state)
{
    (void)state;
    float x[GOLDEN_COLS], w[GOLDEN_COLS], y[GOLDEN_COLS];
    hard_row(x, GOLDEN_COLS, 0, 1);
    for (size_t i = 0; i < GOLDEN_COLS; i++)
        w[i] = i / 256 == 2 || (i >= 768 + 16 && i < 768 + 48) ? 0 : i >= 1024 ? 1e-39f : (float)(1 + i % 7);
    size_t n_types = 0;
    for (uint32_t id = 0; id < QTYPE_COUNT; id++) {
        const struct qtype_info *info = qtype_info(id);
        if (!info || !info->can_encode || info->importance == IMPORTANCE_IGNORED)
            continue;
        uint8_t plain[GOLDEN_COLS * 4], with[GOLDEN_COLS * 4], informed[GOLDEN_COLS * 4];
        struct err e;
        size_t n_bytes = GOLDEN_COLS / info->block_elems * info->block_bytes, at = 512 / info->block_elems;
        size_t block = 256 / info->block_elems * info->block_bytes, dead = at * info->block_bytes;
        bool required = info->importance == IMPORTANCE_REQUIRED;
        float even[GOLDEN_COLS];
        for (size_t i = 0; i < GOLDEN_COLS; i++)
            even[i] = 1;
        assert_int_equal(quant_encode_rows(ref(), (enum qtype)id, x, plain, n_bytes, 1, GOLDEN_COLS,
                                           required ? even : NULL, &e),
                         0);
        assert_int_equal(quant_encode_rows(ref(), (enum qtype)id, x, with, n_bytes, 1, GOLDEN_COLS, w, &e),
                         0);
        assert_int_equal(
            quant_encode_informed(ref(), (enum qtype)id, x, informed, n_bytes, 1, GOLDEN_COLS, w, &e), 0);
        assert_memory_equal(informed, with, 2 * block);
        assert_memory_equal(informed + dead, plain + dead, block);
        assert_memory_equal(informed + 4 * block, plain + 4 * block, block);
        assert_int_equal(quant_decode_rows(ref(), (enum qtype)id, informed, n_bytes, y, 1, GOLDEN_COLS, &e),
                         0);
        for (size_t i = 512; i + 16 <= GOLDEN_COLS; i += 16)
            if (relative_error(x + i, y + i, 16) >
                (8.0 * info->block_bytes / info->block_elems < 2.5 ? 0.9 : 0.3))
                fail_msg("%s: columns %zu to %zu are lost", info->name, i, i + 15);
        assert_true(quant_n_unweighted_blocks((enum qtype)id, w, GOLDEN_COLS) >= 2);
        /* Nothing to do: the same bytes. */
        assert_int_equal(quant_n_unweighted_blocks((enum qtype)id, even, GOLDEN_COLS), 0);
        assert_int_equal(quant_encode_rows(ref(), (enum qtype)id, x, with, n_bytes, 1, GOLDEN_COLS, even, &e),
                         0);
        assert_int_equal(
            quant_encode_informed(ref(), (enum qtype)id, x, informed, n_bytes, 1, GOLDEN_COLS, even, &e), 0);
        assert_memory_equal(informed, with, n_bytes);
        n_types++;
    }
    assert_true(n_types >= 11);
}

/* Columns that are padding hold zeros and see zeros: nothing is made up for them, and the bytes are those of
 * the encoder itself (IQ1 has codes near zero, but no zero: weights would move the scale of the others). */
static void padding_needs_no_importance(void **state)
{
    (void)state;
    float x[GOLDEN_COLS], w[GOLDEN_COLS];
    hard_row(x, GOLDEN_COLS, 0, 1);
    for (size_t i = 0; i < GOLDEN_COLS; i++) {
        bool padding = i >= 768 + 64;
        x[i] = padding ? 0 : x[i];
        w[i] = padding ? 0 : (float)(1 + i % 7);
    }
    for (uint32_t id = 0; id < QTYPE_COUNT; id++) {
        const struct qtype_info *info = qtype_info(id);
        if (!info || !info->can_encode || info->importance == IMPORTANCE_IGNORED)
            continue;
        uint8_t with[GOLDEN_COLS * 4], informed[GOLDEN_COLS * 4];
        struct err e;
        size_t n_bytes = GOLDEN_COLS / info->block_elems * info->block_bytes;
        assert_true(quant_n_unweighted_blocks((enum qtype)id, w, GOLDEN_COLS) >= 1);
        assert_int_equal(quant_encode_rows(ref(), (enum qtype)id, x, with, n_bytes, 1, GOLDEN_COLS, w, &e),
                         0);
        assert_int_equal(
            quant_encode_informed(ref(), (enum qtype)id, x, informed, n_bytes, 1, GOLDEN_COLS, w, &e), 0);
        if (memcmp(informed, with, n_bytes) != 0)
            fail_msg("%s: other bytes", info->name);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(blocks_equal_those_of_the_reference_implementation),
        cmocka_unit_test(codes_are_quotients),
        cmocka_unit_test(whole_rows_equal_the_wider_golden_blocks),
        cmocka_unit_test(wrong_arguments_are_named),
        cmocka_unit_test(rows_do_not_see_each_other),
        cmocka_unit_test(blocks_without_importance_are_encoded_as_without),
        cmocka_unit_test(padding_needs_no_importance),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
