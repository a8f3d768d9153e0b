/* gemma.c - Gemma 2 and Gemma 3 (text): norms before and behind each step, GELU, windows in most layers,
 * scores and logits that are capped (2) or norms of q and k and a second base of positions (3).
 *
 * Norm scales are stored around zero. The runtime has the period of the windows, the factor of the embedding
 * and the scale of scores built in. Truth: specification, architectures 29. */
#include "arch_rows.h"

#include <math.h>

enum { PERIOD_2 = 2, PERIOD_3 = 6, LARGEST_2 = 46, LARGEST_3 = 62 };

static const char *const classes_2[] = {"Gemma2ForCausalLM", NULL};
static const char *const types_2[] = {"gemma2", NULL};
static const char *const classes_3[] = {"Gemma3ForCausalLM", "Gemma3ForConditionalGeneration", NULL};
static const char *const types_3[] = {"gemma3_text", "gemma3", NULL};

static const struct arch_row ffn_norm_rows[] = {
    {.hf = "model.layers.N.pre_feedforward_layernorm.weight",
     .gguf = "blk.N.ffn_norm.weight",
     .shape = "D",
     .op = ARCH_ADD_ONE},
    {.hf = "model.layers.N.post_feedforward_layernorm.weight",
     .gguf = "blk.N.post_ffw_norm.weight",
     .shape = "D",
     .op = ARCH_ADD_ONE},
};

#define SHARED_GROUPS                                                                                        \
    ARCH_GROUP(arch_rows_centred_global), ARCH_GROUP(arch_rows_centred_norms), ARCH_GROUP(ffn_norm_rows),    \
        ARCH_GROUP(arch_rows_attention), ARCH_GROUP(arch_rows_ffn)

static const struct arch_group groups_2[] = {
    SHARED_GROUPS,
    ARCH_END_GROUPS,
};

static const struct arch_group groups_3[] = {
    SHARED_GROUPS,
    ARCH_GROUP(arch_rows_centred_qk_norms),
    ARCH_END_GROUPS,
};

static int check(struct arch_model *a, struct err *e)
{
    bool two = a->arch->runtime.window_period == PERIOD_2, tied = true;
    double cap;
    json_bool(hf_config_get(a->config, "tie_word_embeddings"), &tied);
    if (two && !tied)
        return err_set(e, ERR_UNSUPPORTED,
                       "config.json: tie_word_embeddings is false, but 'gemma2' has no head of its own");
    a->tied = a->tied || two;
    if (!two && hf_config_number(a->config, "attn_logit_softcapping", &cap, NULL))
        return err_set(e, ERR_UNSUPPORTED,
                       "config.json: attn_logit_softcapping is %g, which 'gemma3' cannot express", cap);
    int rc = arch_check_windows(a, e);
    return rc == 0 ? arch_check_even_heads(a, e) : rc;
}

/* Scores are divided by the root of query_pre_attn_scalar; the runtime takes the size of a head, or in the
 * largest model of the house the width by the heads. */
static int add_scale(const struct arch_model *a, struct gguf_meta *meta, const struct arch_warnings *w,
                     struct err *e)
{
    double scalar = (double)a->value[ARCH_HD];
    uint64_t built_in = a->value[ARCH_L] == a->arch->runtime.wide_scale_layers
                            ? a->value[ARCH_D] / a->value[ARCH_H]
                            : a->value[ARCH_HD];
    hf_config_number(a->config, "query_pre_attn_scalar", &scalar, NULL);
    if (scalar == (double)built_in)
        return 0;
    if (!(scalar > 0))
        return err_set(e, ERR_FORMAT, "config.json: 'query_pre_attn_scalar' is %g, expected a number above 0",
                       scalar);
    int rc = arch_set_f32(a, meta, "attention.scale", 1 / sqrt(scalar), e);
    return rc ? rc
              : w->add(w->ctx,
                       "[runtime-differs] config.json: query_pre_attn_scalar is not what llama.cpp computes "
                       "for a model of these sizes; its results differ",
                       e);
}

