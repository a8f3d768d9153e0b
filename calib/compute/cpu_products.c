/* cpu_products.c - products with streamed weights, and rows of the embedding.
 *
 * A product decodes its matrix in panels of rows to float32, at most one panel per worker, and multiplies
 * each with tiles of tokens (gemm.h): decoding overlaps multiplication. An element has the same bits however
 * the work is cut. Sizes of panels were measured: bench_forward, tests/bench/NOTES.md. */
#include "cpu.h"
#include "vecmath.h"

#include "calib/model/weights.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define PANEL_FLOATS (1u << 21) /* a decoded panel: at most 512 rows, fewer when rows are long */

int cpu_read_panel(const struct weights *w, const struct model_tensor *t, uint64_t row0,
                   const struct gemm_matrix *b, float *strip, struct err *e)
{
    size_t most = gemm_rows_at_once(b->kern);
    for (size_t row = 0; row < b->n_rows; row += most) {
        size_t n = b->n_rows - row < most ? b->n_rows - row : most;
        int rc = weights_read(w, t, row0 + row, n, strip, e);
        if (rc != 0)
            return rc;
        gemm_pack_rows(b, row, n, strip, b->depth);
    }
    return 0;
}

struct product_run {
    struct cpu *c;
    const struct weights *w;
    const float *x;
    size_t n_tokens, ldx;
    const struct product *p;
    size_t n_products;
    enum rounding rounding; /* only products of this input rounding take part */
    size_t tiles_per_job, jobs_per_panel;
};

static size_t panel_rows(const struct model_tensor *t)
{
    return t->ne[0] <= PANEL_FLOATS / 512 ? 512 : t->ne[0] <= PANEL_FLOATS / 128 ? 256 : 128;
}

static size_t n_panels(const struct product_run *r, const struct product *p)
{
    if (rounding_of(r->c->activations, weights_type(r->w, p->weight)) != r->rounding)
        return 0;
    return ((size_t)p->n_rows + panel_rows(p->weight) - 1) / panel_rows(p->weight);
}

static void fill_bias(const struct product *p, size_t row, size_t n_rows, size_t token, size_t n)
{
    for (size_t t = token; t < token + n; t++) {
        float *y = cpu_at(p->y) + t * p->ldy + row;
        if (p->add)
            vec_add(y, p->bias + row, n_rows);
        else
            memcpy(y, p->bias + row, n_rows * sizeof *y);
    }
}

/* Row panels times stretches of tiles; the token range is the product's own. */
static int product_job(void *ctx, size_t job, unsigned worker, struct err *e)
{
    const struct product_run *r = ctx;
    const struct product *p = r->p;
    size_t panel = job / r->jobs_per_panel, part = job % r->jobs_per_panel, tile = r->c->base.tile;
    for (size_t n; panel >= (n = n_panels(r, p)); p++)
        panel -= n;
    size_t most = panel_rows(p->weight), row = panel * most, n_cols = (size_t)p->weight->ne[0];
    struct gemm_matrix b = {r->c->kern, p->n_rows - row < most ? (size_t)p->n_rows - row : most, n_cols,
                            NULL};
    size_t last = p->n_tokens ? p->token0 + p->n_tokens : r->n_tokens;
    size_t first = p->token0 + part * r->tiles_per_job * tile, end = first + r->tiles_per_job * tile;
    if (first >= last)
        return 0;
    size_t n_panel = gemm_floats(b.kern, b.n_rows, n_cols);
    b.data = cpu_scratch(r->c, worker, n_panel + gemm_rows_at_once(b.kern) * n_cols);
    if (!b.data)
        return err_set(e, ERR_NOMEM, "out of memory for %zu rows of '%s'", b.n_rows, p->weight->name);
    int rc = cpu_read_panel(r->w, p->weight, p->row0 + row, &b, b.data + n_panel, e);
    for (size_t t = first; rc == 0 && t < end && t < last; t += tile) {
        size_t n = last - t < tile ? last - t : tile;
        if (p->bias)
            fill_bias(p, row, b.n_rows, t, n);
        gemm(n, r->x + t * r->ldx, r->ldx, &b, cpu_at(p->y) + t * p->ldy + row, p->ldy, p->add || p->bias);
    }
    return rc;
}

struct round_run {
    enum rounding rounding;
    float *dst;
    const float *src;
    size_t ld, n_cols, n_tokens;
    const struct model_tensor *weight; /* for a message */
    enum qtype type;
};

static int round_job(void *ctx, size_t job, unsigned worker, struct err *e)
{
    (void)worker;
    const struct round_run *r = ctx;
    bool with_sums = r->type == QTYPE_Q4_1 || r->type == QTYPE_Q5_1;
    for (size_t t = job * ROWS_PER_JOB; t < (job + 1) * ROWS_PER_JOB && t < r->n_tokens; t++) {
        float *row = r->dst + t * r->n_cols;
        round_row(r->rounding, row, r->src + t * r->ld, r->n_cols);
        float extent = r->rounding == ROUND_Q8_0 ? round_q8_extent(row, r->n_cols, with_sums) : 0;
        if (extent > 65504.0f && isfinite(r->src[t * r->ld]))
            return err_set(e, ERR_ARG,
                           "tensor '%s' (%s): a block of its input has %s of %g; the llama.cpp CPU runtime "
                           "keeps that in F16, which ends at 65504, and its results are not numbers; give "
                           "the tensor another type, or measure without --activations q8",
                           r->weight->name, qtype_name((uint32_t)r->type), with_sums ? "a sum" : "a scale",
                           (double)extent);
    }
    return 0;
}

