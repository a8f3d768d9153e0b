/* codebook_parts.h - what the encoders of iq2 and iq3 share around the search: its plan, the signs, the
 * scales.
 *
 * Inline, because the vector kernels compile the same text for their instruction set. Only encoders include
 * this file.
 *
 * A group of 16 or 32 weights is written as a scale, signs, and for each tuple of 8 or 4 magnitudes an entry
 * of a code book: x = scale * sign * (2 code + 1). A super-block of 256 keeps the scales of its groups in 4
 * bits relative to the largest. Specification: quantization 3.12 (layouts), 4.11 (encoders). */
#ifndef KERF_CODEBOOK_PARTS_H
#define KERF_CODEBOOK_PARTS_H

#include "codebook.h"
#include "encode_parts.h"
#include "iquants.h"

#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>

enum { CODEBOOK_MAX_TRIALS = 31 };

/* Which tuples are looked up once more, at the scale that the trials chose. */
enum codebook_again {
    AGAIN_ALL,        /* every tuple of every group                        */
    AGAIN_OFF_BOOK,   /* tuples whose rounding was no entry                */
    AGAIN_ALL_IF_ANY, /* every tuple of a group that has one of these      */
};

/* Weights of an encoder without importance. */
enum codebook_plain { PLAIN_NONE, PLAIN_SQUARE, PLAIN_SQUARE_PLUS };

struct codebook_plan {
    enum codebook_id book;
    int group;          /* weights that share a scale: 16 or 32                                      */
    int reach;          /* trial scales -reach..reach around that which sends the largest to the top */
    float step;         /* between trials, in halves of a code                                       */
    float square;       /* the mean square in the weights counts this often                          */
    float zero;         /* a group whose largest is below this is empty                              */
    float stored;       /* the scale of the super-block is stored times this                         */
    bool even_signs;    /* seven sign bits for eight weights: an even number is negative             */
    bool start_search;  /* the trials go around the scale of search_positive, not the largest        */
    bool start_on_book; /* do groups without any accepted trial count as found in the book?          */
    enum codebook_again again;
    enum codebook_plain plain;
};

__attribute__((unused)) static const struct codebook_plan codebook_plan_iq2_xxs = {
    CODEBOOK_IQ2_XXS, 32, 6, 0.1f, 1, 1e-15f, 1, true, true, true, AGAIN_ALL, PLAIN_NONE};
__attribute__((unused)) static const struct codebook_plan codebook_plan_iq2_xs = {
    CODEBOOK_IQ2_XS, 16, 9, 0.1f, 1, 1e-15f, 1, true, false, true, AGAIN_OFF_BOOK, PLAIN_NONE};
__attribute__((unused)) static const struct codebook_plan codebook_plan_iq2_s = {
    CODEBOOK_IQ2_S, 16, 9, 0.1f, 2, 1e-8f, 0.9875f, false, false, true, AGAIN_OFF_BOOK, PLAIN_SQUARE_PLUS};
__attribute__((unused)) static const struct codebook_plan codebook_plan_iq3_xxs = {
    CODEBOOK_IQ3_XXS, 32, 15, 0.2f, 2, 1e-8f, 1.0125f, true, false, true, AGAIN_OFF_BOOK, PLAIN_SQUARE};
__attribute__((unused)) static const struct codebook_plan codebook_plan_iq3_s = {
    CODEBOOK_IQ3_S, 32, 9, 0.2f, 2, 0x1p-149f, 1.033f, false, false, false, AGAIN_ALL_IF_ANY, PLAIN_SQUARE};

/* A group on its way: magnitudes (one of an odd-signed tuple stays negative), weights, their roots. */
struct codebook_group {
    float x[32], w[32], root[32];
    uint8_t signs[4]; /* a bit for each weight, set where it is negative */
};

/* What the search of a group decides. */
struct codebook_choice {
    float scale;       /* 0 in an empty group */
    uint16_t entry[8]; /* one for each tuple  */
    bool empty;        /* no largest to speak of: entries and signs are not looked at */
};

/* The scale of a trial is the inverse of this. `top` is what the largest weight means: its magnitude, or the
 * scale of the start times the number of levels. */
