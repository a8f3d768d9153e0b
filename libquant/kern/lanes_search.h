/* lanes_search.h - the searches of scale_search.c, one group per lane. Included once per instruction set,
 * after its lanes_<isa>.h.
 *
 * The reference sums a group from its first weight to its last, and that order decides bytes. So a group is
 * not spread over a vector; LANES groups are searched at once, weight i of all of them in vector i, and each
 * lane does the reference's operations in the reference's order. Where lanes take different branches, both
 * are computed and a mask picks.
 *
 * Codes: a reader of scale_search.c finds them kept during the search. Here the winner's map (inverse step
 * and anchor) is kept instead, from which the few callers that need these codes get them back. */
#ifndef KERF_LANES_SEARCH_H
#define KERF_LANES_SEARCH_H

#include "../iquants.h"
#include "../scale_search.h"

/* What a search found for LANES groups. Degenerate groups (see scale_search.c) have inverse 0. */
struct lane_scales {
    lf scale, offset; /* offset: asymmetric search only */
    lf inverse;       /* code = round(inverse * (x - anchor)), clamped */
    lf anchor;        /* asymmetric search only */
};

/* round_near of the reference, for any value. */
static inline li lanes_round(lf v)
{
    return (li_bits(v + lf_all(12582912.0f)) & li_all(0x007fffff)) - li_all(0x00400000);
}

/* The same as a float and clamped, for |v| < 2^22: clamping first lets the sum with 1.5 * 2^23 do the rest.
 */
static inline lf lanes_round_small(lf v, lf low, lf high)
{
    return lf_max(lf_min(v, high), low) + lf_all(12582912.0f) - lf_all(12582912.0f);
}

static inline lf lanes_clamped(li v, int32_t low, int32_t high)
{
    return lf_from(li_max(li_min(v, li_all(high)), li_all(low)));
}

static inline lf lanes_signed_extreme(int n, const lf *x)
{
    lf extreme = lf_all(0), magnitude = lf_all(0);
    for (int i = 0; i < n; i++) {
        const lf m = lf_abs(x[i]);
        extreme = lf_pick(lm_gt(m, magnitude), x[i], extreme);
        magnitude = lf_max(m, magnitude);
    }
    return extreme;
}

/* search_symmetric, for finite x. The codes of a trial never leave float: |inverse * x| <= levels + 1 by
 * construction. */
static void lanes_symmetric(struct lane_scales *out, int n, int levels, const lf *x, const lf *w)
{
    const lf extreme = lanes_signed_extreme(n, x);
    const lm zero = lm_gt(lf_all(GROUP_ZERO), lf_abs(extreme));
    const lf low = lf_all((float)-levels), high = lf_all((float)(levels - 1));
    lf wx[32];
    for (int i = 0; i < n; i++)
        wx[i] = w[i] * x[i];
    lf scale = lf_all(0), best = lf_all(0), best_inverse = lf_all(0);
    for (int trial = -10; trial <= 9; trial++) {
        if (trial == 0)
            continue;
        const int k = trial == -10 ? 0 : trial;
        const lf inverse = lf_all(-((float)levels + 0.1f * (float)k)) / extreme;
        lf a = lf_all(0), l2 = lf_all(0);
        for (int i = 0; i < n; i++) {
            const lf l = lanes_round_small(inverse * x[i], low, high);
            a += wx[i] * l;
            l2 += w[i] * l * l;
        }
        if (trial == -10) {
            scale = lf_pick(lm_eq(l2, lf_all(0)), lf_all(0), a / l2);
            best = scale * a;
            best_inverse = inverse;
            continue;
        }
        const lm better = lm_and(lm_gt(l2, lf_all(0)), lm_gt(a * a, best * l2));
        if (lm_bits(better) != 0) {
            scale = lf_pick(better, a / l2, scale);
            best = lf_pick(better, scale * a, best);
            best_inverse = lf_pick(better, inverse, best_inverse);
        }
    }
    out->scale = lf_pick(zero, lf_all(0), scale);
    out->inverse = lf_pick(zero, lf_all(0), best_inverse);
}

