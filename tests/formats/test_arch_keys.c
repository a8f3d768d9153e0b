/* test_arch_keys.c - the keys that a configuration becomes, as the runtime reads them, and what is said of
 * numbers that it has built in. */
#include "formats/gguf/gguf_meta.h"
#include "toy_config.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct gguf_meta *keys_of(const char *class_name, const char *extra, char *warning)
{
    struct arch_model a;
    struct hf_config *c;
    struct gguf_meta *meta = NULL;
    struct err e = {0};
    struct arch_warnings w = {toy_config_warning, warning};
    toy_config_resolve(&a, &c, class_name, extra);
    assert_int_equal(gguf_meta_new(&meta, &e), 0);
    if (arch_add_common_keys(&a, meta, &w, &e) != 0 || arch_add_own_keys(&a, meta, &w, &e) != 0)
        fail_msg("%s", e.msg);
    hf_config_free(c);
    return meta;
}

static void expect_u32(const struct gguf_meta *meta, const char *key, uint32_t want)
{
    const struct gguf_value *v = gguf_meta_find(meta, key);
    if (!v)
        fail_msg("no key %s", key);
    assert_int_equal(v->type, GGUF_U32);
    assert_int_equal(v->u, want);
}

static void expect_f32(const struct gguf_meta *meta, const char *key, float want)
{
    const struct gguf_value *v = gguf_meta_find(meta, key);
    if (!v)
        fail_msg("no key %s", key);
    assert_int_equal(v->type, GGUF_F32);
    assert_true((float)v->f == want);
}

static void keys_of_a_dense_model_have_the_types_the_runtime_checks(void **state)
{
    (void)state;
    struct gguf_meta *m = keys_of("Qwen3ForCausalLM", "\"head_dim\": 32", NULL);
    expect_u32(m, "qwen3.block_count", 3);
    expect_u32(m, "qwen3.context_length", 512);
    expect_u32(m, "qwen3.embedding_length", 96);
    expect_u32(m, "qwen3.feed_forward_length", 224);
    expect_u32(m, "qwen3.attention.head_count", 6);
    expect_u32(m, "qwen3.attention.head_count_kv", 2);
    expect_u32(m, "qwen3.attention.key_length", 32);
    expect_u32(m, "qwen3.attention.value_length", 32);
    expect_f32(m, "qwen3.attention.layer_norm_rms_epsilon", 1e-5f);
    expect_f32(m, "qwen3.rope.freq_base", 10000.0f);
    assert_null(gguf_meta_find(m, "qwen3.rope.scaling.type"));
    gguf_meta_free(m);

    m = keys_of("Qwen2ForCausalLM", "", NULL);
    assert_null(gguf_meta_find(m, "qwen2.attention.key_length"));
    gguf_meta_free(m);

    m = keys_of("LlamaForCausalLM", "", NULL);
    expect_u32(m, "llama.vocab_size", 1009);
    expect_u32(m, "llama.rope.dimension_count", 16);
    gguf_meta_free(m);
}

static void rope_scaling_is_written_as_the_runtime_reads_it(void **state)
{
    (void)state;
    struct gguf_string s;
    struct gguf_meta *m =
        keys_of("Qwen2ForCausalLM",
                "\"rope_scaling\": {\"type\": \"yarn\", \"factor\": 4.0, \"attention_factor\": 1.5}", NULL);
    assert_true(gguf_meta_get_string(m, "qwen2.rope.scaling.type", &s));
    assert_memory_equal(s.data, "yarn", 4);
    expect_f32(m, "qwen2.rope.scaling.factor", 4.0f);
    expect_u32(m, "qwen2.rope.scaling.original_context_length", 512); /* not stated: the context */
    expect_f32(m, "qwen2.rope.scaling.yarn_attn_factor", 1.5f);
    assert_null(gguf_meta_find(m, "qwen2.rope.scaling.yarn_beta_fast"));
    gguf_meta_free(m);

    m = keys_of("Qwen3ForCausalLM", "\"rope_scaling\": {\"rope_type\": \"linear\", \"factor\": 2.0}", NULL);
    assert_true(gguf_meta_get_string(m, "qwen3.rope.scaling.type", &s));
    assert_memory_equal(s.data, "linear", 6);
    gguf_meta_free(m);

    char warning[200] = "";
    m = keys_of("Qwen3ForCausalLM", "\"rope_scaling\": {\"rope_type\": \"dynamic\", \"factor\": 2.0}",
                warning);
    assert_non_null(strstr(warning, "dynamic"));
    assert_null(gguf_meta_find(m, "qwen3.rope.scaling.type"));
    gguf_meta_free(m);
}

