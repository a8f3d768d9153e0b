/* lanes_feedback.h - the solver of feedback_rows.h, compiled once for each instruction set (feedback_base.c,
 * feedback_avx2.c, feedback_avx512.c), which define ROWS_FN, the name of its one function.
 *
 * Notation: U is the inverse factor of H with a unit diagonal, D the pivots (feedback_hessian.h). With
 * feedback the loss tr(E H E^T) becomes sum_j D_j e_j^2, e_j = w~_j - v_j, where w~_j = w_j - sum_{i<j} e_i
 * U_ij is the weight after the errors before it have been handed on. So D is the weight of the scale search,
 * and within a group the sum over its own factor of H_ss is the exact loss of a set of codes: the same
 * function serves feedback at the entry of a group and refinement. Specification: feedback, "Recipe" 3 and 4;
 * better-quants 2b. */
#include "feedback_rows.h"

#include "calib/compute/gemm.h"

#include <math.h>
#include <string.h>

/* Rows side by side: as many as a register holds. GCC (12) takes wider vectors apart, comparisons into single
 * numbers, which is slow and takes long to compile. */
#if defined __AVX512F__
enum { FEEDBACK_LANES = 16 };
#elif defined __AVX__
enum { FEEDBACK_LANES = 8 };
#else
enum { FEEDBACK_LANES = 4 };
#endif
typedef float vf __attribute__((vector_size(4 * FEEDBACK_LANES)));
typedef int32_t vi __attribute__((vector_size(4 * FEEDBACK_LANES)));

static inline vf pick(vi mask, vf a, vf b)
{
    return (vf)((mask & (vi)a) | (~mask & (vi)b));
}

static inline vf splat(float x)
{
    return (vf){0} + x;
}

static inline vf lower(vf a, vf b)
{
    return pick(a < b, a, b);
}

static inline vf upper(vf a, vf b)
{
    return pick(a > b, a, b);
}

static inline vf magnitude(vf a)
{
    return (vf)((vi)a & 0x7fffffff);
}

static inline vf load(const float *p)
{
    vf v;
    memcpy(&v, p, sizeof v);
    return v;
}

static inline void store(float *p, vf v)
{
    memcpy(p, &v, sizeof v);
}

/* Nearest integer within [low, high], both small: adding 1.5 * 2^23 rounds. */
static inline vf round_within(vf x, float low, float high)
{
    x = lower(upper(x, splat(low)), splat(high));
    return (x + 12582912.0f) - 12582912.0f;
}

static inline vf reciprocal(vf x)
{
    return pick(x != 0, 1.0f / x, (vf){0});
}

/* Float16 values nearest to x, as a block stores them; huge values stay finite. It is f16_round for every
 * lane, where infinities and what is no number are out of the way. */
static inline vf round_half(vf x)
{
    x = lower(upper(x, splat(-65504.0f)), splat(65504.0f));
    const vi size = (vi)magnitude(x), sign = (vi)x ^ size;
    const vi normal = (size + 0xfff + (size >> 13 & 1)) & ~0x1fff;
    const vi subnormal = (vi)(((vf)size + 0.5f) - 0.5f); /* as in f32_to_f16 */
    return (vf)(sign | (vi)pick(size < 0x38800000, (vf)subnormal, (vf)normal));
}

/* d of a block, as it stores it. */
static inline vf round_d(const struct feedback_format *f, vf x)
{
    return round_half(x * (1.0f / f->unit)) * f->unit;
}

/* Whole numbers that can be stored: `min`, `min + every`, ... `max`. */
struct grid {
    int min, max, every;
};

static inline vf round_to(struct grid g, vf x)
{
    float low = (float)g.min, high = (float)g.max, step = (float)g.every;
    if (g.every == 1)
        return round_within(x, low, high);
    return low + step * round_within((x - low) * (1.0f / step), 0, (high - low) * (1.0f / step));
}

static inline struct grid scale_grid(const struct feedback_format *f)
{
    return (struct grid){f->scale_min, f->scale_max, f->scale_step};
}

/* The scale nearest to x. */
static inline vf round_scale(const struct feedback_format *f, vf x)
{
    return round_to(scale_grid(f), x);
}

/* The code nearest to x, in units of a step. */
static inline vf nearest(const struct feedback_format *f, vf x)
{
    if (!f->levels)
        return round_within(x, (float)f->code_min, (float)f->code_max);
    vf level = splat(f->levels[0]);
    for (unsigned i = 1; i < f->n_levels; i++) {
        vi above = x > (f->levels[i - 1] + f->levels[i]) * 0.5f;
        level += (vf)(above & (vi)splat(f->levels[i] - f->levels[i - 1]));
    }
    return level;
}

