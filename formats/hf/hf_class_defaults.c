/* hf_class_defaults.c - the table of class defaults, as data.
 *
 * Sparse nested configs (Qwen2-Audio, old Llama files without rope_theta) rely on it. Truth: the constructors
 * of the transformers configuration classes (specification, architectures 0.4; Llama, Mistral and Mixtral
 * read from transformers 5.23). A head_dim that a class derives as hidden_size / num_attention_heads is
 * absent here: the model layer derives it. Classes that always renormalise expert weights, whatever the file
 * says, have norm_topk_prob true; those that always have biases on q, k and v have qkv_bias true. */
#include "hf_class_defaults.h"

#include <stddef.h>
#include <string.h>

#define MAX_TYPES  5
#define MAX_VALUES 26

/* Shorter names for the table. */
enum { U = HF_DEFAULT_UINT, N = HF_DEFAULT_NUMBER, B = HF_DEFAULT_BOOL };

struct class_default {
    const char *key;
    int kind;
    double value;
};

/* Every class states these; the order of the columns is that of the specification. */
#define SIZES(v, d, f, l, h, kv)                                                                             \
    {"vocab_size", U, v}, {"hidden_size", U, d}, {"intermediate_size", U, f}, {"num_hidden_layers", U, l},   \
        {"num_attention_heads", U, h},                                                                       \
    {                                                                                                        \
        "num_key_value_heads", U, kv                                                                         \
    }
#define CONTEXT(ctx, eps, theta, rotary)                                                                     \
    {"max_position_embeddings", U, ctx}, {"rms_norm_eps", N, eps}, {"rope_theta", N, theta},                 \
    {                                                                                                        \
        "partial_rotary_factor", N, rotary                                                                   \
    }
#define EXPERTS(n, used, width)                                                                              \
    {"num_experts", U, n}, {"num_experts_per_tok", U, used},                                                 \
    {                                                                                                        \
        "moe_intermediate_size", U, width                                                                    \
    }
#define WINDOW(n)                                                                                            \
    {"sliding_window", U, n},                                                                                \
    {                                                                                                        \
        "use_sliding_window", B, 0                                                                           \
    }
#define DELTA_NET                                                                                            \
    {"linear_conv_kernel_dim", U, 4}, {"linear_key_head_dim", U, 128}, {"linear_value_head_dim", U, 128},    \
        {"linear_num_key_heads", U, 16}, {"linear_num_value_heads", U, 32},                                  \
    {                                                                                                        \
        "full_attention_interval", U, 4                                                                      \
    }
#define QKV_BIAS                                                                                             \
    {                                                                                                        \
        "qkv_bias", B, 1                                                                                     \
    }
#define TIED(b)                                                                                              \
    {                                                                                                        \
        "tie_word_embeddings", B, b                                                                          \
    }

/* The first name of a row is the text class; the others are outer classes whose text part it is (a file may
 * name only those), and spellings of older releases. */
