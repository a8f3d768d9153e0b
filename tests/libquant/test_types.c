/* test_types.c - the type table against the numbers of the file format, and the small float conversions
 * against their definitions. */
#include "libquant/half.h"
#include "libquant/types.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

/* Copied from the table of the specification, quantization 2, not from our structs. */
static const struct {
    uint32_t id;
    const char *name;
    uint32_t elems, bytes;
} format[] = {
    {0, "F32", 1, 4},         {1, "F16", 1, 2},         {2, "Q4_0", 32, 18},      {3, "Q4_1", 32, 20},
    {6, "Q5_0", 32, 22},      {7, "Q5_1", 32, 24},      {8, "Q8_0", 32, 34},      {9, "Q8_1", 32, 36},
    {10, "Q2_K", 256, 84},    {11, "Q3_K", 256, 110},   {12, "Q4_K", 256, 144},   {13, "Q5_K", 256, 176},
    {14, "Q6_K", 256, 210},   {15, "Q8_K", 256, 292},   {16, "IQ2_XXS", 256, 66}, {17, "IQ2_XS", 256, 74},
    {18, "IQ3_XXS", 256, 98}, {19, "IQ1_S", 256, 50},   {20, "IQ4_NL", 32, 18},   {21, "IQ3_S", 256, 110},
    {22, "IQ2_S", 256, 82},   {23, "IQ4_XS", 256, 136}, {24, "I8", 1, 1},         {25, "I16", 1, 2},
    {26, "I32", 1, 4},        {27, "I64", 1, 8},        {28, "F64", 1, 8},        {29, "IQ1_M", 256, 56},
    {30, "BF16", 1, 2},       {34, "TQ1_0", 256, 54},   {35, "TQ2_0", 256, 66},   {39, "MXFP4", 32, 17},
    {40, "NVFP4", 64, 36},    {41, "Q1_0", 128, 18},    {42, "Q2_0", 64, 18},
};

static void ids_names_and_sizes_are_those_of_the_format(void **state)
{
    (void)state;
    size_t known = 0;
    for (uint32_t id = 0; id < 2 * QTYPE_COUNT; id++)
        known += qtype_info(id) != NULL;
    assert_int_equal(known, sizeof format / sizeof *format);
    for (size_t i = 0; i < sizeof format / sizeof *format; i++) {
        const struct qtype_info *info = qtype_info(format[i].id);
        assert_non_null(info);
        assert_string_equal(info->name, format[i].name);
        assert_int_equal(info->block_elems, format[i].elems);
        assert_int_equal(info->block_bytes, format[i].bytes);
        enum qtype back;
        assert_true(qtype_from_name(info->name, &back));
        assert_int_equal(back, format[i].id);
        assert_int_equal(info->in_files, format[i].id != QTYPE_Q8_1 && format[i].id != QTYPE_Q8_K);
        if (info->can_encode)
            assert_true(info->can_decode);
    }
    assert_null(qtype_info(4));
    assert_null(qtype_info(UINT32_MAX));
    assert_string_equal(qtype_name(36), "?");
    enum qtype t = QTYPE_F32;
    assert_true(qtype_from_name("iq4_xs", &t));
    assert_int_equal(t, QTYPE_IQ4_XS);
    assert_false(qtype_from_name("Q4_K_M", &t));
    assert_false(qtype_from_name("", &t));
}

static void row_bytes_refuse_partial_blocks_and_overflow(void **state)
{
    (void)state;
    uint64_t n;
    assert_true(qtype_row_bytes(QTYPE_Q4_K, 4096, &n));
    assert_int_equal(n, 2304);
    assert_true(qtype_row_bytes(QTYPE_Q4_K, 0, &n));
    assert_int_equal(n, 0);
    assert_false(qtype_row_bytes(QTYPE_Q4_K, 4095, &n));
    assert_false(qtype_row_bytes(QTYPE_F64, UINT64_MAX / 4, &n));
    assert_false(qtype_row_bytes(5, 32, &n));
}

/* A binary16 number by its definition. */
static double f16_by_definition(uint16_t h)
{
    const int exponent = h >> 10 & 31, mantissa = h & 1023;
    double v = exponent == 0 ? ldexp(mantissa, -24) : ldexp(1024 + mantissa, exponent - 25);
    return h & 0x8000 ? -v : v;
}

static void binary16_converts_exactly_and_rounds_to_nearest_even(void **state)
{
    (void)state;
    for (uint32_t h = 0; h < 65536; h++) {
        const float v = f16_to_f32((uint16_t)h);
        if ((h & 0x7c00) == 0x7c00) {
            assert_true((h & 0x3ff) != 0 ? isnan(v) : isinf(v));
            assert_int_equal(f32_to_f16(v), (h & 0x3ff) != 0 ? (h & 0x8000) | 0x7e00 : h);
            continue;
        }
        assert_true((double)v == f16_by_definition((uint16_t)h));
        assert_int_equal(signbit(v) != 0, h >> 15);
        assert_int_equal(f32_to_f16(v), h);
        /* half way to the next code away from zero: to the even one; a bit beside it: to the nearer one */
        const float half_way =
            (float)((f16_by_definition((uint16_t)h) +
                     ((h & 0x7fff) == 0x7bff ? copysign(65536.0, v) : f16_by_definition((uint16_t)(h + 1)))) /
                    2);
        const uint32_t bits = f32_bits(half_way);
        assert_int_equal(f32_to_f16(half_way), h % 2 == 0 ? h : h + 1);
        assert_int_equal(f32_to_f16(f32_from_bits(bits - 1)), h);
        assert_int_equal(f32_to_f16(f32_from_bits(bits + 1)), h + 1);
    }
    assert_int_equal(f32_to_f16(65519.996f), 0x7bff);
    assert_int_equal(f32_to_f16(65520.0f), 0x7c00);
    assert_int_equal(f32_to_f16(-1e30f), 0xfc00);
    assert_int_equal(f32_to_f16(1e-30f), 0);
    assert_true(f16_round(1.0f / 3) == 0.333251953125f);
}

