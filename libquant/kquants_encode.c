/* kquants_encode.c - reference encoders of q2_k to q6_k.
 *
 * This file defines the bytes; every faster encoder is tested against it. All five work alike on a
 * super-block of 256 weights: search scale (and offset) of each group, quantize those numbers against a
 * common step, then round the weights once more to the scales a reader will see. With importance the group
 * search runs under weights (q6_k: the importance itself) and the scales get a weighted search of their own;
 * without, they are taken relative to their maximum. Specification: quantization 4.4 to 4.7. */
#include "encode_parts.h"
#include "kquants.h"

/* What the searches of one super-block found. */
struct super_block {
    float scale[16], offset[16], weight[16];
    uint8_t codes[256];
};

/* Weights of one group: importance times typical size, or without importance what `plain` says. */
typedef void (*plain_weights)(float *w, const float *x, int n);

static void weights_magnitude(float *w, const float *x, int n)
{
    for (int i = 0; i < n; i++)
        w[i] = fabsf(x[i]);
}

static void weights_rms_magnitude(float *w, const float *x, int n)
{
    const float rms = sqrtf(sum_squares(x, (size_t)n) / (float)n);
    for (int i = 0; i < n; i++)
        w[i] = rms + fabsf(x[i]);
}

static void search_groups(struct super_block *s, const float *x, const float *importance, float mean_square,
                          int group, const struct asym_plan *plan, plain_weights plain)
{
    for (int j = 0; j < 256 / group; j++) {
        const float *xg = x + group * j;
        float w[32];
        if (importance)
            importance_weights(w, xg, importance + group * j, mean_square, group);
        else
            plain(w, xg, group);
        s->weight[j] = sum_weights(w, group);
        s->scale[j] = search_asymmetric(group, plan, xg, w, s->codes + group * j, &s->offset[j]);
    }
}

void q2_k_encode(void *dst, const float *src, size_t n_cols, const float *importance)
{
    struct q2_k_block *b = dst;
    for (size_t k = 0; k < n_cols; k += 256, b++) {
        const float *x = src + k;
        struct super_block s;
        uint8_t scale[16], min[16];
        float d, dmin;
        if (importance) {
            search_groups(&s, x, importance + k, sum_squares(x, 256) / 256, 16, &plan_q2_k, NULL);
            d = search_positive(16, 15, s.scale, s.weight, scale);
            dmin = search_positive(16, 15, s.offset, s.weight, min);
        } else {
            search_groups(&s, x, NULL, 0, 16, &plan_q2_k_plain, weights_magnitude);
            d = relative_codes(scale, s.scale, 16, 15.0f);
            dmin = relative_codes(min, s.offset, 16, 15.0f);
        }
        b->d = f32_to_f16(d);
        b->dmin = f32_to_f16(dmin);
        for (int j = 0; j < 16; j++) {
            b->scales[j] = (uint8_t)(scale[j] | min[j] << 4);
            round_offset(s.codes + 16 * j, x + 16 * j, 16, f16_round(d) * (float)(b->scales[j] & 15),
                         f16_round(dmin) * (float)(b->scales[j] >> 4), 3);
        }
        pack_two_bits(b->q, s.codes);
    }
}

void q3_k_encode(void *dst, const float *src, size_t n_cols, const float *importance)
{
    struct q3_k_block *b = dst;
    for (size_t k = 0; k < n_cols; k += 256, b++) {
        const float *x = src + k;
        struct super_block s;
        uint8_t scale[16];
        float d;
        if (importance) {
            const float mean_square = 2 * sum_squares(x, 256) / 256;
            for (int j = 0; j < 16; j++) {
                float w[16];
                importance_weights(w, x + 16 * j, importance + k + 16 * j, mean_square, 16);
                s.weight[j] = sum_weights(w, 16);
                s.scale[j] = search_symmetric(16, 4, x + 16 * j, w, s.codes + 16 * j);
            }
            d = search_symmetric(16, 32, s.scale, s.weight, scale);
        } else {
            for (int j = 0; j < 16; j++)
                s.scale[j] = search_moves(16, 4, x + 16 * j, s.codes + 16 * j);
            q3_k_relative_scales(scale, &d, s.scale);
        }
        b->d = f32_to_f16(d);
        q3_k_store_scales(b->scales, scale);
        for (int j = 0; j < 16; j++)
            round_signed(s.codes + 16 * j, x + 16 * j, 16, f16_round(d) * (float)(scale[j] - 32), 4);
        pack_bit_planes(b->high, s.codes, 2);
        pack_two_bits(b->q, s.codes);
    }
}

