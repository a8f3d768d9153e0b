/* scale_search.c - the reference searches for scale, offset and codes of one group.
 *
 * Plain loops, one operation per step of the specification. Do not "simplify" an expression here: the order
 * of every product and sum decides bytes of files. Specification: quantization 4.1, 4.5, 4.8. */
#include "scale_search.h"

#include "iquants.h"

#include <math.h>

/* The element of largest magnitude with its sign, the first one on ties; 0 when all are zero. */
static float signed_extreme(int n, const float *x)
{
    float extreme = 0, magnitude = 0;
    for (int i = 0; i < n; i++) {
        if (fabsf(x[i]) > magnitude) {
            magnitude = fabsf(x[i]);
            extreme = x[i];
        }
    }
    return extreme;
}

static float weight_or_square(const float *w, const float *x, int i)
{
    return w ? w[i] : x[i] * x[i];
}

/* Symmetric codes.
 *
 * Minimise E = sum w (x - s l)^2. For fixed codes dE/ds = 0 gives s = A / L2 with A = sum w x l and
 * L2 = sum w l^2, and E = sum w x^2 - A^2/L2: the best codes are those with the largest A^2/L2. The code
 * range reaches one further down than up, so the extreme element is sent to -levels (s may come out
 * negative), and 18 neighbours of that scale are tried, from -(levels - 0.9) to -(levels + 0.9) for the
 * extreme; the latter clip it. Candidates are compared as A^2 > best * L2, best = s * A, which saves the
 * division. */
float search_symmetric(int n, int levels, const float *x, const float *w, uint8_t *codes)
{
    const float extreme = signed_extreme(n, x);
    if (fabsf(extreme) < GROUP_ZERO) {
        for (int i = 0; i < n; i++)
            codes[i] = 0;
        return 0.0f;
    }
    float scale = 0, best = 0, best_inverse = 0;
    for (int trial = -10; trial <= 9; trial++) {
        const int k = trial == -10 ? 0 : trial; /* the plain mapping goes first */
        if (trial == 0)
            continue;
        const float inverse = -((float)levels + 0.1f * (float)k) / extreme;
        float a = 0, l2 = 0;
        for (int i = 0; i < n; i++) {
            const float l = (float)clamp_i32(round_near(inverse * x[i]), -levels, levels - 1);
            const float weight = weight_or_square(w, x, i);
            a += weight * x[i] * l;
            l2 += weight * l * l;
        }
        const bool accept = trial == -10 || (l2 > 0 && a * a > best * l2);
        if (accept) {
            scale = l2 != 0 ? a / l2 : 0.0f;
            best = scale * a;
            best_inverse = inverse;
        }
    }
    for (int i = 0; i < n; i++)
        codes[i] = (uint8_t)(clamp_i32(round_near(best_inverse * x[i]), -levels, levels - 1) + levels);
    return scale;
}

static float weighted_error(const struct asym_plan *plan, float difference, float weight)
{
    return weight * (plan->absolute ? fabsf(difference) : difference * difference);
}

static float asym_error(int n, const struct asym_plan *plan, const float *x, const float *w,
                        const uint8_t *codes, float scale, float low)
{
    float error = 0;
    for (int i = 0; i < n; i++)
        error += weighted_error(plan, scale * (float)codes[i] + low - x[i], w[i]);
    return error;
}

static void asym_codes(int n, int levels, const float *x, float inverse, float low, uint8_t *codes)
{
    for (int i = 0; i < n; i++)
        codes[i] = (uint8_t)clamp_i32(round_near(inverse * (x[i] - low)), 0, levels);
}

/* Best scale and low end for fixed codes: the normal equations of sum w (x - s l - low)^2,
 *
 *     s   = (W A - X L1) / D        W = sum w      X = sum w x      A  = sum w l x
 *     low = (L2 X - L1 A) / D       L1 = sum w l   L2 = sum w l^2   D  = W L2 - L1^2
 *
 * The format subtracts an offset that is never negative, so low must not be positive; where it would be it is
 * 0 and the scale is that of the line through the origin. False: all weight on one code, no line is defined.
 */
