/* gptoss.c - gpt-oss: routed experts in every layer, with biases and a clamped SwiGLU; a sink beside the keys
 * of each head; windows in every other layer.
 *
 * A stack of experts is stored as MXFP4 blocks by rows, or, by transformers, with its last axes swapped; rows
 * of gate and up alternate in it. Truth: specification, architectures 32. */
#include "arch_rows.h"

static const char *const classes[] = {"GptOssForCausalLM", NULL};
static const char *const model_types[] = {"gpt_oss", NULL};

/* Rows (of biases: elements) of gate and up alternate in each expert. */
static uint64_t gate_of_pair(const struct arch_model *a, uint64_t out)
{
    (void)a;
    return 2 * out;
}

static uint64_t up_of_pair(const struct arch_model *a, uint64_t out)
{
    (void)a;
    return 2 * out + 1;
}

static const struct arch_row norm_rows[] = {
    {.hf = "model.layers.N.input_layernorm.weight", .gguf = "blk.N.attn_norm.weight", .shape = "D"},
    {.hf = "model.layers.N.post_attention_layernorm.weight",
     .gguf = "blk.N.post_attention_norm.weight",
     .shape = "D"},
    {.hf = "model.layers.N.self_attn.sinks", .gguf = "blk.N.attn_sinks.weight", .shape = "H"},
};

static const struct arch_row expert_rows[] = {
    {.hf = "model.layers.N.mlp.router.weight", .gguf = "blk.N.ffn_gate_inp.weight", .shape = "E,D"},
    {.hf = "model.layers.N.mlp.router.bias", .gguf = "blk.N.ffn_gate_inp.bias", .shape = "E"},
    {.hf = "model.layers.N.mlp.experts.down_proj.weight",
     .gguf = "blk.N.ffn_down_exps.weight",
     .shape = "E,D,F"},
    {.hf = "model.layers.N.mlp.experts.gate_up_proj.weight",
     .gguf = "blk.N.ffn_gate_exps.weight",
     .shape = "E,2*F,D",
     .out = "E,F,D",
     .rows = gate_of_pair},
    {.hf = "model.layers.N.mlp.experts.gate_up_proj.weight",
     .gguf = "blk.N.ffn_up_exps.weight",
     .shape = "E,2*F,D",
     .out = "E,F,D",
     .rows = up_of_pair},
    {.hf = "model.layers.N.mlp.experts.down_proj",
     .gguf = "blk.N.ffn_down_exps.weight",
     .shape = "E,F,D",
     .presence = ARCH_OPTIONAL,
     .out = "E,D,F",
     .transpose = true},
    {.hf = "model.layers.N.mlp.experts.gate_up_proj",
     .gguf = "blk.N.ffn_gate_exps.weight",
     .shape = "E,D,2*F",
     .presence = ARCH_OPTIONAL,
     .out = "E,F,D",
     .transpose = true,
     .rows = gate_of_pair},
    {.hf = "model.layers.N.mlp.experts.gate_up_proj",
     .gguf = "blk.N.ffn_up_exps.weight",
     .shape = "E,D,2*F",
     .presence = ARCH_OPTIONAL,
     .out = "E,F,D",
     .transpose = true,
     .rows = up_of_pair},
    {.hf = "model.layers.N.mlp.experts.down_proj_bias", .gguf = "blk.N.ffn_down_exps.bias", .shape = "E,D"},
    {.hf = "model.layers.N.mlp.experts.gate_up_proj_bias",
     .gguf = "blk.N.ffn_gate_exps.bias",
     .shape = "E,2*F",
     .out = "E,F",
     .rows = gate_of_pair,
     .by_element = true},
    {.hf = "model.layers.N.mlp.experts.gate_up_proj_bias",
     .gguf = "blk.N.ffn_up_exps.bias",
     .shape = "E,2*F",
     .out = "E,F",
     .rows = up_of_pair,
     .by_element = true},
};

static const struct arch_group groups[] = {
    ARCH_GROUP(arch_rows_global),
    ARCH_GROUP(norm_rows),
    ARCH_GROUP(arch_rows_attention),
    ARCH_GROUP(arch_rows_qkv_bias),
    ARCH_GROUP(arch_rows_o_bias),
    ARCH_GROUP(expert_rows),
    ARCH_END_GROUPS,
};

static const struct arch_key keys[] = {
    {.suffix = "attention.sliding_window", .type = GGUF_U32, .field = "sliding_window", .required = true},
    {.suffix = "expert_feed_forward_length", .type = GGUF_U32, .expr = "F", .required = true},
    {.suffix = NULL},
};

/* The class has a scaling where a file states no positions at all. */
static void default_rope(struct arch_model *a)
{
    struct hf_rope *r = &a->rope;
    if (hf_config_get(a->config, "rope_scaling") || hf_config_get(a->config, "rope_parameters"))
        return;
    *r = (struct hf_rope){.type = ROPE_YARN,
                          .type_name = "yarn",
                          .theta = r->theta,
                          .partial_rotary_factor = 1,
                          .has_factor = true,
                          .factor = 32,
                          .has_original_context = true,
                          .original_context = 4096,
                          .has_beta_fast = true,
                          .beta_fast = 32,
                          .has_beta_slow = true,
                          .beta_slow = 1,
                          .has_truncate = true};
}

static int check(struct arch_model *a, struct err *e)
{
    static const struct {
        const char *key;
        double built_in;
    } numbers[] = {{"swiglu_limit", 7}, {"swiglu_alpha", 1.702}};
    double v;
    bool biased = true;
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        if (hf_config_number(a->config, numbers[i].key, &v, NULL) && v != numbers[i].built_in)
            return err_set(e, ERR_UNSUPPORTED,
                           "config.json: '%s' is %g; runtimes of 'gpt-oss' have %g built in", numbers[i].key,
                           v, numbers[i].built_in);
    hf_config_bool(a->config, "attention_bias", &biased, NULL);
    if (!biased)
        return err_set(
            e, ERR_UNSUPPORTED,
            "config.json: attention_bias is false; llama.cpp has no 'gpt-oss' without these biases");
    if (a->value[ARCH_E] == 0 || a->value[ARCH_K] == 0 || a->value[ARCH_K] > a->value[ARCH_E])
        return err_set(e, ERR_FORMAT, "config.json: a token cannot use %llu of %llu experts",
                       (unsigned long long)a->value[ARCH_K], (unsigned long long)a->value[ARCH_E]);
    default_rope(a);
    int rc = arch_check_windows(a, e);
    return rc == 0 ? arch_check_even_heads(a, e) : rc;
}

static const struct hf_class defaults[] = {
    {{"gpt_oss"},
     {HF_SIZES(201088, 2880, 2880, 36, 64, 8), HF_UINT("head_dim", 64), HF_CONTEXT(131072, 1e-5, 1.5e5, 1),
      HF_UINT("num_local_experts", 128), HF_UINT("num_experts_per_tok", 4), HF_UINT("sliding_window", 128),
      HF_BOOL("attention_bias", 1), HF_TIED(0)}},
    {.model_types = {NULL}},
};

const struct arch arch_gptoss = {
    .name = "gpt-oss",
    .title = "gpt-oss",
    .classes = classes,
    .model_types = model_types,
    .groups = groups,
    .keys = keys,
    .quirks = ARCH_HEAD_MANDATORY,
    .check = check,
    .runtime = {.attn_norm = "attn_norm.weight",
                .ffn_norm = "post_attention_norm.weight",
                .renormalise = true,
                .sinks = true,
                .clamped = true,
                .window_period = 2},
    .defaults = defaults,
};
