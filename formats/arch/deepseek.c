/* deepseek.c - DeepSeek-V2, V2-Lite, V3, R1: attention over latents (MLA), leading dense layers, shared and
 * routed experts in groups.
 *
 * Keys and values of a token are one latent vector and a rotated part that all heads share. The file has the
 * matrix that expands the latents split in two, that of the keys turned over, so that a runtime can take
 * queries into the space of the latents instead. Truth: specification, architectures 33. */
#include "arch_rows.h"

#include <string.h>

static const char *const classes[] = {"DeepseekV2ForCausalLM", "DeepseekV3ForCausalLM", NULL};
static const char *const model_types[] = {"deepseek_v2", "deepseek_v3", NULL};

static bool is_v3(const struct arch_model *a)
{
    const char *name = hf_config_architecture(a->config);
    return strcmp(name[0] ? name : hf_config_model_type(a->config), "DeepseekV3ForCausalLM") == 0 ||
           strcmp(hf_config_model_type(a->config), "deepseek_v3") == 0;
}

static bool has_query_latent(const struct arch_model *a, uint64_t layer)
{
    (void)layer;
    return a->known[ARCH_QR] && a->value[ARCH_QR] != 0;
}

static bool has_no_query_latent(const struct arch_model *a, uint64_t layer)
{
    return !has_query_latent(a, layer);
}

/* Element of the expanding matrix [H, dn + dm, Kr] behind element `out` of that of keys, [H, Kr, dn]. */
static uint64_t key_element(const struct arch_model *a, uint64_t out)
{
    uint64_t dn = a->value[ARCH_DN], n = a->value[ARCH_KR], rows = dn + a->value[ARCH_DM];
    uint64_t head = out / (n * dn), in = out % (n * dn);
    return (head * rows + in % dn) * n + in / dn;
}

/* Its row behind row `out` of that of values, [H, dm, Kr]. */
static uint64_t value_row(const struct arch_model *a, uint64_t out)
{
    uint64_t dn = a->value[ARCH_DN], dm = a->value[ARCH_DM];
    return out / dm * (dn + dm) + dn + out % dm;
}

static const struct arch_row query_rows[] = {
    {.hf = "model.layers.N.self_attn.q_proj.weight", .gguf = "blk.N.attn_q.weight", .shape = "H*dn+H*R,D"},
};

static const struct arch_row query_latent_rows[] = {
    {.hf = "model.layers.N.self_attn.q_a_proj.weight", .gguf = "blk.N.attn_q_a.weight", .shape = "Qr,D"},
    {.hf = "model.layers.N.self_attn.q_a_layernorm.weight",
     .gguf = "blk.N.attn_q_a_norm.weight",
     .shape = "Qr"},
    {.hf = "model.layers.N.self_attn.q_b_proj.weight",
     .gguf = "blk.N.attn_q_b.weight",
     .shape = "H*dn+H*R,Qr"},
};

static const struct arch_row latent_rows[] = {
    {.hf = "model.layers.N.self_attn.kv_a_proj_with_mqa.weight",
     .gguf = "blk.N.attn_kv_a_mqa.weight",
     .shape = "Kr+R,D"},
    {.hf = "model.layers.N.self_attn.kv_a_layernorm.weight",
     .gguf = "blk.N.attn_kv_a_norm.weight",
     .shape = "Kr"},
    {.hf = "model.layers.N.self_attn.kv_b_proj.weight",
     .gguf = "blk.N.attn_k_b.weight",
     .shape = "H*dn+H*dm,Kr",
     .out = "H,Kr,dn",
     .rows = key_element,
     .by_element = true},
    {.hf = "model.layers.N.self_attn.kv_b_proj.weight",
     .gguf = "blk.N.attn_v_b.weight",
     .shape = "H*dn+H*dm,Kr",
     .out = "H,dm,Kr",
     .rows = value_row},
    {.hf = "model.layers.N.self_attn.o_proj.weight", .gguf = "blk.N.attn_output.weight", .shape = "D,H*dm"},
};

