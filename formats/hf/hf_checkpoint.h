/* hf_checkpoint.h - a HuggingFace folder: all shards behind one lookup of tensors by name.
 *
 * As in transformers, a model.safetensors wins over an index that does not name it; else the files of the
 * index are read, and without one every model*.safetensors. Specification, architectures 22.3. */
#ifndef KERF_HF_CHECKPOINT_H
#define KERF_HF_CHECKPOINT_H

#include "safetensors_read.h"

struct hf_checkpoint;

/* Open all shards of `folder` by the rules of safetensors_read.h. Files that are there but do not count are
 * named in a warning, as are tensors that an index misplaces or leaves out. Numbered shards without index
 * (model-00001-of-00003.safetensors) must be complete, and no tensor may be in two files. Names of the index
 * without a tensor are for the caller to judge (hf_checkpoint_absent), since which of them a model needs is
 * not known here. ERR_IO: no weights, or none of the index's files; ERR_UNSUPPORTED says when the weights are
 * pickles or an adapter.
 *
 * `allow_missing_weights`: a folder with an index but no shards opens with names only, n_dims 0 and data
 * NULL, one with neither without any tensor (for --dry-run and planning). A checkpoint is immutable, so
 * threads may share it. *out: caller frees with hf_checkpoint_close. */
int hf_checkpoint_open(struct hf_checkpoint **out, const char *folder, bool allow_missing_weights,
                       struct err *e);
void hf_checkpoint_close(struct hf_checkpoint *c);

const char *hf_checkpoint_folder(const struct hf_checkpoint *c);
bool hf_checkpoint_has_weights(const struct hf_checkpoint *c);
/* metadata.total_size of the index: bytes of all tensors. False: not stated. */
bool hf_checkpoint_total_size(const struct hf_checkpoint *c, double *n_bytes);
size_t hf_checkpoint_n_tensors(const struct hf_checkpoint *c);
const struct st_tensor *hf_checkpoint_tensor(const struct hf_checkpoint *c,
                                             size_t i);                         /* shard order, data order */
const char *hf_checkpoint_tensor_file(const struct hf_checkpoint *c, size_t i); /* path of its shard */
const struct st_tensor *hf_checkpoint_find(const struct hf_checkpoint *c, const char *name);

/* Names that the index lists and no file holds. */
size_t hf_checkpoint_n_absent(const struct hf_checkpoint *c);
const char *hf_checkpoint_absent(const struct hf_checkpoint *c, size_t i);
/* ERR_IO or ERR_FORMAT for those of them that are needed, by their numbers (at least one): the files that are
 * missing, or else the first few tensors. */
int hf_checkpoint_refuse_absent(const struct hf_checkpoint *c, const size_t *which, size_t n, struct err *e);

size_t hf_checkpoint_n_warnings(const struct hf_checkpoint *c);
const char *hf_checkpoint_warning(const struct hf_checkpoint *c, size_t i);

/* `<folder>/<name>` as a malloc'ed path; NULL when memory is refused. */
char *hf_path(const char *folder, const char *name);
bool hf_file_exists(const char *folder, const char *name);

#endif
