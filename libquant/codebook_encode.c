/* codebook_encode.c - reference encoders of iq2_xxs, iq2_xs, iq2_s, iq3_xxs and iq3_s.
 *
 * This file defines the bytes; the vector kernels are tested against it. For each trial scale every tuple is
 * rounded to the lattice and, where that point is no entry of the code book, moved to the best entry near it;
 * the scale of these entries is fitted, and the best trial wins as in search_symmetric. Then the entries are
 * looked up once more at the fitted scale, and it is fitted again. Specification: quantization 4.11; lists:
 * codebook.h. */
#include "codebook_parts.h"

#include <float.h>

/* What a trial makes of a group. */
struct rounding {
    uint16_t entry[8];
    bool on_book[8];
};

/* The entry of the list that is nearest to x / scale under the weights, the first one on ties (and where no
 * distance is a number, as weights near the end of float32 bring it about). */
static uint16_t nearest_entry(const struct codebook *b, const uint16_t *list, const float *x,
                              const float *root, float scale)
{
    float best = FLT_MAX;
    uint16_t nearest = list[1];
    for (unsigned j = 1; j <= list[0]; j++) {
        float distance = 0;
        for (int i = 0; i < b->tuple; i++) {
            const float difference = scale * (float)(2 * codebook_code(b, list[j], i) + 1) - x[i];
            distance += root[i] * difference * difference;
        }
        if (distance < best) {
            best = distance;
            nearest = list[j];
        }
    }
    return nearest;
}

static void round_tuple(struct rounding *r, int k, const struct codebook *b, const struct codebook_group *g,
                        float inverse, float scale)
{
    const float *x = g->x + b->tuple * k;
    uint8_t codes[CODEBOOK_MAX_TUPLE];
    for (int i = 0; i < b->tuple; i++)
        codes[i] = (uint8_t)clamp_i32(round_near(0.5f * (inverse * x[i] - 1)), 0, b->levels - 1);
    const int32_t place = b->place[codebook_key(b, codes)];
    r->on_book[k] = place >= 0;
    r->entry[k] = place >= 0 ? (uint16_t)place
                             : nearest_entry(b, b->list + (-1 - place), x, g->root + b->tuple * k, scale);
}

/* A = sum w x q and L2 = sum w q^2 of the chosen entries; the best scale for them is A / L2. */
static void fit_sums(float *a, float *l2, const struct rounding *r, const struct codebook *b,
                     const struct codebook_group *g, int n)
{
    *a = *l2 = 0;
    for (int i = 0; i < n; i++) {
        const float q = (float)(2 * codebook_code(b, r->entry[i / b->tuple], i % b->tuple) + 1);
        *a += g->w[i] * g->x[i] * q;
        *l2 += g->w[i] * q * q;
    }
}

static void look_up_again(struct codebook_choice *c, struct rounding *r, const struct codebook_plan *p,
                          const struct codebook *b, const struct codebook_group *g)
{
    const int n_tuples = p->group / b->tuple;
    bool any = p->again == AGAIN_ALL;
    for (int k = 0; k < n_tuples; k++)
        any = any || !r->on_book[k];
    if (!any || !(c->scale > 0))
        return;
    for (int k = 0; k < n_tuples; k++) {
        if (p->again != AGAIN_OFF_BOOK || !r->on_book[k])
            round_tuple(r, k, b, g, 1 / c->scale, c->scale);
    }
    float a, l2;
    fit_sums(&a, &l2, r, b, g, p->group);
    if (l2 > 0)
        c->scale = a / l2;
}

static void search(struct codebook_choice *c, const struct codebook_plan *p, const struct codebook *b,
                   const struct codebook_group *g, float top)
{
    const int n_tuples = p->group / b->tuple;
    struct rounding best = {{0}, {0}};
    float best_score = 0;
    for (int k = 0; k < n_tuples; k++)
        best.on_book[k] = p->start_on_book;
    for (int trial = -p->reach; trial <= p->reach; trial++) {
        const float inverse = codebook_trial(p, b->levels, trial, top);
        struct rounding r = {{0}, {0}};
        float a, l2;
        for (int k = 0; k < n_tuples; k++)
            round_tuple(&r, k, b, g, inverse, 1 / inverse);
        fit_sums(&a, &l2, &r, b, g, p->group);
        if (l2 > 0 && a * a > best_score * l2) {
            c->scale = a / l2;
            best_score = c->scale * a;
            best = r;
        }
    }
    look_up_again(c, &best, p, b, g);
    memcpy(c->entry, best.entry, sizeof c->entry);
}

static void starts(float scale[8], const struct codebook_group g[8])
{
    uint8_t codes[32];
    for (int j = 0; j < 8; j++)
        scale[j] = search_positive(32, 4, g[j].x, g[j].w, codes);
}

static const struct codebook_engine engine = {codebook_weights, starts, search};

void iq2_xxs_encode(void *dst, const float *src, size_t n_cols, const float *importance)
{
    CODEBOOK_ROW(iq2_xxs, &engine)
}

void iq2_xs_encode(void *dst, const float *src, size_t n_cols, const float *importance)
{
    CODEBOOK_ROW(iq2_xs, &engine)
}

void iq2_s_encode(void *dst, const float *src, size_t n_cols, const float *importance)
{
    CODEBOOK_ROW(iq2_s, &engine)
}

void iq3_xxs_encode(void *dst, const float *src, size_t n_cols, const float *importance)
{
    CODEBOOK_ROW(iq3_xxs, &engine)
}

void iq3_s_encode(void *dst, const float *src, size_t n_cols, const float *importance)
{
    iq3_s_row(dst, src, n_cols, importance, &engine);
}