/* V3 has it, V2 not. */
static const struct arch_row bias_rows[] = {
    {.hf = "model.layers.N.mlp.gate.e_score_correction_bias",
     .gguf = "blk.N.exp_probs_b.bias",
     .shape = "E",
     .presence = ARCH_OPTIONAL,
     .flag = "has_choice_bias"},
};

static const struct arch_group groups[] = {
    ARCH_GROUP(arch_rows_global),
    ARCH_GROUP(arch_rows_norms),
    ARCH_GROUP_WHEN(query_rows, has_no_query_latent),
    ARCH_GROUP_WHEN(query_latent_rows, has_query_latent),
    ARCH_GROUP(latent_rows),
    ARCH_GROUP_WHEN(arch_rows_ffn, arch_is_dense),
    ARCH_GROUP_WHEN(arch_rows_router, arch_has_experts),
    ARCH_GROUP_WHEN(bias_rows, arch_has_experts),
    ARCH_GROUP_WHEN(arch_rows_experts, arch_has_experts),
    ARCH_GROUP_WHEN(arch_rows_shared_experts, arch_has_shared_experts),
    ARCH_END_GROUPS,
};

static const struct arch_key keys[] = {
    {.suffix = "expert_group_count", .type = GGUF_U32, .field = "n_group"},
    {.suffix = "expert_group_used_count", .type = GGUF_U32, .field = "topk_group"},
    {.suffix = "leading_dense_block_count",
     .type = GGUF_U32,
     .field = "first_k_dense_replace",
     .required = true},
    {.suffix = "vocab_size", .type = GGUF_U32, .expr = "V", .required = true},
    {.suffix = "attention.q_lora_rank", .type = GGUF_U32, .expr = "Qr"},
    {.suffix = "attention.kv_lora_rank", .type = GGUF_U32, .expr = "Kr", .required = true},
    {.suffix = "attention.key_length", .type = GGUF_U32, .expr = "Kr+R", .required = true},
    {.suffix = "attention.value_length", .type = GGUF_U32, .expr = "Kr", .required = true},
    {.suffix = "attention.key_length_mla", .type = GGUF_U32, .expr = "dn+R", .required = true},
    {.suffix = "attention.value_length_mla", .type = GGUF_U32, .expr = "dm", .required = true},
    {.suffix = "expert_feed_forward_length", .type = GGUF_U32, .expr = "Fe", .required = true},
    {.suffix = "expert_shared_count", .type = GGUF_U32, .expr = "Es", .required = true},
    {.suffix = "expert_weights_scale", .type = GGUF_F32, .field = "routed_scaling_factor"},
    {.suffix = "rope.dimension_count", .type = GGUF_U32, .expr = "R", .required = true},
    {.suffix = NULL},
};

static int refuse(const struct arch_model *a, const char *key, const char *why, struct err *e)
{
    return err_set(e, ERR_UNSUPPORTED, "config.json: '%s' %s, which '%s' cannot express", key, why,
                   a->arch->name);
}

/* V3 chooses in groups whatever topk_method says, V2 only where it does; its class default is "greedy". */
static bool chooses_in_groups(const struct arch_model *a)
{
    const char *method = json_string(hf_config_get(a->config, "topk_method"));
    return is_v3(a) || (method && strcmp(method, "group_limited_greedy") == 0);
}

/* What the runtime computes in one way only. */
static int check_fixed(const struct arch_model *a, struct err *e)
{
    bool flag = false;
    uint64_t n_groups;
    const char *method = json_string(hf_config_get(a->config, "topk_method"));
    if (hf_config_bool(a->config, "attention_bias", &flag, NULL) && flag)
        return refuse(a, "attention_bias", "is true", e);
    if (hf_config_bool(a->config, "rope_interleave", &flag, NULL) && !flag)
        return refuse(a, "rope_interleave", "is false", e);
    if (method && strcmp(method, "greedy") != 0 && strcmp(method, "group_limited_greedy") != 0 &&
        (!is_v3(a) || strcmp(method, "noaux_tc") != 0))
        return refuse(a, "topk_method", method, e);
    if (!is_v3(a) && chooses_in_groups(a) && !hf_config_uint(a->config, "n_group", &n_groups, NULL))
        return refuse(a, "topk_method", "is group_limited_greedy without n_group", e);
    flag = false;
    if (!is_v3(a) && hf_config_bool(a->config, "norm_topk_prob", &flag, NULL) && flag)
        return refuse(a, "norm_topk_prob", "is true in a DeepSeek-V2", e);
    return 0;
}