static void an_active_sliding_window_is_written_and_warned_about(void **state)
{
    (void)state;
    char warning[200] = "";
    int64_t v;
    struct gguf_meta *m =
        keys_of("Qwen2ForCausalLM",
                "\"use_sliding_window\": true, \"sliding_window\": 64, \"max_window_layers\": 1", warning);
    expect_u32(m, "qwen2.attention.sliding_window", 64);
    const struct gguf_value *p = gguf_meta_find(m, "qwen2.attention.sliding_window_pattern");
    assert_non_null(p);
    assert_int_equal(p->a.elem, GGUF_BOOL);
    assert_int_equal(p->a.n, 3);
    assert_memory_equal(p->a.data, "\0\1\1", 3);
    assert_non_null(strstr(warning, "full attention"));
    gguf_meta_free(m);

    warning[0] = '\0';
    m = keys_of("Qwen2ForCausalLM", "\"use_sliding_window\": false, \"sliding_window\": 64", warning);
    assert_false(gguf_meta_get_i64(m, "qwen2.attention.sliding_window", &v));
    assert_int_equal(warning[0], '\0');
    gguf_meta_free(m);
}

static void the_window_of_mistral_is_written_that_of_a_llama_file_is_not(void **state)
{
    (void)state;
    static const struct {
        const char *class_name, *extra;
        uint32_t window; /* 0: none */
    } rows[] = {{"MistralForCausalLM", "\"sliding_window\": 64", 64},
                {"MixtralForCausalLM", "\"sliding_window\": 64", 64},
                {"MistralForCausalLM", "\"sliding_window\": null", 0},
                {"MistralForCausalLM", "\"sliding_window\": 512", 0}, /* as long as the context */
                {"MistralForCausalLM", "", 0},
                {"LlamaForCausalLM", "\"sliding_window\": 64", 0}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char warning[200] = "";
        struct gguf_meta *m = keys_of(rows[i].class_name, rows[i].extra, warning);
        if (rows[i].window)
            expect_u32(m, "llama.attention.sliding_window", rows[i].window);
        else
            assert_null(gguf_meta_find(m, "llama.attention.sliding_window"));
        assert_true((strstr(warning, "full attention") != NULL) == (rows[i].window != 0));
        gguf_meta_free(m);
    }
}

static void expect_bool(const struct gguf_meta *meta, const char *key, bool want)
{
    bool v;
    if (!gguf_meta_get_bool(meta, key, &v))
        fail_msg("no key %s", key);
    assert_int_equal(v, want);
}

static void what_the_runtime_lacks_is_kept_in_keys_of_our_own(void **state)
{
    (void)state;
    char warning[200] = "";
    static const char heads[] = "\"seq_length\": 128, \"rotary_emb_base\": 500, "
                                "\"use_dynamic_ntk\": true, \"use_logn_attn\": false";
    struct gguf_meta *m = keys_of("QWenLMHeadModel", heads, warning);
    expect_u32(m, "qwen.ext.train_length", 128);
    expect_bool(m, "qwen.ext.dynamic_ntk", true);
    expect_bool(m, "qwen.ext.logn_attention", false);
    assert_non_null(strstr(warning, "dynamic NTK"));
    gguf_meta_free(m);

    warning[0] = '\0'; /* trained on the whole context: nothing to warn about */
    m = keys_of("QWenLMHeadModel", "\"seq_length\": 512, \"use_dynamic_ntk\": true", warning);
    expect_u32(m, "qwen.ext.train_length", 512);
    assert_int_equal(warning[0], '\0');
    gguf_meta_free(m);
    toy_config_refused("QWenLMHeadModel", "\"rotary_pct\": 0.5", ERR_UNSUPPORTED, "rotary_pct");
    toy_config_refused("QWenLMHeadModel", "\"kv_channels\": 32", ERR_UNSUPPORTED, "do not fill the width");

    m = keys_of("Qwen3ForCausalLM",
                "\"rope_scaling\": {\"rope_type\": \"yarn\", \"factor\": 4.0, \"truncate\": false}", warning);
    expect_bool(m, "qwen3.ext.yarn_truncate", false);
    assert_non_null(strstr(warning, "truncation"));
    gguf_meta_free(m);

    m = keys_of("Qwen3ForCausalLM", "\"attention_bias\": true", warning);
    assert_non_null(strstr(warning, "attn_output.bias"));
    gguf_meta_free(m);
}

