/* hf_packed.h - compressed checkpoints: several stored tensors that make one weight, decoded row by row.
 *
 *     struct hf_quant *q;                                    how config.json says weights are packed
 *     hf_quant_load(&q, config, folder, e);                  NULL: they are not
 *     hf_packed_group(&list, q, tensors, n, &arena, e);      X.qweight, X.scales, ... become X.weight [O, I]
 *     hf_packed_read(w, first, n, dst, e);                   any range of its elements as float32
 *
 * Read: FP8 with block, channel or tensor scales (fp8, fbgemm_fp8, ModelOpt, compressed-tensors), INT8
 * (compressed-tensors, bitsandbytes), GPTQ of 2, 3, 4 and 8 bits in both checkpoint formats, AWQ (gemm), both
 * also as auto-round writes them, MLX (affine, 2 to 6 and 8 bits),
 * compressed-tensors packed integers of 1 to 8 bits, NVFP4 (ModelOpt, compressed-tensors), MXFP4 and MXFP8 of
 * compressed-tensors, MXFP4 of gpt-oss, BitNet, and bitsandbytes NF4/FP4. Everything else is refused by its
 * name. The layouts with their formulas stand in hf_packed_bind.c. Specification, architectures 18; where it
 * is silent (3-bit, mx formats, bitsandbytes) the file names the program that defines the layout. */
#ifndef KERF_HF_PACKED_H
#define KERF_HF_PACKED_H

#include "hf_checkpoint.h"
#include "hf_config.h"
#include "safetensors_read.h"

#include "libquant/base/arena.h"
#include "libquant/types.h"

struct hf_quant;

/* What config.json says about compression: `quantization_config` of the text part or the root; failing that
 * hf_quant_config.json, quantize_config.json, quant_config.json or quantization_config.json of the folder.
 * *out is NULL when nothing is said; caller frees with hf_quant_free. ERR_UNSUPPORTED names a method or
 * variant that is not read. `config` must outlive the result. `folder` may be NULL: only the configuration is
 * asked. */
int hf_quant_load(struct hf_quant **out, const struct hf_config *config, const char *folder, struct err *e);
void hf_quant_free(struct hf_quant *q);

/* For a checkpoint of which nothing is said: FP8 weights with scales beside them are known by dtype and name
 * (somebody took quantization_config away). *out is NULL when there are none. Whether the scales are those of
 * blocks of 128 x 128, of rows or of the whole shows in their shapes. ERR_UNSUPPORTED for packed MLX weights,
 * of whose bits nothing is known then. */
int hf_quant_guess(struct hf_quant **out, const struct hf_checkpoint *c, struct err *e);

const char *hf_quant_name(const struct hf_quant *q); /* "gptq"; for people */

/* Does it say that there are weights of 4-bit floats (MXFP4, NVFP4)? For plans that see no tensors. */
bool hf_quant_has_fp4(const struct hf_quant *q);

struct hf_packed; /* one weight; lives in the arena of its list */

struct hf_packed_input {
    const struct st_tensor *t; /* n_dims 0 and no data: only the name is known */
    const char *file;
};

/* What becomes of each stored tensor. */
struct hf_packed_fate {
    const struct hf_packed *weight; /* it is a part of this weight; NULL: it is not */
    const char *dropped;            /* not a weight, and why; NULL: not so. Neither: a plain tensor */
    bool is_beside;                 /* the bias of a packed weight */
};

struct hf_packed_list {
    struct hf_packed_fate *fates; /* as many as there are inputs */
    const struct hf_packed **weights;
    size_t n_weights;
};

/* Find the packed weights among `n` tensors. Everything is checked here but the values: parts that are
 * missing or too many, dtypes, shapes against each other and against the configuration; messages name the
 * tensor, what was expected and what was found. Parts of which only names are known are grouped by name. */
int hf_packed_group(struct hf_packed_list *out, const struct hf_quant *q, const struct hf_packed_input *in,
                    size_t n, struct arena *arena, struct err *e);

const char *hf_packed_name(const struct hf_packed *w); /* "model.layers.0.mlp.up_proj.weight" */
const char *hf_packed_file(const struct hf_packed *w); /* of its codes */
const char *hf_packed_type(const struct hf_packed *w); /* for people: "GPTQ 4-bit g128" */
const uint64_t *hf_packed_shape(const struct hf_packed *w, uint32_t *n_dims); /* slowest first */
/* The reference converter puts these weights behind all others (they get a new name there). */
bool hf_packed_is_late(const struct hf_packed *w);
const struct st_tensor *hf_packed_codes(const struct hf_packed *w);

/* Elements [first, first+n) in row-major order. Thread-safe. ERR_FORMAT when values of the file lead outside
 * of it (group index), which is only seen here. Many rows at once are much faster than one by one. */
int hf_packed_read(const struct hf_packed *w, uint64_t first, uint64_t n, float *dst, struct err *e);

/* Is it one of 4-bit floats with a scale for each group of columns (MXFP4, NVFP4)? */
bool hf_packed_is_fp4(const struct hf_packed *w);

/* Are only its names known? Then it has no shape and cannot be read. */
bool hf_packed_is_names(const struct hf_packed *w);

/* The block type whose bytes hold the same codes and scales: MXFP4, NVFP4. False: there is none, or rows do
 * not divide into its blocks (which is the caller's to ask when only names are known). */
bool hf_packed_block_type(const struct hf_packed *w, enum qtype *type);

/* What every value of matrix `m` of the stack is multiplied by, and blocks do not hold: 1 but for NVFP4. NaN:
 * there is such a factor, but only its name is known. */
float hf_packed_block_factor(const struct hf_packed *w, uint64_t m);

/* Rows [row0, row0+n), counted over the stack, as blocks of that type. Thread-safe. ERR_FORMAT: a scale that
 * is not a number. */
int hf_packed_read_blocks(const struct hf_packed *w, uint64_t row0, uint64_t n, uint8_t *dst, struct err *e);

/* Announce or drop the codes of elements [first, first+n). */
void hf_packed_hint(const struct hf_packed *w, uint64_t first, uint64_t n, bool want);

#endif
