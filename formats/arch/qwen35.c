/* qwen35.c - Qwen3.5 and later point releases (Qwen3.6): hybrids, dense or with routed experts.
 *
 * The checkpoint groups value heads by key head (h = c*r + j), the file tiles them (h' = j*Hk + c), in every
 * tensor that has value heads. Truth: specification, architectures 16. */
#include "arch_rows.h"

static const char *const dense_classes[] = {"Qwen3_5ForConditionalGeneration", "Qwen3_5ForCausalLM",
                                            "Qwen3_5TextModel", "Qwen3_5Model", NULL};
static const char *const dense_types[] = {"qwen3_5", "qwen3_5_text", NULL};
static const char *const moe_classes[] = {"Qwen3_5MoeForConditionalGeneration", "Qwen3_5MoeForCausalLM",
                                          "Qwen3_5MoeTextModel", "Qwen3_5MoeModel", NULL};
static const char *const moe_types[] = {"qwen3_5_moe", "qwen3_5_moe_text", NULL};

/* Tiled value head -> grouped. */
static uint64_t grouped_head(const struct arch_model *a, uint64_t out)
{
    uint64_t n_keys = a->value[ARCH_HK], r = a->value[ARCH_HV] / n_keys;
    return out % n_keys * r + out / n_keys;
}

/* Rows (or columns) of value heads, dv each. */
static uint64_t grouped_value(const struct arch_model *a, uint64_t out)
{
    uint64_t dv = a->value[ARCH_DV];
    return grouped_head(a, out / dv) * dv + out % dv;
}

/* Query and key rows stay, value rows behind them move. */
static uint64_t grouped_qkv(const struct arch_model *a, uint64_t out)
{
    uint64_t n = 2 * a->value[ARCH_HK] * a->value[ARCH_DK];
    return out < n ? out : n + grouped_value(a, out - n);
}

#define CONV "2*Hk*dk+Hv*dv"

static const struct arch_row linear_rows[] = {
    {.hf = "model.layers.N.linear_attn.in_proj_qkv.weight",
     .gguf = "blk.N.attn_qkv.weight",
     .shape = CONV ",D",
     .rows = grouped_qkv},
    {.hf = "model.layers.N.linear_attn.in_proj_z.weight",
     .gguf = "blk.N.attn_gate.weight",
     .shape = "Hv*dv,D",
     .rows = grouped_value},
    {.hf = "model.layers.N.linear_attn.in_proj_b.weight",
     .gguf = "blk.N.ssm_beta.weight",
     .shape = "Hv,D",
     .rows = grouped_head},
    {.hf = "model.layers.N.linear_attn.in_proj_a.weight",
     .gguf = "blk.N.ssm_alpha.weight",
     .shape = "Hv,D",
     .rows = grouped_head},
    {.hf = "model.layers.N.linear_attn.A_log",
     .gguf = "blk.N.ssm_a",
     .shape = "Hv",
     .rows = grouped_head,
     .op = ARCH_NEG_EXP},
    {.hf = "model.layers.N.linear_attn.dt_bias",
     .gguf = "blk.N.ssm_dt.bias",
     .shape = "Hv",
     .rows = grouped_head},
    {.hf = "model.layers.N.linear_attn.conv1d.weight",
     .gguf = "blk.N.ssm_conv1d.weight",
     .shape = CONV ",1,Kc",
     .out = CONV ",Kc",
     .rows = grouped_qkv},
    {.hf = "model.layers.N.linear_attn.norm.weight", .gguf = "blk.N.ssm_norm.weight", .shape = "dv"},
    {.hf = "model.layers.N.linear_attn.out_proj.weight",
     .gguf = "blk.N.ssm_out.weight",
     .shape = "D,Hv*dv",
     .cols = grouped_value},
};

static const struct arch_group dense_groups[] = {
    ARCH_GROUP(arch_rows_centred_global),
    ARCH_GROUP(arch_rows_centred_norms),
    ARCH_GROUP_WHEN(arch_rows_gated_attention, arch_is_full),
    ARCH_GROUP_WHEN(arch_rows_centred_qk_norms, arch_is_full),
    ARCH_GROUP_WHEN(linear_rows, arch_is_linear),
    ARCH_GROUP(arch_rows_ffn),
    ARCH_GROUP_WHEN(arch_rows_mtp, arch_is_mtp),
    ARCH_END_GROUPS,
};

