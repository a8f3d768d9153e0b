/* imatrix_file.h - importance matrices: the legacy .dat form and the GGUF form, read, written, merged.
 *
 * In memory an entry holds raw sums S (float64) and token counts C, one count per matrix of the tensor (1 for
 * plain weights, n_experts for expert stacks). Truth: specification, calibration-and-evaluation 2, 3 and 5.
 */
#ifndef KERF_IMATRIX_FILE_H
#define KERF_IMATRIX_FILE_H

#include "libquant/base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct imatrix_entry {
    const char *name;  /* tensor name, e.g. "blk.0.attn_q.weight" */
    uint64_t n_values; /* n_cols * n_mats */
    uint64_t n_mats;   /* number of counts */
    double *sums;      /* [n_mats, n_values / n_mats]: sum over tokens of x^2 */
    double *counts;    /* [n_mats] tokens */
};

struct imatrix; /* owns its entries; sorted by name */

int imatrix_new(struct imatrix **out, struct err *e);
void imatrix_free(struct imatrix *m);

/* Either format, detected by content. The legacy form does not say how many tokens a chunk had: its entries
 * come with one count, in chunks, and stay so (imatrix_counts_are_chunks) until a chunk size is set, or until
 * they are merged or saved as GGUF, where IMATRIX_DEFAULT_CHUNK tokens are assumed if nothing better is
 * known. ERR_FORMAT: damaged, values that are negative or not finite, an entry without its counts, names
 * twice. */
int imatrix_load(struct imatrix **out, const char *path, struct err *e);
int imatrix_load_memory(struct imatrix **out, const void *data, size_t len, const char *what, struct err *e);

#define IMATRIX_DEFAULT_CHUNK 512

/* Tensors of a GGUF file that belong to no entry and were left out; the caller may want to say so. */
size_t imatrix_n_ignored(const struct imatrix *m);
bool imatrix_counts_are_chunks(const struct imatrix *m);

/* The bytes are those the peer's tool writes for the same sums, counts and data sets. The legacy form leaves
 * out entries without any tokens. ERR_ARG: nothing to write, a name too long (55 bytes in the GGUF form), a
 * value beyond float32, or a number beyond the legacy form's 32 bits. */
enum imatrix_format { IMATRIX_GGUF, IMATRIX_DAT };
int imatrix_save(const struct imatrix *m, const char *path, enum imatrix_format format, bool overwrite,
                 struct err *e);

size_t imatrix_n(const struct imatrix *m);
const struct imatrix_entry *imatrix_entry_at(const struct imatrix *m, size_t i);
const struct imatrix_entry *imatrix_find(const struct imatrix *m, const char *name);

/* The entry that serves a tensor: of its name, or where gate and up of the experts are one tensor in the
 * model and two in the matrix, or the other way round, of the name that has the same input (ffn_gate_up_exps,
 * ffn_gate_exps, ffn_up_exps). NULL: none. */
const struct imatrix_entry *imatrix_find_for(const struct imatrix *m, const char *tensor);

/* Find or create an entry with zeroed sums and counts. ERR_ARG when it exists with other sizes. */
int imatrix_add(struct imatrix *m, const char *name, uint64_t n_values, uint64_t n_mats,
                struct imatrix_entry **out, struct err *e);

size_t imatrix_n_datasets(const struct imatrix *m);
const char *imatrix_dataset(const struct imatrix *m, size_t i);
int imatrix_add_dataset(struct imatrix *m, const char *name, struct err *e);
uint32_t imatrix_chunk_size(const struct imatrix *m); /* tokens per chunk; 0 when unknown */
uint32_t imatrix_chunk_count(const struct imatrix *m);

/* What it was collected on: a word about the model (formats/model/model_identity.h), kept by the GGUF form
 * under the key kerf.imatrix.model. "": not known; IMATRIX_SEVERAL_MODELS: merged from matrices of different
 * ones. */
#define IMATRIX_MODEL_KEY      "kerf.imatrix.model"
#define IMATRIX_MODEL_BYTES    96
#define IMATRIX_SEVERAL_MODELS "several"
const char *imatrix_model(const struct imatrix *m);
void imatrix_set_model(struct imatrix *m, const char *identity);

/* Was every expert shown every token, so that counts say nothing of the router? The GGUF form keeps it under
 * the key kerf.imatrix.all_experts; merging gives true where one of the two was. */
bool imatrix_all_experts(const struct imatrix *m);
void imatrix_set_all_experts(struct imatrix *m);

/* Did those tokens count for an expert by the router's weight, so that counts are sums of weights? Likewise
 * kerf.imatrix.by_router. */
bool imatrix_by_router(const struct imatrix *m);
void imatrix_set_by_router(struct imatrix *m);

/* Keep the entries whose name one of the `include` finds (all, where there is none) and none of the
 * `exclude`: PCREs, searched in the name. *n_left: entries that are left. ERR_ARG: an expression that does
 * not compile, or takes too many steps. */
int imatrix_select(struct imatrix *m, const char *const *include, size_t n_include,
                   const char *const *exclude, size_t n_exclude, size_t *n_left, struct err *e);

/* Which run wrote it: a hash of model, text and options by which --resume knows a finished output, kept by
 * the GGUF form under the key kerf.imatrix.run. "": not known. A merge has none. */
#define IMATRIX_RUN_KEY   "kerf.imatrix.run"
#define IMATRIX_RUN_BYTES 65
const char *imatrix_run(const struct imatrix *m);
void imatrix_set_run(struct imatrix *m, const char *run);

/* When counts were in chunks, sums and counts are turned into tokens by it. */
void imatrix_set_chunks(struct imatrix *m, uint32_t chunk_size, uint32_t chunk_count);

/* Sums and counts add up, data sets are appended, the chunk count becomes the largest count / chunk size. The
 * peer's rules for counts that differ in number: a single count of `into` is replicated when `from` has
 * several; the count of a legacy entry goes to every count of `into`; anything else is ERR_ARG, as are sums
 * that differ in number, and leaves `into` half merged. The chunk size is that of `into`, else that of
 * `from`. */
int imatrix_merge(struct imatrix *into, const struct imatrix *from, struct err *e);

/* Give every expert of a stack `tokens` tokens' worth of what its layer's experts saw on average:
 *
 *     S_e <- S_e + tokens * S_pool / C_pool,    C_e <- C_e + tokens,    pool: the sum over the experts
 *
 * so that experts with little data lean on their neighbours, and those with none are not weighted at random
 * (specification, calibration-and-evaluation 5; 32 to 128 tokens are reasonable). The file says so under the
 * key kerf.imatrix.expert_prior, unless no entry has more than one count and nothing was done. Merging adds
 * the priors up, as it does the tokens. ERR_ARG: done already, or 0 tokens. *n_experts: experts (one for each
 * stack) that had no data and take the mean. */
int imatrix_apply_expert_prior(struct imatrix *m, uint32_t tokens, size_t *n_experts, struct err *e);
uint32_t imatrix_expert_prior(const struct imatrix *m); /* tokens; 0: none was applied */

/* Normalised weights of slice `mat` (0-based) for n_cols columns: S/C, or 1 for the whole slice when C is 0,
 * as the peer does and with its float32 arithmetic. Writes n_cols floats. ERR_ARG when the entry's sizes do
 * not fit, ERR_FORMAT when a value is not finite. */
int imatrix_weights(const struct imatrix_entry *entry, uint64_t mat, uint64_t n_mats, uint64_t n_cols,
                    float *out, struct err *e);

#endif
