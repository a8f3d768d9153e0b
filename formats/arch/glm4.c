/* glm4.c - GLM-4 (0414 and later; dense) and GLM-4.5, 4.6, 4.7 (routed experts).
 *
 * The dense one keeps gate and up in one matrix, has norms behind its steps too, and rotates neighbours as
 * HuggingFace does, so no rows are permuted. The other one is nearer to DeepSeek-V3: the first layers have no
 * experts, scores are sigmoids, chosen with a bias, and a shared expert is always used.
 *
 * Truth: specification, architectures 31. */
#include "arch_rows.h"

#include "formats/tokenizer/vocabulary.h"

#include <string.h>

static const char *const dense_classes[] = {"Glm4ForCausalLM", NULL};
static const char *const dense_types[] = {"glm4", NULL};
static const char *const moe_classes[] = {"Glm4MoeForCausalLM", NULL};
static const char *const moe_types[] = {"glm4_moe", NULL};

static const struct arch_row dense_norms[] = {
    {.hf = "model.layers.N.input_layernorm.weight", .gguf = "blk.N.attn_norm.weight", .shape = "D"},
    {.hf = "model.layers.N.post_self_attn_layernorm.weight",
     .gguf = "blk.N.post_attention_norm.weight",
     .shape = "D"},
    {.hf = "model.layers.N.post_attention_layernorm.weight", .gguf = "blk.N.ffn_norm.weight", .shape = "D"},
    {.hf = "model.layers.N.post_mlp_layernorm.weight", .gguf = "blk.N.post_ffw_norm.weight", .shape = "D"},
};

static const struct arch_row moe_norms[] = {
    {.hf = "model.layers.N.input_layernorm.weight", .gguf = "blk.N.attn_norm.weight", .shape = "D"},
    {.hf = "model.layers.N.post_attention_layernorm.weight",
     .gguf = "blk.N.post_attention_norm.weight",
     .shape = "D"},
};

/* The large ones have them, the small ones not. */
static const struct arch_row qk_norms[] = {
    {.hf = "model.layers.N.self_attn.q_norm.weight",
     .gguf = "blk.N.attn_q_norm.weight",
     .shape = "d",
     .presence = ARCH_OPTIONAL,
     .flag = "use_qk_norm"},
    {.hf = "model.layers.N.self_attn.k_norm.weight",
     .gguf = "blk.N.attn_k_norm.weight",
     .shape = "d",
     .presence = ARCH_OPTIONAL,
     .flag = "use_qk_norm"},
};

static bool is_behind(const struct arch_model *a, uint64_t layer)
{
    return layer >= a->value[ARCH_L];
}

static const struct arch_row prediction_rows[] = {
    {.hf = "model.layers.N.eh_proj.weight", .gguf = "blk.N.nextn.eh_proj.weight", .shape = "D,2*D"},
    {.hf = "model.layers.N.enorm.weight", .gguf = "blk.N.nextn.enorm.weight", .shape = "D"},
    {.hf = "model.layers.N.hnorm.weight", .gguf = "blk.N.nextn.hnorm.weight", .shape = "D"},
    {.hf = "model.layers.N.embed_tokens.weight",
     .gguf = "blk.N.nextn.embed_tokens.weight",
     .shape = "V,D",
     .presence = ARCH_OPTIONAL},
    {.hf = "model.layers.N.shared_head.head.weight",
     .gguf = "blk.N.nextn.shared_head_head.weight",
     .shape = "V,D",
     .presence = ARCH_OPTIONAL},
    {.hf = "model.layers.N.shared_head.norm.weight",
     .gguf = "blk.N.nextn.shared_head_norm.weight",
     .shape = "D",
     .presence = ARCH_OPTIONAL},
};

static const struct arch_group dense_groups[] = {
    ARCH_GROUP(arch_rows_global),   ARCH_GROUP(dense_norms),         ARCH_GROUP(arch_rows_attention),
    ARCH_GROUP(arch_rows_qkv_bias), ARCH_GROUP(arch_rows_fused_ffn), ARCH_END_GROUPS,
};

