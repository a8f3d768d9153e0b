/* qwen2vl.c - the text part of Qwen2-VL, Qwen2.5-VL and of the Qwen2.5-Omni thinker: Qwen2 with rotary
 * sections.
 *
 * Vision and audio tensors are left out. Truth: specification, architectures 6, 7. */
#include "arch_rows.h"

static const char *const classes[] = {"Qwen2VLForConditionalGeneration",
                                      "Qwen2VLModel",
                                      "Qwen2_5_VLForConditionalGeneration",
                                      "Qwen2_5OmniModel",
                                      "Qwen2_5OmniForConditionalGeneration",
                                      "Qwen2_5OmniThinkerForConditionalGeneration",
                                      "Qwen2VLTextModel",
                                      "Qwen2_5_VLModel",
                                      "Qwen2_5_VLTextModel",
                                      "Qwen2_5OmniThinkerTextModel",
                                      NULL};
static const char *const model_types[] = {
    "qwen2_vl",     "qwen2_vl_text",     "qwen2_5_vl",           "qwen2_5_vl_text",
    "qwen2_5_omni", "qwen2_5_omni_text", "qwen2_5_omni_thinker", NULL};

static const struct arch_row own_rows[] = {
    {.hf = "lm_head.bias", .gguf = "output.bias", .shape = "V", .presence = ARCH_OPTIONAL},
};

static const struct arch_group groups[] = {
    ARCH_GROUP(arch_rows_global),
    ARCH_GROUP(own_rows),
    ARCH_GROUP(arch_rows_norms),
    ARCH_GROUP(arch_rows_attention),
    ARCH_GROUP(arch_rows_qkv_bias),
    ARCH_GROUP(arch_rows_ffn),
    ARCH_END_GROUPS,
};

/* The runtime needs the sections; only for heads of 128 is it known what a silent configuration means. */
static int check(struct arch_model *a, struct err *e)
{
    if (a->rope.n_mrope_sections == 0 && a->value[ARCH_HD] != 128)
        return err_set(e, ERR_FORMAT,
                       "config.json: mrope_section is missing, and heads of %llu have no default",
                       (unsigned long long)a->value[ARCH_HD]);
    return 0;
}

static int add_keys(const struct arch_model *a, struct gguf_meta *meta, const struct arch_warnings *w,
                    struct err *e)
{
    static const int32_t sections[4] = {16, 24, 24, 0};
    int rc = arch_default_sections(a, meta, sections, e);
    return rc != 0 ? rc : arch_add_sliding_window(a, meta, w, e);
}

/* Defaults of the classes (transformers, their constructors). */
static const struct hf_class defaults[] = {
    {{"qwen2_vl_text", "qwen2_5_vl_text", "qwen2_vl", "qwen2_5_vl"},
     {HF_SIZES(152064, 8192, 29568, 80, 64, 8), HF_CONTEXT(32768, 1e-5, 1e6, 1), HF_WINDOW(4096),
      HF_UINT("max_window_layers", 80), HF_QKV_BIAS, HF_TIED(0)}},
    {{"qwen2_5_omni_text", "qwen2_5_omni_thinker", "qwen2_5_omni"},
     {HF_SIZES(152064, 3584, 18944, 28, 28, 4), HF_CONTEXT(32768, 1e-6, 1e6, 1), HF_WINDOW(32768),
      HF_UINT("max_window_layers", 28), HF_QKV_BIAS, HF_TIED(0)}},
    {.model_types = {NULL}},
};

const struct arch arch_qwen2vl = {
    .name = "qwen2vl",
    .title = "Qwen2-VL, Qwen2.5-VL, Qwen2.5-Omni (text)",
    .classes = classes,
    .model_types = model_types,
    .groups = groups,
    .check = check,
    .add_keys = add_keys,
    .runtime = {.attn_norm = "attn_norm.weight", .ffn_norm = "ffn_norm.weight"},
    .defaults = defaults,
};
