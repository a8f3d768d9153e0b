/* arch_moe.c - rows and checks of families with routed experts (specification, architectures 3, 10).
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
const struct arch_row arch_rows_experts[12] = {
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
    /* as MLX stacks them */
    {.hf = "model.layers.N.mlp.switch_mlp.down_proj.weight",
     .gguf = "blk.N.ffn_down_exps.weight",
     .shape = "E,D,Fe",
     .presence = ARCH_OPTIONAL},
    {.hf = "model.layers.N.mlp.switch_mlp.gate_proj.weight",
     .gguf = "blk.N.ffn_gate_exps.weight",
     .shape = "E,Fe,D",
     .presence = ARCH_OPTIONAL},
    {.hf = "model.layers.N.mlp.switch_mlp.up_proj.weight",
     .gguf = "blk.N.ffn_up_exps.weight",
     .shape = "E,Fe,D",
     .presence = ARCH_OPTIONAL},
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

const struct arch_row arch_rows_shared_experts[3] = {
    {.hf = "model.layers.N.mlp.shared_experts.gate_proj.weight",
     .gguf = "blk.N.ffn_gate_shexp.weight",
     .shape = "Es*Fe,D"},
    {.hf = "model.layers.N.mlp.shared_experts.up_proj.weight",
     .gguf = "blk.N.ffn_up_shexp.weight",
     .shape = "Es*Fe,D"},
    {.hf = "model.layers.N.mlp.shared_experts.down_proj.weight",
     .gguf = "blk.N.ffn_down_shexp.weight",
     .shape = "D,Es*Fe"},
};

const struct arch_row arch_rows_choice_bias[1] = {
    {.hf = "model.layers.N.mlp.gate.e_score_correction_bias", .gguf = "blk.N.exp_probs_b.bias", .shape = "E"},
};

const struct arch_key arch_keys_experts[] = {
    {.suffix = "expert_feed_forward_length", .type = GGUF_U32, .expr = "Fe", .required = true},
    {.suffix = NULL},
};

bool arch_is_dense(const struct arch_model *a, uint64_t layer)
{
    return layer < a->value[ARCH_L] && (a->dense_layers[layer / 64] >> (layer % 64) & 1);
}

bool arch_has_experts(const struct arch_model *a, uint64_t layer)
{
    return !arch_is_dense(a, layer);
}

static int check_counts(const struct arch_model *a, struct err *e)
{
    if (a->value[ARCH_E] == 0 || a->value[ARCH_K] == 0 || a->value[ARCH_K] > a->value[ARCH_E])
        return err_set(e, ERR_FORMAT, "config.json: a token cannot use %llu of %llu experts",
                       (unsigned long long)a->value[ARCH_K], (unsigned long long)a->value[ARCH_E]);
    return 0;
}

int arch_check_experts(struct arch_model *a, struct err *e)
{
    uint64_t step = 1, n = a->value[ARCH_L], layer;
    int rc = check_counts(a, e);
    if (rc != 0)
        return rc;
    hf_config_uint(a->config, "decoder_sparse_step", &step, NULL);
    if (step == 0)
        return err_set(e, ERR_FORMAT, "[runtime-refuses] config.json: decoder_sparse_step is zero");
    for (uint64_t i = 0; i < n; i++)
        if ((i + 1) % step != 0)
            a->dense_layers[i / 64] |= (uint64_t)1 << (i % 64);
    const struct json *item = json_first(hf_config_get(a->config, "mlp_only_layers"));
    for (; item; item = json_next(item)) {
        if (!json_uint(item, &layer))
            return err_set(e, ERR_FORMAT,
                           "config.json: mlp_only_layers holds something that is not a layer number");
        if (layer < n) /* the reference only asks whether a layer is in the list */
            a->dense_layers[layer / 64] |= (uint64_t)1 << (layer % 64);
    }
    return 0;
}

