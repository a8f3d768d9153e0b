/* toy_adapter.h - PEFT folders with random factors for the checkpoints of toy_checkpoint.h and toy_family.h:
 * ranks and alphas by pattern, DoRA, embeddings and heads, stacks of experts, whole tensors.
 *
 * The factors are large enough that every module shows in the predictions. Same name, same bytes. */
#ifndef KERF_TOY_ADAPTER_H
#define KERF_TOY_ADAPTER_H

#include "libquant/base/err.h"

/* Names in a fixed order, NULL at the end, and for each the name of its base: one of toy_family_names, or
 * "llama-untied", "qwen3" or "qwen2-untied" (the tiny dense models). */
extern const char *const toy_adapter_names[], *const toy_adapter_bases[];

/* Write adapter_config.json and adapter_model.safetensors into `folder`, which is created. ERR_ARG: no such
 * name. */
int toy_adapter_write(const char *folder, const char *name, struct err *e);

/* Write the base of this name into `folder`. */
int toy_adapter_write_base(const char *folder, const char *base, struct err *e);

#endif
