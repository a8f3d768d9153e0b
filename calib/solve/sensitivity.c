/* sensitivity.c - how much the model's predictions move when one tensor alone is quantized: measured, not
 * estimated.
 *
 * The states that enter the current layer are kept. For each probe of a tensor of this layer only this layer
 * and those behind it are run again, with rows of that tensor as `kerf quantize` would store them; then one
 * sweep over the vocabulary compares several probes with the unquantized model. All probes see the same
 * tokens, so what is common to them cancels in comparisons.
 *
 * Cost: for a model of L layers with T tensors each and P probes, T * P * L * (L + 1) / 2 layer runs over the
 * text, that is T * P * (L + 1) / 2 whole forward passes. */
#include "probe_batch.h"

#include "calib/model/forward.h"

#include <math.h>

struct probing {
    struct loss_table *table;
    const struct net *net;
    struct weights *base;
    const struct windows *w;
    const struct loss_measure *opt;
    struct forward_options forward;
    struct hidden_states *reference; /* final states of the scored positions */
    struct hidden_states *entering;  /* states of all positions that enter layer `layer` */
    uint32_t layer;
    struct probe_batch batch;
    double share, done, total, step; /* of the work, in layer runs */
};

static int show(void *ctx, const struct progress_step *s)
{
    const struct probing *p = ctx;
    double all = (p->done + progress_share(s) * p->step) / p->total;
    return progress_stops(
        &p->opt->progress,
        &(struct progress_step){.done = p->share + (1 - p->share) * all, .total = 1, .what = "probing"});
}

/* Is this option to be measured? */
static bool is_probe(const struct loss_tensor *t, const struct loss_option *o, const struct loss_measure *opt)
{
    if (o->type == t->tensor->type || o->proxy == 0)
        return false;
    for (size_t i = 0; i < opt->n_probes; i++)
        if (opt->probes[i] == o->type)
            return true;
    return opt->n_probes == 0;
}

/* A tensor none of whose options is a probe (fallback types, short lists): its first and its middle option.
 */
static bool has_probe(const struct loss_tensor *t, const struct loss_measure *opt)
{
    for (size_t i = 0; i < t->n_options; i++)
        if (is_probe(t, &t->options[i], opt))
            return true;
    return false;
}

static bool wanted(const struct loss_tensor *t, size_t i, const struct loss_measure *opt)
{
    const struct loss_option *o = &t->options[i];
    if (has_probe(t, opt))
        return is_probe(t, o, opt);
    return o->type != t->tensor->type && o->proxy != 0 && (i == 0 || i == t->n_options / 2);
}

/* Wanted, and not known from a run that was stopped. */
static bool is_open(const struct loss_tensor *t, size_t i, const struct loss_measure *opt)
{
    return wanted(t, i, opt) && !isfinite(t->options[i].kld);
}

/* Tensors of layers in their probe type. */
static void count_local(const struct loss_table *t, size_t *n_known, size_t *n)
{
    for (size_t i = 0; i < t->n_tensors; i++) {
        const struct loss_option *o = loss_probe_option(&t->tensors[i]);
        if (!o || loss_layer(&t->tensors[i]) < 0)
            continue;
        *n += 1;
        *n_known += isfinite(o->local);
    }
}

void loss_table_count(const struct loss_table *t, const struct loss_measure *opt, size_t *n_known, size_t *n)
{
    *n_known = *n = 0;
    if (t->probe == LOSS_PROBE_FAST) {
        count_local(t, n_known, n);
        return;
    }
    for (size_t i = 0; i < t->n_tensors; i++)
        for (size_t o = 0; o < t->tensors[i].n_options; o++) {
            *n += wanted(&t->tensors[i], o, opt);
            *n_known += wanted(&t->tensors[i], o, opt) && !is_open(&t->tensors[i], o, opt);
        }
}

static bool is_in_layer(const struct net_layer *l, const struct model_tensor *t)
{
    for (size_t i = 0; i < l->n_matrices; i++)
        if (l->matrices[i] == t)
            return true;
    return false;
}

static int score_batch(struct probing *run, struct err *e)
{
    if (run->batch.n == 0)
        return 0;
    int rc = probe_batch_score(&run->batch, e);
    return rc ? rc : loss_table_keep(run->table, run->w, run->opt, false, e);
}

