/* hf_class_defaults.h - what a HuggingFace configuration class assumes for keys that config.json does not
 * state. Readers of a configuration ask hf_config.
 *
 * The values stand in the files of the families (formats/arch), one table for each; here is what a row is.
 * Sparse nested configs (Qwen2-Audio, old Llama files without rope_theta) rely on them. Truth: the
 * constructors of the transformers configuration classes (specification, architectures 0.4; Llama, Mistral
 * and Mixtral read from transformers 5.23). A head_dim that a class derives as hidden_size /
 * num_attention_heads is absent: the model layer derives it. Classes that always renormalise expert weights,
 * whatever the file says, have norm_topk_prob true; those that always have biases on q, k and v have qkv_bias
 * true. */
#ifndef KERF_HF_CLASS_DEFAULTS_H
#define KERF_HF_CLASS_DEFAULTS_H

#include <stdbool.h>

enum hf_default_kind { HF_DEFAULT_UINT, HF_DEFAULT_NUMBER, HF_DEFAULT_BOOL };

struct hf_class_value {
    const char *key;
    enum hf_default_kind kind;
    double value;
};

/* The first name is the text class; the others are outer classes whose text part it is (a file may name only
 * those), and spellings of older releases. Both lists end at the first NULL. */
struct hf_class {
    const char *model_types[6];
    struct hf_class_value values[28];
};

#define HF_UINT(key, v)                                                                                      \
    {                                                                                                        \
        key, HF_DEFAULT_UINT, v                                                                              \
    }
#define HF_NUMBER(key, v)                                                                                    \
    {                                                                                                        \
        key, HF_DEFAULT_NUMBER, v                                                                            \
    }
#define HF_BOOL(key, v)                                                                                      \
    {                                                                                                        \
        key, HF_DEFAULT_BOOL, v                                                                              \
    }

/* What most classes state; the order of the columns is that of the specification. */
#define HF_SIZES(v, d, f, l, h, kv)                                                                          \
    HF_UINT("vocab_size", v), HF_UINT("hidden_size", d), HF_UINT("intermediate_size", f),                    \
        HF_UINT("num_hidden_layers", l), HF_UINT("num_attention_heads", h),                                  \
        HF_UINT("num_key_value_heads", kv)
#define HF_CONTEXT(ctx, eps, theta, rotary)                                                                  \
    HF_UINT("max_position_embeddings", ctx), HF_NUMBER("rms_norm_eps", eps), HF_NUMBER("rope_theta", theta), \
        HF_NUMBER("partial_rotary_factor", rotary)
#define HF_EXPERTS(n, used, width)                                                                           \
    HF_UINT("num_experts", n), HF_UINT("num_experts_per_tok", used), HF_UINT("moe_intermediate_size", width)
#define HF_WINDOW(n) HF_UINT("sliding_window", n), HF_BOOL("use_sliding_window", 0)
#define HF_DELTA_NET                                                                                         \
    HF_UINT("linear_conv_kernel_dim", 4), HF_UINT("linear_key_head_dim", 128),                               \
        HF_UINT("linear_value_head_dim", 128), HF_UINT("linear_num_key_heads", 16),                          \
        HF_UINT("linear_num_value_heads", 32), HF_UINT("full_attention_interval", 4)
#define HF_QKV_BIAS HF_BOOL("qkv_bias", 1)
#define HF_TIED(b)  HF_BOOL("tie_word_embeddings", b)

/* The default of `key` for the text class `model_type`; false when the class has none. The families answer:
 * formats/arch/arch.c. */
bool hf_class_default(const char *model_type, const char *key, enum hf_default_kind *kind, double *value);

#endif
