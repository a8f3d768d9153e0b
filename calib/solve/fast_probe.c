/* fast_probe.c - sensitivities at the cost of at most twenty passes, whatever the number of layers and types.
 *
 * 1. Local runs (local_runs.c): e of every tensor, its relative change of its own layer's output.
 * 2. Depth curve: a whole layer in its probe types at up to six depths, the rest of the model run once each;
 *    beta = divergence / sum of e, ln beta linear between (loss_beta). On real models it lies between 0.5 and
 *    5, and depends on the depth much more than on the kind of tensor.
 * 3. Massive layers: their feed-forward tensors to the output, the down projection in several types: a few
 *    tokens of huge norm depend on it, and the divergence need not even fall as the type gets wider.
 * 4. Embedding and head: to the output, in up to four types.
 * 5. The other types follow from the proxy (loss_table_fit).
 *
 * What is measured of 2 to 4 is chosen in the order of what it is worth until the passes are used up. The
 * choice looks at proxies and at the walk alone, not at what a stopped run has measured already, so that a
 * continued run gives the same table. Truth: specification, allocation. */
#include "local_runs.h"
#include "probe_batch.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define MAX_TASKS   128
#define MAX_TARGETS LAYER_MAX_MATRICES

struct task { /* one probe to the output */
    struct probe_target targets[MAX_TARGETS];
    size_t n_targets;
    const struct hidden_states *from; /* NULL: the embeddings */
    size_t part;                      /* to start from; that of the end: only the head differs */
    bool in_head;
    double *kld, *kld_stderr;
};

struct fast_run {
    struct loss_table *table;
    const struct net *net;
    struct weights *base;
    const struct windows *w;
    const struct loss_measure *opt;
    struct net_parts parts;
    struct local_runs local;
    struct probe_batch batch;
    struct task *tasks;
    size_t n_tasks, n_parts;
    double room;                     /* passes left to plan with */
    double share, done, total, step; /* passes, for the progress bar */
};

static int show(void *ctx, const struct progress_step *s)
{
    const struct fast_run *r = ctx;
    double all = fmin((r->done + progress_share(s) * r->step) / r->total, 1);
    return progress_stops(
        &r->opt->progress,
        &(struct progress_step){.done = r->share + (1 - r->share) * all, .total = 1, .what = "probing"});
}

static void advance(void *ctx, double passes)
{
    struct fast_run *r = ctx;
    r->done += r->step;
    r->step = passes;
}

/* --- what to measure --- */

/* Plan this probe if there is room for it. */
static bool add_task(struct fast_run *r, struct task task)
{
    double cost = net_parts_cost(&r->parts, task.part, r->n_parts);
    if (cost > r->room + 1e-9 || r->n_tasks == MAX_TASKS)
        return false;
    r->room -= cost;
    r->tasks[r->n_tasks++] = task;
    return true;
}

/* The whole layer in its probe types, into *to. */
static void add_depth(struct fast_run *r, const struct kept_layer *kept, struct loss_depth *to)
{
    const struct loss_table *t = r->table;
    struct task task = {.from = kept->states,
                        .part = r->parts.first[kept->layer],
                        .kld = &to->kld,
                        .kld_stderr = &to->kld_stderr};
    for (size_t i = 0; i < t->n_tensors && task.n_targets < MAX_TARGETS; i++) {
        const struct loss_option *o = loss_probe_option(&t->tensors[i]);
        if (!o || net_parts_find(&r->parts, kept->layer, t->tensors[i].tensor) == SIZE_MAX)
            continue;
        to->local += o->local;
        task.targets[task.n_targets++] = (struct probe_target){t->tensors[i].tensor, o->type};
    }
    if (task.n_targets > 0)
        add_task(r, task);
}

static void add_depths(struct fast_run *r)
{
    struct loss_table *t = r->table;
    struct loss_depth known[LOSS_MAX_DEPTHS]; /* from a stopped run */
    size_t n_known = t->n_depths;
    memcpy(known, t->depths, sizeof known);
    t->n_depths = r->local.n_depths;
    for (size_t i = 0; i < t->n_depths; i++) {
        t->depths[i] = (struct loss_depth){r->local.depths[i].layer, 0, NAN, NAN};
        for (size_t k = 0; k < n_known; k++)
            if (known[k].layer == t->depths[i].layer) {
                t->depths[i].kld = known[k].kld;
                t->depths[i].kld_stderr = known[k].kld_stderr;
            }
        add_depth(r, &r->local.depths[i], &t->depths[i]);
    }
}

