/* evaluate_stored.h - candidates against a reference of which only a file is there: as evaluate.h, without a
 * reference to run. Log-likelihoods and first choices are those of a direct comparison to the bit,
 * divergences up to what row_sketch.h leaves open. */
#ifndef KERF_EVALUATE_STORED_H
#define KERF_EVALUATE_STORED_H

#include "evaluate.h"
#include "stored_reference.h"

/* v->nll[0] and so on are the reference's, from the file; candidate i is model i + 1. `n_windows`: the first
 * ones of the file, 0 for all. ERR_ARG: a candidate with a vocabulary of another size. When the run is
 * stopped the candidates that are finished count. *out: caller releases with evaluation_release. */
int evaluate_stored(struct evaluation *out, const struct stored_reference *ref,
                    const struct evaluate_model *candidates, size_t n_candidates, size_t n_windows,
                    const struct evaluate_options *opt, struct err *e);

#endif
