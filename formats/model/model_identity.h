/* model_identity.h - is this the model that it was? Four answers, by what they cost and what may change.
 *
 * - quick: names, sizes and times of its files; reads none of them. For a run that goes on where one was
 *   stopped, on the same machine (formats/rewrite).
 * - word: a line that a file can carry, the same for a checkpoint folder and the GGUF files made of it, at
 *   any precision. For importance matrices and Hessians.
 * - sampled: names, shapes and some rows of its tensors, whatever form they are stored in. For measurements
 *   that belong to these very values: importance states, tables of losses, plans (calib).
 * - full: every byte. For reports (calib/eval).
 *
 * All but the word are a SHA-256; what else must be equal (options, a text) its user adds. */
#ifndef KERF_MODEL_IDENTITY_H
#define KERF_MODEL_IDENTITY_H

#include "model.h"

#include "libquant/base/pool.h"
#include "libquant/base/progress.h"
#include "libquant/base/sha256.h"

#include <time.h>

/* Of the files behind a MODEL argument that hold weights or decide about their reading. `newest` (may be
 * NULL): the latest time at which one of them was changed or came under its name, see model_files_later. */
int model_identity_quick(struct sha256 *h, const char *path, struct timespec *newest, struct err *e);

/* The word has two parts. The norms (vectors that every quantization keeps in float32) tell models apart at
 * any precision; a few rows of every matrix tell apart those whose norms are equal, where neither is
 * quantized and both have the same precision. A model that was trained further without its norms, seen
 * quantized, is taken for the same. */
#define MODEL_IDENTITY_BYTES 96

/* "norms 16 hex digits, BF16 16 hex digits"; the second half is "quantized" for a model that is. Reads three
 * rows of each matrix. "" when the weights are not there. */
int model_identity(char out[MODEL_IDENTITY_BYTES], const struct model *m, struct err *e);

/* Do two such words certainly speak of different models? False when one of them is empty or unknown. */
bool model_identity_differs(const char *a, const char *b);

/* Of the tensors given, in their order: eight rows of each, spread evenly, as float32. */
int model_identity_sampled(struct sha256 *h, const struct model *m, const struct model_tensor *const *tensors,
                           size_t n, struct err *e);

/* What its metadata says under "<architecture>.", in whatever order: models with the same tensors may differ
 * in it. */
int model_identity_numbers(struct sha256 *h, const struct model *m, struct err *e);

/* The adapters merged into it: their files and how strong they are. Nothing where there are none. */
void model_identity_adapters(struct sha256 *h, const struct model *m);

/* All of it. A GGUF file or split set: its content hash (gguf_hash.h), whatever the order of tensors and the
 * cut into parts. A checkpoint folder: config.json and the safetensors files, with their names. With adapters
 * also theirs, and how strong they are. Reads all of it: `progress` (may be NULL) in bytes of a file. */
int model_identity_full(char out[65], const struct model *m, struct pool *pool,
                        const struct progress *progress, struct err *e);

#endif
