/* qwen2moe.c - Qwen1.5-MoE and Qwen2-57B-A14B: Qwen2 attention, routed experts and one gated shared expert.
 *
 * Expert weights are not renormalised; the runtime wants the head stored even when it is tied.
 * Truth: specification, architectures 3, 4.5. */
#include "arch_rows.h"

static const char *const classes[] = {"Qwen2MoeForCausalLM", NULL};
static const char *const model_types[] = {"qwen2_moe", NULL};

static const struct arch_group groups[] = {
    ARCH_GROUP(arch_rows_global),        ARCH_GROUP(arch_rows_norms),
    ARCH_GROUP(arch_rows_attention),     ARCH_GROUP(arch_rows_qkv_bias),
    ARCH_GROUP(arch_rows_router),        ARCH_GROUP(arch_rows_experts),
    ARCH_GROUP(arch_rows_shared_expert), ARCH_END_GROUPS,
};

static const struct arch_key keys[] = {
    {.suffix = "expert_feed_forward_length", .type = GGUF_U32, .expr = "Fe", .required = true},
    {.suffix = "expert_shared_feed_forward_length", .type = GGUF_U32, .expr = "Fs", .required = true},
    {.suffix = NULL},
};

static int add_keys(const struct arch_model *a, struct gguf_meta *meta, const struct arch_warnings *w,
                    struct err *e)
{
    return arch_add_expert_norm(a, meta, false, w, e);
}

const struct arch arch_qwen2moe = {
    .name = "qwen2moe",
    .title = "Qwen1.5-MoE, Qwen2-57B-A14B",
    .classes = classes,
    .model_types = model_types,
    .groups = groups,
    .keys = keys,
    .quirks = ARCH_HEAD_MANDATORY,
    .check = arch_check_all_experts,
    .add_keys = add_keys,
};
