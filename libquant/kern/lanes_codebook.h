/* lanes_codebook.h - the encoders of iq2 and iq3, LANES trial scales at a time. Included once per instruction
 * set, after its lanes_<isa>.h. Bytes are those of codebook_encode.c.
 *
 * Of the two ways to fill a vector, the trials of one group go side by side rather than groups: neighbouring
 * trials mostly round a tuple to the same point. The trials that do form a run, and a run needs its list
 * walked once. What an entry costs is a sum over the tuple of terms that depend on the code alone, so the
 * terms of all codes are made first, and the walk only adds them up, in the order of the reference. */
#ifndef KERF_LANES_CODEBOOK_H
#define KERF_LANES_CODEBOOK_H

#include "../codebook_parts.h"
#include "lanes_encode.h"

#include <float.h>

enum { TRIAL_ROOM = CODEBOOK_MAX_TRIALS + 1 + LANES, TERM_ROW = LANES > 8 ? LANES : 8 };

/* All trials of one group. What lies behind the last one is a copy of it. */
struct lanes_trials {
    int n;
    float inverse[TRIAL_ROOM], scale[TRIAL_ROOM];
    float a[TRIAL_ROOM], l2[TRIAL_ROOM];
    int32_t code[8][TRIAL_ROOM]; /* of each tuple: nibble i holds the code of weight i */
    uint32_t off_book[8];        /* bit t: the rounding of trial t was no entry        */
};

static inline li li_load(const int32_t *p)
{
    li v;
    memcpy(&v, p, sizeof v);
    return v;
}

static inline void li_store(int32_t *p, li v)
{
    memcpy(p, &v, sizeof v);
}

/* --- one tuple
 * -------------------------------------------------------------------------------------------------- */

/* The point that each trial rounds a tuple to. */
static inline void lanes_keys(int32_t *key, const struct lanes_trials *t, const float *x, int tuple,
                              int levels)
{
    for (int first = 0; first < t->n; first += LANES) {
        const lf inverse = lf_load(t->inverse + first);
        li k = li_all(0);
        for (int i = tuple; i-- > 0;) {
            const li code = lanes_round(lf_all(0.5f) * (inverse * lf_all(x[i]) - lf_all(1)));
            k = levels == 3 ? k + k + k : k << 3;
            k += li_max(li_min(code, li_all(levels - 1)), li_all(0));
        }
        li_store(key + first, k);
    }
}

/* Bit t: trial t + 1 rounds to another point than t, or there is none. */
static inline uint32_t lanes_run_ends(const int32_t *key, int n)
{
    uint32_t ends = 0;
    for (int first = 0; first < n; first += LANES)
        ends |= (uint32_t)lm_bits(lm_ne_int(li_load(key + first), li_load(key + first + 1))) << first;
    return ends | (uint32_t)1 << (n - 1);
}

static inline const lf *term_at(const lf *term, uint8_t step)
{
    return (const lf *)(const void *)((const char *)term + step * (sizeof(lf) / 8));
}

/* What code c of a weight adds to the distance, in every lane. */
static inline lf lanes_term(lf scale, int c, float x, float root)
{
    const lf difference = scale * lf_all((float)(2 * c + 1)) - lf_all(x);
    return lf_all(root) * difference * difference;
}

/* The terms of all entries where `step` of codebook.h looks for them: those of a tuple of 4, or of one of 8
 * first the table of 27, then the other. Sums are made in the order of the reference. */
enum { HEAD_TERMS = 27, ALL_TERMS = 42 };

static inline void lanes_all_terms(lf term[ALL_TERMS], const float *x, const float *root, lf scale, int tuple)
{
    if (tuple == 4) {
        for (int i = 0; i < 4; i++) {
            for (int c = 0; c < 8; c++)
                term[8 * i + c] = lanes_term(scale, c, x[i], root[i]);
        }
        return;
    }
    for (int c1 = 0; c1 < 3; c1++) {
        const lf second = lanes_term(scale, c1, x[1], root[1]);
        for (int c0 = 0; c0 < 3; c0++) {
            const lf two = lanes_term(scale, c0, x[0], root[0]) + second;
            for (int c2 = 0; c2 < 3; c2++)
                term[9 * c2 + 3 * c1 + c0] = two + lanes_term(scale, c2, x[2], root[2]);
        }
    }
    for (int i = 3; i < 8; i++) {
        for (int c = 0; c < 3; c++)
            term[HEAD_TERMS + 3 * (i - 3) + c] = lanes_term(scale, c, x[i], root[i]);
    }
}

