/* imatrix_sums.c - see imatrix_sums.h. */
#include "imatrix_sums.h"

#include "calib/compute/vecmath.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define COLS_PER_JOB 128 /* enough jobs for many cores, and whole cache lines of every token */

void imatrix_sums_release(struct imatrix_sums *s)
{
    arena_release(&s->arena);
    strmap_release(&s->by_name);
    free(s->entries);
    *s = (struct imatrix_sums){0};
}

int imatrix_sums_no_memory(const char *name, struct err *e)
{
    return err_set(e, ERR_NOMEM, "out of memory for the sums of '%s'", name);
}

int imatrix_sums_add(struct imatrix_sums *s, const char *name, uint64_t n_cols, uint64_t n_mats,
                     size_t n_others, struct sums_entry **out, struct err *e)
{
    if (s->n == s->cap) {
        size_t cap = s->cap ? 2 * s->cap : 64;
        struct sums_entry *grown = realloc(s->entries, cap * sizeof *grown);
        if (!grown)
            return imatrix_sums_no_memory(name, e);
        s->entries = grown;
        s->cap = cap;
    }
    struct sums_entry x = {
        .name = arena_strdup(&s->arena, name), .n_cols = n_cols, .n_mats = n_mats, .n_others = n_others};
    x.sums = arena_array(&s->arena, (size_t)(n_mats * n_cols), sizeof *x.sums);
    x.counts = arena_array(&s->arena, (size_t)n_mats, sizeof *x.counts);
    x.others = arena_array(&s->arena, n_others + 1, sizeof *x.others);
    if (!x.name || !x.sums || !x.counts || !x.others ||
        strmap_put(&s->by_name, x.name, strlen(x.name), s->n, NULL) != 0)
        return imatrix_sums_no_memory(name, e);
    s->entries[s->n] = x;
    *out = &s->entries[s->n++];
    return 0;
}

/* The entry of a group of tensors that share their input; created at its first observation. */
static int entry_for(struct imatrix_sums *s, const struct observation *o, struct sums_entry **out,
                     struct err *e)
{
    const struct model_tensor *t = o->tensors[0];
    uint64_t at;
    if (strmap_find(&s->by_name, t->name, strlen(t->name), &at)) {
        *out = &s->entries[at];
        return 0;
    }
    int rc = imatrix_sums_add(s, t->name, o->n_cols, o->expert >= 0 ? t->ne[2] : 1, o->n_tensors - 1, out, e);
    for (size_t i = 0; rc == 0 && i + 1 < o->n_tensors; i++)
        if (!((*out)->others[i] = arena_strdup(&s->arena, o->tensors[i + 1]->name)))
            rc = imatrix_sums_no_memory(t->name, e);
    return rc;
}

struct weighted_run {
    const float *x;       /* [n_rows, n_cols] */
    const float *weights; /* [n_rows], or NULL: each row has `weight` */
    double weight;
    size_t n_rows, n_cols;
    double *sums;
};

static int add_weighted_job(void *ctx, size_t job, unsigned worker, struct err *e)
{
    (void)worker;
    (void)e;
    const struct weighted_run *r = ctx;
    size_t first = job * COLS_PER_JOB,
           end = r->n_cols - first > COLS_PER_JOB ? first + COLS_PER_JOB : r->n_cols;
    for (size_t i = 0; i < r->n_rows; i++) {
        double weight = r->weights ? (double)r->weights[i] : r->weight;
        const float *x = r->x + i * r->n_cols;
        for (size_t k = first; k < end; k++)
            r->sums[k] += weight * ((double)x[k] * (double)x[k]);
    }
    return 0;
}

struct add_run {
    const struct observation *o;
    double *sums; /* of the matrix */
};

/* A job owns columns and takes tokens in their order, so it does not matter in which blocks they came. */
static int add_job(void *ctx, size_t job, unsigned worker, struct err *e)
{
    (void)worker;
    (void)e;
    const struct add_run *r = ctx;
    size_t first = job * COLS_PER_JOB, n = r->o->n_cols - first;
    if (n > COLS_PER_JOB)
        n = COLS_PER_JOB;
    vec_add_squares(r->sums + first, r->o->x + first, r->o->n_tokens, r->o->n_cols, n);
    return 0;
}

int imatrix_sums_observe(void *ctx, const struct observation *o, struct err *e)
{
    struct imatrix_sums *s = ctx;
    if (o->n_tensors == 0 || o->n_tokens == 0 || (o->tensors[0] == s->head && !s->process_output))
        return 0;
    struct sums_entry *x;
    int rc = entry_for(s, o, &x, e);
    if (rc != 0)
        return rc;
    uint64_t mat = o->expert >= 0 ? (uint64_t)o->expert : 0;
    if (x->n_cols != o->n_cols || mat >= x->n_mats)
        return err_set(e, ERR_ARG, "'%s': inputs of %zu columns; expected %" PRIu64, x->name, o->n_cols,
                       x->n_cols);
    if (s->by_router && o->weights) {
        struct weighted_run w = {.x = o->x,
                                 .weights = o->weights,
                                 .n_rows = o->n_tokens,
                                 .n_cols = o->n_cols,
                                 .sums = x->sums + mat * x->n_cols};
        for (size_t i = 0; i < o->n_tokens; i++)
            x->counts[mat] += (double)o->weights[i];
        return pool_run(s->pool, (o->n_cols + COLS_PER_JOB - 1) / COLS_PER_JOB, add_weighted_job, &w, e);
    }
    struct add_run r = {o, x->sums + mat * x->n_cols};
    x->counts[mat] += (double)o->n_tokens;
    return pool_run(s->pool, (o->n_cols + COLS_PER_JOB - 1) / COLS_PER_JOB, add_job, &r, e);
}

