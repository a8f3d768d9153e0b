/* lanes_avx512.h - sixteen lanes of AVX-512 under the names that lanes_search.h and lanes_encode.h use.
 *
 * Plain arithmetic is written with the compiler's vector operators (+ - * / & on lf and li); here is only
 * what they cannot say. min and max are those of x86: min(a, b) = a < b ? a : b, second operand on NaN or
 * ties. */
#ifndef KERF_LANES_AVX512_H
#define KERF_LANES_AVX512_H

#include <immintrin.h>
#include <stdbool.h>
#include <stdint.h>

enum { LANES = 16 };
typedef __m512 lf;                                    /* a float per lane          */
typedef int32_t li __attribute__((vector_size(64)));  /* an int per lane           */
typedef uint32_t lu __attribute__((vector_size(64))); /* the same without sign */
typedef __mmask16 lm;                                 /* a bit per lane            */
typedef uint8_t b16 __attribute__((vector_size(16))); /* 16 bytes */
enum { TILE_ROWS = 12, TILE_VECTORS = 2 }; /* 24 sums, 2 columns and a row fill 27 of 32 registers */

static inline lf lf_all(float v)
{
    return _mm512_set1_ps(v);
}
static inline li li_all(int32_t v)
{
    return (li)_mm512_set1_epi32(v);
}
static inline lf lf_load(const float *p)
{
    return _mm512_loadu_ps(p);
}
static inline void lf_store(float *p, lf v)
{
    _mm512_storeu_ps(p, v);
}
static inline lf lf_min(lf a, lf b)
{
    return _mm512_min_ps(a, b);
}
static inline lf lf_max(lf a, lf b)
{
    return _mm512_max_ps(a, b);
}
static inline lf lf_abs(lf v)
{
    return _mm512_andnot_ps(_mm512_set1_ps(-0.0f), v);
}
static inline lf lf_neg(lf v)
{
    return _mm512_xor_ps(_mm512_set1_ps(-0.0f), v);
}
static inline lf lf_sqrt(lf v)
{
    return _mm512_sqrt_ps(v);
}
static inline lf lf_from(li v)
{
    return _mm512_cvtepi32_ps((__m512i)v);
}
static inline li li_bits(lf v)
{
    return (li)_mm512_castps_si512(v);
}
static inline lf lf_of_bits(li v)
{
    return _mm512_castsi512_ps((__m512i)v);
}
static inline li li_trunc(lf v) /* INT32_MIN where it does not fit */
{
    return (li)_mm512_cvttps_epi32(v);
}
static inline li li_min(li a, li b)
{
    return (li)_mm512_min_epi32((__m512i)a, (__m512i)b);
}
static inline li li_max(li a, li b)
{
    return (li)_mm512_max_epi32((__m512i)a, (__m512i)b);
}
static inline lm lm_gt(lf a, lf b) /* false on NaN, as all comparisons here */
{
    return _mm512_cmp_ps_mask(a, b, _CMP_GT_OQ);
}
static inline lm lm_ge(lf a, lf b)
{
    return _mm512_cmp_ps_mask(a, b, _CMP_GE_OQ);
}
static inline lm lm_eq(lf a, lf b)
{
    return _mm512_cmp_ps_mask(a, b, _CMP_EQ_OQ);
}
static inline lm lm_not_lt(lf a, lf b) /* true on NaN */
{
    return _mm512_cmp_ps_mask(a, b, _CMP_NLT_UQ);
}
static inline lm lm_ne_int(li a, li b)
{
    return _mm512_cmpneq_epi32_mask((__m512i)a, (__m512i)b);
}
static inline lm lm_and(lm a, lm b)
{
    return (lm)(a & b);
}
static inline lm lm_or(lm a, lm b)
{
    return (lm)(a | b);
}
static inline lm lm_and_not(lm a, lm b) /* a and not b */
{
    return (lm)(a & ~b);
}
static inline lm lm_none(void)
{
    return 0;
}
static inline unsigned lm_bits(lm m) /* bit i: lane i */
{
    return m;
}
static inline lf lf_pick(lm m, lf yes, lf no)
{
    return _mm512_mask_blend_ps(m, no, yes);
}
static inline li li_pick(lm m, li yes, li no)
{
    return (li)_mm512_mask_blend_epi32(m, (__m512i)no, (__m512i)yes);
}
/* Lane i gets table[index[i]], index 0..7. */
static inline lf lf_lookup8(const float table[8], li index)
{
    return _mm512_permutexvar_ps((__m512i)index, _mm512_castps256_ps512(_mm256_loadu_ps(table)));
}
static inline void lb_store(uint8_t *p, li v) /* the low byte of each lane */
{
    _mm_storeu_si128((__m128i *)(void *)p, _mm512_cvtepi32_epi8((__m512i)v));
}
static inline li li_load_i8(const int8_t *p)
{
    return (li)_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)(const void *)p));
}
static inline li li_load_u16(const uint8_t *p)
{
    return (li)_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)(const void *)p));
}
static inline void li_store_u16(uint8_t *p, li v) /* 0 <= v < 65536 */
{
    _mm256_storeu_si256((__m256i *)(void *)p, _mm512_cvtepi32_epi16((__m512i)v));
}
static inline lf lf_load_f16(const uint8_t *p)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)p));
}
static inline void lf_store_f16(uint8_t *p, lf v)
{
    _mm256_storeu_si256((__m256i *)(void *)p, _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
}
/* Byte i gets table[index[i]], index 0..15. */
static inline b16 b16_lookup(b16 table, b16 index)
{
    return (b16)_mm_shuffle_epi8((__m128i)table, (__m128i)index);
}

static inline lf lf_fused(lf a, lf b, lf c) /* a * b + c, rounded once */
{
    return _mm512_fmadd_ps(a, b, c);
}
/* Rows become columns: in pairs, in fours, then whole quarters of vectors change places. */
static inline void lf_transpose(lf v[16])
{
    lf four[4][4]; /* [rows 4g..4g+3][j]: quarter q holds column 4q + j */
    for (int g = 0; g < 4; g++) {
        const lf *r = v + 4 * g;
        lf low01 = _mm512_unpacklo_ps(r[0], r[1]), high01 = _mm512_unpackhi_ps(r[0], r[1]);
        lf low23 = _mm512_unpacklo_ps(r[2], r[3]), high23 = _mm512_unpackhi_ps(r[2], r[3]);
        four[g][0] = _mm512_shuffle_ps(low01, low23, 0x44);
        four[g][1] = _mm512_shuffle_ps(low01, low23, 0xee);
        four[g][2] = _mm512_shuffle_ps(high01, high23, 0x44);
        four[g][3] = _mm512_shuffle_ps(high01, high23, 0xee);
    }
    for (int j = 0; j < 4; j++) {
        lf even01 = _mm512_shuffle_f32x4(four[0][j], four[1][j], 0x88);
        lf odd01 = _mm512_shuffle_f32x4(four[0][j], four[1][j], 0xdd);
        lf even23 = _mm512_shuffle_f32x4(four[2][j], four[3][j], 0x88);
        lf odd23 = _mm512_shuffle_f32x4(four[2][j], four[3][j], 0xdd);
        v[j] = _mm512_shuffle_f32x4(even01, even23, 0x88);
        v[4 + j] = _mm512_shuffle_f32x4(odd01, odd23, 0x88);
        v[8 + j] = _mm512_shuffle_f32x4(even01, even23, 0xdd);
        v[12 + j] = _mm512_shuffle_f32x4(odd01, odd23, 0xdd);
    }
}

#endif