/* Steps and offsets of a group, and what of a block makes them. */
struct params {
    vf scale, min; /* integers */
    vf d, dmin;    /* of the block; another one in the trial of a type without integers */
};

static inline vf step_of(const struct feedback_format *f, const struct params *p)
{
    return f->has_scales ? p->d * p->scale : p->d;
}

static inline vf offset_of(const struct feedback_format *f, const struct params *p)
{
    if (!f->has_min)
        return splat(0);
    return f->has_scales ? p->dmin * p->min : p->dmin;
}

/* Neighbour (i, k) of p, each of -1, 0, 1: one more or less of scale and min, or of d and dmin a little. */
static struct params neighbour(const struct feedback_format *f, const struct params *p, int i, int k)
{
    struct params x = *p;
    if (f->has_scales) {
        x.scale = lower(upper(p->scale + (float)(i * f->scale_step), splat((float)f->scale_min)),
                        splat((float)f->scale_max));
        x.min = lower(upper(p->min + (float)k, splat(0)), splat((float)f->min_max));
        return x;
    }
    if (i)
        x.d = round_half(p->d * (1.0f + 0.02f * (float)i));
    if (k)
        x.dmin = round_half(p->dmin + p->d * (0.25f * (float)k));
    return x;
}

static inline struct params choose(vi better, const struct params *a, const struct params *b)
{
    return (struct params){pick(better, a->scale, b->scale), pick(better, a->min, b->min),
                           pick(better, a->d, b->d), pick(better, a->dmin, b->dmin)};
}

/* --- codes of a group --- */

/* Codes of n weights for three sets of parameters, error handed on by `u` (row k: factors of the errors j <
 * k, rows ld apart) or not (u NULL); loss[] = sum d_k e_k^2. Three at once, because each alone is a chain of
 * dependent operations. */
static inline void try_three(const struct feedback_format *f, unsigned n, const vf *w, const float *u,
                             size_t ld, const float *d, const struct params p[3],
                             vf (*codes)[FEEDBACK_MAX_SUB], vf loss[3])
{
    vf e[FEEDBACK_MAX_SUB][3], step[3], offset[3], inverse[3];
    for (int c = 0; c < 3; c++) {
        step[c] = step_of(f, &p[c]);
        offset[c] = offset_of(f, &p[c]);
        inverse[c] = reciprocal(step[c]);
        loss[c] = (vf){0};
    }
    for (unsigned k = 0; k < n; k++) {
        vf t0 = w[k], t1 = w[k], t2 = w[k];
        for (unsigned j = 0; u && j < k; j++) {
            float a = u[k * ld + j];
            t0 -= e[j][0] * a;
            t1 -= e[j][1] * a;
            t2 -= e[j][2] * a;
        }
        vf t[3] = {t0, t1, t2};
        for (int c = 0; c < 3; c++) {
            codes[c][k] = nearest(f, (t[c] + offset[c]) * inverse[c]);
            e[k][c] = t[c] - (step[c] * codes[c][k] - offset[c]);
            loss[c] += d[k] * (e[k][c] * e[k][c]);
        }
    }
}

#include "lanes_tuples.h"

/* The loss of given values. */
static inline vf loss_of(unsigned n, const vf *w, const vf *v, const float *u, size_t ld, const float *d)
{
    vf e[FEEDBACK_MAX_SUB], loss = {0};
    for (unsigned k = 0; k < n; k++) {
        vf t0 = w[k], t1 = {0};
        unsigned j = 0;
        for (; j + 2 <= k; j += 2) {
            t0 -= e[j] * u[k * ld + j];
            t1 -= e[j + 1] * u[k * ld + j + 1];
        }
        if (j < k)
            t0 -= e[j] * u[k * ld + j];
        e[k] = (t0 + t1) - v[k];
        loss += d[k] * (e[k] * e[k]);
    }
    return loss;
}