static const struct arch_group moe_groups[] = {
    ARCH_GROUP(arch_rows_global),
    ARCH_GROUP(moe_norms),
    ARCH_GROUP(arch_rows_attention),
    ARCH_GROUP(arch_rows_qkv_bias),
    ARCH_GROUP(qk_norms),
    ARCH_GROUP_WHEN(arch_rows_ffn, arch_is_dense),
    ARCH_GROUP_WHEN(arch_rows_router, arch_has_experts),
    ARCH_GROUP_WHEN(arch_rows_choice_bias, arch_has_experts),
    ARCH_GROUP_WHEN(arch_rows_experts, arch_has_experts),
    ARCH_GROUP_WHEN(arch_rows_shared_experts, arch_has_shared_experts),
    ARCH_GROUP_WHEN(prediction_rows, is_behind),
    ARCH_END_GROUPS,
};

static const struct arch_key dense_keys[] = {
    {.suffix = "rope.dimension_count", .type = GGUF_U32, .expr = "R", .required = true},
    {.suffix = NULL},
};

static const struct arch_key moe_keys[] = {
    {.suffix = "expert_group_count", .type = GGUF_U32, .field = "n_group"},
    {.suffix = "expert_group_used_count", .type = GGUF_U32, .field = "topk_group"},
    {.suffix = "rope.dimension_count", .type = GGUF_U32, .expr = "R", .required = true},
    {.suffix = "expert_feed_forward_length", .type = GGUF_U32, .expr = "Fe", .required = true},
    {.suffix = "expert_shared_count", .type = GGUF_U32, .expr = "Es", .required = true},
    {.suffix = "leading_dense_block_count", .type = GGUF_U32, .field = "first_k_dense_replace"},
    {.suffix = "expert_weights_scale", .type = GGUF_F32, .field = "routed_scaling_factor"},
    {.suffix = "expert_weights_norm", .type = GGUF_BOOL, .field = "norm_topk_prob"},
    {.suffix = NULL},
};

static int check_rotary(struct arch_model *a, struct err *e)
{
    if (a->value[ARCH_R] != 0 && a->value[ARCH_R] % 2 == 0)
        return 0;
    return err_set(e, ERR_FORMAT, "config.json: %llu entries of a head are rotated, expected an even number",
                   (unsigned long long)a->value[ARCH_R]);
}

static int check_moe(struct arch_model *a, struct err *e)
{
    int rc = check_rotary(a, e);
    if (rc == 0 && a->value[ARCH_ES] == 0)
        rc = err_set(e, ERR_UNSUPPORTED,
                     "config.json: n_shared_experts is 0; llama.cpp has no 'glm4moe' without shared experts");
    if (rc == 0)
        rc = arch_check_leading_dense(a, e);
    return rc == 0 ? arch_check_groups(a, e) : rc;
}

static int add_moe_keys(const struct arch_model *a, struct gguf_meta *meta, const struct arch_warnings *w,
                        struct err *e)
{
    (void)w;
    int rc = arch_set_u32(a, meta, "expert_gating_func", ARCH_GATING_SIGMOID, e);
    if (rc == 0 && !arch_leaves_groups(a))
        rc = arch_set_one_group(a, meta, e);
    return rc == 0 ? arch_set_u32(a, meta, "nextn_predict_layers", a->n_extra, e) : rc;
}

/* Ids of special tokens by their text, as the reference converter gives them to the runtime. A text that is
 * not there leaves what is. */
struct named_token {
    const char *key, *text;
    bool always; /* also where the files name another */
};

static int name_tokens(const struct named_token *names, const struct vocabulary *v, struct gguf_meta *meta,
                       struct err *e)
{
    int rc = 0;
    for (; rc == 0 && names->key; names++)
        for (size_t i = 0; rc == 0 && i < v->n_tokens; i++)
            if (strcmp(v->tokens[i].text, names->text) == 0 &&
                (names->always || !gguf_meta_find(meta, names->key)))
                rc = gguf_meta_set_u32(meta, names->key, (uint32_t)i, e);
    return rc;
}

