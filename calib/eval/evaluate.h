/* evaluate.h - run models over windows of text and score every position: the engine behind perplexity,
 * compare and ladder.
 *
 * Text goes in waves. In each wave every model's states are computed, then one sweep over the vocabulary
 * scores them together against the reference. Waves make partial figures possible when a run is stopped;
 * there is a single one when reading or encoding the weights again would be the larger cost. */
#ifndef KERF_EVALUATE_H
#define KERF_EVALUATE_H

#include "calib/corpus.h"
#include "calib/model/forward.h"
#include "calib/model/head.h"
#include "calib/model/kv_cache.h"

#include <stdbool.h>

struct evaluate_model {
    const char *name; /* for progress */
    const struct net *net;
    struct weights *weights;
    struct kv_cache cache; /* of this model's attention; zeroed: exact */
};

struct evaluate_options {
    struct pool *pool;
    uint64_t memory_bytes;
    enum activations activations;
    struct progress progress; /* a share; counts windows, or texts; names the model, or "scoring" */
    /* Sees the reference's final states and scores of n positions, wave by wave, in order; or NULL. A nonzero
     * return ends the run with it. */
    int (*take_reference)(void *ctx, const struct head_model *reference, const struct head_score *scores,
                          size_t n, const struct head_options *opt, struct err *e);
    void *take_ctx;
    const struct compute_ops *compute; /* what computes; NULL: the back end of this machine */
};

/* The scores of all positions that were finished. */
struct evaluation {
    size_t n_models;  /* scored; fewer than asked when the run was stopped between candidates */
    size_t n_windows; /* scored */
    size_t run;       /* positions per window */
    size_t n;         /* n_windows * run */
    double **nll;     /* [n_models][n] */
    double **kld;     /* [n_models][n]; [0] all 0 */
    bool **same_top;  /* [n_models][n]; [0] all true */
    double *seconds;  /* [n_models] forward pass of each, and its share of the sweep */
    bool partial;     /* stopped early: some windows or models are missing */
    size_t *ends;     /* [n_windows] ends of the positions of each, when only some were selected; else NULL */
};

/* models[0] is the reference. ERR_UNSUPPORTED: a model without a language head. Stopped before anything was
 * scored: ERR_CANCELLED. *out: caller releases with evaluation_release. */
int evaluate(struct evaluation *out, const struct evaluate_model *models, size_t n_models,
             const struct windows *w, const struct evaluate_options *opt, struct err *e);
void evaluation_release(struct evaluation *v);

/* The positions whose `use` has this bit (corpus.h); `run` has no meaning then, `ends` has. *out: released
 * like any other. ERR_NOMEM. */
int evaluation_select(struct evaluation *out, const struct evaluation *v, const uint8_t *use, uint8_t bit,
                      struct err *e);

/* ERR_FORMAT, with the position, when a score of model `m`, called `name`, is not a number. */
int evaluation_check_finite(const struct evaluation *v, size_t m, const char *name, struct err *e);

/* How models run over windows, and how their states are scored: what every way to evaluate begins with. */
struct forward_options evaluate_forward(const struct evaluate_options *opt, const struct windows *w,
                                        const struct evaluate_model *m, struct progress progress);
struct head_options evaluate_head(const struct evaluate_options *opt, struct progress progress);

/* Let go of all models behind the first n. */
void evaluation_keep_models(struct evaluation *v, size_t n_models);

#endif
