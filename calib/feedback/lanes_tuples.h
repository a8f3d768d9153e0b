/* lanes_tuples.h - error feedback in the code books (iq2, iq3): the codes of several weights at once. Part of
 * lanes_feedback.h, which includes it once per instruction set.
 *
 * With A = (1 + u)^-T D (1 + u)^-1, u the factors within the unit, the loss of a unit of 4 or 8 weights is
 * (t - v)^T A (t - v), t the weights after all errors before it. The entry is chosen for the diagonal of A,
 * where every weight has terms of its own, by trying all entries: 256 to 1024 of them, each a handful of
 * additions for a vector of rows. The errors then are handed on one by one as anywhere, and their loss is
 * exact. An even number of signs is exact under the diagonal, too: the weight that costs least takes the
 * wrong one. */
#include "libquant/codebook.h"

enum { TUPLE_UNIT = 8, TUPLE_TERMS = 42 };

/* What codes of a tuple cost, where `step` of codebook.h looks for them; and what one wrong sign adds. */
struct tuple_terms {
    vf cost[TUPLE_TERMS], flip[TUPLE_TERMS];
};

/* The best entry [0] with the signs of the weights, [1] with one of them turned. */
struct tuple_choice {
    vf cost[2];
    vi entry[2];
};

/* Diagonals of A of all units of n weights; `u` as in try_three, NULL: nothing is handed on. */
static void unit_weights(unsigned unit, unsigned n, const float *u, size_t ld, const float *d, float *a)
{
    for (unsigned at = 0; at < n; at += unit)
        for (unsigned k = 0; k < unit; k++) { /* column k of (1 + u)^-1, downwards */
            float column[TUPLE_UNIT] = {0}, sum = 0;
            column[k] = 1;
            for (unsigned i = k; i < unit; i++) {
                for (unsigned j = k; u && j < i; j++)
                    column[i] -= u[(at + i) * ld + at + j] * column[j];
                sum += d[at + i] * column[i] * column[i];
            }
            a[at + k] = sum;
        }
}

/* Terms of one weight for all of its codes. */
static inline void weight_terms(const float *magnitudes, int levels, vf x, float a, vf step, vf *cost,
                                vf *flip)
{
    for (int c = 0; c < levels; c++) {
        vf v = step * magnitudes[c], both = v * x;
        cost[c] = a * (v * v - 2.0f * both);
        flip[c] = (4.0f * a) * both;
    }
}

static void make_terms(const struct feedback_format *f, const struct codebook *book, const vf *x,
                       const float *a, vf step, struct tuple_terms *t)
{
    const float *magnitudes = f->levels + f->n_levels / 2;
    vf cost[3][3], flip[3][3];
    if (book->tuple == 4) {
        for (int i = 0; i < 4; i++)
            weight_terms(magnitudes, book->levels, x[i], a[i], step, t->cost + 8 * i, t->flip + 8 * i);
        return;
    }
    for (int i = 0; i < 3; i++)
        weight_terms(magnitudes, 3, x[i], a[i], step, cost[i], flip[i]);
    for (int c = 0; c < 27; c++) {
        int c0 = c % 3, c1 = c / 3 % 3, c2 = c / 9;
        t->cost[c] = cost[0][c0] + cost[1][c1] + cost[2][c2];
        t->flip[c] = lower(lower(flip[0][c0], flip[1][c1]), flip[2][c2]);
    }
    for (int i = 3; i < 8; i++)
        weight_terms(magnitudes, 3, x[i], a[i], step, t->cost + 27 + 3 * (i - 3), t->flip + 27 + 3 * (i - 3));
}

static inline vf term_of(const vf *terms, uint8_t step)
{
    return terms[step / 8];
}

