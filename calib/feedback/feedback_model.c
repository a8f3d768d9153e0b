/* feedback_model.c - see feedback_model.h: which tensors, and solving them layer by layer. */
#include "feedback_model_internal.h"

#include "feedback_correction.h"

#include "calib/stats/hessian_file.h"
#include "formats/gguf/imatrix_file.h"
#include "libquant/base/pool.h"
#include "libquant/base/sha256.h"
#include "libquant/quant.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define PLAIN_ROWS 64 /* rows of one job of the plain encoder */

const char *feedback_role_name(enum feedback_role r)
{
    static const char *const names[] = {"v", "k", "q", "o", "gate and up", "down", "head", "other"};
    return names[r];
}

static int no_memory(struct err *e)
{
    return err_set(e, ERR_NOMEM, "out of memory for the list of matrices");
}

/* --- which tensors --- */

static enum feedback_role role_of(const struct net_layer *l, const struct model_tensor *t)
{
    if (!l)
        return FEEDBACK_HEAD;
    const struct attention *a = &l->attention;
    if (l->steps[0] == STEP_ATTENTION) {
        if (t == a->v.tensor && t != a->q.tensor)
            return FEEDBACK_V;
        if (t == a->k.tensor && t != a->q.tensor)
            return FEEDBACK_K;
        if (t == a->q.tensor) /* fused ones, too */
            return FEEDBACK_Q;
        if (t == a->output.tensor)
            return FEEDBACK_O;
    }
    if (l->steps[0] == STEP_LATENT) {
        if (t == a->latent.v_b)
            return FEEDBACK_V;
        if (t == a->k.tensor || t == a->latent.k_b)
            return FEEDBACK_K;
        if (t == a->q.tensor || t == a->latent.q_a.tensor)
            return FEEDBACK_Q;
        if (t == a->output.tensor)
            return FEEDBACK_O;
    }
    if (t == l->mlp.gate.tensor || t == l->mlp.up.tensor || t == l->moe.gate_exps || t == l->moe.up_exps ||
        t == l->moe.shared_gate.tensor || t == l->moe.shared_up.tensor)
        return FEEDBACK_GATE_UP;
    if (t == l->mlp.down.tensor || t == l->moe.down_exps || t == l->moe.shared_down.tensor)
        return FEEDBACK_DOWN;
    return FEEDBACK_OTHER;
}

/* `l` NULL: behind the layers. */
static const struct model_tensor *find_tensor(const struct net *net, const struct net_layer *l,
                                              const char *name)
{
    if (!l)
        return net->head.tensor && strcmp(net->head.tensor->name, name) == 0 ? net->head.tensor : NULL;
    for (size_t i = 0; i < l->n_matrices; i++)
        if (l->matrices[i] && strcmp(l->matrices[i]->name, name) == 0)
            return l->matrices[i];
    return NULL;
}

static int check_memory(const struct feedback_model *f, const struct hessian_gram *g, bool pooled,
                        struct err *e)
{
    uint64_t need = feedback_hessian_bytes((size_t)g->n_cols, pooled) +
                    pool_n_threads(f->opt.pool) * feedback_chunk_bytes(g->n_cols) +
                    (f->opt.corrects ? feedback_correction_bytes((size_t)g->n_cols) : 0);
    if (need <= f->opt.memory_bytes)
        return 0;
    return err_set(e, ERR_ARG,
                   "the Hessian of '%s' (%" PRIu64 " columns) needs %" PRIu64
                   " MiB of working memory, there are %" PRIu64 "; raise --memory, or lower --threads",
                   g->owner, g->n_cols, (need >> 20) + 1, f->opt.memory_bytes >> 20);
}

bool feedback_takes(const struct model_tensor *t, enum qtype type)
{
    const struct feedback_format *format = feedback_format(type);
    return format && type != t->type && t->ne[0] % FEEDBACK_MAX_SUB == 0 && t->ne[0] % format->block == 0 &&
           t->n_rows > 0;
}

