/* lanes_plain.h - encoders without a search: f16, bf16, q8_0, tq2_0, mxfp4, nvfp4. Included once per
 * instruction set, after its lanes_<isa>.h. Bytes are those of the reference encoders. */
#ifndef KERF_LANES_PLAIN_H
#define KERF_LANES_PLAIN_H

#include "../encode_parts.h"
#include "../fp4.h"
#include "../half.h"
#include "../legacy.h"
#include "libquant/float_types.h"
#include "../ternary.h"

static void lanes_f16_encode(void *dst, const float *src, size_t n_cols, const float *importance)
{
    uint8_t *p = dst;
    size_t i = 0;
    for (; i + LANES <= n_cols; i += LANES) {
        /* One bit pattern for all NaNs, as in f32_to_f16: the conversion instruction would keep their
         * payload. */
        const li bits = li_bits(lf_load(src + i));
        const lf quiet = lf_of_bits((bits & li_all(INT32_MIN)) | li_all(0x7fc00000));
        const lf v = lf_of_bits(bits);
        lf_store_f16(p + 2 * i, lf_pick(lm_eq(v, v), v, quiet));
    }
    f16_encode(p + 2 * i, src + i, n_cols - i, importance);
}

static void lanes_bf16_encode(void *dst, const float *src, size_t n_cols, const float *importance)
{
    uint8_t *p = dst;
    size_t i = 0;
    for (; i + LANES <= n_cols; i += LANES) {
        const lf v = lf_load(src + i);
        const lu bits = (lu)li_bits(v), top = bits >> 16;
        const lu rounded = (bits + 0x7fff + (top & 1)) >> 16;
        li_store_u16(p + 2 * i, li_pick(lm_eq(v, v), (li)rounded, (li)(top | 0x40)));
    }
    bf16_encode(p + 2 * i, src + i, n_cols - i, importance);
}

static float lanes_largest_magnitude(const float *x, int n)
{
    lf m = lf_all(0);
    for (int i = 0; i < n; i += LANES)
        m = lf_max(m, lf_abs(lf_load(x + i)));
    float t[LANES], largest = 0;
    lf_store(t, m);
    for (int i = 0; i < LANES; i++)
        largest = largest > t[i] ? largest : t[i];
    return largest;
}

/* Nearest integer, half away from zero: cut, then look at the rest. What does not fit an int is left as it is
 * cut (INT32_MIN), which happens when the inverse of a scale is infinite. */
static inline li lanes_round_away(lf v)
{
    const li whole = li_trunc(v);
    const lf rest = v - lf_from(whole);
    const lm away = lm_and(lm_ge(lf_abs(rest), lf_all(0.5f)), lm_gt(lf_all(1), lf_abs(rest)));
    const li step = li_pick(lm_gt(rest, lf_all(0)), li_all(1), li_all(-1));
    return whole + li_pick(away, step, li_all(0));
}

static void lanes_q8_0_encode(void *dst, const float *src, size_t n_cols, const float *importance)
{
    (void)importance;
    struct q8_0_block *b = dst;
    for (; n_cols > 0; n_cols -= 32, src += 32, b++) {
        const float d = lanes_largest_magnitude(src, 32) / 127.0f;
        const lf inverse = lf_all(d != 0 ? 1.0f / d : 0.0f);
        b->d = f32_to_f16(d);
        for (int i = 0; i < 32; i += LANES)
            lb_store((uint8_t *)b->q + i, lanes_round_away(inverse * lf_load(src + i)));
    }
}

static void lanes_tq2_0_encode(void *dst, const float *src, size_t n_cols, const float *importance)
{
    (void)importance;
    struct tq2_0_block *b = dst;
    for (size_t n = n_cols / 256; n > 0; n--, b++, src += 256) {
        uint8_t codes[256];
        const float d = lanes_largest_magnitude(src, 256);
        const lf inverse = lf_all(d != 0 ? 1.0f / d : 0.0f);
        for (int i = 0; i < 256; i += LANES) {
            const lf v = inverse * lf_load(src + i);
            const lm fits = lm_gt(lf_all(4.5f), lf_abs(v)); /* else code 1, as rounded_code of ternary.c */
            lb_store(codes + i, li_pick(fits, lanes_round_away(v) + li_all(1), li_all(1)));
        }
        b->d = f32_to_f16(d);
        pack_two_bits(b->q, codes);
    }
}

/* Indices of the nearest of 16 levels times d, the first one on ties, for n numbers. */
static void lanes_fp4_codes(uint8_t *codes, const float *x, int n, float d)
{
    for (int i = 0; i < n; i += LANES) {
        const lf v = lf_load(x + i);
        li best = li_all(0);
        lf best_error = lf_abs(lf_all((float)fp4_levels[0] * d) - v);
        for (int k = 1; k < 16; k++) {
            const lf error = lf_abs(lf_all((float)fp4_levels[k] * d) - v);
            best = li_pick(lm_gt(best_error, error), li_all(k), best);
            best_error = lf_min(error, best_error);
        }
        lb_store(codes + i, best);
    }
}

static void lanes_mxfp4_encode(void *dst, const float *src, size_t n_cols, const float *importance)
{
    (void)importance;
    struct mxfp4_block *b = dst;
    for (size_t n = n_cols / 32; n > 0; n--, b++, src += 32) {
        uint8_t codes[32];
        b->e = mxfp4_exponent(lanes_largest_magnitude(src, 32));
        lanes_fp4_codes(codes, src, 32, e8m0_half_to_f32(b->e));
        for (int i = 0; i < 16; i++)
            b->q[i] = (uint8_t)(codes[i] | codes[i + 16] << 4);
    }
}

static void lanes_nvfp4_encode(void *dst, const float *src, size_t n_cols, const float *importance)
{
    (void)importance;
    struct nvfp4_block *b = dst;
    for (size_t n = n_cols / 64; n > 0; n--, b++) {
        for (int s = 0; s < 4; s++, src += 16) {
            uint8_t codes[16];
            b->scales[s] = f32_to_ue4m3(lanes_largest_magnitude(src, 16) / 6.0f);
            lanes_fp4_codes(codes, src, 16, ue4m3_half_to_f32(b->scales[s]));
            for (int i = 0; i < 8; i++)
                b->q[8 * s + i] = (uint8_t)(codes[i] | codes[i + 8] << 4);
        }
    }
}

#endif