static const struct {
    const char *model_types[MAX_TYPES];
    struct class_default values[MAX_VALUES]; /* ends at the first NULL key */
} classes[] = {
    {{"qwen"}, /* configuration_qwen.py of the published repositories; their files state seq_length */
     {{"vocab_size", U, 151936},
      {"hidden_size", U, 4096},
      {"intermediate_size", U, 22016},
      {"num_hidden_layers", U, 32},
      {"num_attention_heads", U, 32}, /* KV heads: as many as heads */
      {"max_position_embeddings", U, 8192},
      {"layer_norm_epsilon", N, 1e-6},
      {"rotary_emb_base", N, 1e4},
      {"use_dynamic_ntk", B, 1},
      {"use_logn_attn", B, 1},
      TIED(0)}},
    {{"qwen2", "qwen2_audio"},
     {SIZES(151936, 4096, 22016, 32, 32, 32),
      CONTEXT(32768, 1e-6, 1e4, 1),
      WINDOW(4096),
      {"max_window_layers", U, 28},
      QKV_BIAS,
      TIED(0)}},
    {{"qwen2_moe"},
     {SIZES(151936, 2048, 5632, 24, 16, 16),
      CONTEXT(32768, 1e-6, 1e4, 1),
      WINDOW(4096),
      {"max_window_layers", U, 28},
      EXPERTS(60, 4, 1408),
      {"shared_expert_intermediate_size", U, 5632},
      {"norm_topk_prob", B, 0},
      {"decoder_sparse_step", U, 1},
      QKV_BIAS,
      TIED(0)}},
    {{"qwen3"},
     {SIZES(151936, 4096, 22016, 32, 32, 32),
      {"head_dim", U, 128},
      CONTEXT(32768, 1e-6, 1e4, 1),
      WINDOW(4096),
      {"max_window_layers", U, 28},
      TIED(0)}},
    {{"qwen3_moe"},
     {SIZES(151936, 2048, 6144, 24, 32, 4),
      CONTEXT(32768, 1e-6, 1e4, 1),
      WINDOW(4096),
      EXPERTS(128, 8, 768),
      {"norm_topk_prob", B, 0},
      {"decoder_sparse_step", U, 1},
      TIED(0)}},
    {{"qwen3_next"},
     {SIZES(151936, 2048, 5632, 48, 16, 2),
      {"head_dim", U, 256},
      CONTEXT(32768, 1e-6, 1e4, 0.25),
      EXPERTS(512, 10, 512),
      {"shared_expert_intermediate_size", U, 512},
      {"norm_topk_prob", B, 1},
      {"decoder_sparse_step", U, 1},
      DELTA_NET,
      TIED(0)}},
    {{"qwen3_5_text", "qwen3_5"},
     {SIZES(248320, 4096, 12288, 32, 16, 4),
      {"head_dim", U, 256},
      CONTEXT(32768, 1e-6, 1e4, 0.25),
      DELTA_NET,
      TIED(0)}},
    /* num_hidden_layers to num_key_value_heads, without a dense width: every layer is MoE */
    {{"qwen3_5_moe_text", "qwen3_5_moe"},
     {{"vocab_size", U, 248320},
      {"hidden_size", U, 2048},
      {"num_hidden_layers", U, 40},
      {"num_attention_heads", U, 16},
      {"num_key_value_heads", U, 2},
      {"head_dim", U, 256},
      CONTEXT(32768, 1e-6, 1e4, 0.25),
      EXPERTS(256, 8, 512),
      {"shared_expert_intermediate_size", U, 512},
      {"norm_topk_prob", B, 1},
      DELTA_NET,
      TIED(0)}},
    {{"qwen2_vl_text", "qwen2_5_vl_text", "qwen2_vl", "qwen2_5_vl"},
     {SIZES(152064, 8192, 29568, 80, 64, 8),
      CONTEXT(32768, 1e-5, 1e6, 1),
      WINDOW(4096),
      {"max_window_layers", U, 80},
      QKV_BIAS,
      TIED(0)}},
    {{"qwen2_5_omni_text", "qwen2_5_omni_thinker", "qwen2_5_omni"},
     {SIZES(152064, 3584, 18944, 28, 28, 4),
      CONTEXT(32768, 1e-6, 1e6, 1),
      WINDOW(32768),
      {"max_window_layers", U, 28},
      QKV_BIAS,
      TIED(0)}},
    {{"qwen3_vl_text", "qwen3_vl"},
     {SIZES(151936, 4096, 22016, 32, 32, 32), {"head_dim", U, 128}, CONTEXT(128000, 1e-6, 5e6, 1), TIED(0)}},
    {{"qwen3_vl_moe_text", "qwen3_vl_moe"},
     {SIZES(151936, 2048, 5632, 24, 16, 16),
      CONTEXT(128000, 1e-6, 5e5, 1),
      EXPERTS(60, 4, 1408),
      {"norm_topk_prob", B, 1},
      {"decoder_sparse_step", U, 1},
      TIED(1)}},
    /* the vocabulary size of this class is a placeholder of the reference; real files state it */
    {{"qwen3_omni_moe_text", "qwen3_omni_moe_thinker", "qwen3_omni_moe"},
     {SIZES(3584, 2048, 18944, 28, 28, 4),
      CONTEXT(32768, 1e-6, 1e6, 1),
      EXPERTS(128, 8, 768),
      {"norm_topk_prob", B, 1},
      {"decoder_sparse_step", U, 1},
      TIED(0)}},
    {{"llama"},
     {{"vocab_size", U, 32000},
      {"hidden_size", U, 4096},
      {"intermediate_size", U, 11008},
      {"num_hidden_layers", U, 32},
      {"num_attention_heads", U, 32}, /* KV heads: as many as heads */
      CONTEXT(2048, 1e-6, 1e4, 1),
      TIED(0)}},
    {{"mistral"},
     {SIZES(32000, 4096, 14336, 32, 32, 8),
      CONTEXT(131072, 1e-6, 1e4, 1),
      {"sliding_window", U, 4096},
      TIED(0)}},
    {{"mixtral"},
     {SIZES(32000, 4096, 14336, 32, 32, 8),
      CONTEXT(131072, 1e-5, 1e6, 1),
      {"num_local_experts", U, 8},
      {"num_experts_per_tok", U, 2},
      TIED(0)}},
};

bool hf_class_default(const char *model_type, const char *key, enum hf_default_kind *kind, double *value)
{
    for (size_t c = 0; c < sizeof classes / sizeof *classes; c++) {
        bool named = false;
        for (size_t t = 0; t < MAX_TYPES && classes[c].model_types[t]; t++)
            named |= strcmp(classes[c].model_types[t], model_type) == 0;
        if (!named)
            continue;
        for (const struct class_default *d = classes[c].values; d->key; d++) {
            if (strcmp(d->key, key) == 0) {
                *kind = (enum hf_default_kind)d->kind;
                *value = d->value;
                return true;
            }
        }
        return false;
    }
    return false;
}
