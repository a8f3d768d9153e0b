/* activations.c - see activations.h. The sums that q4_1 and q5_1 products keep in F16 are not imitated: their
 * effect is below one part in two thousand of the minimum term, until they overflow, which round_q8_extent
 * tells. */
#include "activations.h"

#include "libquant/half.h"

#include <math.h>
#include <string.h>

enum rounding rounding_of(enum activations a, enum qtype weight_type)
{
    if (a == ACTIVATIONS_F32)
        return ROUND_NONE;
    switch (weight_type) {
    case QTYPE_F16: return ROUND_F16;
    case QTYPE_BF16: return ROUND_BF16;
    case QTYPE_Q4_0:
    case QTYPE_Q4_1:
    case QTYPE_Q5_0:
    case QTYPE_Q5_1:
    case QTYPE_Q8_0:
    case QTYPE_Q1_0:
    case QTYPE_Q2_0:
    case QTYPE_MXFP4:
    case QTYPE_NVFP4:
    case QTYPE_IQ4_NL: return ROUND_Q8_0;
    default: {
        const struct qtype_info *info = qtype_info(weight_type);
        return info && info->is_quantized ? ROUND_Q8_K : ROUND_NONE;
    }
    }
}

static void round_q8_0(float *dst, const float *src)
{
    float largest = 0;
    for (int i = 0; i < 32; i++)
        largest = fmaxf(largest, fabsf(src[i]));
    float scale = f16_round(largest / 127.0f), inverse = largest != 0 ? 127.0f / largest : 0;
    for (int i = 0; i < 32; i++)
        dst[i] = rintf(src[i] * inverse) * scale;
}

/* The element of largest magnitude becomes -127 exactly. */
static void round_q8_k(float *dst, const float *src)
{
    float largest = 0, extreme = 0;
    for (int i = 0; i < 256; i++)
        if (fabsf(src[i]) > largest) {
            largest = fabsf(src[i]);
            extreme = src[i];
        }
    if (largest == 0) {
        memset(dst, 0, 256 * sizeof *dst);
        return;
    }
    float inverse = -127.0f / extreme, scale = 1.0f / inverse;
    for (int i = 0; i < 256; i++)
        dst[i] = fminf(127.0f, rintf(inverse * src[i])) * scale;
}

float round_q8_extent(const float *rounded, size_t n, bool with_sums)
{
    float extent = 0;
    for (size_t i = 0; i + 32 <= n; i += 32) {
        float sum = 0, largest = 0;
        for (size_t j = i; j < i + 32; j++) {
            sum += rounded[j];
            largest = fmaxf(largest, fabsf(rounded[j]));
            if (isnan(rounded[j])) /* 0 times an infinite scale */
                largest = INFINITY;
        }
        extent = fmaxf(extent, largest / 127.0f);
        if (with_sums)
            extent = fmaxf(extent, fabsf(sum));
    }
    return extent;
}

void round_row(enum rounding r, float *dst, const float *src, size_t n)
{
    size_t i = 0;
    switch (r) {
    case ROUND_F16:
        for (; i < n; i++)
            dst[i] = f16_round(src[i]);
        return;
    case ROUND_BF16:
        for (; i < n; i++)
            dst[i] = bf16_to_f32(f32_to_bf16(src[i]));
        return;
    case ROUND_Q8_0:
        for (; i + 32 <= n; i += 32)
            round_q8_0(dst + i, src + i);
        break;
    case ROUND_Q8_K:
        for (; i + 256 <= n; i += 256)
            round_q8_k(dst + i, src + i);
        break;
    case ROUND_NONE: break;
    }
    if (dst != src)
        memcpy(dst + i, src + i, (n - i) * sizeof *dst);
}