/* Names that the configuration of the very first Qwen release had. */
static void the_first_configuration_of_qwen_has_other_names(void **state)
{
    (void)state;
    static const char text[] =
        "{\"architectures\": [\"QWenLMHeadModel\"], \"vocab_size\": 151936, \"n_embd\": 4096, \"n_head\": "
        "32, "
        "\"n_layer\": 30, \"ffn_hidden_size\": 22016, \"n_positions\": 6144, \"kv_channels\": 128}";
    struct arch_model a;
    struct hf_config *c = NULL;
    struct err e = {0};
    assert_int_equal(hf_config_parse(&c, text, sizeof text - 1, "config.json", &e), 0);
    if (arch_resolve(&a, c, &e) != 0)
        fail_msg("%s", e.msg);
    assert_int_equal(a.value[ARCH_D], 4096);
    assert_int_equal(a.value[ARCH_H], 32);
    assert_int_equal(a.value[ARCH_L], 30);
    assert_int_equal(a.value[ARCH_F], 22016);
    assert_int_equal(a.value[ARCH_HD], 128);
    hf_config_free(c);
}

static void expert_normalisation_other_than_the_runtimes_is_noted(void **state)
{
    (void)state;
    char warning[200] = "";
    bool v;
    struct gguf_meta *m = keys_of("Qwen3MoeForCausalLM", "\"norm_topk_prob\": true", warning);
    expect_u32(m, "qwen3moe.expert_count", 5);
    expect_u32(m, "qwen3moe.expert_used_count", 2);
    expect_u32(m, "qwen3moe.expert_feed_forward_length", 40);
    assert_false(gguf_meta_get_bool(m, "qwen3moe.expert_weights_norm", &v));
    assert_int_equal(warning[0], '\0');
    gguf_meta_free(m);

    m = keys_of("Qwen3MoeForCausalLM", "\"norm_topk_prob\": false", warning);
    assert_true(gguf_meta_get_bool(m, "qwen3moe.expert_weights_norm", &v));
    assert_false(v);
    assert_non_null(strstr(warning, "always normalises"));
    gguf_meta_free(m);

    m = keys_of("Qwen2MoeForCausalLM", "\"norm_topk_prob\": true", warning);
    expect_u32(m, "qwen2moe.expert_shared_feed_forward_length", 56);
    assert_true(gguf_meta_get_bool(m, "qwen2moe.expert_weights_norm", &v) && v);
    gguf_meta_free(m);
}

static void hybrid_keys_describe_the_delta_net(void **state)
{
    (void)state;
    struct gguf_meta *m = keys_of("Qwen3_5ForCausalLM", "\"head_dim\": 32", NULL);
    expect_u32(m, "qwen35.ssm.conv_kernel", 3);
    expect_u32(m, "qwen35.ssm.state_size", 5);
    expect_u32(m, "qwen35.ssm.group_count", 2);
    expect_u32(m, "qwen35.ssm.time_step_rank", 6);
    expect_u32(m, "qwen35.ssm.inner_size", 30);
    expect_u32(m, "qwen35.full_attention_interval", 4);
    expect_u32(m, "qwen35.rope.dimension_count", 32);
    const struct gguf_value *v = gguf_meta_find(m, "qwen35.rope.dimension_sections");
    int64_t first, last;
    assert_true(v && v->a.elem == GGUF_I32 && v->a.n == 4);
    assert_true(gguf_array_i64(v, 0, &first) && first == 11 && gguf_array_i64(v, 3, &last) && last == 0);
    assert_null(gguf_meta_find(m, "qwen35.attention.recurrent_layers"));
    gguf_meta_free(m);

    m = keys_of("Qwen3NextForCausalLM",
                "\"norm_topk_prob\": true, \"partial_rotary_factor\": 0.25, \"layer_types\": "
                "[\"full_attention\", \"linear_attention\", \"linear_attention\"]",
                NULL);
    v = gguf_meta_find(m, "qwen3next.attention.recurrent_layers"); /* the interval does not say it */
    assert_true(v && v->a.elem == GGUF_BOOL && v->a.n == 3);
    assert_memory_equal(v->a.data, "\0\1\1", 3);
    expect_u32(m, "qwen3next.rope.dimension_count", 4);
    gguf_meta_free(m);
}

