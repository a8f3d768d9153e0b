/* ternary.h - formats of one to two bits without sub-scales: tq1_0, tq2_0 (ternary), q1_0 (signs), q2_0 (four
 * levels).
 *
 * Meant for models trained to such weights. Decoders and encoders have the kernel signatures of kern/kern.h
 * and define the bytes; importance is ignored. Specification: quantization 3.3, 3.13, 4.2, 4.10. */
#ifndef KERF_TERNARY_H
#define KERF_TERNARY_H

#include "packed.h"

#include <stddef.h>
#include <stdint.h>

struct KERF_PACKED tq1_0_block { /* 256 weights, w = d * (t - 1) */
    uint8_t q[48];               /* five trits each */
    uint8_t tail[4];             /* four trits each */
    uint16_t d;                  /* f16 */
};
_Static_assert(sizeof(struct tq1_0_block) == 54, "tq1_0 layout is fixed by the file format");

struct KERF_PACKED tq2_0_block { /* 256 weights, w = d * (q - 1) */
    uint8_t q[64];               /* byte 32*(i/128) + i%32, bits 2*((i%128)/32) */
    uint16_t d;                  /* f16 */
};
_Static_assert(sizeof(struct tq2_0_block) == 66, "tq2_0 layout is fixed by the file format");

struct KERF_PACKED q1_0_block { /* 128 weights, d or -d */
    uint16_t d;                 /* f16 */
    uint8_t q[16];              /* bit i: weight i is not negative */
};
_Static_assert(sizeof(struct q1_0_block) == 18, "q1_0 layout is fixed by the file format");

struct KERF_PACKED q2_0_block { /* 64 weights, w = d * (q - 1) */
    uint16_t d;                 /* f16 */
    uint8_t q[16];              /* byte i/4, bits 2*(i%4) */
};
_Static_assert(sizeof(struct q2_0_block) == 18, "q2_0 layout is fixed by the file format");

void tq1_0_decode(float *dst, const void *src, size_t n_cols);
void tq2_0_decode(float *dst, const void *src, size_t n_cols);
void q1_0_decode(float *dst, const void *src, size_t n_cols);
void q2_0_decode(float *dst, const void *src, size_t n_cols);

void tq1_0_encode(void *dst, const float *src, size_t n_cols, const float *importance);
void tq2_0_encode(void *dst, const float *src, size_t n_cols, const float *importance);
void q1_0_encode(void *dst, const float *src, size_t n_cols, const float *importance);
void q2_0_encode(void *dst, const float *src, size_t n_cols, const float *importance);

#endif
