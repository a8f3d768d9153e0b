/* test_arch.c - descriptors are consistent, configurations resolve to the numbers of real models, and what
 * cannot be converted is refused with the reason. */
#include "formats/arch/arch.h"
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

static uint64_t product(const uint64_t *dims, uint32_t n)
{
    uint64_t p = 1;
    for (uint32_t i = 0; i < n; i++)
        p *= dims[i];
    return p;
}

/* --- descriptors --------------------------------------------------------------------------------------- */

static size_t count_text(const char *s, const char *what)
{
    size_t n = 0;
    for (; (s = strstr(s, what)) != NULL; s++)
        n++;
    return n;
}

static void check_row(const struct arch_model *a, const struct arch_row *row)
{
    uint64_t shape[4], out[4];
    uint32_t n, n_out;
    struct err e = {0};
    size_t layers = count_text(row->hf, ".N.");
    bool stacked = count_text(row->hf, ".J.") == 1;
    assert_int_equal(layers, count_text(row->gguf, ".N."));
    assert_true(layers <= 1);
    if (arch_shape(a, row->shape, shape, 4, &n, &e) != 0)
        fail_msg("%s %s: %s", a->arch->name, row->hf, e.msg);
    assert_true(!(stacked && (row->rows || row->cols)));
    if (!row->out || row->op == ARCH_FOLD) /* a network between them */
        return;
    assert_int_equal(arch_shape(a, row->out, out, 4, &n_out, &e), 0);
    uint64_t width = row->by_element ? 1 : out[n_out - 1];
    if (!row->by_element)
        assert_int_equal(width, row->transpose ? shape[n - 2] : shape[n - 1]);
    for (uint64_t r = 0; row->rows && r < product(out, n_out) / width;
         r++) /* every map stays inside its source */
        assert_true(row->rows(a, r) < product(shape, n) / width);
}

static void every_row_of_every_family_has_a_valid_shape(void **state)
{
    (void)state;
    for (size_t i = 0; i < arch_count(); i++) {
        const struct arch *arch = arch_at(i);
        for (const char *const *name = arch->classes; *name; name++) {
            struct arch_model a;
            struct hf_config *c;
            toy_config_resolve(&a, &c, *name,
                               "\"head_dim\": 16, \"rope_scaling\": {\"mrope_section\": [4, 2, 2]}");
            assert_ptr_equal(a.arch, arch);
            for (const struct arch_group *g = arch->groups; g->rows; g++)
                for (size_t r = 0; r < g->n; r++)
                    check_row(&a, &g->rows[r]);
            hf_config_free(c);
        }
        assert_ptr_equal(arch_by_name(arch->name), arch);
    }
    assert_null(arch_by_name("no-such"));
}

static void no_class_belongs_to_two_families(void **state)
{
    (void)state;
    for (size_t i = 0; i < arch_count(); i++)
        for (const char *const *name = arch_at(i)->classes; *name; name++) {
            const struct arch *found = NULL;
            assert_int_equal(arch_find(&found, *name, "", NULL), 0);
            assert_ptr_equal(found, arch_at(i));
        }
}

static void the_table_lists_every_class(void **state)
{
    (void)state;
    char *text = NULL;
    size_t n = 0;
    FILE *f = open_memstream(&text, &n);
    assert_non_null(f);
    arch_write_table(f);
    fclose(f);
    size_t lines = count_text(text, "\n");
    assert_int_equal(lines, 2 + arch_count());
    for (size_t i = 0; i < arch_count(); i++)
        for (const char *const *name = arch_at(i)->classes; *name; name++)
            assert_non_null(strstr(text, *name));
    free(text);
}

/* --- names --------------------------------------------------------------------------------------------- */