/* The best of p and its neighbours. `best` holds the loss to beat, codes and *p change where one does. */
static void search_neighbours(const struct feedback_format *f, unsigned n, const vf *w, const float *u,
                              size_t ld, const float *d, struct params *p, vf *codes, vf *best)
{
    vf tried[3][FEEDBACK_MAX_SUB], loss[3];
    struct params from = *p;
    for (int batch = 0; batch < (f->has_min ? 3 : 1); batch++) {
        struct params c[3];
        for (int k = 0; k < 3; k++)
            c[k] = f->has_min ? neighbour(f, &from, batch - 1, k - 1) : neighbour(f, &from, k - 1, 0);
        if (f->has_book)
            try_three_books(f, n, w, u, ld, d, c, tried, loss);
        else
            try_three(f, n, w, u, ld, d, c, tried, loss);
        for (int k = 0; k < 3; k++) {
            vi better = loss[k] < *best;
            *best = pick(better, loss[k], *best);
            *p = choose(better, &c[k], p);
            for (unsigned i = 0; i < n; i++)
                codes[i] = pick(better, tried[k][i], codes[i]);
        }
    }
}

/* --- search of a block --- */

/* Scale and offset of an asymmetric group: trial ranges, each followed by weighted least squares. */
static void seed_asymmetric(const struct feedback_format *f, unsigned n, const vf *x, const float *w,
                            vf *scale, vf *offset)
{
    vf low = x[0], high = x[0], sx = {0};
    float sw = 0;
    bool positive = f->has_scales; /* the offset cannot be negative */
    for (unsigned i = 0; i < n; i++) {
        low = lower(low, x[i]);
        high = upper(high, x[i]);
        sx += x[i] * w[i];
        sw += w[i];
    }
    if (positive)
        low = lower(low, (vf){0});
    vf span = high - low, gain = (vf){0} - 1.0f;
    *scale = span / (float)f->code_max;
    *offset = -low;
    for (int trial = 0; trial <= 18; trial++) {
        vf inverse = reciprocal(span) * ((float)f->code_max - 0.9f + 0.1f * (float)trial);
        vf s1 = {0}, s2 = {0}, sxl = {0};
        for (unsigned i = 0; i < n; i++) {
            vf l = round_within((x[i] - low) * inverse, 0, (float)f->code_max);
            vf wl = l * w[i];
            s1 += wl;
            s2 += wl * l;
            sxl += wl * x[i];
        }
        vf det = s2 * sw - s1 * s1;
        vf a = (sxl * sw - sx * s1) / det, b = (s2 * sx - s1 * sxl) / det; /* x = a l + b */
        if (positive) {
            vi bad = b > 0;
            b = pick(bad, (vf){0}, b);
            a = pick(bad, sxl * reciprocal(s2), a);
        }
        /* what is explained: 2 (a sxl + b sx) - sum w (a l + b)^2 */
        vf g = 2.0f * (a * sxl + b * sx) - (a * a * s2 + 2.0f * a * b * s1 + b * b * sw);
        vi better = (det > 0) & (g > gain) & (a > 0);
        gain = pick(better, g, gain);
        *scale = pick(better, a, *scale);
        *offset = pick(better, -b, *offset);
    }
}

/* The same without offset: the weight of largest magnitude is put near an end of the range. */
static void seed_symmetric(const struct feedback_format *f, unsigned n, const vf *x, const float *w,
                           vf *scale)
{
    vf extreme = x[0], gain = (vf){0} - 1.0f;
    for (unsigned i = 1; i < n; i++)
        extreme = pick(magnitude(x[i]) > magnitude(extreme), x[i], extreme);
    float end = f->levels ? f->levels[0] : (float)f->code_min;
    int reach = f->levels ? 8 : 9;
    *scale = extreme / end;
    for (int trial = -reach; trial <= reach; trial++) {
        float at = f->levels ? end + (float)trial : end - 0.1f * (float)trial;
        if (f->levels && trial == reach)
            at = -end; /* the other side, where the levels end earlier */
        vf inverse = reciprocal(extreme) * at, s2 = {0}, sxl = {0};
        for (unsigned i = 0; i < n; i++) {
            vf l = nearest(f, x[i] * inverse), wl = l * w[i];
            s2 += wl * l;
            sxl += wl * x[i];
        }
        vf s = sxl * reciprocal(s2), g = s * sxl;
        vi better = g > gain;
        gain = pick(better, g, gain);
        *scale = pick(better, s, *scale);
    }
}

/* One step for the n scales (or offsets) s >= 0 of a block, stored as numbers of `g`. `reach`: from one trial
 * of where the largest goes to the next. */
