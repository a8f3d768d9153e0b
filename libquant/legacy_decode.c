/* legacy_decode.c - reference decoders of q4_0 to q8_0.
 *
 * This file defines the values; every faster decoder is tested against it. The integer code becomes a float32
 * (exact), then one product, then for q4_1 and q5_1 one sum. Layouts: legacy.h. */
#include "half.h"
#include "legacy.h"

void q4_0_decode(float *dst, const void *src, size_t n_cols)
{
    const struct q4_0_block *b = src;
    for (size_t n = n_cols / 32; n > 0; n--, b++, dst += 32) {
        const float d = f16_to_f32(b->d);
        for (int i = 0; i < 16; i++) {
            dst[i] = (float)((b->q[i] & 15) - 8) * d;
            dst[i + 16] = (float)((b->q[i] >> 4) - 8) * d;
        }
    }
}

void q4_1_decode(float *dst, const void *src, size_t n_cols)
{
    const struct q4_1_block *b = src;
    for (size_t n = n_cols / 32; n > 0; n--, b++, dst += 32) {
        const float d = f16_to_f32(b->d), m = f16_to_f32(b->m);
        for (int i = 0; i < 16; i++) {
            dst[i] = (float)(b->q[i] & 15) * d + m;
            dst[i + 16] = (float)(b->q[i] >> 4) * d + m;
        }
    }
}

void q5_0_decode(float *dst, const void *src, size_t n_cols)
{
    const struct q5_0_block *b = src;
    for (size_t n = n_cols / 32; n > 0; n--, b++, dst += 32) {
        const float d = f16_to_f32(b->d);
        const uint32_t high = b->high;
        for (int i = 0; i < 16; i++) {
            dst[i] = (float)((int)((b->q[i] & 15u) | (high >> i & 1) << 4) - 16) * d;
            dst[i + 16] = (float)((int)((uint32_t)b->q[i] >> 4 | (high >> (i + 16) & 1) << 4) - 16) * d;
        }
    }
}

void q5_1_decode(float *dst, const void *src, size_t n_cols)
{
    const struct q5_1_block *b = src;
    for (size_t n = n_cols / 32; n > 0; n--, b++, dst += 32) {
        const float d = f16_to_f32(b->d), m = f16_to_f32(b->m);
        const uint32_t high = b->high;
        for (int i = 0; i < 16; i++) {
            dst[i] = (float)((b->q[i] & 15u) | (high >> i & 1) << 4) * d + m;
            dst[i + 16] = (float)((uint32_t)b->q[i] >> 4 | (high >> (i + 16) & 1) << 4) * d + m;
        }
    }
}

void q8_0_decode(float *dst, const void *src, size_t n_cols)
{
    const struct q8_0_block *b = src;
    for (size_t n = n_cols / 32; n > 0; n--, b++, dst += 32) {
        const float d = f16_to_f32(b->d);
        for (int i = 0; i < 32; i++)
            dst[i] = (float)b->q[i] * d;
    }
}
