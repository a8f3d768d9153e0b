/* qwen3moe.c - Qwen3 with routed experts (30B-A3B, 235B-A22B, Coder): Qwen3 attention, no shared expert.
 *
 * The runtime always renormalises expert weights. Truth: specification, architectures 10. */
#include "arch_rows.h"

static const char *const classes[] = {"Qwen3MoeForCausalLM", NULL};
static const char *const model_types[] = {"qwen3_moe", NULL};

static const struct arch_group groups[] = {
    ARCH_GROUP(arch_rows_global),
    ARCH_GROUP(arch_rows_norms),
    ARCH_GROUP(arch_rows_attention),
    ARCH_GROUP(arch_rows_qk_norm),
    ARCH_GROUP(arch_rows_qkv_bias),
    ARCH_GROUP(arch_rows_o_bias),
    ARCH_GROUP_WHEN(arch_rows_ffn, arch_is_dense),
    ARCH_GROUP_WHEN(arch_rows_router, arch_has_experts),
    ARCH_GROUP_WHEN(arch_rows_experts, arch_has_experts),
    ARCH_END_GROUPS,
};

/* A window, where there is one, holds for all layers. */
static bool is_windowed(const struct arch_model *a, uint64_t layer)
{
    (void)a;
    (void)layer;
    return true;
}

static int add_keys(const struct arch_model *a, struct gguf_meta *meta, const struct arch_warnings *w,
                    struct err *e)
{
    int rc = arch_add_expert_norm(a, meta, true, w, e);
    return rc != 0 ? rc : arch_add_sliding_window_where(a, meta, is_windowed, w, e);
}

/* Defaults of the classes (transformers, their constructors). */
static const struct hf_class defaults[] = {
    {{"qwen3_moe"},
     {HF_SIZES(151936, 2048, 6144, 24, 32, 4), HF_CONTEXT(32768, 1e-6, 1e4, 1), HF_WINDOW(4096),
      HF_EXPERTS(128, 8, 768), HF_BOOL("norm_topk_prob", 0), HF_UINT("decoder_sparse_step", 1), HF_TIED(0)}},
    {.model_types = {NULL}},
};

const struct arch arch_qwen3moe = {
    .name = "qwen3moe",
    .title = "Qwen3 MoE (30B-A3B, 235B-A22B, Coder)",
    .classes = classes,
    .model_types = model_types,
    .groups = groups,
    .factors = ARCH_FACTOR_EXPERTS,
    .keys = arch_keys_experts,
    .check = arch_check_experts,
    .add_keys = add_keys,
    .runtime = {.attn_norm = "attn_norm.weight", .ffn_norm = "ffn_norm.weight", .renormalise = true},
    .defaults = defaults,
};
