/* iquants.h - the code book formats (iq1, iq2, iq3) and the non-linear 4-bit ones (iq4_nl, iq4_xs).
 *
 * A code book format stores indices into a fixed table of 8 (iq1, iq2) or 4 (iq3) magnitudes; iquants_grid.h
 * holds the tables. Decoders have the kernel signature of kern/kern.h and define the values.
 * Specification: quantization 3.11, 3.12, 4.8, 4.11. */
#ifndef KERF_IQUANTS_H
#define KERF_IQUANTS_H

#include "packed.h"

#include <stddef.h>
#include <stdint.h>

struct KERF_PACKED iq2_xxs_block {
    uint16_t d; /* f16 */
    struct KERF_PACKED {
        uint8_t index[4]; /* one per 8 weights */
        uint32_t aux;     /* 4 x 7 sign bits, then a 4-bit scale */
    } group[8];           /* of 32 weights */
};
_Static_assert(sizeof(struct iq2_xxs_block) == 66, "iq2_xxs layout is fixed by the file format");

struct KERF_PACKED iq2_xs_block {
    uint16_t d;        /* f16 */
    uint16_t q[32];    /* 9 index bits, 7 sign bits */
    uint8_t scales[8]; /* 4 bits per 16 weights */
};
_Static_assert(sizeof(struct iq2_xs_block) == 74, "iq2_xs layout is fixed by the file format");

struct KERF_PACKED iq2_s_block {
    uint16_t d;        /* f16 */
    uint8_t q[32];     /* low 8 index bits */
    uint8_t signs[32]; /* bit b: weight b of the 8 is negative */
    uint8_t high[8];   /* high 2 index bits, four to a byte */
    uint8_t scales[8]; /* 4 bits per 16 weights */
};
_Static_assert(sizeof(struct iq2_s_block) == 82, "iq2_s layout is fixed by the file format");

struct KERF_PACKED iq3_xxs_block {
    uint16_t d;      /* f16 */
    uint8_t q[64];   /* index, one per 4 weights */
    uint32_t aux[8]; /* per 32 weights: 4 x 7 sign bits, then a 4-bit scale */
};
_Static_assert(sizeof(struct iq3_xxs_block) == 98, "iq3_xxs layout is fixed by the file format");

struct KERF_PACKED iq3_s_block {
    uint16_t d;        /* f16 */
    uint8_t q[64];     /* low 8 index bits, one per 4 weights */
    uint8_t high[8];   /* ninth index bit */
    uint8_t signs[32]; /* one bit per weight */
    uint8_t scales[4]; /* 4 bits per 32 weights */
};
_Static_assert(sizeof(struct iq3_s_block) == 110, "iq3_s layout is fixed by the file format");

struct KERF_PACKED iq1_s_block {
    uint16_t d;       /* f16 */
    uint8_t q[32];    /* low 8 index bits, one per 8 weights */
    uint16_t high[8]; /* per 32 weights: 4 x 3 index bits, 3-bit scale, sign of the shift */
};
_Static_assert(sizeof(struct iq1_s_block) == 50, "iq1_s layout is fixed by the file format");

struct KERF_PACKED iq1_m_block {
    uint8_t q[32];      /* low 8 index bits */
    uint8_t high[16];   /* nibble per 8 weights: 3 index bits, sign of the shift */
    uint16_t scales[4]; /* 4 x 3-bit scales each; the top nibbles together are the f16 scale d */
};
_Static_assert(sizeof(struct iq1_m_block) == 56, "iq1_m layout is fixed by the file format");

struct KERF_PACKED iq4_nl_block { /* w = d * iq4_levels[q], 32 weights, split halves as q4_0 */
    uint16_t d;                   /* f16 */
    uint8_t q[16];
};
_Static_assert(sizeof(struct iq4_nl_block) == 18, "iq4_nl layout is fixed by the file format");

struct KERF_PACKED iq4_xs_block { /* 8 groups of 32; w = d * (scale - 32) * iq4_levels[q] */
    uint16_t d;                   /* f16 */
    uint16_t scales_high;         /* 2 bits per group */
    uint8_t scales_low[4];        /* 4 bits per group */
    uint8_t q[128];               /* 16 bytes per group, split halves */
};
_Static_assert(sizeof(struct iq4_xs_block) == 136, "iq4_xs layout is fixed by the file format");

/* The binary16 scale that an iq1_m block spreads over the top nibbles of its four scale words. */
static inline uint16_t iq1_m_scale_bits(const struct iq1_m_block *b)
{
    return (uint16_t)(b->scales[0] >> 12 | (b->scales[1] >> 12) << 4 | (b->scales[2] >> 12) << 8 |
                      (b->scales[3] >> 12) << 12);
}

/* The 6-bit scale of group j (0..7) of iq4_xs; 32 stands for zero. */
static inline unsigned iq4_xs_scale(const struct iq4_xs_block *b, unsigned j)
{
    return (b->scales_low[j / 2] >> 4 * (j % 2) & 15u) | (b->scales_high >> 2 * j & 3u) << 4;
}

/* The 16 levels of iq4_nl and iq4_xs, rising. */
extern const int8_t iq4_levels[16];

void iq1_s_decode(float *dst, const void *src, size_t n_cols);
void iq1_m_decode(float *dst, const void *src, size_t n_cols);
void iq2_xxs_decode(float *dst, const void *src, size_t n_cols);
void iq2_xs_decode(float *dst, const void *src, size_t n_cols);
void iq2_s_decode(float *dst, const void *src, size_t n_cols);
void iq3_xxs_decode(float *dst, const void *src, size_t n_cols);
void iq3_s_decode(float *dst, const void *src, size_t n_cols);
void iq4_nl_decode(float *dst, const void *src, size_t n_cols);
void iq4_xs_decode(float *dst, const void *src, size_t n_cols);

/* iq1_s, iq2_xxs and iq2_xs need importance; the others do without. */
void iq1_s_encode(void *dst, const float *src, size_t n_cols, const float *importance);
void iq1_m_encode(void *dst, const float *src, size_t n_cols, const float *importance);
void iq2_xxs_encode(void *dst, const float *src, size_t n_cols, const float *importance);
void iq2_xs_encode(void *dst, const float *src, size_t n_cols, const float *importance);
void iq2_s_encode(void *dst, const float *src, size_t n_cols, const float *importance);
void iq3_xxs_encode(void *dst, const float *src, size_t n_cols, const float *importance);
void iq3_s_encode(void *dst, const float *src, size_t n_cols, const float *importance);
void iq4_nl_encode(void *dst, const float *src, size_t n_cols, const float *importance);
void iq4_xs_encode(void *dst, const float *src, size_t n_cols, const float *importance);

#endif
