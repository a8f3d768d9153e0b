/* metadata.h - all GGUF metadata of a checkpoint folder: general.*, <architecture>.*, tokenizer.*.
 *
 * Sources of general.* in order: model card (front matter of README.md), `_name_or_path` of config.json, name
 * of the folder; the first that says something counts. Specification, architectures 20 and 0.10.
 *
 * general.file_type and general.quantization_version are set for an output at source precision; an engine
 * that writes other types replaces them in place. */
#ifndef KERF_METADATA_H
#define KERF_METADATA_H

#include "formats/arch/arch.h"

struct vocabulary;

/* What the mapped tensors say. */
struct metadata_sizes {
    uint64_t total, shared, expert, n_experts; /* parameters; see model_name_size_label */
    uint32_t file_type;                        /* of an output at source precision */
};

/* Fill the empty list `meta`. `folder` NULL: there is only a configuration, at `path`, whose name is the
 * model's; else `path` is not used. `vocabulary` NULL: no tokenizer keys. Odd but harmless files (an
 * unreadable model card or generation_config.json) become warnings. */
int metadata_from_folder(struct gguf_meta *meta, const char *folder, const char *path,
                         const struct arch_model *a, const struct vocabulary *vocabulary,
                         const struct metadata_sizes *sizes, const struct arch_warnings *w, struct err *e);

/* Say that the file has no vocabulary, and how many token ids there are: without these two keys llama.cpp
 * does not load it. */
int metadata_without_vocabulary(struct gguf_meta *meta, const struct arch_model *a, struct err *e);

/* All keys of an adapter file: the general ones from the model card and the name of `folder`, adapter.type
 * "lora" and adapter.lora.alpha; `n_tokens` > 0: adapter.alora.invocation_tokens. As llama.cpp's converter of
 * adapters has them. */
int metadata_of_adapter(struct gguf_meta *meta, const char *folder, const char *architecture, double alpha,
                        const uint32_t *tokens, size_t n_tokens, const struct arch_warnings *w,
                        struct err *e);

/* The same for the towers of a checkpoint (formats/tower), which have no vocabulary. */
int metadata_of_towers(struct gguf_meta *meta, const char *folder, const char *path,
                       const struct arch_model *a, const struct metadata_sizes *sizes,
                       const struct arch_warnings *w, struct err *e);

/* The general.* part without file_type and quantization_version, from texts (for tests): `readme` and
 * `generation` may be NULL. `folder_name`: last path component. */
int metadata_general(struct gguf_meta *meta, const char *readme, size_t readme_len,
                     const struct json *generation, const char *name_or_path, const char *folder_name,
                     const struct metadata_sizes *sizes, const struct arch_warnings *w, struct err *e);

#endif
