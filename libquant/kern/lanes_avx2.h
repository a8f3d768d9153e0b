/* lanes_avx2.h - eight lanes of AVX2 under the names that lanes_search.h and lanes_encode.h use.
 *
 * Plain arithmetic is written with the compiler's vector operators (+ - * / & on lf and li); here is only
 * what they cannot say. min and max are those of x86: min(a, b) = a < b ? a : b, second operand on NaN or
 * ties. */
#ifndef KERF_LANES_AVX2_H
#define KERF_LANES_AVX2_H

#include <immintrin.h>
#include <stdbool.h>
#include <stdint.h>

enum { LANES = 8 };
typedef __m256 lf;                                    /* a float per lane          */
typedef int32_t li __attribute__((vector_size(32)));  /* an int per lane           */
typedef uint32_t lu __attribute__((vector_size(32))); /* the same without sign */
typedef __m256 lm;                                    /* a mask per lane, all bits */
typedef uint8_t b16 __attribute__((vector_size(16))); /* 16 bytes */
enum { TILE_ROWS = 6, TILE_VECTORS = 2 }; /* 12 sums, 2 columns and a row fill 15 of 16 registers */

static inline lf lf_all(float v)
{
    return _mm256_set1_ps(v);
}
static inline li li_all(int32_t v)
{
    return (li)_mm256_set1_epi32(v);
}
static inline lf lf_load(const float *p)
{
    return _mm256_loadu_ps(p);
}
static inline void lf_store(float *p, lf v)
{
    _mm256_storeu_ps(p, v);
}
static inline lf lf_min(lf a, lf b)
{
    return _mm256_min_ps(a, b);
}
static inline lf lf_max(lf a, lf b)
{
    return _mm256_max_ps(a, b);
}
static inline lf lf_abs(lf v)
{
    return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), v);
}
static inline lf lf_neg(lf v)
{
    return _mm256_xor_ps(_mm256_set1_ps(-0.0f), v);
}
static inline lf lf_sqrt(lf v)
{
    return _mm256_sqrt_ps(v);
}
static inline lf lf_from(li v)
{
    return _mm256_cvtepi32_ps((__m256i)v);
}
static inline li li_bits(lf v)
{
    return (li)_mm256_castps_si256(v);
}
static inline lf lf_of_bits(li v)
{
    return _mm256_castsi256_ps((__m256i)v);
}
static inline li li_trunc(lf v) /* INT32_MIN where it does not fit */
{
    return (li)_mm256_cvttps_epi32(v);
}
static inline li li_min(li a, li b)
{
    return (li)_mm256_min_epi32((__m256i)a, (__m256i)b);
}
static inline li li_max(li a, li b)
{
    return (li)_mm256_max_epi32((__m256i)a, (__m256i)b);
}
static inline lm lm_gt(lf a, lf b) /* false on NaN, as all comparisons here */
{
    return _mm256_cmp_ps(a, b, _CMP_GT_OQ);
}
static inline lm lm_ge(lf a, lf b)
{
    return _mm256_cmp_ps(a, b, _CMP_GE_OQ);
}
static inline lm lm_eq(lf a, lf b)
{
    return _mm256_cmp_ps(a, b, _CMP_EQ_OQ);
}
static inline lm lm_not_lt(lf a, lf b) /* true on NaN */
{
    return _mm256_cmp_ps(a, b, _CMP_NLT_UQ);
}
static inline lm lm_ne_int(li a, li b)
{
    return (lm)(a != b);
}
static inline lm lm_and(lm a, lm b)
{
    return _mm256_and_ps(a, b);
}
static inline lm lm_or(lm a, lm b)
{
    return _mm256_or_ps(a, b);
}
static inline lm lm_and_not(lm a, lm b) /* a and not b */
{
    return _mm256_andnot_ps(b, a);
}
static inline lm lm_none(void)
{
    return _mm256_setzero_ps();
}
static inline unsigned lm_bits(lm m) /* bit i: lane i */
{
    return (unsigned)_mm256_movemask_ps(m);
}
static inline lf lf_pick(lm m, lf yes, lf no)
{
    return _mm256_blendv_ps(no, yes, m);
}
static inline li li_pick(lm m, li yes, li no)
{
    return (li)_mm256_castps_si256(
        _mm256_blendv_ps(_mm256_castsi256_ps((__m256i)no), _mm256_castsi256_ps((__m256i)yes), m));
}
/* Lane i gets table[index[i]], index 0..7. */
static inline lf lf_lookup8(const float table[8], li index)
{
    return _mm256_permutevar8x32_ps(_mm256_loadu_ps(table), (__m256i)index);
}
static inline void lb_store(uint8_t *p, li v) /* the low byte of each lane */
{
    const __m256i low_bytes = _mm256_set1_epi32(0x0c080400);
    const __m256i quads = _mm256_shuffle_epi8((__m256i)v, low_bytes);
    const __m128i bytes =
        _mm_unpacklo_epi32(_mm256_castsi256_si128(quads), _mm256_extracti128_si256(quads, 1));
    _mm_storel_epi64((__m128i *)(void *)p, bytes);
}
static inline li li_load_i8(const int8_t *p)
{
    return (li)_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)p));
}
static inline li li_load_u16(const uint8_t *p)
{
    return (li)_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)(const void *)p));
}
static inline void li_store_u16(uint8_t *p, li v) /* 0 <= v < 65536 */
{
    const __m256i both = _mm256_packus_epi32((__m256i)v, (__m256i)v);
    const __m256i ordered = _mm256_permute4x64_epi64(both, 0x08);
    _mm_storeu_si128((__m128i *)(void *)p, _mm256_castsi256_si128(ordered));
}
static inline lf lf_load_f16(const uint8_t *p)
{
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)p));
}
static inline void lf_store_f16(uint8_t *p, lf v)
{
    _mm_storeu_si128((__m128i *)(void *)p, _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
}
/* Byte i gets table[index[i]], index 0..15. */
static inline b16 b16_lookup(b16 table, b16 index)
{
    return (b16)_mm_shuffle_epi8((__m128i)table, (__m128i)index);
}

static inline lf lf_fused(lf a, lf b, lf c) /* a * b + c, rounded once */
{
    return _mm256_fmadd_ps(a, b, c);
}
/* Rows become columns: in pairs, in fours, then the halves of vectors change places. */
static inline void lf_transpose(lf v[8])
{
    lf four[2][4]; /* [rows 4g..4g+3][j]: half h holds column 4h + j */
    for (int g = 0; g < 2; g++) {
        const lf *r = v + 4 * g;
        lf low01 = _mm256_unpacklo_ps(r[0], r[1]), high01 = _mm256_unpackhi_ps(r[0], r[1]);
        lf low23 = _mm256_unpacklo_ps(r[2], r[3]), high23 = _mm256_unpackhi_ps(r[2], r[3]);
        four[g][0] = _mm256_shuffle_ps(low01, low23, 0x44);
        four[g][1] = _mm256_shuffle_ps(low01, low23, 0xee);
        four[g][2] = _mm256_shuffle_ps(high01, high23, 0x44);
        four[g][3] = _mm256_shuffle_ps(high01, high23, 0xee);
    }
    for (int j = 0; j < 4; j++) {
        v[j] = _mm256_permute2f128_ps(four[0][j], four[1][j], 0x20);
        v[4 + j] = _mm256_permute2f128_ps(four[0][j], four[1][j], 0x31);
    }
}

#endif