static void expect_sections(struct gguf_meta *m, const char *key, const int32_t want[4])
{
    const struct gguf_value *v = gguf_meta_find(m, key);
    assert_true(v && v->a.elem == GGUF_I32 && v->a.n == 4);
    assert_memory_equal(v->a.data, want, 4 * sizeof want[0]);
}

/* Sections that a head of 16 has no room for are cut: the runtime would stop at the first token. */
static void vision_families_write_sections_and_deepstack(void **state)
{
    (void)state;
    struct gguf_meta *m = keys_of("Qwen3VLForConditionalGeneration",
                                  "\"vision_config\": {\"deepstack_visual_indexes\": [5, 11, 17]}", NULL);
    expect_u32(m, "qwen3vl.n_deepstack_layers", 3);
    expect_sections(m, "qwen3vl.rope.dimension_sections", (int32_t[]){3, 3, 3, 0});
    gguf_meta_free(m);
    m = keys_of("Qwen3VLForConditionalGeneration", "\"head_dim\": 128", NULL);
    expect_sections(m, "qwen3vl.rope.dimension_sections", (int32_t[]){24, 20, 20, 0});
    gguf_meta_free(m);
    toy_config_refused("Qwen2_5_VLForConditionalGeneration", "", ERR_FORMAT, "mrope_section");
}

/* Where llama.cpp multiplies by a factor beside blocks: in every graph for attention and head, in some for
 * the rest. */
