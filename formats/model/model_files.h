/* model_files.h - the files behind a MODEL argument: what an output must not replace, and what must be the
 * same for a stopped run to go on.
 *
 * A checkpoint folder also holds what is no part of it, often the very output. Weights and what decides about
 * their reading are "*.safetensors", "*config.json" and "*.index.json"; all else that is read (tokenizer,
 * model card) ends up in the metadata. */
#ifndef KERF_MODEL_FILES_H
#define KERF_MODEL_FILES_H

#include "libquant/base/err.h"

#include <stdbool.h>
#include <stdint.h>
#include <time.h>

struct stat;

/* ERR_ARG when `output`, or a temporary name beside it, is a file of the model: any part of a split set, any
 * file of a checkpoint folder but GGUF files and unfinished outputs there, also by way of a link; or when it
 * is in the folder and has a name that belongs to the checkpoint. */
int model_files_refuse(const char *model, const char *output, struct err *e);

/* Call `fn` for each file that holds weights or decides about their reading, in the order of their names,
 * until it answers nonzero, which is then the answer. */
int model_files_each(const char *model,
                     int (*fn)(void *ctx, const char *path, const struct stat *st, struct err *e), void *ctx,
                     struct err *e);

/* *out: the size of the file, or of the files, that hold a model's weights: all parts of a split set, the
 * safetensors files of a folder; of a file of any other kind its own. */
int model_files_bytes(uint64_t *out, const char *model, struct err *e);

/* Raise *newest to when this file was written (mtime), or to when it was renamed, linked or given an older
 * mtime (ctime, which nothing sets back). */
void model_files_later(struct timespec *newest, const struct stat *st);

/* Was the file, an output, written before that? */
bool model_files_is_older(const struct stat *st, const struct timespec *newest);

#endif
