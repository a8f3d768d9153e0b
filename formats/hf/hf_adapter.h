/* hf_adapter.h - a PEFT adapter in the place of a model, or beside one: what it is, in words that help. */
#ifndef KERF_HF_ADAPTER_H
#define KERF_HF_ADAPTER_H

#include "libquant/base/err.h"

#include <stddef.h>

#define HF_ADAPTER_NAME "adapter_config.json"

/* ERR_UNSUPPORTED: the folder holds an adapter and no model; names its kind and its base model. */
int hf_adapter_refuse(const char *folder, struct err *e);

/* "a LORA adapter of rank 4 for 'Qwen/Qwen3-0.6B'", as far as adapter_config.json says. */
void hf_adapter_describe(char *out, size_t cap, const char *folder);

#endif
