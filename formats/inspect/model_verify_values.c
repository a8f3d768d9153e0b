/* model_verify_values.c - the part of model_verify.h that looks at the numbers: finite values, valid blocks
 * (specification, quantization 6.6), factors beside blocks. */
#include "model_verify_internal.h"

#include "libquant/quant.h"

#include <float.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHUNK_ELEMS ((uint64_t)1 << 18)

struct chunk_result {
    bool bad;
    uint64_t row, col;
    char why[120];
};

struct job {
    const struct model *m;
    const struct model_tensor *t;
    uint64_t per_chunk;
    struct chunk_result *results;
    bool is_factor;
};

const struct model_tensor *verify_factor_of(const struct model *m, const char *name)
{
    static const char *const suffixes[] = {".input_scale", ".scale"};
    size_t n = strlen(name);
    for (size_t i = 0; i < 2; i++) {
        size_t k = strlen(suffixes[i]);
        char weight[256];
        if (n > k && n < 200 && strcmp(name + n - k, suffixes[i]) == 0) {
            snprintf(weight, sizeof weight, "%.*s.weight", (int)(n - k), name);
            return model_find(m, weight);
        }
    }
    return NULL;
}

/* Index of the first value that is no factor: zero, negative or NaN (n: none). No quantizer means a factor of
 * zero, and a sign is in the weights. */
static size_t find_no_factor(const float *x, size_t n)
{
    size_t i = 0;
    while (i < n && x[i] > 0)
        i++;
    return i;
}

static int check_read(const struct job *j, uint64_t row0, uint64_t n, struct chunk_result *r, struct err *e)
{
    uint64_t n_cols = j->t->ne[0];
    float *x = malloc(n * n_cols * sizeof *x);
    if (!x)
        return err_set(e, ERR_NOMEM, "out of memory for %" PRIu64 " rows of %" PRIu64, n, n_cols);
    int rc = model_read_rows(j->m, j->t, row0, n, x, e);
    size_t bad = rc == 0 ? quant_find_bad(x, n * n_cols, FLT_MAX) : n * n_cols;
    if (bad < n * n_cols) {
        *r = (struct chunk_result){.bad = true, .row = row0 + bad / n_cols, .col = bad % n_cols};
        snprintf(r->why, sizeof r->why, "expected a finite value, found %s", isnan(x[bad]) ? "NaN" : "Inf");
    } else if (rc == 0 && j->is_factor && (bad = find_no_factor(x, n * n_cols)) < n * n_cols) {
        *r = (struct chunk_result){.bad = true, .row = row0 + bad / n_cols, .col = bad % n_cols};
        snprintf(r->why, sizeof r->why, "expected a factor above zero for the weights beside it, found %g",
                 (double)x[bad]);
    }
    free(x);
    return rc;
}

static void check_raw(const struct job *j, uint64_t row0, uint64_t n, struct chunk_result *r)
{
    uint64_t row_bytes = j->t->n_bytes / j->t->n_rows;
    const struct qtype_info *info = qtype_info(j->t->type);
    size_t bad = 0;
    struct err why = {0};
    if (quant_validate(j->t->type, j->t->raw + row0 * row_bytes, n * row_bytes, &bad, &why) == 0)
        return;
    *r = (struct chunk_result){.bad = true,
                               .row = row0 + bad / row_bytes,
                               .col = bad % row_bytes / info->block_bytes * info->block_elems};
    float v = 0;
    if (!info->is_quantized &&
        quant_decode_rows(kern_native(), j->t->type, j->t->raw + row0 * row_bytes + bad, info->block_bytes,
                          &v, 1, 1, NULL) == 0)
        snprintf(r->why, sizeof r->why, "expected a finite value, found %s", isnan(v) ? "NaN" : "Inf");
    else
        snprintf(r->why, sizeof r->why, "%.*s", (int)sizeof r->why - 1, why.msg);
}

static int run_chunk(void *ctx, size_t index, unsigned worker, struct err *e)
{
    const struct job *j = ctx;
    (void)worker;
    uint64_t row0 = index * j->per_chunk;
    uint64_t n = j->t->n_rows - row0 < j->per_chunk ? j->t->n_rows - row0 : j->per_chunk;
    int rc = 0;
    if (j->t->raw && !j->is_factor)
        check_raw(j, row0, n, &j->results[index]);
    else
        rc = check_read(j, row0, n, &j->results[index], e);
    model_drop_rows(j->m, j->t, row0, n);
    return rc;
}

int verify_values(struct verify_owner *o, const struct model *m, const struct model_tensor *t,
                  struct pool *pool, struct err *e)
{
    if (t->n_bytes == 0 || t->ne[0] == 0)
        return 0;
    struct job j = {m, t, t->ne[0] < CHUNK_ELEMS ? CHUNK_ELEMS / t->ne[0] : 1, NULL,
                    verify_factor_of(m, t->name) != NULL};
    size_t n = (size_t)((t->n_rows + j.per_chunk - 1) / j.per_chunk);
    j.results = calloc(n, sizeof *j.results);
    if (!j.results)
        return err_set(e, ERR_NOMEM, "out of memory for the check");
    int rc = pool_run(pool, n, run_chunk, &j, e);
    for (size_t i = 0; rc == 0 && i < n; i++)
        if (j.results[i].bad) {
            rc = verify_add(o, &o->findings, e, "tensor '%s' (%s): row %" PRIu64 ", column %" PRIu64 ": %s",
                            t->name, qtype_name(t->type), j.results[i].row, j.results[i].col,
                            j.results[i].why);
            break;
        }
    free(j.results);
    return rc;
}