static bool asym_line(int n, const float *x, const float *w, const uint8_t *codes, float sum_w, float sum_x,
                      float *scale, float *low)
{
    float l1 = 0, l2 = 0, a = 0;
    for (int i = 0; i < n; i++) {
        const float l = (float)codes[i];
        l1 += w[i] * l;
        l2 += w[i] * l * l;
        a += w[i] * l * x[i];
    }
    const float d = sum_w * l2 - l1 * l1;
    if (!(d > 0))
        return false;
    *scale = (sum_w * a - sum_x * l1) / d;
    *low = (l2 * sum_x - l1 * a) / d;
    if (*low > 0) {
        *low = 0;
        *scale = a / l2;
    }
    return true;
}

/* Asymmetric codes.
 *
 * The start maps [low, high] linearly on 0..levels, low = min(0, smallest x). Each trial stretches the map a
 * little, rounds, fits the line by least squares and keeps it when the error falls.
 *
 * Quirk of the reference, kept for the same bytes: an accepted low end also replaces the anchor from which
 * the later trials are mapped (both in x - low and in high - low), while the high end stays. So the trials
 * are not a fixed grid but a path that depends on what was accepted before. */
float search_asymmetric(int n, const struct asym_plan *plan, const float *x, const float *w, uint8_t *codes,
                        float *offset)
{
    float low = x[0], high = x[0];
    float sum_w = w[0], sum_x = w[0] * x[0]; /* not started from 0: the sign of a zero sum reaches the file */
    for (int i = 1; i < n; i++) {
        if (x[i] < low)
            low = x[i];
        if (x[i] > high)
            high = x[i];
        sum_w += w[i];
        sum_x += w[i] * x[i];
    }
    if (low > 0)
        low = 0;
    if (high <= low) {
        for (int i = 0; i < n; i++)
            codes[i] = 0;
        *offset = -low;
        return 0.0f;
    }
    const float levels = (float)plan->levels;
    const float start = levels / (high - low);
    float scale = 1 / start;
    asym_codes(n, plan->levels, x, start, low, codes);
    float best = asym_error(n, plan, x, w, codes, scale, low);
    for (int k = 0; k <= plan->n_steps; k++) {
        const float inverse = (plan->first + plan->step * (float)k + levels) / (high - low);
        uint8_t trial[32];
        float trial_scale, trial_low;
        asym_codes(n, plan->levels, x, inverse, low, trial);
        if (!asym_line(n, x, w, trial, sum_w, sum_x, &trial_scale, &trial_low))
            continue;
        const float error = asym_error(n, plan, x, w, trial, trial_scale, trial_low);
        if (error < best) {
            for (int i = 0; i < n; i++)
                codes[i] = trial[i];
            best = error;
            scale = trial_scale;
            low = trial_low;
        }
    }
    *offset = -low;
    return scale;
}

/* One sweep of single-code moves: take an element out of A and L2, ask which code the scale of the others
 * gives it, and keep the new code when A^2/L2 rises. `needs_rest`: move only when the others carry weight
 * (search_positive); otherwise only the sum with the new code must (search_moves). Returns moves made. */
struct move_sums {
    float a, l2;
};

static bool try_move(struct move_sums *sums, float x, float w, int old, int low, int high, bool needs_rest,
                     int *moved)
{
    float a = sums->a - w * x * (float)old;
    float l2 = sums->l2 - w * (float)old * (float)old;
    if (!(a > 0) || (needs_rest && !(l2 > 0)))
        return false;
    const int proposal = clamp_i32(round_near(x * l2 / a), low, high);
    if (proposal == old)
        return false;
    a += w * x * (float)proposal;
    l2 += w * (float)proposal * (float)proposal;
    if (!(needs_rest || l2 > 0) || !(a * a * sums->l2 > sums->a * sums->a * l2))
        return false;
    *sums = (struct move_sums){a, l2};
    *moved = proposal;
    return true;
}

/* Positive codes.
 *
 * Nine trial scales around max/levels are judged by their error with the scale itself (no refit); from the
 * best one start up to five sweeps of single-code moves that raise A^2/L2 as in search_symmetric, and at the
 * end the scale is refitted. */