static vf fit_positive(unsigned n, const vf *s, const float *w, struct grid g, float reach)
{
    vf largest = {0}, best = {0}, gain = (vf){0} - 1.0f;
    for (unsigned i = 0; i < n; i++)
        largest = upper(largest, s[i]);
    for (int trial = -4; trial <= 4; trial++) {
        vf inverse = reciprocal(largest) * ((float)g.max + reach * (float)trial), s2 = {0}, sxl = {0};
        for (unsigned i = 0; i < n; i++) {
            vf l = round_to(g, s[i] * inverse);
            s2 += l * l * w[i];
            sxl += l * s[i] * w[i];
        }
        vf d = sxl * reciprocal(s2), won = d * sxl;
        vi better = won > gain;
        gain = pick(better, won, gain);
        best = pick(better, d, best);
    }
    return best;
}

/* The same for scales of both signs; the largest goes to the end of the range that is further from zero. */
static vf fit_signed(unsigned n, const vf *s, const float *w, int min, int max)
{
    vf extreme = s[0], best = {0}, gain = (vf){0} - 1.0f;
    for (unsigned i = 1; i < n; i++)
        extreme = pick(magnitude(s[i]) > magnitude(extreme), s[i], extreme);
    for (int trial = -4; trial <= 4; trial++) {
        vf inverse = reciprocal(extreme) * ((float)min - 0.1f * (float)trial), s2 = {0}, sxl = {0};
        for (unsigned i = 0; i < n; i++) {
            vf l = round_within(s[i] * inverse, (float)min, (float)max);
            s2 += l * l * w[i];
            sxl += l * s[i] * w[i];
        }
        vf d = sxl * reciprocal(s2), g = d * sxl;
        vi better = g > gain;
        gain = pick(better, g, gain);
        best = pick(better, d, best);
    }
    return best;
}

struct block {
    struct params p[FEEDBACK_MAX_GROUPS];
    vf codes[FEEDBACK_MAX_BLOCK];
};

/* d and dmin by least squares for the codes as they are, where the loss falls. */
static void fit_block(const struct feedback_format *f, const vf *x, const float *w, struct block *b)
{
    vf a = {0}, c = {0}, ab = {0}, xu = {0}, xv = {0}; /* u = scale * code, v = -min */
    for (unsigned s = 0; s < f->n_sub; s++)
        for (unsigned i = s * f->sub; i < (s + 1) * f->sub; i++) {
            vf u = b->p[s].scale * b->codes[i], v = -b->p[s].min, wu = u * w[i];
            a += wu * u;
            xu += wu * x[i];
            if (f->has_min) {
                ab += wu * v;
                c += v * v * w[i];
                xv += v * x[i] * w[i];
            }
        }
    vf d0 = b->p[0].d, m0 = b->p[0].dmin, d = xu * reciprocal(a), m = m0;
    if (f->has_min) {
        vf det = a * c - ab * ab;
        vi good = det > a * c * 1e-6f;
        vf both = (xu * c - xv * ab) / det, other = (a * xv - ab * xu) / det;
        good &= other >= 0;
        d = pick(good, both, (xu - m0 * ab) * reciprocal(a));
        m = pick(good, other, m0);
    }
    d = round_d(f, d);
    m = round_half(m);
    vf before = 2.0f * (d0 * xu + m0 * xv) - (d0 * d0 * a + 2.0f * d0 * m0 * ab + m0 * m0 * c);
    vf after = 2.0f * (d * xu + m * xv) - (d * d * a + 2.0f * d * m * ab + m * m * c);
    vi better = after > before;
    for (unsigned s = 0; s < f->n_sub; s++) {
        b->p[s].d = pick(better, d, d0);
        b->p[s].dmin = pick(better, m, m0);
    }
}

#define SEARCH_ROUNDS 2

