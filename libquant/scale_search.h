/* scale_search.h - the searches for scale, min and codes of one group of weights.
 *
 * Every encoder with a scale per group solves the same small problem: given n numbers x and weights w, find
 * integer codes l and a scale s (and an offset) so that sum w (x - s l)^2 is small. For fixed codes the best
 * scale is a division; the codes for a fixed scale are a rounding; the searches alternate the two over a
 * short list of trial scales. The derivations stand above each function in scale_search.c.
 *
 * These functions define file bytes: they repeat the float32 operations of the reference one by one, in its
 * order, also where a sum overflows or a step divides by something tiny. The vector kernels in kern/ are held
 * to them. Specification: quantization 4.1, 4.5, 4.8. */
#ifndef KERF_SCALE_SEARCH_H
#define KERF_SCALE_SEARCH_H

#include "half.h"

#include <stdbool.h>
#include <stdint.h>

/* Groups whose largest magnitude is below this are taken as all zero. */
#define GROUP_ZERO 1e-15f

/* Nearest integer, ties to even, for |v| < 2^22: adding 1.5 * 2^23 leaves the integer in the low mantissa
 * bits. Beyond that range the result is what those bits happen to be (0 for NaN), defined but meaningless;
 * callers clamp it. */
static inline int32_t round_near(float v)
{
    return (int32_t)(f32_bits(v + 12582912.0f) & 0x007fffffu) - 0x00400000;
}

/* Conversion towards zero. What C leaves undefined (NaN, outside of int32) gives INT32_MIN, the answer of the
 * x86 instruction and so of the reference. */
static inline int32_t trunc_i32(float v)
{
    return v >= -2147483648.0f && v < 2147483648.0f ? (int32_t)v : INT32_MIN;
}

static inline int32_t clamp_i32(int32_t v, int32_t low, int32_t high)
{
    return v < low ? low : v > high ? high : v;
}

/* How to search an asymmetric group: trial k = 0..n_steps maps the range to `levels + first + step*k` steps.
 */
struct asym_plan {
    int levels; /* codes 0..levels */
    float first, step;
    int n_steps;
    bool absolute; /* judge by sum w |error| instead of sum w error^2 */
};

/* Codes stored as l + levels, l in [-levels, levels); value = scale * l. Returns the scale.
 * `w` NULL: weights x^2. n <= 32. */
float search_symmetric(int n, int levels, const float *x, const float *w, uint8_t *codes);

/* Codes 0..levels; value = scale * code - *offset, *offset >= 0. Returns the scale. n <= 32. */
float search_asymmetric(int n, const struct asym_plan *plan, const float *x, const float *w, uint8_t *codes,
                        float *offset);

/* For numbers x >= 0, codes 0..levels with value = scale * code: the scales (or offsets) of a super-block.
 * Returns the scale. n <= 32. */
float search_positive(int n, int levels, const float *x, const float *w, uint8_t *codes);

/* As search_symmetric with weights x^2, by single-code moves instead of trial scales. n <= 32. */
float search_moves(int n, int levels, const float *x, uint8_t *codes);

/* Index of the nearest of the 16 levels of iq4_nl; a tie goes to the upper one. */
uint8_t iq4_nearest(float v);

/* Scale of a group of n weights on the iq4 levels: value = scale * level. The caller derives the codes. */
float search_iq4(int n, const float *x, const float *w);

#endif
