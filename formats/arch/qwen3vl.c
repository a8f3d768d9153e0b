/* qwen3vl.c - the text part of Qwen3-VL, dense and with experts, of the Qwen3-Omni thinker, and of Qwen3-ASR.
 *
 * Qwen3 with rotary sections. The experts of published checkpoints are stacked and transposed; which layout a
 * checkpoint has is decided by its shapes. Truth: specification, architectures 14, 15. */
#include "arch_rows.h"

#include "formats/tokenizer/vocabulary.h"

#include <string.h>

static const char *const dense_classes[] = {"Qwen3VLForConditionalGeneration", "Qwen3VLModel",
                                            "Qwen3VLTextModel", "Qwen3ASRForConditionalGeneration", NULL};
static const char *const dense_types[] = {"qwen3_vl", "qwen3_vl_text", "qwen3_asr", "qwen3_asr_text", NULL};
static const char *const moe_classes[] = {"Qwen3VLMoeForConditionalGeneration",
                                          "Qwen3OmniMoeForConditionalGeneration",
                                          "Qwen3OmniMoeThinkerForConditionalGeneration",
                                          "Qwen3VLMoeModel",
                                          "Qwen3VLMoeTextModel",
                                          "Qwen3OmniMoeThinkerTextModel",
                                          NULL};
static const char *const moe_types[] = {"qwen3_vl_moe",        "qwen3_vl_moe_text",      "qwen3_omni_moe",
                                        "qwen3_omni_moe_text", "qwen3_omni_moe_thinker", NULL};

static const struct arch_group dense_groups[] = {
    ARCH_GROUP(arch_rows_rerank),    ARCH_GROUP(arch_rows_global),  ARCH_GROUP(arch_rows_norms),
    ARCH_GROUP(arch_rows_attention), ARCH_GROUP(arch_rows_qk_norm), ARCH_GROUP(arch_rows_qkv_bias),
    ARCH_GROUP(arch_rows_o_bias),    ARCH_GROUP(arch_rows_ffn),     ARCH_END_GROUPS,
};

/* Where both layouts have the same shape, the transposed one is meant: it is listed first. */
static const struct arch_group moe_groups[] = {
    ARCH_GROUP(arch_rows_global),
    ARCH_GROUP(arch_rows_norms),
    ARCH_GROUP(arch_rows_attention),
    ARCH_GROUP(arch_rows_qk_norm),
    ARCH_GROUP(arch_rows_qkv_bias),
    ARCH_GROUP(arch_rows_o_bias),
    ARCH_GROUP_WHEN(arch_rows_ffn, arch_is_dense),
    ARCH_GROUP_WHEN(arch_rows_router, arch_has_experts),
    ARCH_GROUP_WHEN(arch_rows_transposed_experts, arch_has_experts),
    ARCH_GROUP_WHEN(arch_rows_experts, arch_has_experts),
    ARCH_END_GROUPS,
};

static int add_keys(const struct arch_model *a, struct gguf_meta *meta, const struct arch_warnings *w,
                    struct err *e)
{
    static const int32_t sections[4] = {24, 20, 20, 0};
    int rc = arch_default_sections(a, meta, sections, e);
    if (rc == 0)
        rc = arch_add_deepstack(a, meta, e);
    return rc != 0 ? rc : arch_warn_output_bias(a, w, e);
}

/* The thinker within its whole model, or by itself. */
static bool is_omni(const struct arch_model *a)
{
    return json_is_object(json_get(hf_config_root(a->config), "thinker_config")) ||
           strncmp(hf_config_architecture(a->config), "Qwen3OmniMoeThinker", 19) == 0;
}

static int add_moe_keys(const struct arch_model *a, struct gguf_meta *meta, const struct arch_warnings *w,
                        struct err *e)
{
    int rc = add_keys(a, meta, w, e);
    if (rc == 0 && is_omni(a)) /* its vision features enter no text layer */
        rc = arch_set_u32(a, meta, "n_deepstack_layers", 0, e);
    return rc;
}

