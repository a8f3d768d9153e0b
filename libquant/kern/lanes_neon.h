/* lanes_neon.h - four lanes of Advanced SIMD (aarch64) under the names that the other lanes_*.h use.
 *
 * See lanes_avx2.h. Where ARM differs from x86 - minimum of zeros, conversion of what does not fit - the x86
 * answer is built, because it is the one that the reference's bytes come from. */
#ifndef KERF_LANES_NEON_H
#define KERF_LANES_NEON_H

#include <arm_neon.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

enum { LANES = 4 };
typedef float32x4_t lf;                               /* a float per lane          */
typedef int32_t li __attribute__((vector_size(16)));  /* an int per lane           */
typedef uint32_t lu __attribute__((vector_size(16))); /* the same without sign     */
typedef uint32x4_t lm;                                /* a mask per lane, all bits */
typedef uint8_t b16 __attribute__((vector_size(16))); /* 16 bytes */
enum { TILE_ROWS = 8, TILE_VECTORS = 3 }; /* 24 sums, 3 columns and a row fill 28 of 32 registers */

static inline lf lf_all(float v)
{
    return vdupq_n_f32(v);
}
static inline li li_all(int32_t v)
{
    return (li)vdupq_n_s32(v);
}
static inline lf lf_load(const float *p)
{
    return vld1q_f32(p);
}
static inline void lf_store(float *p, lf v)
{
    vst1q_f32(p, v);
}
static inline lm lm_gt(lf a, lf b) /* false on NaN, as all comparisons here */
{
    return vcgtq_f32(a, b);
}
static inline lm lm_ge(lf a, lf b)
{
    return vcgeq_f32(a, b);
}
static inline lm lm_eq(lf a, lf b)
{
    return vceqq_f32(a, b);
}
static inline lm lm_not_lt(lf a, lf b) /* true on NaN */
{
    return vmvnq_u32(vcltq_f32(a, b));
}
static inline lm lm_ne_int(li a, li b)
{
    return vmvnq_u32(vceqq_s32((int32x4_t)a, (int32x4_t)b));
}
static inline lm lm_and(lm a, lm b)
{
    return vandq_u32(a, b);
}
static inline lm lm_or(lm a, lm b)
{
    return vorrq_u32(a, b);
}
static inline lm lm_and_not(lm a, lm b) /* a and not b */
{
    return vbicq_u32(a, b);
}
static inline lm lm_none(void)
{
    return vdupq_n_u32(0);
}
static inline unsigned lm_bits(lm m) /* bit i: lane i */
{
    const uint32x4_t bit = {1, 2, 4, 8};
    return vaddvq_u32(vandq_u32(m, bit));
}
static inline lf lf_pick(lm m, lf yes, lf no)
{
    return vbslq_f32(m, yes, no);
}
static inline li li_pick(lm m, li yes, li no)
{
    return (li)vbslq_s32(m, (int32x4_t)yes, (int32x4_t)no);
}
static inline lf lf_min(lf a, lf b) /* a < b ? a : b */
{
    return vbslq_f32(vcltq_f32(a, b), a, b);
}
static inline lf lf_max(lf a, lf b) /* a > b ? a : b */
{
    return vbslq_f32(vcgtq_f32(a, b), a, b);
}
static inline lf lf_abs(lf v)
{
    return vabsq_f32(v);
}
static inline lf lf_neg(lf v)
{
    return vnegq_f32(v);
}
static inline lf lf_sqrt(lf v)
{
    return vsqrtq_f32(v);
}
static inline lf lf_from(li v)
{
    return vcvtq_f32_s32((int32x4_t)v);
}
static inline li li_bits(lf v)
{
    return (li)vreinterpretq_s32_f32(v);
}
static inline lf lf_of_bits(li v)
{
    return vreinterpretq_f32_s32((int32x4_t)v);
}
static inline li li_trunc(lf v) /* INT32_MIN where it does not fit */
{
    const lm fits = vandq_u32(vcgeq_f32(v, lf_all(-2147483648.0f)), vcltq_f32(v, lf_all(2147483648.0f)));
    return li_pick(fits, (li)vcvtq_s32_f32(v), li_all(INT32_MIN));
}
static inline li li_min(li a, li b)
{
    return (li)vminq_s32((int32x4_t)a, (int32x4_t)b);
}
static inline li li_max(li a, li b)
{
    return (li)vmaxq_s32((int32x4_t)a, (int32x4_t)b);
}
/* Lane i gets table[index[i]], index 0..7. */
static inline lf lf_lookup8(const float table[8], li index)
{
    const uint8x16x2_t bytes = {{vld1q_u8((const uint8_t *)table), vld1q_u8((const uint8_t *)(table + 4))}};
    const lu at = (lu)index * 0x04040404u + 0x03020100u; /* the four byte numbers of an entry */
    return vreinterpretq_f32_u8(vqtbl2q_u8(bytes, (uint8x16_t)at));
}
static inline void lb_store(uint8_t *p, li v) /* the low byte of each lane */
{
    const uint16x4_t half = vmovn_u32((uint32x4_t)v);
    const uint8x8_t bytes = vmovn_u16(vcombine_u16(half, half));
    memcpy(p, &bytes, 4);
}
static inline li li_load_i8(const int8_t *p)
{
    int32_t four;
    memcpy(&four, p, 4);
    return (li)vmovl_s16(vget_low_s16(vmovl_s8(vreinterpret_s8_s32(vdup_n_s32(four)))));
}
static inline li li_load_u16(const uint8_t *p)
{
    return (li)vmovl_u16(vreinterpret_u16_u8(vld1_u8(p)));
}
static inline void li_store_u16(uint8_t *p, li v) /* 0 <= v < 65536 */
{
    vst1_u8(p, vreinterpret_u8_u16(vmovn_u32((uint32x4_t)v)));
}
static inline lf lf_load_f16(const uint8_t *p)
{
    return vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(p)));
}
static inline void lf_store_f16(uint8_t *p, lf v)
{
    vst1_u8(p, vreinterpret_u8_f16(vcvt_f16_f32(v)));
}
/* Byte i gets table[index[i]], index 0..15. */
static inline b16 b16_lookup(b16 table, b16 index)
{
    return (b16)vqtbl1q_u8((uint8x16_t)table, (uint8x16_t)index);
}

static inline lf lf_fused(lf a, lf b, lf c) /* a * b + c, rounded once */
{
    return vfmaq_f32(c, a, b);
}
static inline lf lf_join(float64x2_t v)
{
    return vreinterpretq_f32_f64(v);
}
/* Rows become columns: in pairs, then the halves of vectors change places. */
static inline void lf_transpose(lf v[4])
{
    float64x2_t even01 = vreinterpretq_f64_f32(vtrn1q_f32(v[0], v[1]));
    float64x2_t odd01 = vreinterpretq_f64_f32(vtrn2q_f32(v[0], v[1]));
    float64x2_t even23 = vreinterpretq_f64_f32(vtrn1q_f32(v[2], v[3]));
    float64x2_t odd23 = vreinterpretq_f64_f32(vtrn2q_f32(v[2], v[3]));
    v[0] = lf_join(vtrn1q_f64(even01, even23));
    v[1] = lf_join(vtrn1q_f64(odd01, odd23));
    v[2] = lf_join(vtrn2q_f64(even01, even23));
    v[3] = lf_join(vtrn2q_f64(odd01, odd23));
}

#endif
