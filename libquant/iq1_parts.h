/* iq1_parts.h - what the encoders of iq1_s and iq1_m share around their searches. Inline, as
 * codebook_parts.h.
 *
 * A group of 32 (iq1_s) or 16 (iq1_m) weights is written as a scale and, for each 8, one of 2048 tuples of
 * the codes 0, 1, 2, which mean -1, 0, 1, shifted by an eighth up or down: x = scale * (code - 1 +- 1/8). The
 * shift is one sign for a group of iq1_s and one for each half of a group of iq1_m. Specification:
 * quantization 3.12, 4.11. */
#ifndef KERF_IQ1_PARTS_H
#define KERF_IQ1_PARTS_H

#include "codebook.h"
#include "encode_parts.h"
#include "iquants.h"

#include <float.h>
#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>

/* Largest magnitudes below these make an empty group. */
#define IQ1_S_ZERO 1e-12f
#define IQ1_M_ZERO 1e-7f

/* The three values of a code, shifted up, shifted down. */
__attribute__((unused)) static const float iq1_levels[2][3] = {{-0.875f, 0.125f, 1.125f},
                                                               {-1.125f, -0.125f, 0.875f}};

/* What the split of a group decides. `shift`: bit 1 is set when the first half goes down, bit 0 the second;
 * iq1_s knows 0 and 3 only. Without any split of use (no weight counts) the group is as an empty one. */
struct iq1_split {
    float scale;
    int shift;
    bool empty;
    uint8_t code[32];
};

/* Does the shift of tuple k of the group go down? */
static inline unsigned iq1_down(int shift, int k)
{
    return (unsigned)(k == 0 ? shift >> 1 : shift & 1);
}

/* What the levels do in their own way, with the same results. */
struct iq1_engine {
    void (*weights)(float w[256], const float x[256], const float *importance, float mean_square);
    void (*splits)(struct iq1_split *out, const float x[256], const float w[256], int group);
    /* The entry of a list that is nearest to x under w, first on ties. */
    unsigned (*nearest)(const struct codebook *b, const uint16_t *list, const float x[8], const float w[8],
                        float scale, const float levels[3]);
};

/* Codes rise with the weights, so a negative scale turns codes and shifts around. */
static inline void iq1_turn(struct iq1_split *s, int group)
{
    if (!(s->scale < 0))
        return;
    for (int i = 0; i < group; i++)
        s->code[i] = (uint8_t)(2 - s->code[i]);
    s->scale = -s->scale;
    s->shift = 3 - s->shift;
}

/* The tuples of a group, and the scale fitted again when one of them had to move. */
static inline void iq1_entries(uint16_t entry[4], struct iq1_split *s, const float *x, const float *w,
                               int group, const struct iq1_engine *engine)
{
    const struct codebook *b = codebook_get(CODEBOOK_IQ1);
    bool moved = false;
    for (int k = 0; k < group / 8; k++) {
        const int32_t place = b->place[codebook_key(b, s->code + 8 * k)];
        entry[k] = (uint16_t)place;
        if (place < 0) {
            moved = true;
            entry[k] = (uint16_t)engine->nearest(b, b->list + (-1 - place), x + 8 * k, w + 8 * k, s->scale,
                                                 iq1_levels[iq1_down(s->shift, k)]);
        }
    }
    if (!moved)
        return;
    float a = 0, l2 = 0;
    for (int i = 0; i < group; i++) {
        const float q = iq1_levels[iq1_down(s->shift, i / 8)][codebook_code(b, entry[i / 8], i % 8)];
        a += w[i] * q * x[i];
        l2 += w[i] * q * q;
    }
    if (a > 0 && l2 > 0)
        s->scale = a / l2;
}

/* Code 0..7 of a scale: (2 code + 1) / 15 of the largest. */
static inline unsigned iq1_scale_code(float inverse, float scale)
{
    return (unsigned)clamp_i32(round_near(0.5f * (inverse * scale - 1)), 0, 7);
}

/* The splits of a super-block and the tuples they lead to; returns the largest scale. */
static inline float iq1_super_block(struct iq1_split *s, uint16_t entry[][4], float w[256], const float *x,
                                    const float *importance, int group, const struct iq1_engine *engine)
{
    float largest_scale = 0;
    engine->weights(w, x, importance, 2 * sum_squares(x, 256) / 256);
    engine->splits(s, x, w, group);
    for (int j = 0; j < 256 / group; j++) {
        memset(entry[j], 0, sizeof entry[j]);
        if (s[j].empty) {
            s[j].scale = 0;
            s[j].shift = 0;
            continue;
        }
        iq1_turn(&s[j], group);
        iq1_entries(entry[j], &s[j], x + group * j, w + group * j, group, engine);
        largest_scale = largest_scale > s[j].scale ? largest_scale : s[j].scale;
    }
    return largest_scale;
}

