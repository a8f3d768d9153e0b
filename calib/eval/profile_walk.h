/* profile_walk.h - the walk behind profile.h: reference and candidate go through the layers side by side, and
 * with them every model that is the candidate but for one layer or one kind of tensor.
 *
 * Behind layer l there are l + 1 models with one layer restored, which are the candidate from there on: their
 * states travel with the candidate's own as so many more windows, so that a layer's weights are read (or
 * encoded) once for all of them. For L layers and K kinds the walk takes 3 + (L - 1) / 2 + K passes over its
 * windows: the reference, the candidate, its layers restored one by one, (L - 1) / 2 for what follows these,
 * and each kind. A kind costs nothing before the first layer in which it makes a difference. */
#ifndef KERF_PROFILE_WALK_H
#define KERF_PROFILE_WALK_H

#include "profile.h"
#include "profile_inputs.h"

#include "calib/model/net_parts.h"

/* The text of a profile. */
struct profile_sample {
    int32_t *ids; /* [n, ctx]; owned, as all up to `ends` */
    size_t n, ctx;
    size_t *lens;      /* [n] tokens of each that are text, the rest is padding; NULL: all */
    size_t first, end; /* positions whose final states are kept */
    int32_t *targets;  /* [n, end - first] of windows */
    uint8_t *use;      /* [n, end - first] nonzero: scored; NULL: all */
    size_t *rows;      /* [n_losses] of texts that are scored: rows of final states */
    size_t *ends;      /* [n] ends of the losses of each window or text */
    size_t n_losses;
};

void profile_sample_release(struct profile_sample *s);

/* A model that is followed to its end. */
struct profile_model {
    struct hidden_states *states;    /* final, of the kept positions */
    const struct evaluate_model *of; /* whose head it has ... */
    const struct weights *weights;   /* ... and where that is read */
};

struct kind_run {
    struct weights *view; /* the candidate's weights with this kind of the reference's; owned */
    struct kv_cache cache;
    struct hidden_states *states; /* between layers; NULL: no difference yet; owned */
};

struct profile_run {
    const struct evaluate_model *ref, *cand;
    const struct profile_options *opt;
    struct profile_sample sample;
    struct net_parts ref_parts, cand_parts;
    struct weights *ref_view, *cand_view;
    struct compute *compute;
    struct kind_run *kinds;
    int32_t *ids; /* [n_layers + 1] copies of the sample's */
    struct hidden_states *ref_states;
    struct hidden_states *crowd; /* the candidate, then the models with layers 0, 1, ... restored */
    size_t n_crowd;
    struct input_samples ref_inputs, own_inputs;
    struct output_change *changes; /* [n_tensors] */
    uint32_t layer;                /* at work; behind the last one: heads */
    struct profile *out;
};

/* From the embeddings to final states; fills errors of states and sums of products. out->layers, kinds and
 * tensors, views and parts are there. Then ref_states, crowd and the kinds' states are final. */
int profile_walk(struct profile_run *r, struct err *e);

/* Loss of each of n models at each of the sample's n_losses: losses [n][n_losses]. */
int profile_losses(double *losses, struct profile_run *r, const struct profile_model *models, size_t n,
                   struct err *e);

#endif
