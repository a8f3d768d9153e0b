/* toy_tower.h - random-weight checkpoints of multimodal models, from the lists of tests/golden/towers.txt:
 * one layer of text and two to four of each tower, bf16. Same name, same bytes.
 *
 * Lines of that file: "tower NAME" opens a checkpoint; "config JSON" is its config.json; "in NAME d0,d1" a
 * tensor of it, slowest dimension first; "inner JSON" and "with NAME d0,d1" are those of the folder
 * speech_tokenizer within, in f32. The other lines are what the reference converter makes of it. */
#ifndef KERF_TEST_TOY_TOWER_H
#define KERF_TEST_TOY_TOWER_H

#include "libquant/base/err.h"

/* Call `line` for each line of the list that belongs to `tower`, without its end; NULL: for every line. */
void toy_tower_lines(const char *tower, void (*line)(void *ctx, const char *text), void *ctx);

/* Write config.json, preprocessor_config.json and model.safetensors into `folder`, which is created. ERR_ARG:
 * no such name. */
int toy_tower_write(const char *folder, const char *name, struct err *e);

#endif
