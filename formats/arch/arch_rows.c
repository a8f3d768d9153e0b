/* arch_rows.c - rows that several families share: names and shapes of the decoder block of specification,
 * architectures 0.11. Families put them together in their own files. */
#include "arch_rows.h"

#include <string.h>

/* An untied reranker keeps two rows of its head and nothing else of it; a score head stands in its place. */
static bool has_head(const struct arch_model *a, uint64_t layer)
{
    (void)layer;
    return a->answer == ARCH_TOKENS || (a->answer == ARCH_YES_NO && a->tied);
}

const struct arch_row arch_rows_global[3] = {
    {.hf = "model.embed_tokens.weight", .gguf = "token_embd.weight", .shape = "V,D"},
    {.hf = "model.norm.weight", .gguf = "output_norm.weight", .shape = "D"},
    {.hf = "lm_head.weight",
     .gguf = "output.weight",
     .shape = "V,D",
     .presence = ARCH_HEAD,
     .when = has_head},
};

const struct arch_row arch_rows_centred_global[3] = {
    {.hf = "model.embed_tokens.weight", .gguf = "token_embd.weight", .shape = "V,D"},
    {.hf = "model.norm.weight", .gguf = "output_norm.weight", .shape = "D", .op = ARCH_ADD_ONE},
    {.hf = "lm_head.weight", .gguf = "output.weight", .shape = "V,D", .presence = ARCH_HEAD},
};

const struct arch_row arch_rows_centred_norms[2] = {
    {.hf = "model.layers.N.input_layernorm.weight",
     .gguf = "blk.N.attn_norm.weight",
     .shape = "D",
     .op = ARCH_ADD_ONE},
    {.hf = "model.layers.N.post_attention_layernorm.weight",
     .gguf = "blk.N.post_attention_norm.weight",
     .shape = "D",
     .op = ARCH_ADD_ONE},
};

const struct arch_row arch_rows_centred_qk_norms[2] = {
    {.hf = "model.layers.N.self_attn.q_norm.weight",
     .gguf = "blk.N.attn_q_norm.weight",
     .shape = "d",
     .op = ARCH_ADD_ONE},
    {.hf = "model.layers.N.self_attn.k_norm.weight",
     .gguf = "blk.N.attn_k_norm.weight",
     .shape = "d",
     .op = ARCH_ADD_ONE},
};

static uint64_t label_row(const struct arch_model *a, uint64_t out)
{
    return a->label_rows[out & 1];
}

static bool ranks_by_embedding(const struct arch_model *a, uint64_t layer)
{
    (void)layer;
    return a->answer == ARCH_YES_NO && a->tied;
}

static bool ranks_by_head(const struct arch_model *a, uint64_t layer)
{
    (void)layer;
    return a->answer == ARCH_YES_NO && !a->tied;
}

const struct arch_row arch_rows_rerank[2] = {
    {.hf = "model.embed_tokens.weight",
     .gguf = "cls.output.weight",
     .shape = "V,D",
     .out = "2,D",
     .rows = label_row,
     .when = ranks_by_embedding},
    {.hf = "lm_head.weight",
     .gguf = "cls.output.weight",
     .shape = "V,D",
     .out = "2,D",
     .rows = label_row,
     .when = ranks_by_head},
};

static bool scores(const struct arch_model *a, uint64_t layer)
{
    (void)layer;
    return a->answer == ARCH_SCORE;
}

static bool scores_alone(const struct arch_model *a, uint64_t layer)
{
    (void)layer;
    return a->answer == ARCH_SCORE && a->value[ARCH_C] == 1;
}

static bool scores_a_pair(const struct arch_model *a, uint64_t layer)
{
    (void)layer;
    return a->answer == ARCH_SCORE && a->value[ARCH_C] == 2;
}

static uint64_t first_row(const struct arch_model *a, uint64_t out)
{
    (void)a;
    (void)out;
    return 0;
}

const struct arch_row arch_rows_score[1] = {
    {.hf = "score.weight", .gguf = "cls.output.weight", .shape = "C,D", .when = scores},
};

