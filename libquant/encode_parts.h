/* encode_parts.h - what all encoders share after and around the searches: weights, final codes, packing.
 *
 * Inline, because the vector kernels compile the same text for their instruction set: rounding 256 weights to
 * given scales and packing them has no order to preserve. Only encoders include this file.
 * Specification: quantization 3.2 to 3.9 (packing), 4.2 to 4.8 (weights and final rounding). */
#ifndef KERF_ENCODE_PARTS_H
#define KERF_ENCODE_PARTS_H

#include "iquants.h"
#include "kquants.h"
#include "scale_search.h"

#include <math.h>
#include <stddef.h>
#include <string.h>

/* --- search plans ------------------------------------------------------------------------------------------
 */

__attribute__((unused)) static const struct asym_plan plan_q4_1 = {15, -0.9f, 0.05f, 36, false};
__attribute__((unused)) static const struct asym_plan plan_q5_1 = {31, -0.9f, 0.05f, 36, false};
__attribute__((unused)) static const struct asym_plan plan_q2_k = {3, -0.9f, 0.05f, 36, false};
__attribute__((unused)) static const struct asym_plan plan_q4_k = {15, -0.9f, 0.05f, 36, false};
__attribute__((unused)) static const struct asym_plan plan_q5_k = {31, -0.9f, 0.05f, 36, false};
__attribute__((unused)) static const struct asym_plan plan_q2_k_plain = {3, -0.5f, 0.1f, 15, true};
__attribute__((unused)) static const struct asym_plan plan_q4_k_plain = {15, -1.0f, 0.1f, 20, false};
__attribute__((unused)) static const struct asym_plan plan_q5_k_plain = {31, -0.5f, 0.1f, 15, false};

/* --- weights -----------------------------------------------------------------------------------------------
 */

static inline float sum_squares(const float *x, size_t n)
{
    float sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += x[i] * x[i];
    return sum;
}

/* Importance of a column times the typical size of its weight: a heuristic of the reference that counts large
 * weights more than the output error alone would. */
static inline void importance_weights(float *w, const float *x, const float *importance, float mean_square,
                                      int n)
{
    for (int i = 0; i < n; i++)
        w[i] = importance[i] * sqrtf(mean_square + x[i] * x[i]);
}

static inline float sum_weights(const float *w, int n)
{
    float sum = 0;
    for (int i = 0; i < n; i++)
        sum += w[i];
    return sum;
}

/* --- final codes -------------------------------------------------------------------------------------------
 */

/* Codes 0..levels of x = step * code - offset. With step 0 the codes stay as they are (false): any code
 * decodes to the same value, and the reference leaves those of the search. */
static inline bool round_offset(uint8_t *codes, const float *x, int n, float step, float offset, int levels)
{
    if (step == 0)
        return false;
    for (int i = 0; i < n; i++)
        codes[i] = (uint8_t)clamp_i32(round_near((x[i] + offset) / step), 0, levels);
    return true;
}

/* Codes 0..2*levels-1 of x = step * (code - levels); step 0 as above. */
static inline bool round_signed(uint8_t *codes, const float *x, int n, float step, int levels)
{
    if (step == 0)
        return false;
    for (int i = 0; i < n; i++)
        codes[i] = (uint8_t)(clamp_i32(round_near(x[i] / step), -levels, levels - 1) + levels);
    return true;
}

/* --- scales of super-blocks --------------------------------------------------------------------------------
 */

/* The largest of n numbers, at least 0. */
static inline float largest(const float *v, int n)
{
    float max = 0;
    for (int j = 0; j < n; j++)
        max = v[j] > max ? v[j] : max;
    return max;
}

/* The number of largest magnitude with its sign, first on ties. */
static inline float signed_largest(const float *v, int n)
{
    float best = 0, magnitude = 0;
    for (int j = 0; j < n; j++) {
        if (fabsf(v[j]) > magnitude) {
            magnitude = fabsf(v[j]);
            best = v[j];
        }
    }
    return best;
}