static inline float codebook_trial(const struct codebook_plan *p, int levels, int trial, float top)
{
    return ((float)(2 * levels - 1) + (float)trial * p->step) / top;
}

static inline void codebook_weights(struct codebook_group *g, const struct codebook_plan *p, const float *x,
                                    const float *importance, float mean_square)
{
    if (importance) {
        importance_weights(g->w, x, importance, mean_square, p->group);
    } else {
        const float base = p->plain == PLAIN_SQUARE_PLUS ? 0.25f * mean_square : 0.0f;
        for (int i = 0; i < p->group; i++)
            g->w[i] = base + x[i] * x[i];
    }
    for (int i = 0; i < p->group; i++)
        g->root[i] = sqrtf(g->w[i]);
}

/* Of eight weights with an odd number of negative ones, one must keep the wrong sign: that which weighs
 * least, the first of these. Its magnitude enters the search with a minus. */
static inline void make_signs_even(struct codebook_group *g, int k)
{
    const float *w = g->w + 8 * k;
    float *x = g->x + 8 * k;
    int least = 0;
    for (int i = 1; i < 8; i++) {
        if (w[i] * x[i] * x[i] < w[least] * x[least] * x[least])
            least = i;
    }
    x[least] = -x[least];
    g->signs[k] ^= (uint8_t)(1u << least);
}

static inline void codebook_signs(struct codebook_group *g, const struct codebook_plan *p, const float *x)
{
    for (int k = 0; k < p->group / 8; k++) {
        unsigned signs = 0;
        for (int i = 0; i < 8; i++) {
            const bool negative = !(x[8 * k + i] >= 0);
            g->x[8 * k + i] = negative ? -x[8 * k + i] : x[8 * k + i];
            signs |= (unsigned)negative << i;
        }
        g->signs[k] = (uint8_t)signs;
        if (p->even_signs && __builtin_parity(signs))
            make_signs_even(g, k);
    }
}

static inline float codebook_largest(const struct codebook_group *g, int n)
{
    float max = g->x[0];
    for (int i = 1; i < n; i++)
        max = max > g->x[i] ? max : g->x[i];
    return max;
}

/* A negative scale (sums that overflowed, or a single sign against all the rest) turns the signs instead. */
static inline void codebook_turn(struct codebook_group *g, const struct codebook_plan *p,
                                 struct codebook_choice *c)
{
    if (!(c->scale < 0))
        return;
    c->scale = -c->scale;
    for (int k = 0; k < p->group / 8; k++)
        g->signs[k] = (uint8_t)~g->signs[k];
}

/* The code 0..15 of a group's scale: (2 code + 1) / 31 of the largest. */
static inline unsigned codebook_scale_code(float inverse, float scale)
{
    return (unsigned)clamp_i32(round_near(0.5f * (inverse * scale - 1)), 0, 15);
}

/* --- super-blocks: one function per format takes the groups in their order, another the scales
 * ---------------- */

/* The scales of a super-block, up to 16, and the largest. Empty groups have scale 0. */
struct codebook_scales {
    float scale[16], largest;
};

static inline void codebook_note_scale(struct codebook_scales *s, int group, float scale)
{
    s->scale[group] = scale;
    s->largest = s->largest > scale ? s->largest : scale;
}

/* Codes of all scales; the stored scale is returned. */
static inline uint16_t codebook_scale_codes(uint8_t *codes, const struct codebook_scales *s, int n,
                                            float stored)
{
    const float d = s->largest / 31, inverse = 1 / d;
    for (int j = 0; j < n; j++)
        codes[j] = (uint8_t)codebook_scale_code(inverse, s->scale[j]);
    return f32_to_f16(d * stored);
}

static inline uint32_t four_signs(const uint8_t signs[4])
{
    return (signs[0] & 127u) | (signs[1] & 127u) << 7 | (signs[2] & 127u) << 14 | (signs[3] & 127u) << 21;
}

static inline void iq2_xxs_put(struct iq2_xxs_block *b, int j, const struct codebook_group *g,
                               const struct codebook_choice *c)
{
    for (int k = 0; k < 4; k++)
        b->group[j].index[k] = (uint8_t)c->entry[k];
    b->group[j].aux = four_signs(g->signs);
}

