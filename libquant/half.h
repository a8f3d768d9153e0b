/* half.h - the small float formats of model files: f16, bf16, fp8 (e4m3, e5m2), and the scale bytes e8m0 and
 * ue4m3.
 *
 * Scalar and exact: to float32 without loss, from float32 to the nearest value, ties to even. The vector
 * kernels in kern/ are held to these bits. Specification: quantization 1, 3.1, 3.14, 4.9; OCP 8-bit floating
 * point 1.0 and OCP microscaling formats 1.0. */
#ifndef KERF_HALF_H
#define KERF_HALF_H

#include <stdint.h>
#include <string.h>

static inline float f32_from_bits(uint32_t bits)
{
    float v;
    memcpy(&v, &bits, sizeof v);
    return v;
}

static inline uint32_t f32_bits(float v)
{
    uint32_t bits;
    memcpy(&bits, &v, sizeof bits);
    return bits;
}

/* IEEE binary16 to float32, subnormals included. Signalling NaNs come out quiet with their payload, as the
 * conversion instructions of x86 and ARM give them. */
static inline float f16_to_f32(uint16_t h)
{
    const uint32_t sign = (uint32_t)(h & 0x8000u) << 16;
    const uint32_t magnitude = h & 0x7fffu;
    if (magnitude < 0x0400u) { /* zero and subnormals: an exact multiple of 2^-24 */
        return f32_from_bits(sign | f32_bits((float)magnitude * 0x1p-24f));
    }
    if (magnitude < 0x7c00u)
        return f32_from_bits(sign | ((magnitude << 13) + (112u << 23)));
    const uint32_t quiet = magnitude > 0x7c00u ? 0x00400000u : 0;
    return f32_from_bits(sign | 0x7f800000u | (magnitude & 0x3ffu) << 13 | quiet);
}

/* float32 to binary16: nearest, ties to even; subnormals kept, overflow to infinity, every NaN to 0x7e00 with
 * its sign. */
static inline uint16_t f32_to_f16(float v)
{
    const uint32_t bits = f32_bits(v);
    const uint16_t sign = (uint16_t)(bits >> 16 & 0x8000u);
    const uint32_t magnitude = bits & 0x7fffffffu;
    if (magnitude > 0x7f800000u)
        return sign | 0x7e00u;
    if (magnitude >= 0x477ff000u) /* 65520 and up: half way to the next step beyond 65504 */
        return sign | 0x7c00u;
    if (magnitude < 0x38800000u) {
        /* Below 2^-14 the step is 2^-24. Adding 0.5 puts the value where the float32 step is 2^-24 too, so
         * the adder rounds; what it adds below the 0.5 is the code. */
        return sign | (uint16_t)(f32_bits(f32_from_bits(magnitude) + 0.5f) - f32_bits(0.5f));
    }
    const uint32_t odd = magnitude >> 13 & 1;
    return sign | (uint16_t)((magnitude - (112u << 23) + 0xfffu + odd) >> 13);
}

/* `v` as it will be read back after a trip through binary16. */
static inline float f16_round(float v)
{
    return f16_to_f32(f32_to_f16(v));
}

/* bfloat16 is the upper half of a float32. */
static inline float bf16_to_f32(uint16_t h)
{
    return f32_from_bits((uint32_t)h << 16);
}

/* Nearest, ties to even; subnormals kept; a NaN keeps its upper bits and becomes quiet. */
static inline uint16_t f32_to_bf16(float v)
{
    const uint32_t bits = f32_bits(v);
    if ((bits & 0x7fffffffu) > 0x7f800000u)
        return (uint16_t)(bits >> 16 | 0x40u);
    return (uint16_t)((bits + 0x7fffu + (bits >> 16 & 1)) >> 16);
}

/* FP8 of checkpoints. e4m3 is the "fn" variant: no infinities, 0x7f and 0xff are NaN, largest value 448.
 * e5m2 has infinities and NaNs as in binary16, of which it is the upper byte. */
float f8_e4m3_to_f32(uint8_t b);
float f8_e5m2_to_f32(uint8_t b);

/* Nearest, ties to even, saturating at the largest finite value (448, 57344); NaN to 0x7f. */
uint8_t f32_to_f8_e4m3(float v);
uint8_t f32_to_f8_e5m2(float v);

/* E8M0, a power of two: 2^(e-127); 255 is NaN. */
float e8m0_to_f32(uint8_t e);

/* Half of it, 2^(e-128): what mxfp4 multiplies its doubled levels with. 255 is not special here (2^127), as
 * in the reference decoder; quant_validate refuses it. */
static inline float e8m0_half_to_f32(uint8_t e)
{
    return f32_from_bits(e < 2 ? 0x00200000u << e : (uint32_t)(e - 1) << 23);
}

/* Half the value of an nvfp4 scale byte, an unsigned e4m3: 0 for 0 and 0x7f, and bit 7 is ignored in the
 * other codes (so 0xff is 240, a quirk of the reference decoder). */
float ue4m3_half_to_f32(uint8_t b);

/* The nvfp4 scale byte for `v` as the reference writes it: the nearest, up when the next bit is set; 0 for
 * v <= 0 and NaN; and 0x7e (448) for everything from 248 up, where e4m3 could be finer (a quirk). */
uint8_t f32_to_ue4m3(float v);

#endif
