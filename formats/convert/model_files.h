/* model_files.h - the files behind a MODEL argument: what an output must not replace, and what must be the
 * same for a stopped run to go on.
 *
 * A checkpoint folder also holds what is no part of it, often the very output. Weights and what decides about
 * their reading are "*.safetensors", "*config.json" and "*.index.json"; all else that is read (tokenizer,
 * model card) ends up in the metadata. */
#ifndef KERF_MODEL_FILES_H
#define KERF_MODEL_FILES_H

#include "libquant/base/err.h"
#include "libquant/base/sha256.h"

#include <time.h>

/* ERR_ARG when `output`, or a temporary name beside it, is a file of the model: any part of a split set, any
 * file of a checkpoint folder but GGUF files and unfinished outputs there, also by way of a link; or when it
 * is in the folder and has a name that belongs to the checkpoint. */
int model_files_refuse(const char *model, const char *output, struct err *e);

/* Names, sizes and times of the files with the weights. `newest` (may be NULL): the latest of these times. */
int model_files_hash(struct sha256 *h, const char *model, struct timespec *newest, struct err *e);

#endif
