/* phi3.c - Phi-3, Phi-3.5 and Phi-4 (text, dense): a Llama with q, k and v in one matrix and gate and up in
 * another, both kept so; positions in a part of the head (Phi-4 mini), scaled by LongRoPE.
 *
 * Truth: specification, architectures 30. */
#include "arch_rows.h"

#include <math.h>

static const char *const classes[] = {"Phi3ForCausalLM", NULL};
static const char *const model_types[] = {"phi3", NULL};

static bool is_long(const struct arch_model *a, uint64_t layer)
{
    (void)layer;
    return a->rope.type == ROPE_LONGROPE;
}

/* The numbers of a list that check_factors has seen. */
static void copy_list(const struct json *list, float *out)
{
    for (const struct json *j = json_first(list); j; j = json_next(j)) {
        double v = 1;
        json_number(j, &v);
        *out++ = (float)v;
    }
}

static void long_factors(const struct arch_model *a, float *out)
{
    copy_list(a->rope.long_factor, out);
}

static void short_factors(const struct arch_model *a, float *out)
{
    copy_list(a->rope.short_factor, out);
}

static const struct arch_row factor_rows[] = {
    {.hf = "",
     .gguf = "rope_factors_long.weight",
     .shape = "R/2",
     .presence = ARCH_OPTIONAL,
     .when = is_long,
     .compute = long_factors},
    {.hf = "",
     .gguf = "rope_factors_short.weight",
     .shape = "R/2",
     .presence = ARCH_OPTIONAL,
     .when = is_long,
     .compute = short_factors},
};

static const struct arch_row attention_rows[] = {
    {.hf = "model.layers.N.self_attn.qkv_proj.weight",
     .gguf = "blk.N.attn_qkv.weight",
     .shape = "H*d+2*Hkv*d,D"},
    {.hf = "model.layers.N.self_attn.o_proj.weight", .gguf = "blk.N.attn_output.weight", .shape = "D,H*d"},
};

static const struct arch_group groups[] = {
    ARCH_GROUP(factor_rows),    ARCH_GROUP(arch_rows_global),    ARCH_GROUP(arch_rows_norms),
    ARCH_GROUP(attention_rows), ARCH_GROUP(arch_rows_fused_ffn), ARCH_END_GROUPS,
};

/* A list with a positive number for each rotated pair. */
static int check_factors(const struct arch_model *a, const char *name, const struct json *list, struct err *e)
{
    uint64_t n = 0;
    double v;
    for (const struct json *j = json_first(list); j; j = json_next(j), n++)
        if (!json_number(j, &v) || !(v > 0 && v < 1e30))
            return err_set(e, ERR_FORMAT, "config.json: '%s' [%llu] is not a number above 0", name,
                           (unsigned long long)n);
    if (!json_is_array(list) || n != a->value[ARCH_R] / 2)
        return err_set(e, ERR_FORMAT,
                       "config.json: '%s' has %llu numbers, expected %llu, one for each rotated pair", name,
                       (unsigned long long)n, (unsigned long long)(a->value[ARCH_R] / 2));
    return 0;
}

static int check_rope(struct arch_model *a, struct err *e)
{
    struct hf_rope *r = &a->rope;
    if (r->type == ROPE_YARN)
        r->type = ROPE_LONGROPE; /* the name in the first releases; the class reads it so */
    if (a->value[ARCH_R] == 0 || a->value[ARCH_R] % 2 != 0)
        return err_set(e, ERR_FORMAT,
                       "config.json: %llu entries of a head are rotated, expected an even number",
                       (unsigned long long)a->value[ARCH_R]);
    if (r->type == ROPE_DEFAULT)
        return 0;
    if (r->type != ROPE_LONGROPE)
        return err_set(e, ERR_UNSUPPORTED, "config.json: rope_type '%s'; 'phi3' has 'longrope' alone",
                       r->type_name);
    int rc = check_factors(a, "long_factor", r->long_factor, e);
    return rc == 0 ? check_factors(a, "short_factor", r->short_factor, e) : rc;
}

static int check(struct arch_model *a, struct err *e)
{
    int rc = arch_check_whole_heads(a, "phi3", e);
    return rc == 0 ? check_rope(a, e) : rc;
}

/* Tokens of the first training, behind which the long factors hold. */
static uint64_t original_context(const struct arch_model *a)
{
    uint64_t n = a->rope.original_context;
    if (!a->rope.has_original_context)
        hf_config_uint(a->config, "original_max_position_embeddings", &n, NULL);
    return n;
}

/* The factor of cosine and sine: stated, or from how far the context was stretched. */
static int add_magnitude(const struct arch_model *a, struct gguf_meta *meta, struct err *e)
{
    const struct hf_rope *r = &a->rope;
    uint64_t original = original_context(a), context = original;
    arch_context(a, meta, &context);
    double stretch = r->has_factor ? r->factor : (double)context / (double)original;
    double inferred = stretch > 1 ? sqrt(1 + log(stretch) / log((double)original)) : 1;
    return arch_set_f32(a, meta, "rope.scaling.attn_factor",
                        r->has_attention_factor ? r->attention_factor : inferred, e);
}

/* The class sees a window where there is one; 0 says that there is none. */
static int add_window(const struct arch_model *a, struct gguf_meta *meta, const struct arch_warnings *w,
                      struct err *e)
{
    uint64_t window = 0, context;
    hf_config_uint(a->config, "sliding_window", &window, NULL);
    int rc = arch_set_u32(a, meta, "attention.sliding_window", window, e);
    if (rc != 0 || window == 0 || !arch_context(a, meta, &context) || window >= context)
        return rc;
    return w->add(
        w->ctx,
        "[runtime-differs] config.json: sliding_window is on; llama.cpp computes full attention for "
        "architecture 'phi3', so beyond the window its results differ",
        e);
}

static int add_keys(const struct arch_model *a, struct gguf_meta *meta, const struct arch_warnings *w,
                    struct err *e)
{
    int rc = arch_set_u32(a, meta, "rope.scaling.original_context_length", original_context(a), e);
    if (rc == 0)
        rc = arch_set_u32(a, meta, "rope.dimension_count", a->value[ARCH_R], e);
    if (rc == 0 && a->rope.type == ROPE_LONGROPE)
        rc = add_magnitude(a, meta, e);
    return rc == 0 ? add_window(a, meta, w, e) : rc;
}

static const struct hf_class defaults[] = {
    {{"phi3"},
     {HF_UINT("vocab_size", 32064), HF_UINT("hidden_size", 3072), HF_UINT("intermediate_size", 8192),
      HF_UINT("num_hidden_layers", 32), HF_UINT("num_attention_heads", 32), /* KV heads: as many as heads */
      HF_CONTEXT(4096, 1e-5, 1e4, 1), HF_UINT("original_max_position_embeddings", 4096), HF_TIED(0)}},
    {.model_types = {NULL}},
};

const struct arch arch_phi3 = {
    .name = "phi3",
    .title = "Phi-3, Phi-3.5, Phi-4 (text, dense)",
    .classes = classes,
    .model_types = model_types,
    .groups = groups,
    .quirks = ARCH_LONG_ROPE,
    .check = check,
    .add_keys = add_keys,
    .runtime = {.attn_norm = "attn_norm.weight",
                .ffn_norm = "ffn_norm.weight",
                .fused_qkv = true,
                .fused_ffn = true},
    .defaults = defaults,
};
