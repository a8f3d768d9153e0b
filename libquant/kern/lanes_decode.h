/* lanes_decode.h - decoders in two steps: unpack the codes of a block to bytes, then widen, scale and store
 * LANES weights at a time. Included once per instruction set, after its lanes_<isa>.h.
 *
 * Decoding has no sums, so nothing here could change a bit as long as each weight sees the operations of the
 * reference: its code as a float, one product, one difference. The unpacking loops work on bytes of local
 * arrays, which compilers vectorise well; the reference's loops mix bytes and floats, which they do not. */
#ifndef KERF_LANES_DECODE_H
#define KERF_LANES_DECODE_H

#include "../fp4.h"
#include "../half.h"
#include "../iquants.h"
#include "../kquants.h"
#include "../legacy.h"
#include "libquant/float_types.h"
#include "../ternary.h"

#include <stddef.h>
#include <string.h>

/* dst = scale * q, n a multiple of 16 */
static inline void put_scaled(float *dst, const int8_t *q, int n, float scale)
{
    for (int i = 0; i < n; i += LANES)
        lf_store(dst + i, lf_all(scale) * lf_from(li_load_i8(q + i)));
}

/* dst = scale * q - min */
static inline void put_offset(float *dst, const int8_t *q, int n, float scale, float min)
{
    for (int i = 0; i < n; i += LANES)
        lf_store(dst + i, lf_all(scale) * lf_from(li_load_i8(q + i)) - lf_all(min));
}

/* --- unpacking to bytes ------------------------------------------------------------------------------------
 */

static inline b16 b16_load(const void *p)
{
    b16 v;
    memcpy(&v, p, sizeof v);
    return v;
}

static inline void b16_store(int8_t *p, b16 v)
{
    memcpy(p, &v, sizeof v);
}

static inline void unpack_halves(int8_t codes[32], const uint8_t q[16], uint8_t zero)
{
    const b16 bytes = b16_load(q);
    b16_store(codes, (bytes & 15) - zero);
    b16_store(codes + 16, (bytes >> 4) - zero);
}

/* 16 bits as bytes of 0 or 16. */
static inline b16 fifth_bits(unsigned bits)
{
    const b16 mask = {1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128};
    const b16 which = {0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1};
    const b16 pair = {(uint8_t)bits, (uint8_t)(bits >> 8)};
    return (b16)((b16_lookup(pair, which) & mask) == mask) & 16;
}

static inline void unpack_five_bits(int8_t codes[32], const uint8_t q[16], uint32_t high, uint8_t zero)
{
    const b16 bytes = b16_load(q);
    b16_store(codes, (bytes & 15) + fifth_bits(high & 0xffff) - zero);
    b16_store(codes + 16, (bytes >> 4) + fifth_bits(high >> 16) - zero);
}

/* Four planes of 2 bits in each 32 bytes. */
static inline void unpack_two_bits(int8_t codes[256], const uint8_t q[64], int zero)
{
    for (int half = 0; half < 2; half++, q += 32, codes += 128) {
        for (int i = 0; i < 32; i++) {
            codes[i] = (int8_t)((q[i] & 3) - zero);
            codes[i + 32] = (int8_t)((q[i] >> 2 & 3) - zero);
            codes[i + 64] = (int8_t)((q[i] >> 4 & 3) - zero);
            codes[i + 96] = (int8_t)((q[i] >> 6) - zero);
        }
    }
}

/* Two planes of 4 bits in each 32 bytes. */
static inline void unpack_nibble_planes(int8_t codes[256], const uint8_t q[128])
{
    for (int pair = 0; pair < 4; pair++, q += 32, codes += 64) {
        for (int i = 0; i < 32; i++) {
            codes[i] = (int8_t)(q[i] & 15);
            codes[i + 32] = (int8_t)(q[i] >> 4);
        }
    }
}

/* Add `value` to code i where bit i/32 of byte i%32 is set. */
static inline void add_bit_planes(int8_t codes[256], const uint8_t high[32], int value)
{
    for (int plane = 0; plane < 8; plane++) {
        for (int i = 0; i < 32; i++)
            codes[32 * plane + i] = (int8_t)(codes[32 * plane + i] + (high[i] >> plane & 1) * value);
    }
}

/* --- 32-weight formats
 * --------------------------------------------------------------------------------------- */