static void factors_stand_only_where_the_runtime_reads_them(void **state)
{
    (void)state;
    static const struct {
        const char *arch, *weight;
        bool reads;
    } cases[] = {
        {"qwen3", "blk.3.ffn_up.weight", true},
        {"llama", "blk.3.ffn_down_exps.weight", true},
        {"qwen2", "blk.3.attn_q.weight", true},
        {"qwen2", "output.weight", true},
        {"qwen2", "blk.3.ffn_up.weight", false},
        {"qwen3vl", "blk.3.ffn_down.weight", false},
        {"qwen2moe", "blk.3.ffn_up_exps.weight", false},
        {"qwen3moe", "blk.3.ffn_up_exps.weight", true},
        {"qwen35", "blk.3.attn_qkv.weight", true},
        {"qwen3next", "blk.3.attn_qkv.weight", false},
        {"qwen3next", "blk.3.ssm_ba.weight", false},
        {"qwen3next", "blk.3.ffn_up_shexp.weight", true},
        {"qwen3", "token_embd.weight", false},
        {"qwen35moe", "blk.3.ssm_out.weight", true},
        {"qwen35moe", "blk.3.ffn_gate_inp.weight", false},
        {"qwen35", "blk.4.nextn.eh_proj.weight", true},
        {"qwen3next", "blk.4.nextn.eh_proj.weight", true},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        if (arch_reads_factor(arch_by_name(cases[i].arch), cases[i].weight) != cases[i].reads)
            fail_msg("%s %s", cases[i].arch, cases[i].weight);
}

/* OLMo 2, SmolLM3, Granite 3, Gemma, Phi-3, GLM-4, gpt-oss, DeepSeek: what their runtimes have built in. */
static void heads_must_make_up_the_width_where_no_key_says_otherwise(void **state)
{
    (void)state;
    toy_config_refused("Olmo2ForCausalLM", "\"head_dim\": 32", ERR_UNSUPPORTED, "do not make up hidden_size");
    toy_config_refused("GraniteForCausalLM", "\"head_dim\": 32", ERR_UNSUPPORTED,
                       "do not make up hidden_size");
    toy_config_refused("Phi3ForCausalLM", "\"head_dim\": 8", ERR_UNSUPPORTED, "do not make up hidden_size");
}

static void layers_without_rotation_are_every_fourth(void **state)
{
    (void)state;
    struct arch_model m;
    struct hf_config *c;
    toy_config_refused("SmolLM3ForCausalLM", "\"no_rope_layer_interval\": 3", ERR_UNSUPPORTED,
                       "interval is 3");
    toy_config_refused("SmolLM3ForCausalLM", "\"no_rope_layers\": [1, 0, 1, 0]", ERR_UNSUPPORTED,
                       "no_rope_layers");
    toy_config_refused("SmolLM3ForCausalLM", "\"no_rope_layers\": [1]", ERR_UNSUPPORTED, "no_rope_layers");
    toy_config_refused("SmolLM3ForCausalLM", "\"use_sliding_window\": true, \"sliding_window\": 64",
                       ERR_UNSUPPORTED, "use_sliding_window");
    toy_config_resolve(&m, &c, "SmolLM3ForCausalLM", "\"no_rope_layers\": [1, 1, 1, 0, 1, 1, 1, 0]");
    assert_int_equal(m.arch->runtime.unrotated_period, 4);
    hf_config_free(c);
}

static void gemma_is_as_its_runtime_has_built_in(void **state)
{
    (void)state;
    struct arch_model m;
    struct hf_config *c;
    toy_config_refused("Gemma2ForCausalLM", "\"tie_word_embeddings\": false", ERR_UNSUPPORTED,
                       "no head of its own");
    toy_config_refused("Gemma2ForCausalLM", "\"hidden_act\": \"silu\"", ERR_UNSUPPORTED,
                       "compute gelu_pytorch_tanh");
    toy_config_refused("Gemma2ForCausalLM",
                       "\"layer_types\": [\"full_attention\", \"sliding_attention\", \"full_attention\"]",
                       ERR_UNSUPPORTED, "does not give every 2nd layer full attention");
    toy_config_refused("Gemma3ForCausalLM", "\"sliding_window_pattern\": 4", ERR_UNSUPPORTED,
                       "every 6th layer");
    toy_config_refused("Gemma3ForCausalLM", "\"attn_logit_softcapping\": 50.0", ERR_UNSUPPORTED,
                       "attn_logit_softcapping is 50");
    toy_config_resolve(&m, &c, "Gemma2ForCausalLM",
                       "\"layer_types\": [\"sliding_attention\", \"full_attention\", \"sliding_attention\"]");
    assert_true(m.tied);
    hf_config_free(c);
}

static void long_rope_has_factors_for_each_pair(void **state)
{
    (void)state;
    toy_config_refused("Phi3ForCausalLM", "\"rope_scaling\": {\"type\": \"linear\", \"factor\": 2.0}",
                       ERR_UNSUPPORTED, "'phi3' has 'longrope' alone");
    toy_config_refused("Phi3ForCausalLM", "\"rope_scaling\": {\"type\": \"su\", \"short_factor\": [1, 1, 1]}",
                       ERR_FORMAT, "'long_factor' has 0 numbers, expected 8");
    toy_config_refused("Phi3ForCausalLM",
                       "\"partial_rotary_factor\": 0.25, \"rope_scaling\": {\"type\": \"longrope\", "
                       "\"long_factor\": [1, 1], \"short_factor\": [1, 0]}",
                       ERR_FORMAT, "'short_factor' [1] is not a number above 0");
}

static void glm_has_shared_experts_and_whole_pairs(void **state)
{
    (void)state;
    struct arch_model m;
    struct hf_config *c;
    toy_config_refused("Glm4ForCausalLM", "\"partial_rotary_factor\": 0.2", ERR_FORMAT,
                       "3 entries of a head are rotated");
    toy_config_refused("Glm4MoeForCausalLM", "\"n_shared_experts\": 0", ERR_UNSUPPORTED,
                       "n_shared_experts is 0");
    toy_config_resolve(
        &m, &c, "Glm4MoeForCausalLM",
        "\"first_k_dense_replace\": 2, \"num_nextn_predict_layers\": 1, \"partial_rotary_factor\": 0.5");
    assert_true(m.dense_layers[0] == 3 && m.value[ARCH_ES] == 3 && m.value[ARCH_R] == 8);
    uint64_t block = 9;
    assert_true(arch_is_behind(&m, "model.layers.3.eh_proj.weight", &block) && block == 0);
    assert_false(arch_is_behind(&m, "model.layers.2.mlp.gate.weight", &block));
    assert_false(arch_is_behind(&m, "model.layers.4.mlp.gate.weight", &block));
    hf_config_free(c);
}

static void options_of_experts_that_no_runtime_has_are_refused(void **state)
{
    (void)state;
    toy_config_refused("GptOssForCausalLM", "\"swiglu_limit\": 6.0", ERR_UNSUPPORTED, "have 7 built in");
    toy_config_refused("GptOssForCausalLM", "\"attention_bias\": false", ERR_UNSUPPORTED,
                       "attention_bias is false");
    toy_config_refused("GptOssForCausalLM",
                       "\"layer_types\": [\"full_attention\", \"sliding_attention\", \"full_attention\"]",
                       ERR_UNSUPPORTED, "every 2nd layer full attention");
    toy_config_refused("DeepseekV3ForCausalLM", "\"rope_interleave\": false", ERR_UNSUPPORTED,
                       "rope_interleave");
    toy_config_refused("DeepseekV3ForCausalLM", "\"attention_bias\": true", ERR_UNSUPPORTED,
                       "attention_bias");
    toy_config_refused("DeepseekV2ForCausalLM", "\"norm_topk_prob\": true", ERR_UNSUPPORTED,
                       "norm_topk_prob");
    toy_config_refused(
        "DeepseekV3ForCausalLM",
        "\"rope_scaling\": {\"type\": \"yarn\", \"factor\": 40, \"mscale\": 1.0, \"mscale_all_dim\": 0.7}",
        ERR_UNSUPPORTED, "is not mscale_all_dim");
}

static void options_of_other_families_are_refused(void **state)
{
    (void)state;
    toy_config_refused("GraniteForCausalLM", "\"logits_scaling\": 0", ERR_FORMAT, "'logits_scaling' is 0");
    toy_config_refused("GraniteForCausalLM", "\"residual_multiplier\": -1", ERR_FORMAT,
                       "'residual_multiplier'");
    toy_config_refused("Mistral3ForConditionalGeneration",
                       "\"text_config\": {\"model_type\": \"ministral3\"}", ERR_UNSUPPORTED,
                       "is 'ministral3'; 'mistral' alone");
    toy_config_refused("SeedOssForCausalLM", "\"attention_out_bias\": true", ERR_UNSUPPORTED,
                       "'attention_out_bias' is true");
}

#define LEADING "\"first_k_dense_replace\": 1"
#define EIGHT   "\"n_routed_experts\": 8, \"num_experts\": 8, \"num_experts_per_tok\": 3, " LEADING ", "

/* What transformers cannot compute, and what no runtime does. */
static void groups_of_experts_must_fit_them(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "\"n_group\": 3, \"topk_group\": 2", "\"n_group\": 0, \"topk_group\": 0",
        "\"n_group\": 4, \"topk_group\": 0", "\"n_group\": 4, \"topk_group\": 5",
        "\"n_group\": 4, \"topk_group\": 1", "\"n_group\": 8, \"topk_group\": 4",
        "\"n_group\": 1, \"topk_group\": 0", "\"n_group\": 4000000000, \"topk_group\": 4000000000",
    };
    char extra[300];
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        snprintf(extra, sizeof extra, EIGHT "%s", bad[i]);
        toy_config_refused("Glm4MoeForCausalLM", extra, ERR_FORMAT, "do not fit 8 experts, 3 of a token");
        toy_config_refused("DeepseekV3ForCausalLM", extra, ERR_FORMAT, "do not fit 8 experts, 3 of a token");
        snprintf(extra, sizeof extra, EIGHT "\"topk_method\": \"group_limited_greedy\", %s", bad[i]);
        toy_config_refused("DeepseekV2ForCausalLM", extra, ERR_FORMAT, "do not fit 8 experts, 3 of a token");
    }
    toy_config_refused("DeepseekV2ForCausalLM", "\"topk_method\": \"group_limited_greedy\"", ERR_UNSUPPORTED,
                       "without n_group");
    toy_config_refused("DeepseekV2ForCausalLM", "\"topk_method\": \"noaux_tc\"", ERR_UNSUPPORTED, "noaux_tc");
}