/* The tensor of a use, if it is to be solved and is not in the list yet. */
static int consider(struct feedback_model *f, const struct hessian_use *u, feedback_type_fn type_of,
                    void *ctx, struct err *e)
{
    const struct hessian_gram *g = &hessian_file_plan(f->opt.hessian)->grams[u->gram];
    const struct net_layer *l = g->layer < f->net->n_layers ? &f->net->layers[g->layer] : NULL;
    const struct model_tensor *t = l || g->layer == HESSIAN_BEHIND ? find_tensor(f->net, l, u->tensor) : NULL;
    enum qtype type;
    uint64_t ignored;
    if (!t || t->ne[0] != g->n_cols || t->ne[2] * t->ne[3] != g->n_mats || u->row0 + u->n_rows > t->ne[1])
        return err_set(e, ERR_ARG,
                       "%s: its Hessian of '%s' fits no matrix of this model; collect it from this one",
                       hessian_file_path(f->opt.hessian), u->tensor);
    if (strmap_find(&f->by_name, t->name, strlen(t->name), &ignored) || !type_of(ctx, t, &type) ||
        !feedback_takes(t, type))
        return 0;
    if (strmap_put(&f->by_name, t->name, strlen(t->name), f->n, NULL) != 0)
        return no_memory(e);
    f->tensors[f->n++] = (struct feedback_tensor){
        .tensor = t, .type = type, .layer = g->layer, .role = role_of(l, t), .chosen = FEEDBACK_SOLVED};
    return check_memory(f, g, u->pool >= 0, e);
}

static int open_store(struct feedback_model *f, struct err *e)
{
    const struct hessian_source *s = hessian_file_source(f->opt.hessian);
    uint64_t *n_bytes = calloc(f->n + 1, sizeof *n_bytes);
    struct sha256 h;
    char identity[65];
    if (!n_bytes)
        return no_memory(e);
    sha256_init(&h);
    sha256_update(&h, f->opt.identity, strlen(f->opt.identity) + 1);
    sha256_update(&h, s->model_sha256, 64);
    sha256_update(&h, s->ids_sha256, 64);
    sha256_update(&h, s->windows_sha256, sizeof s->windows_sha256);
    sha256_update_u64(&h, s->n_windows);
    sha256_update_u64(&h, s->ctx);
    sha256_update_u64(&h, f->opt.stages.feedback);
    sha256_update_u64(&h, f->opt.stages.n_sweeps);
    sha256_update_u64(&h, (f->opt.plain_weighting ? 1u : 0u) + (f->opt.least_shrinkage ? 2u : 0u) +
                              (f->opt.corrects ? 4u : 0u));
    for (size_t i = 0; i < f->n; i++) {
        const struct feedback_tensor *t = &f->tensors[i];
        uint64_t row_bytes = 0;
        qtype_row_bytes((uint32_t)t->type, t->tensor->ne[0], &row_bytes);
        n_bytes[i] = row_bytes * t->tensor->n_rows;
        sha256_update(&h, t->tensor->name, strlen(t->tensor->name) + 1);
        sha256_update_u64(&h, (uint64_t)t->type);
        sha256_update_u64(&h, t->tensor->ne[0]);
        sha256_update_u64(&h, t->tensor->n_rows);
    }
    sha256_final_hex(&h, identity);
    int rc = feedback_store_open(&f->store, f->opt.store_path, identity, n_bytes, f->n,
                                 f->opt.corrects ? FEEDBACK_N_BLOCKS : FEEDBACK_CORRECTED, f->opt.resume, e);
    free(n_bytes);
    return rc;
}

