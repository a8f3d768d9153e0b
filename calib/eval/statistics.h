/* statistics.h - means, their errors, and order statistics, as figures of merit use them.
 *
 * All in double, two passes, in index order: the figures do not depend on threads. Truth: specification,
 * calibration-and-evaluation 7.3. */
#ifndef KERF_STATISTICS_H
#define KERF_STATISTICS_H

#include <stddef.h>

struct estimate {
    double value;
    double error; /* one standard error */
};

/* Errors are NaN where one value, run or group tells nothing about them.
 *
 * Mean of n independent values: m = sum x / n, error sqrt( (sum x^2 / n - m^2) / (n - 1) ). */
struct estimate stat_mean(const double *x, size_t n);

/* Covariance of the means of two paired series: (sum ab / n - mean a mean b) / (n - 1); NaN below two. */
double stat_covariance(const double *a, const double *b, size_t n);

/* Mean of a - b with the error of the paired differences. */
struct estimate stat_mean_difference(const double *a, const double *b, size_t n);

/* The same of values that come in n_groups groups of related ones (the steps of a text), each group from
 * where the one before ends to ends[k]: with t the sum over a group of the differences less their mean, the
 * error is sqrt( G / (G - 1) sum t^2 ) / n, the cluster-robust one (Liang and Zeger 1986, Biometrika 73).
 * Groups of one value give the error of stat_mean_difference, groups of equal size that of their means. */
struct estimate stat_mean_difference_of_groups(const double *a, const double *b, const size_t *ends,
                                               size_t n_groups);

/* Mean of values in such groups, with that error. */
struct estimate stat_mean_of_groups(const double *x, const size_t *ends, size_t n_groups);

/* Mean of n values that come in runs of `run` related ones (the tokens of a window): the error is that of the
 * means of the runs, so correlation inside a run is accounted for. */
struct estimate stat_mean_of_runs(const double *x, size_t n, size_t run);

/* Share of ones: f = k / n, error sqrt( f (1 - f) / (n - 1) ). */
struct estimate stat_share(size_t k, size_t n);

/* Value at position q * (n - 1) of n sorted values, interpolated linearly; NaN when n is 0. */
double stat_quantile(const double *sorted, size_t n, double q);

/* Sort rising, NaN last. */
void stat_sort(double *x, size_t n);

#endif