/* Codes 0..levels of one trial map. `small`: all |v| < 2^22, see asym_is_small. */
static inline lf asym_code(lf v, int levels, bool small)
{
    return small ? lanes_round_small(v, lf_all(0), lf_all((float)levels))
                 : lanes_clamped(lanes_round(v), 0, levels);
}

/* Do all lanes that count stay below 2^22 under this map? Every x lies in [bottom, high], so the two ends
 * bound it. Almost always true; an anchor that drifted next to the high end breaks it. */
static inline bool asym_is_small(lf inverse, lf low, lf bottom, lf high, lm degenerate)
{
    const lf reach = lf_max(lf_abs(high - low), lf_abs(bottom - low));
    const lm fits = lm_gt(lf_all(4194303.0f), lf_abs(inverse) * reach);
    return lm_bits(lm_or(fits, degenerate)) == (1u << LANES) - 1;
}

/* Batches searched side by side: the errors are one chain of additions per lane, so a single batch would
 * leave the adders waiting. */
enum { WAYS = 2 };

struct asym_state {
    lf low, high, bottom, sum_w, sum_x;
    lm degenerate;
    lf best, scale, best_inverse, anchor; /* of the best trial so far */
    lf codes[32];                         /* of the trial at hand */
    lf l1, l2, a;                         /* its sums */
    lf inverse, trial_scale, trial_low, error;
    lm line; /* lanes where a line is defined */
};

static inline void asym_begin(struct asym_state *s, int n, const lf *x, const lf *w)
{
    lf low = x[0], high = x[0], sum_w = w[0], sum_x = w[0] * x[0];
    for (int i = 1; i < n; i++) {
        low = lf_min(x[i], low);
        high = lf_max(x[i], high);
        sum_w += w[i];
        sum_x += w[i] * x[i];
    }
    low = lf_pick(lm_gt(low, lf_all(0)), lf_all(0), low);
    s->low = s->bottom = low;
    s->high = high;
    s->sum_w = sum_w;
    s->sum_x = sum_x;
    s->degenerate = lm_ge(low, high);
}

static inline __attribute__((always_inline)) void asym_sum(struct asym_state *s, int n, int levels,
                                                           const lf *x, const lf *w, bool small)
{
    const lf inverse = s->inverse, low = s->low;
    lf l1 = lf_all(0), l2 = lf_all(0), a = lf_all(0);
    for (int i = 0; i < n; i++) {
        const lf l = asym_code(inverse * (x[i] - low), levels, small);
        const lf wl = w[i] * l;
        s->codes[i] = l;
        l1 += wl;
        l2 += wl * l;
        a += wl * x[i];
    }
    s->l1 = l1;
    s->l2 = l2;
    s->a = a;
}

/* Map levels + something steps on the range, round, sum. */
static inline void asym_trial(struct asym_state *s, int n, int levels, float steps, const lf *x, const lf *w)
{
    s->inverse = lf_all(steps) / (s->high - s->low);
    if (asym_is_small(s->inverse, s->low, s->bottom, s->high, s->degenerate))
        asym_sum(s, n, levels, x, w, true);
    else
        asym_sum(s, n, levels, x, w, false);
}

/* asym_line of the reference. */
static inline void asym_fit(struct asym_state *s)
{
    const lf d = s->sum_w * s->l2 - s->l1 * s->l1;
    s->line = lm_gt(d, lf_all(0));
    s->trial_scale = (s->sum_w * s->a - s->sum_x * s->l1) / d;
    s->trial_low = (s->l2 * s->sum_x - s->l1 * s->a) / d;
    const lm above = lm_gt(s->trial_low, lf_all(0));
    if (lm_bits(above) != 0) {
        s->trial_low = lf_pick(above, lf_all(0), s->trial_low);
        s->trial_scale = lf_pick(above, s->a / s->l2, s->trial_scale);
    }
}

