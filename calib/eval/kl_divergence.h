/* kl_divergence.h - how far a candidate's predictions are from the reference's, token by token on the same
 * text: what compression cost, independent of how good the model was.
 *
 * Per scored token: the divergence KL(ref || cand) of the whole distributions, the change dp of the
 * probability of the right token, and whether both put the same token first. Formulas of the summary:
 * specification, calibration-and-evaluation 7.3; the pairing makes differences far more certain than their
 * terms. */
#ifndef KERF_KL_DIVERGENCE_H
#define KERF_KL_DIVERGENCE_H

#include "perplexity.h"

#include <stdbool.h>

/* The percentiles that are reported, as shares. */
#define DIVERGENCE_N_PERCENTILES 13
extern const double
    divergence_percentiles[DIVERGENCE_N_PERCENTILES]; /* 0, .001, .01, .05, .1, .25, .5 ... 1 */

struct divergence {
    struct perplexity ppl;     /* of the candidate */
    struct estimate ppl_ratio; /* PPL(cand) / PPL(ref), paired error */
    struct estimate ln_ratio;  /* its logarithm */
    struct estimate ppl_difference;
    double correlation;       /* of the log-likelihoods, -1..1; NaN when one does not vary */
    struct estimate kld;      /* mean, nats per token */
    double kld_window_stderr; /* error of the mean from window means; NaN with one window */
    double kld_at[DIVERGENCE_N_PERCENTILES];
    struct estimate delta_p; /* mean of p_cand - p_ref of the right token, in 0..1 */
    struct estimate delta_p_rms;
    double delta_p_at[DIVERGENCE_N_PERCENTILES];
    struct estimate top1; /* share of tokens with the same first choice */
};

/* Quality kept, in percent: 100 PPL(ref) / PPL(cand). */
double divergence_kept(const struct divergence *d);

struct divergence_series { /* one value per scored token, in text order */
    const double *nll_ref, *nll, *kld;
    const bool *same_top;
    size_t n, run; /* tokens, tokens per window */
};

/* `scratch`: n doubles. */
void divergence_of(struct divergence *out, const struct divergence_series *s, double *scratch);

#endif
