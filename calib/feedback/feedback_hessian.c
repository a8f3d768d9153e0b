/* feedback_hessian.c - see feedback_hessian.h. */
#include "feedback_hessian.h"

#include "lapack.h"

#include "calib/stats/gram_sums.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define DAMPING      0.01
#define MAX_TRIES    6 /* with damping of 1, 4, 16 ... % */
#define LAMBDA_LEAST 0.1
#define LAMBDA_MOST  0.9

void feedback_hessian_release(struct feedback_hessian *h)
{
    free(h->matrix);
    free(h->factor);
    free(h->pivots);
    free(h->groups16.factor);
    free(h->groups16.pivots);
    free(h->groups32.factor);
    free(h->groups32.pivots);
    free(h->diagonal);
    *h = (struct feedback_hessian){0};
}

unsigned long long feedback_hessian_bytes(size_t n_cols, int with_pool)
{
    unsigned long long n = n_cols;
    return n * n * (2 * sizeof(float) + (with_pool ? 2 : 1) * sizeof(double)) + n * 64 * sizeof(float);
}

static double squares_off_diagonal(const double *a, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++) {
        double row = 0;
        for (size_t j = i + 1; j < n; j++)
            row += a[i * n + j] * a[i * n + j];
        sum += row;
    }
    return 2 * sum;
}

double feedback_lambda(const double *sums, size_t n_cols, const struct gram_figures *f)
{
    double norm = squares_off_diagonal(sums, n_cols), c = f->n_chunks;
    if (c < 2 || !(norm > 0))
        return LAMBDA_MOST;
    double spread = f->squares - norm / c; /* c - 1 times the variance of a chunk's sum, so lambda^ is */
    double lambda = 3 * (spread > 0 ? spread : 0) * c / (c - 1) / norm;
    return lambda < LAMBDA_LEAST ? LAMBDA_LEAST : lambda > LAMBDA_MOST ? LAMBDA_MOST : lambda;
}

static double trace(const double *a, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += a[i * n + i];
    return sum;
}

/* Shrink in place: towards the diagonal, or towards `pool` of the same trace. */
static void shrink(double *a, size_t n, double lambda, const double *pool)
{
    double share = pool ? lambda * trace(a, n) / trace(pool, n) : 0;
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < n; j++)
            if (pool)
                a[i * n + j] =
                    (1 - lambda) * a[i * n + j] + share * pool[i * n + j] * (i == j ? 1 : 1 - LAMBDA_LEAST);
            else if (i != j)
                a[i * n + j] *= 1 - lambda;
}

/* U and D of a symmetric matrix [n, n] with row distance ld, n at most 32, in place of LAPACK: a[i][j] of `r`
 * is the reversed Cholesky factor, upper. False when it is not positive. */
static bool factor_group(const float *a, size_t ld, unsigned n, float *factor, float *pivots)
{
    double r[32][32] = {{0}}, u[32][32] = {{0}};
    for (unsigned j = n; j-- > 0;)
        for (unsigned i = j + 1; i-- > 0;) {
            double sum = (double)a[i * ld + j];
            for (unsigned k = j + 1; k < n; k++)
                sum -= r[i][k] * r[j][k];
            if (i == j && !(sum > 0))
                return false;
            r[i][j] = i == j ? sqrt(sum) : sum / r[j][j];
        }
    for (unsigned j = 0; j < n; j++) { /* columns of R^-1, upwards */
        u[j][j] = 1 / r[j][j];
        for (unsigned i = j; i-- > 0;) {
            double sum = 0;
            for (unsigned k = i + 1; k <= j; k++)
                sum += r[i][k] * u[k][j];
            u[i][j] = -sum / r[i][i];
        }
    }
    for (unsigned k = 0; k < n; k++) {
        pivots[k] = (float)(r[k][k] * r[k][k]);
        for (unsigned j = 0; j < n; j++)
            factor[k * n + j] = j <= k ? (float)(u[j][k] / u[j][j]) : 0;
    }
    return true;
}

static int factor_groups(struct feedback_hessian *h, struct feedback_group *g, unsigned n, struct err *e)
{
    g->factor = malloc(h->n_cols * n * sizeof *g->factor);
    g->pivots = malloc(h->n_cols * sizeof *g->pivots);
    if (!g->factor || !g->pivots)
        return err_set(e, ERR_NOMEM, "out of memory for a Hessian of %zu columns", h->n_cols);
    for (size_t at = 0; at < h->n_cols; at += n)
        if (!factor_group(h->matrix + at * h->n_cols + at, h->n_cols, n, g->factor + at * n, g->pivots + at))
            return err_set(e, ERR_FORMAT, "columns %zu to %zu of the Hessian are not positive", at,
                           at + n - 1);
    return 0;
}

