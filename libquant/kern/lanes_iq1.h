/* lanes_iq1.h - the encoders of iq1_s and iq1_m, LANES groups at a time. Included once per instruction set,
 * after its lanes_<isa>.h and lanes_codebook.h. Bytes are those of iq1_encode.c.
 *
 * All groups of a vector are sorted by one network of comparisons; then every split is the same walk through
 * sorted weights in each lane. */
#ifndef KERF_LANES_IQ1_H
#define KERF_LANES_IQ1_H

#include "../iq1_parts.h"
#include "lanes_codebook.h"

/* Groups in sorted order; `number` is the place of a weight before. */
struct lanes_sorted {
    lf x[32], w[32], number[32];
};

/* What was best so far. `low` is where code 0 ends, `high` where code 2 begins; -1 where nothing was of use.
 */
struct lanes_split {
    lf score, scale, low, high, shift;
};

static inline void sort_pair(struct lanes_sorted *s, int i, int j)
{
    const lf xi = s->x[i], xj = s->x[j], wi = s->w[i], wj = s->w[j], ni = s->number[i], nj = s->number[j];
    const lm turn = lm_or(lm_gt(xi, xj), lm_and(lm_eq(xi, xj), lm_gt(ni, nj)));
    s->x[i] = lf_pick(turn, xj, xi);
    s->x[j] = lf_pick(turn, xi, xj);
    s->w[i] = lf_pick(turn, wj, wi);
    s->w[j] = lf_pick(turn, wi, wj);
    s->number[i] = lf_pick(turn, nj, ni);
    s->number[j] = lf_pick(turn, ni, nj);
}

/* Batcher's odd-even merge sort of n = 2^k weights in every lane. */
static inline void lanes_sort(struct lanes_sorted *s, int n)
{
    for (int run = 1; run < n; run *= 2) {
        for (int step = run; step > 0; step /= 2) {
            for (int first = step % run; first + step < n; first += 2 * step) {
                for (int i = first; i < first + step && i + step < n; i++) {
                    if (i / (2 * run) == (i + step) / (2 * run))
                        sort_pair(s, i, i + step);
                }
            }
        }
    }
}

static inline void lanes_judge(struct lanes_split *best, lf a, lf l2, int low, int high, int shift)
{
    const lm better = lm_and(lm_gt(l2, lf_all(0)), lm_gt(a * a, best->score * l2));
    if (lm_bits(better) == 0)
        return;
    const lf scale = a / l2;
    best->scale = lf_pick(better, scale, best->scale);
    best->score = lf_pick(better, scale * a, best->score);
    best->low = lf_pick(better, lf_all((float)low), best->low);
    best->high = lf_pick(better, lf_all((float)high), best->high);
    best->shift = lf_pick(better, lf_all((float)shift), best->shift);
}

/* splits_by_sums of the reference */
static inline void lanes_splits_by_sums(struct lanes_split *best, const struct lanes_sorted *s)
{
    lf sum_x[33], sum_w[33], top_a[2][33], top_l2[2][33];
    sum_x[0] = sum_w[0] = lf_all(0);
    for (int j = 0; j < 32; j++) {
        sum_x[j + 1] = sum_x[j] + s->w[j] * s->x[j];
        sum_w[j + 1] = sum_w[j] + s->w[j];
    }
    for (int down = 0; down < 2; down++) {
        const lf v = lf_all(iq1_levels[down][2]);
        for (int high = 0; high <= 32; high++) {
            top_a[down][high] = (sum_x[32] - sum_x[high]) * v;
            top_l2[down][high] = (sum_w[32] - sum_w[high]) * v * v;
        }
    }
    for (int low = 0; low <= 32; low++) {
        lf low_a[2], low_l2[2];
        for (int down = 0; down < 2; down++) {
            const lf v = lf_all(iq1_levels[down][0]);
            low_a[down] = sum_x[low] * v;
            low_l2[down] = sum_w[low] * v * v;
        }
        for (int high = low; high <= 32; high++) {
            const lf middle_x = sum_x[high] - sum_x[low], middle_w = sum_w[high] - sum_w[low];
            for (int down = 0; down < 2; down++) {
                const lf v = lf_all(iq1_levels[down][1]);
                const lf a = low_a[down] + middle_x * v + top_a[down][high];
                const lf l2 = low_l2[down] + middle_w * v * v + top_l2[down][high];
                lanes_judge(best, a, l2, low, high, 3 * down);
            }
        }
    }
}

/* Sums of the four ways to shift. */
struct shift_sums {
    lf a[4], l2[4];
};

/* What sorted weight j adds to them in code c. */
static inline void shift_term(struct shift_sums *t, const struct lanes_sorted *s, int j, int c)
{
    const lm second = lm_ge(s->number[j], lf_all(8));
    lf a[2], l2[2];
    for (int down = 0; down < 2; down++) {
        const lf v = lf_all(iq1_levels[down][c]);
        a[down] = s->w[j] * v * s->x[j];
        l2[down] = s->w[j] * v * v;
    }
    t->a[0] = a[0];
    t->a[1] = lf_pick(second, a[1], a[0]);
    t->a[2] = lf_pick(second, a[0], a[1]);
    t->a[3] = a[1];
    t->l2[0] = l2[0];
    t->l2[1] = lf_pick(second, l2[1], l2[0]);
    t->l2[2] = lf_pick(second, l2[0], l2[1]);
    t->l2[3] = l2[1];
}