/* Turns begin and end with <|im_end|>, whatever its files say (specification, architectures 15.2). */
static int set_turns(const struct vocabulary *v, struct gguf_meta *meta, struct err *e)
{
    for (size_t i = 0; i < v->n_tokens; i++) {
        if (strcmp(v->tokens[i].text, "<|im_end|>") != 0)
            continue;
        int rc = gguf_meta_set_u32(meta, "tokenizer.ggml.bos_token_id", (uint32_t)i, e);
        return rc != 0 ? rc : gguf_meta_set_u32(meta, "tokenizer.ggml.eos_token_id", (uint32_t)i, e);
    }
    return 0;
}

static int after_vocabulary(const struct arch_model *a, const struct vocabulary *v, struct gguf_meta *meta,
                            struct err *e)
{
    return is_omni(a) ? set_turns(v, meta, e) : 0;
}

/* Speech recognition answers in chats of this form; the template beside the model wants its own processor. */
static int after_dense_vocabulary(const struct arch_model *a, const struct vocabulary *v,
                                  struct gguf_meta *meta, struct err *e)
{
    static const char chat[] =
        "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + "
        "'<|im_end|>' + '\\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% "
        "endif %}";
    if (strncmp(hf_config_architecture(a->config), "Qwen3ASR", 8) != 0)
        return 0;
    int rc = gguf_meta_set_string(meta, "tokenizer.chat_template", chat, e);
    return rc != 0 ? rc : set_turns(v, meta, e);
}

/* Defaults of the classes (transformers, their constructors). */
static const struct hf_class defaults_qwen3vl[] = {
    {{"qwen3_vl_text", "qwen3_vl", "qwen3_asr_text", "qwen3_asr"},
     {HF_SIZES(151936, 4096, 22016, 32, 32, 32), HF_UINT("head_dim", 128), HF_CONTEXT(128000, 1e-6, 5e6, 1),
      HF_TIED(0)}},
    {.model_types = {NULL}},
};

const struct arch arch_qwen3vl = {
    .name = "qwen3vl",
    .title = "Qwen3-VL dense, Qwen3-ASR (text)",
    .classes = dense_classes,
    .model_types = dense_types,
    .groups = dense_groups,
    .quirks = ARCH_POOLING | ARCH_RERANKER,
    .add_keys = add_keys,
    .after_vocabulary = after_dense_vocabulary,
    .runtime = {.attn_norm = "attn_norm.weight", .ffn_norm = "ffn_norm.weight"},
    .defaults = defaults_qwen3vl,
};

/* Defaults of the classes (transformers, their constructors). */
static const struct hf_class defaults_qwen3vlmoe[] = {
    {{"qwen3_vl_moe_text", "qwen3_vl_moe"},
     {HF_SIZES(151936, 2048, 5632, 24, 16, 16), HF_CONTEXT(128000, 1e-6, 5e5, 1), HF_EXPERTS(60, 4, 1408),
      HF_BOOL("norm_topk_prob", 1), HF_UINT("decoder_sparse_step", 1), HF_TIED(1)}},
    /* the vocabulary size of this class is a placeholder of the reference; real files state it */
    {{"qwen3_omni_moe_text", "qwen3_omni_moe_thinker", "qwen3_omni_moe"},
     {HF_SIZES(3584, 2048, 18944, 28, 28, 4), HF_CONTEXT(32768, 1e-6, 1e6, 1), HF_EXPERTS(128, 8, 768),
      HF_BOOL("norm_topk_prob", 1), HF_UINT("decoder_sparse_step", 1), HF_TIED(0)}},
    {.model_types = {NULL}},
};

const struct arch arch_qwen3vlmoe = {
    .name = "qwen3vlmoe",
    .title = "Qwen3-VL MoE, Qwen3-Omni (text)",
    .classes = moe_classes,
    .model_types = moe_types,
    .groups = moe_groups,
    .keys = arch_keys_experts,
    .check = arch_check_experts,
    .add_keys = add_moe_keys,
    .after_vocabulary = after_vocabulary,
    .runtime = {.attn_norm = "attn_norm.weight", .ffn_norm = "ffn_norm.weight", .renormalise = true},
    .defaults = defaults_qwen3vlmoe,
};