int feedback_model_new(struct feedback_model **out, const struct net *net, feedback_type_fn type_of,
                       void *type_ctx, const struct feedback_model_options *opt, struct err *e)
{
    const struct hessian_plan *plan = hessian_file_plan(opt->hessian);
    struct feedback_model *f = calloc(1, sizeof *f);
    if (!f)
        return no_memory(e);
    f->opt = *opt;
    f->net = net;
    f->tensors = calloc(plan->n_uses + 1, sizeof *f->tensors);
    int rc = f->tensors ? 0 : no_memory(e);
    for (size_t i = 0; rc == 0 && i < plan->n_uses; i++)
        rc = consider(f, &plan->uses[i], type_of, type_ctx, e);
    if (rc == 0 && f->n == 0)
        rc = err_set(e, ERR_ARG,
                     "no matrix takes error feedback: it is for Q2_K to Q6_K, Q4_0 to Q5_1, IQ2, IQ3 and "
                     "IQ4, and for matrices of the layers that change type");
    if (rc == 0)
        rc = open_store(f, e);
    if (rc != 0)
        feedback_model_free(f, false);
    else
        *out = f;
    return rc;
}

void feedback_model_free(struct feedback_model *f, bool done)
{
    if (!f)
        return;
    feedback_store_free(f->store, f->opt.resume && !done);
    strmap_release(&f->by_name);
    free(f->tensors);
    free(f->of_plain);
    free(f->of_solved);
    free(f);
}

/* --- solving --- */

struct plain_run {
    const struct feedback_model *f;
    const struct feedback_tensor *t;
    const struct imatrix_entry *entry;
    uint8_t *blocks;
    uint64_t row_bytes, jobs_per_mat;
};

static int plain_job(void *ctx, size_t job, unsigned worker, struct err *e)
{
    (void)worker;
    const struct plain_run *r = ctx;
    const struct model_tensor *t = r->t->tensor;
    uint64_t mat = job / r->jobs_per_mat, first = job % r->jobs_per_mat * PLAIN_ROWS;
    uint64_t n = t->ne[1] - first < PLAIN_ROWS ? t->ne[1] - first : PLAIN_ROWS, row0 = mat * t->ne[1] + first;
    size_t n_cols = (size_t)t->ne[0];
    float *rows = malloc((PLAIN_ROWS + 1) * n_cols * sizeof *rows);
    if (!rows)
        return err_set(e, ERR_NOMEM, "out of memory encoding tensor '%s'", t->name);
    float *weights = rows + PLAIN_ROWS * n_cols;
    int rc = model_read_rows(r->f->net->model, t, row0, n, rows, e);
    size_t bad = rc == 0 ? quant_find_bad(rows, (size_t)n * n_cols, quant_limit(r->t->type)) : 0;
    if (rc == 0 && bad < n * n_cols)
        rc = err_set(e, ERR_FORMAT, "tensor '%s' (%s): row %" PRIu64 " holds a value that is not finite",
                     t->name, t->origin, row0 + bad / n_cols);
    if (rc == 0 && r->entry)
        rc = imatrix_weights(r->entry, mat, t->ne[2] * t->ne[3], n_cols, weights, e);
    if (rc == 0)
        rc = quant_encode_informed(r->f->opt.kern, r->t->type, rows, r->blocks + row0 * r->row_bytes,
                                   n * r->row_bytes, n, n_cols, r->entry ? weights : NULL, e);
    free(rows);
    return rc ? err_context(e, rc, "tensor '%s'", t->name) : 0;
}

/* All rows of tensor i by the plain encoder; the solved ones begin as a copy. */
static int encode_plain(struct feedback_model *f, size_t i, struct err *e)
{
    const struct feedback_tensor *t = &f->tensors[i];
    struct plain_run r = {f,
                          t,
                          f->opt.imatrix ? imatrix_find(f->opt.imatrix, t->tensor->name) : NULL,
                          feedback_store_blocks(f->store, FEEDBACK_PLAIN, i),
                          0,
                          (t->tensor->ne[1] + PLAIN_ROWS - 1) / PLAIN_ROWS};
    qtype_row_bytes((uint32_t)t->type, t->tensor->ne[0], &r.row_bytes);
    int rc = pool_run(f->opt.pool, (size_t)(r.jobs_per_mat * t->tensor->ne[2] * t->tensor->ne[3]), plain_job,
                      &r, e);
    if (rc == 0)
        memcpy(feedback_store_blocks(f->store, FEEDBACK_SOLVED, i), r.blocks,
               (size_t)(r.row_bytes * t->tensor->n_rows));
    return rc;
}