static int add_weighted(struct imatrix_sums *s, const struct model_tensor *t, const struct weighted_run *rows,
                        size_t n_tokens, struct err *e)
{
    struct weighted_run r = *rows;
    struct sums_entry *x;
    uint64_t at;
    int rc = 0;
    if (strmap_find(&s->by_name, t->name, strlen(t->name), &at))
        x = &s->entries[at];
    else
        rc = imatrix_sums_add(s, t->name, r.n_cols, 1, 0, &x, e);
    if (rc != 0)
        return rc;
    if (x->n_cols != r.n_cols || x->n_mats != 1)
        return err_set(e, ERR_ARG, "'%s': inputs of %zu columns; expected %" PRIu64, x->name, r.n_cols,
                       x->n_cols);
    r.sums = x->sums;
    x->counts[0] += (double)n_tokens;
    return pool_run(s->pool, (r.n_cols + COLS_PER_JOB - 1) / COLS_PER_JOB, add_weighted_job, &r, e);
}

int imatrix_sums_observe_attention(void *ctx, const struct attention_observation *o, struct err *e)
{
    struct imatrix_sums *s = ctx;
    struct weighted_run mass = {.x = o->x, .weights = o->mass, .n_rows = o->n_tokens, .n_cols = o->n_cols},
                        mixed = {.x = o->mixed, .n_rows = o->n_mixed, .n_cols = o->n_cols};
    int rc = o->k != o->q ? add_weighted(s, o->k, &mass, o->n_tokens, e) : 0;
    if (rc != 0 || o->v == o->q || o->v == o->k || o->n_mixed == 0)
        return rc;
    mixed.weight = (double)o->n_tokens / (double)o->n_mixed;
    return add_weighted(s, o->v, &mixed, o->n_tokens, e);
}

int imatrix_sums_check(const struct imatrix_sums *s, struct err *e)
{
    for (size_t i = 0; i < s->n; i++) {
        const struct sums_entry *x = &s->entries[i];
        for (uint64_t k = 0; k < x->n_mats * x->n_cols; k++)
            if (!isfinite(x->sums[k]))
                return err_set(e, ERR_FORMAT,
                               "'%s': the squared inputs of column %" PRIu64
                               " are not finite; does the model hold damaged weights? (kerf verify)",
                               x->name, k % x->n_cols);
    }
    return 0;
}

/* Files count whole tokens, and readers round: a sum of weights becomes the nearest count, at least one, and
 * the sums go with it, so that their ratio, the importance, stays. */
static void count_whole_tokens(struct imatrix_entry *y, uint64_t n_cols)
{
    for (uint64_t m = 0; m < y->n_mats; m++) {
        double weight = y->counts[m], count = fmax(round(weight), 1);
        if (!(weight > 0))
            continue;
        y->counts[m] = count;
        for (uint64_t k = m * n_cols; k < (m + 1) * n_cols; k++)
            y->sums[k] *= count / weight;
    }
}

static int export_entry(struct imatrix *m, const char *name, const struct sums_entry *x, bool by_weight,
                        struct err *e)
{
    struct imatrix_entry *y;
    int rc = imatrix_add(m, name, x->n_mats * x->n_cols, x->n_mats, &y, e);
    if (rc != 0)
        return rc;
    memcpy(y->sums, x->sums, (size_t)(x->n_mats * x->n_cols) * sizeof *y->sums);
    memcpy(y->counts, x->counts, (size_t)x->n_mats * sizeof *y->counts);
    if (by_weight)
        count_whole_tokens(y, x->n_cols);
    return 0;
}

int imatrix_sums_finish(struct imatrix **out, const struct imatrix_sums *s, struct err *e)
{
    struct imatrix *m;
    int rc = imatrix_new(&m, e);
    if (rc != 0)
        return rc;
    for (size_t i = 0; rc == 0 && i < s->n; i++) {
        rc = export_entry(m, s->entries[i].name, &s->entries[i], s->by_router, e);
        for (size_t k = 0; rc == 0 && k < s->entries[i].n_others; k++) {
            const char *other = s->entries[i].others[k];
            uint64_t own; /* one that attention was observed for */
            if (!strmap_find(&s->by_name, other, strlen(other), &own))
                rc = export_entry(m, other, &s->entries[i], s->by_router, e);
        }
    }
    if (rc != 0)
        imatrix_free(m);
    else
        *out = m;
    return rc;
}