/* d, dmin, scales and mins of a block for weights `w` (the pivots). */
static void search_block(const struct feedback_format *f, const vf *x, const float *w, struct block *b)
{
    vf scale[FEEDBACK_MAX_GROUPS] = {{0}}, offset[FEEDBACK_MAX_GROUPS] = {{0}}, d, dmin = {0};
    float sums[FEEDBACK_MAX_GROUPS];
    for (unsigned s = 0; s < f->n_sub; s++) {
        scale[s] = offset[s] = (vf){0};
        sums[s] = 0;
        for (unsigned i = s * f->sub; i < (s + 1) * f->sub; i++)
            sums[s] += w[i];
        if (f->has_min)
            seed_asymmetric(f, f->sub, x + s * f->sub, w + s * f->sub, &scale[s], &offset[s]);
        else
            seed_symmetric(f, f->sub, x + s * f->sub, w + s * f->sub, &scale[s]);
        if (f->has_book) /* the levels of both signs are the same */
            scale[s] = magnitude(scale[s]);
    }
    if (!f->has_scales) {
        b->p[0] = (struct params){splat(1), splat(1), round_half(scale[0]), round_half(offset[0])};
        return;
    }
    if (f->has_min) {
        d = round_half(fit_positive(f->n_sub, scale, sums, scale_grid(f), 0.1f));
        dmin = round_half(fit_positive(f->n_sub, offset, sums, (struct grid){0, f->min_max, 1}, 0.1f));
    } else if (f->has_book)
        d = round_d(f, fit_positive(f->n_sub, scale, sums, scale_grid(f), 0.4f));
    else
        d = round_half(fit_signed(f->n_sub, scale, sums, f->scale_min, f->scale_max));
    for (unsigned s = 0; s < f->n_sub; s++)
        b->p[s] = (struct params){round_scale(f, scale[s] * reciprocal(d)),
                                  round_within(offset[s] * reciprocal(dmin), 0, (float)f->min_max), d, dmin};
    for (int round = 0; round < SEARCH_ROUNDS; round++) {
        for (unsigned s = 0; s < f->n_sub; s++) {
            vf best = splat(INFINITY);
            search_neighbours(f, f->sub, x + s * f->sub, NULL, 0, w + s * f->sub, &b->p[s],
                              b->codes + s * f->sub, &best);
        }
        fit_block(f, x, w, b);
    }
}

/* --- feedback --- */

/* w[k] -= sum of e[j] U_jk over the columns [from, to), for n columns from `col` on; `e` begins at column
 * `from`. */
static inline void hand_on(const struct feedback_hessian *h, vf *w, unsigned n, size_t col, const vf *e,
                           size_t from, size_t to)
{
    for (unsigned k = 0; k < n; k++) {
        const float *u = h->factor + (col + k) * h->n_cols + from;
        vf a = {0}, b = {0};
        size_t j = 0, m = to - from;
        for (; j + 2 <= m; j += 2) {
            a += e[j] * u[j];
            b += e[j + 1] * u[j + 1];
        }
        if (j < m)
            a += e[j] * u[j];
        w[k] -= a + b;
    }
}

static void store_block(struct feedback_chunk *c, size_t col, size_t lane, const struct block *b)
{
    const struct feedback_format *f = c->format;
    for (unsigned i = 0; i < f->block; i++)
        store(c->codes + (col + i) * FEEDBACK_ROWS + lane, b->codes[i]);
    for (unsigned s = 0; s < f->n_sub; s++) {
        store(c->scales + (col / f->sub + s) * FEEDBACK_ROWS + lane, b->p[s].scale);
        store(c->mins + (col / f->sub + s) * FEEDBACK_ROWS + lane, b->p[s].min);
    }
    store(c->d + col / f->block * FEEDBACK_ROWS + lane, b->p[0].d);
    store(c->dmin + col / f->block * FEEDBACK_ROWS + lane, b->p[0].dmin);
}

static void load_block(const struct feedback_chunk *c, size_t col, size_t lane, struct block *b)
{
    const struct feedback_format *f = c->format;
    for (unsigned i = 0; i < f->block; i++)
        b->codes[i] = load(c->codes + (col + i) * FEEDBACK_ROWS + lane);
    for (unsigned s = 0; s < f->n_sub; s++)
        b->p[s] = (struct params){load(c->scales + (col / f->sub + s) * FEEDBACK_ROWS + lane),
                                  load(c->mins + (col / f->sub + s) * FEEDBACK_ROWS + lane),
                                  load(c->d + col / f->block * FEEDBACK_ROWS + lane),
                                  load(c->dmin + col / f->block * FEEDBACK_ROWS + lane)};
}

/* One block of as many rows as there are lanes; errors of the panel's columns go to `e`, which begins at
 * column `panel`. */