/* The two multipliers of YaRN's logarithm: one scales the scores, the other over it the rotated parts. */
static int read_multiplier(const struct arch_model *a, double *all, struct err *e)
{
    const struct json *block = hf_config_get(a->config, "rope_scaling");
    double mscale = 0;
    if (!json_is_object(block) || !json_first(block))
        block = hf_config_get(a->config, "rope_parameters");
    *all = 0;
    json_number(json_get(block, "mscale"), &mscale);
    json_number(json_get(block, "mscale_all_dim"), all);
    if (a->rope.type == ROPE_YARN && *all != 0 && mscale != 0 && mscale != *all)
        return refuse(a, "mscale", "is not mscale_all_dim", e);
    if (a->rope.type == ROPE_YARN && (*all != 0) != (mscale != 0))
        return refuse(a, "mscale", "and mscale_all_dim do not stand together", e);
    return 0;
}

static int check(struct arch_model *a, struct err *e)
{
    double all;
    int rc = check_fixed(a, e);
    if (rc == 0 && a->rope.type != ROPE_DEFAULT && a->rope.type != ROPE_YARN)
        rc = refuse(a, "rope_type", "is neither 'default' nor 'yarn'", e);
    if (rc == 0)
        rc = read_multiplier(a, &all, e);
    if (rc != 0)
        return rc;
    if (!a->known[ARCH_KR] || !a->known[ARCH_DN] || !a->known[ARCH_DM] || !a->known[ARCH_RD] ||
        a->value[ARCH_RD] % 2 != 0)
        return err_set(
            e, ERR_FORMAT,
            "config.json: kv_lora_rank, qk_nope_head_dim, v_head_dim or an even qk_rope_head_dim is "
            "missing");
    a->value[ARCH_R] = a->value[ARCH_RD];
    a->value[ARCH_HKV] = 1; /* a runtime sees one key head, the latent */
    a->stated[ARCH_HKV] = true;
    a->stated[ARCH_HD] = false;
    a->rope.has_attention_factor = all == 0 && a->rope.has_attention_factor;
    if (a->known[ARCH_ES] && a->value[ARCH_ES] == 0)
        return refuse(a, "n_shared_experts", "is 0", e);
    rc = arch_check_leading_dense(a, e);
    return rc == 0 && chooses_in_groups(a) ? arch_check_groups(a, e) : rc;
}

/* The runtime knows the small ones, which have no latent of queries, by their layers. */
static int warn_of_queries(const struct arch_model *a, const struct arch_warnings *w, struct err *e)
{
    uint64_t n = a->value[ARCH_L];
    if (has_query_latent(a, 0) || n == 26 || n == 27 || (n == 48 && a->value[ARCH_V] == 128256))
        return 0;
    return w->add(
        w->ctx,
        "[runtime-refuses] config.json: without q_lora_rank llama.cpp loads models of 26 or 27 layers "
        "alone in architecture 'deepseek2'",
        e);
}