/* Codes 0..top of non-negative v relative to their maximum, as bytes; returns the step max/top. */
static inline float relative_codes(uint8_t *codes, const float *v, int n, float top)
{
    const float max = largest(v, n);
    const float inverse = max > 0 ? top / max : 0.0f;
    for (int j = 0; j < n; j++)
        codes[j] = (uint8_t)round_near(inverse * v[j]);
    return max / top;
}

/* Scales and mins of 8 groups into the 12 bytes of q4_k and q5_k; k_scale_min reads them. */
static inline void k_store_scale_min(uint8_t s[12], const uint8_t scale[8], const uint8_t min[8])
{
    for (int j = 0; j < 4; j++) {
        s[j] = (uint8_t)(scale[j] | (scale[j + 4] >> 4) << 6);
        s[j + 4] = (uint8_t)(min[j] | (min[j + 4] >> 4) << 6);
        s[j + 8] = (uint8_t)((scale[j + 4] & 15) | (min[j + 4] & 15) << 4);
    }
}

/* Codes above 63 can only come from a negative scale that wrapped to a byte; the reference stores q4_k's
 * searched codes without this cap. */
static inline void cap_six_bits(uint8_t scale[8], uint8_t min[8], bool searched, int levels)
{
    if (searched && levels == 15)
        return;
    for (int j = 0; j < 8; j++) {
        scale[j] = scale[j] < 63 ? scale[j] : 63;
        min[j] = min[j] < 63 ? min[j] : 63;
    }
}

/* Sixteen 6-bit scales (0..63) into the 12 bytes of q3_k; q3_k_scale reads them. */
static inline void q3_k_store_scales(uint8_t s[12], const uint8_t scale[16])
{
    for (int j = 0; j < 8; j++)
        s[j] = (uint8_t)((scale[j] & 15) | (scale[j + 8] & 15) << 4);
    for (int j = 0; j < 4; j++)
        s[j + 8] = (uint8_t)(scale[j] >> 4 | (scale[j + 4] >> 4) << 2 | (scale[j + 8] >> 4) << 4 |
                             (scale[j + 12] >> 4) << 6);
}

/* Signed scales of q3_k and q6_k: the largest goes to -range exactly. Codes clamped to range-1, or wrapped to
 * a byte first where the reference does so. */
static inline void q3_k_relative_scales(uint8_t scale[16], float *d, const float v[16])
{
    const float max = signed_largest(v, 16);
    if (max == 0) { /* not code 32, which would also decode to zero */
        memset(scale, 0, 16);
        *d = 0.0f;
        return;
    }
    const float inverse = -32.0f / max;
    for (int j = 0; j < 16; j++)
        scale[j] = (uint8_t)(clamp_i32((int8_t)round_near(inverse * v[j]), -32, 31) + 32);
    *d = 1 / inverse;
}

static inline void q6_k_relative_scales(int8_t scale[16], float *d, const float v[16], float max)
{
    const float inverse = -128.0f / max;
    for (int j = 0; j < 16; j++)
        scale[j] = (int8_t)clamp_i32(round_near(inverse * v[j]), INT32_MIN, 127);
    *d = 1 / inverse;
}

/* --- packing -----------------------------------------------------------------------------------------------
 */

/* A 4-bit code as the legacy formats cut it: eight bits of the integer, then the cap. */
static inline uint8_t legacy_code(float v, int cap)
{
    const int code = (int8_t)trunc_i32(v);
    return (uint8_t)(code < cap ? code : cap);
}

/* 32 codes of 4 bits, split halves. */
static inline void pack_nibbles(uint8_t q[16], const uint8_t codes[32])
{
    for (int i = 0; i < 16; i++)
        q[i] = (uint8_t)(codes[i] | codes[i + 16] << 4);
}