static void feed_block(struct feedback_chunk *c, size_t panel, size_t col, size_t lane, vf *e)
{
    const struct feedback_format *f = c->format;
    const struct feedback_hessian *h = c->h;
    bool feedback = c->stages.feedback;
    const float *weights = feedback ? h->pivots : h->diagonal;
    vf w[FEEDBACK_MAX_BLOCK];
    struct block b = {0}; /* defined also where a loss is not a number */
    for (unsigned i = 0; i < f->block; i++)
        w[i] = load(c->work + (col + i) * FEEDBACK_ROWS + lane);
    if (feedback && col > panel)
        hand_on(h, w, f->block, col, e, panel, col);
    search_block(f, w, weights + col, &b);
    for (unsigned s = 0; s < f->n_sub; s++) {
        size_t at = col + s * f->sub;
        vf *x = w + s * f->sub, *codes = b.codes + s * f->sub, best = splat(INFINITY);
        if (feedback && s > 0)
            hand_on(h, x, f->sub, at, e + (col - panel), col, at);
        search_neighbours(f, f->sub, x, feedback ? h->factor + at * h->n_cols + at : NULL, h->n_cols,
                          weights + at, &b.p[s], codes, &best);
        vf step = step_of(f, &b.p[s]), offset = offset_of(f, &b.p[s]);
        for (unsigned k = 0; k < f->sub; k++) {
            vf t = x[k];
            const float *u = h->factor + (at + k) * h->n_cols + at;
            for (unsigned j = 0; feedback && j < k; j++)
                t -= e[at - panel + j] * u[j];
            e[at - panel + k] = t - (step * codes[k] - offset);
        }
    }
    store_block(c, col, lane, &b);
}

/* y -= A x for the rows of A [m, n_cols] (row distance ld), x [n, 64] in `delta`. */
static void subtract_product(struct feedback_chunk *c, const float *a, size_t ld, size_t m, size_t n,
                             float *y)
{
    struct gemm_matrix b = {c->kern, FEEDBACK_ROWS, n, c->packed};
    for (size_t i = 0; i < n * FEEDBACK_ROWS; i++)
        c->delta[i] = -c->delta[i];
    gemm_pack_columns(&b, c->delta, FEEDBACK_ROWS);
    gemm(m, a, ld, &b, y, FEEDBACK_ROWS, true);
}

static void feed(struct feedback_chunk *c)
{
    size_t n_cols = c->h->n_cols;
    memcpy(c->work, c->weights, n_cols * FEEDBACK_ROWS * sizeof(float));
    for (size_t panel = 0; panel < n_cols; panel += FEEDBACK_PANEL) {
        size_t n = n_cols - panel < FEEDBACK_PANEL ? n_cols - panel : FEEDBACK_PANEL, end = panel + n;
        for (size_t lane = 0; lane < FEEDBACK_ROWS; lane += FEEDBACK_LANES) {
            vf e[FEEDBACK_PANEL];
            for (size_t col = panel; col < end; col += c->format->block)
                feed_block(c, panel, col, lane, e);
            for (size_t i = 0; i < n; i++)
                store(c->delta + i * FEEDBACK_ROWS + lane, e[i]);
        }
        if (c->stages.feedback && end < n_cols)
            subtract_product(c, c->h->factor + end * n_cols + panel, n_cols, n_cols - end, n,
                             c->work + end * FEEDBACK_ROWS);
    }
}

/* --- refinement --- */

/* g[k] -= sum H_kj delta_j over the n columns from `col` on, for all columns [first, end) of the block. */
static inline void move_gradient(const struct feedback_hessian *h, vf *g, size_t first, size_t end,
                                 const vf *delta, size_t col, unsigned n)
{
    for (size_t k = first; k < end; k++) {
        const float *row = h->matrix + k * h->n_cols + col;
        vf a = {0}, b = {0};
        for (unsigned j = 0; j < n; j += 2) {
            a += delta[j] * row[j];
            b += delta[j + 1] * row[j + 1];
        }
        g[k - first] -= a + b;
    }
}

/* Single codes of a group, where the loss falls. `delta`: what v has changed since `g`. */
static void refine_codes(const struct feedback_chunk *c, size_t at, const struct params *p, vf *codes, vf *v,
                         const vf *g, const vf *delta)
{
    const struct feedback_format *f = c->format;
    const struct feedback_hessian *h = c->h;
    vf step = step_of(f, p), offset = offset_of(f, p), inverse = reciprocal(step), left[FEEDBACK_MAX_SUB];
    for (unsigned k = 0; k < f->sub; k++)
        left[k] = g[k];
    move_gradient(h, left, at, at + f->sub, delta, at, f->sub);
    for (unsigned k = 0; k < f->sub; k++) {
        const float *row = h->matrix + (at + k) * h->n_cols + at;
        float hkk = row[k];
        vf code = nearest(f, (v[k] + left[k] * (1.0f / hkk) + offset) * inverse);
        vf move = step * code - offset - v[k];
        vi better = 2.0f * move * left[k] - move * move * hkk > 0;
        move = pick(better, move, (vf){0});
        codes[k] = pick(better, code, codes[k]);
        v[k] = pick(better, step * code - offset, v[k]);
        for (unsigned j = 0; j < f->sub; j++)
            left[j] -= move * row[j];
    }
}

