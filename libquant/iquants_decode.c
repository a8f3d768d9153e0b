/* iquants_decode.c - reference decoders of the code book formats and of iq4_nl, iq4_xs.
 *
 * This file defines the values; every faster decoder is tested against it. All of iq2 and iq3 end in the same
 * step: (scale * magnitude) * (+1 or -1), in float32. iq1 shifts its three levels by an eighth up or down.
 * Layouts: iquants.h. */
#include "half.h"
#include "iquants.h"
#include "iquants_grid.h"

#include <string.h>

const int8_t iq4_levels[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};

/* 8 weights: `grid` holds their magnitudes, `signs` a bit each (set: negative). Bytes first, then one plain
 * loop: compilers turn that into vectors. */
static void put8(float *dst, float scale, uint64_t grid, unsigned signs)
{
    uint8_t magnitude[8];
    memcpy(magnitude, &grid, sizeof magnitude);
    for (int b = 0; b < 8; b++)
        dst[b] = scale * (float)magnitude[b] * (float)(1 - 2 * (int)(signs >> b & 1));
}

/* 8 weights of iq1: signed bytes, all shifted by `shift`. */
static void put8_shifted(float *dst, float scale, uint64_t grid, float shift)
{
    int8_t level[8];
    memcpy(level, &grid, sizeof level);
    for (int b = 0; b < 8; b++)
        dst[b] = scale * ((float)level[b] + shift);
}

void iq2_xxs_decode(float *dst, const void *src, size_t n_cols)
{
    const struct iq2_xxs_block *b = src;
    for (size_t n = n_cols / 256; n > 0; n--, b++) {
        const float d = f16_to_f32(b->d);
        for (int c = 0; c < 8; c++) {
            const uint32_t aux = b->group[c].aux;
            const float scale = d * (0.5f + (float)(aux >> 28)) * 0.25f;
            for (int l = 0; l < 4; l++, dst += 8)
                put8(dst, scale, iq2xxs_grid[b->group[c].index[l]], sign8(aux >> 7 * l & 127));
        }
    }
}

void iq2_xs_decode(float *dst, const void *src, size_t n_cols)
{
    const struct iq2_xs_block *b = src;
    for (size_t n = n_cols / 256; n > 0; n--, b++) {
        const float d = f16_to_f32(b->d);
        for (int g = 0; g < 32; g++, dst += 8) {
            const unsigned s = b->scales[g / 4] >> 4 * (g % 4 / 2) & 15;
            const float scale = d * (0.5f + (float)s) * 0.25f;
            put8(dst, scale, iq2xs_grid[b->q[g] & 511], sign8(b->q[g] >> 9));
        }
    }
}

void iq2_s_decode(float *dst, const void *src, size_t n_cols)
{
    const struct iq2_s_block *b = src;
    for (size_t n = n_cols / 256; n > 0; n--, b++) {
        const float d = f16_to_f32(b->d);
        for (int g = 0; g < 32; g++, dst += 8) {
            const unsigned s = b->scales[g / 4] >> 4 * (g % 4 / 2) & 15;
            const float scale = d * (0.5f + (float)s) * 0.25f;
            const unsigned index = b->q[g] | (b->high[g / 4] >> 2 * (g % 4) & 3u) << 8;
            put8(dst, scale, iq2s_grid[index], b->signs[g]);
        }
    }
}

void iq3_xxs_decode(float *dst, const void *src, size_t n_cols)
{
    const struct iq3_xxs_block *b = src;
    for (size_t n = n_cols / 256; n > 0; n--, b++) {
        const float d = f16_to_f32(b->d);
        for (int g = 0; g < 32; g++, dst += 8) {
            const uint32_t aux = b->aux[g / 4];
            const float scale = d * (0.5f + (float)(aux >> 28)) * 0.5f;
            const uint64_t grid = iq3xxs_grid[b->q[2 * g]] | (uint64_t)iq3xxs_grid[b->q[2 * g + 1]] << 32;
            put8(dst, scale, grid, sign8(aux >> 7 * (g % 4) & 127));
        }
    }
}

void iq3_s_decode(float *dst, const void *src, size_t n_cols)
{
    const struct iq3_s_block *b = src;
    for (size_t n = n_cols / 256; n > 0; n--, b++) {
        const float d = f16_to_f32(b->d);
        for (int g = 0; g < 32; g++, dst += 8) {
            const unsigned s = b->scales[g / 8] >> 4 * (g / 4 % 2) & 15;
            const float scale = d * (float)(1 + 2 * s);
            const unsigned high = b->high[g / 4] >> 2 * (g % 4); /* bit 0 and 1: the two tuples of 4 */
            const uint32_t lo = iq3s_grid[b->q[2 * g] | (high & 1) << 8];
            const uint32_t hi = iq3s_grid[b->q[2 * g + 1] | (high >> 1 & 1) << 8];
            put8(dst, scale, lo | (uint64_t)hi << 32, b->signs[g]);
        }
    }
}

void iq1_s_decode(float *dst, const void *src, size_t n_cols)
{
    const struct iq1_s_block *b = src;
    for (size_t n = n_cols / 256; n > 0; n--, b++) {
        const float d = f16_to_f32(b->d);
        for (int g = 0; g < 32; g++, dst += 8) {
            const unsigned h = b->high[g / 4];
            const float scale = d * (float)(2 * (h >> 12 & 7) + 1);
            const unsigned index = b->q[g] | (h >> 3 * (g % 4) & 7) << 8;
            put8_shifted(dst, scale, iq1s_grid[index], h & 0x8000 ? -0.125f : 0.125f);
        }
    }
}

void iq1_m_decode(float *dst, const void *src, size_t n_cols)
{
    const struct iq1_m_block *b = src;
    for (size_t n = n_cols / 256; n > 0; n--, b++) {
        const float d = f16_to_f32(iq1_m_scale_bits(b));
        for (int g = 0; g < 32; g++, dst += 8) {
            const int h = g / 2; /* group of 16 weights with one scale */
            const float scale = d * (float)(2 * (b->scales[h / 4] >> 3 * (h % 4) & 7) + 1);
            const unsigned t = b->high[g / 2] >> 4 * (g % 2) & 15u;
            put8_shifted(dst, scale, iq1s_grid[b->q[g] | (t & 7) << 8], t & 8 ? -0.125f : 0.125f);
        }
    }
}

void iq4_nl_decode(float *dst, const void *src, size_t n_cols)
{
    const struct iq4_nl_block *b = src;
    for (size_t n = n_cols / 32; n > 0; n--, b++, dst += 32) {
        const float d = f16_to_f32(b->d);
        for (int i = 0; i < 16; i++) {
            dst[i] = d * (float)iq4_levels[b->q[i] & 15];
            dst[i + 16] = d * (float)iq4_levels[b->q[i] >> 4];
        }
    }
}

void iq4_xs_decode(float *dst, const void *src, size_t n_cols)
{
    const struct iq4_xs_block *b = src;
    for (size_t n = n_cols / 256; n > 0; n--, b++) {
        const float d = f16_to_f32(b->d);
        for (int j = 0; j < 8; j++, dst += 32) {
            const float scale = d * (float)((int)iq4_xs_scale(b, (unsigned)j) - 32);
            const uint8_t *q = b->q + 16 * j;
            for (int i = 0; i < 16; i++) {
                dst[i] = scale * (float)iq4_levels[q[i] & 15];
                dst[i + 16] = scale * (float)iq4_levels[q[i] >> 4];
            }
        }
    }
}