/* The common part of q4_k and q5_k: scales and codes of 8 groups of 32; the caller packs the codes. */
static void encode_eight_groups(struct super_block *s, uint16_t *d_bits, uint16_t *dmin_bits,
                                uint8_t scales[12], const float *x, const float *importance,
                                const struct asym_plan *plan)
{
    uint8_t scale[8], min[8];
    float d, dmin;
    if (importance) {
        const float mean_square = 2 * sum_squares(x, 256) / 256;
        search_groups(s, x, importance, mean_square, 32, plan, NULL);
        d = search_positive(8, 63, s->scale, s->weight, scale);
        dmin = search_positive(8, 63, s->offset, s->weight, min);
    } else {
        search_groups(s, x, NULL, 0, 32, plan, weights_rms_magnitude);
        d = relative_codes(scale, s->scale, 8, 63.0f);
        dmin = relative_codes(min, s->offset, 8, 63.0f);
    }
    cap_six_bits(scale, min, importance != NULL, plan->levels);
    *d_bits = f32_to_f16(d);
    *dmin_bits = f32_to_f16(dmin);
    k_store_scale_min(scales, scale, min);
    for (int j = 0; j < 8; j++) {
        uint8_t stored_scale, stored_min;
        k_scale_min(scales, (unsigned)j, &stored_scale, &stored_min);
        round_offset(s->codes + 32 * j, x + 32 * j, 32, f16_round(d) * (float)stored_scale,
                     f16_round(dmin) * (float)stored_min, plan->levels);
    }
}

void q4_k_encode(void *dst, const float *src, size_t n_cols, const float *importance)
{
    struct q4_k_block *b = dst;
    for (size_t k = 0; k < n_cols; k += 256, b++) {
        struct super_block s;
        uint16_t d, dmin;
        encode_eight_groups(&s, &d, &dmin, b->scales, src + k, importance ? importance + k : NULL,
                            importance ? &plan_q4_k : &plan_q4_k_plain);
        b->d = d;
        b->dmin = dmin;
        pack_low_nibbles(b->q, s.codes);
    }
}

void q5_k_encode(void *dst, const float *src, size_t n_cols, const float *importance)
{
    struct q5_k_block *b = dst;
    for (size_t k = 0; k < n_cols; k += 256, b++) {
        struct super_block s;
        uint16_t d, dmin;
        encode_eight_groups(&s, &d, &dmin, b->scales, src + k, importance ? importance + k : NULL,
                            importance ? &plan_q5_k : &plan_q5_k_plain);
        b->d = d;
        b->dmin = dmin;
        pack_bit_planes(b->high, s.codes, 4);
        pack_low_nibbles(b->q, s.codes);
    }
}

void q6_k_encode(void *dst, const float *src, size_t n_cols, const float *importance)
{
    struct q6_k_block *b = dst;
    for (size_t k = 0; k < n_cols; k += 256, b++) {
        const float *x = src + k;
        struct super_block s;
        for (int j = 0; j < 16; j++)
            s.scale[j] = search_symmetric(16, 32, x + 16 * j, importance ? importance + k + 16 * j : NULL,
                                          s.codes + 16 * j);
        const float max = signed_largest(s.scale, 16);
        if (fabsf(max) < GROUP_ZERO) {
            memset(b, 0, sizeof *b);
            continue;
        }
        float d;
        q6_k_relative_scales(b->scales, &d, s.scale, max);
        b->d = f32_to_f16(d);
        for (int j = 0; j < 16; j++)
            round_signed(s.codes + 16 * j, x + 16 * j, 16, f16_round(d) * (float)b->scales[j], 32);
        q6_k_pack(b, s.codes);
    }
}
