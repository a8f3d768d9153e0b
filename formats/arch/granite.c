/* granite.c - Granite 3 dense: a Llama with factors for embeddings, scores, what a step adds, and logits.
 *
 * Truth: specification, architectures 28. */
#include "arch_rows.h"

static const char *const classes[] = {"GraniteForCausalLM", NULL};
static const char *const model_types[] = {"granite", NULL};

static const struct arch_group groups[] = {
    ARCH_GROUP(arch_rows_global),
    ARCH_GROUP(arch_rows_norms),
    ARCH_GROUP(arch_rows_permuted_attention),
    ARCH_GROUP(arch_rows_o_bias),
    ARCH_GROUP(arch_rows_ffn_bias),
    ARCH_GROUP(arch_rows_ffn),
    ARCH_END_GROUPS,
};

static const struct arch_key keys[] = {
    {.suffix = "vocab_size", .type = GGUF_U32, .expr = "V", .required = true},
    {.suffix = "rope.dimension_count", .type = GGUF_U32, .expr = "d", .required = true},
    {.suffix = "attention.scale", .type = GGUF_F32, .field = "attention_multiplier", .required = true},
    {.suffix = "embedding_scale", .type = GGUF_F32, .field = "embedding_multiplier", .required = true},
    {.suffix = "residual_scale", .type = GGUF_F32, .field = "residual_multiplier", .required = true},
    {.suffix = "logit_scale", .type = GGUF_F32, .field = "logits_scaling", .required = true},
    {.suffix = NULL},
};

static int check(struct arch_model *a, struct err *e)
{
    static const char *const factors[] = {"attention_multiplier", "embedding_multiplier",
                                          "residual_multiplier", "logits_scaling"};
    for (size_t i = 0; i < sizeof factors / sizeof *factors; i++) {
        double v;
        if (hf_config_number(a->config, factors[i], &v, NULL) && !(v > 0 && v < 1e30))
            return err_set(e, ERR_FORMAT, "config.json: '%s' is %g, expected a number above 0", factors[i],
                           v);
    }
    int rc = arch_check_whole_heads(a, "granite", e);
    return rc == 0 ? arch_check_even_heads(a, e) : rc;
}

static const struct hf_class defaults[] = {
    {{"granite"},
     {HF_UINT("vocab_size", 32000), HF_UINT("hidden_size", 4096), HF_UINT("intermediate_size", 11008),
      HF_UINT("num_hidden_layers", 32), HF_UINT("num_attention_heads", 32), /* KV heads: as many as heads */
      HF_CONTEXT(2048, 1e-6, 1e4, 1), HF_NUMBER("attention_multiplier", 1),
      HF_NUMBER("embedding_multiplier", 1), HF_NUMBER("residual_multiplier", 1),
      HF_NUMBER("logits_scaling", 1), HF_TIED(0)}},
    {.model_types = {NULL}},
};

const struct arch arch_granite = {
    .name = "granite",
    .title = "Granite 3 dense",
    .classes = classes,
    .model_types = model_types,
    .groups = groups,
    .keys = keys,
    .quirks = ARCH_ROPE_FREQS,
    .check = check,
    .runtime = {.attn_norm = "attn_norm.weight",
                .ffn_norm = "ffn_norm.weight",
                .neighbours = true,
                .scaled = true},
    .defaults = defaults,
};