static double bits_of(enum qtype type)
{
    const struct qtype_info *info = qtype_info(type);
    return 8.0 * info->block_bytes / info->block_elems;
}

/* The option nearest to so many bits that is worth to be measured and not among the tasks yet. */
static struct loss_option *pick(const struct fast_run *r, struct loss_tensor *t, double bits)
{
    struct loss_option *best = NULL;
    for (size_t i = 0; i < t->n_options; i++) {
        struct loss_option *o = &t->options[i];
        bool taken = o->type == t->tensor->type || o->proxy == 0 || loss_is_dominated(t, o);
        for (size_t k = 0; k < r->n_tasks; k++)
            taken |= r->tasks[k].kld == &o->kld;
        if (!taken && (!best || fabs(bits_of(o->type) - bits) < fabs(bits_of(best->type) - bits)))
            best = o;
    }
    return best;
}

static void add_tensor(struct fast_run *r, struct loss_tensor *t, struct loss_option *o,
                       const struct hidden_states *from, size_t part)
{
    struct task task = {.targets = {{t->tensor, o->type}},
                        .n_targets = 1,
                        .from = from,
                        .part = part,
                        .in_head = t->tensor == r->net->head.tensor,
                        .kld = &o->kld,
                        .kld_stderr = &o->kld_stderr};
    add_task(r, task);
}

/* The n-th type of embedding and head. */
static void add_ends(struct fast_run *r, size_t n)
{
    /* Where mixes of three and of four bits put them, then wider, then narrower: between these the loss is
     * interpolated, and beyond them it goes with the error. */
    static const double bits[] = {3.4375, 4.5, 6.5625, 2.625};
    for (size_t i = 0; i < r->table->n_tensors; i++) {
        struct loss_tensor *t = &r->table->tensors[i];
        struct loss_option *o = NULL;
        bool embeds = t->tensor == r->net->embedding, heads = t->tensor == r->net->head.tensor;
        if ((embeds || heads) && (o = pick(r, t, bits[n])))
            add_tensor(r, t, o, NULL, embeds ? 0 : r->n_parts);
    }
}

/* Feed-forward tensors of massive layers in their probe types. */
static void add_massive(struct fast_run *r)
{
    for (size_t m = 0; m < r->local.n_massive; m++) {
        const struct kept_layer *l = &r->local.massive[m];
        size_t part = r->parts.first[l->layer + 1] - 1;
        for (size_t i = 0; i < r->table->n_tensors; i++) {
            struct loss_tensor *t = &r->table->tensors[i];
            struct loss_option *o = loss_probe_option(t);
            if (o && net_parts_find(&r->parts, l->layer, t->tensor) == part)
                add_tensor(r, t, o, l->states, part);
        }
    }
}

static bool is_down(const struct net_layer *l, const struct model_tensor *t)
{
    return t == l->mlp.down.tensor || t == l->moe.down_exps || t == l->moe.shared_down.tensor;
}

/* Down projections of massive layers in every type that could be chosen, from three bits outwards. */
static void add_down_types(struct fast_run *r)
{
    for (size_t m = 0; m < r->local.n_massive; m++) {
        const struct kept_layer *l = &r->local.massive[m];
        for (size_t i = 0; i < r->table->n_tensors; i++) {
            struct loss_tensor *t = &r->table->tensors[i];
            struct loss_option *o = NULL;
            size_t before = 0;
            if (!is_down(&r->net->layers[l->layer], t->tensor))
                continue;
            do {
                before = r->n_tasks;
                o = pick(r, t, 3.4375);
                if (o)
                    add_tensor(r, t, o, l->states, r->parts.first[l->layer + 1] - 1);
            } while (o && r->n_tasks > before);
        }
    }
}

static int by_growth(const void *a, const void *b)
{
    const struct kept_layer *x = a, *y = b;
    return x->growth != y->growth ? (x->growth > y->growth ? -1 : 1)
                                  : (x->layer > y->layer) - (x->layer < y->layer);
}

