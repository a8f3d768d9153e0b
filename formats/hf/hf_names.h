/* hf_names.h - names of stored tensors without what training programs put around them.
 *
 * torch.compile, data-parallel and sharding wrappers, PEFT and trainers add path components of their own, and
 * some savers forget to take them off. No model has such components, so they go wherever they stand. */
#ifndef KERF_HF_NAMES_H
#define KERF_HF_NAMES_H

#include "libquant/base/arena.h"

#include <stdbool.h>

/* `name` without wrappers; `name` itself when there are none, NULL when memory is refused. *wrapper (may be
 * NULL) gets the first that was taken off, untouched without one. */
const char *hf_name_unwrap(const char *name, struct arena *arena, const char **wrapper);

/* Does the name belong to an adapter that was not merged (lora_A, base_layer, modules_to_save, ...)? */
bool hf_name_is_adapter(const char *name);

/* A part of a weight as optimum-quanto stores it (X.weight._data, with _scale and _shift beside it)? */
bool hf_name_is_quanto(const char *name);

#endif
