/* hard_rows.c - see hard_rows.h. Changing a draw here invalidates tests/golden/encode.txt. */
#include "hard_rows.h"

#include "libquant/base/rng.h"

/* Uniform in [-1, 1), a multiple of 2^-23. */
static float uniform(struct rng *r)
{
    return (float)((int32_t)(rng_u64(r) >> 40) - (1 << 23)) * 0x1p-23f;
}

/* Bell-shaped, standard deviation about 1. */
static float bell(struct rng *r)
{
    const float a = uniform(r) + uniform(r), b = uniform(r) + uniform(r);
    return (a + b) * 0.8660254f;
}

/* 2^k by repeated exact steps; |k| <= 140. */
static float power_of_two(int k)
{
    float v = 1.0f;
    for (; k > 0; k--)
        v *= 2.0f;
    for (; k < 0; k++)
        v *= 0.5f;
    return v;
}

static const char *const row_names[N_HARD_ROWS] = {
    "bell",
    "heavy tails",
    "sparse",
    "all zero",
    "constant",
    "constant blocks",
    "tiny",
    "subnormal",
    "huge",
    "positive",
    "negative",
    "narrow offset",
    "few levels",
    "one outlier",
    "many magnitudes",
    "magnitude by group",
    "alternating extreme",
    "single non-zero",
    "exact grid",
    "overflowing squares",
};

const char *hard_row_name(unsigned kind)
{
    return row_names[kind];
}

static float draw_weight(struct rng *r, unsigned kind, size_t i, float s)
{
    const float g = bell(r);
    const float magnitude = g < 0 ? -g : g;
    switch (kind) {
    case 1: return g * g * g * s;
    case 2: return rng_below(r, 20) == 0 ? g * s : 0.0f;
    case 3: return 0.0f;
    case 4: return s;
    case 5: return i / 32 % 3 == 0 ? -s : i / 32 % 3 == 1 ? s : 0.0f;
    case 6: return g * 0x1p-66f;
    case 7: return g * 0x1p-126f * 0x1p-6f;
    case 8: return g * 0x1p25f;
    case 9: return magnitude * s;
    case 10: return -magnitude * s - 5 * s;
    case 11: return g * s * 0x1p-10f + s;
    case 12: return (float)((int)rng_below(r, 7) - 3) * s;
    case 13: return rng_below(r, 64) == 0 ? g * 1000 * s : g * s;
    case 14: return g * power_of_two((int)rng_below(r, 40) - 20);
    case 15: return g * power_of_two((int)(i / 16 % 80) - 60);
    case 16: return i % 2 == 0 ? s : -s; /* every magnitude a tie */
    case 17: return i % 71 == 40 ? s : 0.0f;
    case 18: return (float)((int)rng_below(r, 16) - 8) * 0.125f;
    case 19: return g * 0x1p100f;
    default: return g * s;
    }
}

void hard_row(float *x, size_t n, unsigned kind, uint64_t seed)
{
    struct rng r = {seed * 64 + kind};
    const float s = (uniform(&r) + 1.25f) * 0.03f;
    for (size_t i = 0; i < n; i++)
        x[i] = draw_weight(&r, kind, i, s);
    if (kind == 0) /* what real rows look like: a few columns stand out */
        x[rng_below(&r, n)] *= 12.0f;
}

static const char *const importance_names[N_HARD_IMPORTANCE] = {
    "squares", "wide range", "zeros among", "all zero", "all one", "dead groups", "faint",
};

const char *hard_importance_name(unsigned kind)
{
    return importance_names[kind];
}

void hard_importance(float *w, size_t n, unsigned kind, uint64_t seed)
{
    struct rng r = {seed * 64 + 32 + kind};
    for (size_t i = 0; i < n; i++) {
        const float g = bell(&r);
        const float square = g * g + 0x1p-10f;
        switch (kind) {
        case 1: w[i] = power_of_two((int)rng_below(&r, 24) - 12) * square; break;
        case 2: w[i] = rng_below(&r, 3) == 0 ? 0.0f : square; break;
        case 3: w[i] = 0.0f; break;
        case 4: w[i] = 1.0f; break;
        case 5: w[i] = i / 16 % 2 == 0 ? square : 0.0f; break;
        case 6: w[i] = square * 0x1p-70f; break;
        default: w[i] = square; break;
        }
    }
}
