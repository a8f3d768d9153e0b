/* answer.h - what embedding and scoring models make of the final states of a text.
 *
 *     embedding(text) = p / |p|, p the mean, first or last of its states y (after the final norm)
 *     score(text)     = W2 relu(W0 y + b0) + b2 or W2 y at a token; with two labels the log-odds of one
 *
 * The log-odds are the logit of the probability that a softmax over the two labels gives, and order texts as
 * it does. Truth: specification, architectures 5.6, 11.4, 12.4. */
#ifndef KERF_ANSWER_H
#define KERF_ANSWER_H

#include "model_load.h"
#include "weights.h"

#include "calib/compute/compute.h"

/* Rows [row0, row0 + n) of `states` are a text; out [n_embd] its embedding, of length 1 (0 when all states
 * are 0). `buffer`: n_embd floats. */
int answer_embedding(float *out, const struct net *net, const struct hidden_states *states, size_t row0,
                     size_t n, float *buffer, struct err *e);

struct answer_options {
    struct pool *pool;
    enum activations activations;
    const struct compute_ops *compute; /* NULL: the back end of this machine */
};

/* Scores of n single rows of `states`. */
int answer_scores(double *out, const struct net *net, const struct weights *w,
                  const struct hidden_states *states, const size_t *rows, size_t n,
                  const struct answer_options *opt, struct err *e);

#endif
