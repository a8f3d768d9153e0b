/* float_types.h - one number per element: f32, f16, bf16, f64 and the integers.
 *
 * Kernel signatures of kern/kern.h. Integers and f64 are rounded to the nearest float32; they are decoded for
 * reports and never encoded. Importance is ignored. Specification: quantization 3.1. */
#ifndef KERF_FLOAT_TYPES_H
#define KERF_FLOAT_TYPES_H

#include <stddef.h>

void f32_decode(float *dst, const void *src, size_t n_cols);
void f16_decode(float *dst, const void *src, size_t n_cols);
void bf16_decode(float *dst, const void *src, size_t n_cols);
void f64_decode(float *dst, const void *src, size_t n_cols);
void i8_decode(float *dst, const void *src, size_t n_cols);
void i16_decode(float *dst, const void *src, size_t n_cols);
void i32_decode(float *dst, const void *src, size_t n_cols);
void i64_decode(float *dst, const void *src, size_t n_cols);

void f32_encode(void *dst, const float *src, size_t n_cols, const float *importance);
void f16_encode(void *dst, const float *src, size_t n_cols, const float *importance);
void bf16_encode(void *dst, const float *src, size_t n_cols, const float *importance);

#endif
