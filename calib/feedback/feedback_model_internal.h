/* feedback_model_internal.h - between feedback_model.c and feedback_gate.c. */
#ifndef KERF_FEEDBACK_MODEL_INTERNAL_H
#define KERF_FEEDBACK_MODEL_INTERNAL_H

#include "feedback_model.h"

#include "libquant/base/strmap.h"

struct feedback_model {
    struct feedback_model_options opt;
    const struct net *net;
    struct feedback_tensor *tensors;
    size_t n;
    struct strmap by_name;
    struct feedback_store *store;
    struct feedback_result result;
    double *of_plain, *of_solved; /* [result.n_windows] divergences, of the first gate */
    uint64_t n_resumed, n_unsolved, n_unfactored;
    const char *unfactored; /* name of the first one, the Hessian file's */
};

struct hessian_use;

/* Does a use take this Gram matrix, and is its tensor (*i) to be solved? */
bool feedback_is_solved(const struct feedback_model *f, const struct hessian_use *u, size_t gram, size_t *i);

/* Those of tensor i that the output is to have. */
const uint8_t *feedback_chosen_blocks(const struct feedback_model *f, size_t i);

static inline uint32_t feedback_third(const struct feedback_model *f, uint32_t layer)
{
    if (layer >= f->net->n_layers) /* the head: if it is the embedding, too, it changes all layers */
        return 0;
    return (uint32_t)((uint64_t)layer * FEEDBACK_N_THIRDS / f->net->n_layers);
}

#endif
