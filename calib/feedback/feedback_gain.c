/* feedback_gain.c - see feedback_gain.h. */
#include "feedback_gain.h"

#include "feedback_model.h"

#include "calib/stats/hessian_file.h"
#include "formats/gguf/imatrix_file.h"
#include "libquant/base/pool.h"
#include "libquant/quant.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define SAMPLE_ROWS FEEDBACK_ROWS
#define SAMPLE_MATS 4 /* experts of a stack */
#define MAX_JOBS    256

struct share {
    double plain, solved;
};

struct gain {
    struct loss_table *table;
    const struct feedback_gain_options *opt;
    const struct hessian_plan *plan;
    struct share *shares; /* [n_tensors, QTYPE_COUNT] */
};

/* One matrix in one type. */
struct sample {
    const struct hessian_use *use;
    const struct loss_tensor *tensor;
    enum qtype type;
    uint64_t mat;
    struct share *to;
};

struct samples {
    const struct gain *g;
    const struct feedback_hessian *h;
    struct sample jobs[MAX_JOBS];
    struct feedback_loss losses[MAX_JOBS];
    size_t n;
};

/* Rows of the sample, evenly spread. */
struct sample_rows {
    const struct model *model;
    const struct model_tensor *tensor;
    uint64_t first, n_rows, n_sample;
};

static int read_rows(void *ctx, uint64_t row0, uint64_t n, float *rows, struct err *e)
{
    const struct sample_rows *s = ctx;
    int rc = 0;
    for (uint64_t i = 0; rc == 0 && i < n; i++)
        rc = model_read_rows(s->model, s->tensor, s->first + (row0 + i) * s->n_rows / s->n_sample, 1,
                             rows + i * s->tensor->ne[0], e);
    return rc;
}

/* The sample as the plain encoder has it. *blocks: owned by the caller. */
static int encode_plain(const struct samples *s, const struct sample *x, struct sample_rows *from,
                        uint8_t **blocks, struct err *e)
{
    const struct model_tensor *t = x->tensor->tensor;
    size_t n_cols = (size_t)t->ne[0];
    uint64_t row_bytes = 0, n = from->n_sample;
    qtype_row_bytes((uint32_t)x->type, n_cols, &row_bytes);
    float *rows = malloc(((size_t)n + 1) * n_cols * sizeof *rows), *weights = rows + n * n_cols;
    *blocks = malloc((size_t)(n * row_bytes));
    int rc = rows && *blocks ? read_rows(from, 0, n, rows, e)
                             : err_set(e, ERR_NOMEM, "out of memory for a sample of '%s'", t->name);
    if (rc == 0 && x->tensor->importance)
        rc = imatrix_weights(x->tensor->importance, x->mat, t->ne[2] * t->ne[3], n_cols, weights, e);
    if (rc == 0)
        rc = quant_encode_informed(s->g->opt->kern, x->type, rows, *blocks, n * row_bytes, n, n_cols,
                                   x->tensor->importance ? weights : NULL, e);
    free(rows);
    return rc ? err_context(e, rc, "tensor '%s'", t->name) : 0;
}

static int solve_sample(void *ctx, size_t job, unsigned worker, struct err *e)
{
    (void)worker;
    struct samples *s = ctx;
    const struct sample *x = &s->jobs[job];
    const struct model_tensor *t = x->tensor->tensor;
    const struct hessian_use *u = x->use;
    struct sample_rows rows = {s->g->table->model, t, x->mat * t->ne[1] + u->row0, u->n_rows,
                               u->n_rows < SAMPLE_ROWS ? u->n_rows : SAMPLE_ROWS};
    uint64_t row_bytes = 0;
    qtype_row_bytes((uint32_t)x->type, t->ne[0], &row_bytes);
    uint8_t *plain = NULL, *solved = malloc((size_t)(rows.n_sample * row_bytes) + 1);
    struct pool *alone = NULL; /* the jobs are spread, not the rows of one */
    int rc =
        solved ? encode_plain(s, x, &rows, &plain, e) : err_set(e, ERR_NOMEM, "out of memory for a sample");
    if (rc == 0)
        rc = pool_new(&alone, 1, e);
    struct feedback_job fj = {.h = s->h,
                              .type = x->type,
                              .n_rows = rows.n_sample,
                              .read = read_rows,
                              .read_ctx = &rows,
                              .plain = plain,
                              .stages = {true, FEEDBACK_SWEEPS},
                              .kern = s->g->opt->kern,
                              .pool = alone};
    if (rc == 0)
        rc = feedback_encode(&fj, solved, &s->losses[job], e);
    pool_free(alone);
    free(plain);
    free(solved);
    return rc;
}

/* No other type with feedback is as good in no more bytes. */
static bool could_be_chosen(const struct loss_tensor *t, const struct loss_option *o)
{
    if (!feedback_takes(t->tensor, o->type))
        return false;
    for (size_t i = 0; i < t->n_options; i++) {
        const struct loss_option *x = &t->options[i];
        if (x != o && feedback_takes(t->tensor, x->type) && x->n_bytes <= o->n_bytes && x->proxy < o->proxy)
            return false;
    }
    return true;
}

static void add_jobs(struct samples *s, const struct hessian_use *u, size_t tensor, uint64_t mat)
{
    const struct loss_tensor *t = &s->g->table->tensors[tensor];
    for (size_t i = 0; i < t->n_options && s->n < MAX_JOBS; i++)
        if (could_be_chosen(t, &t->options[i]))
            s->jobs[s->n++] = (struct sample){u, t, t->options[i].type, mat,
                                              &s->g->shares[tensor * QTYPE_COUNT + t->options[i].type]};
}

