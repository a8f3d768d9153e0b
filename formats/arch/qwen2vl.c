/* qwen2vl.c - the text part of Qwen2-VL, Qwen2.5-VL and of the Qwen2.5-Omni thinker: Qwen2 with rotary
 * sections.
 *
 * Vision and audio tensors are left out. Truth: specification, architectures 6, 7. */
#include "arch_rows.h"

static const char *const classes[] = {"Qwen2VLForConditionalGeneration",     "Qwen2VLModel",
                                      "Qwen2_5_VLForConditionalGeneration",  "Qwen2_5OmniModel",
                                      "Qwen2_5OmniForConditionalGeneration", NULL};
static const char *const model_types[] = {
    "qwen2_vl", "qwen2_vl_text", "qwen2_5_vl", "qwen2_5_vl_text", "qwen2_5_omni", "qwen2_5_omni_text", NULL};

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

const struct arch arch_qwen2vl = {
    .name = "qwen2vl",
    .title = "Qwen2-VL, Qwen2.5-VL, Qwen2.5-Omni (text)",
    .classes = classes,
    .model_types = model_types,
    .groups = groups,
    .check = check,
    .add_keys = add_keys,
};
