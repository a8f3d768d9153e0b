/* model_check.h - does what the metadata of a model says hold together, and fit its tensors?
 *
 * The forward pass refuses a model with any finding of this check and `verify` reports them all, so that
 * neither knows of a fault that the other lets pass; `quantize` and `edit` warn. No weight is read. A key
 * that is missing, or a tensor, is not looked for here: which ones a family needs is known to model_verify.h
 * and to the loader. */
#ifndef KERF_MODEL_CHECK_H
#define KERF_MODEL_CHECK_H

#include "model.h"

#include "libquant/base/arena.h"
#include "libquant/base/string_list.h"

/* Append to `findings`, in `arena`, a sentence for each fault: a number outside its range, numbers that do
 * not fit each other, tensors of layers beyond block_count, a vocabulary of another size than the embedding.
 * Nothing is said of an architecture that is unknown here. ERR_NOMEM. */
int model_check(const struct model *m, struct string_list *findings, struct arena *arena, struct err *e);

#endif
