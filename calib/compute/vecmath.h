/* vecmath.h - loops over single rows: exponentials, their sums, norms.
 *
 * Every function gives the same bits on every instruction set: sums run in sixteen fixed lanes which are
 * added up in double, and nothing is contracted to fused operations. */
#ifndef KERF_VECMATH_H
#define KERF_VECMATH_H

#include <stddef.h>

/* Largest element; -INFINITY when n is 0. NaN elements are skipped. */
float vec_max(const float *x, size_t n);

/* e[i] = exp(x[i] * scale - shift), relative error below 3e-7; below -87 the result is 0. `e` may be `x`.
 * Returns the sum of e. */
double vec_exp_sum(float *e, const float *x, float scale, float shift, size_t n);

/* The sum of exp(x[i] - shift) alone. */
double vec_sum_exp(const float *x, float shift, size_t n);

/* sum p[i] * (a[i] - b[i]) */
double vec_dot_difference(const float *p, const float *a, const float *b, size_t n);

/* sum x[i]^2 */
double vec_sum_squares(const float *x, size_t n);

/* sums[i] += x[r * ld + i]^2 in double, for the rows r = 0, 1, ... in this order. */
void vec_add_squares(double *sums, const float *x, size_t n_rows, size_t ld, size_t n);

/* y[i] = x[i] * scale * w[i] */
void vec_scale_mul(float *y, const float *x, float scale, const float *w, size_t n);

/* x[i] *= scale */
void vec_scale(float *x, float scale, size_t n);

/* y[i] += x[i] */
void vec_add(float *y, const float *x, size_t n);

/* y[i] += scale * x[i] */
void vec_add_scaled(float *y, const float *x, float scale, size_t n);

/* gate[i] = silu(gate[i]) * up[i], silu(x) = x / (1 + exp(-x)) */
void vec_swiglu(float *gate, const float *up, size_t n);

/* gate[i] = gelu(gate[i]) * up[i], gelu(x) = x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))) */
void vec_geglu(float *gate, const float *up, size_t n);

/* gate[i] = g sigmoid(1.702 g) (u + 1), g = min(gate[i], 7), u = up[i] within -7 and 7 (gpt-oss) */
void vec_swiglu_clamped(float *gate, const float *up, size_t n);

/* x[i] = cap * tanh(x[i] * scale / cap) */
void vec_cap(float *x, float scale, float cap, size_t n);

/* x[i] = x[i] / (1 + exp(-x[i])) */
void vec_silu(float *x, size_t n);

/* Rotate pairs of x by the angles whose cosines and sines are given, n pairs: (i, i + n), or the neighbours
 * (2i, 2i + 1). */
void vec_rotate_halves(float *x, const float *c, const float *s, size_t n);
void vec_rotate_neighbours(float *x, const float *c, const float *s, size_t n);

/* One token of a delta-net state [k_dim, v_dim]: state *= decay, m = state^T k ... */
void vec_delta_read(float *m, float *state, const float *k, float decay, size_t k_dim, size_t v_dim);

/* ... and state += k delta^T, out = state^T q. */
void vec_delta_write(float *out, float *state, const float *k, const float *q, const float *delta,
                     size_t k_dim, size_t v_dim);

#endif
