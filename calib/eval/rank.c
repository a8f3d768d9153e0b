/* rank.c - see rank.h. */
#include "rank.h"

#include "libquant/base/order.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

struct pair {
    double a, b, rank; /* rank: of a */
};

static int by_a_then_b(const void *x, const void *y)
{
    const struct pair *p = x, *q = y;
    int order = order_doubles(p->a, q->a);
    return order ? order : order_doubles(p->b, q->b);
}

static double pairs_of(double n)
{
    return n * (n - 1) / 2;
}

/* Sorts by b and counts the pairs that stood the wrong way round. */
static double merge_sort(struct pair *p, struct pair *scratch, size_t n)
{
    if (n < 2)
        return 0;
    size_t half = n / 2, i = 0, j = half;
    double swaps = merge_sort(p, scratch, half) + merge_sort(p + half, scratch, n - half);
    for (size_t k = 0; k < n; k++) {
        bool left = j == n || (i < half && p[i].b <= p[j].b);
        if (!left)
            swaps += (double)(half - i);
        scratch[k] = left ? p[i++] : p[j++];
    }
    memcpy(p, scratch, n * sizeof *p);
    return swaps;
}

/* Sums over runs of equal values in sorted pairs. */
struct ties {
    double a, b, both; /* pairs tied */
};

static double run_pairs(const struct pair *p, size_t n,
                        bool (*equal)(const struct pair *, const struct pair *))
{
    double sum = 0;
    for (size_t i = 0, j; i < n; i = j) {
        for (j = i + 1; j < n && equal(&p[i], &p[j]); j++)
            ;
        sum += pairs_of((double)(j - i));
    }
    return sum;
}

static bool equal_a(const struct pair *p, const struct pair *q)
{
    return p->a == q->a;
}

static bool equal_b(const struct pair *p, const struct pair *q)
{
    return p->b == q->b;
}

static bool equal_both(const struct pair *p, const struct pair *q)
{
    return p->a == q->a && p->b == q->b;
}

/* The mean of the places that equal values take, less the mean of all places. */
static double middle(size_t i, size_t j, size_t n)
{
    return ((double)i + (double)j - 1) / 2 - ((double)n - 1) / 2;
}

int rank_agreement(double *kendall, double *spearman, const double *a, const double *b, size_t n,
                   struct err *e)
{
    struct pair *p = malloc(2 * n * sizeof *p + 1);
    struct ties t = {0};
    double aa = 0, bb = 0, ab = 0;
    if (!p)
        return err_set(e, ERR_NOMEM, "out of memory for the ranks of %zu values", n);
    for (size_t i = 0; i < n; i++)
        p[i] = (struct pair){a[i], b[i], 0};
    qsort(p, n, sizeof *p, by_a_then_b);
    t.a = run_pairs(p, n, equal_a);
    t.both = run_pairs(p, n, equal_both);
    for (size_t i = 0, j; i < n; i = j) {
        for (j = i + 1; j < n && equal_a(&p[i], &p[j]); j++)
            ;
        for (size_t k = i; k < j; k++)
            p[k].rank = middle(i, j, n);
    }
    double discordant = merge_sort(p, p + n, n), all = pairs_of((double)n);
    t.b = run_pairs(p, n, equal_b);
    for (size_t i = 0, j; i < n; i = j) {
        for (j = i + 1; j < n && equal_b(&p[i], &p[j]); j++)
            ;
        double mine = middle(i, j, n);
        for (size_t k = i; k < j; k++) {
            aa += p[k].rank * p[k].rank;
            bb += mine * mine;
            ab += p[k].rank * mine;
        }
    }
    free(p);
    double concordant = all - t.a - t.b + t.both - discordant;
    *kendall = all > t.a && all > t.b ? (concordant - discordant) / sqrt((all - t.a) * (all - t.b)) : NAN;
    *spearman = aa > 0 && bb > 0 ? ab / sqrt(aa * bb) : NAN;
    return 0;
}
