/* iq1_encode.c - reference encoders of iq1_s and iq1_m.
 *
 * This file defines the bytes; the vector kernels are tested against it. With three codes that rise with the
 * weights, the best codes of a group can be found outright: sort the weights, and try every pair of places
 * where code 0 ends and code 2 begins, with each way to shift. A split is judged by A^2 / L2 as in
 * search_symmetric. Only then do tuples that are no entries of the code book move to the best one near them.
 * Specification: quantization 4.11. */
#include "iq1_parts.h"

static void weights(float w[256], const float x[256], const float *importance, float mean_square)
{
    if (importance) {
        importance_weights(w, x, importance, mean_square, 256);
    } else {
        for (int i = 0; i < 256; i++)
            w[i] = x[i] * x[i];
    }
}

/* Numbers of the weights from the smallest up, equal ones in their order. */
static void sort_up(uint8_t *order, const float *x, int n)
{
    for (int i = 0; i < n; i++) {
        int at = i;
        for (; at > 0 && x[i] < x[order[at - 1]]; at--)
            order[at] = order[at - 1];
        order[at] = (uint8_t)i;
    }
}

struct best_split {
    float score;
    int low_end, high_start; /* in sorted order: code 0 before the one, code 2 from the other on */
};

static void judge(struct best_split *best, struct iq1_split *s, float a, float l2, int low_end,
                  int high_start, int shift)
{
    if (!(l2 > 0 && a * a > best->score * l2))
        return;
    s->scale = a / l2;
    s->shift = shift;
    best->score = s->scale * a;
    best->low_end = low_end;
    best->high_start = high_start;
}

/* A group of iq1_s has one shift, so the sums of a split follow from sums up to each place. */
static void splits_by_sums(struct best_split *best, struct iq1_split *s, const uint8_t order[32],
                           const float *x, const float *w)
{
    float sum_x[33] = {0}, sum_w[33] = {0};
    for (int j = 0; j < 32; j++) {
        sum_x[j + 1] = sum_x[j] + w[order[j]] * x[order[j]];
        sum_w[j + 1] = sum_w[j] + w[order[j]];
    }
    for (int low = 0; low <= 32; low++) {
        for (int high = low; high <= 32; high++) {
            for (int down = 0; down < 2; down++) {
                const float *v = iq1_levels[down];
                const float a =
                    sum_x[low] * v[0] + (sum_x[high] - sum_x[low]) * v[1] + (sum_x[32] - sum_x[high]) * v[2];
                const float l2 = sum_w[low] * v[0] * v[0] + (sum_w[high] - sum_w[low]) * v[1] * v[1] +
                                 (sum_w[32] - sum_w[high]) * v[2] * v[2];
                judge(best, s, a, l2, low, high, 3 * down);
            }
        }
    }
}

/* A group of iq1_m has a shift for each half, and its sums run through the sorted weights of both. */
static void splits_by_shifts(struct best_split *best, struct iq1_split *s, const uint8_t order[16],
                             const float *x, const float *w)
{
    for (int low = 0; low <= 16; low++) {
        for (int high = low; high <= 16; high++) {
            for (int shift = 0; shift < 4; shift++) {
                float a = 0, l2 = 0;
                for (int j = 0; j < 16; j++) {
                    const int i = order[j], code = (j >= low) + (j >= high);
                    const float v = iq1_levels[iq1_down(shift, i / 8)][code];
                    a += w[i] * v * x[i];
                    l2 += w[i] * v * v;
                }
                judge(best, s, a, l2, low, high, shift);
            }
        }
    }
}

static void split_group(struct iq1_split *s, const float *x, const float *w, int group)
{
    uint8_t order[32];
    float max = 0;
    struct best_split best = {-FLT_MAX, -1, -1};
    for (int i = 0; i < group; i++)
        max = max > fabsf(x[i]) ? max : fabsf(x[i]);
    s->empty = max < (group == 32 ? IQ1_S_ZERO : IQ1_M_ZERO);
    if (s->empty)
        return;
    sort_up(order, x, group);
    if (group == 32)
        splits_by_sums(&best, s, order, x, w);
    else
        splits_by_shifts(&best, s, order, x, w);
    s->empty = best.low_end < 0;
    for (int j = 0; j < group; j++)
        s->code[order[j]] = (uint8_t)((j >= best.low_end) + (j >= best.high_start));
}

static void splits(struct iq1_split *out, const float x[256], const float w[256], int group)
{
    for (int j = 0; j < 256 / group; j++)
        split_group(&out[j], x + group * j, w + group * j, group);
}

static unsigned nearest(const struct codebook *b, const uint16_t *list, const float x[8], const float w[8],
                        float scale, const float levels[3])
{
    float best = FLT_MAX;
    unsigned entry = list[1];
    for (unsigned j = 1; j <= list[0]; j++) {
        float distance = 0;
        for (int i = 0; i < 8; i++) {
            const float difference = scale * levels[codebook_code(b, list[j], i)] - x[i];
            distance += w[i] * difference * difference;
        }
        if (distance < best) {
            best = distance;
            entry = list[j];
        }
    }
    return entry;
}

static const struct iq1_engine engine = {weights, splits, nearest};

void iq1_s_encode(void *dst, const float *src, size_t n_cols, const float *importance)
{
    iq1_s_row(dst, src, n_cols, importance, &engine);
}

void iq1_m_encode(void *dst, const float *src, size_t n_cols, const float *importance)
{
    iq1_m_row(dst, src, n_cols, importance, &engine);
}