static inline void iq1_s_put(struct iq1_s_block *b, const struct iq1_split s[8], const uint16_t entry[][4],
                             float largest_scale)
{
    memset(b, 0, sizeof *b);
    for (int j = 0; j < 8; j++) {
        unsigned high = 0;
        for (int k = 0; k < 4; k++) {
            b->q[4 * j + k] = (uint8_t)entry[j][k];
            high |= (unsigned)(entry[j][k] >> 8) << 3 * k;
        }
        b->high[j] = (uint16_t)high;
    }
    if (largest_scale == 0)
        return;
    const float d = largest_scale / 15, inverse = 1 / d;
    b->d = f32_to_f16(d * 1.125f);
    for (int j = 0; j < 8; j++) {
        const unsigned code = iq1_scale_code(inverse, s[j].scale) | (s[j].shift != 0 ? 8u : 0u);
        b->high[j] = (uint16_t)(b->high[j] | code << 12);
    }
}

/* The scale of an iq1_m super-block is fitted once all codes are known. */
static inline float iq1_m_fit(float d, const uint8_t code[16], const struct iq1_split s[16],
                              const uint16_t entry[][4], const float *x, const float *w)
{
    const struct codebook *b = codebook_get(CODEBOOK_IQ1);
    float a = 0, l2 = 0;
    for (int i = 0; i < 256; i++) {
        const int j = i / 16, k = i / 8 % 2;
        const float level = iq1_levels[iq1_down(s[j].shift, k)][codebook_code(b, entry[j][k], i % 8)];
        const float q = level * (float)(2 * code[j] + 1);
        a += w[i] * q * x[i];
        l2 += w[i] * q * q;
    }
    return l2 > 0 ? a / l2 : d;
}

static inline void iq1_m_put(struct iq1_m_block *b, const struct iq1_split s[16], const uint16_t entry[][4],
                             float largest_scale, const float *x, const float *w)
{
    memset(b, 0, sizeof *b);
    for (int j = 0; j < 16; j++) {
        b->q[2 * j] = (uint8_t)entry[j][0];
        b->q[2 * j + 1] = (uint8_t)entry[j][1];
        b->high[j] = (uint8_t)(entry[j][0] >> 8 | (entry[j][1] >> 8) << 4);
    }
    if (largest_scale == 0) /* also without the shifts */
        return;
    uint8_t code[16];
    const float d = largest_scale / 15, inverse = 1 / d;
    for (int j = 0; j < 16; j++) {
        code[j] = (uint8_t)iq1_scale_code(inverse, s[j].scale);
        b->scales[j / 4] = (uint16_t)(b->scales[j / 4] | code[j] << 3 * (j % 4));
        b->high[j] = (uint8_t)(b->high[j] | iq1_down(s[j].shift, 0) << 3 | iq1_down(s[j].shift, 1) << 7);
    }
    const uint16_t stored = f32_to_f16(iq1_m_fit(d, code, s, entry, x, w) * 1.1125f);
    for (int i = 0; i < 4; i++)
        b->scales[i] = (uint16_t)(b->scales[i] | (stored >> 4 * i & 15) << 12);
}

static inline void iq1_s_row(void *dst, const float *src, size_t n_cols, const float *importance,
                             const struct iq1_engine *engine)
{
    struct iq1_s_block *b = dst;
    for (size_t k = 0; k < n_cols; k += 256, b++) {
        struct iq1_split s[8];
        uint16_t entry[8][4];
        float w[256];
        const float largest_scale =
            iq1_super_block(s, entry, w, src + k, importance ? importance + k : NULL, 32, engine);
        iq1_s_put(b, s, entry, largest_scale);
    }
}

static inline void iq1_m_row(void *dst, const float *src, size_t n_cols, const float *importance,
                             const struct iq1_engine *engine)
{
    struct iq1_m_block *b = dst;
    for (size_t k = 0; k < n_cols; k += 256, b++) {
        struct iq1_split s[16];
        uint16_t entry[16][4];
        float w[256];
        const float largest_scale =
            iq1_super_block(s, entry, w, src + k, importance ? importance + k : NULL, 16, engine);
        iq1_m_put(b, s, entry, largest_scale, src + k, w);
    }
}

#endif
