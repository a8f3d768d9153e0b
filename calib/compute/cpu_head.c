/* cpu_head.c - scores of positions, by one sweep over the vocabulary.
 *
 * The vocabulary is walked in super-panels: their rows are decoded (or encoded and decoded, for a mix) once
 * for all positions; then every tile of positions is a job, which walks the super-panel in panels. A
 * position's sums depend on nothing but itself and on where panels begin, which is fixed. */
#include "cpu.h"
#include "vecmath.h"

#include "calib/model/weights.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define PANEL     256 /* vocabulary rows per product */
#define HEAD_TILE 512 /* positions per job */
#define MAX_SUPER 32  /* panels per super-panel */

struct running {
    double sum, difference;
    float max, target;
    int32_t top;
};

struct sweep {
    const struct scoring *of;
    struct cpu *c;
    struct running *state; /* [n_heads, n] */
    float **rows;          /* [n_heads] decoded super-panels: packed panels one after the other */
    size_t row0, n_rows;   /* of the super-panel */
    size_t panels;
};

static size_t n_embd(const struct sweep *s, size_t m)
{
    return s->of->heads[m].n_embd;
}

static size_t panel_floats(const struct sweep *s, size_t m)
{
    return gemm_floats(s->c->kern, PANEL, n_embd(s, m));
}

static struct gemm_matrix panel_of(const struct sweep *s, size_t m, size_t panel)
{
    size_t n = s->n_rows - panel * PANEL < PANEL ? s->n_rows - panel * PANEL : PANEL;
    return (struct gemm_matrix){s->c->kern, n, n_embd(s, m), s->rows[m] + panel * panel_floats(s, m)};
}

/* Decode one panel of one model. */
static int decode_job(void *ctx, size_t job, unsigned worker, struct err *e)
{
    struct sweep *s = ctx;
    size_t m = job / s->panels, panel = job % s->panels;
    const struct scored_head *head = &s->of->heads[m];
    struct gemm_matrix b = panel_of(s, m, panel);
    float *strip = cpu_scratch(s->c, worker, gemm_rows_at_once(b.kern) * b.depth);
    if (!strip)
        return err_set(e, ERR_NOMEM, "out of memory for rows of '%s'", head->tensor->name);
    return cpu_read_panel(head->weights, head->tensor, head->row0 + s->row0 + panel * PANEL, &b, strip, e);
}

/* States [first, first + n) of a model, rounded as its head wants them. `buffer` holds n rows. */
static int get_states(const struct scored_head *m, enum activations a, size_t first, size_t n, float *buffer,
                      const float **out, struct err *e)
{
    float *x = NULL;
    int rc = hidden_states_get(m->states, first, n, buffer, &x, e);
    enum rounding r = rounding_of(a, weights_type(m->weights, m->tensor));
    for (size_t i = 0; rc == 0 && r != ROUND_NONE && i < n; i++)
        round_row(r, buffer + i * m->n_embd, x + i * m->n_embd, m->n_embd);
    *out = r == ROUND_NONE ? x : buffer;
    return rc;
}

static void panel_logits(const struct sweep *s, size_t m, const float *x, size_t n, size_t panel,
                         size_t n_cols, float *z)
{
    const float *bias = s->of->heads[m].bias, cap = s->of->heads[m].cap;
    struct gemm_matrix b = panel_of(s, m, panel);
    gemm(n, x, b.depth, &b, z, PANEL, false);
    for (size_t i = 0; bias && i < n; i++)
        vec_add(z + i * PANEL, bias + s->row0 + panel * PANEL, n_cols);
    for (size_t i = 0; cap > 0 && i < n; i++)
        vec_cap(z + i * PANEL, 1, cap, n_cols);
}

/* Maximum, top token and target of one row of a panel; returns the factor for sums kept so far. */
static double meet_row(struct running *r, const float *z, size_t n_cols, int64_t vocab0, int32_t target)
{
    float largest = vec_max(z, n_cols);
    double factor = 1;
    if (largest > r->max) {
        size_t at = 0;
        while (at + 1 < n_cols && z[at] != largest)
            at++;
        r->top = (int32_t)(vocab0 + (int64_t)at);
        factor = exp((double)r->max - (double)largest);
        r->max = largest;
    }
    if (target >= vocab0 && target < vocab0 + (int64_t)n_cols)
        r->target = z[target - vocab0];
    return factor;
}

/* One panel for a tile of positions: first the reference, leaving exp(z - max) in `weight` and the factor in
 * `factors`; then each candidate against it. */
static void reference_panel(const struct sweep *s, size_t first, size_t n, size_t panel, size_t n_cols,
                            const float *z, float *weight, double *factors)
{
    for (size_t i = 0; i < n; i++) {
        struct running *r = &s->state[first + i];
        const float *row = z + i * PANEL;
        factors[i] = meet_row(r, row, n_cols, (int64_t)(s->row0 + panel * PANEL), s->of->targets[first + i]);
        r->sum = r->sum * factors[i] + vec_exp_sum(weight + i * PANEL, row, 1.0f, r->max, n_cols);
    }
}