static void bfloat16_is_the_upper_half_rounded_to_nearest_even(void **state)
{
    (void)state;
    for (uint32_t h = 0; h < 65536; h++) {
        const float v = bf16_to_f32((uint16_t)h);
        assert_int_equal(f32_bits(v), h << 16);
        assert_int_equal(f32_to_bf16(v), isnan(v) ? h | 0x40 : h);
        if (isnan(v) || isinf(v))
            continue;
        assert_int_equal(f32_to_bf16(f32_from_bits(h << 16 | 0x8000)), h % 2 == 0 ? h : h + 1);
        assert_int_equal(f32_to_bf16(f32_from_bits(h << 16 | 0x7fff)), h);
        assert_int_equal(f32_to_bf16(f32_from_bits(h << 16 | 0x8001)), h + 1);
    }
}

/* Every code decodes by its definition and encodes back; between two codes the nearest wins, ties to even. */
static void check_fp8(float (*decode)(uint8_t), uint8_t (*encode)(float), int e_bits, int m_bits,
                      unsigned top)
{
    const int bias = (1 << (e_bits - 1)) - 1;
    for (unsigned sign = 0; sign < 256; sign += 128) {
        for (unsigned code = 0; code <= top; code++) {
            const unsigned exponent = code >> m_bits, mantissa = code & ((1u << m_bits) - 1);
            const double v = exponent == 0 ? ldexp(mantissa, 1 - bias - m_bits)
                                           : ldexp(mantissa + (1u << m_bits), (int)exponent - bias - m_bits);
            const float got = decode((uint8_t)(sign | code));
            assert_true(fabs((double)got) == v);
            assert_int_equal(signbit(got) != 0, sign != 0);
            assert_int_equal(encode(got), sign | code);
            if (code == top)
                continue;
            const float middle = (float)((v + fabs((double)decode((uint8_t)(code + 1)))) / 2);
            const float signed_middle = sign ? -middle : middle;
            assert_int_equal(encode(signed_middle), sign | (code % 2 == 0 ? code : code + 1));
            assert_int_equal(encode(nextafterf(signed_middle, 0)), sign | code);
            assert_int_equal(encode(nextafterf(signed_middle, 2 * signed_middle)), sign | (code + 1));
        }
        assert_int_equal(encode(sign ? -1e30f : 1e30f), sign | top);
    }
    assert_int_equal(encode(NAN), 0x7f);
}

static void fp8_formats_follow_the_ocp_definition(void **state)
{
    (void)state;
    check_fp8(f8_e4m3_to_f32, f32_to_f8_e4m3, 4, 3, 0x7e);
    check_fp8(f8_e5m2_to_f32, f32_to_f8_e5m2, 5, 2, 0x7b);
    assert_true(f8_e4m3_to_f32(0x7e) == 448.0f);
    assert_true(f8_e5m2_to_f32(0x7b) == 57344.0f);
    assert_true(isnan(f8_e4m3_to_f32(0x7f)) && isnan(f8_e4m3_to_f32(0xff)));
    assert_true(isinf(f8_e5m2_to_f32(0x7c)) && isnan(f8_e5m2_to_f32(0xfd)));
}

static void scale_bytes_follow_their_definition(void **state)
{
    (void)state;
    for (int e = 0; e < 255; e++) {
        assert_true((double)e8m0_to_f32((uint8_t)e) == ldexp(1, e - 127));
        assert_true((double)e8m0_half_to_f32((uint8_t)e) == ldexp(1, e - 128));
    }
    assert_true(isnan(e8m0_to_f32(255)));
    for (int b = 0; b < 0x7f; b++) {
        const float v = 2 * ue4m3_half_to_f32((uint8_t)b);
        assert_true(v == f8_e4m3_to_f32((uint8_t)b));
        assert_int_equal(f32_to_ue4m3(v),
                         b < 0x78 ? b : 0x7e); /* the reference has no codes from 256 to 416 */
    }
    assert_true(ue4m3_half_to_f32(0x7f) == 0.0f);
    assert_int_equal(f32_to_ue4m3(-1), 0);
    assert_int_equal(f32_to_ue4m3(NAN), 0);
    assert_int_equal(f32_to_ue4m3(1e9f), 0x7e);
    assert_int_equal(f32_to_ue4m3(1.0625f), 0x39); /* half way between 1 and 1.125: up */
    assert_int_equal(f32_to_ue4m3(1.9375f), 0x40); /* carries into the exponent */
    assert_int_equal(f32_to_ue4m3(0x1p-10f), 1);   /* half of the smallest step: up */
    assert_int_equal(f32_to_ue4m3(0x1.fp-7f), 7);  /* subnormals do not round into the normals */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ids_names_and_sizes_are_those_of_the_format),
        cmocka_unit_test(row_bytes_refuse_partial_blocks_and_overflow),
        cmocka_unit_test(binary16_converts_exactly_and_rounds_to_nearest_even),
        cmocka_unit_test(bfloat16_is_the_upper_half_rounded_to_nearest_even),
        cmocka_unit_test(fp8_formats_follow_the_ocp_definition),
        cmocka_unit_test(scale_bytes_follow_their_definition),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