static void expect_groups(const char *class_name, const char *arch, const char *extra, uint32_t n,
                          uint32_t used, bool warned)
{
    char text[300], key[80], warning[200] = "";
    snprintf(text, sizeof text, EIGHT "%s", extra);
    struct gguf_meta *m = keys_of(class_name, text, warning);
    snprintf(key, sizeof key, "%s.expert_group_count", arch);
    expect_u32(m, key, n);
    snprintf(key, sizeof key, "%s.expert_group_used_count", arch);
    expect_u32(m, key, used);
    assert_int_equal(strstr(warning, "experts in groups") != NULL, warned);
    gguf_meta_free(m);
}

/* transformers passes over the groups of a greedy DeepSeek-V2, also where topk_method is not stated; runtimes
 * know the keys alone. To choose among all groups is to have none. */
static void groups_that_choose_nothing_are_written_as_one(void **state)
{
    (void)state;
    static const char v2[] = "DeepseekV2ForCausalLM", v3[] = "DeepseekV3ForCausalLM", ds[] = "deepseek2";
    expect_groups(v2, ds, "\"topk_method\": \"greedy\", \"n_group\": 4, \"topk_group\": 2", 1, 1, false);
    expect_groups(v2, ds, "\"n_group\": 4, \"topk_group\": 2", 1, 1, false);
    expect_groups(v2, ds, "\"n_group\": 3, \"topk_group\": 9", 1, 1, false);
    expect_groups(v2, ds, "\"topk_method\": \"group_limited_greedy\", \"n_group\": 4, \"topk_group\": 2", 4,
                  2, true);
    expect_groups(v3, ds, "\"topk_method\": \"greedy\", \"n_group\": 4, \"topk_group\": 2", 4, 2, false);
    expect_groups(v3, ds, "\"n_group\": 4, \"topk_group\": 4", 1, 1, false);
    expect_groups("Glm4MoeForCausalLM", "glm4moe", "\"n_group\": 4, \"topk_group\": 4", 1, 1, false);
    expect_groups("Glm4MoeForCausalLM", "glm4moe", "\"n_group\": 4, \"topk_group\": 2", 4, 2, false);
    struct gguf_meta *m =
        keys_of(v2, LEADING, NULL); /* nor are there keys where the configuration has none */
    assert_null(gguf_meta_find(m, "deepseek2.expert_group_count"));
    gguf_meta_free(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(factors_stand_only_where_the_runtime_reads_them),
        cmocka_unit_test(heads_must_make_up_the_width_where_no_key_says_otherwise),
        cmocka_unit_test(layers_without_rotation_are_every_fourth),
        cmocka_unit_test(gemma_is_as_its_runtime_has_built_in),
        cmocka_unit_test(long_rope_has_factors_for_each_pair),
        cmocka_unit_test(glm_has_shared_experts_and_whole_pairs),
        cmocka_unit_test(options_of_experts_that_no_runtime_has_are_refused),
        cmocka_unit_test(options_of_other_families_are_refused),
        cmocka_unit_test(groups_of_experts_must_fit_them),
        cmocka_unit_test(groups_that_choose_nothing_are_written_as_one),
        cmocka_unit_test(hybrid_keys_describe_the_delta_net),
        cmocka_unit_test(vision_families_write_sections_and_deepstack),
        cmocka_unit_test(keys_of_a_dense_model_have_the_types_the_runtime_checks),
        cmocka_unit_test(rope_scaling_is_written_as_the_runtime_reads_it),
        cmocka_unit_test(an_active_sliding_window_is_written_and_warned_about),
        cmocka_unit_test(the_window_of_mistral_is_written_that_of_a_llama_file_is_not),
        cmocka_unit_test(what_the_runtime_lacks_is_kept_in_keys_of_our_own),
        cmocka_unit_test(the_first_configuration_of_qwen_has_other_names),
        cmocka_unit_test(expert_normalisation_other_than_the_runtimes_is_noted),
    };
    return cmocka_run_group_tests_name("arch_keys", tests, NULL, NULL);
}
