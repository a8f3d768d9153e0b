/* feedback_correction.c - see feedback_correction.h. */
#include "feedback_correction.h"

#include "feedback_rows.h"

#include "libquant/base/pool.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static int no_memory(size_t n_cols, struct err *e)
{
    return err_set(e, ERR_NOMEM, "out of memory for the correction of %zu columns", n_cols);
}

unsigned long long feedback_correction_bytes(size_t n_cols)
{
    unsigned long long n = n_cols;
    return n * n * (6 * sizeof(float) + 3 * sizeof(double));
}

static bool gemm_matrix_new(struct gemm_matrix *m, const struct kern_product *kern, size_t n)
{
    *m = (struct gemm_matrix){kern, n, n, NULL};
    m->data = aligned_alloc(64, (gemm_floats(kern, n, n) * sizeof(float) + 63) / 64 * 64);
    return m->data != NULL;
}

void feedback_correction_release(struct feedback_correction *c)
{
    free(c->inputs.data);
    free(c->turn.data);
    free(c->back.data);
    *c = (struct feedback_correction){0};
}

/* x B for rows x, B [n, n] in double. */
static void pack_scaled(const struct gemm_matrix *m, const double *b, double scale, float *scratch)
{
    for (size_t i = 0; i < m->depth * m->n_rows; i++)
        scratch[i] = (float)(b[i] * scale);
    gemm_pack_columns(m, scratch, m->n_rows);
}

/* U of H^-1 = U^T U (feedback_hessian.h): upper. */
static void take_factor(const struct feedback_hessian *h, float *u)
{
    size_t n = h->n_cols;
    memset(u, 0, n * n * sizeof *u);
    for (size_t k = 0; k < n; k++)
        for (size_t j = 0; j <= k; j++)
            u[j * n + k] = (float)((double)h->factor[k * n + j] / sqrt((double)h->pivots[j]));
}

int feedback_correction_make(struct feedback_correction *out, const struct feedback_hessian *h,
                             const struct correction_sums *sums, bool of_outputs, const struct kern *kern,
                             struct err *e)
{
    size_t n = h->n_cols;
    struct feedback_correction c = {.n_cols = n,
                                    .of_outputs = of_outputs,
                                    .strength = 1,
                                    .cross = of_outputs ? sums->cross : NULL,
                                    .scale = h->scale};
    float *scratch = malloc(n * n * sizeof *scratch);
    if (!scratch || !gemm_matrix_new(&c.inputs, kern->product, n) ||
        !gemm_matrix_new(&c.turn, kern->product, n) || !gemm_matrix_new(&c.back, kern->product, n)) {
        free(scratch);
        feedback_correction_release(&c);
        return no_memory(n, e);
    }
    pack_scaled(&c.inputs, of_outputs ? sums->gram : sums->cross, h->scale, scratch);
    take_factor(h, scratch);
    gemm_pack_rows(&c.turn, 0, n, scratch, n);
    gemm_pack_columns(&c.back, scratch, n);
    free(scratch);
    *out = c;
    return 0;
}

/* T of rows [row0, row0 + n) of W. */
static void target(bool of_outputs, const double *cross, double scale, const struct gemm_matrix *inputs,
                   uint64_t row0, size_t n, const float *rows, float *t)
{
    size_t n_cols = inputs->depth;
    gemm(n, rows, n_cols, inputs, t, n_cols, false);
    for (size_t i = 0; of_outputs && i < n * n_cols; i++)
        t[i] = (float)(cross[row0 * n_cols + i] * scale - (double)t[i]);
}

/* D of rows of W; both scratch [n, n_cols], D is in the first. */
static void correction_of(const struct feedback_correction *c, uint64_t row0, size_t n, const float *rows,
                          float *d, float *scratch)
{
    target(c->of_outputs, c->cross, c->scale, &c->inputs, row0, n, rows, d);
    gemm(n, d, c->n_cols, &c->turn, scratch, c->n_cols, false);
    gemm(n, scratch, c->n_cols, &c->back, d, c->n_cols, false);
}

