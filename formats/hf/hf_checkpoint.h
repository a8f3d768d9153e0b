/* hf_checkpoint.h - a HuggingFace folder: all shards behind one lookup of tensors by name.
 *
 * With an index the files it names are read, and names must agree in both directions; without, the
 * model*.safetensors of the folder. Specification, architectures 22.3. */
#ifndef KERF_HF_CHECKPOINT_H
#define KERF_HF_CHECKPOINT_H

#include "safetensors_read.h"

struct hf_checkpoint;

/* Open all shards of `folder`. Everything is checked: shards by the rules of safetensors_read.h; with an
 * index each name must be in the file that the index states, and nothing else may be there; without, numbered
 * shards (model-00001-of-00003.safetensors) must be complete. ERR_FORMAT lists the first few tensors that
 * disagree, ERR_IO the files that are missing, ERR_UNSUPPORTED says when the weights are pickles or an
 * adapter.
 *
 * `allow_missing_weights`: a folder with an index but no shards opens with names only, n_dims 0 and data
 * NULL, one with neither without any tensor (for --dry-run and planning). Warnings (total_size mismatch) are
 * collected, see below. A checkpoint is immutable, so threads may share it. *out: caller frees with
 * hf_checkpoint_close. */
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
size_t hf_checkpoint_n_warnings(const struct hf_checkpoint *c);
const char *hf_checkpoint_warning(const struct hf_checkpoint *c, size_t i);

/* `<folder>/<name>` as a malloc'ed path; NULL when memory is refused. */
char *hf_path(const char *folder, const char *name);
bool hf_file_exists(const char *folder, const char *name);

#endif
