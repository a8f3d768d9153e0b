/* arch_hybrid.c - what Qwen3-Next and Qwen3.5 share: layers of softmax attention with an output gate between
 * gated delta nets, zero-centred norms (stored + 1), and multi-token-prediction blocks behind the last layer.
 *
 * Truth: specification, architectures 13, 16. */
#include "arch_rows.h"

#include <string.h>

bool arch_is_linear(const struct arch_model *a, uint64_t layer)
{
    return layer < a->value[ARCH_L] && (a->linear_layers[layer / 64] >> (layer % 64) & 1);
}

bool arch_is_full(const struct arch_model *a, uint64_t layer)
{
    return !arch_is_linear(a, layer);
}

bool arch_is_mtp(const struct arch_model *a, uint64_t layer)
{
    return a->n_extra != 0 && layer == a->value[ARCH_L];
}

const struct arch_row arch_rows_gated_attention[4] = {
    {.hf = "model.layers.N.self_attn.q_proj.weight", .gguf = "blk.N.attn_q.weight", .shape = "2*H*d,D"},
    {.hf = "model.layers.N.self_attn.k_proj.weight", .gguf = "blk.N.attn_k.weight", .shape = "Hkv*d,D"},
    {.hf = "model.layers.N.self_attn.v_proj.weight", .gguf = "blk.N.attn_v.weight", .shape = "Hkv*d,D"},
    {.hf = "model.layers.N.self_attn.o_proj.weight", .gguf = "blk.N.attn_output.weight", .shape = "D,H*d"},
};

/* Names as arch_rename_mtp gives them. */
const struct arch_row arch_rows_mtp[4] = {
    {.hf = "model.layers.N.mtp.fc.weight", .gguf = "blk.N.nextn.eh_proj.weight", .shape = "D,2*D"},
    {.hf = "model.layers.N.mtp.pre_fc_norm_embedding.weight",
     .gguf = "blk.N.nextn.enorm.weight",
     .shape = "D",
     .op = ARCH_ADD_ONE},
    {.hf = "model.layers.N.mtp.pre_fc_norm_hidden.weight",
     .gguf = "blk.N.nextn.hnorm.weight",
     .shape = "D",
     .op = ARCH_ADD_ONE},
    {.hf = "model.layers.N.mtp.norm.weight",
     .gguf = "blk.N.nextn.shared_head_norm.weight",
     .shape = "D",
     .op = ARCH_ADD_ONE},
};

const struct arch_key arch_keys_hybrid[] = {
    {.suffix = "expert_feed_forward_length", .type = GGUF_U32, .expr = "Fe"},
    {.suffix = "expert_shared_feed_forward_length", .type = GGUF_U32, .expr = "Fs"},
    {.suffix = "ssm.conv_kernel", .type = GGUF_U32, .expr = "Kc", .required = true},
    {.suffix = "ssm.state_size", .type = GGUF_U32, .expr = "dk", .required = true},
    {.suffix = "ssm.group_count", .type = GGUF_U32, .expr = "Hk", .required = true},
    {.suffix = "ssm.time_step_rank", .type = GGUF_U32, .expr = "Hv", .required = true},
    {.suffix = "ssm.inner_size", .type = GGUF_U32, .expr = "Hv*dv", .required = true},
    {.suffix = NULL},
};

static uint64_t interval_of(const struct arch_model *a)
{
    uint64_t interval = 4;
    hf_config_uint(a->config, "full_attention_interval", &interval, NULL);
    return interval;
}

/* Fill linear_layers from layer_types, or from the interval. */
static int read_layer_types(struct arch_model *a, struct err *e)
{
    const struct json *types = hf_config_get(a->config, "layer_types"), *t = json_first(types);
    uint64_t n = a->value[ARCH_L], interval = interval_of(a);
    if (interval == 0)
        return err_set(e, ERR_FORMAT, "config.json: full_attention_interval is zero");
    if (types && json_n_children(types) != n)
        return err_set(e, ERR_FORMAT, "config.json: layer_types has %zu entries for %llu layers",
                       json_n_children(types), (unsigned long long)n);
    for (uint64_t i = 0; i < n; i++) {
        const char *type = json_string(t);
        bool linear = types ? type && strcmp(type, "linear_attention") == 0 : (i + 1) % interval != 0;
        if (types && !linear && !(type && strcmp(type, "full_attention") == 0))
            return err_set(e, ERR_UNSUPPORTED, "config.json: layer type '%s' of layer %llu is unknown",
                           type ? type : "?", (unsigned long long)i);
        if (linear)
            a->linear_layers[i / 64] |= (uint64_t)1 << (i % 64);
        t = t ? json_next(t) : NULL;
    }
    return 0;
}