/* The codes of the nearest entry in every lane. */
static inline li lanes_nearest_codes(const struct codebook *b, const uint16_t *list, const float *x,
                                     const float *root, lf scale, int tuple)
{
    lf term[ALL_TERMS];
    lanes_all_terms(term, x, root, scale, tuple);
    const lf *rest = tuple == 4 ? term : term + HEAD_TERMS;
    lf best = lf_all(FLT_MAX);
    li codes = li_all((int32_t)b->code[list[1]]);
    for (unsigned j = 1; j <= list[0]; j++) {
        const uint8_t *step = b->step[list[j]];
        lf distance = *term_at(term, step[0]);
        for (int i = 1; i < (tuple == 4 ? 4 : 6); i++)
            distance += *term_at(rest, step[i]);
        codes = li_pick(lm_gt(best, distance), li_all((int32_t)b->code[list[j]]), codes);
        best = lf_min(distance, best);
    }
    return codes;
}

static inline void lanes_tuple(struct lanes_trials *t, int k, const struct codebook *b,
                               const struct codebook_group *g, int tuple, int levels)
{
    const float *x = g->x + tuple * k, *root = g->root + tuple * k;
    int32_t
        key[TRIAL_ROOM + LANES]; /* more than is read: with sanitizers, GCC does not see how far t->n goes */
    lanes_keys(key, t, x, tuple, levels);
    li_store(key + (t->n + LANES - 1) / LANES * LANES,
             li_all(0)); /* read by lanes_run_ends, without effect */
    const uint32_t ends = lanes_run_ends(key, t->n);
    uint32_t off_book = 0;
    for (int first = 0, end; first < t->n; first = end) {
        const int32_t place = b->place[key[first]];
        end = first + __builtin_ctz(ends >> first) + 1;
        for (int at = first; at < end; at += LANES) /* what is stored too far, later runs put right */
            li_store(t->code[k] + at, place >= 0 ? li_all((int32_t)b->code[place])
                                                 : lanes_nearest_codes(b, b->list + (-1 - place), x, root,
                                                                       lf_load(t->scale + at), tuple));
        if (place < 0)
            off_book |= (uint32_t)(((uint64_t)1 << end) - ((uint64_t)1 << first));
    }
    t->off_book[k] = off_book;
}

/* The sums of the trials over one more tuple. */
static inline void lanes_fit_tuple(struct lanes_trials *t, int k, const struct codebook_group *g, int tuple)
{
    const float *x = g->x + tuple * k, *w = g->w + tuple * k;
    for (int first = 0; first < t->n; first += LANES) {
        const li code = li_load(t->code[k] + first);
        const li odd =
            (li)((lu)code + (lu)code + 0x11111111u); /* lanes behind the last trial hold anything */
        lf a = lf_load(t->a + first), l2 = lf_load(t->l2 + first);
        for (int i = 0; i < tuple; i++) {
            const lf q = lf_from(odd >> 4 * i & li_all(15));
            a += lf_all(w[i] * x[i]) * q;
            l2 += lf_all(w[i]) * q * q;
        }
        lf_store(t->a + first, a);
        lf_store(t->l2 + first, l2);
    }
}

static inline void lanes_all_trials(struct lanes_trials *t, const struct codebook_plan *p,
                                    const struct codebook *b, const struct codebook_group *g, float top,
                                    int tuple, int levels)
{
    t->n = 2 * p->reach + 1;
    for (int i = 0; i < TRIAL_ROOM; i++) {
        t->inverse[i] = codebook_trial(p, levels, i < t->n ? i - p->reach : p->reach, top);
        t->a[i] = t->l2[i] = 0;
    }
    for (int i = 0; i < TRIAL_ROOM; i += LANES)
        lf_store(t->scale + i, lf_all(1) / lf_load(t->inverse + i));
    for (int k = 0; k < p->group / tuple; k++) {
        lanes_tuple(t, k, b, g, tuple, levels);
        lanes_fit_tuple(t, k, g, tuple);
    }
}

/* --- one scale: LANES entries of a list at a time
 * --------------------------------------------------------------- */