/* 32 codes of 5 bits: low nibbles to q, fifth bits returned. */
static inline uint32_t pack_five_bits(uint8_t q[16], const uint8_t codes[32])
{
    uint32_t high = 0;
    for (int i = 0; i < 32; i++)
        high |= (uint32_t)(codes[i] >> 4 & 1) << i;
    for (int i = 0; i < 16; i++)
        q[i] = (uint8_t)((codes[i] & 15) | (codes[i + 16] & 15) << 4);
    return high;
}

/* 256 codes of 2 bits, four planes of 32 in each half: q2_k and the low bits of q3_k. */
static inline void pack_two_bits(uint8_t q[64], const uint8_t codes[256])
{
    for (int half = 0; half < 2; half++) {
        const uint8_t *c = codes + 128 * half;
        for (int i = 0; i < 32; i++)
            q[32 * half + i] =
                (uint8_t)((c[i] & 3) | (c[i + 32] & 3) << 2 | (c[i + 64] & 3) << 4 | (c[i + 96] & 3) << 6);
    }
}

/* Bit `bit` of 256 codes: byte i%32, bit i/32. The high bits of q3_k and q5_k. */
static inline void pack_bit_planes(uint8_t high[32], const uint8_t codes[256], int bit)
{
    memset(high, 0, 32);
    for (int plane = 0; plane < 8; plane++) {
        for (int i = 0; i < 32; i++)
            high[i] |= (uint8_t)((codes[32 * plane + i] >> bit & 1) << plane);
    }
}

/* Low nibbles of 256 codes, two groups of 32 to each 32 bytes: q4_k and q5_k. */
static inline void pack_low_nibbles(uint8_t q[128], const uint8_t codes[256])
{
    for (int pair = 0; pair < 4; pair++) {
        const uint8_t *c = codes + 64 * pair;
        for (int i = 0; i < 32; i++)
            q[32 * pair + i] = (uint8_t)((c[i] & 15) | (c[i + 32] & 15) << 4);
    }
}

static inline void q6_k_pack(struct q6_k_block *b, const uint8_t codes[256])
{
    for (int half = 0; half < 2; half++) {
        const uint8_t *c = codes + 128 * half;
        for (int i = 0; i < 64; i++)
            b->low[64 * half + i] = (uint8_t)((c[i] & 15) | (c[i + 64] & 15) << 4);
        for (int i = 0; i < 32; i++)
            b->high[32 * half + i] = (uint8_t)((c[i] >> 4) | (c[i + 32] >> 4) << 2 | (c[i + 64] >> 4) << 4 |
                                               (c[i + 96] >> 4) << 6);
    }
}

/* --- iq4 ---------------------------------------------------------------------------------------------------
 */

/* Codes of 32 weights at a given scale (0: all weights on the level nearest to zero), packed. */
static inline void iq4_pack(uint8_t q[16], const float *x, float scale)
{
    uint8_t codes[32];
    const float inverse = scale != 0 ? 1 / scale : 0.0f;
    for (int i = 0; i < 32; i++)
        codes[i] = iq4_nearest(inverse * x[i]);
    pack_nibbles(q, codes);
}

/* Scales of 8 groups relative to the largest, which goes to -32; then the codes at the unrounded step.
 * `pack`: iq4_pack or an equal. */
static inline void iq4_xs_finish(struct iq4_xs_block *b, const float x[256], const float scale[8],
                                 void (*pack)(uint8_t q[16], const float *x, float scale))
{
    const float d = -signed_largest(scale, 8) / 32;
    const float inverse = d != 0 ? 1 / d : 0.0f;
    unsigned high = 0;
    memset(b->scales_low, 0, sizeof b->scales_low);
    for (int j = 0; j < 8; j++) {
        const int code = clamp_i32(round_near(inverse * scale[j]), -32, 31);
        const unsigned stored = (unsigned)(code + 32);
        pack(b->q + 16 * j, x + 32 * j, d * (float)code);
        b->scales_low[j / 2] |= (uint8_t)((stored & 15) << 4 * (j % 2));
        high |= (stored >> 4) << 2 * j;
    }
    b->d = f32_to_f16(d);
    b->scales_high = (uint16_t)high;
}

#endif