/* Positions of layers with a window: their own base, and no scaling. */
static int add_local_theta(const struct arch_model *a, struct gguf_meta *meta, struct err *e)
{
    const struct json *local = json_get(hf_config_get(a->config, "rope_parameters"), "sliding_attention");
    double theta = 1e4;
    bool stated = json_number(json_get(local, "rope_theta"), &theta) ||
                  hf_config_number(a->config, "rope_local_base_freq", &theta, NULL);
    return stated ? arch_set_f32(a, meta, "rope.freq_base_swa", theta, e) : 0;
}

static int add_keys(const struct arch_model *a, struct gguf_meta *meta, const struct arch_warnings *w,
                    struct err *e)
{
    double cap;
    uint64_t window;
    int rc = 0;
    if (hf_config_number(a->config, "attn_logit_softcapping", &cap, NULL))
        rc = arch_set_f32(a, meta, "attn_logit_softcapping", cap, e);
    if (rc == 0 && hf_config_number(a->config, "final_logit_softcapping", &cap, NULL) && cap != 0)
        rc = arch_set_f32(a, meta, "final_logit_softcapping", cap, e);
    if (rc == 0 && hf_config_uint(a->config, "sliding_window", &window, NULL))
        rc = arch_set_u32(a, meta, "attention.sliding_window", window, e);
    if (rc == 0 && a->arch->runtime.window_period == PERIOD_3)
        rc = add_local_theta(a, meta, e);
    return rc == 0 ? add_scale(a, meta, w, e) : rc;
}

/* No space goes in front of a text. */
static int after_vocabulary(const struct arch_model *a, const struct vocabulary *v, struct gguf_meta *meta,
                            struct err *e)
{
    struct gguf_string model;
    (void)a;
    (void)v;
    return gguf_meta_get_string(meta, "tokenizer.ggml.model", &model) && gguf_string_is(model, "llama")
               ? gguf_meta_set_bool(meta, "tokenizer.ggml.add_space_prefix", false, e)
               : 0;
}

static const struct hf_class defaults_2[] = {
    {{"gemma2"},
     {HF_SIZES(256000, 2304, 9216, 26, 8, 4), HF_UINT("head_dim", 256), HF_CONTEXT(8192, 1e-6, 1e4, 1),
      HF_NUMBER("query_pre_attn_scalar", 256), HF_UINT("sliding_window", 4096),
      HF_NUMBER("attn_logit_softcapping", 50), HF_NUMBER("final_logit_softcapping", 30), HF_TIED(1)}},
    {.model_types = {NULL}},
};

static const struct hf_class defaults_3[] = {
    {{"gemma3_text", "gemma3"},
     {HF_SIZES(262208, 2304, 9216, 26, 8, 4), HF_UINT("head_dim", 256), HF_CONTEXT(131072, 1e-6, 1e6, 1),
      HF_NUMBER("query_pre_attn_scalar", 256), HF_UINT("sliding_window", 4096),
      HF_NUMBER("rope_local_base_freq", 1e4), HF_TIED(1)}},
    {.model_types = {NULL}},
};

#define RUNTIME                                                                                              \
    .attn_norm = "attn_norm.weight", .attn_post_norm = "post_attention_norm.weight",                         \
    .ffn_norm = "ffn_norm.weight", .ffn_post_norm = "post_ffw_norm.weight", .scales_by_width = true,         \
    .gelu = true, .capped = true

const struct arch arch_gemma2 = {
    .name = "gemma2",
    .title = "Gemma 2",
    .classes = classes_2,
    .model_types = types_2,
    .groups = groups_2,
    .quirks = ARCH_HEAD_DIM_KEY,
    .check = check,
    .add_keys = add_keys,
    .after_vocabulary = after_vocabulary,
    .runtime = {RUNTIME, .window_period = PERIOD_2, .wide_scale_layers = LARGEST_2},
    .defaults = defaults_2,
};

const struct arch arch_gemma3 = {
    .name = "gemma3",
    .title = "Gemma 3 (text)",
    .classes = classes_3,
    .model_types = types_3,
    .groups = groups_3,
    .quirks = ARCH_HEAD_DIM_KEY,
    .check = check,
    .add_keys = add_keys,
    .after_vocabulary = after_vocabulary,
    .runtime = {RUNTIME, .window_period = PERIOD_3, .wide_scale_layers = LARGEST_3, .local_theta = 1e4},
    .defaults = defaults_3,
};
