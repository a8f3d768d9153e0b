/* qwen.c - the first Qwen (1.8B, 7B, 14B, 72B): fused q, k, v with biases, names of its own.
 *
 * intermediate_size counts both halves of the gated FFN; the key keeps it undivided, the tensors have half.
 * w2 is the gate, w1 the up projection. Truth: specification, architectures 1. */
#include "arch_rows.h"

static const char *const classes[] = {"QWenLMHeadModel", NULL};
static const char *const model_types[] = {"qwen", NULL};

static const struct arch_row rows[] = {
    {.hf = "transformer.wte.weight", .gguf = "token_embd.weight", .shape = "V,D"},
    {.hf = "transformer.ln_f.weight", .gguf = "output_norm.weight", .shape = "D"},
    {.hf = "lm_head.weight", .gguf = "output.weight", .shape = "V,D", .presence = ARCH_HEAD},
    {.hf = "transformer.h.N.ln_1.weight", .gguf = "blk.N.attn_norm.weight", .shape = "D"},
    {.hf = "transformer.h.N.attn.c_attn.weight", .gguf = "blk.N.attn_qkv.weight", .shape = "3*H*d,D"},
    {.hf = "transformer.h.N.attn.c_attn.bias", .gguf = "blk.N.attn_qkv.bias", .shape = "3*H*d"},
    {.hf = "transformer.h.N.attn.c_proj.weight", .gguf = "blk.N.attn_output.weight", .shape = "D,H*d"},
    {.hf = "transformer.h.N.ln_2.weight", .gguf = "blk.N.ffn_norm.weight", .shape = "D"},
    {.hf = "transformer.h.N.mlp.w2.weight", .gguf = "blk.N.ffn_gate.weight", .shape = "F/2,D"},
    {.hf = "transformer.h.N.mlp.w1.weight", .gguf = "blk.N.ffn_up.weight", .shape = "F/2,D"},
    {.hf = "transformer.h.N.mlp.c_proj.weight", .gguf = "blk.N.ffn_down.weight", .shape = "D,F/2"},
};

static const struct arch_group groups[] = {ARCH_GROUP(rows), ARCH_END_GROUPS};

static const struct arch_key keys[] = {
    {.suffix = "attention.layer_norm_epsilon", .type = GGUF_F32, .field = "layer_norm_epsilon"},
    {.suffix = NULL},
};

static int check(struct arch_model *a, struct err *e)
{
    double part;
    if (a->value[ARCH_H] * a->value[ARCH_HD] != a->value[ARCH_D])
        return err_set(
            e, ERR_UNSUPPORTED,
            "qwen: %llu heads of %llu do not fill the width %llu, which this architecture cannot express",
            (unsigned long long)a->value[ARCH_H], (unsigned long long)a->value[ARCH_HD],
            (unsigned long long)a->value[ARCH_D]);
    if (hf_config_number(a->config, "rotary_pct", &part, NULL) && part != 1)
        return err_set(e, ERR_UNSUPPORTED,
                       "config.json: rotary_pct is %g; architecture 'qwen' rotates whole heads", part);
    return 0;
}

static int set_bool(struct gguf_meta *meta, const struct arch_model *a, const char *field, const char *key,
                    bool *value, struct err *e)
{
    *value = false;
    hf_config_bool(a->config, field, value, NULL);
    return gguf_meta_set_bool(meta, key, *value, e);
}

/* Beyond seq_length the reference changes the base of the rotation and the scale of attention. No key of the
 * runtime says so; our own are there for our own forward pass. */
static int add_keys(const struct arch_model *a, struct gguf_meta *meta, const struct arch_warnings *w,
                    struct err *e)
{
    uint64_t trained, context;
    bool logn, ntk;
    if (!hf_config_uint(a->config, "seq_length", &trained, NULL))
        return 0;
    int rc = arch_set_u32(a, meta, "ext.train_length", trained, e);
    if (rc == 0)
        rc = set_bool(meta, a, "use_logn_attn", "qwen.ext.logn_attention", &logn, e);
    if (rc == 0)
        rc = set_bool(meta, a, "use_dynamic_ntk", "qwen.ext.dynamic_ntk", &ntk, e);
    if (rc == 0 && (logn || ntk) && arch_context(a, meta, &context) && trained < context)
        rc = w->add(w->ctx,
                    "[runtime-differs] config.json: beyond seq_length this model needs dynamic NTK and logn "
                    "scaling, which llama.cpp does not compute; the keys qwen.ext.* keep them for kerf",
                    e);
    return rc;
}

/* Defaults of the classes (transformers, their constructors). */
static const struct hf_class defaults[] = {
    {{"qwen"}, /* configuration_qwen.py of the published repositories; their files state seq_length */
     {HF_UINT("vocab_size", 151936), HF_UINT("hidden_size", 4096), HF_UINT("intermediate_size", 22016),
      HF_UINT("num_hidden_layers", 32), HF_UINT("num_attention_heads", 32), /* KV heads: as many as heads */
      HF_UINT("max_position_embeddings", 8192), HF_NUMBER("layer_norm_epsilon", 1e-6),
      HF_NUMBER("rotary_emb_base", 1e4), HF_BOOL("use_dynamic_ntk", 1), HF_BOOL("use_logn_attn", 1),
      HF_TIED(0)}},
    {.model_types = {NULL}},
};

const struct arch arch_qwen = {
    .name = "qwen",
    .title = "Qwen (first generation)",
    .classes = classes,
    .model_types = model_types,
    .groups = groups,
    .keys = keys,
    .quirks = ARCH_HEAD_MANDATORY,
    .check = check,
    .add_keys = add_keys,
    .runtime = {.attn_norm = "attn_norm.weight", .ffn_norm = "ffn_norm.weight", .fused_qkv = true},
    .defaults = defaults,
};
