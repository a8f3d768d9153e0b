/* lanes_legacy.h - the encoders of the 32-weight formats, LANES blocks at a time. Included once per
 * instruction set, after its lanes_<isa>.h.
 *
 * With importance the blocks are searched one per lane (lanes_search.h); without, the map follows from the
 * extreme values of each block and the blocks still go one per lane, so that the first of equal extremes wins
 * as in the reference. Bytes are those of legacy_encode.c. */
#ifndef KERF_LANES_LEGACY_H
#define KERF_LANES_LEGACY_H

#include "lanes_encode.h"

/* Up to BATCH neighbouring blocks on their way: WAYS batches of LANES, weights i of a batch in x[way][i]. */
enum { BATCH = WAYS * LANES };

struct legacy_batch {
    lf x[WAYS][32], w[WAYS][32];
    float d[BATCH], m[BATCH];
    uint8_t codes[BATCH][32];
};

static void legacy_load(struct legacy_batch *t, const float *src, const float *importance, lf mean_square,
                        size_t first, size_t n_groups)
{
    for (size_t way = 0; way < WAYS; way++) {
        const size_t g = first + way * LANES;
        load_groups(t->x[way], src, g, n_groups, 32);
        if (importance) {
            load_groups(t->w[way], importance, g, n_groups, 32);
            lanes_weights(t->w[way], t->x[way], mean_square, 32);
        }
    }
}

/* Code i of every lane of a way. */
static inline void legacy_put(struct legacy_batch *t, int way, int i, li codes)
{
    uint8_t b[LANES];
    lb_store(b, codes);
    for (int lane = 0; lane < LANES; lane++)
        t->codes[way * LANES + lane][i] = b[lane];
}

static inline lf lanes_inverse(lf d)
{
    return lf_pick(lm_eq(d, lf_all(0)), lf_all(0), lf_all(1) / d);
}

/* (x - low) * inverse + half, cut to a byte, at most cap: legacy_code of the reference. */
static void legacy_map(struct legacy_batch *t, int way, lf low, lf inverse, float half, int cap)
{
    for (int i = 0; i < 32; i++) {
        const li v = li_trunc((t->x[way][i] - low) * inverse + lf_all(half));
        const li byte = ((v & li_all(0xff)) ^ li_all(0x80)) - li_all(0x80); /* of its low 8 bits */
        legacy_put(t, way, i, li_min(byte, li_all(cap)));
    }
}

static void legacy_plain_signed(struct legacy_batch *t, int levels, int cap)
{
    for (int way = 0; way < WAYS; way++) {
        const lf d = lanes_signed_extreme(32, t->x[way]) / lf_all((float)-levels);
        legacy_map(t, way, lf_all(0), lanes_inverse(d), (float)levels + 0.5f, cap);
        lf_store(t->d + way * LANES, d);
    }
}

static void legacy_plain_range(struct legacy_batch *t, int levels, int cap)
{
    for (int way = 0; way < WAYS; way++) {
        const lf *x = t->x[way];
        lf low = x[0], high = x[0];
        for (int i = 1; i < 32; i++) {
            low = lf_min(x[i], low);
            high = lf_max(x[i], high);
        }
        const lf d = (high - low) / lf_all((float)levels);
        legacy_map(t, way, low, lanes_inverse(d), 0.5f, cap);
        lf_store(t->d + way * LANES, d);
        lf_store(t->m + way * LANES, low);
    }
}

static void legacy_searched_signed(struct legacy_batch *t, int levels)
{
    const lf low = lf_all((float)-levels), high = lf_all((float)(levels - 1));
    for (int way = 0; way < WAYS; way++) {
        struct lane_scales s;
        lanes_symmetric(&s, 32, levels, t->x[way], t->w[way]);
        const lm zero = lm_eq(s.inverse, lf_all(0));
        for (int i = 0; i < 32; i++) {
            const lf l = lanes_round_small(s.inverse * t->x[way][i], low, high);
            legacy_put(t, way, i, li_pick(zero, li_all(0), li_trunc(l - low)));
        }
        lf_store(t->d + way * LANES, s.scale);
    }
}

static void legacy_searched_range(struct legacy_batch *t, const struct asym_plan *plan)
{
    struct lane_scales s[WAYS];
    lanes_asymmetric(s, 32, plan, t->x, t->w);
    for (int way = 0; way < WAYS; way++) {
        for (int i = 0; i < 32; i++) {
            const li code = lanes_round(s[way].inverse * (t->x[way][i] - s[way].anchor));
            legacy_put(t, way, i, li_max(li_min(code, li_all(plan->levels)), li_all(0)));
        }
        lf_store(t->d + way * LANES, s[way].scale);
        lf_store(t->m + way * LANES, lf_neg(s[way].offset));
    }
}

/* The loop around: `search` and `map` fill the batch, `store` writes one block from it. */
#define LEGACY_LANES(name, search, map, store)                                                               \
    static void lanes_##name##_encode(void *dst, const float *src, size_t n_cols, const float *importance)   \
    {                                                                                                        \
        struct name##_block *out = dst;                                                                      \
        const size_t n_groups = n_cols / 32;                                                                 \
        const float mean_square = importance ? sum_squares(src, n_cols) / (float)n_cols : 0.0f;              \
        for (size_t g = 0; g < n_groups; g += BATCH) {                                                       \
            struct legacy_batch t;                                                                           \
            legacy_load(&t, src, importance, lf_all(mean_square), g, n_groups);                              \
            if (importance)                                                                                  \
                search;                                                                                      \
            else                                                                                             \
                map;                                                                                         \
            for (size_t i = 0; i < BATCH && g + i < n_groups; i++) {                                         \
                struct name##_block *b = out + g + i;                                                        \
                b->d = f32_to_f16(t.d[i]);                                                                   \
                store;                                                                                       \
            }                                                                                                \
        }                                                                                                    \
    }

LEGACY_LANES(q4_0, legacy_searched_signed(&t, 8), legacy_plain_signed(&t, 8, 15),
             pack_nibbles(b->q, t.codes[i]))
LEGACY_LANES(q4_1, legacy_searched_range(&t, &plan_q4_1), legacy_plain_range(&t, 15, 15), {
    b->m = f32_to_f16(t.m[i]);
    pack_nibbles(b->q, t.codes[i]);
})
LEGACY_LANES(q5_0, legacy_searched_signed(&t, 16), legacy_plain_signed(&t, 16, 31),
             b->high = pack_five_bits(b->q, t.codes[i]))
LEGACY_LANES(q5_1, legacy_searched_range(&t, &plan_q5_1), legacy_plain_range(&t, 31, 127), {
    b->m = f32_to_f16(t.m[i]);
    b->high = pack_five_bits(b->q, t.codes[i]);
})

#endif
