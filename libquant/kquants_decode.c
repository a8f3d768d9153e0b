/* kquants_decode.c - reference decoders of q2_k to q6_k.
 *
 * This file defines the values; every faster decoder is tested against it. Products and differences are
 * single float32 operations in the order written: first (d * scale), then times the code, then minus (dmin *
 * min). Layouts: kquants.h. */
#include "half.h"
#include "kquants.h"

void q2_k_decode(float *dst, const void *src, size_t n_cols)
{
    const struct q2_k_block *b = src;
    for (size_t n = n_cols / 256; n > 0; n--, b++, dst += 256) {
        const float d = f16_to_f32(b->d), dmin = f16_to_f32(b->dmin);
        for (int j = 0; j < 16; j++) { /* group of 16 weights */
            const float scale = d * (float)(b->scales[j] & 15), min = dmin * (float)(b->scales[j] >> 4);
            const uint8_t *q = b->q + 32 * (j / 8) + 16 * (j % 2);
            const int shift = 2 * (j % 8 / 2);
            for (int i = 0; i < 16; i++)
                dst[16 * j + i] = scale * (float)(q[i] >> shift & 3) - min;
        }
    }
}

void q3_k_decode(float *dst, const void *src, size_t n_cols)
{
    const struct q3_k_block *b = src;
    for (size_t n = n_cols / 256; n > 0; n--, b++, dst += 256) {
        const float d = f16_to_f32(b->d);
        for (int j = 0; j < 16; j++) { /* group of 16 weights */
            const float scale = d * (float)(q3_k_scale(b->scales, (unsigned)j) - 32);
            const uint8_t *q = b->q + 32 * (j / 8) + 16 * (j % 2);
            const uint8_t *high = b->high + 16 * (j % 2);
            const int shift = 2 * (j % 8 / 2), bit = j / 2;
            for (int i = 0; i < 16; i++)
                dst[16 * j + i] = scale * (float)((q[i] >> shift & 3) - (high[i] >> bit & 1 ? 0 : 4));
        }
    }
}

void q4_k_decode(float *dst, const void *src, size_t n_cols)
{
    const struct q4_k_block *b = src;
    for (size_t n = n_cols / 256; n > 0; n--, b++, dst += 256) {
        const float d = f16_to_f32(b->d), dmin = f16_to_f32(b->dmin);
        for (int j = 0; j < 8; j++) { /* group of 32 weights */
            uint8_t s, m;
            k_scale_min(b->scales, (unsigned)j, &s, &m);
            const float scale = d * (float)s, min = dmin * (float)m;
            const uint8_t *q = b->q + 32 * (j / 2);
            const int shift = 4 * (j % 2);
            for (int i = 0; i < 32; i++)
                dst[32 * j + i] = scale * (float)(q[i] >> shift & 15) - min;
        }
    }
}

void q5_k_decode(float *dst, const void *src, size_t n_cols)
{
    const struct q5_k_block *b = src;
    for (size_t n = n_cols / 256; n > 0; n--, b++, dst += 256) {
        const float d = f16_to_f32(b->d), dmin = f16_to_f32(b->dmin);
        for (int j = 0; j < 8; j++) { /* group of 32 weights */
            uint8_t s, m;
            k_scale_min(b->scales, (unsigned)j, &s, &m);
            const float scale = d * (float)s, min = dmin * (float)m;
            const uint8_t *q = b->q + 32 * (j / 2);
            const int shift = 4 * (j % 2);
            for (int i = 0; i < 32; i++)
                dst[32 * j + i] = scale * (float)((q[i] >> shift & 15) | (b->high[i] >> j & 1) << 4) - min;
        }
    }
}

void q6_k_decode(float *dst, const void *src, size_t n_cols)
{
    const struct q6_k_block *b = src;
    for (size_t n = n_cols / 256; n > 0; n--, b++, dst += 256) {
        const float d = f16_to_f32(b->d);
        for (int j = 0; j < 16; j++) { /* group of 16 weights; half = 128 weights */
            const int half = j / 8, in_half = 16 * (j % 8);
            const float scale = d * (float)b->scales[j];
            const uint8_t *low = b->low + 64 * half + in_half % 64;
            const uint8_t *high = b->high + 32 * half + in_half % 32;
            const int low_shift = 4 * (in_half / 64), high_shift = 2 * (in_half / 32);
            for (int i = 0; i < 16; i++) {
                const int q = (low[i] >> low_shift & 15) | (high[i] >> high_shift & 3) << 4;
                dst[16 * j + i] = scale * (float)(q - 32);
            }
        }
    }
}