struct row_reader {
    const struct model *model;
    const struct model_tensor *tensor;
    uint64_t row0;
};

static int read_rows(void *ctx, uint64_t row0, uint64_t n, float *rows, struct err *e)
{
    const struct row_reader *r = ctx;
    return model_read_rows(r->model, r->tensor, r->row0 + row0, n, rows, e);
}

/* Rows of one use under one Hessian. */
static int solve_rows(struct feedback_model *f, size_t i, const struct hessian_use *u, uint64_t mat,
                      const struct feedback_hessian *h, struct err *e)
{
    const struct feedback_tensor *t = &f->tensors[i];
    struct feedback_figures *figures = feedback_store_figures(f->store, i);
    struct row_reader rows = {f->net->model, t->tensor, mat * t->tensor->ne[1] + u->row0};
    uint64_t row_bytes = 0;
    qtype_row_bytes((uint32_t)t->type, t->tensor->ne[0], &row_bytes);
    struct feedback_job job = {.h = h,
                               .type = t->type,
                               .n_rows = u->n_rows,
                               .read = read_rows,
                               .read_ctx = &rows,
                               .plain =
                                   feedback_store_blocks(f->store, FEEDBACK_PLAIN, i) + rows.row0 * row_bytes,
                               .stages = f->opt.stages,
                               .kern = f->opt.kern,
                               .pool = f->opt.pool};
    struct feedback_loss loss = {0};
    int rc = feedback_encode(
        &job, feedback_store_blocks(f->store, FEEDBACK_SOLVED, i) + rows.row0 * row_bytes, &loss, e);
    if (rc != 0)
        return err_context(e, rc, "tensor '%s'", t->tensor->name);
    /* In the units of the sums, so that parts with Hessians of their own add up. */
    figures->loss.plain += loss.plain / h->scale;
    figures->loss.solved += loss.solved / h->scale;
    figures->loss.n_rows += loss.n_rows;
    figures->loss.n_kept += loss.n_kept;
    double share = (double)u->n_rows / (double)t->tensor->n_rows;
    figures->gain += share * h->gain;
    figures->lambda += share * h->lambda;
    return 0;
}

/* The Gram matrix that a use takes. */
static size_t gram_of(const struct feedback_model *f, const struct hessian_use *u)
{
    const struct hessian_plan *p = hessian_file_plan(f->opt.hessian);
    const struct hessian_gram *own = &p->grams[u->gram];
    for (size_t i = 0; f->opt.plain_weighting && own->weighting != HESSIAN_PLAIN && i < p->n_grams; i++)
        if (p->grams[i].layer == own->layer && p->grams[i].weighting == HESSIAN_PLAIN &&
            p->grams[i].n_cols == own->n_cols)
            return i; /* the first one: that of q */
    return u->gram;
}

bool feedback_is_solved(const struct feedback_model *f, const struct hessian_use *u, size_t gram, size_t *i)
{
    uint64_t at;
    if (gram_of(f, u) != gram || !strmap_find(&f->by_name, u->tensor, strlen(u->tensor), &at))
        return false;
    *i = (size_t)at;
    return true;
}

struct factored {
    struct feedback_hessian h;
    int rc;
    struct err why;
};

/* Matrices of one Gram matrix, factored side by side: those of experts are many, and each is the work of one
 * thread. */
struct factoring {
    const struct feedback_model *f;
    size_t gram;
    uint64_t first;
    const double *pool; /* what experts lean on, or NULL */
    struct factored *of;
};

static int factor_job(void *ctx, size_t job, unsigned worker, struct err *e)
{
    (void)worker;
    const struct factoring *x = ctx;
    const struct feedback_model_options *opt = &x->f->opt;
    size_t n = (size_t)hessian_file_plan(opt->hessian)->grams[x->gram].n_cols;
    struct factored *to = &x->of[job];
    struct gram_figures figures;
    double *sums = malloc(n * n * sizeof *sums);
    *to = (struct factored){.rc = 0};
    int rc = sums ? hessian_file_read(opt->hessian, x->gram, x->first + job, sums, &figures, e)
                  : err_set(e, ERR_NOMEM, "out of memory for a Hessian of %zu columns", n);
    if (rc == 0) {
        if (opt->least_shrinkage)
            figures.squares = 0;
        to->rc = feedback_hessian_make(&to->h, sums, n, &figures, x->pool, &to->why);
    }
    free(sums);
    return rc;
}

