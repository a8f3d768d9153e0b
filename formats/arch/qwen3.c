/* qwen3.c - Qwen3 dense: per-head RMS norms on q and k, a head dimension of its own, normally no biases.
 *
 * Truth: specification, architectures 9. */
#include "arch_rows.h"

static const char *const classes[] = {"Qwen3ForCausalLM", "Qwen3Model", "Qwen3ForSequenceClassification",
                                      NULL};
static const char *const model_types[] = {"qwen3", NULL};

static const struct arch_group groups[] = {
    ARCH_GROUP(arch_rows_rerank),    ARCH_GROUP(arch_rows_score_ranked),
    ARCH_GROUP(arch_rows_global),    ARCH_GROUP(arch_rows_norms),
    ARCH_GROUP(arch_rows_attention), ARCH_GROUP(arch_rows_qk_norm),
    ARCH_GROUP(arch_rows_qkv_bias),  ARCH_GROUP(arch_rows_o_bias),
    ARCH_GROUP(arch_rows_ffn),       ARCH_END_GROUPS,
};

static int add_keys(const struct arch_model *a, struct gguf_meta *meta, const struct arch_warnings *w,
                    struct err *e)
{
    int rc = arch_add_sliding_window(a, meta, w, e);
    return rc != 0 ? rc : arch_warn_output_bias(a, w, e);
}

/* Defaults of the classes (transformers, their constructors). */
static const struct hf_class defaults[] = {
    {{"qwen3"},
     {HF_SIZES(151936, 4096, 22016, 32, 32, 32), HF_UINT("head_dim", 128), HF_CONTEXT(32768, 1e-6, 1e4, 1),
      HF_WINDOW(4096), HF_UINT("max_window_layers", 28), HF_TIED(0)}},
    {.model_types = {NULL}},
};

const struct arch arch_qwen3 = {
    .name = "qwen3",
    .title = "Qwen3 dense",
    .classes = classes,
    .model_types = model_types,
    .groups = groups,
    .factors = ARCH_FACTOR_FFN,
    .quirks = ARCH_POOLING | ARCH_RERANKER,
    .add_keys = add_keys,
    .runtime = {.attn_norm = "attn_norm.weight", .ffn_norm = "ffn_norm.weight"},
    .defaults = defaults,
};
