/* legacy.h - the 32-weight formats: q4_0, q4_1, q5_0, q5_1, q8_0 (and q8_1, which only activations use).
 *
 * Nibble order is "split halves" in all of them: byte i of `q` holds weight i in its low and weight i+16 in
 * its high nibble. Decoders and encoders have the kernel signatures of kern/kern.h and define the bytes.
 * Specification: quantization 3.2, 4.2, 4.3. */
#ifndef KERF_LEGACY_H
#define KERF_LEGACY_H

#include "packed.h"

#include <stddef.h>
#include <stdint.h>

struct KERF_PACKED q4_0_block { /* w = d * (q - 8) */
    uint16_t d;                 /* f16 */
    uint8_t q[16];
};
_Static_assert(sizeof(struct q4_0_block) == 18, "q4_0 layout is fixed by the file format");

struct KERF_PACKED q4_1_block { /* w = d * q + m */
    uint16_t d, m;              /* f16 */
    uint8_t q[16];
};
_Static_assert(sizeof(struct q4_1_block) == 20, "q4_1 layout is fixed by the file format");

struct KERF_PACKED q5_0_block { /* w = d * (q - 16) */
    uint16_t d;                 /* f16 */
    uint32_t high;              /* bit i: fifth bit of weight i */
    uint8_t q[16];
};
_Static_assert(sizeof(struct q5_0_block) == 22, "q5_0 layout is fixed by the file format");

struct KERF_PACKED q5_1_block { /* w = d * q + m */
    uint16_t d, m;              /* f16 */
    uint32_t high;
    uint8_t q[16];
};
_Static_assert(sizeof(struct q5_1_block) == 24, "q5_1 layout is fixed by the file format");

struct KERF_PACKED q8_0_block { /* w = d * q */
    uint16_t d;                 /* f16 */
    int8_t q[32];
};
_Static_assert(sizeof(struct q8_0_block) == 34, "q8_0 layout is fixed by the file format");

struct KERF_PACKED q8_1_block { /* activations; s = d * sum(q) */
    uint16_t d, s;              /* f16 */
    int8_t q[32];
};
_Static_assert(sizeof(struct q8_1_block) == 36, "q8_1 layout is fixed by its readers");

void q4_0_decode(float *dst, const void *src, size_t n_cols);
void q4_1_decode(float *dst, const void *src, size_t n_cols);
void q5_0_decode(float *dst, const void *src, size_t n_cols);
void q5_1_decode(float *dst, const void *src, size_t n_cols);
void q8_0_decode(float *dst, const void *src, size_t n_cols);

void q4_0_encode(void *dst, const float *src, size_t n_cols, const float *importance);
void q4_1_encode(void *dst, const float *src, size_t n_cols, const float *importance);
void q5_0_encode(void *dst, const float *src, size_t n_cols, const float *importance);
void q5_1_encode(void *dst, const float *src, size_t n_cols, const float *importance);
void q8_0_encode(void *dst, const float *src, size_t n_cols, const float *importance);

#endif
