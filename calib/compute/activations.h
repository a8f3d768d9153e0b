/* activations.h - what the inputs of products are rounded to.
 *
 * kerf multiplies float32 by default. The llama.cpp CPU runtime rounds the left side of every product to the
 * partner type of the weights (8-bit blocks for all quantized types), and keeps keys, values and queries of
 * attention in F16. ACTIVATIONS_Q8 reproduces that, so that its published figures can be compared. Facts:
 * ggml type traits (`vec_dot_type`) and quantize_row_q8_* of August 2026. */
#ifndef KERF_ACTIVATIONS_H
#define KERF_ACTIVATIONS_H

#include "libquant/types.h"

#include <stdbool.h>

enum activations { ACTIVATIONS_F32, ACTIVATIONS_Q8 };

enum rounding {
    ROUND_NONE,
    ROUND_F16,
    ROUND_BF16,
    ROUND_Q8_0, /* blocks of 32, F16 scale, for the 32-blocks and Q1_0, Q2_0, MXFP4, NVFP4, IQ4_NL */
    ROUND_Q8_K, /* blocks of 256, F32 scale, for k-quants, the other i-quants and ternary types */
};

/* What a product with weights of this type does to its input. */
enum rounding rounding_of(enum activations a, enum qtype weight_type);

/* dst[i] = src[i] after the rounding; n a multiple of the block or the tail stays as it is. `dst` may be
 * `src`. */
void round_row(enum rounding r, float *dst, const float *src, size_t n);

/* The llama.cpp CPU runtime keeps the scale of a block of 32 in F16, and beside weights with a minimum (Q4_1,
 * Q5_1) the sum of its values. The largest magnitude of either among n rounded values, to be compared with
 * F16_MAX; what is beyond is infinite there, and the product not a number. */
float round_q8_extent(const float *rounded, size_t n, bool with_sums);

#endif
