/* llama.c - Llama 1 to 3.x, Mistral and Mixtral; Mistral Small 3.1 and later (text).
 *
 * The runtime rotates adjacent pairs, HuggingFace the two halves of a head, so the rows of q and k are
 * permuted, weights and biases alike. "llama3" frequency scaling becomes a tensor of divisors.
 *
 * Truth: specification, architectures 17 and 35. */
#include "arch_rows.h"

#include <string.h>

static const char *const classes[] = {"LlamaForCausalLM",   "LLaMAForCausalLM", "MistralForCausalLM",
                                      "MixtralForCausalLM", "LlamaModel",       NULL};
static const char *const model_types[] = {"llama", "mistral", "mixtral", NULL};

/* Rows of gate and up in a fused stack. */
static uint64_t gate_half(const struct arch_model *a, uint64_t out)
{
    uint64_t n = a->value[ARCH_F];
    return out / n * (2 * n) + out % n;
}

static uint64_t up_half(const struct arch_model *a, uint64_t out)
{
    return gate_half(a, out) + a->value[ARCH_F];
}

/* Mixtral. The expert width is intermediate_size; w1 is the gate, w3 the up, w2 the down projection. Newer
 * transformers may store the experts stacked, with gate and up fused. */
static const struct arch_row expert_rows[] = {
    {.hf = "model.layers.N.block_sparse_moe.gate.weight",
     .gguf = "blk.N.ffn_gate_inp.weight",
     .shape = "E,D"},
    {.hf = "model.layers.N.block_sparse_moe.experts.J.w1.weight",
     .gguf = "blk.N.ffn_gate_exps.weight",
     .shape = "F,D"},
    {.hf = "model.layers.N.block_sparse_moe.experts.J.w2.weight",
     .gguf = "blk.N.ffn_down_exps.weight",
     .shape = "D,F"},
    {.hf = "model.layers.N.block_sparse_moe.experts.J.w3.weight",
     .gguf = "blk.N.ffn_up_exps.weight",
     .shape = "F,D"},
    {.hf = "model.layers.N.mlp.gate.weight",
     .gguf = "blk.N.ffn_gate_inp.weight",
     .shape = "E,D",
     .presence = ARCH_OPTIONAL},
    {.hf = "model.layers.N.mlp.experts.gate_up_proj",
     .gguf = "blk.N.ffn_gate_exps.weight",
     .shape = "E,2*F,D",
     .presence = ARCH_OPTIONAL,
     .out = "E,F,D",
     .rows = gate_half},
    {.hf = "model.layers.N.mlp.experts.down_proj",
     .gguf = "blk.N.ffn_down_exps.weight",
     .shape = "E,D,F",
     .presence = ARCH_OPTIONAL},
    {.hf = "model.layers.N.mlp.experts.gate_up_proj",
     .gguf = "blk.N.ffn_up_exps.weight",
     .shape = "E,2*F,D",
     .presence = ARCH_OPTIONAL,
     .out = "E,F,D",
     .rows = up_half},
};

static bool has_experts(const struct arch_model *a, uint64_t layer)
{
    (void)layer;
    return a->known[ARCH_E] && a->value[ARCH_E] > 0;
}

static bool is_dense(const struct arch_model *a, uint64_t layer)
{
    return !has_experts(a, layer);
}

static const struct arch_group groups[] = {
    ARCH_GROUP(arch_rows_global),
    ARCH_GROUP(arch_rows_norms),
    ARCH_GROUP(arch_rows_permuted_attention),
    ARCH_GROUP(arch_rows_ffn_bias),
    ARCH_GROUP(arch_rows_o_bias),
    ARCH_GROUP_WHEN(arch_rows_ffn, is_dense),
    ARCH_GROUP_WHEN(expert_rows, has_experts),
    ARCH_END_GROUPS,
};

/* Mistral and Mixtral see a window in every layer (their class has one by default), Llama never. The runtime
 * reads no such key in this architecture; it is there for our own forward pass. */