static void patterns_match_whole_components(void **state)
{
    (void)state;
    uint64_t layer = 99, expert = 99;
    assert_true(arch_match("model.layers.N.mlp.experts.J.w1.weight",
                           "model.layers.12.mlp.experts.3.w1.weight", &layer, &expert));
    assert_int_equal(layer, 12);
    assert_int_equal(expert, 3);
    assert_true(arch_match("lm_head.weight", "lm_head.weight", NULL, NULL));
    static const char *const no[] = {"model.layers.01.x",
                                     "model.layers..x",
                                     "model.layers.-1.x",
                                     "model.layers.1.xy",
                                     "model.layers.1",
                                     "model.layers.1.x.",
                                     "model.layers.N.x",
                                     "model.layers.1a.x",
                                     "model.layers.99999999999999999999.x",
                                     "",
                                     "model.layers.1.x.weight"};
    for (size_t i = 0; i < sizeof no / sizeof *no; i++)
        assert_false(arch_match("model.layers.N.x", no[i], NULL, NULL));
    assert_true(arch_match("model.layers.N.x", "model.layers.0.x", &layer, NULL));
    assert_int_equal(layer, 0);
}

static void prefixes_of_nested_models_are_stripped(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        {"model.layers.0.x", "model.layers.0.x"},
        {"model.language_model.layers.0.x", "model.layers.0.x"},
        {"language_model.model.layers.0.x", "model.layers.0.x"},
        {"language_model.lm_head.weight", "lm_head.weight"},
        {"thinker.model.layers.0.x", "model.layers.0.x"},
        {"layers.0.x", "model.layers.0.x"},
        {"embed_tokens.weight", "model.embed_tokens.weight"},
        {"norm.weight", "model.norm.weight"},
        {"model.mtp.norm.weight", "mtp.norm.weight"},
        {"lm_head.weight", "lm_head.weight"},
    };
    struct arch_model a = {.arch = arch_by_name("qwen2")};
    struct arena arena = {0};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_string_equal(arch_strip(&a, cases[i][0], &arena), cases[i][1]);
    arena_release(&arena);
}

static void other_modalities_and_buffers_are_dropped_weights_are_not(void **state)
{
    (void)state;
    static const char *const drop[] = {"visual.blocks.0.attn.qkv.weight",
                                       "model.visual.merger.norm.weight",
                                       "audio_tower.conv1.weight",
                                       "multi_modal_projector.linear.weight",
                                       "talker.model.norm.weight",
                                       "model.layers.0.self_attn.rotary_emb.inv_freq",
                                       "h.0.attn.masked_bias",
                                       "code2wav.x",
                                       "transformer.audio.conv1.weight",
                                       "transformer.visual.proj",
                                       "vision_tower.x"};
    static const char *const keep[] = {"model.layers.0.self_attn.q_proj.bias", "lm_head.weight",
                                       "model.norm.weight", "model.layers.0.mlp.gate_proj.weight"};
    for (size_t i = 0; i < sizeof drop / sizeof *drop; i++)
        assert_non_null(arch_drop_reason(drop[i]));
    for (size_t i = 0; i < sizeof keep / sizeof *keep; i++)
        assert_null(arch_drop_reason(keep[i]));
}

static void norms_biases_routers_stay_f32(void **state)
{
    (void)state;
    assert_true(arch_always_f32("blk.0.attn_norm.weight", 1));
    assert_true(arch_always_f32("blk.0.attn_q.bias", 1));
    assert_true(arch_always_f32("blk.0.ffn_gate_inp.weight", 2));
    assert_true(arch_always_f32("blk.0.ffn_gate_inp_shexp.weight", 2));
    assert_true(arch_always_f32("blk.0.ssm_conv1d.weight", 2));
    assert_true(arch_always_f32("blk.0.ssm_a", 2));
    assert_true(arch_always_f32("x_norm.weight", 2));
    assert_false(arch_always_f32("blk.0.attn_q.weight", 2));
    assert_false(arch_always_f32("token_embd.weight", 2));
    assert_false(arch_always_f32("blk.0.ffn_gate_exps.weight", 3));
}

