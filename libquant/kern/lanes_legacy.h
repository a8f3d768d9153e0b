/* lanes_legacy.h - the encoders of the 32-weight formats, LANES blocks at a time. Included once per
 * instruction set, after its lanes_<isa>.h.
 *
 * With importance the blocks are searched one per lane (lanes_search.h); without, the map follows from the
 * extreme values of each block and the blocks still go one per lane, so that the first of equal extremes wins
 * as in the reference. Bytes are those of legacy_encode.c. */
#ifndef KERF_LANES_LEGACY_H
#define KERF_LANES_LEGACY_H

#include "lanes_encode.h"

/* Up to LANES neighbouring blocks on their way: weights i of all of them in x[i]. */
struct legacy_batch {
    lf x[32], w[32];
    float d[LANES], m[LANES];
    uint8_t codes[LANES][32];
};

static void legacy_load(struct legacy_batch *t, const float *src, const float *importance, lf mean_square,
                        size_t first, size_t n_groups)
{
    load_groups(t->x, src, first, n_groups, 32);
    if (importance) {
        load_groups(t->w, importance, first, n_groups, 32);
        lanes_weights(t->w, t->x, mean_square, 32);
    }
}

/* Code i of every lane. */
static inline void legacy_put(struct legacy_batch *t, int i, li codes)
{
    uint8_t b[LANES];
    lb_store(b, codes);
    for (int lane = 0; lane < LANES; lane++)
        t->codes[lane][i] = b[lane];
}

static inline lf lanes_inverse(lf d)
{
    return lf_pick(lm_eq(d, lf_all(0)), lf_all(0), lf_all(1) / d);
}

/* (x - low) * inverse + half, cut to a byte, at most cap: legacy_code of the reference. */
static void legacy_map(struct legacy_batch *t, lf low, lf inverse, float half, int cap)
{
    for (int i = 0; i < 32; i++) {
        const li v = li_trunc((t->x[i] - low) * inverse + lf_all(half));
        const li byte = ((v & li_all(0xff)) ^ li_all(0x80)) - li_all(0x80); /* of its low 8 bits */
        legacy_put(t, i, li_min(byte, li_all(cap)));
    }
}

static void legacy_plain_signed(struct legacy_batch *t, int levels, int cap)
{
    const lf d = lanes_signed_extreme(32, t->x) / lf_all((float)-levels);
    legacy_map(t, lf_all(0), lanes_inverse(d), (float)levels + 0.5f, cap);
    lf_store(t->d, d);
}

static void legacy_plain_range(struct legacy_batch *t, int levels, int cap)
{
    lf low = t->x[0], high = t->x[0];
    for (int i = 1; i < 32; i++) {
        low = lf_min(t->x[i], low);
        high = lf_max(t->x[i], high);
    }
    const lf d = (high - low) / lf_all((float)levels);
    legacy_map(t, low, lanes_inverse(d), 0.5f, cap);
    lf_store(t->d, d);
    lf_store(t->m, low);
}

static void legacy_searched_signed(struct legacy_batch *t, int levels)
{
    struct lane_scales s;
    lanes_symmetric(&s, 32, levels, t->x, t->w);
    const lm zero = lm_eq(s.inverse, lf_all(0));
    for (int i = 0; i < 32; i++) {
        const lf l =
            lanes_round_small(s.inverse * t->x[i], lf_all((float)-levels), lf_all((float)(levels - 1)));
        legacy_put(t, i, li_pick(zero, li_all(0), li_trunc(l + lf_all((float)levels))));
    }
    lf_store(t->d, s.scale);
}

static void legacy_searched_range(struct legacy_batch *t, const struct asym_plan *plan)
{
    struct lane_scales s;
    lanes_asymmetric(&s, 32, plan, t->x, t->w);
    for (int i = 0; i < 32; i++)
        legacy_put(
            t, i,
            li_max(li_min(lanes_round(s.inverse * (t->x[i] - s.anchor)), li_all(plan->levels)), li_all(0)));
    lf_store(t->d, s.scale);
    lf_store(t->m, lf_neg(s.offset));
}

/* The loop around: `search` and `map` fill the batch, `store` writes one block from it. */
#define LEGACY_LANES(name, search, map, store)                                                               \
    static void lanes_##name##_encode(void *dst, const float *src, size_t n_cols, const float *importance)   \
    {                                                                                                        \
        struct name##_block *out = dst;                                                                      \
        const size_t n_groups = n_cols / 32;                                                                 \
        const float mean_square = importance ? sum_squares(src, n_cols) / (float)n_cols : 0.0f;              \
        for (size_t g = 0; g < n_groups; g += LANES) {                                                       \
            struct legacy_batch t;                                                                           \
            legacy_load(&t, src, importance, lf_all(mean_square), g, n_groups);                              \
            if (importance)                                                                                  \
                search;                                                                                      \
            else                                                                                             \
                map;                                                                                         \
            for (size_t lane = 0; lane < LANES && g + lane < n_groups; lane++) {                             \
                struct name##_block *b = out + g + lane;                                                     \
                b->d = f32_to_f16(t.d[lane]);                                                                \
                store;                                                                                       \
            }                                                                                                \
        }                                                                                                    \
    }

LEGACY_LANES(q4_0, legacy_searched_signed(&t, 8), legacy_plain_signed(&t, 8, 15),
             pack_nibbles(b->q, t.codes[lane]))
LEGACY_LANES(q4_1, legacy_searched_range(&t, &plan_q4_1), legacy_plain_range(&t, 15, 15), {
    b->m = f32_to_f16(t.m[lane]);
    pack_nibbles(b->q, t.codes[lane]);
})
LEGACY_LANES(q5_0, legacy_searched_signed(&t, 16), legacy_plain_signed(&t, 16, 31),
             b->high = pack_five_bits(b->q, t.codes[lane]))
LEGACY_LANES(q5_1, legacy_searched_range(&t, &plan_q5_1), legacy_plain_range(&t, 31, 127), {
    b->m = f32_to_f16(t.m[lane]);
    b->high = pack_five_bits(b->q, t.codes[lane]);
})

/* No order matters in q8_0: the magnitude is a maximum. Half away from zero: cut, then look at the rest. */
static void lanes_q8_0_encode(void *dst, const float *src, size_t n_cols, const float *importance)
{
    (void)importance;
    struct q8_0_block *b = dst;
    for (; n_cols > 0; n_cols -= 32, src += 32, b++) {
        lf m = lf_all(0);
        for (int i = 0; i < 32; i += LANES)
            m = lf_max(m, lf_abs(lf_load(src + i)));
        float t[LANES], magnitude = 0;
        lf_store(t, m);
        for (int i = 0; i < LANES; i++)
            magnitude = magnitude > t[i] ? magnitude : t[i];
        const float d = magnitude / 127.0f;
        const lf inverse = lf_all(d != 0 ? 1.0f / d : 0.0f);
        b->d = f32_to_f16(d);
        for (int i = 0; i < 32; i += LANES) {
            const lf v = inverse * lf_load(src + i);
            const li whole = li_trunc(v);
            const lf rest = v - lf_from(whole);
            const lm away = lm_ge(lf_abs(rest), lf_all(0.5f));
            const li step = li_pick(lm_gt(rest, lf_all(0)), li_all(1), li_all(-1));
            const lm fits = lm_gt(lf_all(1), lf_abs(rest)); /* not so when the inverse is infinite */
            lb_store((uint8_t *)b->q + i, whole + li_pick(lm_and(away, fits), step, li_all(0)));
        }
    }
}

#endif