static int add_keys(const struct arch_model *a, struct gguf_meta *meta, const struct arch_warnings *w,
                    struct err *e)
{
    uint64_t window, context;
    const char *class_name = hf_config_architecture(a->config), *type = hf_config_model_type(a->config);
    if (strncmp(class_name, "Llama", 5) == 0 || strncmp(class_name, "LLaMA", 5) == 0 ||
        (class_name[0] == '\0' && strcmp(type, "llama") == 0) ||
        !hf_config_uint(a->config, "sliding_window", &window, NULL) || window == 0 ||
        !arch_context(a, meta, &context) || window >= context)
        return 0;
    int rc = arch_set_u32(a, meta, "attention.sliding_window", window, e);
    return rc != 0 ? rc
                   : w->add(w->ctx,
                            "[runtime-differs] config.json: sliding_window is on; llama.cpp computes full "
                            "attention in this architecture, so beyond the window its results differ",
                            e);
}

/* Defaults of the classes (transformers, their constructors). */
static const struct hf_class defaults[] = {
    {{"llama"},
     {HF_UINT("vocab_size", 32000), HF_UINT("hidden_size", 4096), HF_UINT("intermediate_size", 11008),
      HF_UINT("num_hidden_layers", 32), HF_UINT("num_attention_heads", 32), /* KV heads: as many as heads */
      HF_CONTEXT(2048, 1e-6, 1e4, 1), HF_TIED(0)}},
    {{"mistral"},
     {HF_SIZES(32000, 4096, 14336, 32, 32, 8), HF_CONTEXT(131072, 1e-6, 1e4, 1),
      HF_UINT("sliding_window", 4096), HF_TIED(0)}},
    {{"mixtral"},
     {HF_SIZES(32000, 4096, 14336, 32, 32, 8), HF_CONTEXT(131072, 1e-5, 1e6, 1),
      HF_UINT("num_local_experts", 8), HF_UINT("num_experts_per_tok", 2), HF_TIED(0)}},
    {.model_types = {NULL}},
};

const struct arch arch_llama = {
    .name = "llama",
    .title = "Llama 1 to 3.x, Mistral, Mixtral",
    .classes = classes,
    .model_types = model_types,
    .groups = groups,
    .factors = ARCH_FACTOR_FFN | ARCH_FACTOR_EXPERTS,
    .keys = arch_keys_llama,
    .quirks = ARCH_ROPE_FREQS | ARCH_HEAD_DIM_KEY,
    .check = arch_check_even_heads,
    .add_keys = add_keys,
    .runtime = {.attn_norm = "attn_norm.weight",
                .ffn_norm = "ffn_norm.weight",
                .neighbours = true,
                .renormalise = true},
    .defaults = defaults,
};

/* --- Mistral with a tower for images: the same text model, in an architecture of its own --- */

static const char *const classes_3[] = {"Mistral3ForConditionalGeneration", NULL};
static const char *const model_types_3[] = {"mistral3", NULL};

static const struct arch_group groups_3[] = {
    ARCH_GROUP(arch_rows_global),
    ARCH_GROUP(arch_rows_norms),
    ARCH_GROUP(arch_rows_permuted_attention),
    ARCH_GROUP(arch_rows_ffn),
    ARCH_END_GROUPS,
};

/* Ministral 3 and Mistral 4 come in the same class: queries scaled by their position, attention over latents.
 */
static int check_3(struct arch_model *a, struct err *e)
{
    const char *type = hf_config_model_type(a->config);
    if (type[0] && strcmp(type, "mistral") != 0 && strcmp(type, "mistral3") != 0)
        return err_set(e, ERR_UNSUPPORTED,
                       "config.json: the text model of 'Mistral3ForConditionalGeneration' is '%.100s'; "
                       "'mistral' alone is supported",
                       type);
    return arch_check_even_heads(a, e);
}

const struct arch arch_mistral3 = {
    .name = "mistral3",
    .title = "Mistral Small 3.1 and later (text)",
    .classes = classes_3,
    .model_types = model_types_3,
    .groups = groups_3,
    .keys = arch_keys_llama,
    .quirks = ARCH_HEAD_DIM_KEY,
    .check = check_3,
    .add_keys = add_keys,
    .runtime = {.attn_norm = "attn_norm.weight", .ffn_norm = "ffn_norm.weight", .neighbours = true},
};
