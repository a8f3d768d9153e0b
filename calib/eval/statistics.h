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

/* Mean of n independent values: m = sum x / n, error sqrt( (sum x^2 / n - m^2) / (n - 1) ); 0 below two. */
struct estimate stat_mean(const double *x, size_t n);

/* Covariance of the means of two paired series: (sum ab / n - mean a mean b) / (n - 1); 0 below two. */
double stat_covariance(const double *a, const double *b, size_t n);

/* Mean of a - b with the error of the paired differences. */
struct estimate stat_mean_difference(const double *a, const double *b, size_t n);

/* Mean of n values that come in runs of `run` related ones (the tokens of a window): the error is that of the
 * means of the runs, so correlation inside a run is accounted for. NaN error below two runs. */
struct estimate stat_mean_of_runs(const double *x, size_t n, size_t run);

/* Share of ones: f = k / n, error sqrt( f (1 - f) / (n - 1) ). */
struct estimate stat_share(size_t k, size_t n);

/* Value at position q * (n - 1) of n sorted values, interpolated linearly; NaN when n is 0. */
double stat_quantile(const double *sorted, size_t n, double q);

/* Sort rising, NaN last. */
void stat_sort(double *x, size_t n);

#endif
