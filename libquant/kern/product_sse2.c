/* product_sse2.c - tiles of products for any x86-64; not compiled with AddressSanitizer, see product_avx2.c.
 *
 * There is no fused multiply-add, so its result is built. Sums are kept in double, where they hold the floats
 * they are defined as. A product of two floats is exact in double; its sum with another float is rounded
 * there, to 53 bits, and then has to be rounded to 24. Rounding twice goes wrong only where the first result
 * is the exact middle of two floats: a middle is itself a double, so no other sum crosses it. Then, and where
 * a float would be subnormal or overflow, or the sum is 0 (it has no exponent), careful_step looks at what
 * was lost. Everywhere else rounding is an addition to the bits: half a step up, and the rest cut off. */
#include "lanes_sse2.h"

#include "lanes_pack.h"

#include "../fused.h"

/* A row of sums, columns in pairs. */
struct sums {
    __m128d pair[TILE_COLS / 2];
};

static inline __m128d two_doubles(const float *p)
{
    return _mm_cvtps_pd(_mm_castsi128_ps(_mm_loadl_epi64((const __m128i *)(const void *)p)));
}

/* Columns 4v to 4v + 3 as floats. */
static inline lf floats_of(const struct sums *s, int v)
{
    return _mm_movelh_ps(_mm_cvtpd_ps(s->pair[2 * v]), _mm_cvtpd_ps(s->pair[2 * v + 1]));
}

/* One step of a row in full. Where nothing was lost the first result is exact, and the conversion to float is
 * the only rounding; else each sum is computed alone. */
static __attribute__((noinline)) void careful_step(struct sums *s, float a, const float *b)
{
    const __m128d row = _mm_set1_pd((double)a);
    __m128d inexact = _mm_setzero_pd();
    struct sums next;
    for (int j = 0; j < TILE_COLS / 2; j++) {
        const __m128d p = row * two_doubles(b + 2 * j), d = s->pair[j], t = p + d, back = t - p;
        const __m128d lost = (p - (t - back)) + (d - back); /* two-sum, as in fused.h */
        inexact = _mm_or_pd(inexact, _mm_cmpneq_pd(lost, _mm_setzero_pd()));
        next.pair[j] = _mm_cvtps_pd(_mm_cvtpd_ps(t));
    }
    if (_mm_movemask_pd(inexact) == 0) {
        *s = next;
        return;
    }
    float sum[TILE_COLS];
    for (int v = 0; v < TILE_VECTORS; v++)
        lf_store(sum + v * LANES, floats_of(s, v));
    for (int j = 0; j < TILE_COLS; j++)
        sum[j] = fused_emulated(a, b[j], sum[j]);
    for (int j = 0; j < TILE_COLS; j += 2)
        s->pair[j / 2] = two_doubles(sum + j);
}

/* Lanes of two pairs where the simple rounding would not do. */
static inline __m128i doubtful(__m128d first, __m128d second)
{
    const lf a = _mm_castpd_ps(first), b = _mm_castpd_ps(second);
    const __m128i low = _mm_castps_si128(_mm_shuffle_ps(a, b, 0x88));
    const __m128i high = _mm_castps_si128(_mm_shuffle_ps(a, b, 0xdd));
    const __m128i middle =
        _mm_cmpeq_epi32(_mm_and_si128(low, _mm_set1_epi32(0x1fffffff)), _mm_set1_epi32(0x10000000));
    /* The exponent, without the sign, from where floats are normal up to 2^127: one comparison, as the lower
     * bound is moved to the least integer. */
    const uint32_t least = (1023u - 126) << 21, n = ((1023u + 127) << 21) - least;
    const __m128i moved =
        _mm_add_epi32(_mm_add_epi32(high, high), _mm_set1_epi32((int)(0x80000000u - least)));
    return _mm_or_si128(middle, _mm_cmpgt_epi32(moved, _mm_set1_epi32((int)(0x80000000u + n - 1))));
}

static inline __m128d rounded(__m128d s)
{
    const __m128i half = _mm_set_epi32(0, 0x10000000, 0, 0x10000000);
    const __m128i kept = _mm_set_epi32(-1, (int)0xe0000000, -1, (int)0xe0000000);
    return _mm_castsi128_pd(_mm_and_si128(_mm_add_epi64(_mm_castpd_si128(s), half), kept));
}

static inline __attribute__((always_inline)) void sse2_tile_of(const int rows, size_t depth, const float *a,
                                                               const float *b, float *c, size_t ldc, bool add)
{
    struct sums sum[TILE_ROWS];
    memset(sum, 0, sizeof sum);
    for (size_t p = 0; p < depth; p++, a++, b += TILE_COLS) {
        __m128d col[TILE_COLS / 2];
        UNROLL for (int j = 0; j < TILE_COLS / 2; j++) col[j] = two_doubles(b + 2 * j);
        UNROLL for (int r = 0; r < rows; r++)
        {
            const __m128d row = _mm_set1_pd((double)a[r * KERN_TILE_STRIDE]);
            __m128d s[TILE_COLS / 2];
            __m128i doubt = _mm_setzero_si128();
            UNROLL for (int j = 0; j < TILE_COLS / 2; j++) s[j] = row * col[j] + sum[r].pair[j];
            UNROLL for (int j = 0; j < TILE_COLS / 2; j += 2) doubt =
                _mm_or_si128(doubt, doubtful(s[j], s[j + 1]));
            if (__builtin_expect(_mm_movemask_epi8(doubt) != 0, 0))
                careful_step(&sum[r], a[r * KERN_TILE_STRIDE], b);
            else
                UNROLL for (int j = 0; j < TILE_COLS / 2; j++) sum[r].pair[j] = rounded(s[j]);
        }
    }
    UNROLL for (int r = 0; r < rows; r++)
    {
        UNROLL for (int v = 0; v < TILE_VECTORS; v++)
        {
            float *to = c + (size_t)r * ldc + v * LANES;
            lf value = floats_of(&sum[r], v);
            if (add)
                value = lf_load(to) + value;
            lf_store(to, value);
        }
    }
}

static void sse2_tile(size_t n_rows, size_t depth, const float *a, const float *b, float *c, size_t ldc,
                      bool add)
{
    if (n_rows == TILE_ROWS) {
        sse2_tile_of(TILE_ROWS, depth, a, b, c, ldc, add);
        return;
    }
    for (; n_rows > 0; n_rows--, a += KERN_TILE_STRIDE, c += ldc)
        sse2_tile_of(1, depth, a, b, c, ldc, add);
}

const struct kern_product product_sse2 = {TILE_ROWS, TILE_COLS, sse2_tile, lanes_pack};
