/* kquants.h - the super-block formats q2_k to q6_k: 256 weights with a two-level scale (and q8_k, which only
 * activations use).
 *
 * Decoders and encoders have the kernel signatures of kern/kern.h and define the bytes.
 * Specification: quantization 3.4 to 3.10, 4.4 to 4.7. */
#ifndef KERF_KQUANTS_H
#define KERF_KQUANTS_H

#include "packed.h"

#include <stddef.h>
#include <stdint.h>

struct KERF_PACKED q2_k_block { /* 16 groups of 16; w = d*scale * q - dmin*min */
    uint8_t scales[16];         /* low nibble: scale, high nibble: min of group j */
    uint8_t q[64];              /* 2 bits: byte 32*(i/128) + i%32, bits 2*((i%128)/32) */
    uint16_t d, dmin;           /* f16 */
};
_Static_assert(sizeof(struct q2_k_block) == 84, "q2_k layout is fixed by the file format");

struct KERF_PACKED q3_k_block { /* 16 groups of 16; w = d*(scale - 32) * (q - 4) */
    uint8_t high[32];           /* third bit: byte i%32, bit i/32 */
    uint8_t q[64];              /* low 2 bits, placed as in q2_k */
    uint8_t scales[12];         /* 6 bits: low 4 in [0,8) as two nibbles, high 2 in [8,12) */
    uint16_t d;                 /* f16 */
};
_Static_assert(sizeof(struct q3_k_block) == 110, "q3_k layout is fixed by the file format");

struct KERF_PACKED q4_k_block { /* 8 groups of 32; w = d*scale * q - dmin*min */
    uint16_t d, dmin;           /* f16 */
    uint8_t scales[12];         /* see k_scale_min */
    uint8_t q[128];             /* byte 32*(i/64) + i%32, nibble (i/32)%2 */
};
_Static_assert(sizeof(struct q4_k_block) == 144, "q4_k layout is fixed by the file format");

struct KERF_PACKED q5_k_block { /* as q4_k with a fifth bit */
    uint16_t d, dmin;           /* f16 */
    uint8_t scales[12];
    uint8_t high[32]; /* byte i%32, bit i/32 */
    uint8_t q[128];
};
_Static_assert(sizeof(struct q5_k_block) == 176, "q5_k layout is fixed by the file format");

struct KERF_PACKED q6_k_block { /* 16 groups of 16; w = (d*scale) * (q - 32) */
    uint8_t low[128];           /* low nibbles: byte 64*(i/128) + i%64, nibble (i%128)/64 */
    uint8_t high[64];           /* high 2 bits: byte 32*(i/128) + i%32, bits 2*((i%128)/32) */
    int8_t scales[16];
    uint16_t d; /* f16 */
};
_Static_assert(sizeof(struct q6_k_block) == 210, "q6_k layout is fixed by the file format");

struct KERF_PACKED q8_k_block { /* activations; w = d * q */
    float d;
    int8_t q[256];
    int16_t sums[16]; /* of 16 codes each */
};
_Static_assert(sizeof(struct q8_k_block) == 292, "q8_k layout is fixed by its readers");

/* Scale and min of group j (0..7) from the 12 packed bytes of q4_k and q5_k:
 *
 *     bytes 0..3   [scale j+4, bits 5..4][scale j,   bits 5..0]
 *     bytes 4..7   [min   j+4, bits 5..4][min   j,   bits 5..0]      j = byte - 4
 *     bytes 8..11  [min   j+4, bits 3..0][scale j+4, bits 3..0]      j = byte - 8 */
static inline void k_scale_min(const uint8_t s[12], unsigned j, uint8_t *scale, uint8_t *min)
{
    if (j < 4) {
        *scale = s[j] & 63;
        *min = s[j + 4] & 63;
    } else {
        *scale = (uint8_t)((s[j + 4] & 15) | (s[j - 4] >> 6) << 4);
        *min = (uint8_t)((s[j + 4] >> 4) | (s[j] >> 6) << 4);
    }
}

/* The 6-bit scale of group j (0..15) of q3_k, 0..63; 32 stands for zero. */
static inline uint8_t q3_k_scale(const uint8_t s[12], unsigned j)
{
    const unsigned low = j < 8 ? s[j] & 15u : s[j - 8] >> 4;
    return (uint8_t)(low | (s[8 + j % 4] >> 2 * (j / 4) & 3u) << 4);
}

void q2_k_decode(float *dst, const void *src, size_t n_cols);
void q3_k_decode(float *dst, const void *src, size_t n_cols);
void q4_k_decode(float *dst, const void *src, size_t n_cols);
void q5_k_decode(float *dst, const void *src, size_t n_cols);
void q6_k_decode(float *dst, const void *src, size_t n_cols);

void q2_k_encode(void *dst, const float *src, size_t n_cols, const float *importance);
void q3_k_encode(void *dst, const float *src, size_t n_cols, const float *importance);
void q4_k_encode(void *dst, const float *src, size_t n_cols, const float *importance);
void q5_k_encode(void *dst, const float *src, size_t n_cols, const float *importance);
void q6_k_encode(void *dst, const float *src, size_t n_cols, const float *importance);

#endif