/* The best codes of a group with everything else as it is: its target is v + H_ss^-1 g_s, and codes are
 * searched from there with feedback inside the group. Then single codes. v follows, delta is the change. */
static void refine_group(const struct feedback_chunk *c, size_t at, struct params *p, vf *codes, vf *v,
                         const vf *g, vf *delta)
{
    const struct feedback_format *f = c->format;
    const struct feedback_hessian *h = c->h;
    unsigned n = f->sub;
    const struct feedback_group *own = n == 16 ? &h->groups16 : &h->groups32;
    const float *u = own->factor + at / n * n * n, *d = own->pivots + at;
    vf target[FEEDBACK_MAX_SUB], a[FEEDBACK_MAX_SUB], old[FEEDBACK_MAX_SUB] = {{0}};
    for (unsigned k = 0; k < n; k++) { /* a = D^-1 U g; u holds U^T with a unit diagonal */
        a[k] = g[k];
        for (unsigned j = k + 1; j < n; j++)
            a[k] += g[j] * u[j * n + k];
        a[k] *= 1.0f / d[k];
    }
    for (unsigned k = 0; k < n; k++) {
        target[k] = v[k] + a[k];
        for (unsigned j = 0; j < k; j++)
            target[k] += a[j] * u[k * n + j];
        old[k] = v[k];
    }
    vf best = loss_of(n, target, v, u, n, d);
    search_neighbours(f, n, target, u, n, d, p, codes, &best);
    vf step = step_of(f, p), offset = offset_of(f, p);
    for (unsigned k = 0; k < n; k++) {
        v[k] = step * codes[k] - offset;
        delta[k] = v[k] - old[k];
    }
    if (!f->has_book)
        refine_codes(c, at, p, codes, v, g, delta);
    for (unsigned k = 0; k < n; k++)
        delta[k] = v[k] - old[k];
}

/* A block as scale times u plus minimum times m, in the metric of the Hessian. */
struct scale_equations {
    vf hu[FEEDBACK_MAX_BLOCK], hm[FEEDBACK_MAX_BLOCK]; /* H u, H m */
    vf uu, um, mm;                                     /* u H u, u H m, m H m */
    vf gu, gm;                                         /* gradient times u, times m */
};

static void make_scale_equations(const struct feedback_chunk *c, size_t col, const struct block *b,
                                 const vf *g, struct scale_equations *q)
{
    const struct feedback_format *f = c->format;
    vf u[FEEDBACK_MAX_BLOCK];
    q->uu = q->um = q->mm = q->gu = q->gm = (vf){0};
    for (unsigned i = 0; i < f->block; i++) {
        u[i] = b->p[i / f->sub].scale * b->codes[i];
        q->gu += u[i] * g[i];
        if (f->has_min)
            q->gm -= b->p[i / f->sub].min * g[i];
    }
    for (unsigned k = 0; k < f->block; k++) {
        const float *row = c->h->matrix + (col + k) * c->h->n_cols + col;
        vf x = {0}, y = {0}, m = {0};
        for (unsigned s = 0; s < f->n_sub; s++) {
            float sum = 0;
            for (unsigned j = s * f->sub; j < (s + 1) * f->sub; j += 2) {
                x += u[j] * row[j];
                y += u[j + 1] * row[j + 1];
                sum += row[j] + row[j + 1];
            }
            if (f->has_min)
                m -= b->p[s].min * sum;
        }
        q->hu[k] = x + y;
        q->hm[k] = m;
        q->uu += u[k] * q->hu[k];
        if (f->has_min) {
            q->um += u[k] * q->hm[k];
            q->mm -= b->p[k / f->sub].min * q->hm[k];
        }
    }
}

/* The d and dmin of least loss, as they can be stored, for *d and *dmin: unchanged where the loss does not
 * fall. */
static void solve_scales(const struct feedback_format *f, const struct scale_equations *q, vf *d, vf *dmin)
{
    vf d0 = *d, m0 = *dmin, dd = q->gu * reciprocal(q->uu), dm = {0};
    if (f->has_min) {
        vf det = q->uu * q->mm - q->um * q->um;
        vi good = det > q->uu * q->mm * 1e-5f;
        vf both = (q->gu * q->mm - q->gm * q->um) / det, other = (q->uu * q->gm - q->um * q->gu) / det;
        if (f->has_scales)
            good &= m0 + other >= 0;
        dd = pick(good, both, dd);
        dm = pick(good, other, dm);
    }
    *d = round_d(f, d0 + dd);
    *dmin = round_half(m0 + dm);
    dd = *d - d0;
    dm = *dmin - m0;
    vf gain = 2.0f * (dd * q->gu + dm * q->gm) - (dd * dd * q->uu + 2.0f * dd * dm * q->um + dm * dm * q->mm);
    vi better = gain > 0;
    *d = pick(better, *d, d0);
    *dmin = pick(better, *dmin, m0);
}