/* Errors of the trials of all ways. */
static inline __attribute__((always_inline)) void
asym_errors(struct asym_state s[WAYS], int n, const lf x[WAYS][32], const lf w[WAYS][32], bool absolute)
{
    lf error[WAYS], scale[WAYS], low[WAYS];
    for (int way = 0; way < WAYS; way++) {
        error[way] = lf_all(0);
        scale[way] = s[way].trial_scale;
        low[way] = s[way].trial_low;
    }
    for (int i = 0; i < n; i++) {
        for (int way = 0; way < WAYS; way++) {
            const lf difference = scale[way] * s[way].codes[i] + low[way] - x[way][i];
            const lf square = difference * difference;
            error[way] += w[way][i] * (absolute ? lf_abs(difference) : square);
        }
    }
    for (int way = 0; way < WAYS; way++)
        s[way].error = error[way];
}

static inline void asym_accept(struct asym_state *s)
{
    const lm better = lm_and(s->line, lm_gt(s->best, s->error));
    s->best_inverse = lf_pick(better, s->inverse, s->best_inverse);
    s->anchor = lf_pick(better, s->low, s->anchor);
    s->best = lf_pick(better, s->error, s->best);
    s->scale = lf_pick(better, s->trial_scale, s->scale);
    s->low = lf_pick(better, s->trial_low, s->low);
}

/* search_asymmetric. Each lane has its own anchor, which drifts when that lane accepts a trial. */
static inline __attribute__((always_inline)) void asym_search(struct lane_scales out[WAYS], int n,
                                                              const struct asym_plan *plan,
                                                              const lf x[WAYS][32], const lf w[WAYS][32],
                                                              bool absolute)
{
    struct asym_state s[WAYS];
    for (int way = 0; way < WAYS; way++) {
        asym_begin(&s[way], n, x[way], w[way]);
        asym_trial(&s[way], n, plan->levels, (float)plan->levels, x[way], w[way]);
        s[way].trial_scale = lf_all(1) / s[way].inverse;
        s[way].trial_low = s[way].low;
    }
    asym_errors(s, n, x, w, absolute);
    for (int way = 0; way < WAYS; way++) {
        s[way].best = s[way].error;
        s[way].scale = s[way].trial_scale;
        s[way].best_inverse = s[way].inverse;
        s[way].anchor = s[way].low;
    }
    for (int k = 0; k <= plan->n_steps; k++) {
        const float steps = plan->first + plan->step * (float)k + (float)plan->levels;
        for (int way = 0; way < WAYS; way++) {
            asym_trial(&s[way], n, plan->levels, steps, x[way], w[way]);
            asym_fit(&s[way]);
        }
        asym_errors(s, n, x, w, absolute);
        for (int way = 0; way < WAYS; way++)
            asym_accept(&s[way]);
    }
    for (int way = 0; way < WAYS; way++) {
        const lm degenerate = s[way].degenerate;
        out[way].scale = lf_pick(degenerate, lf_all(0), s[way].scale);
        out[way].offset = lf_neg(lf_pick(degenerate, s[way].bottom, s[way].low));
        out[way].inverse = lf_pick(degenerate, lf_all(0), s[way].best_inverse);
        out[way].anchor = lf_pick(degenerate, lf_all(0), s[way].anchor);
    }
}

static void lanes_asymmetric(struct lane_scales out[WAYS], int n, const struct asym_plan *plan,
                             const lf x[WAYS][32], const lf w[WAYS][32])
{
    if (plan->absolute)
        asym_search(out, n, plan, x, w, true);
    else
        asym_search(out, n, plan, x, w, false);
}

/* One single-code move in every lane: try_move of the reference. `old` are the codes as the reference stores
 * them. Returns the lanes that moved, with their proposal in *moved. */
struct lane_moves {
    lf a, l2;
};

static inline lm lanes_try_move(struct lane_moves *sums, lf x, lf w, li old, int low, int high,
                                bool needs_rest, li *moved)
{
    const lf l = lf_from(old);
    const lf a = sums->a - w * x * l, l2 = sums->l2 - w * l * l;
    const lf rest = needs_rest ? l2 : lf_all(1);
    *moved = li_max(li_min(lanes_round(x * l2 / a), li_all(high)), li_all(low));
    const lf p = lf_from(*moved);
    const lf a_new = a + w * x * p, l2_new = l2 + w * p * p;
    const lf judged = needs_rest ? lf_all(1) : l2_new;
    lm m = lm_and(lm_gt(a, lf_all(0)), lm_gt(rest, lf_all(0)));
    m = lm_and(m, lm_and(lm_ne_int(*moved, old), lm_gt(judged, lf_all(0))));
    m = lm_and(m, lm_gt(a_new * a_new * sums->l2, sums->a * sums->a * l2_new));
    sums->a = lf_pick(m, a_new, sums->a);
    sums->l2 = lf_pick(m, l2_new, sums->l2);
    return m;
}

