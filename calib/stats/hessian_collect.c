/* hessian_collect.c - see hessian_collect.h. */
#include "hessian_collect.h"

#include "calib/model/forward.h"
#include "formats/gguf/imatrix_file.h"
#include "imatrix_sums.h"
#include "libquant/base/checked.h"
#include "libquant/base/path.h"
#include "libquant/base/pool.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct collecting {
    const struct hessian_collect_options *opt;
    struct hessian_plan plan;
    struct strmap by_name;   /* a Gram matrix's name -> its index */
    struct gram_sums **sums; /* [n_grams] matrices of one that has been observed, [n_mats] */
    struct gram_scratch *scratch;
    struct imatrix_sums importance;
    struct imatrix_state state; /* n_windows counts layers here */
    struct hessian_writer *writer;
    char identity[256];
    bool on_disk; /* sums of a layer do not fit into memory */
};

static int no_memory(struct err *e)
{
    return err_set(e, ERR_NOMEM, "out of memory for the Hessians of a layer");
}

static bool find_gram(const struct collecting *c, const char *owner, const char *suffix, size_t *out)
{
    char name[160];
    uint64_t at;
    int n = snprintf(name, sizeof name, "%s%s", owner, suffix);
    if (!strmap_find(&c->by_name, name, (size_t)n, &at))
        return false;
    *out = (size_t)at;
    return true;
}

static size_t chunk_of(const struct hessian_gram *g)
{
    return g->n_mats > 1 ? GRAM_CHUNK_EXPERT : GRAM_CHUNK;
}

/* The sums of matrix `mat`, begun when it is seen for the first time. */
static int sums_of(struct collecting *c, size_t gram, uint64_t mat, struct gram_sums **out, struct err *e)
{
    const struct hessian_gram *g = &c->plan.grams[gram];
    if (!c->sums[gram])
        c->sums[gram] = calloc((size_t)g->n_mats, sizeof **c->sums);
    if (!c->sums[gram])
        return no_memory(e);
    *out = &c->sums[gram][mat];
    if ((*out)->n_cols)
        return 0;
    return gram_sums_init(*out, (size_t)g->n_cols, chunk_of(g), c->on_disk, e);
}

static int add_rows(struct collecting *c, size_t gram, uint64_t mat, const float *x, size_t n, size_t n_cols,
                    const float *weights, struct err *e)
{
    const struct hessian_gram *g = &c->plan.grams[gram];
    struct gram_sums *s = NULL;
    if (g->n_cols != n_cols || mat >= g->n_mats)
        return err_set(e, ERR_ARG, "'%s': inputs of %zu columns; expected %llu", g->owner, n_cols,
                       (unsigned long long)g->n_cols);
    int rc = sums_of(c, gram, mat, &s, e);
    return rc ? rc : gram_sums_add(s, x, n, n_cols, weights, c->opt->pool, c->scratch, e);
}

static int observe(void *ctx, const struct observation *o, struct err *e)
{
    struct collecting *c = ctx;
    size_t gram;
    int rc = imatrix_sums_observe(&c->importance, o, e);
    if (rc != 0 || o->n_tokens == 0 || !find_gram(c, o->tensors[0]->name, ".gram", &gram))
        return rc;
    return add_rows(c, gram, o->expert >= 0 ? (uint64_t)o->expert : 0, o->x, o->n_tokens, o->n_cols, NULL, e);
}

static int observe_attention(void *ctx, const struct attention_observation *o, struct err *e)
{
    struct collecting *c = ctx;
    size_t gram;
    int rc = 0;
    if (find_gram(c, o->k->name, ".gram_mass", &gram))
        rc = add_rows(c, gram, 0, o->x, o->n_tokens, o->n_cols, o->mass, e);
    if (rc == 0 && find_gram(c, o->v->name, ".gram_mixed", &gram))
        rc = add_rows(c, gram, 0, o->mixed, o->n_mixed, o->n_cols, NULL, e);
    return rc;
}

