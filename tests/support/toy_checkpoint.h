/* toy_checkpoint.h - random-weight HuggingFace checkpoints of every dense family, for tests and benchmarks.
 *
 *     struct toy_spec spec = toy_spec_tiny(TOY_QWEN3);      two layers, a few hundred kilobytes
 *     spec.tied = false;
 *     toy_checkpoint_write(folder, &spec, &e);              config.json, model*.safetensors, tokenizer
 *
 * Weights are normal with a standard deviation of 0.02 and a few input columns eight times as large, as
 * trained models have; norms are near 1, biases near 0. They are drawn from a table of 65536 values, so a
 * checkpoint of gigabytes takes seconds, and memory stays below a megabyte. Same spec, same bytes. */
#ifndef KERF_TOY_CHECKPOINT_H
#define KERF_TOY_CHECKPOINT_H

#include "formats/hf/hf_config.h"
#include "formats/hf/safetensors_read.h"

enum toy_arch { TOY_QWEN2, TOY_QWEN3, TOY_LLAMA, TOY_MISTRAL, TOY_ARCH_COUNT };

struct toy_spec {
    enum toy_arch arch;
    uint32_t n_layers, hidden, n_heads, n_kv_heads;
    uint32_t head_dim; /* 0: hidden / n_heads */
    uint32_t ffn, vocab, context;
    double rope_theta;
    enum rope_type rope_scaling; /* ROPE_DEFAULT, ROPE_LINEAR, ROPE_YARN or ROPE_LLAMA3 */
    uint32_t sliding_window;     /* mistral; 0: null */
    bool tied;
    bool bias;                 /* attention biases beyond those that the family always has */
    enum st_dtype dtype;       /* ST_BF16, ST_F16 or ST_F32 */
    uint32_t n_shards;         /* above 1: numbered files and an index */
    const char *tokenizer_dir; /* copy the tokenizer from there; NULL: a synthetic one */
    uint64_t seed;
};

const char *toy_arch_name(enum toy_arch arch); /* "qwen3"; also the model_type */

/* Two layers of width 256 (rows that every block type divides), GQA 4/2, a vocabulary of 320. */
struct toy_spec toy_spec_tiny(enum toy_arch arch);

/* Create `folder` if needed and write the checkpoint; existing files of these names are replaced. */
int toy_checkpoint_write(const char *folder, const struct toy_spec *spec, struct err *e);

#endif
