/* ternary.c - reference decoders and encoders of tq1_0, tq2_0, q1_0 and q2_0.
 *
 * This file defines the bytes and the values. The encoders are the plain ones of the reference
 * implementation: the scale is the largest magnitude (q1_0: the mean one), codes are rounded with the scale
 * before it is cut to binary16. They lose nothing on weights that already are ternary, and much on others.
 * Layouts: ternary.h. Specification: quantization 3.3, 3.13, 4.2, 4.10. */
#include "half.h"
#include "ternary.h"

#include <math.h>

/* --- tq1_0: a byte holds five trits as a binary fraction of 243 -------------------------------------------
 *
 * The stored byte is ceil(256 * v / 243) with v = t0*81 + t1*27 + t2*9 + t3*3 + t4, so multiplying by 3^n
 * modulo 256 moves trit n to the front, and the product with 3 carries it out of the byte. */
static const uint8_t power3[5] = {1, 3, 9, 27, 81};

static unsigned trit(uint8_t byte, int n)
{
    const uint8_t front = (uint8_t)(byte * power3[n]);
    return front * 3u >> 8;
}

/* The three runs of a tq1_0 block: `width` bytes of `n_trits` trits; trit n of byte m is weight
 * first + n*width + m. The runs of 48 bytes and of the tail are contiguous. */
static const struct trit_run {
    uint8_t byte, width, n_trits, first;
} trit_runs[3] = {{0, 32, 5, 0}, {32, 16, 5, 160}, {48, 4, 4, 240}};

void tq1_0_decode(float *dst, const void *src, size_t n_cols)
{
    const struct tq1_0_block *b = src;
    for (size_t n = n_cols / 256; n > 0; n--, b++, dst += 256) {
        const float d = f16_to_f32(b->d);
        const uint8_t *bytes = (const uint8_t *)b;
        for (int r = 0; r < 3; r++) {
            const struct trit_run run = trit_runs[r];
            for (int t = 0; t < run.n_trits; t++)
                for (int m = 0; m < run.width; m++)
                    dst[run.first + t * run.width + m] = (float)((int)trit(bytes[run.byte + m], t) - 1) * d;
        }
    }
}

void tq2_0_decode(float *dst, const void *src, size_t n_cols)
{
    const struct tq2_0_block *b = src;
    for (size_t n = n_cols / 256; n > 0; n--, b++, dst += 256) {
        const float d = f16_to_f32(b->d);
        for (int i = 0; i < 256; i++) {
            const int q = b->q[32 * (i / 128) + i % 32] >> 2 * (i % 128 / 32) & 3;
            dst[i] = (float)(q - 1) * d;
        }
    }
}

void q1_0_decode(float *dst, const void *src, size_t n_cols)
{
    const struct q1_0_block *b = src;
    for (size_t n = n_cols / 128; n > 0; n--, b++, dst += 128) {
        const float d = f16_to_f32(b->d);
        const float level[2] = {-d, d};
        for (int i = 0; i < 128; i++)
            dst[i] = level[b->q[i / 8] >> i % 8 & 1];
    }
}

void q2_0_decode(float *dst, const void *src, size_t n_cols)
{
    const struct q2_0_block *b = src;
    for (size_t n = n_cols / 64; n > 0; n--, b++, dst += 64) {
        const float d = f16_to_f32(b->d);
        for (int i = 0; i < 64; i++)
            dst[i] = (float)((b->q[i / 4] >> 2 * (i % 4) & 3) - 1) * d;
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

/* round(x / d) + 1. A scale so small that 1/d is infinite makes products that are no number; it is stored as
 * zero, so the code does not matter, and the reference's choice of `otherwise` is kept. */
static int rounded_code(float x, float inverse, int otherwise)
{
    const float v = roundf(x * inverse);
    return fabsf(v) <= 4.0f ? (int)v + 1 : otherwise;
}

void tq1_0_encode(void *dst, const float *src, size_t n_cols, const float *importance)
{
    (void)importance;
    struct tq1_0_block *b = dst;
    for (size_t n = n_cols / 256; n > 0; n--, b++, src += 256) {
        const float d = largest_magnitude(src, 256);
        const float inverse = d != 0.0f ? 1.0f / d : 0.0f;
        uint8_t *bytes = (uint8_t *)b;
        b->d = f32_to_f16(d);
        for (int r = 0; r < 3; r++) {
            const struct trit_run run = trit_runs[r];
            for (int m = 0; m < run.width; m++) {
                unsigned v = 0;
                for (int t = 0; t < 5; t++) {
                    v *= 3;
                    if (t < run.n_trits)
                        v += (unsigned)rounded_code(src[run.first + t * run.width + m], inverse, 1);
                }
                bytes[run.byte + m] = (uint8_t)((v * 256 + 242) / 243);
            }
        }
    }
}

void tq2_0_encode(void *dst, const float *src, size_t n_cols, const float *importance)
{
    (void)importance;
    struct tq2_0_block *b = dst;
    for (size_t n = n_cols / 256; n > 0; n--, b++, src += 256) {
        const float d = largest_magnitude(src, 256);
        const float inverse = d != 0.0f ? 1.0f / d : 0.0f;
        *b = (struct tq2_0_block){.d = f32_to_f16(d)};
        for (int i = 0; i < 256; i++) {
            const unsigned q = (unsigned)rounded_code(src[i], inverse, 1);
            b->q[32 * (i / 128) + i % 32] |= (uint8_t)(q << 2 * (i % 128 / 32));
        }
    }
}

void q1_0_encode(void *dst, const float *src, size_t n_cols, const float *importance)
{
    (void)importance;
    struct q1_0_block *b = dst;
    for (size_t n = n_cols / 128; n > 0; n--, b++, src += 128) {
        float sum = 0.0f;
        for (int i = 0; i < 128; i++)
            sum += fabsf(src[i]);
        *b = (struct q1_0_block){.d = f32_to_f16(sum / 128.0f)};
        for (int i = 0; i < 128; i++)
            if (src[i] >= 0.0f)
                b->q[i / 8] |= (uint8_t)(1u << i % 8);
    }
}

void q2_0_encode(void *dst, const float *src, size_t n_cols, const float *importance)
{
    (void)importance;
    struct q2_0_block *b = dst;
    for (size_t n = n_cols / 64; n > 0; n--, b++, src += 64) {
        const float d = largest_magnitude(src, 64);
        const float inverse = d > 0.0f ? 1.0f / d : 0.0f;
        *b = (struct q2_0_block){.d = f32_to_f16(d)};
        for (int i = 0; i < 64; i++) {
            int q = rounded_code(src[i], inverse, 0);
            q = q < 0 ? 0 : q > 3 ? 3 : q;
            b->q[i / 4] |= (uint8_t)(q << 2 * (i % 4));
        }
    }
}