/* --- numbers ------------------------------------------------------------------------------------------- */

static void expressions_give_sums_products_and_exact_quotients(void **state)
{
    (void)state;
    struct arch_model a;
    struct hf_config *c;
    uint64_t v;
    toy_config_resolve(&a, &c, "Qwen3ForCausalLM", "\"head_dim\": 32");
    struct arch_model none = a;
    none.known[ARCH_HK] = false;
    static const struct {
        const char *expr;
        uint64_t value;
    } good[] = {{"V", 1009},  {"H*d", 192}, {"2*Hkv*d+D", 224}, {"D/H", 16},
                {"F/2", 112}, {"7", 7},     {"D/H*Hkv", 32}};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        assert_true(arch_eval(&a, good[i].expr, &v));
        assert_int_equal(v, good[i].value);
    }
    static const char *const bad[] = {"",     "X",   "D+",  "D/7", "D/0", "V*V*V*V*V*V*V*V",
                                      "X*Hk", "D D", "D,H", "(D)"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_false(arch_eval(&a, bad[i], &v));

    uint64_t dims[4];
    uint32_t n;
    struct err e = {0};
    assert_int_equal(arch_shape(&a, "V,H*d,2", dims, 4, &n, &e), 0);
    assert_int_equal(n, 3);
    assert_int_equal(dims[1], 192);
    assert_int_equal(arch_shape(&none, "V,Hk*dk", dims, 4, &n, &e), ERR_FORMAT);
    assert_non_null(strstr(e.msg, "linear_num_key_heads"));
    assert_int_equal(arch_shape(&a, "1,1,1,1,1", dims, 4, &n, &e), ERR_FORMAT);
    hf_config_free(c);
}

static void absent_numbers_take_their_rule_and_are_not_called_stated(void **state)
{
    (void)state;
    struct arch_model a;
    struct hf_config *c;
    toy_config_resolve(&a, &c, "Qwen2ForCausalLM", "");
    assert_int_equal(a.value[ARCH_HD], 16);
    assert_false(a.stated[ARCH_HD]);
    assert_true(a.stated[ARCH_HKV]);
    hf_config_free(c);
}

static void impossible_configurations_are_refused_by_field(void **state)
{
    (void)state;
    static const char text[] = "{\"architectures\": [\"LlamaForCausalLM\"], \"hidden_size\": 96}";
    struct err e = {0};
    struct arch_model a;
    struct hf_config *c = NULL;
    assert_int_equal(hf_config_parse(&c, text, sizeof text - 1, "config.json", &e), 0);
    assert_int_equal(arch_resolve(&a, c, &e), ERR_FORMAT);
    assert_non_null(strstr(e.msg, "vocab_size"));
    hf_config_free(c);

    toy_config_refused("Qwen2ForCausalLM", "\"head_dim\": 32", ERR_UNSUPPORTED, "do not fill the width");
    toy_config_refused("LlamaForCausalLM", "\"head_dim\": 15", ERR_FORMAT, "odd");
    toy_config_refused("Qwen2MoeForCausalLM", "\"decoder_sparse_step\": 0", ERR_FORMAT,
                       "decoder_sparse_step");
    toy_config_refused("Qwen3MoeForCausalLM", "\"mlp_only_layers\": [\"x\"]", ERR_FORMAT, "mlp_only_layers");
    toy_config_refused("Qwen3ForCausalLM", "\"head_dim\": 0", ERR_FORMAT, "head_dim");
    toy_config_refused("Qwen3ForCausalLM", "\"head_dim\": 99999999", ERR_FORMAT, "head_dim");
    toy_config_refused("Qwen3ForCausalLM", "\"head_dim\": \"x\"", ERR_FORMAT, "head_dim");
    toy_config_refused("Qwen3ForCausalLM", "\"head_dim\": -1", ERR_FORMAT, "head_dim");
}