/* search_positive; codes[i] are bytes in ints. */
static lf lanes_positive(int n, int levels, const lf *x, const lf *w, li *codes)
{
    lf max = lf_all(0);
    for (int i = 0; i < n; i++)
        max = lf_max(max, x[i]);
    const lm zero = lm_gt(lf_all(GROUP_ZERO), max);
    lf inverse = lf_all((float)levels) / max, best = lf_all(0);
    for (int trial = -5; trial <= 4; trial++) {
        if (trial == 0)
            continue;
        const bool start = trial == -5;
        const lf t = lf_all((start ? 0.0f : 0.1f * (float)trial) + (float)levels) / max;
        const lf scale = lf_all(1) / t;
        lf error = lf_all(0);
        for (int i = 0; i < n; i++) {
            const li l = lanes_round(t * x[i]);
            const lf difference =
                x[i] - scale * lf_from(start ? l & li_all(0xff) : li_min(l, li_all(levels)));
            error += w[i] * difference * difference;
        }
        const lm better = lm_gt(best, error);
        best = start ? error : lf_pick(better, error, best);
        inverse = start ? inverse : lf_pick(better, t, inverse);
    }
    struct lane_moves sums = {lf_all(0), lf_all(0)};
    for (int i = 0; i < n; i++) {
        const li l = li_min(lanes_round(inverse * x[i]), li_all(levels));
        const lf q = lf_from(l);
        codes[i] = l & li_all(0xff);
        sums.a += w[i] * x[i] * q;
        sums.l2 += w[i] * q * q;
    }
    for (int sweep = 0; sweep < 5; sweep++) {
        lm changed = lm_none();
        for (int i = 0; i < n; i++) {
            li moved;
            const lm m = lanes_try_move(&sums, x[i], w[i], codes[i], INT32_MIN, levels, true, &moved);
            codes[i] = li_pick(m, moved & li_all(0xff), codes[i]);
            changed = lm_or(changed, m);
        }
        if (lm_bits(lm_and_not(changed, zero)) == 0) /* a lane that did not move will not move again */
            break;
    }
    for (int i = 0; i < n; i++)
        codes[i] = li_pick(zero, li_all(0), codes[i]);
    const lf scale = lf_pick(lm_gt(sums.l2, lf_all(0)), sums.a / sums.l2, lf_all(0));
    return lf_pick(zero, lf_all(0), scale);
}

/* search_moves, the scale alone, for MOVE_WAYS batches side by side: a move is one long chain of operations.
 */
enum { MOVE_WAYS = 4 };

struct move_state {
    lm zero;
    li l[16];
    struct lane_moves sums;
};

static inline void moves_begin(struct move_state *s, int n, int levels, const lf *x)
{
    const lf extreme = lanes_signed_extreme(n, x);
    const lf inverse = lf_all((float)-levels) / extreme;
    s->zero = lm_gt(lf_all(GROUP_ZERO), lf_abs(extreme));
    s->sums = (struct lane_moves){lf_all(0), lf_all(0)};
    for (int i = 0; i < n; i++) {
        s->l[i] = li_max(li_min(lanes_round(inverse * x[i]), li_all(levels - 1)), li_all(-levels));
        const lf w = x[i] * x[i], q = lf_from(s->l[i]);
        s->sums.a += w * x[i] * q;
        s->sums.l2 += w * q * q;
    }
}