const struct arch_row arch_rows_score_ranked[2] = {
    {.hf = "score.weight",
     .gguf = "cls.output.weight",
     .shape = "C,D",
     .out = "2,D",
     .rows = first_row,
     .op = ARCH_PAD_ROWS,
     .when = scores_alone},
    {.hf = "score.weight", .gguf = "cls.output.weight", .shape = "C,D", .when = scores_a_pair},
};

static bool rewards(const struct arch_model *a, uint64_t layer)
{
    (void)layer;
    return a->answer == ARCH_REWARD;
}

const struct arch_row arch_rows_reward[4] = {
    {.hf = "score.0.weight", .gguf = "cls.weight", .shape = "D,D", .when = rewards},
    {.hf = "score.0.bias", .gguf = "cls.bias", .shape = "D", .when = rewards},
    {.hf = "score.2.weight", .gguf = "cls.output.weight", .shape = "C,D", .when = rewards},
    {.hf = "score.2.bias", .gguf = "cls.output.bias", .shape = "C", .when = rewards},
};

const struct arch_row arch_rows_norms[2] = {
    {.hf = "model.layers.N.input_layernorm.weight", .gguf = "blk.N.attn_norm.weight", .shape = "D"},
    {.hf = "model.layers.N.post_attention_layernorm.weight", .gguf = "blk.N.ffn_norm.weight", .shape = "D"},
};

const struct arch_row arch_rows_attention[4] = {
    {.hf = "model.layers.N.self_attn.q_proj.weight", .gguf = "blk.N.attn_q.weight", .shape = "H*d,D"},
    {.hf = "model.layers.N.self_attn.k_proj.weight", .gguf = "blk.N.attn_k.weight", .shape = "Hkv*d,D"},
    {.hf = "model.layers.N.self_attn.v_proj.weight", .gguf = "blk.N.attn_v.weight", .shape = "Hkv*d,D"},
    {.hf = "model.layers.N.self_attn.o_proj.weight", .gguf = "blk.N.attn_output.weight", .shape = "D,H*d"},
};

/* new[h*d + 2*i + s] = old[h*d + s*(d/2) + i]; the same within every head, so q and k share it. */
static uint64_t permuted(const struct arch_model *a, uint64_t out)
{
    uint64_t d = a->value[ARCH_HD], head = out / d, j = out % d;
    return head * d + (j % 2) * (d / 2) + j / 2;
}

const struct arch_row arch_rows_permuted_attention[7] = {
    {.hf = "model.layers.N.self_attn.q_proj.weight",
     .gguf = "blk.N.attn_q.weight",
     .shape = "H*d,D",
     .rows = permuted},
    {.hf = "model.layers.N.self_attn.k_proj.weight",
     .gguf = "blk.N.attn_k.weight",
     .shape = "Hkv*d,D",
     .rows = permuted},
    {.hf = "model.layers.N.self_attn.v_proj.weight", .gguf = "blk.N.attn_v.weight", .shape = "Hkv*d,D"},
    {.hf = "model.layers.N.self_attn.o_proj.weight", .gguf = "blk.N.attn_output.weight", .shape = "D,H*d"},
    {.hf = "model.layers.N.self_attn.q_proj.bias",
     .gguf = "blk.N.attn_q.bias",
     .shape = "H*d",
     .presence = ARCH_OPTIONAL,
     .rows = permuted,
     .flag = "attention_bias"},
    {.hf = "model.layers.N.self_attn.k_proj.bias",
     .gguf = "blk.N.attn_k.bias",
     .shape = "Hkv*d",
     .presence = ARCH_OPTIONAL,
     .rows = permuted,
     .flag = "attention_bias"},
    {.hf = "model.layers.N.self_attn.v_proj.bias",
     .gguf = "blk.N.attn_v.bias",
     .shape = "Hkv*d",
     .presence = ARCH_OPTIONAL,
     .flag = "attention_bias"},
};