static inline void iq2_xxs_finish(struct iq2_xxs_block *b, const struct codebook_scales *s)
{
    uint8_t codes[8];
    if (s->largest == 0) {
        memset(b, 0, sizeof *b);
        return;
    }
    b->d = codebook_scale_codes(codes, s, 8, codebook_plan_iq2_xxs.stored);
    for (int j = 0; j < 8; j++)
        b->group[j].aux |= (uint32_t)codes[j] << 28;
}

static inline void iq2_xs_put(struct iq2_xs_block *b, int j, const struct codebook_group *g,
                              const struct codebook_choice *c)
{
    for (int k = 0; k < 2; k++)
        b->q[2 * j + k] = (uint16_t)(c->entry[k] | (g->signs[k] & 127u) << 9);
}

static inline void iq2_xs_finish(struct iq2_xs_block *b, const struct codebook_scales *s)
{
    uint8_t codes[16];
    if (s->largest == 0) {
        memset(b, 0, sizeof *b);
        return;
    }
    b->d = codebook_scale_codes(codes, s, 16, codebook_plan_iq2_xs.stored);
    for (int j = 0; j < 8; j++)
        b->scales[j] = (uint8_t)(codes[2 * j] | codes[2 * j + 1] << 4);
}

static inline void iq2_s_put(struct iq2_s_block *b, int j, const struct codebook_group *g,
                             const struct codebook_choice *c)
{
    for (int k = 0; k < 2; k++) {
        const int tuple = 2 * j + k;
        b->q[tuple] = (uint8_t)c->entry[k];
        b->high[tuple / 4] |= (uint8_t)((c->entry[k] >> 8) << 2 * (tuple % 4));
        b->signs[tuple] = g->signs[k];
    }
}

static inline void iq2_s_finish(struct iq2_s_block *b, const struct codebook_scales *s)
{
    uint8_t codes[16];
    if (s->largest == 0)
        return;
    b->d = codebook_scale_codes(codes, s, 16, codebook_plan_iq2_s.stored);
    for (int j = 0; j < 8; j++)
        b->scales[j] = (uint8_t)(codes[2 * j] | codes[2 * j + 1] << 4);
}

static inline void iq3_xxs_put(struct iq3_xxs_block *b, int j, const struct codebook_group *g,
                               const struct codebook_choice *c)
{
    for (int k = 0; k < 8; k++)
        b->q[8 * j + k] = (uint8_t)c->entry[k];
    b->aux[j] = four_signs(g->signs);
}

static inline void iq3_xxs_finish(struct iq3_xxs_block *b, const struct codebook_scales *s)
{
    uint8_t codes[8];
    if (s->largest == 0) {
        memset(b, 0, sizeof *b);
        return;
    }
    b->d = codebook_scale_codes(codes, s, 8, codebook_plan_iq3_xxs.stored);
    for (int j = 0; j < 8; j++)
        b->aux[j] |= (uint32_t)codes[j] << 28;
}

/* Quirk of the reference, kept for the same bytes: low index bytes and signs go to the place after the last
 * group that was not empty, so that those behind an empty group (32 zeros) land too early; the ninth index
 * bits do not. */
static inline void iq3_s_put(struct iq3_s_block *b, int j, int n_full, const struct codebook_group *g,
                             const struct codebook_choice *c)
{
    for (int k = 0; k < 8; k++) {
        b->q[8 * n_full + k] = (uint8_t)c->entry[k];
        b->high[j] |= (uint8_t)((c->entry[k] >> 8) << k);
    }
    memcpy(b->signs + 4 * n_full, g->signs, 4);
}

static inline void iq3_s_finish(struct iq3_s_block *b, const struct codebook_scales *s)
{
    uint8_t codes[8];
    if (s->largest == 0)
        return;
    b->d = codebook_scale_codes(codes, s, 8, codebook_plan_iq3_s.stored);
    for (int j = 0; j < 4; j++)
        b->scales[j] = (uint8_t)(codes[2 * j] | codes[2 * j + 1] << 4);
}

/* --- a super-block around any search
 * ---------------------------------------------------------------------------- */