/* Matrix `mat` for all uses of its Gram matrix. */
static int solve_matrix(struct feedback_model *f, size_t gram, uint64_t mat, const struct factored *x,
                        struct err *e)
{
    const struct hessian_plan *plan = hessian_file_plan(f->opt.hessian);
    size_t i;
    int rc = 0;
    if (x->rc == ERR_ARG) { /* no data: the plain encoder's rows stay */
        f->n_unsolved++;
        return 0;
    }
    if (x->rc == ERR_FORMAT) { /* the same, but the file is odd */
        if (f->n_unfactored++ == 0)
            f->unfactored = plan->grams[gram].name;
        return 0;
    }
    if (x->rc != 0)
        return err_set(e, x->why.code, "%s", x->why.msg);
    for (size_t k = 0; rc == 0 && k < plan->n_uses; k++)
        if (feedback_is_solved(f, &plan->uses[k], gram, &i))
            rc = solve_rows(f, i, &plan->uses[k], mat, &x->h, e);
    return rc;
}

/* How many matrices may be held at once, one thread each. */
static size_t batch_of(const struct feedback_model *f, const struct hessian_gram *g, bool pooled)
{
    uint64_t n = g->n_cols, one = feedback_hessian_bytes((size_t)n, false),
             threads = pool_n_threads(f->opt.pool),
             taken = threads * feedback_chunk_bytes(n) + (pooled ? n * n * sizeof(double) : 0);
    uint64_t most = f->opt.memory_bytes > taken ? (f->opt.memory_bytes - taken) / one : 1;
    most = most < threads ? most : threads;
    most = most < g->n_mats ? most : g->n_mats;
    return most ? (size_t)most : 1;
}

static int solve_batches(struct feedback_model *f, size_t gram, const double *pool, struct err *e)
{
    const struct hessian_gram *g = &hessian_file_plan(f->opt.hessian)->grams[gram];
    size_t batch = batch_of(f, g, pool != NULL);
    struct factoring x = {f, gram, 0, pool, calloc(batch, sizeof *x.of)};
    int rc = x.of ? 0 : no_memory(e);
    for (; rc == 0 && x.first < g->n_mats; x.first += batch) {
        size_t n = g->n_mats - x.first < batch ? (size_t)(g->n_mats - x.first) : batch;
        rc = pool_run(f->opt.pool, n, factor_job, &x, e);
        for (size_t i = 0; i < n; i++) {
            if (rc == 0)
                rc = solve_matrix(f, gram, x.first + i, &x.of[i], e);
            feedback_hessian_release(&x.of[i].h);
        }
    }
    free(x.of);
    return rc;
}

static int solve_gram(struct feedback_model *f, size_t gram, struct err *e)
{
    const struct hessian_plan *plan = hessian_file_plan(f->opt.hessian);
    size_t n = (size_t)plan->grams[gram].n_cols, i;
    int64_t pool = -1;
    bool any = false;
    for (size_t k = 0; k < plan->n_uses; k++)
        if (feedback_is_solved(f, &plan->uses[k], gram, &i)) {
            any = true;
            pool = plan->uses[k].pool;
        }
    if (!any)
        return 0;
    double *all = pool >= 0 ? malloc(n * n * sizeof *all) : NULL;
    struct gram_figures ignored;
    int rc = pool < 0 || all ? 0 : err_set(e, ERR_NOMEM, "out of memory for a Hessian of %zu columns", n);
    if (rc == 0 && all)
        rc = hessian_file_read(f->opt.hessian, (size_t)pool, 0, all, &ignored, e);
    if (rc == 0)
        rc = solve_batches(f, gram, all, e);
    free(all);
    return rc;
}