static void plan_tasks(struct fast_run *r)
{
    qsort(r->local.massive, r->local.n_massive, sizeof *r->local.massive, by_growth);
    r->table->n_massive = r->local.n_massive;
    for (size_t i = 0; i < r->local.n_massive; i++)
        r->table->massive[i] = r->local.massive[i].layer;
    add_depths(r);
    add_ends(r, 0);
    add_ends(r, 1);
    add_massive(r);
    add_ends(r, 2);
    add_down_types(r);
    add_ends(r, 3);
}

/* --- measuring --- */

static int score(struct fast_run *r, struct err *e)
{
    int rc = probe_batch_score(&r->batch, e);
    return rc ? rc : loss_table_keep(r->table, r->w, r->opt, false, e);
}

static int run_task(struct fast_run *r, const struct task *task, struct err *e)
{
    struct probe *p = &r->batch.probes[r->batch.n++];
    struct forward_span span = {task->from, (uint32_t)task->part, (uint32_t)r->n_parts};
    double cost = net_parts_cost(&r->parts, task->part, r->n_parts);
    *p = (struct probe){.in_head = task->in_head, .kld = task->kld, .kld_stderr = task->kld_stderr};
    int rc = probe_weights(&p->weights, r->table, r->opt, task->targets, task->n_targets, e);
    if (rc == 0 && task->part < r->n_parts) {
        advance(r, cost);
        r->table->passes += cost;
        rc = forward_run_span(&p->states, &r->parts.whole, p->weights, r->w->inputs, r->w->n, r->w->ctx,
                              &span, &r->local.forward, e);
    }
    if (rc != 0)
        return err_context(e, rc, "%s%s as %s", task->n_targets > 1 ? "the layer of " : "",
                           task->targets[0].tensor->name, qtype_name(task->targets[0].type));
    return r->batch.n == PROBE_BATCH ? score(r, e) : 0;
}

static int run_tasks(struct fast_run *r, struct err *e)
{
    int rc = 0;
    r->batch = (struct probe_batch){.table = r->table,
                                    .net = r->net,
                                    .base = r->base,
                                    .w = r->w,
                                    .opt = r->opt,
                                    .reference = r->local.reference};
    for (size_t i = 0; rc == 0 && i < r->n_tasks; i++)
        if (!isfinite(*r->tasks[i].kld))
            rc = run_task(r, &r->tasks[i], e);
    if (rc == 0)
        rc = score(r, e);
    probe_batch_release(&r->batch);
    return rc;
}

int loss_table_probe_fast(struct loss_table *t, const struct net *net, struct weights *base,
                          const struct windows *w, const struct loss_measure *opt, double share,
                          struct err *e)
{
    struct fast_run r = {
        .table = t, .net = net, .base = base, .w = w, .opt = opt, .share = share, .total = LOSS_MAX_PASSES};
    int rc = net_parts_init(&r.parts, net, e);
    if (rc != 0)
        return rc;
    r.n_parts = r.parts.first[net->n_layers];
    r.local = (struct local_runs){.table = t,
                                  .parts = &r.parts,
                                  .n_layers = net->n_layers,
                                  .base = base,
                                  .w = w,
                                  .opt = opt,
                                  .forward = loss_forward(t, w, opt),
                                  .advance = advance,
                                  .advance_ctx = &r};
    r.local.forward.progress = (struct progress){show, &r};
    double walk = local_runs_cost(t, &r.parts, net->n_layers);
    r.room = LOSS_MAX_PASSES - opt->passes_kept_back - walk;
    r.total = fmax(LOSS_MAX_PASSES - opt->passes_kept_back, walk);
    r.tasks = calloc(MAX_TASKS, sizeof *r.tasks);
    if (!r.tasks)
        rc = err_set(e, ERR_NOMEM, "out of memory for the list of probes");
    if (rc == 0)
        rc = local_runs_walk(&r.local, e);
    if (rc == 0) {
        plan_tasks(&r);
        r.total = r.total - fmax(r.room, 0);
        rc = run_tasks(&r, e);
    }
    local_runs_release(&r.local);
    net_parts_release(&r.parts);
    free(r.tasks);
    return rc;
}
