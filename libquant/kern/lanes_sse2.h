/* lanes_sse2.h - four lanes of SSE2, which every x86-64 has, under the names that the other lanes_*.h use.
 *
 * See lanes_avx2.h. What came later is built here: picking by a mask, minimum and maximum of integers, bytes
 * looked up in a table, conversions of F16. */
#ifndef KERF_LANES_SSE2_H
#define KERF_LANES_SSE2_H

#include <emmintrin.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

enum { LANES = 4 };
typedef __m128 lf;                                    /* a float per lane          */
typedef int32_t li __attribute__((vector_size(16)));  /* an int per lane           */
typedef uint32_t lu __attribute__((vector_size(16))); /* the same without sign     */
typedef __m128 lm;                                    /* a mask per lane, all bits */
typedef uint8_t b16 __attribute__((vector_size(16))); /* 16 bytes */
enum { TILE_ROWS = 4, TILE_VECTORS = 2 }; /* product_sse2.c; sums lie in memory, columns in registers */

static inline lf lf_all(float v)
{
    return _mm_set1_ps(v);
}
static inline li li_all(int32_t v)
{
    return (li)_mm_set1_epi32(v);
}
static inline lf lf_load(const float *p)
{
    return _mm_loadu_ps(p);
}
static inline void lf_store(float *p, lf v)
{
    _mm_storeu_ps(p, v);
}
static inline lf lf_min(lf a, lf b)
{
    return _mm_min_ps(a, b);
}
static inline lf lf_max(lf a, lf b)
{
    return _mm_max_ps(a, b);
}
static inline lf lf_abs(lf v)
{
    return _mm_andnot_ps(_mm_set1_ps(-0.0f), v);
}
static inline lf lf_neg(lf v)
{
    return _mm_xor_ps(_mm_set1_ps(-0.0f), v);
}
static inline lf lf_sqrt(lf v)
{
    return _mm_sqrt_ps(v);
}
static inline lf lf_from(li v)
{
    return _mm_cvtepi32_ps((__m128i)v);
}
static inline li li_bits(lf v)
{
    return (li)_mm_castps_si128(v);
}
static inline lf lf_of_bits(li v)
{
    return _mm_castsi128_ps((__m128i)v);
}
static inline li li_trunc(lf v) /* INT32_MIN where it does not fit */
{
    return (li)_mm_cvttps_epi32(v);
}
static inline lm lm_gt(lf a, lf b) /* false on NaN, as all comparisons here */
{
    return _mm_cmpgt_ps(a, b);
}
static inline lm lm_ge(lf a, lf b)
{
    return _mm_cmpge_ps(a, b);
}
static inline lm lm_eq(lf a, lf b)
{
    return _mm_cmpeq_ps(a, b);
}
static inline lm lm_not_lt(lf a, lf b) /* true on NaN */
{
    return _mm_cmpnlt_ps(a, b);
}
static inline lm lm_ne_int(li a, li b)
{
    return (lm)(a != b);
}
static inline lm lm_and(lm a, lm b)
{
    return _mm_and_ps(a, b);
}
static inline lm lm_or(lm a, lm b)
{
    return _mm_or_ps(a, b);
}
static inline lm lm_and_not(lm a, lm b) /* a and not b */
{
    return _mm_andnot_ps(b, a);
}
static inline lm lm_none(void)
{
    return _mm_setzero_ps();
}
static inline unsigned lm_bits(lm m) /* bit i: lane i */
{
    return (unsigned)_mm_movemask_ps(m);
}
static inline lf lf_pick(lm m, lf yes, lf no)
{
    return _mm_or_ps(_mm_and_ps(m, yes), _mm_andnot_ps(m, no));
}
static inline li li_pick(lm m, li yes, li no)
{
    return ((li)m & yes) | (~(li)m & no);
}
static inline li li_min(li a, li b)
{
    return li_pick((lm)(a < b), a, b);
}
static inline li li_max(li a, li b)
{
    return li_pick((lm)(a > b), a, b);
}
/* Lane i gets table[index[i]], index 0..7. */
static inline lf lf_lookup8(const float table[8], li index)
{
    return _mm_setr_ps(table[index[0]], table[index[1]], table[index[2]], table[index[3]]);
}
static inline void lb_store(uint8_t *p, li v) /* the low byte of each lane */
{
    const __m128i words = _mm_packs_epi32((__m128i)(v & 0xff), _mm_setzero_si128());
    const int32_t four = _mm_cvtsi128_si32(_mm_packus_epi16(words, words));
    memcpy(p, &four, 4);
}
static inline li li_load_i8(const int8_t *p)
{
    int32_t four;
    memcpy(&four, p, 4);
    const __m128i bytes = _mm_cvtsi32_si128(four), words = _mm_unpacklo_epi8(bytes, bytes);
    return (li)_mm_srai_epi32(_mm_unpacklo_epi16(words, words), 24);
}
static inline li li_load_u16(const uint8_t *p)
{
    const __m128i words = _mm_loadl_epi64((const __m128i *)(const void *)p);
    return (li)_mm_unpacklo_epi16(words, _mm_setzero_si128());
}
static inline void li_store_u16(uint8_t *p, li v) /* 0 <= v < 65536 */
{
    const __m128i whole =
        (__m128i)((li)((lu)v << 16) >> 16); /* with its sign, so that packing does not saturate */
    _mm_storel_epi64((__m128i *)(void *)p, _mm_packs_epi32(whole, whole));
}
/* f16_to_f32 of half.h: below 0x400 a multiple of 2^-24, else the exponent moves. */
static inline lf lf_load_f16(const uint8_t *p)
{
    const li h = li_load_u16(p), magnitude = h & 0x7fff, sign = (li)((lu)(h & 0x8000) << 16);
    const li small = li_bits(lf_from(magnitude) * lf_all(0x1p-24f));
    const li normal = (magnitude << 13) + (112 << 23);
    const li special = (normal + (112 << 23)) | ((magnitude > 0x7c00) & 0x00400000);
    const li finite = li_pick((lm)(magnitude < 0x0400), small, normal);
    return lf_of_bits(sign | li_pick((lm)(magnitude >= 0x7c00), special, finite));
}
/* f32_to_f16 of half.h, which says why. */
static inline void lf_store_f16(uint8_t *p, lf v)
{
    const li bits = li_bits(v), magnitude = bits & 0x7fffffff;
    const li sign = (li)((lu)bits >> 16) & 0x8000;
    const li small = li_bits(lf_of_bits(magnitude) + lf_all(0.5f)) - li_bits(lf_all(0.5f));
    const li normal = (magnitude - (112 << 23) + 0xfff + (magnitude >> 13 & 1)) >> 13;
    const li finite = li_pick((lm)(magnitude < 0x38800000), small, normal);
    const li special = 0x7c00 | ((magnitude > 0x7f800000) & 0x0200);
    li_store_u16(p, sign | li_pick((lm)(magnitude >= 0x477ff000), special, finite));
}
/* Byte i gets table[index[i]], index 0..15: entry by entry, where the index is its. */
static inline __attribute__((always_inline)) b16 b16_lookup(b16 table, b16 index)
{
    b16 found = {0};
    for (int k = 0; k < 16; k++)
        found |= (b16)(index == (b16)_mm_set1_epi8((char)k)) & (b16)_mm_set1_epi8((char)table[k]);
    return found;
}
/* Rows become columns. */
static inline void lf_transpose(lf v[4])
{
    _MM_TRANSPOSE4_PS(v[0], v[1], v[2], v[3]);
}

#endif
