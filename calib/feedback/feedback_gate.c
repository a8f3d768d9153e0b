/* feedback_gate.c - the gate of feedback_model.h: each group alone in the model of the plain encoder.
 *
 * The states that enter each third of the layers are those of the plain model and kept, so a group costs the
 * layers from its third on. A head or an embedding that is not solved stays as it is: it is the same on both
 * sides, and would have to be encoded anew for every pass. */
#include "feedback_model_internal.h"

#include "calib/eval/statistics.h"
#include "calib/model/forward.h"
#include "calib/model/head.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

struct gate {
    struct feedback_model *f;
    const struct windows *w;
    struct weights *base, *swapped; /* as stored; with blocks of the tensors that were solved */
    struct hidden_states *reference, *entering[FEEDBACK_N_THIRDS];
    struct forward_options forward;
    double *plain; /* [n_windows] divergence of the plain model */
    double done;   /* passes */
};

static uint32_t first_layer(const struct gate *g, uint32_t third)
{
    uint32_t l = 0;
    while (l < g->f->net->n_layers && feedback_third(g->f, l) < third)
        l++;
    return l;
}

/* Use the solved or the plain blocks of the tensors of a group; third or role below 0: any. */
static int swap(struct gate *g, int third, int role, bool solved, struct err *e)
{
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < g->f->n; i++) {
        const struct feedback_tensor *t = &g->f->tensors[i];
        if ((third >= 0 && feedback_third(g->f, t->layer) != (uint32_t)third) ||
            (role >= 0 && (int)t->role != role))
            continue;
        rc = weights_set_blocks(g->swapped, t->tensor, t->type,
                                solved && !t->is_plain ? feedback_store_solved(g->f->store, i)
                                                       : feedback_store_plain(g->f->store, i),
                                e);
    }
    return rc;
}

static int show(void *ctx, const struct progress_step *s)
{
    const struct gate *g = ctx;
    /* one pass each for reference, plain model and result, two thirds of one for each group */
    const double passes = 3 + FEEDBACK_N_ROLES * 2;
    double at = g->done + progress_share(s);
    return progress_stops(
        &g->f->opt.progress,
        &(struct progress_step){.done = at < passes ? at : passes, .total = passes, .what = "gating"});
}

/* Divergence of the swapped model from its third's states on, per window. */
static int measure(struct gate *g, uint32_t third, double *kld, struct err *e)
{
    const struct net *net = g->f->net;
    struct hidden_states *states = NULL;
    struct forward_span span = {g->entering[third], first_layer(g, third), net->n_layers};
    size_t run = windows_n_scored(g->w), n = g->w->n * run;
    struct head_score *scores = malloc(2 * n * sizeof *scores);
    struct head_options h = {
        .pool = g->f->opt.pool, .memory_bytes = g->f->opt.memory_bytes / 4, .activations = ACTIVATIONS_F32};
    int rc = scores ? 0 : err_set(e, ERR_NOMEM, "out of memory for %zu positions", n);
    if (rc == 0)
        rc = forward_run_span(&states, net, g->swapped, g->w->inputs, g->w->n, g->w->ctx, &span, &g->forward,
                              e);
    g->done += (double)(span.end - span.first) / net->n_layers;
    struct head_model models[2] = {{net, g->base, g->reference}, {net, g->swapped, states}};
    if (rc == 0)
        rc = head_score(models, 2, g->w->targets, n, &h, scores, e);
    for (size_t i = 0; rc == 0 && i < g->w->n; i++) {
        double sum = 0;
        for (size_t k = 0; k < run; k++)
            sum += scores[n + i * run + k].kld;
        kld[i] = sum / (double)run;
    }
    hidden_states_free(states);
    free(scores);
    return rc;
}

static int prepare(struct gate *g, struct err *e)
{
    const struct net *net = g->f->net;
    struct forward_span span = {NULL, 0, 0};
    int rc = weights_new(&g->base, net->model, g->f->opt.kern, e);
    if (rc == 0)
        rc = weights_new(&g->swapped, net->model, g->f->opt.kern, e);
    if (rc == 0)
        rc = swap(g, -1, -1, false, e);
    if (rc == 0)
        rc = forward_run(&g->reference, net, g->base, g->w->inputs, g->w->n, g->w->ctx, &g->forward, e);
    g->done = 1;
    uint32_t last = 0; /* thirds of a model with one or two layers may be empty */
    for (uint32_t t = 1; rc == 0 && t < FEEDBACK_N_THIRDS && first_layer(g, t) < net->n_layers; t++) {
        span.end = first_layer(g, t);
        rc = forward_run_span(&g->entering[t], net, g->swapped, g->w->inputs, g->w->n, g->w->ctx, &span,
                              &g->forward, e);
        span.from = g->entering[t];
        span.first = span.end;
        last = t;
    }
    return rc ? rc : measure(g, last, g->plain, e);
}

