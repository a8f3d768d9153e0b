/* state_change.h - how far the states of a text between two layers have moved: the mean over tokens of
 * |h' - h|^2 / |h|^2. Its root is the relative error that tables show. Each token counts alike, so that a few
 * of huge norm, which many models have, do not hide the others. */
#ifndef KERF_STATE_CHANGE_H
#define KERF_STATE_CHANGE_H

#include "calib/compute/hidden_states.h"

struct state_tokens {
    size_t n, ctx;      /* tokens, in windows of ctx */
    const size_t *lens; /* [n / ctx] tokens of each window that count; NULL: all */
    bool skip_first;    /* of each window */
};

/* Rows [0, t->n) of both. 0 where nothing counts; tokens whose state is 0 do not. */
int state_change(double *out, const struct hidden_states *h, const struct hidden_states *changed,
                 const struct state_tokens *t, struct err *e);

#endif
