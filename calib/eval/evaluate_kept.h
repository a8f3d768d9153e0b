/* evaluate_kept.h - evaluate.h with a folder of scores: what is there is taken from it, what is not is
 * measured and put there, model by model and stretch by stretch. The figures are those of evaluate() to the
 * bit, whatever was there before and however often the run was stopped. */
#ifndef KERF_EVALUATE_KEPT_H
#define KERF_EVALUATE_KEPT_H

#include "evaluate.h"
#include "score_store.h"

/* models[0] is the reference; identities[i] is a hash of what model i is. ERR_CANCELLED: what is finished is
 * kept, and the message says how much that is. *n_found: of *n_units stretches of all models, so many were
 * there. */
int evaluate_kept(struct evaluation *out, const struct evaluate_model *models, const char *const *identities,
                  size_t n_models, const struct windows *w, struct score_store *store,
                  const struct evaluate_options *opt, size_t *n_found, size_t *n_units, struct err *e);

#endif
