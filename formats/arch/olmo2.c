/* olmo2.c - OLMo 2: norms stand behind attention and feed-forward instead of before them, and q and k have
 * one norm over all heads together.
 *
 * Truth: specification, architectures 26. */
#include "arch_rows.h"

static const char *const classes[] = {"Olmo2ForCausalLM", NULL};
static const char *const model_types[] = {"olmo2", NULL};

static const struct arch_row own_rows[] = {
    {.hf = "model.layers.N.post_attention_layernorm.weight",
     .gguf = "blk.N.post_attention_norm.weight",
     .shape = "D"},
    {.hf = "model.layers.N.post_feedforward_layernorm.weight",
     .gguf = "blk.N.post_ffw_norm.weight",
     .shape = "D"},
    {.hf = "model.layers.N.self_attn.q_norm.weight", .gguf = "blk.N.attn_q_norm.weight", .shape = "H*d"},
    {.hf = "model.layers.N.self_attn.k_norm.weight", .gguf = "blk.N.attn_k_norm.weight", .shape = "Hkv*d"},
};

static const struct arch_group groups[] = {
    ARCH_GROUP(arch_rows_global), ARCH_GROUP(own_rows), ARCH_GROUP(arch_rows_attention),
    ARCH_GROUP(arch_rows_ffn),    ARCH_END_GROUPS,
};

static int check(struct arch_model *a, struct err *e)
{
    int rc = arch_check_whole_heads(a, "olmo2", e);
    return rc == 0 ? arch_check_even_heads(a, e) : rc;
}

static const struct hf_class defaults[] = {
    {{"olmo2"},
     {HF_UINT("vocab_size", 50304), HF_UINT("hidden_size", 4096), HF_UINT("intermediate_size", 11008),
      HF_UINT("num_hidden_layers", 32), HF_UINT("num_attention_heads", 32), /* KV heads: as many as heads */
      HF_CONTEXT(2048, 1e-5, 1e4, 1), HF_TIED(0)}},
    {.model_types = {NULL}},
};

const struct arch arch_olmo2 = {
    .name = "olmo2",
    .title = "OLMo 2",
    .classes = classes,
    .model_types = model_types,
    .groups = groups,
    .factors = ARCH_FACTOR_NOT_QKV,
    .quirks = ARCH_HEAD_MANDATORY,
    .check = check,
    .runtime = {.attn_post_norm = "post_attention_norm.weight",
                .ffn_post_norm = "post_ffw_norm.weight",
                .whole_qk_norm = true},
    .defaults = defaults,
};