static void candidate_panel(const struct sweep *s, size_t m, size_t first, size_t n, size_t panel,
                            size_t n_cols, const float *z, const float *w, const float *weight,
                            const double *factors)
{
    for (size_t i = 0; i < n; i++) {
        struct running *r = &s->state[m * s->of->n + first + i];
        const float *row = w + i * PANEL;
        double factor =
            meet_row(r, row, n_cols, (int64_t)(s->row0 + panel * PANEL), s->of->targets[first + i]);
        r->sum = r->sum * factor + vec_sum_exp(row, r->max, n_cols);
        r->difference =
            r->difference * factors[i] + vec_dot_difference(weight + i * PANEL, z + i * PANEL, row, n_cols);
    }
}

static int tile_job(void *ctx, size_t job, unsigned worker, struct err *e)
{
    struct sweep *s = ctx;
    size_t first = job * HEAD_TILE, n = s->of->n - first < HEAD_TILE ? s->of->n - first : HEAD_TILE,
           state_floats = 0;
    for (size_t m = 0; m < s->of->n_heads; m++)
        state_floats += HEAD_TILE * n_embd(s, m);
    float *z = cpu_scratch(s->c, worker, 3 * HEAD_TILE * PANEL + state_floats + 2 * HEAD_TILE);
    const float **x = malloc(s->of->n_heads * sizeof *x);
    if (!z || !x) {
        free(x);
        return err_set(e, ERR_NOMEM, "out of memory for a tile of logits");
    }
    float *w = z + HEAD_TILE * PANEL, *weight = w + HEAD_TILE * PANEL, *buffer = weight + HEAD_TILE * PANEL;
    double *factors = (double *)(void *)buffer;
    buffer += 2 * HEAD_TILE;
    int rc = 0;
    for (size_t m = 0; rc == 0 && m < s->of->n_heads; m++, buffer += HEAD_TILE * n_embd(s, m - 1))
        rc = get_states(&s->of->heads[m], s->c->activations, first, n, buffer, &x[m], e);
    for (size_t p = 0; rc == 0 && p < s->panels; p++) {
        size_t n_cols = s->n_rows - p * PANEL < PANEL ? s->n_rows - p * PANEL : PANEL;
        panel_logits(s, 0, x[0], n, p, n_cols, z);
        reference_panel(s, first, n, p, n_cols, z, weight, factors);
        for (size_t m = 1; m < s->of->n_heads; m++) {
            panel_logits(s, m, x[m], n, p, n_cols, w);
            candidate_panel(s, m, first, n, p, n_cols, z, w, weight, factors);
        }
    }
    free(x);
    return rc;
}

static void finish_scores(const struct sweep *s, struct head_score *scores)
{
    for (size_t m = 0; m < s->of->n_heads; m++)
        for (size_t i = 0; i < s->of->n; i++) {
            const struct running *r = &s->state[m * s->of->n + i], *ref = &s->state[i];
            double lse = (double)r->max + log(r->sum), lse_ref = (double)ref->max + log(ref->sum);
            scores[m * s->of->n + i] = (struct head_score){
                lse - (double)r->target, m == 0 ? 0 : r->difference / ref->sum - lse_ref + lse, r->top};
        }
}

static int sweep_allocate(struct sweep *s, struct err *e)
{
    uint64_t per_panel = 0;
    for (size_t m = 0; m < s->of->n_heads; m++)
        per_panel += sizeof(float) * panel_floats(s, m);
    uint64_t fits = s->of->memory_bytes / 4 / per_panel;
    s->panels = fits < 1 ? 1 : fits > MAX_SUPER ? MAX_SUPER : (size_t)fits;
    s->state = calloc(s->of->n_heads * s->of->n + 1, sizeof *s->state);
    s->rows = calloc(s->of->n_heads, sizeof *s->rows);
    bool ok = s->state && s->rows;
    for (size_t m = 0; ok && m < s->of->n_heads; m++) {
        s->rows[m] = aligned_alloc(64, (s->panels * panel_floats(s, m) * sizeof(float) + 63) / 64 * 64);
        ok = s->rows[m] != NULL;
    }
    if (!ok)
        return err_set(e, ERR_NOMEM, "out of memory for the scores of %zu positions", s->of->n);
    for (size_t i = 0; i < s->of->n_heads * s->of->n; i++)
        s->state[i].max = -INFINITY;
    return 0;
}

static void sweep_release(struct sweep *s)
{
    for (size_t m = 0; s->rows && m < s->of->n_heads; m++)
        free(s->rows[m]);
    free(s->rows);
    free(s->state);
}

int cpu_score(struct compute *c, const struct scoring *of, struct head_score *scores, struct err *e)
{
    struct sweep s = {.of = of, .c = cpu_of(c)};
    int rc = sweep_allocate(&s, e);
    size_t most = s.panels;
    for (s.row0 = 0; rc == 0 && s.row0 < of->n_vocab; s.row0 += s.n_rows) {
        s.n_rows = of->n_vocab - s.row0 < most * PANEL ? of->n_vocab - s.row0 : most * PANEL;
        s.panels = (s.n_rows + PANEL - 1) / PANEL;
        rc = pool_run(s.c->pool, s.panels * of->n_heads, decode_job, &s, e);
        if (rc == 0)
            rc = pool_run(s.c->pool, cpu_jobs(of->n, HEAD_TILE), tile_job, &s, e);
        if (rc == 0)
            rc = progress_tell(
                &of->progress,
                &(struct progress_step){.done = (double)(s.row0 + s.n_rows), .total = (double)of->n_vocab},
                e);
    }
    if (rc == 0)
        finish_scores(&s, scores);
    sweep_release(&s);
    return rc;
}