static int dense_tokens(const struct arch_model *a, const struct vocabulary *v, struct gguf_meta *meta,
                        struct err *e)
{
    static const struct named_token names[] = {
        {"tokenizer.ggml.eos_token_id", "<|endoftext|>", false},
        {"tokenizer.ggml.eot_token_id", "<|user|>", true},
        {"tokenizer.ggml.unknown_token_id", "<|endoftext|>", false},
        {"tokenizer.ggml.bos_token_id", "<|endoftext|>", false},
        {NULL, NULL, false},
    };
    (void)a;
    return name_tokens(names, v, meta, e);
}

static int moe_tokens(const struct arch_model *a, const struct vocabulary *v, struct gguf_meta *meta,
                      struct err *e)
{
    static const struct named_token names[] = {
        {"tokenizer.ggml.bos_token_id", "[gMASK]", false},
        {"tokenizer.ggml.eot_token_id", "<|user|>", true},
        {"tokenizer.ggml.unknown_token_id", "<|endoftext|>", false},
        {"tokenizer.ggml.eom_token_id", "<|observation|>", true},
        {NULL, NULL, false},
    };
    (void)a;
    return name_tokens(names, v, meta, e);
}

static const struct hf_class dense_defaults[] = {
    {{"glm4"},
     {HF_SIZES(151552, 4096, 13696, 40, 32, 2), HF_UINT("head_dim", 128),
      HF_CONTEXT(131072, 0.00000015625, 1e4, 0.5), HF_BOOL("attention_bias", 1), HF_TIED(0)}},
    {.model_types = {NULL}},
};

static const struct hf_class moe_defaults[] = {
    {{"glm4_moe"},
     {HF_SIZES(151552, 4096, 10944, 46, 96, 8), HF_CONTEXT(131072, 1e-5, 1e4, 0.5),
      HF_UINT("n_routed_experts", 128), HF_UINT("num_experts_per_tok", 8),
      HF_UINT("moe_intermediate_size", 1408), HF_UINT("n_shared_experts", 1), HF_UINT("n_group", 1),
      HF_UINT("topk_group", 1), HF_UINT("first_k_dense_replace", 1), HF_UINT("num_nextn_predict_layers", 1),
      HF_NUMBER("routed_scaling_factor", 1), HF_BOOL("norm_topk_prob", 1), HF_BOOL("attention_bias", 0),
      HF_BOOL("use_qk_norm", 0), HF_TIED(0)}},
    {.model_types = {NULL}},
};

const struct arch arch_glm4 = {
    .name = "glm4",
    .title = "GLM-4 (0414), dense",
    .classes = dense_classes,
    .model_types = dense_types,
    .groups = dense_groups,
    .keys = dense_keys,
    .check = check_rotary,
    .after_vocabulary = dense_tokens,
    .runtime = {.attn_norm = "attn_norm.weight",
                .attn_post_norm = "post_attention_norm.weight",
                .ffn_norm = "ffn_norm.weight",
                .ffn_post_norm = "post_ffw_norm.weight",
                .neighbours = true,
                .fused_ffn = true},
    .defaults = dense_defaults,
};

const struct arch arch_glm4moe = {
    .name = "glm4moe",
    .title = "GLM-4.5, 4.6, 4.7 (MoE)",
    .classes = moe_classes,
    .model_types = moe_types,
    .groups = moe_groups,
    .keys = moe_keys,
    .quirks = ARCH_LEADING_DENSE | ARCH_MTP_LAYERS,
    .check = check_moe,
    .add_keys = add_moe_keys,
    .after_vocabulary = moe_tokens,
    .runtime = {.attn_norm = "attn_norm.weight",
                .ffn_norm = "post_attention_norm.weight",
                .gating = ARCH_GATING_SIGMOID,
                .renormalise = true},
    .defaults = moe_defaults,
};
