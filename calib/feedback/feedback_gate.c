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
#include <string.h>

/* What is swapped: `base` in all of the model, `other` in one group. */
struct trial {
    enum feedback_blocks base, other;
};

struct gate {
    struct feedback_model *f;
    struct trial trial;
    const struct windows *w;
    struct weights *stored, *swapped; /* the latter with blocks of the tensors that were solved */
    struct hidden_states *reference, *entering[FEEDBACK_N_THIRDS];
    struct forward_options forward;
    double *of_base; /* [n_windows] divergence of the model of trial.base */
    double done;     /* passes */
};

static uint32_t first_layer(const struct gate *g, uint32_t third)
{
    uint32_t l = 0;
    while (l < g->f->net->n_layers && feedback_third(g->f, l) < third)
        l++;
    return l;
}

/* Use blocks of this kind, or of the one that was chosen if that is a lesser one, for the tensors of a group;
 * third or role below 0: any. */
static int swap(struct gate *g, int third, int role, enum feedback_blocks kind, struct err *e)
{
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < g->f->n; i++) {
        const struct feedback_tensor *t = &g->f->tensors[i];
        if ((third >= 0 && feedback_third(g->f, t->layer) != (uint32_t)third) ||
            (role >= 0 && (int)t->role != role))
            continue;
        rc =
            weights_set_blocks(g->swapped, t->tensor, t->type,
                               feedback_store_blocks(g->f->store, t->chosen < kind ? t->chosen : kind, i), e);
    }
    return rc;
}

static int show(void *ctx, const struct progress_step *s)
{
    const struct gate *g = ctx;
    /* one pass each for reference, plain model and result, two thirds of one for each group */
    const double passes = 3 + FEEDBACK_N_ROLES * 2;
    double at = g->done + progress_share(s);
    return progress_stops(&g->f->opt.progress, &(struct progress_step){.done = at < passes ? at : passes,
                                                                       .total = passes,
                                                                       .what = "checking on held-out text"});
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
    struct head_model models[2] = {{net, g->stored, g->reference}, {net, g->swapped, states}};
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
    int rc = weights_new(&g->stored, net->model, g->f->opt.kern, e);
    if (rc == 0)
        rc = weights_new(&g->swapped, net->model, g->f->opt.kern, e);
    if (rc == 0)
        rc = swap(g, -1, -1, g->trial.base, e);
    if (rc == 0)
        rc = forward_run(&g->reference, net, g->stored, g->w->inputs, g->w->n, g->w->ctx, &g->forward, e);
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
    return rc ? rc : measure(g, last, g->of_base, e);
}

/* Does the trial change tensor i, and is that of the group? */
static bool is_tried(const struct gate *g, size_t i, uint32_t third, enum feedback_role role)
{
    const struct feedback_tensor *t = &g->f->tensors[i];
    return feedback_third(g->f, t->layer) == third && t->role == role &&
           t->chosen >= (g->trial.base > g->trial.other ? g->trial.base : g->trial.other);
}

/* The lesser blocks of a group, where the others raise the divergence by more than its error. */
static int try_group(struct gate *g, uint32_t third, enum feedback_role role, double *kld, struct err *e)
{
    const bool lesser = g->trial.other < g->trial.base; /* is what is tried */
    struct feedback_group_result *r = &(lesser ? g->f->result.corrections : g->f->result.groups)[third][role];
    for (size_t i = 0; i < g->f->n; i++)
        r->n_tensors += is_tried(g, i, third, role);
    if (r->n_tensors == 0)
        return 0;
    int rc = swap(g, (int)third, (int)role, g->trial.other, e);
    if (rc == 0)
        rc = measure(g, third, kld, e);
    if (rc == 0)
        rc = swap(g, (int)third, (int)role, g->trial.base, e);
    if (rc != 0)
        return rc;
    struct estimate d = stat_mean_difference(kld, g->of_base, g->w->n);
    r->kld = stat_mean(kld, g->w->n).value;
    r->difference = d.value;
    r->error = d.error;
    r->is_lesser = (lesser ? -d.value : d.value) > (isnan(d.error) ? 0 : d.error);
    for (size_t i = 0; r->is_lesser && i < g->f->n; i++)
        if (is_tried(g, i, third, role))
            g->f->tensors[i].chosen = lesser ? g->trial.other : g->trial.base;
    return 0;
}

