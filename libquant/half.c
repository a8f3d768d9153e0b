/* half.c - the rarer conversions of half.h: fp8 and the scale bytes.
 *
 * Clarity over speed: these run once per block or behind a 256-entry table. Specification: see half.h. */
#include "half.h"

#include <math.h>

/* A float of 1 sign, `e_bits` exponent and `m_bits` mantissa bits, without regard to NaN or infinity codes.
 */
static float small_float(uint8_t b, int e_bits, int m_bits)
{
    const int bias = (1 << (e_bits - 1)) - 1;
    const int exponent = b >> m_bits & ((1 << e_bits) - 1);
    const int mantissa = b & ((1 << m_bits) - 1);
    const float v = exponent == 0 ? ldexpf((float)mantissa, 1 - bias - m_bits)
                                  : ldexpf((float)(mantissa + (1 << m_bits)), exponent - bias - m_bits);
    return b & 0x80 ? -v : v;
}

float f8_e4m3_to_f32(uint8_t b)
{
    if ((b & 0x7f) == 0x7f)
        return f32_from_bits((uint32_t)(b & 0x80) << 24 | 0x7fc00000u);
    return small_float(b, 4, 3);
}

float f8_e5m2_to_f32(uint8_t b)
{
    return f16_to_f32((uint16_t)(b << 8));
}

/* Nearest code by its magnitude; codes of one sign are ordered like their values. `top` is the code of the
 * largest finite value. */
static uint8_t nearest_small(float v, int e_bits, int m_bits, uint8_t top)
{
    if (v != v)
        return 0x7f;
    const uint8_t sign = (uint8_t)(f32_bits(v) >> 24 & 0x80);
    const double magnitude = fabs((double)v);
    if (magnitude >= small_float(top, e_bits, m_bits))
        return sign | top;
    const int lowest = 2 - (1 << (e_bits - 1)); /* exponent of the smallest normal number */
    int exponent = magnitude > 0 ? ilogb(magnitude) : lowest;
    if (exponent < lowest)
        exponent = lowest;
    /* In steps of the binade the value is a small number, so nearbyint rounds ties to even codes; rounding up
     * to the next binade carries into the exponent field by itself. */
    const int steps = (int)nearbyint(ldexp(magnitude, m_bits - exponent));
    const int code = (exponent - lowest) * (1 << m_bits) + steps;
    return sign | (uint8_t)(code < top ? code : top);
}

uint8_t f32_to_f8_e4m3(float v)
{
    return nearest_small(v, 4, 3, 0x7e);
}

uint8_t f32_to_f8_e5m2(float v)
{
    return nearest_small(v, 5, 2, 0x7b);
}

float e8m0_to_f32(uint8_t e)
{
    if (e == 255)
        return f32_from_bits(0x7fc00000u);
    return f32_from_bits(e == 0 ? 0x00400000u : (uint32_t)e << 23);
}

float ue4m3_half_to_f32(uint8_t b)
{
    if (b == 0 || b == 0x7f)
        return 0.0f;
    return 0.5f * small_float(b & 0x7f, 4, 3);
}

uint8_t f32_to_ue4m3(float v)
{
    if (!(v > 0.0f))
        return 0;
    if (v > 448.0f)
        v = 448.0f;
    const uint32_t bits = f32_bits(v);
    const int exponent = (int)(bits >> 23) - 127 + 7;
    if (exponent <= 0) {
        const int mantissa = (int)(v * 512.0f + 0.5f);
        return (uint8_t)(mantissa < 7 ? mantissa : 7);
    }
    if (exponent >= 15)
        return 0x7e;
    /* Three mantissa bits, up when the next bit is set; a carry moves into the exponent by itself. */
    const int code = (exponent << 3 | (int)(bits >> 20 & 7)) + (int)(bits >> 19 & 1);
    return (uint8_t)(code < 15 << 3 ? code : 0x7e);
}