/* d and dmin of a block against the full matrix, where the loss falls; `change` is their change of the
 * values. */
static void refine_scales(const struct feedback_chunk *c, size_t col, struct block *b, vf *v, vf *g,
                          vf *change)
{
    const struct feedback_format *f = c->format;
    struct scale_equations q;
    make_scale_equations(c, col, b, g, &q);
    const vf d0 = b->p[0].d, m0 = b->p[0].dmin;
    vf d = d0, m = m0;
    solve_scales(f, &q, &d, &m);
    const vf dd = d - d0, dm = m - m0;
    for (unsigned i = 0; i < f->block; i++) {
        vf before = v[i];
        struct params *p = &b->p[i / f->sub];
        p->d = d;
        p->dmin = m;
        v[i] = step_of(f, p) * b->codes[i] - offset_of(f, p);
        change[i] += v[i] - before;
        g[i] -= dd * q.hu[i] + dm * q.hm[i];
    }
}

static void refine_block(struct feedback_chunk *c, size_t panel, size_t col, size_t lane, vf *g, vf *change)
{
    const struct feedback_format *f = c->format;
    struct block b;
    vf v[FEEDBACK_MAX_BLOCK], delta[FEEDBACK_MAX_SUB];
    size_t end = c->h->n_cols - panel < FEEDBACK_PANEL ? c->h->n_cols : panel + FEEDBACK_PANEL;
    load_block(c, col, lane, &b);
    for (unsigned i = 0; i < f->block; i++)
        v[i] = step_of(f, &b.p[i / f->sub]) * b.codes[i] - offset_of(f, &b.p[i / f->sub]);
    for (unsigned s = 0; s < f->n_sub; s++) {
        size_t at = col + s * f->sub;
        refine_group(c, at, &b.p[s], b.codes + s * f->sub, v + s * f->sub, g + (at - panel), delta);
        for (unsigned k = 0; k < f->sub; k++)
            change[at - panel + k] = delta[k];
        move_gradient(c->h, g, panel, end, delta, at, f->sub);
    }
    vf own[FEEDBACK_MAX_BLOCK] = {{0}};
    refine_scales(c, col, &b, v, g + (col - panel), own);
    for (unsigned i = 0; i < f->block; i++)
        change[col - panel + i] += own[i];
    if (!f->has_scales) /* the blocks behind it in the panel have to know */
        for (unsigned i = 0; i < f->block; i += FEEDBACK_MAX_SUB) {
            if (col > panel)
                move_gradient(c->h, g, panel, col, own + i, col + i, FEEDBACK_MAX_SUB);
            if (col + f->block < end)
                move_gradient(c->h, g + (col + f->block - panel), col + f->block, end, own + i, col + i,
                              FEEDBACK_MAX_SUB);
        }
    store_block(c, col, lane, &b);
}

static void sweep(struct feedback_chunk *c)
{
    size_t n_cols = c->h->n_cols;
    for (size_t panel = 0; panel < n_cols; panel += FEEDBACK_PANEL) {
        size_t n = n_cols - panel < FEEDBACK_PANEL ? n_cols - panel : FEEDBACK_PANEL;
        for (size_t lane = 0; lane < FEEDBACK_ROWS; lane += FEEDBACK_LANES) {
            vf g[FEEDBACK_PANEL], change[FEEDBACK_PANEL];
            for (size_t i = 0; i < n; i++)
                g[i] = load(c->work + (panel + i) * FEEDBACK_ROWS + lane);
            for (size_t col = panel; col < panel + n; col += c->format->block)
                refine_block(c, panel, col, lane, g, change);
            for (size_t i = 0; i < n; i++)
                store(c->delta + i * FEEDBACK_ROWS + lane, change[i]);
        }
        subtract_product(c, c->h->matrix + panel, n_cols, n_cols, n, c->work);
    }
}

void ROWS_FN(struct feedback_chunk *c)
{
    feed(c);
    if (c->stages.n_sweeps)
        feedback_gradient(c);
    for (unsigned i = 0; i < c->stages.n_sweeps; i++)
        sweep(c);
}