static bool find_tensor(const struct loss_table *t, const char *name, size_t *at)
{
    for (size_t i = 0; i < t->n_tensors; i++)
        if (strcmp(t->tensors[i].tensor->name, name) == 0) {
            *at = i;
            return true;
        }
    return false;
}

/* One matrix of sums for all its uses; `sums` and `pool` have room for it. Without data it tells nothing. */
static int run_matrix(struct gain *g, size_t gram, uint64_t mat, struct samples *s, double *sums,
                      const double *pool, struct err *e)
{
    struct gram_figures figures;
    struct feedback_hessian h = {0};
    int rc = hessian_file_read(g->opt->hessian, gram, mat, sums, &figures, e);
    if (rc != 0)
        return rc;
    rc = feedback_hessian_make(&h, sums, (size_t)g->plan->grams[gram].n_cols, &figures, pool, e);
    if (rc == ERR_ARG || rc == ERR_FORMAT)
        return 0;
    s->h = &h;
    memset(s->losses, 0, sizeof s->losses);
    if (rc == 0)
        rc = pool_run(g->opt->pool, s->n, solve_sample, s, e);
    for (size_t i = 0; rc == 0 && i < s->n; i++) {
        double rows = (double)s->jobs[i].use->n_rows / (double)s->losses[i].n_rows;
        s->jobs[i].to->plain += rows * s->losses[i].plain / h.scale;
        s->jobs[i].to->solved += rows * s->losses[i].solved / h.scale;
    }
    s->h = NULL;
    feedback_hessian_release(&h);
    return rc;
}

static int check_use(const struct gain *g, const struct hessian_use *u, const struct model_tensor *t,
                     struct err *e)
{
    const struct hessian_gram *x = &g->plan->grams[u->gram];
    if (t->ne[0] == x->n_cols && t->ne[2] * t->ne[3] == x->n_mats && u->row0 + u->n_rows <= t->ne[1] &&
        u->n_rows > 0)
        return 0;
    return err_set(e, ERR_ARG,
                   "%s: its Hessian of '%s' fits no matrix of this model; collect it from this one",
                   hessian_file_path(g->opt->hessian), u->tensor);
}

static int run_gram(struct gain *g, size_t gram, struct samples *s, struct err *e)
{
    const struct hessian_gram *x = &g->plan->grams[gram];
    size_t n = (size_t)x->n_cols, at;
    uint64_t n_mats = x->n_mats < SAMPLE_MATS ? x->n_mats : SAMPLE_MATS;
    struct gram_figures ignored;
    int64_t leans = -1;
    int rc = 0;
    double *sums = NULL, *pool = NULL;
    for (uint64_t m = 0; rc == 0 && m < n_mats; m++) {
        uint64_t mat = m * x->n_mats / n_mats;
        s->n = 0;
        for (size_t k = 0; rc == 0 && k < g->plan->n_uses; k++) {
            const struct hessian_use *u = &g->plan->uses[k];
            if (u->gram != gram || !find_tensor(g->table, u->tensor, &at))
                continue;
            rc = check_use(g, u, g->table->tensors[at].tensor, e);
            leans = u->pool;
            if (rc == 0)
                add_jobs(s, u, at, mat);
        }
        if (rc != 0 || s->n == 0)
            break;
        if (!sums)
            sums = malloc(n * n * sizeof *sums);
        if (leans >= 0 && !pool && (pool = malloc(n * n * sizeof *pool)))
            rc = hessian_file_read(g->opt->hessian, (size_t)leans, 0, pool, &ignored, e);
        if (!sums || (leans >= 0 && !pool))
            rc = err_set(e, ERR_NOMEM, "out of memory for a Hessian of %zu columns", n);
        if (rc == 0)
            rc = run_matrix(g, gram, mat, s, sums, pool, e);
    }
    free(sums);
    free(pool);
    return rc;
}

/* A type that was not tried is pointless beside one that was, and shares the mean of those. */
static void scale_losses(struct gain *g)
{
    for (size_t i = 0; i < g->table->n_tensors; i++) {
        struct loss_tensor *t = &g->table->tensors[i];
        const struct share *of = &g->shares[i * QTYPE_COUNT];
        struct share all = {0};
        for (uint32_t k = 0; k < QTYPE_COUNT; k++)
            if (of[k].plain > 0) {
                all.plain += 1;
                all.solved += of[k].solved / of[k].plain;
            }
        for (size_t k = 0; all.plain > 0 && k < t->n_options; k++) {
            const struct share *x = &of[t->options[k].type];
            if (!feedback_takes(t->tensor, t->options[k].type))
                continue;
            double left = x->plain > 0 ? x->solved / x->plain : all.solved / all.plain;
            t->options[k].loss *= pow(left, FEEDBACK_GAIN_POWER);
        }
    }
}

int feedback_gain_apply(struct loss_table *t, const struct feedback_gain_options *opt, struct err *e)
{
    struct gain g = {.table = t, .opt = opt, .plan = hessian_file_plan(opt->hessian)};
    struct samples *s = calloc(1, sizeof *s);
    g.shares = calloc(t->n_tensors * QTYPE_COUNT + 1, sizeof *g.shares);
    int rc = s && g.shares ? 0 : err_set(e, ERR_NOMEM, "out of memory for the gains of error feedback");
    if (s)
        s->g = &g;
    for (size_t i = 0; rc == 0 && i < g.plan->n_grams; i++) {
        struct progress_step at = {
            .done = (double)i, .total = (double)g.plan->n_grams, .what = g.plan->grams[i].owner};
        rc = progress_tell(&opt->progress, &at, e);
        if (rc == 0)
            rc = run_gram(&g, i, s, e);
    }
    if (rc == 0)
        scale_losses(&g);
    free(g.shares);
    free(s);
    return rc;
}
