/* arch_moe.c - rows and checks of families with routed experts (specification 3, 10).
 *
 * A checkpoint holds experts one by one, or stacked with gate and up fused (newer transformers); both become
 * the same three tensors. Rows stand in the order in which llama.cpp's converter writes a finished stack. */
#include "arch_rows.h"

uint64_t arch_gate_half(const struct arch_model *a, uint64_t out)
{
    uint64_t n = a->value[ARCH_FE];
    return out / n * (2 * n) + out % n;
}

uint64_t arch_up_half(const struct arch_model *a, uint64_t out)
{
    return arch_gate_half(a, out) + a->value[ARCH_FE];
}

const struct arch_row arch_rows_router[1] = {
    {.hf = "model.layers.N.mlp.gate.weight", .gguf = "blk.N.ffn_gate_inp.weight", .shape = "E,D"},
};

/* The stacked names come with and without ".weight". */
const struct arch_row arch_rows_experts[9] = {
    {.hf = "model.layers.N.mlp.experts.J.down_proj.weight",
     .gguf = "blk.N.ffn_down_exps.weight",
     .shape = "D,Fe"},
    {.hf = "model.layers.N.mlp.experts.J.gate_proj.weight",
     .gguf = "blk.N.ffn_gate_exps.weight",
     .shape = "Fe,D"},
    {.hf = "model.layers.N.mlp.experts.J.up_proj.weight",
     .gguf = "blk.N.ffn_up_exps.weight",
     .shape = "Fe,D"},
    {.hf = "model.layers.N.mlp.experts.down_proj",
     .gguf = "blk.N.ffn_down_exps.weight",
     .shape = "E,D,Fe",
     .presence = ARCH_OPTIONAL},
    {.hf = "model.layers.N.mlp.experts.gate_up_proj",
     .gguf = "blk.N.ffn_gate_exps.weight",
     .shape = "E,2*Fe,D",
     .presence = ARCH_OPTIONAL,
     .out = "E,Fe,D",
     .rows = arch_gate_half},
    {.hf = "model.layers.N.mlp.experts.gate_up_proj",
     .gguf = "blk.N.ffn_up_exps.weight",
     .shape = "E,2*Fe,D",
     .presence = ARCH_OPTIONAL,
     .out = "E,Fe,D",
     .rows = arch_up_half},
    {.hf = "model.layers.N.mlp.experts.down_proj.weight",
     .gguf = "blk.N.ffn_down_exps.weight",
     .shape = "E,D,Fe",
     .presence = ARCH_OPTIONAL},
    {.hf = "model.layers.N.mlp.experts.gate_up_proj.weight",
     .gguf = "blk.N.ffn_gate_exps.weight",
     .shape = "E,2*Fe,D",
     .presence = ARCH_OPTIONAL,
     .out = "E,Fe,D",
     .rows = arch_gate_half},
    {.hf = "model.layers.N.mlp.experts.gate_up_proj.weight",
     .gguf = "blk.N.ffn_up_exps.weight",
     .shape = "E,2*Fe,D",
     .presence = ARCH_OPTIONAL,
     .out = "E,Fe,D",
     .rows = arch_up_half},
};

/* `transpose` swaps the last two axes first, so the maps are those of the untransposed form. */
const struct arch_row arch_rows_transposed_experts[6] = {
    {.hf = "model.layers.N.mlp.experts.down_proj",
     .gguf = "blk.N.ffn_down_exps.weight",
     .shape = "E,Fe,D",
     .presence = ARCH_OPTIONAL,
     .out = "E,D,Fe",
     .transpose = true},
    {.hf = "model.layers.N.mlp.experts.gate_up_proj",
     .gguf = "blk.N.ffn_gate_exps.weight",
     .shape = "E,D,2*Fe",
     .presence = ARCH_OPTIONAL,
     .out = "E,Fe,D",
     .transpose = true,
     .rows = arch_gate_half},
    {.hf = "model.layers.N.mlp.experts.gate_up_proj",
     .gguf = "blk.N.ffn_up_exps.weight",
     .shape = "E,D,2*Fe",
     .presence = ARCH_OPTIONAL,
     .out = "E,Fe,D",
     .transpose = true,
     .rows = arch_up_half},
    {.hf = "model.layers.N.mlp.experts.down_proj.weight",
     .gguf = "blk.N.ffn_down_exps.weight",
     .shape = "E,Fe,D",
     .presence = ARCH_OPTIONAL,
     .out = "E,D,Fe",
     .transpose = true},
    {.hf = "model.layers.N.mlp.experts.gate_up_proj.weight",
     .gguf = "blk.N.ffn_gate_exps.weight",
     .shape = "E,D,2*Fe",
     .presence = ARCH_OPTIONAL,
     .out = "E,Fe,D",
     .transpose = true,
     .rows = arch_gate_half},
    {.hf = "model.layers.N.mlp.experts.gate_up_proj.weight",
     .gguf = "blk.N.ffn_up_exps.weight",
     .shape = "E,D,2*Fe",
     .presence = ARCH_OPTIONAL,
     .out = "E,Fe,D",
     .transpose = true,
     .rows = arch_up_half},
};

const struct arch_row arch_rows_shared_expert[4] = {
    {.hf = "model.layers.N.mlp.shared_expert.gate_proj.weight",
     .gguf = "blk.N.ffn_gate_shexp.weight",
     .shape = "Fs,D"},
    {.hf = "model.layers.N.mlp.shared_expert.up_proj.weight",
     .gguf = "blk.N.ffn_up_shexp.weight",
     .shape = "Fs,D"},
    {.hf = "model.layers.N.mlp.shared_expert.down_proj.weight",
     .gguf = "blk.N.ffn_down_shexp.weight",
     .shape = "D,Fs"},
    {.hf = "model.layers.N.mlp.shared_expert_gate.weight",
     .gguf = "blk.N.ffn_gate_inp_shexp.weight",
     .shape = "1,D"},
};

int arch_check_all_experts(struct arch_model *a, struct err *e)
{
    uint64_t step = 1;
    if (a->value[ARCH_E] == 0 || a->value[ARCH_K] == 0 || a->value[ARCH_K] > a->value[ARCH_E])
        return err_set(e, ERR_FORMAT, "config.json: %llu experts of which %llu are used make no sense",
                       (unsigned long long)a->value[ARCH_E], (unsigned long long)a->value[ARCH_K]);
    hf_config_uint(a->config, "decoder_sparse_step", &step, NULL);
    if (step > 1 || json_n_children(hf_config_get(a->config, "mlp_only_layers")) != 0)
        return err_set(
            e, ERR_UNSUPPORTED,
            "config.json: decoder_sparse_step or mlp_only_layers leave layers without experts, which "
            "architecture '%s' cannot express",
            a->arch->name);
    return 0;
}

int arch_add_expert_norm(const struct arch_model *a, struct gguf_meta *meta, bool runtime_normalises,
                         const struct arch_warnings *w, struct err *e)
{
    bool norm = runtime_normalises;
    if (!hf_config_bool(a->config, "norm_topk_prob", &norm, NULL) || norm == runtime_normalises)
        return 0;
    char key[96];
    snprintf(key, sizeof key, "%s.expert_weights_norm", a->arch->name);
    int rc = gguf_meta_set_bool(meta, key, norm, e);
    if (rc != 0)
        return rc;
    return w->add(
        w->ctx,
        norm ? "config.json: norm_topk_prob is true, but llama.cpp never normalises expert weights for this "
               "architecture"
             : "config.json: norm_topk_prob is false, but llama.cpp always normalises expert weights for "
               "this architecture",
        e);
}