/* Run one probe from `layer` on (or from the embeddings), and keep its states for the next sweep. */
static int run_probe(struct probing *run, struct loss_tensor *t, struct loss_option *o, struct err *e)
{
    struct probe *p = &run->batch.probes[run->batch.n++];
    const struct probe_target only = {t->tensor, o->type};
    bool embeds = t->tensor == run->net->embedding, heads = t->tensor == run->net->head.tensor;
    *p = (struct probe){.in_head = heads, .kld = &o->kld, .kld_stderr = &o->kld_stderr};
    struct forward_span span = {embeds ? NULL : run->entering, embeds ? 0 : run->layer, run->net->n_layers};
    int rc = probe_weights(&p->weights, run->table, run->opt, &only, 1, e);
    if (rc == 0 && (embeds || !heads)) {
        run->step = (double)(span.end - span.first);
        rc = forward_run_span(&p->states, run->net, p->weights, run->w->inputs, run->w->n, run->w->ctx, &span,
                              &run->forward, e);
        run->done += run->step;
        run->table->passes += run->step / (double)run->net->n_layers;
    }
    if (rc != 0)
        return err_context(e, rc, "%s as %s", t->tensor->name, qtype_name(o->type));
    return run->batch.n == PROBE_BATCH ? score_batch(run, e) : 0;
}

static int probe_tensor(struct probing *run, struct loss_tensor *t, struct err *e)
{
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < t->n_options; i++)
        if (is_open(t, i, run->opt))
            rc = run_probe(run, t, &t->options[i], e);
    return rc;
}

static int probe_layer(struct probing *run, struct err *e)
{
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < run->table->n_tensors; i++)
        if (is_in_layer(&run->net->layers[run->layer], run->table->tensors[i].tensor))
            rc = probe_tensor(run, &run->table->tensors[i], e);
    return rc;
}

/* The unquantized states on to the next layer. */
static int advance(struct probing *run, struct err *e)
{
    struct hidden_states *next = NULL;
    struct forward_span span = {run->entering, run->layer, run->layer + 1};
    run->step = 1;
    int rc = forward_run_span(&next, run->net, run->base, run->w->inputs, run->w->n, run->w->ctx, &span,
                              &run->forward, e);
    run->done += run->step;
    run->table->passes += 1.0 / (double)run->net->n_layers;
    hidden_states_free(run->entering);
    run->entering = next;
    return rc;
}

/* Layer runs of everything, for the progress bar. */
static double count_work(const struct probing *run)
{
    double n = 2 * (double)run->net->n_layers;
    for (size_t i = 0; i < run->table->n_tensors; i++) {
        const struct loss_tensor *t = &run->table->tensors[i];
        double probes = 0, runs = t->tensor == run->net->embedding ? (double)run->net->n_layers : 0;
        for (size_t o = 0; o < t->n_options; o++)
            probes += is_open(t, o, run->opt);
        for (uint32_t l = 0; l < run->net->n_layers; l++)
            if (is_in_layer(&run->net->layers[l], t->tensor))
                runs = (double)(run->net->n_layers - l);
        n += probes * runs;
    }
    return n;
}

int loss_table_probe(struct loss_table *t, const struct net *net, struct weights *base,
                     const struct windows *w, const struct loss_measure *opt, double share, struct err *e)
{
    struct probing run = {.table = t, .net = net, .base = base, .w = w, .opt = opt, .share = share};
    run.forward = loss_forward(t, w, opt);
    run.forward.progress = (struct progress){show, &run};
    size_t n_known = 0, n = 0;
    loss_table_count(t, opt, &n_known, &n);
    if (n_known == n)
        return 0;
    run.total = count_work(&run);
    run.step = (double)net->n_layers;
    struct forward_span start = {0};
    int rc = forward_run(&run.reference, net, base, w->inputs, w->n, w->ctx, &run.forward, e);
    run.done += run.step;
    t->passes += 1;
    run.batch = (struct probe_batch){
        .table = t, .net = net, .base = base, .w = w, .opt = opt, .reference = run.reference};
    if (rc == 0)
        rc = forward_run_span(&run.entering, net, base, w->inputs, w->n, w->ctx, &start, &run.forward, e);
    for (size_t i = 0; rc == 0 && i < t->n_tensors; i++)
        if (t->tensors[i].tensor == net->embedding || t->tensors[i].tensor == net->head.tensor)
            rc = probe_tensor(&run, &t->tensors[i], e);
    for (; rc == 0 && run.layer < net->n_layers; run.layer++) {
        rc = probe_layer(&run, e);
        if (rc == 0 && run.layer + 1 < net->n_layers)
            rc = advance(&run, e);
    }
    if (rc == 0)
        rc = score_batch(&run, e);
    probe_batch_release(&run.batch);
    hidden_states_free(run.reference);
    hidden_states_free(run.entering);
    return rc;
}