/* Of layers 0, 1, 2: which have the tensor `gguf`? */
static unsigned layers_with(const struct arch_model *a, const char *gguf)
{
    unsigned found = 0;
    for (const struct arch_group *g = a->arch->groups; g->rows; g++)
        for (size_t i = 0; i < g->n; i++)
            for (unsigned layer = 0; layer < 3; layer++)
                if (strcmp(g->rows[i].gguf, gguf) == 0 && arch_row_applies(a, g, &g->rows[i], layer))
                    found |= 1u << layer;
    return found;
}

static void layers_without_experts_have_a_plain_network_and_a_warning(void **state)
{
    (void)state;
    static const char *const classes[] = {"Qwen2MoeForCausalLM", "Qwen3MoeForCausalLM",
                                          "Qwen3VLMoeForConditionalGeneration", "Qwen3NextForCausalLM"};
    static const struct {
        const char *config;
        unsigned sparse;
    } cases[] = {{"\"mlp_only_layers\": []", 7},
                 {"\"decoder_sparse_step\": 2", 2},
                 {"\"mlp_only_layers\": [1, 9]", 5},
                 {"\"decoder_sparse_step\": 3, \"mlp_only_layers\": [2]", 0}};
    for (size_t i = 0; i < sizeof classes / sizeof *classes; i++)
        for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
            struct arch_model a;
            struct hf_config *c;
            struct gguf_meta *meta = NULL;
            struct err e = {0};
            char warning[200] = "";
            struct arch_warnings w = {toy_config_warning, warning};
            toy_config_resolve(&a, &c, classes[i], cases[k].config);
            assert_int_equal(layers_with(&a, "blk.N.ffn_gate_inp.weight"), cases[k].sparse);
            assert_int_equal(layers_with(&a, "blk.N.ffn_down_exps.weight"), cases[k].sparse);
            assert_int_equal(layers_with(&a, "blk.N.ffn_down.weight"), 7 & ~cases[k].sparse);
            assert_int_equal(gguf_meta_new(&meta, &e), 0);
            assert_int_equal(arch_add_own_keys(&a, meta, &w, &e), 0);
            assert_int_equal(strstr(warning, "without experts") != NULL, cases[k].sparse != 7);
            gguf_meta_free(meta);
            hf_config_free(c);
        }
}

static void an_unknown_class_is_refused_by_name(void **state)
{
    (void)state;
    toy_config_refused("BloomForCausalLM", "", ERR_UNSUPPORTED,
                       "class 'BloomForCausalLM' is not supported; the table of families in README.md");
    toy_config_refused("LlamaForSequenceClassification", "", ERR_UNSUPPORTED, "for Qwen2 and Qwen3 only");
    toy_config_refused("Qwen3ForSequenceClassification",
                       "\"id2label\": {\"0\": \"a\", \"1\": \"b\", \"2\": \"c\"}", ERR_UNSUPPORTED,
                       "3 labels");
    const struct arch *found = NULL;
    struct err e = {0};
    assert_int_equal(arch_find(&found, "", "qwen3", &e), 0); /* no class stated: the model_type decides */
    assert_string_equal(found->name, "qwen3");
    assert_int_equal(arch_find(&found, "", "mamba", &e), ERR_UNSUPPORTED);
    assert_non_null(strstr(e.msg, "mamba"));
}

/* --- transformations ----------------------------------------------------------------------------------- */

static const struct arch_row *find_row(const struct arch_model *a, const char *hf)
{
    for (const struct arch_group *g = a->arch->groups; g->rows; g++)
        for (size_t i = 0; i < g->n; i++)
            if (strcmp(g->rows[i].hf, hf) == 0)
                return &g->rows[i];
    fail_msg("no row %s", hf);
    return NULL;
}