/* Factor `matrix` by way of `a` [n, n]. LAPACK has H = L L^T with L lower; of the matrix turned by half a
 * circle that is R R^T with R upper. */
static bool factor_matrix(struct feedback_hessian *h, double *a, const struct lapack *lapack)
{
    size_t n = h->n_cols, last = n * n - 1;
    int order = (int)n, info = 0;
    for (size_t i = 0; i <= last; i++)
        a[i] = (double)h->matrix[last - i];
    lapack->dpotrf("L", &order, a, &order, &info, 1);
    if (info == 0)
        lapack->dtrtri("L", "N", &order, a, &order, &info, 1, 1);
    if (info != 0)
        return false;
    for (size_t k = 0; k < n; k++) { /* U_jk is a[last - j - k n] */
        double own = a[last - k - k * n];
        h->pivots[k] = (float)(1 / (own * own));
        for (size_t j = 0; j < n; j++)
            h->factor[k * n + j] = j <= k ? (float)(a[last - j - k * n] / a[last - j - j * n]) : 0;
        if (!(h->pivots[k] > 0) || !isfinite(h->pivots[k]))
            return false;
    }
    return true;
}

static void take_matrix(struct feedback_hessian *h, const double *a)
{
    size_t n = h->n_cols;
    for (size_t i = 0; i < n * n; i++)
        h->matrix[i] = (float)(a[i] * h->scale);
    for (size_t i = 0; i < n; i++)
        h->diagonal[i] = h->matrix[i * n + i] += (float)DAMPING;
}

static int factor_with_damping(struct feedback_hessian *h, double *a, struct err *e)
{
    const struct lapack *lapack;
    double damping = DAMPING, pivots = 0, diagonal = 0;
    int rc = lapack_load(&lapack, e);
    if (rc != 0)
        return rc;
    for (int try = 0; !factor_matrix(h, a, lapack); try++) {
        if (try == MAX_TRIES)
            return err_set(e, ERR_FORMAT, "the Hessian of %zu columns cannot be factored", h->n_cols);
        for (size_t i = 0; i < h->n_cols; i++)
            h->diagonal[i] = h->matrix[i * h->n_cols + i] += (float)(3 * damping);
        damping *= 4;
    }
    for (size_t i = 0; i < h->n_cols; i++) {
        pivots += (double)h->pivots[i];
        diagonal += (double)h->diagonal[i];
    }
    h->gain = pivots / diagonal;
    return 0;
}

int feedback_hessian_make(struct feedback_hessian *out, double *sums, size_t n_cols,
                          const struct gram_figures *figures, const double *pool, struct err *e)
{
    struct feedback_hessian h = {.n_cols = n_cols};
    double total = trace(sums, n_cols);
    bool leans = pool && trace(pool, n_cols) > 0;
    if (n_cols == 0 || n_cols % 32 != 0 || n_cols > 65536)
        return err_set(e, ERR_FORMAT, "a Hessian of %zu columns; expected a multiple of 32", n_cols);
    h.lambda = feedback_lambda(sums, n_cols, figures);
    if (total > 0)
        shrink(sums, n_cols, h.lambda, leans ? pool : NULL);
    else if (leans) { /* an expert that no token went to */
        memcpy(sums, pool, n_cols * n_cols * sizeof *sums);
        shrink(sums, n_cols, LAMBDA_LEAST, NULL);
        total = trace(sums, n_cols);
    }
    if (total == 0)
        return err_set(e, ERR_ARG, "a Hessian without data");
    if (!(total > 0) || !isfinite(total))
        return err_set(e, ERR_FORMAT, "a Hessian with a trace of %g", total);
    h.scale = (double)n_cols / total;
    h.matrix = malloc(n_cols * n_cols * sizeof *h.matrix);
    h.factor = malloc(n_cols * n_cols * sizeof *h.factor);
    h.pivots = malloc(n_cols * sizeof *h.pivots);
    h.diagonal = malloc(n_cols * sizeof *h.diagonal);
    int rc = h.matrix && h.factor && h.pivots && h.diagonal
                 ? 0
                 : err_set(e, ERR_NOMEM, "out of memory for a Hessian of %zu columns", n_cols);
    if (rc == 0) {
        take_matrix(&h, sums);
        rc = factor_with_damping(&h, sums, e);
    }
    if (rc == 0)
        rc = factor_groups(&h, &h.groups16, 16, e);
    if (rc == 0)
        rc = factor_groups(&h, &h.groups32, 32, e);
    if (rc != 0)
        feedback_hessian_release(&h);
    else
        *out = h;
    return rc;
}
