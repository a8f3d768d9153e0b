/* fp4.h - 4-bit floats with small scales: mxfp4 (a power of two per 32) and nvfp4 (an e4m3 per 16).
 *
 * Decoders and encoders have the kernel signatures of kern/kern.h and define the bytes; importance is
 * ignored. Specification: quantization 3.14, 4.9. */
#ifndef KERF_FP4_H
#define KERF_FP4_H

#include "packed.h"

#include <stddef.h>
#include <stdint.h>

struct KERF_PACKED mxfp4_block { /* 32 weights, w = fp4_levels[q] * 2^(e-128) */
    uint8_t e;                   /* 255 is not allowed */
    uint8_t q[16];               /* split halves as q4_0 */
};
_Static_assert(sizeof(struct mxfp4_block) == 17, "mxfp4 layout is fixed by the file format");

struct KERF_PACKED nvfp4_block { /* 4 groups of 16, w = fp4_levels[q] * ue4m3_half_to_f32(scales[group]) */
    uint8_t scales[4];
    uint8_t q[32]; /* 8 bytes per group, split halves */
};
_Static_assert(sizeof(struct nvfp4_block) == 36, "nvfp4 layout is fixed by the file format");

/* Twice the values of the 16 e2m1 codes, so that they are integers. */
extern const int8_t fp4_levels[16];

void mxfp4_decode(float *dst, const void *src, size_t n_cols);
void nvfp4_decode(float *dst, const void *src, size_t n_cols);

/* Scale byte of an mxfp4 block for its largest magnitude: floor(log2(amax)) - 2, biased; 0 for 0. */
uint8_t mxfp4_exponent(float amax);

void mxfp4_encode(void *dst, const float *src, size_t n_cols, const float *importance);
void nvfp4_encode(void *dst, const float *src, size_t n_cols, const float *importance);

#endif