static int add_keys(const struct arch_model *a, struct gguf_meta *meta, const struct arch_warnings *w,
                    struct err *e)
{
    bool norm = is_v3(a), in_groups = chooses_in_groups(a) && arch_leaves_groups(a);
    double all = 0;
    int rc =
        arch_set_u32(a, meta, "expert_gating_func", is_v3(a) ? ARCH_GATING_SIGMOID : ARCH_GATING_SOFTMAX, e);
    if (rc == 0 && is_v3(a))
        hf_config_bool(a->config, "norm_topk_prob", &norm, NULL);
    if (rc == 0 && norm)
        rc = gguf_meta_set_bool(meta, "deepseek2.expert_weights_norm", true, e);
    if (rc == 0 && a->rope.type == ROPE_YARN && (rc = read_multiplier(a, &all, e)) == 0 && all != 0)
        rc = arch_set_f32(a, meta, "rope.scaling.yarn_log_multiplier", 0.1 * all, e);
    if (rc == 0)
        rc = warn_of_queries(a, w, e);
    if (rc == 0 && !in_groups)
        rc = arch_set_one_group(a, meta, e);
    if (rc == 0 && !is_v3(a) && in_groups)
        rc = w->add(
            w->ctx,
            "[runtime-differs] config.json: experts in groups; llama.cpp rates a group by its two best "
            "experts, DeepSeek-V2 by its best, so its results differ",
            e);
    return rc;
}

static const struct hf_class defaults[] = {
    {{"deepseek_v2"},
     {HF_UINT("vocab_size", 102400), HF_UINT("hidden_size", 4096), HF_UINT("intermediate_size", 11008),
      HF_UINT("num_hidden_layers", 32), HF_UINT("num_attention_heads", 32), HF_CONTEXT(2048, 1e-6, 1e4, 1),
      HF_UINT("kv_lora_rank", 512), HF_UINT("q_lora_rank", 1536), HF_UINT("qk_nope_head_dim", 128),
      HF_UINT("qk_rope_head_dim", 64), HF_UINT("v_head_dim", 128), HF_UINT("n_routed_experts", 64),
      HF_UINT("n_shared_experts", 2), HF_UINT("moe_intermediate_size", 1407),
      HF_UINT("first_k_dense_replace", 0), HF_NUMBER("routed_scaling_factor", 1),
      HF_BOOL("norm_topk_prob", 0), HF_BOOL("attention_bias", 0), HF_TIED(0)}},
    {{"deepseek_v3"},
     {HF_UINT("vocab_size", 129280),
      HF_UINT("hidden_size", 7168),
      HF_UINT("intermediate_size", 18432),
      HF_UINT("num_hidden_layers", 61),
      HF_UINT("num_attention_heads", 128),
      HF_CONTEXT(4096, 1e-6, 1e4, 1),
      HF_UINT("kv_lora_rank", 512),
      HF_UINT("q_lora_rank", 1536),
      HF_UINT("qk_nope_head_dim", 128),
      HF_UINT("qk_rope_head_dim", 64),
      HF_UINT("v_head_dim", 128),
      HF_UINT("n_routed_experts", 256),
      HF_UINT("n_shared_experts", 1),
      HF_UINT("num_experts_per_tok", 8),
      HF_UINT("moe_intermediate_size", 2048),
      HF_UINT("n_group", 8),
      HF_UINT("topk_group", 4),
      HF_UINT("first_k_dense_replace", 3),
      HF_UINT("num_nextn_predict_layers", 1),
      HF_NUMBER("routed_scaling_factor", 2.5),
      HF_BOOL("norm_topk_prob", 1),
      HF_BOOL("attention_bias", 0),
      HF_BOOL("rope_interleave", 1),
      HF_BOOL("has_choice_bias", 1),
      HF_TIED(0)}},
    {.model_types = {NULL}},
};

const struct arch arch_deepseek = {
    .name = "deepseek2",
    .title = "DeepSeek-V2, V3, R1",
    .classes = classes,
    .model_types = model_types,
    .groups = groups,
    .keys = keys,
    .quirks = ARCH_LEADING_DENSE | ARCH_MTP_LAYERS,
    .check = check,
    .add_keys = add_keys,
    .runtime = {.attn_norm = "attn_norm.weight",
                .ffn_norm = "ffn_norm.weight",
                .neighbours = true,
                .latent = true},
    .defaults = defaults,
};