bool arch_has_shared_experts(const struct arch_model *a, uint64_t layer)
{
    return a->known[ARCH_ES] && a->value[ARCH_ES] != 0 && arch_has_experts(a, layer);
}

int arch_check_leading_dense(struct arch_model *a, struct err *e)
{
    uint64_t n = 0;
    hf_config_uint(a->config, "first_k_dense_replace", &n, NULL);
    for (uint64_t i = 0; i < a->value[ARCH_L] && i < n; i++)
        a->dense_layers[i / 64] |= (uint64_t)1 << (i % 64);
    return check_counts(a, e);
}

bool arch_groups_fit(uint64_t n_experts, uint64_t n_used, uint64_t n_groups, uint64_t n_groups_used)
{
    if (n_groups <= 1)
        return true;
    uint64_t size = n_experts / n_groups;
    return n_experts % n_groups == 0 && size >= 2 && n_groups_used >= 1 && n_groups_used <= n_groups &&
           size * n_groups_used >= n_used;
}

/* 0 for what is not stated. False: neither is. */
static bool read_groups(const struct arch_model *a, uint64_t *n, uint64_t *n_used)
{
    *n = *n_used = 0;
    bool known = hf_config_uint(a->config, "n_group", n, NULL);
    return hf_config_uint(a->config, "topk_group", n_used, NULL) || known;
}

int arch_check_groups(const struct arch_model *a, struct err *e)
{
    uint64_t n, n_used;
    if (!read_groups(a, &n, &n_used) || (n >= 1 && n_used >= 1 && n_used <= n &&
                                         arch_groups_fit(a->value[ARCH_E], a->value[ARCH_K], n, n_used)))
        return 0;
    return err_set(
        e, ERR_FORMAT,
        "config.json: n_group (%llu) and topk_group (%llu) do not fit %llu experts, %llu of a token; "
        "expected 1 and 1, or equal groups of two experts or more, of which the chosen ones hold "
        "enough",
        (unsigned long long)n, (unsigned long long)n_used, (unsigned long long)a->value[ARCH_E],
        (unsigned long long)a->value[ARCH_K]);
}

bool arch_leaves_groups(const struct arch_model *a)
{
    uint64_t n, n_used;
    read_groups(a, &n, &n_used);
    return n > 1 && n_used < n;
}

int arch_set_one_group(const struct arch_model *a, struct gguf_meta *meta, struct err *e)
{
    uint64_t n, n_used;
    read_groups(a, &n, &n_used);
    if (n <= 1)
        return 0;
    int rc = arch_set_u32(a, meta, "expert_group_count", 1, e);
    return rc == 0 ? arch_set_u32(a, meta, "expert_group_used_count", 1, e) : rc;
}

int arch_warn_dense_layers(const struct arch_model *a, const struct arch_warnings *w, struct err *e)
{
    char text[240];
    uint64_t n = 0, first = 0;
    for (uint64_t i = a->value[ARCH_L]; i-- > 0;)
        if (arch_is_dense(a, i)) {
            n++;
            first = i;
        }
    if (n == 0 || (a->arch->quirks & ARCH_LEADING_DENSE))
        return 0;
    snprintf(
        text, sizeof text,
        "[runtime-refuses] config.json: decoder_sparse_step or mlp_only_layers leave %llu of %llu layers "
        "without experts (the first is %llu); llama.cpp cannot load such a file of architecture '%s'",
        (unsigned long long)n, (unsigned long long)a->value[ARCH_L], (unsigned long long)first,
        a->arch->name);
    return w->add(w->ctx, text, e);
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
    return w->add(w->ctx,
                  norm ? "[runtime-differs] config.json: norm_topk_prob is true, but llama.cpp never "
                         "normalises expert weights for this "
                         "architecture"
                       : "[runtime-differs] config.json: norm_topk_prob is false, but llama.cpp always "
                         "normalises expert weights for "
                         "this architecture",
                  e);
}
