/* float_types.c - coders of the formats with one number per element; see float_types.h.
 *
 * Bytes may lie anywhere, so every load and store is a memcpy, which costs nothing. */
#include "float_types.h"

#include "libquant/base/slice.h"
#include "half.h"

void f32_decode(float *dst, const void *src, size_t n_cols)
{
    if (n_cols > 0)
        memcpy(dst, src, n_cols * sizeof(float));
}

void f16_decode(float *dst, const void *src, size_t n_cols)
{
    const uint8_t *p = src;
    for (size_t i = 0; i < n_cols; i++)
        dst[i] = f16_to_f32(load_u16(p + 2 * i));
}

void bf16_decode(float *dst, const void *src, size_t n_cols)
{
    const uint8_t *p = src;
    for (size_t i = 0; i < n_cols; i++)
        dst[i] = bf16_to_f32(load_u16(p + 2 * i));
}

void f64_decode(float *dst, const void *src, size_t n_cols)
{
    const uint8_t *p = src;
    for (size_t i = 0; i < n_cols; i++)
        dst[i] = (float)load_f64(p + 8 * i);
}

void i8_decode(float *dst, const void *src, size_t n_cols)
{
    const int8_t *p = src;
    for (size_t i = 0; i < n_cols; i++)
        dst[i] = (float)p[i];
}

void i16_decode(float *dst, const void *src, size_t n_cols)
{
    const uint8_t *p = src;
    for (size_t i = 0; i < n_cols; i++)
        dst[i] = (float)(int16_t)load_u16(p + 2 * i);
}

void i32_decode(float *dst, const void *src, size_t n_cols)
{
    const uint8_t *p = src;
    for (size_t i = 0; i < n_cols; i++)
        dst[i] = (float)(int32_t)load_u32(p + 4 * i);
}

void i64_decode(float *dst, const void *src, size_t n_cols)
{
    const uint8_t *p = src;
    for (size_t i = 0; i < n_cols; i++)
        dst[i] = (float)(int64_t)load_u64(p + 8 * i);
}

void f32_encode(void *dst, const float *src, size_t n_cols, const float *importance)
{
    (void)importance;
    if (n_cols > 0)
        memcpy(dst, src, n_cols * sizeof(float));
}

void f16_encode(void *dst, const float *src, size_t n_cols, const float *importance)
{
    (void)importance;
    uint8_t *p = dst;
    for (size_t i = 0; i < n_cols; i++) {
        const uint16_t h = f32_to_f16(src[i]);
        memcpy(p + 2 * i, &h, sizeof h);
    }
}

void bf16_encode(void *dst, const float *src, size_t n_cols, const float *importance)
{
    (void)importance;
    uint8_t *p = dst;
    for (size_t i = 0; i < n_cols; i++) {
        const uint16_t h = f32_to_bf16(src[i]);
        memcpy(p + 2 * i, &h, sizeof h);
    }
}
