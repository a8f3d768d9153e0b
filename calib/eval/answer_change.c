/* answer_change.c - see answer_change.h. */
#include "answer_change.h"

#include "rank.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static double probability(double log_odds)
{
    return 1 / (1 + exp(-log_odds));
}

static void change_of_distance(struct answer_change *c, const double *distance, size_t n, double *scratch)
{
    memcpy(scratch, distance, n * sizeof *scratch);
    stat_sort(scratch, n);
    c->distance = stat_mean(distance, n);
    c->distance_median = stat_quantile(scratch, n, 0.50);
    c->distance_p95 = stat_quantile(scratch, n, 0.95);
    c->distance_p99 = stat_quantile(scratch, n, 0.99);
    c->distance_max = stat_quantile(scratch, n, 1);
}

/* Root of the mean square, and the largest absolute value, of f(a) - f(b); f NULL: the values themselves. */
static void spread(double *rms, double *max, const double *a, const double *b, size_t n, double (*f)(double))
{
    double sum = 0;
    *max = 0;
    for (size_t i = 0; i < n; i++) {
        double d = f ? f(a[i]) - f(b[i]) : a[i] - b[i];
        sum += d * d;
        *max = fabs(d) > *max ? fabs(d) : *max;
    }
    *rms = sqrt(sum / (double)n);
}

void answer_change_unknown(struct answer_change *c)
{
    struct estimate none = {NAN, NAN};
    *c = (struct answer_change){none, NAN, NAN, NAN, NAN, NAN, none, NAN, NAN, NAN, NAN, NAN, NAN};
}

int answer_change_of(struct answer_change *out, const struct text_evaluation *v, size_t m, struct err *e)
{
    struct answer_change c;
    const double *x = v->value[m], *ref = v->value[0];
    int rc = 0;
    answer_change_unknown(&c);
    if (v->answer == NET_SCORE)
        c.score_mean = stat_mean(x, v->n).value;
    if (v->answer == NET_SCORE && m > 0) {
        c.delta = stat_mean_difference_of_groups(x, ref, v->ends, v->n_texts);
        spread(&c.delta_rms, &c.delta_max, x, ref, v->n, NULL);
        if (v->has_probability)
            spread(&c.probability_rms, &c.probability_max, x, ref, v->n, probability);
        rc = rank_agreement(&c.kendall, &c.spearman, ref, x, v->n, e);
    } else if (v->answer == NET_EMBEDDING && m > 0) {
        double *scratch = malloc(v->n * sizeof *scratch + 1);
        if (!scratch)
            return err_set(e, ERR_NOMEM, "out of memory for %zu distances", v->n);
        change_of_distance(&c, x, v->n, scratch);
        free(scratch);
    }
    if (rc == 0)
        *out = c;
    return rc;
}