static void drop_sums(struct collecting *c, size_t gram)
{
    for (uint64_t k = 0; c->sums[gram] && k < c->plan.grams[gram].n_mats; k++)
        gram_sums_release(&c->sums[gram][k]);
    free(c->sums[gram]);
    c->sums[gram] = NULL;
}

static int put_gram(struct collecting *c, size_t gram, struct err *e)
{
    static const struct gram_figures nothing = {0};
    int rc = 0;
    for (uint64_t k = 0; rc == 0 && k < c->plan.grams[gram].n_mats; k++) {
        struct gram_sums *s = c->sums[gram] && c->sums[gram][k].n_cols ? &c->sums[gram][k] : NULL;
        if (s)
            rc = gram_sums_flush(s, c->opt->pool, c->scratch, e);
        if (rc == 0)
            rc = hessian_writer_put(c->writer, gram, k, s ? s->sums : NULL, s ? &s->figures : &nothing, e);
    }
    drop_sums(c, gram);
    return rc;
}

static int put_layer(struct collecting *c, uint32_t layer, struct err *e)
{
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < c->plan.n_grams; i++)
        if (c->plan.grams[i].layer == layer)
            rc = put_gram(c, i, e);
    return rc;
}

static int layer_done(void *ctx, uint32_t layer, struct err *e)
{
    struct collecting *c = ctx;
    int rc = imatrix_sums_check(&c->importance, e);
    if (rc == 0)
        rc = put_layer(c, layer, e);
    c->state.n_windows = layer + 1;
    if (rc == 0 && c->opt->file.resume)
        rc = hessian_writer_flush(c->writer, e);
    if (rc == 0 && c->opt->file.resume)
        rc = imatrix_state_save(c->opt->state_path, &c->importance, &c->state, e);
    if (rc != 0)
        c->state.n_windows = layer; /* are kept */
    return rc;
}

/* What the sums depend on, beyond what the file itself says. */
static void identify(struct collecting *c)
{
    const struct hessian_source *s = &c->opt->source;
    snprintf(c->identity, sizeof c->identity, "hessian %.64s %.64s %.64s %d", s->model_sha256, s->ids_sha256,
             s->windows_sha256, (int)c->opt->activations);
    c->state.identity = c->identity;
}

static int prepare(struct collecting *c, const struct net *net, const struct weights *weights, struct err *e)
{
    int rc = hessian_plan_make(&c->plan, net, e);
    uint64_t layer = 0, most = 0;
    for (size_t i = 0; rc == 0 && i < c->plan.n_grams; i++) {
        const struct hessian_gram *g = &c->plan.grams[i];
        uint64_t n =
            (gram_n_values(g->n_cols) * sizeof(double) + gram_pending_bytes(g->n_cols, chunk_of(g))) *
            g->n_mats;
        layer = i > 0 && c->plan.grams[i - 1].layer == g->layer ? layer + n : n;
        most = layer > most ? layer : most;
        if (strmap_put(&c->by_name, g->name, strlen(g->name), i, NULL) != 0)
            rc = no_memory(e);
    }
    c->on_disk = most > c->opt->memory_bytes / 2;
    c->sums = calloc(c->plan.n_grams + 1, sizeof *c->sums);
    if (rc == 0 && !c->sums)
        rc = no_memory(e);
    c->importance.pool = c->opt->pool;
    c->importance.head = net->head.tensor;
    return rc ? rc : gram_scratch_new(&c->scratch, weights_kern(weights), c->opt->pool, e);
}

/* Go on with an earlier run, if its file and its state are there. */
static int take_over(struct collecting *c, uint32_t n_layers, struct err *e)
{
    bool found = false;
    if (!c->opt->file.resume)
        return 0;
    int rc = imatrix_state_load(c->opt->state_path, &c->importance, &c->state, 0, &found, e);
    if (rc != 0)
        return rc;
    if (c->state.n_windows > n_layers)
        return err_set(e, ERR_FORMAT, "%s: the state of an earlier run is damaged; remove it to start again",
                       c->opt->state_path);
    if (found && !hessian_writer_resumed(c->writer))
        return err_set(
            e, ERR_IO,
            "%s: records a stopped run whose unfinished output is missing; remove it to start again",
            c->opt->state_path);
    if (!hessian_writer_resumed(c->writer))
        return 0;
    return found ? hessian_writer_keep(c->writer, e) : hessian_writer_restart(c->writer, e);
}