/* The entry of a list whose terms have the least sum, the first one on ties. term[i]: by code, TERM_ROW of
 * them. */
static inline unsigned lanes_nearest_entry(const struct codebook *b, const uint16_t *list,
                                           const float term[][TERM_ROW], int tuple)
{
    static const float numbers[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    const int n = list[0];
    lf best = lf_all(FLT_MAX), position = lf_all(FLT_MAX);
    for (int first = 0; first < n; first += LANES) {
        int32_t t[LANES];
        for (int lane = 0; lane < LANES; lane++)
            t[lane] = (int32_t)b->code[list[1 + first + lane]];
        const li code = li_load(t);
        lf distance = lf_lookup8(term[0], code & li_all(7));
        for (int i = 1; i < tuple; i++)
            distance += lf_lookup8(term[i], code >> 4 * i & li_all(7));
        const lf at = lf_load(numbers) + lf_all((float)first);
        const lm better = lm_and(lm_gt(best, distance), lm_gt(lf_all((float)n), at));
        best = lf_pick(better, distance, best);
        position = lf_pick(better, at, position);
    }
    float value[LANES], place[LANES], least = FLT_MAX, chosen = 0;
    lf_store(value, best);
    lf_store(place, position);
    for (int lane = 0; lane < LANES; lane++) {
        if (value[lane] < least || (value[lane] == least && place[lane] < chosen)) {
            least = value[lane];
            chosen = place[lane];
        }
    }
    return list[1 + (int)chosen];
}

/* term[c] = w (scale * level - x)^2 for eight levels. */
static inline void lanes_terms(float term[TERM_ROW], const float levels[TERM_ROW], float scale, float x,
                               float w)
{
    for (int c = 0; c < TERM_ROW; c += LANES) {
        const lf difference = lf_all(scale) * lf_load(levels + c) - lf_all(x);
        lf_store(term + c, lf_all(w) * difference * difference);
    }
}

static inline uint32_t lanes_codes_at(bool *on_book, const struct codebook *b, const float *x,
                                      const float *root, float scale, int tuple, int levels)
{
    static const float odd[TERM_ROW] = {1, 3, 5, 7, 9, 11, 13, 15};
    float term[8][TERM_ROW];
    const float inverse = 1 / scale;
    unsigned key = 0;
    for (int i = tuple; i-- > 0;)
        key = key * (unsigned)levels +
              (unsigned)clamp_i32(round_near(0.5f * (inverse * x[i] - 1)), 0, levels - 1);
    const int32_t place = b->place[key];
    *on_book = place >= 0;
    if (place >= 0)
        return b->code[place];
    for (int i = 0; i < tuple; i++)
        lanes_terms(term[i], odd, scale, x[i], root[i]);
    return b->code[lanes_nearest_entry(b, b->list + (-1 - place), term, tuple)];
}

/* --- a group
 * ---------------------------------------------------------------------------------------------------- */

/* What is left of the trials: the codes of the best one. */
struct lanes_best {
    uint32_t code[8];
    bool on_book[8];
};

static inline void lanes_best_trial(struct lanes_best *best, struct codebook_choice *c,
                                    const struct codebook_plan *p, const struct lanes_trials *t, int n_tuples)
{
    int trial = -1;
    float score = 0;
    for (int i = 0; i < t->n; i++) {
        if (t->l2[i] > 0 && t->a[i] * t->a[i] > score * t->l2[i]) {
            c->scale = t->a[i] / t->l2[i];
            score = c->scale * t->a[i];
            trial = i;
        }
    }
    for (int k = 0; k < n_tuples; k++) {
        best->code[k] = trial < 0 ? 0 : (uint32_t)t->code[k][trial];
        best->on_book[k] = trial < 0 ? p->start_on_book : (t->off_book[k] >> trial & 1) == 0;
    }
}

static inline void lanes_again(struct lanes_best *best, struct codebook_choice *c,
                               const struct codebook_plan *p, const struct codebook *b,
                               const struct codebook_group *g, int tuple, int levels)
{
    const int n_tuples = p->group / tuple;
    bool any = p->again == AGAIN_ALL;
    for (int k = 0; k < n_tuples; k++)
        any = any || !best->on_book[k];
    if (!any || !(c->scale > 0))
        return;
    for (int k = 0; k < n_tuples; k++) {
        if (p->again != AGAIN_OFF_BOOK || !best->on_book[k])
            best->code[k] = lanes_codes_at(&best->on_book[k], b, g->x + tuple * k, g->root + tuple * k,
                                           c->scale, tuple, levels);
    }
    float a = 0, l2 = 0;
    for (int i = 0; i < p->group; i++) {
        const float q = (float)(2 * (best->code[i / tuple] >> 4 * (i % tuple) & 7) + 1);
        a += g->w[i] * g->x[i] * q;
        l2 += g->w[i] * q * q;
    }
    if (l2 > 0)
        c->scale = a / l2;
}

static inline void lanes_search_group(struct codebook_choice *c, const struct codebook_plan *p,
                                      const struct codebook *b, const struct codebook_group *g, float top,
                                      int tuple, int levels)
{
    struct lanes_trials trials;
    struct lanes_best best;
    lanes_all_trials(&trials, p, b, g, top, tuple, levels);
    lanes_best_trial(&best, c, p, &trials, p->group / tuple);
    lanes_again(&best, c, p, b, g, tuple, levels);
    for (int k = 0; k < p->group / tuple; k++) {
        unsigned key = 0;
        for (int i = tuple; i-- > 0;)
            key = key * (unsigned)levels + (best.code[k] >> 4 * i & 7);
        c->entry[k] = (uint16_t)b->place[key];
    }
}

static void lanes_codebook_search(struct codebook_choice *c, const struct codebook_plan *p,
                                  const struct codebook *b, const struct codebook_group *g, float top)
{
    if (b->tuple == 8)
        lanes_search_group(c, p, b, g, top, 8, 3);
    else
        lanes_search_group(c, p, b, g, top, 4, 8);
}

static void lanes_codebook_weights(struct codebook_group *g, const struct codebook_plan *p, const float *x,
                                   const float *importance, float mean_square)
{
    const lf base = lf_all(p->plain == PLAIN_SQUARE_PLUS ? 0.25f * mean_square : 0.0f);
    for (int i = 0; i < p->group; i += LANES) {
        const lf v = lf_load(x + i);
        lf w = base + v * v;
        if (importance)
            w = lf_load(importance + i) * lf_sqrt(lf_all(mean_square) + v * v);
        lf_store(g->w + i, w);
        lf_store(g->root + i, lf_sqrt(w));
    }
}

static void lanes_codebook_starts(float scale[8], const struct codebook_group g[8])
{
    float x[8 * 32], w[8 * 32], out[LANES];
    for (int j = 0; j < 8; j++) {
        memcpy(x + 32 * j, g[j].x, sizeof g[j].x);
        memcpy(w + 32 * j, g[j].w, sizeof g[j].w);
    }
    for (size_t first = 0; first < 8; first += LANES) {
        lf lx[32], lw[32];
        li codes[32];
        load_groups(lx, x, first, 8, 32);
        load_groups(lw, w, first, 8, 32);
        lf_store(out, lanes_positive(32, 4, lx, lw, codes));
        for (size_t j = first; j < 8 && j < first + LANES; j++)
            scale[j] = out[j - first];
    }
}

static const struct codebook_engine lanes_codebook_engine = {lanes_codebook_weights, lanes_codebook_starts,
                                                             lanes_codebook_search};

static void lanes_iq2_xxs_encode(void *dst, const float *src, size_t n_cols, const float *importance)
{
    CODEBOOK_ROW(iq2_xxs, &lanes_codebook_engine)
}

static void lanes_iq2_xs_encode(void *dst, const float *src, size_t n_cols, const float *importance)
{
    CODEBOOK_ROW(iq2_xs, &lanes_codebook_engine)
}

static void lanes_iq2_s_encode(void *dst, const float *src, size_t n_cols, const float *importance)
{
    CODEBOOK_ROW(iq2_s, &lanes_codebook_engine)
}

static void lanes_iq3_xxs_encode(void *dst, const float *src, size_t n_cols, const float *importance)
{
    CODEBOOK_ROW(iq3_xxs, &lanes_codebook_engine)
}

static void lanes_iq3_s_encode(void *dst, const float *src, size_t n_cols, const float *importance)
{
    iq3_s_row(dst, src, n_cols, importance, &lanes_codebook_engine);
}

#endif
