/* model.h - any MODEL argument (checkpoint folder, GGUF file or split set) as one thing: GGUF metadata and a
 * list of tensors with GGUF names, shapes and orientation, whose rows can be read as float32.
 *
 * A checkpoint folder becomes a "virtual GGUF" through its architecture descriptor: renaming, permutation,
 * stacking of experts, dequantization and arithmetic happen while rows are read, so nothing of full size is
 * ever built. Converter, quantizer, inspector, differ, hasher and the forward pass all stand on this. */
#ifndef KERF_MODEL_H
#define KERF_MODEL_H

#include "formats/gguf/gguf_meta.h"
#include "libquant/kern/kern.h"

struct model;
struct vocabulary;
struct arch;
struct gguf_reader;
struct hparams;
struct model_merge;

/* Element types that a file gives a tensor whatever its mix (formats/arch, enum arch_type). */
enum fixed_type {
    FIXED_NOT,
    FIXED_F16,
    FIXED_F16_OR_F32, /* F16 in a file of type F16, F32 in every other */
};

struct model_tensor {
    const char *name; /* GGUF name */
    uint32_t n_dims;
    uint64_t ne[4];  /* fastest first, padded with 1 */
    uint64_t n_rows; /* ne1*ne2*ne3 */
    enum qtype
        type; /* of the source: the GGUF type, or the type that holds the source's values without loss */
    const char *source_type; /* for people and JSON: "BF16", "Q4_K", "F8_E4M3", "GPTQ" ... */
    bool always_f32; /* must be F32 in an output file (norms, biases, routers; specification, architectures
                        0.3) */
    enum fixed_type fixed;
    const uint8_t *raw; /* the bytes of `type`, rows contiguous in output order, if the source holds them so;
                         * else NULL (transformed, stacked, not loaded). Mapped: see filemap.h for hints. */
    bool has_blocks;    /* raw is NULL, but model_read_blocks puts the bytes of `type` together */
    uint64_t n_bytes;   /* of the tensor in `type` */
    /* A tensor of this model, F32, with one factor for each matrix of the stack, which `type` does not hold:
     * "X.scale" beside "X.weight". model_read_rows applies it. NULL: none. */
    const struct model_tensor *scale;
    /* What adapters add to it while rows are read (then `type` is F32 and `raw` NULL); NULL: nothing. */
    const struct model_merge *merge;
    const char *origin; /* file and source tensor name(s), for messages */
};

/* An adapter that is merged into the weights while they are read. */
struct model_adapter {
    const char *path; /* a PEFT folder or a GGUF file */
    double scale;     /* on top of the adapter's own */
};

struct model_options {
    bool allow_missing_weights; /* planning: a folder may hold index and configuration without weights, or the
                                 * configuration alone; a path that ends in .json is such a configuration */
    bool towers;                /* the vision and audio towers of a checkpoint in place of its text model */
    bool keep_mtp;              /* keep multi-token-prediction blocks */
    /* Of a checkpoint's text model. AS_FOUND: one that is not there is a warning. NEEDED: it is an error,
     * whose message says how to do without. NONE: it is not read, and the metadata say that there is none. */
    enum model_vocabulary_wish {
        MODEL_VOCABULARY_AS_FOUND,
        MODEL_VOCABULARY_NEEDED,
        MODEL_VOCABULARY_NONE
    } vocabulary;
    /* Expressions (pattern.h) for names of a checkpoint's tensors that are left out; a GGUF file with any of
     * them is refused. */
    const char *const *skip_tensors;
    size_t n_skip_tensors;
    const struct model_adapter *adapters; /* in this order; borrowed while the model is opened */
    size_t n_adapters;
    /* The path is an adapter, and this the checkpoint (config.json is enough) that it belongs to: the model
     * is then the adapter file's factors; see model_is_adapter. NULL: the path is a model. */
    const char *base;
    bool keep_packed; /* packed weights of a checkpoint in the block type that holds them without loss */
    const struct kern *kern; /* NULL: native */
};

/* *out: caller frees with model_close. ERR_* messages name the file and tensor. Every source tensor is
 * mapped, dropped by a documented rule (see model_skipped), or an error. */
int model_open(struct model **out, const char *path, const struct model_options *opt, struct err *e);
void model_close(struct model *m);

const char *model_path(const struct model *m);
bool model_is_gguf(const struct model *m);
const struct gguf_reader *model_gguf(const struct model *m); /* borrowed; NULL for a folder */
bool model_has_weights(const struct model *m);
bool model_is_adapter(const struct model *m); /* factors for llama.cpp's --lora, not a model that runs */
const char *model_arch_name(const struct model *m);         /* general.architecture */
const struct hparams *model_hparams(const struct model *m); /* its numbers, see hparams.h */
const struct gguf_meta *
model_meta(const struct model *m); /* complete output metadata but for file_type of a new mix */
size_t model_n_tensors(const struct model *m);
const struct model_tensor *model_tensor(const struct model *m, size_t i);       /* the writer's order */
const struct model_tensor *model_find(const struct model *m, const char *name); /* NULL if absent */
/* "blk.<layer>.<kind>", with the kind as in "ffn_down.weight"; NULL if absent. */
const struct model_tensor *model_find_in(const struct model *m, uint64_t layer, const char *kind);

/* Rows [row0, row0+n) of `t` as float32 into dst [n, ne0]. Thread-safe. Rows count over all of ne1*ne2*ne3.
 */
int model_read_rows(const struct model *m, const struct model_tensor *t, uint64_t row0, uint64_t n,
                    float *dst, struct err *e);

/* The same rows as bytes of t->type, for tensors with has_blocks. No factor is in them. */
int model_read_blocks(const struct model *m, const struct model_tensor *t, uint64_t row0, uint64_t n,
                      uint8_t *dst, struct err *e);

/* Hints: the rows will be read soon / are not needed any more. Never fail. */
void model_want_rows(const struct model *m, const struct model_tensor *t, uint64_t row0, uint64_t n);
void model_drop_rows(const struct model *m, const struct model_tensor *t, uint64_t row0, uint64_t n);

/* The vocabulary: from the folder or the metadata. Borrowed until model_close. ERR_UNSUPPORTED when there is
 * none. */
int model_vocabulary(struct model *m, const struct vocabulary **out, struct err *e);

/* The type that the source has the values in: `type`, or for tensors with adapters that of the base. */
enum qtype model_source_type(const struct model_tensor *t);

/* The adapters that are merged: where from, which (a SHA-256 of its files), how much. */
struct model_adapter_report {
    const char *path, *sha256;
    double scale;
    size_t n_changed, n_replaced; /* tensors */
};
size_t model_n_adapters(const struct model *m);
struct model_adapter_report model_adapter_report(const struct model *m, size_t i);

/* Does the checkpoint have towers that --mmproj writes, and is this not a model of them? */
bool model_has_towers(const struct model *m);

/* Source tensors left out by rule, and remarks; both for reports. */
size_t model_n_skipped(const struct model *m);
const char *model_skipped(const struct model *m, size_t i); /* "visual.blocks.0...: other modality" */
size_t model_n_warnings(const struct model *m);
const char *model_warning(const struct model *m, size_t i);

#endif
