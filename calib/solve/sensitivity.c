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
#include "loss_table.h"

#include "calib/eval/statistics.h"
#include "calib/model/forward.h"
#include "calib/model/head.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BATCH 8 /* probes of one sweep */

struct probe {
    struct loss_tensor *t;
    struct loss_option *option;
    struct weights *weights;
    struct hidden_states *states;
    bool in_head; /* the head's product is quantized, too */
};

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
    struct probe batch[BATCH];
    size_t n_batch;
    double share, done, total, step; /* of the work, in layer runs */
};

static int show(void *ctx, uint64_t done, uint64_t total)
{
    const struct probing *p = ctx;
    double part = total ? (double)done / (double)total : 0, all = p->done + part * p->step;
    return p->opt->progress
               ? p->opt->progress(p->opt->progress_ctx, p->share + (1 - p->share) * all / p->total, "probing")
               : 0;
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

void loss_table_count(const struct loss_table *t, const struct loss_measure *opt, size_t *n_known, size_t *n)
{
    *n_known = *n = 0;
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

/* The model as it is, but for one tensor. */
static int open_probe(struct probe *p, const struct probing *run, struct err *e)
{
    const char *name = p->t->tensor->name;
    char pattern[4096];
    if (strlen(name) > sizeof pattern - 16)
        return err_set(e, ERR_ARG, "the name of tensor '%s' is too long", name);
    snprintf(pattern, sizeof pattern, "^\\Q%s\\E$", name);
    struct recipe_override only = {pattern, p->option->type};
    struct recipe_options recipe = {.recipe = "llama.cpp",
                                    .overrides = &only,
                                    .n_overrides = 1,
                                    .has_imatrix = run->table->imatrix != NULL};
    return weights_new_mix(&p->weights, run->table->model, &recipe, run->table->imatrix, run->opt->requantize,
                           run->opt->kern, e);
}

static void close_batch(struct probing *run)
{
    for (size_t i = 0; i < run->n_batch; i++) {
        weights_free(run->batch[i].weights);
        hidden_states_free(run->batch[i].states);
    }
    run->n_batch = 0;
}

/* Scores of `n_models` models as means over the text. */
static void take_scores(struct probing *run, const struct head_score *scores, double *kld, size_t n)
{
    size_t per_window = windows_n_scored(run->w);
    for (size_t i = 0; i < run->n_batch; i++) {
        for (size_t j = 0; j < n; j++)
            kld[j] = scores[(i + 1) * n + j].kld;
        struct estimate by_token = stat_mean(kld, n), by_window = stat_mean_of_runs(kld, n, per_window);
        run->batch[i].option->kld = by_token.value;
        run->batch[i].option->kld_stderr =
            isnan(by_window.error) || by_window.error < by_token.error ? by_token.error : by_window.error;
    }
}

static int score_batch(struct probing *run, struct err *e)
{
    if (run->n_batch == 0)
        return 0;
    size_t n = run->w->n * windows_n_scored(run->w);
    struct head_model models[BATCH + 1] = {{run->net, run->base, run->reference}};
    for (size_t i = 0; i < run->n_batch; i++)
        models[i + 1] =
            (struct head_model){run->net, run->batch[i].in_head ? run->batch[i].weights : run->base,
                                run->batch[i].states ? run->batch[i].states : run->reference};
    struct head_options h = {.pool = run->opt->pool,
                             .memory_bytes = run->opt->memory_bytes / 2,
                             .activations = run->table->activations,
                             .compute = run->opt->compute};
    struct head_score *scores = malloc((run->n_batch + 1) * n * sizeof *scores);
    double *kld = malloc(n * sizeof *kld);
    int rc = scores && kld ? 0 : err_set(e, ERR_NOMEM, "out of memory for the scores of %zu positions", n);
    if (rc == 0)
        rc = head_score(models, run->n_batch + 1, run->w->targets, n, &h, scores, e);
    if (rc == 0)
        take_scores(run, scores, kld, n);
    free(scores);
    free(kld);
    close_batch(run);
    return rc ? rc : loss_table_keep(run->table, run->w, run->opt, false, e);
}

/* Run one probe from `layer` on (or from the embeddings), and keep its states for the next sweep. */
static int run_probe(struct probing *run, struct loss_tensor *t, struct loss_option *o, struct err *e)
{
    struct probe *p = &run->batch[run->n_batch++];
    bool embeds = t->tensor == run->net->embedding, heads = t->tensor == run->net->head.tensor;
    *p = (struct probe){.t = t, .option = o, .in_head = heads};
    struct forward_span span = {embeds ? NULL : run->entering, embeds ? 0 : run->layer, run->net->n_layers};
    int rc = open_probe(p, run, e);
    if (rc == 0 && (embeds || !heads)) {
        run->step = (double)(span.end - span.first);
        rc = forward_run_span(&p->states, run->net, p->weights, run->w->inputs, run->w->n, run->w->ctx, &span,
                              &run->forward, e);
        run->done += run->step;
    }
    if (rc != 0)
        return err_context(e, rc, "%s as %s", t->tensor->name, qtype_name(o->type));
    return run->n_batch == BATCH ? score_batch(run, e) : 0;
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
    run.forward = (struct forward_options){.pool = opt->pool,
                                           .memory_bytes = opt->memory_bytes / 4,
                                           .keep_first = w->first,
                                           .keep_end = w->end,
                                           .activations = t->activations,
                                           .compute = opt->compute,
                                           .progress = show,
                                           .progress_ctx = &run};
    size_t n_known = 0, n = 0;
    loss_table_count(t, opt, &n_known, &n);
    if (n_known == n)
        return 0;
    run.total = count_work(&run);
    run.step = (double)net->n_layers;
    struct forward_span start = {0};
    int rc = forward_run(&run.reference, net, base, w->inputs, w->n, w->ctx, &run.forward, e);
    run.done += run.step;
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
    close_batch(&run);
    hidden_states_free(run.reference);
    hidden_states_free(run.entering);
    return rc;
}
