/* legacy_encode.c - reference encoders of the 32-weight formats q4_0, q4_1, q5_0, q5_1, q8_0.
 *
 * This file defines the bytes; every faster encoder is tested against it. Without importance a block is
 * mapped by its extreme values; with importance its scale is searched (scale_search.h) under the weights
 * importance * sqrt(mean square of the row + x^2). The stored scale is rounded to binary16 but the codes come
 * from the unrounded one, as in the reference. Specification: quantization 4.2, 4.3. */
#include "encode_parts.h"
#include "legacy.h"
#include "scale_search.h"

#include <float.h>
#include <math.h>

/* --- without importance ----------------------------------------------------------------------------------
 */

/* Codes of 32 weights: (x - low) * inverse + half, cut to an integer of 8 bits, at most `cap`. */
static void map_codes(uint8_t codes[32], const float *x, float low, float inverse, float half, int cap)
{
    for (int i = 0; i < 32; i++)
        codes[i] = legacy_code((x[i] - low) * inverse + half, cap);
}

static float signed_scale(const float *x, float levels)
{
    float extreme = 0, magnitude = 0;
    for (int i = 0; i < 32; i++) {
        if (magnitude < fabsf(x[i])) {
            magnitude = fabsf(x[i]);
            extreme = x[i];
        }
    }
    return extreme / -levels;
}

static float range_scale(const float *x, float levels, float *low)
{
    float min = FLT_MAX, max = -FLT_MAX;
    for (int i = 0; i < 32; i++) {
        min = x[i] < min ? x[i] : min;
        max = x[i] > max ? x[i] : max;
    }
    *low = min;
    return (max - min) / levels;
}

static float inverse_of(float d)
{
    return d != 0 ? 1.0f / d : 0.0f;
}

static void q4_0_plain(struct q4_0_block *b, const float *x)
{
    uint8_t codes[32];
    const float d = signed_scale(x, 8.0f);
    map_codes(codes, x, 0.0f, inverse_of(d), 8.5f, 15);
    b->d = f32_to_f16(d);
    pack_nibbles(b->q, codes);
}

static void q4_1_plain(struct q4_1_block *b, const float *x)
{
    uint8_t codes[32];
    float low;
    const float d = range_scale(x, 15.0f, &low);
    map_codes(codes, x, low, inverse_of(d), 0.5f, 15);
    b->d = f32_to_f16(d);
    b->m = f32_to_f16(low);
    pack_nibbles(b->q, codes);
}

static void q5_0_plain(struct q5_0_block *b, const float *x)
{
    uint8_t codes[32];
    const float d = signed_scale(x, 16.0f);
    map_codes(codes, x, 0.0f, inverse_of(d), 16.5f, 31);
    b->d = f32_to_f16(d);
    b->high = pack_five_bits(b->q, codes);
}

static void q5_1_plain(struct q5_1_block *b, const float *x)
{
    uint8_t codes[32];
    float low;
    const float d = range_scale(x, 31.0f, &low);
    map_codes(codes, x, low, inverse_of(d), 0.5f, 127); /* uncapped in the reference; it cannot exceed 31 */
    b->d = f32_to_f16(d);
    b->m = f32_to_f16(low);
    b->high = pack_five_bits(b->q, codes);
}

/* --- with importance -------------------------------------------------------------------------------------
 */

static void q4_0_searched(struct q4_0_block *b, const float *x, const float *w)
{
    uint8_t codes[32];
    b->d = f32_to_f16(search_symmetric(32, 8, x, w, codes));
    pack_nibbles(b->q, codes);
}

static void q4_1_searched(struct q4_1_block *b, const float *x, const float *w)
{
    uint8_t codes[32];
    float offset;
    b->d = f32_to_f16(search_asymmetric(32, &plan_q4_1, x, w, codes, &offset));
    b->m = f32_to_f16(-offset);
    pack_nibbles(b->q, codes);
}

static void q5_0_searched(struct q5_0_block *b, const float *x, const float *w)
{
    uint8_t codes[32];
    b->d = f32_to_f16(search_symmetric(32, 16, x, w, codes));
    b->high = pack_five_bits(b->q, codes);
}

static void q5_1_searched(struct q5_1_block *b, const float *x, const float *w)
{
    uint8_t codes[32];
    float offset;
    b->d = f32_to_f16(search_asymmetric(32, &plan_q5_1, x, w, codes, &offset));
    b->m = f32_to_f16(-offset);
    b->high = pack_five_bits(b->q, codes);
}

/* The mean square runs over the whole row, so a row is the unit of these encoders. */
#define LEGACY_ENCODER(name)                                                                                 \
    void name##_encode(void *dst, const float *src, size_t n_cols, const float *importance)                  \
    {                                                                                                        \
        struct name##_block *b = dst;                                                                        \
        const float mean_square = importance ? sum_squares(src, n_cols) / (float)n_cols : 0.0f;              \
        for (size_t i = 0; i < n_cols; i += 32, b++) {                                                       \
            if (importance) {                                                                                \
                float w[32];                                                                                 \
                importance_weights(w, src + i, importance + i, mean_square, 32);                             \
                name##_searched(b, src + i, w);                                                              \
            } else {                                                                                         \
                name##_plain(b, src + i);                                                                    \
            }                                                                                                \
        }                                                                                                    \
    }

LEGACY_ENCODER(q4_0)
LEGACY_ENCODER(q4_1)
LEGACY_ENCODER(q5_0)
LEGACY_ENCODER(q5_1)

void q8_0_encode(void *dst, const float *src, size_t n_cols, const float *importance)
{
    (void)importance; /* the scale is that of the largest magnitude, always */
    struct q8_0_block *b = dst;
    for (; n_cols > 0; n_cols -= 32, src += 32, b++) {
        float magnitude = 0;
        for (int i = 0; i < 32; i++)
            magnitude = magnitude > fabsf(src[i]) ? magnitude : fabsf(src[i]);
        const float d = magnitude / 127.0f, inverse = inverse_of(d);
        b->d = f32_to_f16(d);
        for (int i = 0; i < 32; i++)
            b->q[i] = (int8_t)trunc_i32(roundf(src[i] * inverse));
    }
}