static void lanes_q4_0_decode(float *dst, const void *src, size_t n_cols)
{
    const struct q4_0_block *b = src;
    for (size_t n = n_cols / 32; n > 0; n--, b++, dst += 32) {
        int8_t codes[32];
        unpack_halves(codes, b->q, 8);
        put_scaled(dst, codes, 32, f16_to_f32(b->d));
    }
}

/* Reference: q * d + m; subtracting the negated m is the same sum. */
static void lanes_q4_1_decode(float *dst, const void *src, size_t n_cols)
{
    const struct q4_1_block *b = src;
    for (size_t n = n_cols / 32; n > 0; n--, b++, dst += 32) {
        int8_t codes[32];
        unpack_halves(codes, b->q, 0);
        put_offset(dst, codes, 32, f16_to_f32(b->d), -f16_to_f32(b->m));
    }
}

static void lanes_q5_0_decode(float *dst, const void *src, size_t n_cols)
{
    const struct q5_0_block *b = src;
    for (size_t n = n_cols / 32; n > 0; n--, b++, dst += 32) {
        int8_t codes[32];
        unpack_five_bits(codes, b->q, b->high, 16);
        put_scaled(dst, codes, 32, f16_to_f32(b->d));
    }
}

static void lanes_q5_1_decode(float *dst, const void *src, size_t n_cols)
{
    const struct q5_1_block *b = src;
    for (size_t n = n_cols / 32; n > 0; n--, b++, dst += 32) {
        int8_t codes[32];
        unpack_five_bits(codes, b->q, b->high, 0);
        put_offset(dst, codes, 32, f16_to_f32(b->d), -f16_to_f32(b->m));
    }
}

static void lanes_q8_0_decode(float *dst, const void *src, size_t n_cols)
{
    const struct q8_0_block *b = src;
    for (size_t n = n_cols / 32; n > 0; n--, b++, dst += 32)
        put_scaled(dst, b->q, 32, f16_to_f32(b->d));
}

/* --- k-quants
 * ------------------------------------------------------------------------------------------------ */

static void lanes_q2_k_decode(float *dst, const void *src, size_t n_cols)
{
    const struct q2_k_block *b = src;
    for (size_t n = n_cols / 256; n > 0; n--, b++, dst += 256) {
        const float d = f16_to_f32(b->d), dmin = f16_to_f32(b->dmin);
        int8_t codes[256];
        unpack_two_bits(codes, b->q, 0);
        for (int j = 0; j < 16; j++)
            put_offset(dst + 16 * j, codes + 16 * j, 16, d * (float)(b->scales[j] & 15),
                       dmin * (float)(b->scales[j] >> 4));
    }
}

static void lanes_q3_k_decode(float *dst, const void *src, size_t n_cols)
{
    const struct q3_k_block *b = src;
    for (size_t n = n_cols / 256; n > 0; n--, b++, dst += 256) {
        const float d = f16_to_f32(b->d);
        int8_t codes[256];
        unpack_two_bits(codes, b->q, 4);
        add_bit_planes(codes, b->high, 4);
        for (unsigned j = 0; j < 16; j++)
            put_scaled(dst + 16 * j, codes + 16 * j, 16, d * (float)(q3_k_scale(b->scales, j) - 32));
    }
}

static inline void put_eight_groups(float *dst, const int8_t codes[256], const uint8_t scales[12], float d,
                                    float dmin)
{
    for (unsigned j = 0; j < 8; j++) {
        uint8_t s, m;
        k_scale_min(scales, j, &s, &m);
        put_offset(dst + 32 * j, codes + 32 * j, 32, d * (float)s, dmin * (float)m);
    }
}

static void lanes_q4_k_decode(float *dst, const void *src, size_t n_cols)
{
    const struct q4_k_block *b = src;
    for (size_t n = n_cols / 256; n > 0; n--, b++, dst += 256) {
        int8_t codes[256];
        unpack_nibble_planes(codes, b->q);
        put_eight_groups(dst, codes, b->scales, f16_to_f32(b->d), f16_to_f32(b->dmin));
    }
}

static void lanes_q5_k_decode(float *dst, const void *src, size_t n_cols)
{
    const struct q5_k_block *b = src;
    for (size_t n = n_cols / 256; n > 0; n--, b++, dst += 256) {
        int8_t codes[256];
        unpack_nibble_planes(codes, b->q);
        add_bit_planes(codes, b->high, 16);
        put_eight_groups(dst, codes, b->scales, f16_to_f32(b->d), f16_to_f32(b->dmin));
    }
}