static void lanes_moves(lf scale[MOVE_WAYS], int n, int levels, const lf x[MOVE_WAYS][16])
{
    struct move_state s[MOVE_WAYS];
    for (int way = 0; way < MOVE_WAYS; way++)
        moves_begin(&s[way], n, levels, x[way]);
    for (int sweep = 0; sweep < 5; sweep++) {
        lm changed = lm_none();
        for (int i = 0; i < n; i++) {
            for (int way = 0; way < MOVE_WAYS; way++) {
                li moved;
                const lf v = x[way][i];
                const lm m =
                    lanes_try_move(&s[way].sums, v, v * v, s[way].l[i], -levels, levels - 1, false, &moved);
                s[way].l[i] = li_pick(m, moved, s[way].l[i]);
                changed = lm_or(changed, lm_and_not(m, s[way].zero));
            }
        }
        if (lm_bits(changed) == 0)
            break;
    }
    for (int way = 0; way < MOVE_WAYS; way++) {
        const struct lane_moves sums = s[way].sums;
        const lf v = lf_pick(lm_gt(sums.l2, lf_all(0)), sums.a / sums.l2, lf_all(0));
        scale[way] = lf_pick(s[way].zero, lf_all(0), v);
    }
}

/* --- the levels of iq4
 * --------------------------------------------------------------------------------------- */

/* The 15 midpoints between levels as a search tree of four comparisons, and the levels by the path taken. */
static const float iq4_middle8[1] = {-4.5f};
static const float iq4_middle4[8] = {-57.0f, 45.5f, 0, 0, 0, 0, 0, 0};
static const float iq4_middle2[8] = {-93.5f, -28.5f, 19.0f, 79.0f, 0, 0, 0, 0};
static const float iq4_middle1[8] = {-115.5f, -74.0f, -42.0f, -16.0f, 7.0f, 31.5f, 61.0f, 101.0f};
static const float iq4_even[8] = {-127, -83, -49, -22, 1, 25, 53, 89};
static const float iq4_odd[8] = {-104, -65, -35, -10, 13, 38, 69, 113};

static inline li iq4_descend(lf v, li index, lf middle, lm *last)
{
    *last = lm_not_lt(v, middle); /* NaN counts as above, as in iq4_nearest */
    return index + index + li_pick(*last, li_all(1), li_all(0));
}

static inline li iq4_path(lf v, lm *last)
{
    li index = iq4_descend(v, li_all(0), lf_all(iq4_middle8[0]), last);
    index = iq4_descend(v, index, lf_pick(*last, lf_all(iq4_middle4[1]), lf_all(iq4_middle4[0])), last);
    return iq4_descend(v, index, lf_lookup8(iq4_middle2, index), last);
}

/* Index of the nearest level. */
static inline li lanes_iq4_index(lf v)
{
    lm last;
    const li path = iq4_path(v, &last);
    return iq4_descend(v, path, lf_lookup8(iq4_middle1, path), &last);
}

/* The nearest level itself. */
static inline lf lanes_iq4_level(lf v)
{
    lm last;
    const li path = iq4_path(v, &last);
    last = lm_not_lt(v, lf_lookup8(iq4_middle1, path));
    return lf_pick(last, lf_lookup8(iq4_odd, path), lf_lookup8(iq4_even, path));
}

/* search_iq4 */
static lf lanes_iq4(int n, const lf *x, const lf *w)
{
    const lf extreme = lanes_signed_extreme(n, x);
    const lm zero = lm_gt(lf_all(GROUP_ZERO), lf_abs(extreme));
    lf scale = lf_all(0), best = lf_all(0);
    for (int trial = -8; trial <= 7; trial++) {
        const bool start = trial == -8;
        lf inverse = lf_all((float)(trial + iq4_levels[0])) / extreme;
        if (start)
            inverse = lf_all(1) / (lf_neg(extreme) / lf_all((float)iq4_levels[0]));
        lf a = lf_all(0), l2 = lf_all(0);
        for (int i = 0; i < n; i++) {
            const lf q = lanes_iq4_level(inverse * x[i]);
            const lf wq = w[i] * q;
            a += wq * x[i];
            l2 += wq * q;
        }
        const lm some = lm_gt(l2, lf_all(0));
        const lm better = start ? some : lm_and(some, lm_gt(a * a, best * l2));
        scale = lf_pick(better, a / l2, scale);
        const lf product = scale * a;
        best = start ? product : lf_pick(better, product, best);
    }
    return lf_pick(zero, lf_all(0), scale);
}

#endif
