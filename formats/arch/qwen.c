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

/* Beyond seq_length the reference changes the base and the scale of attention; no runtime does. */
static int add_keys(const struct arch_model *a, struct gguf_meta *meta, const struct arch_warnings *w,
                    struct err *e)
{
    uint64_t trained, context;
    (void)meta;
    if (hf_config_uint(a->config, "seq_length", &trained, NULL) &&
        hf_config_uint(a->config, "max_position_embeddings", &context, NULL) && trained < context)
        return w->add(
            w->ctx,
            "config.json: beyond seq_length this model needs dynamic NTK and logn scaling, which GGUF "
            "files cannot express",
            e);
    return 0;
}

const struct arch arch_qwen = {
    .name = "qwen",
    .title = "Qwen (first generation)",
    .classes = classes,
    .model_types = model_types,
    .groups = groups,
    .keys = keys,
    .quirks = ARCH_HEAD_MANDATORY,
    .add_keys = add_keys,
};