/* What is left, all together. */
static int confirm(struct gate *g, double *kld, struct err *e)
{
    struct feedback_result *r = &g->f->result;
    int rc = swap(g, -1, -1, FEEDBACK_CORRECTED, e);
    if (rc == 0)
        rc = measure(g, 0, kld, e);
    if (rc != 0)
        return rc;
    const double *plain = g->trial.base == FEEDBACK_PLAIN ? g->of_base : g->f->of_plain;
    struct estimate d = stat_mean_difference(kld, plain, g->w->n);
    r->plain_kld = stat_mean(plain, g->w->n).value;
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
    memcpy(f->of_solved, f->of_plain, r->n_windows * sizeof *f->of_solved);
    for (size_t i = 0; i < f->n; i++)
        f->tensors[i].chosen = FEEDBACK_PLAIN;
    for (int t = 0; t < FEEDBACK_N_THIRDS; t++)
        for (int role = 0; role < FEEDBACK_N_ROLES; role++)
            r->groups[t][role].is_lesser = true;
}

/* kld [n_windows]: scratch, then of the result. */
static int run_gate(struct gate *g, bool groups, double *kld, struct err *e)
{
    struct feedback_model *f = g->f;
    g->forward = (struct forward_options){.pool = f->opt.pool,
                                          .memory_bytes = f->opt.memory_bytes / 4,
                                          .memory_share = 4,
                                          .activations = ACTIVATIONS_F32,
                                          .keep_first = g->w->first,
                                          .keep_end = g->w->end,
                                          .progress = {show, g}};
    int rc = prepare(g, e);
    for (uint32_t t = 0; rc == 0 && groups && t < FEEDBACK_N_THIRDS; t++)
        for (int role = 0; rc == 0 && role < FEEDBACK_N_ROLES; role++)
            rc = try_group(g, t, (enum feedback_role)role, kld, e);
    if (rc == 0)
        rc = confirm(g, kld, e);
    if (rc == ERR_CANCELLED && f->opt.resume)
        err_set(e, ERR_CANCELLED,
                ERR_STOPPED ": all layers are solved and kept in %s; --resume continues from there",
                f->opt.store_path);
    for (int t = 0; t < FEEDBACK_N_THIRDS; t++)
        hidden_states_free(g->entering[t]);
    hidden_states_free(g->reference);
    weights_free(g->stored);
    weights_free(g->swapped);
    return rc;
}

/* Room for the divergences of n windows, at *to. */
static int make_room(double **to, size_t n, struct err *e)
{
    free(*to);
    *to = malloc(n * sizeof **to + 1);
    return *to ? 0 : err_set(e, ERR_NOMEM, "out of memory for %zu windows", n);
}

static int run_plain_gate(struct feedback_model *f, const struct windows *held_out, bool groups,
                          struct err *e)
{
    struct gate g = {.f = f, .w = held_out, .trial = {FEEDBACK_PLAIN, FEEDBACK_SOLVED}};
    int rc = make_room(&f->of_plain, held_out->n, e);
    if (rc == 0)
        rc = make_room(&f->of_solved, held_out->n, e);
    g.of_base = f->of_plain;
    return rc ? rc : run_gate(&g, groups, f->of_solved, e);
}

int feedback_model_gate(struct feedback_model *f, const struct windows *held_out, struct err *e)
{
    int rc = run_plain_gate(f, held_out, true, e);
    if (rc == 0)
        give_up_harm(f);
    return rc;
}

int feedback_model_compare(struct feedback_model *f, const struct windows *held_out, struct err *e)
{
    return run_plain_gate(f, held_out, false, e);
}

/* All corrections go, unless they lower the divergence together. */
static void judge_corrections(struct feedback_model *f, const double *kld)
{
    struct feedback_result *r = &f->result;
    struct estimate d = stat_mean_difference(kld, f->of_solved, r->n_windows);
    r->has_corrections = true;
    r->corrected_kld = r->kld;
    r->corrected_difference = d.value;
    r->corrected_error = d.error;
    if (d.value < 0)
        return;
    struct estimate of_plain = stat_mean_difference(f->of_solved, f->of_plain, r->n_windows);
    r->kld = r->solved_kld;
    r->difference = of_plain.value;
    r->error = of_plain.error;
    for (size_t i = 0; i < f->n; i++)
        if (f->tensors[i].chosen == FEEDBACK_CORRECTED)
            f->tensors[i].chosen = FEEDBACK_SOLVED;
}

int feedback_model_gate_corrections(struct feedback_model *f, const struct windows *held_out, struct err *e)
{
    struct gate g = {.f = f, .w = held_out, .trial = {FEEDBACK_CORRECTED, FEEDBACK_SOLVED}};
    double *kld = NULL;
    int rc = f->of_solved && f->result.n_windows == held_out->n
                 ? make_room(&g.of_base, held_out->n, e)
                 : err_set(e, ERR_ARG, "corrections are judged behind the first gate, on the same windows");
    if (rc == 0)
        rc = make_room(&kld, held_out->n, e);
    f->result.solved_kld = f->result.kld;
    if (rc == 0)
        rc = run_gate(&g, true, kld, e);
    if (rc == 0)
        judge_corrections(f, kld);
    free(g.of_base);
    free(kld);
    return rc;
}
