/* vecmath.c - see vecmath.h. Plain C that the compiler turns into vector code. It is built with -O3, and with
 * -fno-trapping-math, which lets range checks become masks. On x86-64 there is one copy for each
 * instruction-set level and the loader picks; the lanes are fixed, so that the copies agree to the bit. */
#include "vecmath.h"

#include <math.h>
#include <stdint.h>
#include <string.h>

#if defined(__clang__)
#define CLONES /* before version 18 other files cannot link to its clones (they are called name.ifunc) */
#elif defined(__x86_64__) && defined(__GNUC__) && !defined(__SANITIZE_ADDRESS__) &&                          \
    !defined(__SANITIZE_THREAD__)
#define CLONES __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define CLONES /* sanitizers intercept before the loader has resolved clones */
#endif

#define LANES 16

/* exp by reduction to |r| <= ln2/2 and a polynomial (coefficients: S. Moshier, Cephes expf). ln 2 is split so
 * that n*LN2_HI is exact. Adding 1.5*2^23 rounds to an integer that can be read from the low bits. */
static inline float exp_one(float x)
{
    const float LN2_HI = 0.693359375f, LN2_LO = -2.12194440e-4f, MAGIC = 12582912.0f;
    float c = x < -87.0f ? -87.0f : x > 88.0f ? 88.0f : x;
    float shifted = c * 1.44269504088896341f + MAGIC;
    float n = shifted - MAGIC;
    float r = (c - n * LN2_HI) - n * LN2_LO;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * (r * r) + r + 1.0f;
    int32_t bits;
    memcpy(&bits, &shifted, sizeof bits);
    bits = (int32_t)((uint32_t)(bits - 0x4b400000 + 127) << 23);
    float two_n;
    memcpy(&two_n, &bits, sizeof two_n);
    return x < -87.0f ? 0.0f : p * two_n;
}

/* tanh by its series where exp would lose digits, else by exp. */
static inline float tanh_one(float x)
{
    float s = x * x, p = 0.02186949f; /* 62/2835 */
    p = p * s - 0.053968254f;         /* 17/315 */
    p = p * s + 0.13333334f;          /* 2/15 */
    p = p * s - 0.33333334f;
    float small = x + x * s * p, large = 1.0f - 2.0f / (exp_one(2.0f * x) + 1.0f);
    return x < 0.25f && x > -0.25f ? small : large;
}

static inline double add_lanes(const float lane[LANES])
{
    double s = 0;
    for (int i = 0; i < LANES; i++)
        s += (double)lane[i];
    return s;
}

CLONES float vec_max(const float *x, size_t n)
{
    float lane[LANES];
    for (int i = 0; i < LANES; i++)
        lane[i] = -INFINITY;
    size_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (int l = 0; l < LANES; l++)
            lane[l] = x[i + l] > lane[l] ? x[i + l] : lane[l];
    for (int l = 0; i < n; i++, l++)
        lane[l] = x[i] > lane[l] ? x[i] : lane[l];
    float m = lane[0];
    for (int l = 1; l < LANES; l++)
        m = lane[l] > m ? lane[l] : m;
    return m;
}

CLONES double vec_exp_sum(float *e, const float *x, float scale, float shift, size_t n)
{
    float lane[LANES] = {0};
    size_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (int l = 0; l < LANES; l++) {
            float v = exp_one(x[i + l] * scale - shift);
            e[i + l] = v;
            lane[l] += v;
        }
    for (int l = 0; i < n; i++, l++) {
        float v = exp_one(x[i] * scale - shift);
        e[i] = v;
        lane[l] += v;
    }
    return add_lanes(lane);
}

CLONES double vec_sum_exp(const float *x, float shift, size_t n)
{
    float lane[LANES] = {0};
    size_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (int l = 0; l < LANES; l++)
            lane[l] += exp_one(x[i + l] - shift);
    for (int l = 0; i < n; i++, l++)
        lane[l] += exp_one(x[i] - shift);
    return add_lanes(lane);
}

CLONES double vec_dot_difference(const float *p, const float *a, const float *b, size_t n)
{
    float lane[LANES] = {0};
    size_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (int l = 0; l < LANES; l++)
            lane[l] += p[i + l] * (a[i + l] - b[i + l]);
    for (int l = 0; i < n; i++, l++)
        lane[l] += p[i] * (a[i] - b[i]);
    return add_lanes(lane);
}

