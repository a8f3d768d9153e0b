/* probe_batch.h - models that differ from the unquantized one in a few tensors: made, kept until there are
 * several, and scored against it together in one sweep over the vocabulary.
 *
 * All of them see the same tokens, so what is common to them cancels in comparisons. */
#ifndef KERF_PROBE_BATCH_H
#define KERF_PROBE_BATCH_H

#include "loss_table.h"

#include "calib/compute/hidden_states.h"

#define PROBE_BATCH 8 /* models of one sweep */

struct probe_target {
    const struct model_tensor *tensor;
    enum qtype type;
};

/* The model's weights, but for these tensors. *out: caller frees with weights_free. */
int probe_weights(struct weights **out, const struct loss_table *t, const struct loss_measure *opt,
                  const struct probe_target *list, size_t n, struct err *e);

struct probe {
    struct weights *weights;      /* owned */
    struct hidden_states *states; /* final ones of the scored positions; owned; NULL: the reference's */
    bool in_head;                 /* the head's product is quantized, too */
    double *kld, *kld_stderr;     /* where the result goes */
};

struct probe_batch {
    const struct loss_table *table; /* all borrowed */
    const struct net *net;
    const struct weights *base;
    const struct windows *w;
    const struct loss_measure *opt;
    const struct hidden_states *reference;
    struct probe probes[PROBE_BATCH];
    size_t n;
};

/* Divergences of the probes at hand into their places; then the batch is empty. */
int probe_batch_score(struct probe_batch *b, struct err *e);
void probe_batch_release(struct probe_batch *b);

#endif
