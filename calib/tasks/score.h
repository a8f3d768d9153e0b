/* score.h - a model run over requests: the log-likelihood of each continuation.
 *
 *     score_requests(likelihoods, &requests, &net, weights, &opt, &e);
 *
 * Requests whose input begins another one share its run, so the choices of one letter each cost one pass over
 * their question. Runs go through the model in groups of about equal length, the longest first, padded on the
 * right, which causal models do not see: a figure depends on neither the groups nor the threads. */
#ifndef KERF_SCORE_H
#define KERF_SCORE_H

#include "requests.h"

#include "calib/model/head.h"
#include "calib/model/kv_cache.h"

struct likelihood {
    double sum;      /* ln of the continuation, nats */
    double mean;     /* a token, over the range of request.mean_first */
    size_t n_tokens; /* of the continuation */
    bool greedy;     /* each of its tokens is the most probable one */
};

struct score_options {
    const char *name; /* of the model, for progress; or NULL */
    struct pool *pool;
    uint64_t memory_bytes;
    enum activations activations;
    struct kv_cache cache;
    struct progress progress;          /* in tokens, padding included */
    const struct compute_ops *compute; /* NULL: the back end of this machine */
};

/* `out` [requests.n]. ERR_UNSUPPORTED: a model without a language head; ERR_FORMAT: a prediction that is no
 * number; ERR_CANCELLED. */
int score_requests(struct likelihood *out, const struct requests *r, const struct net *net, struct weights *w,
                   const struct score_options *opt, struct err *e);

/* Tokens that go through the model, with and without padding. ERR_NOMEM. */
int score_count_tokens(size_t *padded, size_t *plain, const struct requests *r, const struct net *net,
                       const struct weights *w, struct err *e);

#endif