/* `flips`: [1] is wanted, too. */
static inline void search_entries(const struct codebook *book, int n_terms, bool flips,
                                  const struct tuple_terms *t, struct tuple_choice *best)
{
    const vf *costs = n_terms == 4 ? t->cost : t->cost + 27, *turns = n_terms == 4 ? t->flip : t->flip + 27;
    best->cost[0] = best->cost[1] = splat(INFINITY);
    best->entry[0] = best->entry[1] = (vi){0};
    for (int e = 0; e < book->n_entries; e++) {
        const uint8_t *step = book->step[e];
        vi entry = (vi){0} + e;
        vf cost = term_of(t->cost, step[0]);
        for (int i = 1; i < n_terms; i++)
            cost += term_of(costs, step[i]);
        vi better = cost < best->cost[0];
        best->cost[0] = lower(cost, best->cost[0]);
        best->entry[0] = (better & entry) | (~better & best->entry[0]);
        if (!flips)
            continue;
        vf turn = term_of(t->flip, step[0]);
        for (int i = 1; i < n_terms; i++)
            turn = lower(turn, term_of(turns, step[i]));
        cost += turn;
        better = cost < best->cost[1];
        best->cost[1] = lower(cost, best->cost[1]);
        best->entry[1] = (better & entry) | (~better & best->entry[1]);
    }
}

/* Signed codes of one row from its entry; `turn`: the sign that costs least is turned. */
static void put_codes(const struct feedback_format *f, const struct codebook *book, unsigned entry, bool turn,
                      const vf *t, const float *a, unsigned row, vf *codes)
{
    const float *magnitudes = f->levels + f->n_levels / 2;
    int least = 0;
    float cost = INFINITY;
    for (int i = 0; i < book->tuple; i++) {
        float m = magnitudes[codebook_code(book, entry, i)], x = fabsf(t[i][row]);
        codes[i][row] = t[i][row] < 0 ? -m : m;
        if (a[i] * x * m < cost) {
            cost = a[i] * x * m;
            least = i;
        }
    }
    if (turn)
        codes[least][row] = -codes[least][row];
}

/* The codes of a unit of weights `t` under the diagonal `a`. */
static void nearest_unit(const struct feedback_format *f, const struct codebook *book, const vf *t,
                         const float *a, vf step, vf *codes)
{
    struct tuple_terms terms;
    struct tuple_choice best[2];
    unsigned unit = feedback_unit(f), n = (unsigned)book->tuple, parts = unit / n;
    vf x[TUPLE_UNIT], extra[2];
    vi odd = {0};
    for (unsigned k = 0; k < unit; k++) {
        x[k] = magnitude(t[k]);
        odd ^= t[k] < 0;
    }
    for (unsigned p = 0; p < parts; p++) {
        make_terms(f, book, x + p * n, a + p * n, step, &terms);
        if (n == 4)
            search_entries(book, 4, f->even_signs, &terms, &best[p]);
        else
            search_entries(book, 6, f->even_signs, &terms, &best[p]);
        extra[p] = best[p].cost[1] - best[p].cost[0];
    }
    for (unsigned p = 0; p < parts; p++) {
        vi turn = f->even_signs ? odd : (vi){0};
        if (parts == 2)
            turn &= p == 0 ? extra[0] <= extra[1] : ~(extra[0] <= extra[1]);
        for (unsigned r = 0; r < FEEDBACK_LANES; r++)
            put_codes(f, book, (unsigned)(turn[r] ? best[p].entry[1][r] : best[p].entry[0][r]), turn[r] != 0,
                      t + p * n, a + p * n, r, codes + p * n);
    }
}

/* try_three for code books. */
static void try_three_books(const struct feedback_format *f, unsigned n, const vf *w, const float *u,
                            size_t ld, const float *d, const struct params p[3],
                            vf (*codes)[FEEDBACK_MAX_SUB], vf loss[3])
{
    const struct codebook *book = codebook_get(f->book);
    unsigned unit = feedback_unit(f);
    float a[FEEDBACK_MAX_SUB];
    unit_weights(unit, n, u, ld, d, a);
    for (int c = 0; c < 3; c++) {
        vf e[FEEDBACK_MAX_SUB], t[TUPLE_UNIT], step = step_of(f, &p[c]);
        loss[c] = (vf){0};
        for (unsigned at = 0; at < n; at += unit) {
            for (unsigned k = 0; k < unit; k++) {
                t[k] = w[at + k];
                for (unsigned j = 0; u && j < at; j++)
                    t[k] -= e[j] * u[(at + k) * ld + j];
            }
            nearest_unit(f, book, t, a + at, step, codes[c] + at);
            for (unsigned k = at; k < at + unit; k++) {
                e[k] = t[k - at];
                for (unsigned j = at; u && j < k; j++)
                    e[k] -= e[j] * u[k * ld + j];
                e[k] -= step * codes[c][k];
                loss[c] += d[k] * (e[k] * e[k]);
            }
        }
    }
}