const struct arch_key arch_keys_llama[] = {
    {.suffix = "vocab_size", .type = GGUF_U32, .expr = "V", .required = true},
    {.suffix = "rope.dimension_count", .type = GGUF_U32, .expr = "d", .required = true},
    {.suffix = NULL},
};

int arch_check_even_heads(struct arch_model *a, struct err *e)
{
    if (a->value[ARCH_HD] % 2 != 0)
        return err_set(e, ERR_FORMAT, "config.json: head_dim %llu is odd, rotation needs pairs",
                       (unsigned long long)a->value[ARCH_HD]);
    return 0;
}

int arch_check_whole_heads(struct arch_model *a, const char *arch, struct err *e)
{
    if (a->value[ARCH_H] * a->value[ARCH_HD] != a->value[ARCH_D])
        return err_set(
            e, ERR_UNSUPPORTED,
            "config.json: %llu heads of %llu do not make up hidden_size (%llu), which '%s' cannot express",
            (unsigned long long)a->value[ARCH_H], (unsigned long long)a->value[ARCH_HD],
            (unsigned long long)a->value[ARCH_D], arch);
    return 0;
}

const struct arch_row arch_rows_ffn_bias[3] = {
    {.hf = "model.layers.N.mlp.gate_proj.bias",
     .gguf = "blk.N.ffn_gate.bias",
     .shape = "F",
     .presence = ARCH_OPTIONAL,
     .flag = "mlp_bias"},
    {.hf = "model.layers.N.mlp.up_proj.bias",
     .gguf = "blk.N.ffn_up.bias",
     .shape = "F",
     .presence = ARCH_OPTIONAL,
     .flag = "mlp_bias"},
    {.hf = "model.layers.N.mlp.down_proj.bias",
     .gguf = "blk.N.ffn_down.bias",
     .shape = "D",
     .presence = ARCH_OPTIONAL,
     .flag = "mlp_bias"},
};

const struct arch_row arch_rows_qkv_bias[3] = {
    {.hf = "model.layers.N.self_attn.q_proj.bias",
     .gguf = "blk.N.attn_q.bias",
     .shape = "H*d",
     .presence = ARCH_OPTIONAL,
     .flag = "attention_bias|qkv_bias"},
    {.hf = "model.layers.N.self_attn.k_proj.bias",
     .gguf = "blk.N.attn_k.bias",
     .shape = "Hkv*d",
     .presence = ARCH_OPTIONAL,
     .flag = "attention_bias|qkv_bias"},
    {.hf = "model.layers.N.self_attn.v_proj.bias",
     .gguf = "blk.N.attn_v.bias",
     .shape = "Hkv*d",
     .presence = ARCH_OPTIONAL,
     .flag = "attention_bias|qkv_bias"},
};

const struct arch_row arch_rows_o_bias[1] = {
    {.hf = "model.layers.N.self_attn.o_proj.bias",
     .gguf = "blk.N.attn_output.bias",
     .shape = "D",
     .presence = ARCH_OPTIONAL,
     .flag = "attention_bias"},
};

const struct arch_row arch_rows_qk_norm[2] = {
    {.hf = "model.layers.N.self_attn.q_norm.weight", .gguf = "blk.N.attn_q_norm.weight", .shape = "d"},
    {.hf = "model.layers.N.self_attn.k_norm.weight", .gguf = "blk.N.attn_k_norm.weight", .shape = "d"},
};

const struct arch_row arch_rows_ffn[3] = {
    {.hf = "model.layers.N.mlp.gate_proj.weight", .gguf = "blk.N.ffn_gate.weight", .shape = "F,D"},
    {.hf = "model.layers.N.mlp.up_proj.weight", .gguf = "blk.N.ffn_up.weight", .shape = "F,D"},
    {.hf = "model.layers.N.mlp.down_proj.weight", .gguf = "blk.N.ffn_down.weight", .shape = "D,F"},
};