static int solve_layer(struct feedback_model *f, uint32_t layer, struct err *e)
{
    const struct hessian_plan *plan = hessian_file_plan(f->opt.hessian);
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < f->n; i++)
        if (f->tensors[i].layer == layer) {
            *feedback_store_figures(f->store, i) = (struct feedback_figures){0};
            rc = encode_plain(f, i, e);
        }
    for (size_t g = 0; rc == 0 && g < plan->n_grams; g++)
        if (plan->grams[g].layer == layer)
            rc = solve_gram(f, g, e);
    return rc;
}

static int tell(const struct feedback_model *f, double done, const char *what, struct err *e)
{
    return progress_tell(&f->opt.progress, &(struct progress_step){.done = done, .total = 1, .what = what},
                         e);
}

static uint64_t layers_done(const struct feedback_model *f)
{
    uint64_t n = feedback_store_n_done(f->store);
    return n < f->net->n_layers ? n : f->net->n_layers;
}

int feedback_model_solve(struct feedback_model *f, struct err *e)
{
    /* a step for each layer, and one for what is behind them */
    uint32_t n_layers = f->net->n_layers, n_steps = n_layers + 1,
             step = (uint32_t)feedback_store_n_done(f->store);
    int rc = 0;
    if (feedback_store_n_done(f->store) > n_steps)
        return err_set(e, ERR_FORMAT, "%s: is damaged; remove it to start again", f->opt.store_path);
    f->n_resumed = layers_done(f);
    for (; rc == 0 && step < n_steps; step++) {
        rc = tell(f, (double)step / n_steps, "quantizing layers", e);
        if (rc == 0)
            rc = solve_layer(f, step < n_layers ? step : HESSIAN_BEHIND, e);
        if (rc == 0 && f->opt.resume)
            rc = feedback_store_set_done(f->store, step + 1, e);
    }
    for (size_t i = 0; rc == 0 && i < f->n; i++)
        f->tensors[i].figures = *feedback_store_figures(f->store, i);
    if (rc == ERR_CANCELLED && f->opt.resume)
        err_set(e, ERR_CANCELLED,
                ERR_STOPPED ": %" PRIu64
                            " of %u layers are solved and kept in %s; --resume continues from there",
                layers_done(f), n_layers, f->opt.store_path);
    return rc ? rc : tell(f, 1, "quantizing layers", e);
}

/* --- results --- */

const uint8_t *feedback_model_blocks(const struct feedback_model *f, const struct model_tensor *t,
                                     enum qtype type)
{
    uint64_t i;
    if (!strmap_find(&f->by_name, t->name, strlen(t->name), &i) || f->tensors[i].type != type)
        return NULL;
    return feedback_chosen_blocks(f, (size_t)i);
}

const uint8_t *feedback_chosen_blocks(const struct feedback_model *f, size_t i)
{
    return feedback_store_blocks(f->store, f->tensors[i].chosen, i);
}

size_t feedback_model_n(const struct feedback_model *f)
{
    return f->n;
}

const struct feedback_tensor *feedback_model_tensor(const struct feedback_model *f, size_t i)
{
    return &f->tensors[i];
}

const struct feedback_result *feedback_model_result(const struct feedback_model *f)
{
    return &f->result;
}

double feedback_model_loss_ratio(const struct feedback_model *f)
{
    double plain = 0, solved = 0;
    for (size_t i = 0; i < f->n; i++)
        if (f->tensors[i].chosen != FEEDBACK_PLAIN) {
            plain += f->tensors[i].figures.loss.plain;
            solved += f->tensors[i].figures.loss.solved;
        }
    return plain > 0 ? solved / plain : 1;
}

bool feedback_model_restarted(const struct feedback_model *f)
{
    return feedback_store_restarted(f->store);
}

uint64_t feedback_model_n_resumed(const struct feedback_model *f)
{
    return f->n_resumed;
}

uint64_t feedback_model_n_unsolved(const struct feedback_model *f)
{
    return f->n_unsolved;
}

uint64_t feedback_model_n_unfactored(const struct feedback_model *f, const char **first)
{
    *first = f->unfactored;
    return f->n_unfactored;
}
