/* imatrix_collect.h - importance matrices from the forward pass: for every matrix product the sum of the
 * squared inputs of each column, and how many tokens went through it (for each expert, where there are
 * experts).
 *
 * Sums are kept in float64 and grow token by token in the order of the text, so the result is the same to the
 * bit for any number of threads, any memory bound, and a run that was killed and resumed. Which products
 * count: all matrices of the layers; the language head on request (under the embedding's name when it is
 * tied, which the peer leaves out). Truth: specification, calibration-and-evaluation 1. */
#ifndef KERF_IMATRIX_COLLECT_H
#define KERF_IMATRIX_COLLECT_H

#include "calib/corpus.h"
#include "calib/compute/compute.h"
#include "calib/model/model_load.h"
#include "calib/model/weights.h"
#include "formats/gguf/imatrix_file.h"

struct imatrix_collect_options {
    struct pool *pool;
    uint64_t memory_bytes;
    enum activations activations;
    bool process_output; /* the language head too */
    bool attention;      /* keys and values weighed by what attention does with each token */
    bool all_experts;    /* every expert sees every token; the states are those of the router's choice */
    bool by_router;  /* with it: tokens count for an expert by the router's weight, counts are their sums */
    bool perplexity; /* score the text on the same pass */
    /* Windows between two saves of the state, rounded up to whole tiles. 0: 32768 tokens' worth when the
     * weights stay in the page cache, all windows when they have to be read again for each wave. */
    size_t save_windows;
    const char *state_path;   /* where the state is kept between waves; NULL: nowhere */
    bool resume;              /* continue from state_path, if there is a state */
    const char *identity;     /* what this run is about (model, text, options), hashed by the caller */
    struct progress progress; /* a share; counts windows */
    const struct compute_ops *compute; /* what computes; NULL: the back end of this machine */
};

struct imatrix_collected {
    struct imatrix *imatrix; /* owns; chunk size and count are set, data sets are the caller's */
    size_t n_windows, n_tokens;
    size_t n_resumed; /* windows that came from the state of an earlier run */
    size_t n_scored;
    double perplexity, perplexity_stderr; /* NaN without `perplexity` */
};

/* Run all windows of `w` through the model. After every wave, the last one too, the state stands at
 * state_path; the caller removes it once the result is saved, so that nothing is lost when that fails. *out:
 * caller releases with imatrix_collected_release. ERR_FORMAT: a sum is not finite (the message names the
 * tensor), or the state is damaged; ERR_ARG: the state is about another run; ERR_CANCELLED: the message says
 * what is kept. */
int imatrix_collect(struct imatrix_collected *out, const struct net *net, struct weights *weights,
                    const struct windows *w, const struct imatrix_collect_options *opt, struct err *e);

/* How many windows a run with these options and `resume` would find done at state_path; 0 also when there is
 * no state. Fails as that run would. */
int imatrix_collect_look(size_t *n_windows, const struct net *net, const struct windows *w,
                         const struct imatrix_collect_options *opt, struct err *e);
void imatrix_collected_release(struct imatrix_collected *c);

#endif
