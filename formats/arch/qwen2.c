/* qwen2.c - Qwen1.5, Qwen2, Qwen2.5, QwQ, CodeQwen and derivatives, dense; the text part of Qwen2-Audio.
 *
 * Biases on q, k and v; no permutation. Score heads and reward models are kept under names of our own, the
 * ones that encoders use for theirs (specification, architectures 5.6). Truth: specification, architectures
 * 2, 4, 5, 8. */
#include "arch_rows.h"

static const char *const classes[] = {"Qwen2ForCausalLM",
                                      "Qwen2Model",
                                      "Qwen2AudioForConditionalGeneration",
                                      "Qwen2ForSequenceClassification",
                                      "Qwen2ForRewardModel",
                                      "Qwen2ForProcessRewardModel",
                                      NULL};
static const char *const model_types[] = {"qwen2", NULL};

static const struct arch_row own_rows[] = {
    {.hf = "lm_head.bias", .gguf = "output.bias", .shape = "V", .presence = ARCH_OPTIONAL},
};

static const struct arch_group groups[] = {
    ARCH_GROUP(arch_rows_score),    ARCH_GROUP(arch_rows_reward),
    ARCH_GROUP(arch_rows_global),   ARCH_GROUP(own_rows),
    ARCH_GROUP(arch_rows_norms),    ARCH_GROUP(arch_rows_attention),
    ARCH_GROUP(arch_rows_qkv_bias), ARCH_GROUP(arch_rows_o_bias),
    ARCH_GROUP(arch_rows_ffn),      ARCH_END_GROUPS,
};

/* The runtime declares attn_output as [D, D], so heads must fill the width exactly. */
static int check(struct arch_model *a, struct err *e)
{
    uint64_t width = a->value[ARCH_H] * a->value[ARCH_HD];
    if (width != a->value[ARCH_D])
        return err_set(
            e, ERR_UNSUPPORTED,
            "qwen2: %llu heads of %llu do not fill the width %llu, which this architecture cannot express",
            (unsigned long long)a->value[ARCH_H], (unsigned long long)a->value[ARCH_HD],
            (unsigned long long)a->value[ARCH_D]);
    return 0;
}

static int add_keys(const struct arch_model *a, struct gguf_meta *meta, const struct arch_warnings *w,
                    struct err *e)
{
    if (json_is_object(hf_config_get(a->config, "dual_chunk_attention_config"))) {
        int rc = w->add(w->ctx,
                        "[runtime-differs] dual_chunk_attention_config has no GGUF key: beyond the original "
                        "window results differ from an engine with dual chunk attention",
                        e);
        if (rc != 0)
            return rc;
    }
    if (a->answer != ARCH_TOKENS) {
        int rc = w->add(w->ctx,
                        "[runtime-refuses] llama.cpp and programs built on it know no score head for "
                        "architecture qwen2 and refuse a file with one (cls.*); kerf reads it",
                        e);
        if (rc != 0)
            return rc;
    }
    return arch_add_sliding_window(a, meta, w, e);
}

/* Defaults of the classes (transformers, their constructors). */
static const struct hf_class defaults[] = {
    {{"qwen2", "qwen2_audio"},
     {HF_SIZES(151936, 4096, 22016, 32, 32, 32), HF_CONTEXT(32768, 1e-6, 1e4, 1), HF_WINDOW(4096),
      HF_UINT("max_window_layers", 28), HF_QKV_BIAS, HF_TIED(0)}},
    {.model_types = {NULL}},
};

const struct arch arch_qwen2 = {
    .name = "qwen2",
    .title = "Qwen1.5, Qwen2, Qwen2.5, QwQ, Qwen2-Audio (text)",
    .classes = classes,
    .model_types = model_types,
    .groups = groups,
    .quirks = ARCH_POOLING,
    .check = check,
    .add_keys = add_keys,
    .runtime = {.attn_norm = "attn_norm.weight", .ffn_norm = "ffn_norm.weight"},
    .defaults = defaults,
};