static int try_group(struct gate *g, uint32_t third, enum feedback_role role, double *kld, struct err *e)
{
    struct feedback_group_result *r = &g->f->result.groups[third][role];
    for (size_t i = 0; i < g->f->n; i++)
        r->n_tensors +=
            feedback_third(g->f, g->f->tensors[i].layer) == third && g->f->tensors[i].role == role;
    if (r->n_tensors == 0)
        return 0;
    int rc = swap(g, (int)third, (int)role, true, e);
    if (rc == 0)
        rc = measure(g, third, kld, e);
    if (rc == 0)
        rc = swap(g, (int)third, (int)role, false, e);
    if (rc != 0)
        return rc;
    struct estimate d = stat_mean_difference(kld, g->plain, g->w->n);
    r->kld = stat_mean(kld, g->w->n).value;
    r->difference = d.value;
    r->error = d.error;
    r->is_plain = d.value > (isnan(d.error) ? 0 : d.error);
    for (size_t i = 0; i < g->f->n; i++)
        if (feedback_third(g->f, g->f->tensors[i].layer) == third && g->f->tensors[i].role == role)
            g->f->tensors[i].is_plain = r->is_plain;
    return 0;
}

/* What is left, all together. */
static int confirm(struct gate *g, double *kld, struct err *e)
{
    struct feedback_result *r = &g->f->result;
    int rc = swap(g, -1, -1, true, e);
    if (rc == 0)
        rc = measure(g, 0, kld, e);
    if (rc != 0)
        return rc;
    struct estimate d = stat_mean_difference(kld, g->plain, g->w->n);
    r->plain_kld = stat_mean(g->plain, g->w->n).value;
    r->kld = stat_mean(kld, g->w->n).value;
    r->difference = d.value;
    r->error = d.error;
    r->n_windows = g->w->n;
    return 0;
}

/* If even what is left does harm, nothing is: the result is the plain model's. */
static void give_up_harm(struct feedback_model *f)
{
    struct feedback_result *r = &f->result;
    if (!(r->difference > (isnan(r->error) ? 0 : r->error)))
        return;
    r->kld = r->plain_kld;
    r->difference = r->error = 0;
    for (size_t i = 0; i < f->n; i++)
        f->tensors[i].is_plain = true;
    for (int t = 0; t < FEEDBACK_N_THIRDS; t++)
        for (int role = 0; role < FEEDBACK_N_ROLES; role++)
            r->groups[t][role].is_plain = true;
}

static int run_gate(struct feedback_model *f, const struct windows *held_out, bool groups, struct err *e)
{
    struct gate g = {.f = f, .w = held_out};
    g.forward = (struct forward_options){.pool = f->opt.pool,
                                         .memory_bytes = f->opt.memory_bytes / 4,
                                         .memory_share = 4,
                                         .activations = ACTIVATIONS_F32,
                                         .keep_first = held_out->first,
                                         .keep_end = held_out->end,
                                         .progress = {show, &g}};
    double *kld = malloc(held_out->n * sizeof *kld + 1);
    g.plain = malloc(held_out->n * sizeof *g.plain + 1);
    int rc = kld && g.plain ? 0 : err_set(e, ERR_NOMEM, "out of memory for %zu windows", held_out->n);
    if (rc == 0)
        rc = prepare(&g, e);
    for (uint32_t t = 0; rc == 0 && groups && t < FEEDBACK_N_THIRDS; t++)
        for (int role = 0; rc == 0 && role < FEEDBACK_N_ROLES; role++)
            rc = try_group(&g, t, (enum feedback_role)role, kld, e);
    if (rc == 0)
        rc = confirm(&g, kld, e);
    if (rc == ERR_CANCELLED && f->opt.resume)
        err_set(e, ERR_CANCELLED,
                ERR_STOPPED ": all layers are solved and kept in %s; --resume continues from there",
                f->opt.store_path);
    for (int t = 0; t < FEEDBACK_N_THIRDS; t++)
        hidden_states_free(g.entering[t]);
    hidden_states_free(g.reference);
    weights_free(g.base);
    weights_free(g.swapped);
    free(g.plain);
    free(kld);
    return rc;
}

int feedback_model_gate(struct feedback_model *f, const struct windows *held_out, struct err *e)
{
    int rc = run_gate(f, held_out, true, e);
    if (rc == 0)
        give_up_harm(f);
    return rc;
}

int feedback_model_compare(struct feedback_model *f, const struct windows *held_out, struct err *e)
{
    return run_gate(f, held_out, false, e);
}
