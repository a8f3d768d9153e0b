/* score.h - a model run over requests: the log-likelihood of each continuation.
 *
 *     score_requests(likelihoods, &requests, &net, weights, &opt, &e);
 *
 * What inputs begin with alike goes through the model once (score_plan.h): the choices of a question cost the
 * question once, and so do the examples before all questions. A figure has the bits of a pass over its own
 * input alone, for any groups, threads and memory. */
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

/* Tokens that go through the model within so much memory, with and without padding. ERR_NOMEM. */
int score_count_tokens(size_t *padded, size_t *plain, const struct requests *r, const struct net *net,
                       const struct weights *w, uint64_t memory_bytes, struct err *e);

#endif