static const struct arch_group moe_groups[] = {
    ARCH_GROUP(arch_rows_centred_global),
    ARCH_GROUP(arch_rows_centred_norms),
    ARCH_GROUP_WHEN(arch_rows_gated_attention, arch_is_full),
    ARCH_GROUP_WHEN(arch_rows_centred_qk_norms, arch_is_full),
    ARCH_GROUP_WHEN(linear_rows, arch_is_linear),
    ARCH_GROUP_WHEN(arch_rows_ffn, arch_is_dense),
    ARCH_GROUP_WHEN(arch_rows_router, arch_has_experts),
    ARCH_GROUP_WHEN(arch_rows_experts, arch_has_experts),
    ARCH_GROUP_WHEN(arch_rows_shared_expert, arch_has_experts),
    ARCH_GROUP_WHEN(arch_rows_mtp, arch_is_mtp),
    ARCH_END_GROUPS,
};

static int add_keys(const struct arch_model *a, struct gguf_meta *meta, const struct arch_warnings *w,
                    struct err *e)
{
    static const int32_t sections[4] = {11, 11, 10, 0};
    (void)w;
    int rc = arch_default_sections(a, meta, sections, e);
    return rc != 0 ? rc : arch_add_hybrid_keys(a, meta, e);
}

/* Defaults of the classes (transformers, their constructors). */
static const struct hf_class defaults_qwen35[] = {
    {{"qwen3_5_text", "qwen3_5"},
     {HF_SIZES(248320, 4096, 12288, 32, 16, 4), HF_UINT("head_dim", 256), HF_CONTEXT(32768, 1e-6, 1e4, 0.25),
      HF_DELTA_NET, HF_TIED(0)}},
    {.model_types = {NULL}},
};

const struct arch arch_qwen35 = {
    .name = "qwen35",
    .title = "Qwen3.5, Qwen3.6 dense (text)",
    .classes = dense_classes,
    .model_types = dense_types,
    .groups = dense_groups,
    .factors = ARCH_FACTOR_FFN | ARCH_FACTOR_DELTA,
    .keys = arch_keys_hybrid,
    .check = arch_check_hybrid,
    .add_keys = add_keys,
    .rename = arch_rename_mtp,
    .runtime = {.attn_norm = "attn_norm.weight",
                .ffn_norm = "post_attention_norm.weight",
                .gated = true,
                .hybrid = true,
                .tiled_heads = true,
                .predicts_without_cache = true},
    .defaults = defaults_qwen35,
};

/* Defaults of the classes (transformers, their constructors). */
static const struct hf_class defaults_qwen35moe[] = {
    /* num_hidden_layers to num_key_value_heads, without a dense width: every layer is MoE */
    {{"qwen3_5_moe_text", "qwen3_5_moe"},
     {HF_UINT("vocab_size", 248320), HF_UINT("hidden_size", 2048), HF_UINT("num_hidden_layers", 40),
      HF_UINT("num_attention_heads", 16), HF_UINT("num_key_value_heads", 2), HF_UINT("head_dim", 256),
      HF_CONTEXT(32768, 1e-6, 1e4, 0.25), HF_EXPERTS(256, 8, 512),
      HF_UINT("shared_expert_intermediate_size", 512), HF_BOOL("norm_topk_prob", 1), HF_DELTA_NET,
      HF_TIED(0)}},
    {.model_types = {NULL}},
};

const struct arch arch_qwen35moe = {
    .name = "qwen35moe",
    .title = "Qwen3.5, Qwen3.6 MoE (text)",
    .classes = moe_classes,
    .model_types = moe_types,
    .groups = moe_groups,
    .factors = ARCH_FACTOR_EXPERTS | ARCH_FACTOR_SHARED | ARCH_FACTOR_DELTA,
    .keys = arch_keys_hybrid,
    .check = arch_check_hybrid_experts,
    .add_keys = add_keys,
    .rename = arch_rename_mtp,
    .runtime = {.attn_norm = "attn_norm.weight",
                .ffn_norm = "post_attention_norm.weight",
                .gated = true,
                .hybrid = true,
                .tiled_heads = true,
                .renormalise = true,
                .predicts_without_cache = true},
    .defaults = defaults_qwen35moe,
};