static int run(struct collecting *c, const struct net *net, struct weights *weights, const struct windows *w,
               struct err *e)
{
    struct forward_options f = {.pool = c->opt->pool,
                                .memory_bytes = c->on_disk ? c->opt->memory_bytes : c->opt->memory_bytes / 2,
                                .memory_share = c->on_disk ? 1 : 2,
                                .activations = c->opt->activations,
                                .observe = observe,
                                .observe_attention = observe_attention,
                                .layer_done = layer_done,
                                .observe_ctx = c,
                                .observe_first = (uint32_t)c->state.n_windows,
                                .progress = c->opt->progress};
    if (c->state.n_windows == net->n_layers && !net->head.tensor)
        return 0;
    int rc = forward_run(NULL, net, weights, w->inputs, w->n, w->ctx, &f, e);
    return rc ? rc : put_layer(c, HESSIAN_BEHIND, e);
}

/* Room on the disk for sums of which there are none. */
static void drop_part(const char *path)
{
    char *part = path_with(path, PATH_PART);
    if (part)
        unlink(part);
    free(part);
}

/* What a run that was asked to stop leaves, and how to go on. */
static void say_what_is_kept(const struct collecting *c, bool resume, const char *path, uint32_t n_layers,
                             struct err *e)
{
    if (!resume)
        err_set(e, ERR_CANCELLED, ERR_STOPPED_UNKEPT);
    else if (c->state.n_windows == 0)
        err_set(e, ERR_CANCELLED, ERR_STOPPED " before the first layer was complete, so nothing is kept");
    else
        err_set(e, ERR_CANCELLED,
                ERR_STOPPED ": %llu of %u layers are done and kept in %s" PATH_PART
                            "; --resume continues from there",
                (unsigned long long)c->state.n_windows, n_layers, path);
}

int hessian_collect(const char *path, const struct net *net, struct weights *weights, const struct windows *w,
                    const struct hessian_collect_options *opt, size_t *n_resumed, struct err *e)
{
    struct hessian_collect_options own = *opt;
    own.source.n_windows = w->n;
    own.source.ctx = w->ctx;
    windows_hash(w, own.source.windows_sha256);
    double none;
    bool taken_over = false;
    struct collecting c = {.opt = &own, .state.nll = &none};
    struct imatrix *m = NULL;
    identify(&c);
    int rc = prepare(&c, net, weights, e);
    if (rc == 0)
        rc = hessian_writer_open(&c.writer, &c.plan, &own.source, path, &own.file, e);
    if (rc == 0)
        rc = take_over(&c, net->n_layers, e);
    taken_over = rc == 0;
    if (rc == 0 && n_resumed)
        *n_resumed = (size_t)c.state.n_windows;
    if (rc == 0)
        rc = run(&c, net, weights, w, e);
    if (rc == 0)
        rc = imatrix_sums_finish(&m, &c.importance, e);
    if (rc == 0) {
        rc = hessian_writer_finish(c.writer, m, e);
        c.writer = NULL;
    }
    if (rc == 0 && own.state_path)
        unlink(own.state_path);
    if (rc == ERR_CANCELLED)
        say_what_is_kept(&c, own.file.resume, path, net->n_layers, e);
    hessian_writer_abort(c.writer);
    if (rc != 0 && taken_over && c.state.n_windows == 0) /* else it may be what an earlier run kept */
        drop_part(path);
    for (size_t i = 0; c.sums && i < c.plan.n_grams; i++)
        drop_sums(&c, i);
    free(c.sums);
    strmap_release(&c.by_name);
    gram_scratch_free(c.scratch);
    imatrix_sums_release(&c.importance);
    hessian_plan_release(&c.plan);
    imatrix_free(m);
    return rc;
}