/* Of products that are rounded alike, a weight whose product keeps sums of its input too, if there is one. */
static const struct model_tensor *strictest_weight(const struct product_run *r)
{
    const struct model_tensor *found = NULL;
    for (size_t i = 0; i < r->n_products; i++) {
        enum qtype type = weights_type(r->w, r->p[i].weight);
        if (n_panels(r, &r->p[i]) > 0 && (!found || type == QTYPE_Q4_1 || type == QTYPE_Q5_1))
            found = r->p[i].weight;
    }
    return found;
}

/* All products whose weights want their input rounded in the same way. */
static int products_of_rounding(struct product_run r, struct err *e)
{
    size_t panels = 0, n_tiles = (r.n_tokens + r.c->base.tile - 1) / r.c->base.tile;
    for (size_t i = 0; i < r.n_products; i++)
        panels += n_panels(&r, &r.p[i]);
    if (panels == 0 || n_tiles == 0)
        return 0;
    if (r.rounding != ROUND_NONE) {
        size_t n_cols = (size_t)r.p[0].weight->ne[0];
        const struct model_tensor *strictest = strictest_weight(&r);
        struct round_run round = {r.rounding, cpu_grow(&r.c->rounded, r.n_tokens * n_cols),
                                  r.x,        r.ldx,
                                  n_cols,     r.n_tokens,
                                  strictest,  weights_type(r.w, strictest)};
        if (!round.dst)
            return err_set(e, ERR_NOMEM, "out of memory for rounded activations");
        int rc = pool_run(r.c->pool, cpu_jobs(r.n_tokens, ROWS_PER_JOB), round_job, &round, e);
        if (rc != 0)
            return rc;
        r.x = round.dst;
        r.ldx = n_cols;
    }
    /* A job decodes its panel once and walks all tiles, unless there are too few panels for the threads. */
    size_t wanted = 4 * (size_t)pool_n_threads(r.c->pool);
    r.jobs_per_panel = panels >= wanted ? 1 : (wanted + panels - 1) / panels;
    if (r.jobs_per_panel > n_tiles)
        r.jobs_per_panel = n_tiles;
    r.tiles_per_job = (n_tiles + r.jobs_per_panel - 1) / r.jobs_per_panel;
    r.jobs_per_panel = (n_tiles + r.tiles_per_job - 1) / r.tiles_per_job;
    return pool_run(r.c->pool, panels * r.jobs_per_panel, product_job, &r, e);
}

int cpu_products(struct compute *c, const struct weights *w, struct region x, size_t n_tokens, size_t ldx,
                 const struct product *p, size_t n_products, struct err *e)
{
    int rc = 0;
    for (enum rounding r = ROUND_NONE; rc == 0 && r <= ROUND_Q8_K; r++)
        rc = products_of_rounding(
            (struct product_run){cpu_of(c), w, cpu_at(x), n_tokens, ldx, p, n_products, r, 0, 0}, e);
    return rc;
}

/* Each distinct token is read once: positions are sorted by token, a job takes a stretch of them. */
struct embed_place {
    int32_t id;
    uint32_t at;
};

struct embed_run {
    const struct weights *w;
    const struct model_tensor *t;
    const struct embed_place *places;
    size_t n;
    float *dst;
};

static int by_id(const void *a, const void *b)
{
    const struct embed_place *x = a, *y = b;
    return x->id != y->id ? (x->id > y->id) - (x->id < y->id) : (x->at > y->at) - (x->at < y->at);
}

static int embed_job(void *ctx, size_t job, unsigned worker, struct err *e)
{
    (void)worker;
    const struct embed_run *r = ctx;
    size_t n_cols = (size_t)r->t->ne[0];
    const float *last = NULL;
    for (size_t i = job * ROWS_PER_JOB; i < (job + 1) * ROWS_PER_JOB && i < r->n; i++) {
        float *dst = r->dst + r->places[i].at * n_cols;
        if (last && r->places[i].id == r->places[i - 1].id) {
            memcpy(dst, last, n_cols * sizeof *dst);
            continue;
        }
        int rc = weights_read(r->w, r->t, (uint64_t)r->places[i].id, 1, dst, e);
        if (rc != 0)
            return rc;
        last = dst;
    }
    return 0;
}

int cpu_embed(struct compute *c, const struct weights *w, const struct model_tensor *t, const int32_t *ids,
              size_t n_tokens, struct region to, struct err *e)
{
    struct embed_place *places = malloc(n_tokens * sizeof *places + 1);
    if (!places || n_tokens > UINT32_MAX) {
        free(places);
        return err_set(e, ERR_NOMEM, "out of memory for %zu tokens", n_tokens);
    }
    for (size_t i = 0; i < n_tokens; i++)
        places[i] = (struct embed_place){ids[i], (uint32_t)i};
    qsort(places, n_tokens, sizeof *places, by_id);
    struct embed_run r = {w, t, places, n_tokens, cpu_at(to)};
    int rc = pool_run(cpu_of(c)->pool, cpu_jobs(n_tokens, ROWS_PER_JOB), embed_job, &r, e);
    free(places);
    return rc;
}
