/* toy_family.h - random-weight checkpoints of the families with routed experts and delta-net layers, and of
 * the first Qwen, which toy_checkpoint.h does not make: one fixed small shape each, written from a table of
 * tensor names.
 *
 * Four layers (three without delta nets) of width 64, a vocabulary of 320, bf16. Weights are large enough
 * that every part of a layer shows in the predictions. Same name, same bytes. */
#ifndef KERF_TOY_FAMILY_H
#define KERF_TOY_FAMILY_H

#include "libquant/base/err.h"

#include <stddef.h>

/* Names in a fixed order, NULL at the end: "qwen", "mixtral", "qwen2moe", "qwen3moe", "qwen3next", "qwen35",
 * "qwen35moe", and variants: "mixtral-stacked" (experts as newer transformers store them), "qwen2moe-window",
 * "qwen3moe-mixed" (stacked, every other layer without experts, a window, weights not renormalised),
 * "qwen3vlmoe" (stacks as published, with swapped axes); then one or two of each other house. */
extern const char *const toy_family_names[];

/* Dense models that answer once for a text: Qwen3 embeddings "embedding-last", "embedding-mean",
 * "embedding-first" and (Qwen3-VL) "embedding-vl-last"; "score" (Qwen3, one label); "reward" and "stepreward"
 * (Qwen2, two layers; the latter has two labels). NULL at the end. */
extern const char *const toy_answer_names[];

/* Write config.json, model.safetensors and a tokenizer into `folder`, which is created. ERR_ARG: no such
 * name. */
int toy_family_write(const char *folder, const char *name, struct err *e);

#endif