int feedback_correct_rows(const struct feedback_correction *c, uint64_t row0, uint64_t n, float *rows,
                          struct err *e)
{
    size_t n_values = (size_t)n * c->n_cols;
    float *d = malloc(2 * n_values * sizeof *d + 1);
    if (!d)
        return no_memory(c->n_cols, e);
    correction_of(c, row0, (size_t)n, rows, d, d + n_values);
    for (size_t i = 0; i < n_values; i++)
        rows[i] += c->strength * d[i];
    free(d);
    return 0;
}

struct fit_run {
    const struct feedback_correction *c;
    const struct correction_rows *rows;
    const double *cross; /* of the validation text, where it is R */
    struct gemm_matrix inputs, gram;
    struct correction_fit *fits; /* [n_jobs] */
};

static int fit_job(void *ctx, size_t job, unsigned worker, struct err *e)
{
    (void)worker;
    const struct fit_run *r = ctx;
    uint64_t row0 = (uint64_t)job * FEEDBACK_ROWS, left = r->rows->n_rows - row0;
    size_t n = left < FEEDBACK_ROWS ? (size_t)left : FEEDBACK_ROWS, n_values = n * r->c->n_cols;
    float *w = malloc(3 * n_values * sizeof *w + 1);
    if (!w)
        return no_memory(r->c->n_cols, e);
    float *d = w + n_values, *other = d + n_values;
    int rc = r->rows->read(r->rows->ctx, row0, n, w, e);
    struct correction_fit sum = {0};
    if (rc == 0) {
        correction_of(r->c, row0, n, w, d, other);
        target(r->c->of_outputs, r->cross, r->c->scale, &r->inputs, row0, n, w, other);
        for (size_t i = 0; i < n_values; i++)
            sum.gain += (double)d[i] * (double)other[i];
        gemm(n, d, r->c->n_cols, &r->gram, other, r->c->n_cols, false);
        for (size_t i = 0; i < n_values; i++)
            sum.norm += (double)d[i] * (double)other[i];
        r->fits[job] = sum;
    }
    free(w);
    return rc;
}

int feedback_correction_fit(struct correction_fit *fit, const struct feedback_correction *c,
                            const struct correction_sums *validation, const struct correction_rows *rows,
                            struct pool *pool, struct err *e)
{
    size_t n = c->n_cols, n_jobs = (size_t)((rows->n_rows + FEEDBACK_ROWS - 1) / FEEDBACK_ROWS);
    struct fit_run r = {.c = c, .rows = rows, .cross = validation->cross};
    float *scratch = malloc(n * n * sizeof *scratch);
    r.fits = calloc(n_jobs + 1, sizeof *r.fits);
    bool ok = scratch && r.fits && gemm_matrix_new(&r.inputs, c->inputs.kern, n) &&
              gemm_matrix_new(&r.gram, c->inputs.kern, n);
    int rc = ok ? 0 : no_memory(n, e);
    if (rc == 0) {
        pack_scaled(&r.inputs, c->of_outputs ? validation->gram : validation->cross, c->scale, scratch);
        pack_scaled(&r.gram, validation->gram, c->scale, scratch);
        rc = pool_run(pool, n_jobs, fit_job, &r, e);
    }
    for (size_t i = 0; rc == 0 && i < n_jobs; i++) {
        fit->gain += r.fits[i].gain;
        fit->norm += r.fits[i].norm;
    }
    free(scratch);
    free(r.fits);
    free(r.inputs.data);
    free(r.gram.data);
    return rc;
}

double feedback_correction_strength(const struct correction_fit *fit)
{
    double a = fit->norm > 0 ? fit->gain / fit->norm : 0;
    return a > 0 ? a < 1 ? a : 1 : 0;
}