static inline void q6_k_unpack(int8_t codes[256], const struct q6_k_block *b)
{
    for (int half = 0; half < 2; half++) {
        const uint8_t *low = b->low + 64 * half, *high = b->high + 32 * half;
        int8_t *c = codes + 128 * half;
        for (int i = 0; i < 32; i++) {
            c[i] = (int8_t)(((low[i] & 15) | (high[i] & 3) << 4) - 32);
            c[i + 32] = (int8_t)(((low[i + 32] & 15) | (high[i] >> 2 & 3) << 4) - 32);
            c[i + 64] = (int8_t)((low[i] >> 4 | (high[i] >> 4 & 3) << 4) - 32);
            c[i + 96] = (int8_t)((low[i + 32] >> 4 | (high[i] >> 6) << 4) - 32);
        }
    }
}

static void lanes_q6_k_decode(float *dst, const void *src, size_t n_cols)
{
    const struct q6_k_block *b = src;
    for (size_t n = n_cols / 256; n > 0; n--, b++, dst += 256) {
        const float d = f16_to_f32(b->d);
        int8_t codes[256];
        q6_k_unpack(codes, b);
        for (int j = 0; j < 16; j++)
            put_scaled(dst + 16 * j, codes + 16 * j, 16, d * (float)b->scales[j]);
    }
}

/* --- 4-bit levels: a table of 16 bytes ---------------------------------------------------------------------
 */

/* levels[nibble] of 16 bytes: low nibbles to out[0..15], high ones to out[16..31] */
static inline void lookup_halves(int8_t out[32], const uint8_t q[16], const int8_t levels[16])
{
    const b16 table = b16_load(levels), bytes = b16_load(q);
    b16_store(out, b16_lookup(table, bytes & 15));
    b16_store(out + 16, b16_lookup(table, bytes >> 4));
}

static void lanes_iq4_nl_decode(float *dst, const void *src, size_t n_cols)
{
    const struct iq4_nl_block *b = src;
    for (size_t n = n_cols / 32; n > 0; n--, b++, dst += 32) {
        int8_t levels[32];
        lookup_halves(levels, b->q, iq4_levels);
        put_scaled(dst, levels, 32, f16_to_f32(b->d));
    }
}

static void lanes_iq4_xs_decode(float *dst, const void *src, size_t n_cols)
{
    const struct iq4_xs_block *b = src;
    for (size_t n = n_cols / 256; n > 0; n--, b++) {
        const float d = f16_to_f32(b->d);
        for (unsigned j = 0; j < 8; j++, dst += 32) {
            int8_t levels[32];
            lookup_halves(levels, b->q + 16 * j, iq4_levels);
            put_scaled(dst, levels, 32, d * (float)((int)iq4_xs_scale(b, j) - 32));
        }
    }
}

static void lanes_mxfp4_decode(float *dst, const void *src, size_t n_cols)
{
    const struct mxfp4_block *b = src;
    for (size_t n = n_cols / 32; n > 0; n--, b++, dst += 32) {
        int8_t levels[32];
        lookup_halves(levels, b->q, fp4_levels);
        put_scaled(dst, levels, 32, e8m0_half_to_f32(b->e));
    }
}

static void lanes_tq2_0_decode(float *dst, const void *src, size_t n_cols)
{
    const struct tq2_0_block *b = src;
    for (size_t n = n_cols / 256; n > 0; n--, b++, dst += 256) {
        int8_t codes[256];
        unpack_two_bits(codes, b->q, 1);
        put_scaled(dst, codes, 256, f16_to_f32(b->d));
    }
}

/* --- 16-bit floats
 * --------------------------------------------------------------------------------------------- */

static void lanes_f16_decode(float *dst, const void *src, size_t n_cols)
{
    const uint8_t *p = src;
    size_t i = 0;
    for (; i + LANES <= n_cols; i += LANES)
        lf_store(dst + i, lf_load_f16(p + 2 * i));
    f16_decode(dst + i, p + 2 * i, n_cols - i);
}

static void lanes_bf16_decode(float *dst, const void *src, size_t n_cols)
{
    const uint8_t *p = src;
    size_t i = 0;
    for (; i + LANES <= n_cols; i += LANES)
        lf_store(dst + i, lf_of_bits(li_load_u16(p + 2 * i) << 16));
    bf16_decode(dst + i, p + 2 * i, n_cols - i);
}

#endif