/* new[h*d + 2*i + s] = old[h*d + s*(d/2) + i], specification, architectures 17.3. */
static void llama_rows_of_q_and_k_are_permuted_by_the_formula(void **state)
{
    (void)state;
    struct arch_model a;
    struct hf_config *c;
    toy_config_resolve(&a, &c, "LlamaForCausalLM", "");
    arch_map map = find_row(&a, "model.layers.N.self_attn.q_proj.weight")->rows;
    uint64_t d = a.value[ARCH_HD], n_heads = a.value[ARCH_H];
    for (uint64_t h = 0; h < n_heads; h++)
        for (uint64_t s = 0; s < 2; s++)
            for (uint64_t i = 0; i < d / 2; i++)
                assert_int_equal(map(&a, h * d + 2 * i + s), h * d + s * (d / 2) + i);
    assert_ptr_equal(find_row(&a, "model.layers.N.self_attn.k_proj.weight")->rows, map);
    assert_ptr_equal(find_row(&a, "model.layers.N.self_attn.q_proj.bias")->rows, map);
    assert_null(find_row(&a, "model.layers.N.self_attn.v_proj.weight")->rows);
    assert_null(find_row(&a, "model.layers.N.self_attn.o_proj.weight")->rows);
    hf_config_free(c);
}

/* Specification, architectures 13.3: source row of every destination, from the table of the fused projection.
 */
static void next_rows_are_regrouped_by_the_table(void **state)
{
    (void)state;
    struct arch_model a;
    struct hf_config *c;
    toy_config_resolve(&a, &c, "Qwen3NextForCausalLM", "\"norm_topk_prob\": true");
    const struct arch_row *qkv = find_row(&a, "model.layers.N.linear_attn.in_proj_qkvz.weight"), *z = qkv + 1;
    uint64_t n_k = 2, n_v = 6, dk = 5, dv = 5, r = n_v / n_k, key = n_k * dk, n_seen = 0;
    for (uint64_t h = 0; h < n_k; h++) {
        uint64_t base = h * (2 * dk + 2 * r * dv);
        for (uint64_t i = 0; i < dk; i++, n_seen += 2) {
            assert_int_equal(qkv->rows(&a, h * dk + i), base + i);
            assert_int_equal(qkv->rows(&a, key + h * dk + i), base + dk + i);
        }
        for (uint64_t j = 0; j < r; j++)
            for (uint64_t i = 0; i < dv; i++, n_seen += 2) {
                assert_int_equal(qkv->rows(&a, 2 * key + (h * r + j) * dv + i), base + 2 * dk + j * dv + i);
                assert_int_equal(z->rows(&a, (h * r + j) * dv + i), base + 2 * dk + r * dv + j * dv + i);
            }
    }
    assert_int_equal(n_seen, 2 * key + 2 * n_v * dv);
    hf_config_free(c);
}

/* Specification, architectures 16.3: new head block j*Hk + c takes old head block c*r + j. */
static void qwen35_value_heads_are_tiled(void **state)
{
    (void)state;
    struct arch_model a;
    struct hf_config *c;
    toy_config_resolve(&a, &c, "Qwen3_5ForCausalLM", "");
    const struct arch_row *qkv = find_row(&a, "model.layers.N.linear_attn.in_proj_qkv.weight");
    const struct arch_row *z = find_row(&a, "model.layers.N.linear_attn.in_proj_z.weight");
    const struct arch_row *alpha = find_row(&a, "model.layers.N.linear_attn.in_proj_a.weight");
    const struct arch_row *out = find_row(&a, "model.layers.N.linear_attn.out_proj.weight");
    uint64_t n_k = 2, r = 3, dk = 5, dv = 5, front = 2 * n_k * dk;
    for (uint64_t h = 0; h < n_k; h++)
        for (uint64_t j = 0; j < r; j++) {
            assert_int_equal(alpha->rows(&a, j * n_k + h), h * r + j);
            for (uint64_t i = 0; i < dv; i++) {
                assert_int_equal(z->rows(&a, (j * n_k + h) * dv + i), (h * r + j) * dv + i);
                assert_int_equal(out->cols(&a, (j * n_k + h) * dv + i), (h * r + j) * dv + i);
                assert_int_equal(qkv->rows(&a, front + (j * n_k + h) * dv + i), front + (h * r + j) * dv + i);
            }
        }
    for (uint64_t i = 0; i < front; i++)
        assert_int_equal(qkv->rows(&a, i), i);
    assert_null(out->rows);
    assert_ptr_equal(find_row(&a, "model.layers.N.linear_attn.conv1d.weight")->rows, qkv->rows);
    hf_config_free(c);
}