CLONES double vec_sum_squares(const float *x, size_t n)
{
    float lane[LANES] = {0};
    size_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (int l = 0; l < LANES; l++)
            lane[l] += x[i + l] * x[i + l];
    for (int l = 0; i < n; i++, l++)
        lane[l] += x[i] * x[i];
    return add_lanes(lane);
}

/* Four rows for each load and store of a sum, which is what the loop would wait for. */
CLONES void vec_add_squares(double *sums, const float *x, size_t n_rows, size_t ld, size_t n)
{
    size_t r = 0;
    for (; r + 4 <= n_rows; r += 4) {
        const float *restrict a = x + r * ld, *restrict b = a + ld, *restrict c = b + ld,
                              *restrict d = c + ld;
        double *restrict s = sums;
        for (size_t i = 0; i < n; i++) {
            double sum = s[i] + (double)a[i] * (double)a[i];
            sum += (double)b[i] * (double)b[i];
            sum += (double)c[i] * (double)c[i];
            s[i] = sum + (double)d[i] * (double)d[i];
        }
    }
    for (; r < n_rows; r++)
        for (size_t i = 0; i < n; i++)
            sums[i] += (double)x[r * ld + i] * (double)x[r * ld + i];
}

CLONES void vec_scale_mul(float *y, const float *x, float scale, const float *w, size_t n)
{
    for (size_t i = 0; i < n; i++)
        y[i] = x[i] * scale * w[i];
}

CLONES void vec_scale(float *x, float scale, size_t n)
{
    for (size_t i = 0; i < n; i++)
        x[i] *= scale;
}

CLONES void vec_add(float *y, const float *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        y[i] += x[i];
}

CLONES void vec_add_scaled(float *y, const float *x, float scale, size_t n)
{
    for (size_t i = 0; i < n; i++)
        y[i] += scale * x[i];
}

CLONES void vec_swiglu(float *gate, const float *up, size_t n)
{
    for (size_t i = 0; i < n; i++)
        gate[i] = gate[i] / (1.0f + exp_one(-gate[i])) * up[i];
}

CLONES void vec_geglu(float *gate, const float *up, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        float x = gate[i], t = tanh_one(0.79788456f * (x + 0.044715f * (x * x * x)));
        gate[i] = 0.5f * x * (1.0f + t) * up[i];
    }
}

CLONES void vec_swiglu_clamped(float *gate, const float *up, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        float g = gate[i] > 7.0f ? 7.0f : gate[i], u = up[i] > 7.0f ? 7.0f : up[i] < -7.0f ? -7.0f : up[i];
        gate[i] = g / (1.0f + exp_one(-1.702f * g)) * (u + 1.0f);
    }
}

CLONES void vec_cap(float *x, float scale, float cap, size_t n)
{
    float to_unit = scale / cap;
    for (size_t i = 0; i < n; i++)
        x[i] = cap * tanh_one(x[i] * to_unit);
}

CLONES void vec_silu(float *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        x[i] = x[i] / (1.0f + exp_one(-x[i]));
}

CLONES void vec_rotate_halves(float *x, const float *c, const float *s, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        float a = x[i], b = x[i + n];
        x[i] = a * c[i] - b * s[i];
        x[i + n] = b * c[i] + a * s[i];
    }
}

CLONES void vec_rotate_neighbours(float *x, const float *c, const float *s, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        float a = x[2 * i], b = x[2 * i + 1];
        x[2 * i] = a * c[i] - b * s[i];
        x[2 * i + 1] = b * c[i] + a * s[i];
    }
}

CLONES void vec_delta_read(float *m, float *state, const float *k, float decay, size_t k_dim, size_t v_dim)
{
    memset(m, 0, v_dim * sizeof *m);
    for (size_t i = 0; i < k_dim; i++) {
        float *row = state + i * v_dim;
        for (size_t j = 0; j < v_dim; j++) {
            row[j] *= decay;
            m[j] += row[j] * k[i];
        }
    }
}

CLONES void vec_delta_write(float *out, float *state, const float *k, const float *q, const float *delta,
                            size_t k_dim, size_t v_dim)
{
    memset(out, 0, v_dim * sizeof *out);
    for (size_t i = 0; i < k_dim; i++) {
        float *row = state + i * v_dim;
        for (size_t j = 0; j < v_dim; j++) {
            row[j] += k[i] * delta[j];
            out[j] += row[j] * q[i];
        }
    }
}
