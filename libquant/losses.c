/* losses.c - what the type of a tensor cannot hold: factors that bring weights into its range, and a count of
 * the blocks that are out of it all the same.
 *
 * A scale that is too small for its field becomes zero, and its block with it; one that is too large stays at
 * the largest there is, and the weights above it are clipped. Encoders write what the peer writes; here it is
 * seen that they did. Scales that are infinite are quant_validate's matter. */
#include "quant.h"

#include <float.h>
#include <math.h>
#include <string.h>

/* 6, the largest level, times 448, the largest scale of a group of 16. */
#define NVFP4_LARGEST (6.0f * 448.0f)

bool quant_has_factor(enum qtype type)
{
    return type == QTYPE_NVFP4;
}

float quant_factor(enum qtype type, float amax)
{
    if (!quant_has_factor(type) || !(amax > 0))
        return 1;
    const float factor = amax / NVFP4_LARGEST;
    return factor > FLT_MIN ? factor : FLT_MIN;
}

static float largest_magnitude(const float *x, size_t n)
{
    float m = 0;
    for (size_t i = 0; i < n; i++)
        m = fabsf(x[i]) > m ? fabsf(x[i]) : m;
    return m;
}

/* Two values without their signs. */
static inline uint64_t magnitudes(const float *x)
{
    uint64_t bits;
    memcpy(&bits, x, sizeof bits);
    return bits & UINT64_C(0x7fffffff7fffffff);
}

/* Zeros of either sign; n is a multiple of 8. Most blocks show by their first value that they are not. */
static inline bool is_zero(const float *x, size_t n)
{
    if (x[0] != 0)
        return false;
    for (size_t i = 0; i < n; i += 8)
        if (magnitudes(x + i) | magnitudes(x + i + 2) | magnitudes(x + i + 4) | magnitudes(x + i + 6))
            return false;
    return true;
}

/* Values of a row that 16 bits do not hold: below the normal numbers of F16 each has an error of its own.
 * Those below 2^-12 of the largest drown in its rounding. A value is off by an eighth only below 2^-21, so
 * most rows need no second look. */
static uint64_t count_flushed_values(const float *src, const float *decoded, size_t n)
{
    const float least = largest_magnitude(src, n) * 0x1p-12f;
    uint64_t found = 0;
    if (least >= 0x1p-21f)
        return 0;
    for (size_t i = 0; i < n; i++)
        found += fabsf(src[i]) > least && fabsf(decoded[i] - src[i]) > fabsf(src[i]) / 8;
    return found;
}

static bool is_clipped(const float *src, const float *decoded, size_t n)
{
    const float most = largest_magnitude(decoded, n);
    return most > 0 && largest_magnitude(src, n) > most * (7.0f / 6);
}

void quant_count_losses(struct quant_losses *sum, enum qtype type, const float *src, const float *decoded,
                        size_t n_cols)
{
    const struct qtype_info *info = qtype_info((uint32_t)type);
    const bool fp4 = type == QTYPE_NVFP4 || type == QTYPE_MXFP4;
    if (type == QTYPE_F32)
        return;
    if (!info->is_quantized) {
        sum->n_flushed += count_flushed_values(src, decoded, n_cols);
        return;
    }
    const size_t n = type == QTYPE_NVFP4 ? 16 : info->block_elems; /* columns of one scale */
    for (size_t i = 0; i + n <= n_cols; i += n) {
        sum->n_flushed += !is_zero(src + i, n) && is_zero(decoded + i, n);
        sum->n_clipped += fp4 && is_clipped(src + i, decoded + i, n);
    }
}