float search_positive(int n, int levels, const float *x, const float *w, uint8_t *codes)
{
    float max = 0;
    for (int i = 0; i < n; i++)
        max = max > x[i] ? max : x[i];
    if (max < GROUP_ZERO) {
        for (int i = 0; i < n; i++)
            codes[i] = 0;
        return 0.0f;
    }
    float inverse = (float)levels / max, best = 0;
    for (int trial = -5; trial <= 4; trial++) {
        if (trial == 0)
            continue;
        const bool start = trial == -5;
        const float t = start ? inverse : (0.1f * (float)trial + (float)levels) / max;
        const float scale = 1 / t;
        float error = 0;
        for (int i = 0; i < n; i++) {
            const int l = round_near(t * x[i]);
            /* The reference keeps the codes of the start in bytes, uncapped. */
            const float difference = x[i] - scale * (float)(start ? (uint8_t)l : l < levels ? l : levels);
            error += w[i] * difference * difference;
        }
        if (start || error < best) {
            best = error;
            inverse = t;
        }
    }
    struct move_sums sums = {0, 0};
    for (int i = 0; i < n; i++) {
        const int l = clamp_i32(round_near(inverse * x[i]), INT32_MIN, levels);
        codes[i] = (uint8_t)l;
        sums.a += w[i] * x[i] * (float)l;
        sums.l2 += w[i] * (float)l * (float)l;
    }
    for (int sweep = 0; sweep < 5; sweep++) {
        bool changed = false;
        for (int i = 0; i < n; i++) {
            int moved;
            if (try_move(&sums, x[i], w[i], codes[i], INT32_MIN, levels, true, &moved)) {
                codes[i] = (uint8_t)moved;
                changed = true;
            }
        }
        if (!changed)
            break;
    }
    return sums.l2 > 0 ? sums.a / sums.l2 : 0.0f;
}

/* Symmetric codes by moves: the start sends the extreme element to -levels, then sweeps as in
 * search_positive. A move needs a positive A without the element, so a group whose A is negative stays as it
 * started. */
float search_moves(int n, int levels, const float *x, uint8_t *codes)
{
    const float extreme = signed_extreme(n, x);
    if (fabsf(extreme) < GROUP_ZERO) {
        for (int i = 0; i < n; i++)
            codes[i] = 0;
        return 0.0f;
    }
    const float inverse = -(float)levels / extreme;
    int l[32];
    struct move_sums sums = {0, 0};
    for (int i = 0; i < n; i++) {
        l[i] = clamp_i32(round_near(inverse * x[i]), -levels, levels - 1);
        const float w = x[i] * x[i];
        sums.a += w * x[i] * (float)l[i];
        sums.l2 += w * (float)l[i] * (float)l[i];
    }
    for (int sweep = 0; sweep < 5; sweep++) {
        bool changed = false;
        for (int i = 0; i < n; i++)
            changed |= try_move(&sums, x[i], x[i] * x[i], l[i], -levels, levels - 1, false, &l[i]);
        if (!changed)
            break;
    }
    for (int i = 0; i < n; i++)
        codes[i] = (uint8_t)(l[i] + levels);
    return sums.l2 > 0 ? sums.a / sums.l2 : 0.0f;
}

uint8_t iq4_nearest(float v)
{
    /* Between two levels the distances are exact in float32 where they are close, so comparing with the
     * midpoints gives the same answer as comparing distances. A NaN counts as above all. */
    uint8_t index = 0;
    for (int k = 0; k < 15; k++)
        index += !(v < 0.5f * (float)(iq4_levels[k] + iq4_levels[k + 1]));
    return index;
}

/* The non-uniform levels -127..113 of iq4_nl.
 *
 * Same criterion as search_symmetric. The start maps the extreme to +127, which the top level 113 clips; the
 * 15 trials map it to -120..-134, around the bottom level. */
float search_iq4(int n, const float *x, const float *w)
{
    const float extreme = signed_extreme(n, x);
    if (fabsf(extreme) < GROUP_ZERO)
        return 0.0f;
    float scale = 0, best = 0;
    for (int trial = -8; trial <= 7; trial++) {
        const bool start = trial == -8;
        const float inverse =
            start ? 1 / (-extreme / (float)iq4_levels[0]) : (float)(trial + iq4_levels[0]) / extreme;
        float a = 0, l2 = 0;
        for (int i = 0; i < n; i++) {
            const float q = (float)iq4_levels[iq4_nearest(inverse * x[i])];
            a += w[i] * q * x[i];
            l2 += w[i] * q * q;
        }
        if (start || (l2 > 0 && a * a > best * l2)) {
            scale = l2 > 0 ? a / l2 : 0.0f;
            best = scale * a;
        }
    }
    return scale;
}
