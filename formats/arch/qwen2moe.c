/* qwen2moe.c - Qwen1.5-MoE and Qwen2-57B-A14B: Qwen2 attention, routed experts and one gated shared expert.
 *
 * Expert weights are not renormalised; the runtime wants the head stored even when it is tied.
 * Truth: specification, architectures 3, 4.5. */
#include "arch_rows.h"

static const char *const classes[] = {"Qwen2MoeForCausalLM", NULL};
static const char *const model_types[] = {"qwen2_moe", NULL};

static const struct arch_group groups[] = {
    ARCH_GROUP(arch_rows_global),
    ARCH_GROUP(arch_rows_norms),
    ARCH_GROUP(arch_rows_attention),
    ARCH_GROUP(arch_rows_qkv_bias),
    ARCH_GROUP_WHEN(arch_rows_ffn, arch_is_dense),
    ARCH_GROUP_WHEN(arch_rows_router, arch_has_experts),
    ARCH_GROUP_WHEN(arch_rows_experts, arch_has_experts),
    ARCH_GROUP_WHEN(arch_rows_shared_expert, arch_has_experts),
    ARCH_END_GROUPS,
};

static const struct arch_key keys[] = {
    {.suffix = "expert_feed_forward_length", .type = GGUF_U32, .expr = "Fe", .required = true},
    {.suffix = "expert_shared_feed_forward_length", .type = GGUF_U32, .expr = "Fs", .required = true},
    {.suffix = NULL},
};

/* Every other layer below max_window_layers, the first included. */
static bool is_windowed(const struct arch_model *a, uint64_t layer)
{
    uint64_t end = 0;
    hf_config_uint(a->config, "max_window_layers", &end, NULL);
    return layer % 2 == 0 && layer < end;
}

static int add_keys(const struct arch_model *a, struct gguf_meta *meta, const struct arch_warnings *w,
                    struct err *e)
{
    int rc = arch_add_expert_norm(a, meta, false, w, e);
    return rc != 0 ? rc : arch_add_sliding_window_where(a, meta, is_windowed, w, e);
}

/* Defaults of the classes (transformers, their constructors). */
static const struct hf_class defaults[] = {
    {{"qwen2_moe"},
     {HF_SIZES(151936, 2048, 5632, 24, 16, 16), HF_CONTEXT(32768, 1e-6, 1e4, 1), HF_WINDOW(4096),
      HF_UINT("max_window_layers", 28), HF_EXPERTS(60, 4, 1408),
      HF_UINT("shared_expert_intermediate_size", 5632), HF_BOOL("norm_topk_prob", 0),
      HF_UINT("decoder_sparse_step", 1), HF_QKV_BIAS, HF_TIED(0)}},
    {.model_types = {NULL}},
};

const struct arch arch_qwen2moe = {
    .name = "qwen2moe",
    .title = "Qwen1.5-MoE, Qwen2-57B-A14B",
    .classes = classes,
    .model_types = model_types,
    .groups = groups,
    .keys = keys,
    .quirks = ARCH_HEAD_MANDATORY,
    .check = arch_check_experts,
    .add_keys = add_keys,
    .runtime = {.attn_norm = "attn_norm.weight", .ffn_norm = "ffn_norm.weight"},
    .defaults = defaults,
};
