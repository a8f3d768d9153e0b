/* proxy_error.c - the importance-weighted squared error that each type leaves in a tensor:
 *
 *     proxy = sum over experts e, rows r of e, columns k:  v_ek (q_rk - w_rk)^2,
 *     v_ek  = (S_ek + S_k / C) / (C_all + n_experts)
 *
 * S and C are the sums and counts of the importance matrix, so v is the mean of x^2 over all tokens, those
 * that never reach an expert included; one token of the mean over experts is added to each, so that an expert
 * without any token still counts a little. Without importance v is 1. Rows are encoded with the weights that
 * `kerf quantize` gives the encoder, which are those of the expert alone.
 *
 * Sums run in fixed jobs of sampled rows and are added up in order: the same for any number of threads, and
 * since encoders give the same bytes on every machine, so do the sums. */
#include "loss_table.h"

#include "formats/gguf/imatrix_file.h"
#include "libquant/base/pool.h"
#include "libquant/quant.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define ROWS_PER_JOB 32

struct proxy_run {
    const struct loss_table *table;
    const struct loss_tensor *t;
    const struct kern *kern;
    uint64_t n_sampled, n_mats;
    const float *encode_with; /* [n_mats, n_cols] or NULL */
    const double *weigh_with; /* [n_mats, n_cols] or NULL */
    double *sums;             /* [n_jobs, n_options] */
};

static double row_error(const float *a, const float *b, const double *v, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++) {
        double d = (double)a[i] - (double)b[i];
        sum += (v ? v[i] : 1) * d * d;
    }
    return sum;
}

static int encode_row(const struct proxy_run *r, enum qtype type, const float *row, const float *importance,
                      uint8_t *blocks, float *back, struct err *e)
{
    uint64_t n_cols = r->t->tensor->ne[0], n_bytes = 0;
    const struct qtype_info *info = qtype_info(type);
    qtype_row_bytes(type, n_cols, &n_bytes);
    size_t bad = quant_find_bad(row, (size_t)n_cols, quant_limit(type));
    if (bad < n_cols)
        return err_set(e, ERR_FORMAT, "tensor '%s': value %g cannot be stored as %s", r->t->tensor->name,
                       (double)row[bad], info->name);
    const float *weights = info->importance == IMPORTANCE_IGNORED ? NULL : importance;
    int rc =
        quant_encode_informed(r->kern, type, row, blocks, (size_t)n_bytes, 1, (size_t)n_cols, weights, e);
    return rc ? rc : quant_decode_rows(r->kern, type, blocks, (size_t)n_bytes, back, 1, (size_t)n_cols, e);
}

static int proxy_job(void *ctx, size_t job, unsigned worker, struct err *e)
{
    (void)worker;
    const struct proxy_run *r = ctx;
    const struct model_tensor *t = r->t->tensor;
    size_t n_cols = (size_t)t->ne[0];
    float *row = malloc(2 * n_cols * sizeof *row);
    uint8_t *blocks = malloc(n_cols * sizeof(float) + 512); /* no type is wider than F32 */
    double *sums = r->sums + job * r->t->n_options;
    int rc = row && blocks ? 0 : err_set(e, ERR_NOMEM, "out of memory for rows of '%s'", t->name);
    for (uint64_t i = job * ROWS_PER_JOB; rc == 0 && i < (job + 1) * ROWS_PER_JOB && i < r->n_sampled; i++) {
        uint64_t at = (2 * i + 1) * t->n_rows / (2 * r->n_sampled), mat = at / t->ne[1];
        rc = model_read_rows(r->table->model, t, at, 1, row, e);
        for (size_t o = 0; rc == 0 && o < r->t->n_options; o++) {
            if (r->t->options[o].type == t->type)
                continue;
            rc = encode_row(r, r->t->options[o].type, row,
                            r->encode_with ? r->encode_with + mat * n_cols : NULL, blocks, row + n_cols, e);
            sums[o] +=
                row_error(row, row + n_cols, r->weigh_with ? r->weigh_with + mat * n_cols : NULL, n_cols);
        }
    }
    free(row);
    free(blocks);
    return rc;
}