static void zero_centred_norms_get_one_added_but_not_that_of_the_delta_net(void **state)
{
    (void)state;
    static const char *const classes[] = {"Qwen3NextForCausalLM", "Qwen3_5ForCausalLM",
                                          "Qwen3_5MoeForCausalLM"};
    for (size_t k = 0; k < 3; k++) {
        struct arch_model a;
        struct hf_config *c;
        toy_config_resolve(&a, &c, classes[k], "");
        for (const struct arch_group *g = a.arch->groups; g->rows; g++)
            for (size_t i = 0; i < g->n; i++) {
                const char *hf = g->rows[i].hf;
                bool norm = strstr(hf, "norm") != NULL && !strstr(hf, "linear_attn.norm");
                enum arch_op want = norm ? ARCH_ADD_ONE : strstr(hf, "A_log") ? ARCH_NEG_EXP : ARCH_KEEP;
                assert_int_equal(g->rows[i].op, want);
            }
        hf_config_free(c);
    }
}

static void hybrid_layers_follow_the_interval_or_the_list(void **state)
{
    (void)state;
    struct arch_model a;
    struct hf_config *c;
    toy_config_resolve(&a, &c, "Qwen3NextForCausalLM", "\"full_attention_interval\": 2");
    const struct arch_row *q = find_row(&a, "model.layers.N.self_attn.q_proj.weight");
    const struct arch_group *g = a.arch->groups;
    while (q < g->rows || q >= g->rows + g->n)
        g++;
    assert_false(arch_row_applies(&a, g, q, 0));
    assert_true(arch_row_applies(&a, g, q, 1));
    assert_false(arch_row_applies(&a, g, q, 2));
    assert_true(arch_row_applies(&a, g, q, 3)); /* behind the last layer: a prediction block, never linear */
    hf_config_free(c);

    toy_config_resolve(&a, &c, "Qwen3NextForCausalLM",
                       "\"layer_types\": [\"full_attention\", \"linear_attention\", \"linear_attention\"]");
    assert_true(arch_row_applies(&a, g, q, 0));
    assert_false(arch_row_applies(&a, g, q, 1));
    hf_config_free(c);

    toy_config_refused("Qwen3_5ForCausalLM", "\"layer_types\": [\"full_attention\"]", ERR_FORMAT,
                       "layer_types");
    toy_config_refused("Qwen3_5ForCausalLM", "\"layer_types\": [\"x\", \"x\", \"x\"]", ERR_UNSUPPORTED,
                       "'x'");
    toy_config_refused("Qwen3_5ForCausalLM", "\"full_attention_interval\": 0", ERR_FORMAT, "interval");
    toy_config_refused("Qwen3_5ForCausalLM", "\"attn_output_gate\": false", ERR_UNSUPPORTED,
                       "attn_output_gate");
}

