/* local_runs.h - what each tensor does to the output of its own layer: one walk through the model, in which
 * every layer is run once as it is and once more for each of its tensors.
 *
 * For layer l and tensor t, e = mean over tokens of |dh|^2 / |h|^2, h the states that leave the layer and dh
 * their change when t alone is stored in its probe type (loss_probe_option). The first token of each window
 * is left out: it is where models keep activations that are larger than all others by orders of magnitude,
 * and what holds for it holds for no other token. A tensor of the feed-forward step starts from the states
 * behind attention, so the walk costs 1 pass and for each tensor the steps from its own on. Layers come in
 * order, so the weights are read once from the disk.
 *
 * On its way the walk keeps what the probes to the output start from (fast_probe.c): the states that enter
 * some layers spread over the depth, and those before the feed-forward step of massive layers, across which
 * the ratio of the largest to the median norm of tokens more than doubles, to more than 10. */
#ifndef KERF_LOCAL_RUNS_H
#define KERF_LOCAL_RUNS_H

#include "loss_table.h"
#include "calib/model/net_parts.h"

#include "calib/model/forward.h"

struct kept_layer {
    uint32_t layer;
    double growth; /* of massive layers: how the ratio grew */
    struct hidden_states *states;
};

struct local_runs {
    struct loss_table *table; /* borrowed, as all up to `forward` */
    const struct net_parts *parts;
    uint32_t n_layers;
    struct weights *base;
    const struct windows *w;
    const struct loss_measure *opt;
    struct forward_options forward;
    void (*advance)(void *ctx, double passes); /* so much will be run next; for the progress bar */
    void *advance_ctx;
    /* results, owned */
    struct hidden_states *reference; /* final states of the scored positions */
    struct kept_layer depths[LOSS_MAX_DEPTHS], massive[LOSS_MAX_MASSIVE];
    size_t n_depths, n_massive;
};

/* Fill `local` of the table's options and the results. A run that is continued leaves out what is known. */
int local_runs_walk(struct local_runs *r, struct err *e);
void local_runs_release(struct local_runs *r);

/* Passes that the walk takes when nothing is known. */
double local_runs_cost(const struct loss_table *t, const struct net_parts *parts, uint32_t n_layers);

#endif