/* v of the formula above. */
static void token_weights(double *v, const struct imatrix_entry *m, uint64_t n_mats, uint64_t n_cols)
{
    double all = 0;
    for (uint64_t i = 0; i < m->n_mats; i++)
        all += m->counts[i];
    for (uint64_t k = 0; k < n_cols; k++) {
        double pooled = 0;
        for (uint64_t i = 0; i < n_mats; i++)
            pooled += m->sums[i * n_cols + k];
        for (uint64_t i = 0; i < n_mats; i++)
            v[i * n_cols + k] =
                (m->sums[i * n_cols + k] + (all > 0 ? pooled / all : 1)) / (all + (double)n_mats);
    }
}

static int tensor_proxies(struct loss_table *table, struct loss_tensor *t, const struct loss_measure *opt,
                          struct err *e)
{
    uint64_t n_cols = t->tensor->ne[0], n_rows = t->tensor->n_rows, wanted = PROXY_SAMPLE / n_cols + 1;
    struct proxy_run r = {.table = table, .t = t, .kern = opt->kern ? opt->kern : kern_native()};
    r.n_mats = t->tensor->ne[2] * t->tensor->ne[3];
    wanted = wanted < r.n_mats ? r.n_mats : wanted; /* a row of each expert at least */
    r.n_sampled = n_rows < wanted ? n_rows : wanted;
    size_t n_jobs = (size_t)((r.n_sampled + ROWS_PER_JOB - 1) / ROWS_PER_JOB),
           n = (size_t)(r.n_mats * n_cols);
    float *encode_with = NULL;
    double *weigh_with = NULL;
    int rc = 0;
    r.sums = calloc(n_jobs * t->n_options + 1, sizeof *r.sums);
    if (t->importance) {
        encode_with = malloc(n * sizeof *encode_with);
        weigh_with = malloc(n * sizeof *weigh_with);
    }
    if (!r.sums || (t->importance && (!encode_with || !weigh_with)))
        rc = err_set(e, ERR_NOMEM, "out of memory for the importance of '%s'", t->tensor->name);
    for (uint64_t i = 0; rc == 0 && t->importance && i < r.n_mats; i++)
        rc = imatrix_weights(t->importance, i, r.n_mats, n_cols, encode_with + i * n_cols, e);
    if (rc == 0 && t->importance)
        token_weights(weigh_with, t->importance, r.n_mats, n_cols);
    r.encode_with = encode_with;
    r.weigh_with = weigh_with;
    if (rc == 0)
        rc = pool_run(opt->pool, n_jobs, proxy_job, &r, e);
    for (size_t o = 0; rc == 0 && o < t->n_options; o++) {
        double sum = 0;
        for (size_t j = 0; j < n_jobs; j++)
            sum += r.sums[j * t->n_options + o];
        t->options[o].proxy = sum * (double)n_rows / (double)r.n_sampled;
    }
    free(r.sums);
    free(encode_with);
    free(weigh_with);
    return rc;
}

/* Have all of them been taken over from a stopped run? */
static bool is_known(const struct loss_tensor *t)
{
    for (size_t i = 0; i < t->n_options; i++)
        if (isnan(t->options[i].proxy))
            return false;
    return true;
}

int loss_table_proxies(struct loss_table *t, const struct windows *w, const struct loss_measure *opt,
                       double share, struct err *e)
{
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < t->n_tensors; i++) {
        if (is_known(&t->tensors[i]))
            continue;
        rc = tensor_proxies(t, &t->tensors[i], opt, e);
        if (rc == 0)
            rc = loss_table_keep(t, w, opt, false, e);
        struct progress_step s = {
            .done = share * (double)(i + 1), .total = (double)t->n_tensors, .what = "encoding"};
        if (rc == 0)
            rc = progress_tell(&opt->progress, &s, e);
    }
    return rc;
}