const struct arch_row arch_rows_fused_ffn[2] = {
    {.hf = "model.layers.N.mlp.gate_up_proj.weight", .gguf = "blk.N.ffn_up.weight", .shape = "2*F,D"},
    {.hf = "model.layers.N.mlp.down_proj.weight", .gguf = "blk.N.ffn_down.weight", .shape = "D,F"},
};

int arch_check_windows(const struct arch_model *a, struct err *e)
{
    const struct json *list = hf_config_get(a->config, "layer_types");
    const uint64_t built_in = a->arch->runtime.window_period;
    uint64_t period = built_in, n = 0;
    hf_config_uint(a->config, "sliding_window_pattern", &period, NULL);
    hf_config_uint(a->config, "_sliding_window_pattern", &period, NULL);
    bool fits = list || period == built_in;
    for (const struct json *j = json_first(list); j; j = json_next(j), n++) {
        bool full = (n + 1) % built_in == 0;
        const char *kind = json_string(j);
        fits = fits && kind && strcmp(kind, full ? "full_attention" : "sliding_attention") == 0;
    }
    if (!fits || (list && n != a->value[ARCH_L]))
        return err_set(
            e, ERR_UNSUPPORTED,
            "config.json: layer_types (or sliding_window_pattern) does not give every %u%s layer full "
            "attention and the others a window, which is all that '%s' can express",
            (unsigned)built_in, built_in == 2 ? "nd" : "th", a->arch->name);
    return 0;
}

int arch_warn_output_bias(const struct arch_model *a, const struct arch_warnings *w, struct err *e)
{
    bool biased = false;
    hf_config_bool(a->config, "attention_bias", &biased, NULL);
    if (!biased)
        return 0;
    return w->add(w->ctx,
                  "[runtime-refuses] config.json: attention_bias is true; llama.cpp knows no "
                  "attn_output.bias in this architecture and "
                  "refuses a file that has one",
                  e);
}

static bool from_max_window_layers(const struct arch_model *a, uint64_t layer)
{
    uint64_t first = 0;
    hf_config_uint(a->config, "max_window_layers", &first, NULL);
    return layer >= first;
}

int arch_add_sliding_window(const struct arch_model *a, struct gguf_meta *meta, const struct arch_warnings *w,
                            struct err *e)
{
    return arch_add_sliding_window_where(a, meta, from_max_window_layers, w, e);
}

int arch_add_sliding_window_where(const struct arch_model *a, struct gguf_meta *meta,
                                  bool (*windowed)(const struct arch_model *a, uint64_t layer),
                                  const struct arch_warnings *w, struct err *e)
{
    bool use = false;
    uint64_t window = 0;
    hf_config_bool(a->config, "use_sliding_window", &use, NULL);
    if (!use || !hf_config_uint(a->config, "sliding_window", &window, NULL))
        return 0;

    uint64_t n_layers = a->value[ARCH_L], n_windowed = 0;
    struct arena scratch = {0};
    uint8_t *pattern = arena_alloc(&scratch, n_layers);
    char *key = arena_printf(&scratch, "%s.attention.sliding_window_pattern", a->arch->name);
    int rc = pattern && key ? 0 : err_set(e, ERR_NOMEM, "out of memory");
    const struct json *types = json_first(hf_config_get(a->config, "layer_types"));
    for (uint64_t i = 0; rc == 0 && i < n_layers; i++) {
        const char *type = json_string(types);
        pattern[i] = types ? type && strcmp(type, "sliding_attention") == 0 : windowed(a, i);
        n_windowed += pattern[i];
        types = types ? json_next(types) : NULL;
    }
    if (rc == 0 && n_windowed != 0) {
        rc = arch_set_u32(a, meta, "attention.sliding_window", window, e);
        if (rc == 0)
            rc = gguf_meta_set_array(meta, key, GGUF_BOOL, pattern, n_layers, e);
        if (rc == 0)
            rc = w->add(w->ctx,
                        "[runtime-differs] config.json switches a sliding window on; llama.cpp computes full "
                        "attention for this architecture",
                        e);
    }
    arena_release(&scratch);
    return rc;
}
