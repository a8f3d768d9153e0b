/* seedoss.c - Seed-OSS: a Llama with biases of q, k and v, whose runtime rotates as HuggingFace does and
 * calls the norm before the feed-forward by the other name.
 *
 * Truth: specification, architectures 36. */
#include "arch_rows.h"

static const char *const classes[] = {"SeedOssForCausalLM", NULL};
static const char *const model_types[] = {"seed_oss", NULL};

static const struct arch_row norm_rows[] = {
    {.hf = "model.layers.N.input_layernorm.weight", .gguf = "blk.N.attn_norm.weight", .shape = "D"},
    {.hf = "model.layers.N.post_attention_layernorm.weight",
     .gguf = "blk.N.post_attention_norm.weight",
     .shape = "D"},
};

static const struct arch_group groups[] = {
    ARCH_GROUP(arch_rows_global),   ARCH_GROUP(norm_rows),     ARCH_GROUP(arch_rows_attention),
    ARCH_GROUP(arch_rows_qkv_bias), ARCH_GROUP(arch_rows_ffn), ARCH_END_GROUPS,
};

/* The runtime adds no others. */
static int check(struct arch_model *a, struct err *e)
{
    static const char *const biases[] = {"attention_out_bias", "mlp_bias"};
    for (size_t i = 0; i < sizeof biases / sizeof *biases; i++) {
        bool on = false;
        if (hf_config_bool(a->config, biases[i], &on, NULL) && on)
            return err_set(e, ERR_UNSUPPORTED, "config.json: '%s' is true, which 'seed_oss' cannot express",
                           biases[i]);
    }
    return arch_check_even_heads(a, e);
}

static const struct hf_class defaults[] = {
    {{"seed_oss"},
     {HF_SIZES(155136, 4096, 27648, 64, 80, 8), HF_UINT("head_dim", 128), HF_CONTEXT(524288, 1e-6, 1e4, 1),
      HF_BOOL("attention_bias", 1), HF_BOOL("attention_out_bias", 0), HF_BOOL("mlp_bias", 0), HF_TIED(0)}},
    {.model_types = {NULL}},
};

const struct arch arch_seedoss = {
    .name = "seed_oss",
    .title = "Seed-OSS",
    .classes = classes,
    .model_types = model_types,
    .groups = groups,
    .check = check,
    .runtime = {.attn_norm = "attn_norm.weight", .ffn_norm = "post_attention_norm.weight"},
    .defaults = defaults,
};
