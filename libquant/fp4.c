/* fp4.c - reference decoders and encoders of mxfp4 and nvfp4.
 *
 * This file defines the bytes and the values. The encoders are those of the reference implementation: the
 * scale follows from the largest magnitude alone, codes go to the nearest level. A second look at the
 * neighbouring scales would lower the error (see the specification, quantization 5.1); the bytes here are
 * what other tools write. Layouts: fp4.h. Specification: quantization 3.14, 4.9. */
#include "fp4.h"
#include "half.h"

#include <math.h>

const int8_t fp4_levels[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

void mxfp4_decode(float *dst, const void *src, size_t n_cols)
{
    const struct mxfp4_block *b = src;
    for (size_t n = n_cols / 32; n > 0; n--, b++, dst += 32) {
        const float d = e8m0_half_to_f32(b->e);
        for (int i = 0; i < 16; i++) {
            dst[i] = (float)fp4_levels[b->q[i] & 15] * d;
            dst[i + 16] = (float)fp4_levels[b->q[i] >> 4] * d;
        }
    }
}

void nvfp4_decode(float *dst, const void *src, size_t n_cols)
{
    const struct nvfp4_block *b = src;
    for (size_t n = n_cols / 64; n > 0; n--, b++) {
        for (int s = 0; s < 4; s++, dst += 16) {
            const float d = ue4m3_half_to_f32(b->scales[s]);
            const uint8_t *q = b->q + 8 * s;
            for (int i = 0; i < 8; i++) {
                dst[i] = (float)fp4_levels[q[i] & 15] * d;
                dst[i + 8] = (float)fp4_levels[q[i] >> 4] * d;
            }
        }
    }
}

static float largest_magnitude(const float *x, int n)
{
    float amax = 0.0f;
    for (int i = 0; i < n; i++) {
        const float a = fabsf(x[i]);
        amax = amax > a ? amax : a;
    }
    return amax;
}

/* Index of the level nearest to x; the first one wins a tie, so zero is 0 and never 8. */
static uint8_t nearest_level(float x, float d)
{
    uint8_t best = 0;
    float best_error = fabsf((float)fp4_levels[0] * d - x);
    for (uint8_t k = 1; k < 16; k++) {
        const float error = fabsf((float)fp4_levels[k] * d - x);
        if (error < best_error) {
            best = k;
            best_error = error;
        }
    }
    return best;
}

/* The logarithm is rounded to float32 before it is cut, as the reference does:
 * a magnitude just below a power of two may count as that power. Below 2^-125 the byte wraps, also as there;
 * the scale is then huge and all codes become zero. */
uint8_t mxfp4_exponent(float amax)
{
    if (!(amax > 0.0f))
        return 0;
    return (uint8_t)((int)floorf((float)log2((double)amax)) - 2 + 127);
}

void mxfp4_encode(void *dst, const float *src, size_t n_cols, const float *importance)
{
    (void)importance;
    struct mxfp4_block *b = dst;
    for (size_t n = n_cols / 32; n > 0; n--, b++, src += 32) {
        b->e = mxfp4_exponent(largest_magnitude(src, 32));
        const float d = e8m0_half_to_f32(b->e);
        for (int i = 0; i < 16; i++)
            b->q[i] = (uint8_t)(nearest_level(src[i], d) | nearest_level(src[i + 16], d) << 4);
    }
}

void nvfp4_encode(void *dst, const float *src, size_t n_cols, const float *importance)
{
    (void)importance;
    struct nvfp4_block *b = dst;
    for (size_t n = n_cols / 64; n > 0; n--, b++) {
        for (int s = 0; s < 4; s++, src += 16) {
            b->scales[s] = f32_to_ue4m3(largest_magnitude(src, 16) / 6.0f);
            const float d = ue4m3_half_to_f32(b->scales[s]);
            for (int i = 0; i < 8; i++)
                b->q[8 * s + i] = (uint8_t)(nearest_level(src[i], d) | nearest_level(src[i + 8], d) << 4);
        }
    }
}
