/* iquants_encode.c - reference encoders of the non-linear 4-bit formats iq4_nl and iq4_xs.
 *
 * This file defines the bytes; every faster encoder is tested against it. The scale of a group of 32 is
 * searched on the 16 uneven levels; the codes are then taken at that scale before it is rounded to binary16,
 * as in the reference. The code book formats have files of their own. Specification: quantization 4.8. */
#include "encode_parts.h"
#include "iquants.h"

static float group_scale(const float *x, const float *importance, float mean_square)
{
    float w[32];
    if (importance) {
        importance_weights(w, x, importance, mean_square, 32);
    } else {
        for (int i = 0; i < 32; i++)
            w[i] = x[i] * x[i];
    }
    return search_iq4(32, x, w);
}

void iq4_nl_encode(void *dst, const float *src, size_t n_cols, const float *importance)
{
    struct iq4_nl_block *b = dst;
    for (size_t k = 0; k < n_cols; k += 32, b++) {
        const float *x = src + k;
        const float mean_square = sum_squares(x, 32) * (2.0f / 32);
        const float scale = group_scale(x, importance ? importance + k : NULL, mean_square);
        b->d = f32_to_f16(scale);
        iq4_pack(b->q, x, scale);
    }
}

void iq4_xs_encode(void *dst, const float *src, size_t n_cols, const float *importance)
{
    struct iq4_xs_block *b = dst;
    for (size_t k = 0; k < n_cols; k += 256, b++) {
        const float *x = src + k;
        const float mean_square = sum_squares(x, 256) * (2.0f / 256);
        float scale[8];
        for (int j = 0; j < 8; j++)
            scale[j] = group_scale(x + 32 * j, importance ? importance + k + 32 * j : NULL, mean_square);
        iq4_xs_finish(b, x, scale, iq4_pack);
    }
}
