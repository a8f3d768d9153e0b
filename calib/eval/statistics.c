/* statistics.c - see statistics.h. */
#include "statistics.h"

#include "libquant/base/order.h"

#include <math.h>
#include <stdlib.h>

static double mean_of(const double *x, size_t n)
{
    double s = 0;
    for (size_t i = 0; i < n; i++)
        s += x[i];
    return n ? s / (double)n : NAN;
}

struct estimate stat_mean(const double *x, size_t n)
{
    struct estimate m = {mean_of(x, n), NAN};
    double s = 0;
    for (size_t i = 0; i < n; i++)
        s += (x[i] - m.value) * (x[i] - m.value);
    if (n > 1)
        m.error = sqrt(s / (double)n / (double)(n - 1));
    return m;
}

double stat_covariance(const double *a, const double *b, size_t n)
{
    double ma = mean_of(a, n), mb = mean_of(b, n), s = 0;
    for (size_t i = 0; i < n; i++)
        s += (a[i] - ma) * (b[i] - mb);
    return n > 1 ? s / (double)n / (double)(n - 1) : NAN;
}

struct estimate stat_mean_difference(const double *a, const double *b, size_t n)
{
    struct estimate d = {mean_of(a, n) - mean_of(b, n), NAN};
    double s = 0;
    for (size_t i = 0; i < n; i++)
        s += (a[i] - b[i] - d.value) * (a[i] - b[i] - d.value);
    if (n > 1)
        d.error = sqrt(s / (double)n / (double)(n - 1));
    return d;
}

/* Error of the mean of a - b (b NULL: of a), which is `mean`. */
static double error_of_groups(const double *a, const double *b, double mean, const size_t *ends,
                              size_t n_groups)
{
    double s = 0;
    for (size_t i = 0, k = 0; k < n_groups; k++) {
        double t = 0;
        for (; i < ends[k]; i++)
            t += a[i] - (b ? b[i] : 0) - mean;
        s += t * t;
    }
    return n_groups > 1 ? sqrt(s * (double)n_groups / (double)(n_groups - 1)) / (double)ends[n_groups - 1]
                        : NAN;
}

struct estimate stat_mean_difference_of_groups(const double *a, const double *b, const size_t *ends,
                                               size_t n_groups)
{
    size_t n = n_groups ? ends[n_groups - 1] : 0;
    double mean = mean_of(a, n) - mean_of(b, n);
    return (struct estimate){mean, error_of_groups(a, b, mean, ends, n_groups)};
}

struct estimate stat_mean_of_groups(const double *x, const size_t *ends, size_t n_groups)
{
    double mean = mean_of(x, n_groups ? ends[n_groups - 1] : 0);
    return (struct estimate){mean, error_of_groups(x, NULL, mean, ends, n_groups)};
}

struct estimate stat_mean_of_runs(const double *x, size_t n, size_t run)
{
    struct estimate m = {mean_of(x, n), NAN};
    size_t n_runs = run ? n / run : 0;
    double s = 0;
    for (size_t i = 0; i < n_runs; i++) {
        double d = mean_of(x + i * run, run) - m.value;
        s += d * d;
    }
    if (n_runs > 1)
        m.error = sqrt(s / (double)n_runs / (double)(n_runs - 1));
    return m;
}

struct estimate stat_share(size_t k, size_t n)
{
    double f = n ? (double)k / (double)n : NAN;
    return (struct estimate){f, n > 1 ? sqrt(f * (1 - f) / (double)(n - 1)) : NAN};
}

double stat_quantile(const double *sorted, size_t n, double q)
{
    if (n == 0)
        return NAN;
    double at = q * (double)(n - 1);
    size_t i = at <= 0 ? 0 : (size_t)at;
    if (i + 1 >= n)
        return sorted[n - 1];
    double part = at - (double)i;
    return sorted[i] * (1 - part) + sorted[i + 1] * part;
}

static int rising(const void *a, const void *b)
{
    return order_doubles(*(const double *)a, *(const double *)b);
}

void stat_sort(double *x, size_t n)
{
    qsort(x, n, sizeof *x, rising);
}