/* What the levels do in their own way, with the same results. */
struct codebook_engine {
    void (*weights)(struct codebook_group *g, const struct codebook_plan *p, const float *x,
                    const float *importance, float mean_square);
    /* The scales of eight groups of 32 on codes 0..4, where the trials of iq2_xxs start. */
    void (*starts)(float scale[8], const struct codebook_group g[8]);
    /* Scale and entries of a group. `top` as in codebook_trial; c->scale holds the scale without any trial.
     */
    void (*search)(struct codebook_choice *c, const struct codebook_plan *p, const struct codebook *b,
                   const struct codebook_group *g, float top);
};

struct codebook_work {
    struct codebook_group group[16];
    struct codebook_choice choice[16];
    struct codebook_scales scales;
};

/* Where the trials of each group go; empty groups are marked. */
static inline void codebook_tops(struct codebook_work *work, float top[16], const struct codebook_plan *p,
                                 int levels, const struct codebook_engine *engine)
{
    const int n_groups = 256 / p->group;
    float start[8];
    if (p->start_search)
        engine->starts(start, work->group);
    for (int j = 0; j < n_groups; j++) {
        struct codebook_choice *c = &work->choice[j];
        top[j] = codebook_largest(&work->group[j], p->group);
        c->empty = top[j] < p->zero;
        c->scale = top[j] / (float)(2 * levels - 1);
        if (p->start_search && !c->empty) {
            c->scale = start[j];
            top[j] = start[j] * (float)levels;
            c->empty = top[j] <= 0;
        }
    }
}

static inline void codebook_super_block(struct codebook_work *work, const struct codebook_plan *p,
                                        const float *x, const float *importance,
                                        const struct codebook_engine *engine)
{
    const struct codebook *b = codebook_get(p->book);
    const float mean_square = p->square * sum_squares(x, 256) / 256;
    const int n_groups = 256 / p->group;
    float top[16];
    for (int j = 0; j < n_groups; j++) {
        const int first = j * p->group;
        engine->weights(&work->group[j], p, x + first, importance ? importance + first : NULL, mean_square);
        codebook_signs(&work->group[j], p, x + first);
    }
    codebook_tops(work, top, p, b->levels, engine);
    memset(&work->scales, 0, sizeof work->scales);
    for (int j = 0; j < n_groups; j++) {
        struct codebook_choice *c = &work->choice[j];
        if (c->empty)
            continue;
        engine->search(c, p, b, &work->group[j], top[j]);
        codebook_turn(&work->group[j], p, c);
        codebook_note_scale(&work->scales, j, c->scale);
    }
}

/* One row of a format: PUT packs a group that is not empty, FINISH the scales. */
#define CODEBOOK_ROW(FORMAT, ENGINE)                                                                         \
    struct FORMAT##_block *b = dst;                                                                          \
    struct codebook_work work;                                                                               \
    for (size_t k = 0; k < n_cols; k += 256, b++) {                                                          \
        codebook_super_block(&work, &codebook_plan_##FORMAT, src + k, importance ? importance + k : NULL,    \
                             ENGINE);                                                                        \
        memset(b, 0, sizeof *b);                                                                             \
        for (int j = 0; j < 256 / codebook_plan_##FORMAT.group; j++) {                                       \
            if (!work.choice[j].empty)                                                                       \
                FORMAT##_put(b, j, &work.group[j], &work.choice[j]);                                         \
        }                                                                                                    \
        FORMAT##_finish(b, &work.scales);                                                                    \
    }

/* The same for iq3_s, which counts the groups that are not empty. */
static inline void iq3_s_row(void *dst, const float *src, size_t n_cols, const float *importance,
                             const struct codebook_engine *engine)
{
    struct iq3_s_block *b = dst;
    struct codebook_work work;
    for (size_t k = 0; k < n_cols; k += 256, b++) {
        codebook_super_block(&work, &codebook_plan_iq3_s, src + k, importance ? importance + k : NULL,
                             engine);
        memset(b, 0, sizeof *b);
        for (int j = 0, n_full = 0; j < 8; j++) {
            if (!work.choice[j].empty)
                iq3_s_put(b, j, n_full++, &work.group[j], &work.choice[j]);
        }
        iq3_s_finish(b, &work.scales);
    }
}

#endif