static void prediction_blocks_stand_behind_the_last_layer(void **state)
{
    (void)state;
    struct arch_model a;
    struct hf_config *c;
    struct arena arena = {0};
    toy_config_resolve(&a, &c, "Qwen3_5ForCausalLM", "");
    assert_string_equal(arch_strip(&a, "mtp.layers.0.mlp.x", &arena),
                        "mtp.layers.0.mlp.x"); /* none is kept */
    a.n_extra = 2;
    assert_string_equal(arch_strip(&a, "mtp.layers.1.mlp.x", &arena), "model.layers.4.mlp.x");
    assert_string_equal(arch_strip(&a, "model.mtp.fc.weight", &arena), "model.layers.3.mtp.fc.weight");
    assert_string_equal(arch_strip(&a, "model.norm.weight", &arena), "model.norm.weight");
    arena_release(&arena);
    hf_config_free(c);
}

/* Values of llama.cpp's converter (float32 arithmetic of PyTorch 2) for Llama 3.1 8B and Llama 3.2 1B. */
static void rope_frequency_divisors_equal_the_reference(void **state)
{
    (void)state;
    static const uint32_t ramp_31[] = {0x3f9a8ed5, 0x3fc6d64a, 0x4001af1d,
                                       0x402c732e, 0x406bcace, 0x40a83c06};
    static const uint32_t ramp_32[] = {0x3fd35ec2, 0x4052b46f, 0x411aaaee};
    static const struct {
        uint64_t head_dim, first;
        double factor;
        const uint32_t *ramp;
        uint64_t n;
    } cases[] = {{128, 29, 8, ramp_31, 6}, {64, 15, 32, ramp_32, 3}};
    for (size_t k = 0; k < 2; k++) {
        struct arch_model a = {.rope = {.type = ROPE_LLAMA3,
                                        .theta = 500000,
                                        .has_factor = true,
                                        .factor = cases[k].factor,
                                        .has_low_freq_factor = true,
                                        .low_freq_factor = 1,
                                        .has_high_freq_factor = true,
                                        .high_freq_factor = 4,
                                        .has_original_context = true,
                                        .original_context = 8192}};
        float phi[64];
        a.value[ARCH_HD] = cases[k].head_dim;
        arch_rope_freqs(&a, phi);
        for (uint64_t i = 0; i < cases[k].head_dim / 2; i++) {
            uint32_t bits, in_ramp = i - cases[k].first < cases[k].n;
            memcpy(&bits, &phi[i], sizeof bits);
            if (in_ramp)
                assert_int_equal(bits, cases[k].ramp[i - cases[k].first]);
            else
                assert_true((double)phi[i] == (i < cases[k].first ? 1.0 : cases[k].factor));
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_row_of_every_family_has_a_valid_shape),
        cmocka_unit_test(no_class_belongs_to_two_families),
        cmocka_unit_test(the_table_lists_every_class),
        cmocka_unit_test(patterns_match_whole_components),
        cmocka_unit_test(prefixes_of_nested_models_are_stripped),
        cmocka_unit_test(other_modalities_and_buffers_are_dropped_weights_are_not),
        cmocka_unit_test(norms_biases_routers_stay_f32),
        cmocka_unit_test(expressions_give_sums_products_and_exact_quotients),
        cmocka_unit_test(absent_numbers_take_their_rule_and_are_not_called_stated),
        cmocka_unit_test(impossible_configurations_are_refused_by_field),
        cmocka_unit_test(layers_without_experts_have_a_plain_network_and_a_warning),
        cmocka_unit_test(an_unknown_class_is_refused_by_name),
        cmocka_unit_test(llama_rows_of_q_and_k_are_permuted_by_the_formula),
        cmocka_unit_test(next_rows_are_regrouped_by_the_table),
        cmocka_unit_test(qwen35_value_heads_are_tiled),
        cmocka_unit_test(zero_centred_norms_get_one_added_but_not_that_of_the_delta_net),
        cmocka_unit_test(hybrid_layers_follow_the_interval_or_the_list),
        cmocka_unit_test(prediction_blocks_stand_behind_the_last_layer),
        cmocka_unit_test(rope_frequency_divisors_equal_the_reference),
    };
    return cmocka_run_group_tests_name("arch", tests, NULL, NULL);
}
