/* rewrite_factors.c - factors beside blocks: where a tensor is encoded in a type whose scales are relative
 * (NVFP4), the output gets "X.scale" beside "X.weight", one F32 for each matrix, and the weights are divided
 * by it before they are encoded. Without, the scales of ordinary weights sit at the lower end of their byte,
 * and small weights become zero.
 *
 * A runtime that does not multiply by the factor would be off by it without a word: such tensors are refused.
 * The factor follows from the largest magnitude of the matrix, so all of it is read once before the first
 * block is written; a maximum does not depend on the order of threads. */
#include "rewrite_internal.h"

#include "formats/arch/arch.h"
#include "libquant/base/checked.h"
#include "libquant/quant.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define SCAN_ELEMS ((uint64_t)1 << 16) /* elements that a job holds at a time, or one row */

static int no_memory(struct err *e)
{
    return err_set(e, ERR_NOMEM, "out of memory for the factors of NVFP4 weights");
}

static bool wants_factor(const struct rw_tensor *t)
{
    return quant_has_factor(t->type) && t->type != t->src->type && t->src->n_rows > 0;
}

static int check_reader(const struct rw_tensor *t, const struct model *m, struct err *e)
{
    const struct arch *arch = arch_by_name(model_arch_name(m));
    if (arch && arch_reads_factor(arch, t->src->name))
        return 0;
    return err_set(
        e, ERR_ARG,
        "tensor '%s': %s needs a factor beside its blocks, and llama.cpp does not multiply by one %s"
        " '%s'; choose another type for it",
        t->src->name, qtype_name((uint32_t)t->type),
        arch ? "there in models of architecture" : "that kerf knows of in architecture", model_arch_name(m));
}

/* "X.scale" for "X.weight", a tensor of the output alone. Its values are filled in when the run begins. */
static int add_scale(struct rw_plan *p, struct rw_tensor *weight, struct rw_tensor *scale, struct err *e)
{
    struct model_tensor *s = arena_alloc(&p->arena, sizeof *s);
    float *values = arena_array(&p->arena, weight->n_mats, sizeof *values);
    const char *name = weight->src->name;
    char *own = arena_printf(&p->arena, "%.*s.scale", (int)(strlen(name) - strlen(".weight")), name);
    if (!s || !values || !own)
        return no_memory(e);
    for (uint64_t k = 0; k < weight->n_mats; k++)
        values[k] = 1;
    *s = (struct model_tensor){.name = own,
                               .n_dims = 1,
                               .ne = {weight->n_mats, 1, 1, 1},
                               .n_rows = 1,
                               .type = QTYPE_F32,
                               .source_type = "F32",
                               .always_f32 = true,
                               .raw = (const uint8_t *)values,
                               .n_bytes = weight->n_mats * sizeof *values,
                               .origin = weight->src->origin};
    *scale = (struct rw_tensor){.src = s, .type = QTYPE_F32, .n_mats = 1, .made_here = true};
    weight->factors = values;
    return 0;
}

int rw_factors_plan(struct rw_plan *p, const struct model *m, struct err *e)
{
    size_t n = 0, n_wanted = 0;
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < p->n_tensors; i++)
        if (wants_factor(&p->tensors[i])) {
            rc = check_reader(&p->tensors[i], m, e);
            n_wanted++;
        }
    if (rc != 0 || n_wanted == 0)
        return rc;
    struct rw_tensor *all = arena_array(&p->arena, p->n_tensors + n_wanted, sizeof *all);
    if (!all)
        return no_memory(e);
    for (size_t i = 0; rc == 0 && i < p->n_tensors; i++) {
        struct rw_tensor *t = &all[n++];
        *t = p->tensors[i];
        if (wants_factor(t))
            rc = add_scale(p, t, &all[n++], e);
    }
    p->tensors = all;
    p->n_tensors = n;
    return rc;
}

/* --- values --- */

struct scan {
    const struct model *m;
    const struct rw_tensor *t;
    uint64_t rows_per_job, jobs_per_mat;
    float *largest; /* [n_jobs] */
};

static int scan_job(void *ctx, size_t job, unsigned worker, struct err *e)
{
    (void)worker;
    const struct scan *s = ctx;
    const struct model_tensor *t = s->t->src;
    uint64_t mat = job / s->jobs_per_mat, first = job % s->jobs_per_mat * s->rows_per_job;
    uint64_t n = t->ne[1] - first < s->rows_per_job ? t->ne[1] - first : s->rows_per_job;
    float *rows = malloc((size_t)(n * t->ne[0] * sizeof *rows)), most = 0;
    if (!rows)
        return no_memory(e);
    int rc = model_read_rows(s->m, t, mat * t->ne[1] + first, n, rows, e);
    for (uint64_t i = 0; rc == 0 && i < n * t->ne[0]; i++)
        most = fabsf(rows[i]) > most ? fabsf(rows[i]) : most;
    s->largest[job] = most;
    free(rows);
    return rc;
}

static int fill(const struct rw_tensor *t, const struct model *m, struct pool *pool, struct err *e)
{
    const uint64_t n_cols = t->src->ne[0], per_mat = t->src->ne[1];
    struct scan s = {.m = m, .t = t, .rows_per_job = n_cols < SCAN_ELEMS ? SCAN_ELEMS / n_cols : 1};
    s.jobs_per_mat = (per_mat + s.rows_per_job - 1) / s.rows_per_job;
    s.largest = calloc((size_t)(s.jobs_per_mat * t->n_mats) + 1, sizeof *s.largest);
    if (!s.largest)
        return no_memory(e);
    int rc = pool_run(pool, (size_t)(s.jobs_per_mat * t->n_mats), scan_job, &s, e);
    for (uint64_t k = 0; rc == 0 && k < t->n_mats; k++) {
        float most = 0;
        for (uint64_t j = 0; j < s.jobs_per_mat; j++)
            most = s.largest[k * s.jobs_per_mat + j] > most ? s.largest[k * s.jobs_per_mat + j] : most;
        t->factors[k] =
            quant_factor(t->type, isfinite(most) ? most : 1); /* the run refuses the value itself */
    }
    free(s.largest);
    return rc;
}

int rw_factors_fill(const struct rw_plan *p, const struct model *m, const struct rewrite_options *opt,
                    struct err *e)
{
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < p->n_tensors; i++) {
        const struct rw_tensor *t = &p->tensors[i];
        const struct progress_step at = {.total = (double)p->source_bytes, .what = t->src->name};
        if (!t->factors)
            continue;
        rc = progress_tell(&opt->progress, &at, e);
        if (rc != 0)
            return rc;
        rc = fill(t, m, opt->pool, e);
        if (rc != 0)
            err_context(e, rc, "tensor '%s'", t->src->name);
    }
    return rc;
}