int arch_check_hybrid(struct arch_model *a, struct err *e)
{
    static const enum arch_symbol needed[] = {ARCH_HK, ARCH_HV, ARCH_DK, ARCH_DV, ARCH_KC};
    bool gate = true;
    for (size_t i = 0; i < sizeof needed / sizeof *needed; i++)
        if (!a->known[needed[i]] || a->value[needed[i]] == 0)
            return err_set(e, ERR_FORMAT,
                           "config.json: a linear_* number of the gated delta net is missing or zero");
    if (a->value[ARCH_HV] % a->value[ARCH_HK] != 0)
        return err_set(e, ERR_FORMAT, "config.json: %llu value heads do not divide into %llu key heads",
                       (unsigned long long)a->value[ARCH_HV], (unsigned long long)a->value[ARCH_HK]);
    if (a->value[ARCH_DK] != a->value[ARCH_DV])
        return err_set(e, ERR_UNSUPPORTED,
                       "config.json: key and value heads of a gated delta net differ in size (%llu, "
                       "%llu), which a GGUF file cannot express",
                       (unsigned long long)a->value[ARCH_DK], (unsigned long long)a->value[ARCH_DV]);
    hf_config_bool(a->config, "attn_output_gate", &gate, NULL);
    if (!gate)
        return err_set(e, ERR_UNSUPPORTED,
                       "config.json: attn_output_gate is false, which '%s' cannot express", a->arch->name);
    return read_layer_types(a, e);
}

int arch_check_hybrid_experts(struct arch_model *a, struct err *e)
{
    int rc = arch_check_experts(a, e);
    return rc != 0 ? rc : arch_check_hybrid(a, e);
}

/* The interval says it all when the layers follow it; else a list does. Prediction blocks are never linear.
 */
static int add_layer_types(const struct arch_model *a, struct gguf_meta *meta, struct err *e)
{
    uint8_t list[ARCH_MAX_LAYERS + ARCH_MAX_EXTRA];
    uint64_t interval = interval_of(a), n = a->value[ARCH_L] + a->n_extra;
    bool regular = true;
    char key[96];
    for (uint64_t i = 0; i < n; i++) {
        list[i] = arch_is_linear(a, i);
        regular &= i >= a->value[ARCH_L] || list[i] == ((i + 1) % interval != 0);
    }
    snprintf(key, sizeof key, "%s.attention.recurrent_layers", a->arch->name);
    return regular ? 0 : gguf_meta_set_array(meta, key, GGUF_BOOL, list, n, e);
}

int arch_add_hybrid_keys(const struct arch_model *a, struct gguf_meta *meta, struct err *e)
{
    int rc = arch_set_u32(a, meta, "full_attention_interval", interval_of(a), e);
    if (rc == 0)
        rc = arch_set_u32(a, meta, "rope.dimension_count", a->value[ARCH_R], e);
    if (rc == 0 && a->n_extra != 0)
        rc = arch_set_u32(a, meta, "nextn_predict_layers", a->n_extra, e);
    return rc != 0 ? rc : add_layer_types(a, meta, e);
}

const char *arch_rename_mtp(const struct arch_model *a, const char *name, struct arena *arena)
{
    uint64_t j, layer = a->value[ARCH_L];
    int used = 0;
    unsigned parsed;
    if (a->n_extra == 0 || strncmp(name, "mtp.", 4) != 0)
        return name;
    if (sscanf(name, "mtp.layers.%5u.%n", &parsed, &used) == 1 && used > 0) {
        j = parsed;
        return arena_printf(arena, "model.layers.%llu.%s", (unsigned long long)(layer + j), name + used);
    }
    return arena_printf(arena, "model.layers.%llu.%s", (unsigned long long)layer, name);
}
