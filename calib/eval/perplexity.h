/* perplexity.h - perplexity with its uncertainty, from the negative log-likelihoods of the scored tokens.
 *
 *     PPL = exp(mean nll),   error = PPL * sqrt( (mean nll^2 - (mean nll)^2) / (n - 1) )
 *
 * which takes tokens as independent, as everybody prints it. The error from the means of windows stands
 * beside it: it also sees that the tokens of a window rise and fall together. */
#ifndef KERF_PERPLEXITY_H
#define KERF_PERPLEXITY_H

#include "statistics.h"

struct perplexity {
    size_t n_scored;
    struct estimate nll; /* mean, nats per token */
    double perplexity, perplexity_stderr;
    double window_stderr; /* of the perplexity, from window means; NaN with one window */
};

/* `run`: scored tokens per window. */
void perplexity_of(struct perplexity *out, const double *nll, size_t n, size_t run);

#endif
