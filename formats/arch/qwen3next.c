/* qwen3next.c - Qwen3-Next: a hybrid with routed experts. Value heads keep the order of the checkpoint.
 *
 * Truth: specification, architectures 13. */
#include "arch_rows.h"

static const char *const classes[] = {"Qwen3NextForCausalLM", NULL};
static const char *const model_types[] = {"qwen3_next", NULL};

/* in_proj_qkvz holds, per key head, dk query rows, dk key rows, r*dv value rows and r*dv gate rows. */
static uint64_t head_block(const struct arch_model *a)
{
    uint64_t r = a->value[ARCH_HV] / a->value[ARCH_HK];
    return 2 * a->value[ARCH_DK] + 2 * r * a->value[ARCH_DV];
}

/* Queries of all heads, then keys, then values. */
static uint64_t qkv_row(const struct arch_model *a, uint64_t out)
{
    uint64_t dk = a->value[ARCH_DK], key = a->value[ARCH_HK] * dk;
    uint64_t rdv = a->value[ARCH_HV] / a->value[ARCH_HK] * a->value[ARCH_DV];
    if (out < key)
        return out / dk * head_block(a) + out % dk;
    if (out < 2 * key)
        return (out - key) / dk * head_block(a) + dk + (out - key) % dk;
    out -= 2 * key;
    return out / rdv * head_block(a) + 2 * dk + out % rdv;
}

static uint64_t z_row(const struct arch_model *a, uint64_t out)
{
    uint64_t rdv = a->value[ARCH_HV] / a->value[ARCH_HK] * a->value[ARCH_DV];
    return out / rdv * head_block(a) + 2 * a->value[ARCH_DK] + rdv + out % rdv;
}

#define CONV "2*Hk*dk+Hv*dv"

static const struct arch_row linear_rows[] = {
    {.hf = "model.layers.N.linear_attn.in_proj_qkvz.weight",
     .gguf = "blk.N.attn_qkv.weight",
     .shape = "2*Hk*dk+2*Hv*dv,D",
     .out = CONV ",D",
     .rows = qkv_row},
    {.hf = "model.layers.N.linear_attn.in_proj_qkvz.weight",
     .gguf = "blk.N.attn_gate.weight",
     .shape = "2*Hk*dk+2*Hv*dv,D",
     .out = "Hv*dv,D",
     .rows = z_row},
    {.hf = "model.layers.N.linear_attn.in_proj_qkv.weight",
     .gguf = "blk.N.attn_qkv.weight",
     .shape = CONV ",D",
     .presence = ARCH_OPTIONAL},
    {.hf = "model.layers.N.linear_attn.in_proj_z.weight",
     .gguf = "blk.N.attn_gate.weight",
     .shape = "Hv*dv,D",
     .presence = ARCH_OPTIONAL},
    {.hf = "model.layers.N.linear_attn.in_proj_ba.weight", .gguf = "blk.N.ssm_ba.weight", .shape = "2*Hv,D"},
    {.hf = "model.layers.N.linear_attn.conv1d.weight",
     .gguf = "blk.N.ssm_conv1d.weight",
     .shape = CONV ",1,Kc",
     .out = CONV ",Kc"},
    {.hf = "model.layers.N.linear_attn.dt_bias", .gguf = "blk.N.ssm_dt.bias", .shape = "Hv"},
    {.hf = "model.layers.N.linear_attn.A_log", .gguf = "blk.N.ssm_a", .shape = "Hv", .op = ARCH_NEG_EXP},
    {.hf = "model.layers.N.linear_attn.norm.weight", .gguf = "blk.N.ssm_norm.weight", .shape = "dv"},
    {.hf = "model.layers.N.linear_attn.out_proj.weight", .gguf = "blk.N.ssm_out.weight", .shape = "D,Hv*dv"},
};

static const struct arch_group groups[] = {
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
    int rc = arch_add_hybrid_keys(a, meta, e);
    return rc != 0 ? rc : arch_add_expert_norm(a, meta, true, w, e);
}

/* Defaults of the classes (transformers, their constructors). */
static const struct hf_class defaults[] = {
    {{"qwen3_next"},
     {HF_SIZES(151936, 2048, 5632, 48, 16, 2), HF_UINT("head_dim", 256), HF_CONTEXT(32768, 1e-6, 1e4, 0.25),
      HF_EXPERTS(512, 10, 512), HF_UINT("shared_expert_intermediate_size", 512), HF_BOOL("norm_topk_prob", 1),
      HF_UINT("decoder_sparse_step", 1), HF_DELTA_NET, HF_TIED(0)}},
    {.model_types = {NULL}},
};

const struct arch arch_qwen3next = {
    .name = "qwen3next",
    .title = "Qwen3-Next",
    .classes = classes,
    .model_types = model_types,
    .groups = groups,
    .factors = ARCH_FACTOR_EXPERTS | ARCH_FACTOR_SHARED,
    .keys = arch_keys_hybrid,
    .check = arch_check_hybrid_experts,
    .add_keys = add_keys,
    .rename = arch_rename_mtp,
    .runtime = {.attn_norm = "attn_norm.weight",
                .ffn_norm = "post_attention_norm.weight",
                .gated = true,
                .hybrid = true,
                .renormalise = true,
                .predicts_without_cache = true},
    .defaults = defaults,
};