static inline void shift_add(struct shift_sums *sums, const struct shift_sums *term)
{
    for (int shift = 0; shift < 4; shift++) {
        sums->a[shift] += term->a[shift];
        sums->l2[shift] += term->l2[shift];
    }
}

/* splits_by_shifts of the reference: the weights of code 0 and then 1 are shared by the splits that follow,
 * those of code 2 are added anew for each. */
static inline void lanes_splits_by_shifts(struct lanes_split *best, const struct lanes_sorted *s)
{
    struct shift_sums term[3][16],
        below = {{lf_all(0), lf_all(0), lf_all(0), lf_all(0)}, {lf_all(0), lf_all(0), lf_all(0), lf_all(0)}};
    for (int c = 0; c < 3; c++) {
        for (int j = 0; j < 16; j++)
            shift_term(&term[c][j], s, j, c);
    }
    for (int low = 0; low <= 16; low++) {
        struct shift_sums middle = below;
        for (int high = low; high <= 16; high++) {
            struct shift_sums sums = middle;
            for (int j = high; j < 16; j++)
                shift_add(&sums, &term[2][j]);
            for (int shift = 0; shift < 4; shift++)
                lanes_judge(best, sums.a[shift], sums.l2[shift], low, high, shift);
            if (high < 16)
                shift_add(&middle, &term[1][high]);
        }
        if (low < 16)
            shift_add(&below, &term[0][low]);
    }
}

/* LANES groups, of which n_groups are there. */
static inline void lanes_store_splits(struct iq1_split *out, const struct lanes_split *best,
                                      const struct lanes_sorted *s, lm some, int n_groups, int group)
{
    float scale[LANES], low[LANES], high[LANES], shift[LANES], number[32][LANES];
    const unsigned full = lm_bits(some);
    lf_store(scale, best->scale);
    lf_store(low, best->low);
    lf_store(high, best->high);
    lf_store(shift, best->shift);
    for (int j = 0; j < group; j++)
        lf_store(number[j], s->number[j]);
    for (int lane = 0; lane < n_groups; lane++) {
        struct iq1_split *split = &out[lane];
        split->empty = (full >> lane & 1) == 0 || low[lane] < 0;
        split->scale = scale[lane];
        split->shift = (int)shift[lane];
        for (int j = 0; j < group; j++)
            split->code[(int)number[j][lane]] = (uint8_t)(((float)j >= low[lane]) + ((float)j >= high[lane]));
    }
}

static inline void lanes_splits_of(struct iq1_split *out, const float x[256], const float w[256], int group)
{
    const int n_groups = 256 / group;
    for (int first = 0; first < n_groups; first += LANES) {
        struct lanes_sorted s;
        load_groups(s.x, x, (size_t)first, (size_t)n_groups, group);
        load_groups(s.w, w, (size_t)first, (size_t)n_groups, group);
        lf max = lf_all(0);
        for (int i = 0; i < group; i++) {
            max = lf_max(max, lf_abs(s.x[i]));
            s.number[i] = lf_all((float)i);
        }
        struct lanes_split best = {lf_all(-FLT_MAX), lf_all(0), lf_all(-1), lf_all(-1), lf_all(0)};
        lanes_sort(&s, group);
        if (group == 32)
            lanes_splits_by_sums(&best, &s);
        else
            lanes_splits_by_shifts(&best, &s);
        const lm some = lm_ge(max, lf_all(group == 32 ? IQ1_S_ZERO : IQ1_M_ZERO));
        const int left = n_groups - first;
        lanes_store_splits(out + first, &best, &s, some, left < LANES ? left : LANES, group);
    }
}

static void lanes_iq1_splits(struct iq1_split *out, const float x[256], const float w[256], int group)
{
    if (group == 32)
        lanes_splits_of(out, x, w, 32);
    else
        lanes_splits_of(out, x, w, 16);
}

static void lanes_iq1_weights(float w[256], const float x[256], const float *importance, float mean_square)
{
    for (int i = 0; i < 256; i += LANES) {
        const lf v = lf_load(x + i);
        lf weight = v * v;
        if (importance)
            weight = lf_load(importance + i) * lf_sqrt(lf_all(mean_square) + weight);
        lf_store(w + i, weight);
    }
}

static unsigned lanes_iq1_nearest(const struct codebook *b, const uint16_t *list, const float x[8],
                                  const float w[8], float scale, const float levels[3])
{
    float term[8][TERM_ROW], padded[TERM_ROW] = {levels[0], levels[1], levels[2]};
    for (int i = 0; i < 8; i++)
        lanes_terms(term[i], padded, scale, x[i], w[i]);
    return lanes_nearest_entry(b, list, (const float(*)[TERM_ROW])term, 8);
}

static const struct iq1_engine lanes_iq1_engine = {lanes_iq1_weights, lanes_iq1_splits, lanes_iq1_nearest};

static void lanes_iq1_s_encode(void *dst, const float *src, size_t n_cols, const float *importance)
{
    iq1_s_row(dst, src, n_cols, importance, &lanes_iq1_engine);
}

static void lanes_iq1_m_encode(void *dst, const float *src, size_t n_cols, const float *importance)
{
    iq1_m_row(dst, src, n_cols, importance, &lanes_iq1_engine);
}

#endif
