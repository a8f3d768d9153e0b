/* test_arch.c - descriptors are consistent, configurations resolve to the numbers of real models, and what
 * cannot be converted is refused with the reason. */
#include "formats/arch/arch.h"
#include "formats/gguf/gguf_meta.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* Numbers in which no two products are equal by accident. */
static const char base_config[] =
    "\"vocab_size\": 1009, \"hidden_size\": 96, \"num_hidden_layers\": 3,"
    "\"num_attention_heads\": 6, \"num_key_value_heads\": 2, \"intermediate_size\": 224,"
    "\"max_position_embeddings\": 512, \"rms_norm_eps\": 1e-5, \"rope_theta\": 10000.0,"
    "\"num_experts\": 5, \"num_experts_per_tok\": 2, \"moe_intermediate_size\": 40,"
    "\"shared_expert_intermediate_size\": 56, \"linear_num_key_heads\": 2,"
    "\"linear_num_value_heads\": 6, \"linear_key_head_dim\": 5, \"linear_value_head_dim\": 5,"
    "\"linear_conv_kernel_dim\": 3, \"num_labels\": 2, \"n_shared_experts\": 3,"
    "\"q_lora_rank\": 22, \"kv_lora_rank\": 26, \"qk_nope_head_dim\": 14, \"qk_rope_head_dim\": 10, "
    "\"v_head_dim\": 18, \"text_vocab_size\": 60, \"text_hidden_size\": 36";

static struct hf_config *config_of(const char *class_name, const char *extra)
{
    char text[2048];
    struct err e = {0};
    struct hf_config *c = NULL;
    int n = snprintf(text, sizeof text, "{\"architectures\": [\"%s\"], %s%s%s}", class_name, base_config,
                     extra[0] ? ", " : "", extra);
    assert_true(n > 0 && (size_t)n < sizeof text);
    if (hf_config_parse(&c, text, (size_t)n, "config.json", &e) != 0)
        fail_msg("%s", e.msg);
    return c;
}

/* Resolve and expect a failure whose message contains `want`. */
static void expect_refusal(const char *class_name, const char *extra, int code, const char *want)
{
    struct err e = {0};
    struct arch_model a;
    struct hf_config *c = config_of(class_name, extra);
    assert_int_equal(arch_resolve(&a, c, &e), code);
    if (!strstr(e.msg, want))
        fail_msg("'%s' does not contain '%s'", e.msg, want);
    hf_config_free(c);
}

static void resolve(struct arch_model *a, struct hf_config **c, const char *class_name, const char *extra)
{
    struct err e = {0};
    *c = config_of(class_name, extra);
    if (arch_resolve(a, *c, &e) != 0)
        fail_msg("%s", e.msg);
}

static int ignore_warning(void *ctx, const char *text, struct err *e)
{
    (void)e;
    if (ctx)
        snprintf(ctx, 200, "%s", text);
    return 0;
}

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
            resolve(&a, &c, *name, "\"head_dim\": 16, \"rope_scaling\": {\"mrope_section\": [4, 2, 2]}");
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
    resolve(&a, &c, "Qwen3ForCausalLM", "\"head_dim\": 32");
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
    resolve(&a, &c, "Qwen2ForCausalLM", "");
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

    expect_refusal("Qwen2ForCausalLM", "\"head_dim\": 32", ERR_UNSUPPORTED, "do not fill the width");
    expect_refusal("LlamaForCausalLM", "\"head_dim\": 15", ERR_FORMAT, "odd");
    expect_refusal("Qwen2MoeForCausalLM", "\"decoder_sparse_step\": 0", ERR_FORMAT, "decoder_sparse_step");
    expect_refusal("Qwen3MoeForCausalLM", "\"mlp_only_layers\": [\"x\"]", ERR_FORMAT, "mlp_only_layers");
    expect_refusal("Qwen3ForCausalLM", "\"head_dim\": 0", ERR_FORMAT, "head_dim");
    expect_refusal("Qwen3ForCausalLM", "\"head_dim\": 99999999", ERR_FORMAT, "head_dim");
    expect_refusal("Qwen3ForCausalLM", "\"head_dim\": \"x\"", ERR_FORMAT, "head_dim");
    expect_refusal("Qwen3ForCausalLM", "\"head_dim\": -1", ERR_FORMAT, "head_dim");
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
            struct arch_warnings w = {ignore_warning, warning};
            resolve(&a, &c, classes[i], cases[k].config);
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
    expect_refusal("BloomForCausalLM", "", ERR_UNSUPPORTED,
                   "class 'BloomForCausalLM' is not supported; the table of families in README.md");
    expect_refusal("LlamaForSequenceClassification", "", ERR_UNSUPPORTED, "for Qwen2 and Qwen3 only");
    expect_refusal("Qwen3ForSequenceClassification",
                   "\"id2label\": {\"0\": \"a\", \"1\": \"b\", \"2\": \"c\"}", ERR_UNSUPPORTED, "3 labels");
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
    resolve(&a, &c, "LlamaForCausalLM", "");
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
    resolve(&a, &c, "Qwen3NextForCausalLM", "\"norm_topk_prob\": true");
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
    resolve(&a, &c, "Qwen3_5ForCausalLM", "");
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
        resolve(&a, &c, classes[k], "");
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
    resolve(&a, &c, "Qwen3NextForCausalLM", "\"full_attention_interval\": 2");
    const struct arch_row *q = find_row(&a, "model.layers.N.self_attn.q_proj.weight");
    const struct arch_group *g = a.arch->groups;
    while (q < g->rows || q >= g->rows + g->n)
        g++;
    assert_false(arch_row_applies(&a, g, q, 0));
    assert_true(arch_row_applies(&a, g, q, 1));
    assert_false(arch_row_applies(&a, g, q, 2));
    assert_true(arch_row_applies(&a, g, q, 3)); /* behind the last layer: a prediction block, never linear */
    hf_config_free(c);

    resolve(&a, &c, "Qwen3NextForCausalLM",
            "\"layer_types\": [\"full_attention\", \"linear_attention\", \"linear_attention\"]");
    assert_true(arch_row_applies(&a, g, q, 0));
    assert_false(arch_row_applies(&a, g, q, 1));
    hf_config_free(c);

    expect_refusal("Qwen3_5ForCausalLM", "\"layer_types\": [\"full_attention\"]", ERR_FORMAT, "layer_types");
    expect_refusal("Qwen3_5ForCausalLM", "\"layer_types\": [\"x\", \"x\", \"x\"]", ERR_UNSUPPORTED, "'x'");
    expect_refusal("Qwen3_5ForCausalLM", "\"full_attention_interval\": 0", ERR_FORMAT, "interval");
    expect_refusal("Qwen3_5ForCausalLM", "\"attn_output_gate\": false", ERR_UNSUPPORTED, "attn_output_gate");
}

static void prediction_blocks_stand_behind_the_last_layer(void **state)
{
    (void)state;
    struct arch_model a;
    struct hf_config *c;
    struct arena arena = {0};
    resolve(&a, &c, "Qwen3_5ForCausalLM", "");
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

/* --- keys ---------------------------------------------------------------------------------------------- */

static struct gguf_meta *keys_of(const char *class_name, const char *extra, char *warning)
{
    struct arch_model a;
    struct hf_config *c;
    struct gguf_meta *meta = NULL;
    struct err e = {0};
    struct arch_warnings w = {ignore_warning, warning};
    resolve(&a, &c, class_name, extra);
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
    expect_refusal("QWenLMHeadModel", "\"rotary_pct\": 0.5", ERR_UNSUPPORTED, "rotary_pct");
    expect_refusal("QWenLMHeadModel", "\"kv_channels\": 32", ERR_UNSUPPORTED, "do not fill the width");

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

static void vision_families_write_sections_and_deepstack(void **state)
{
    (void)state;
    struct gguf_meta *m = keys_of("Qwen3VLForConditionalGeneration",
                                  "\"vision_config\": {\"deepstack_visual_indexes\": [5, 11, 17]}", NULL);
    expect_u32(m, "qwen3vl.n_deepstack_layers", 3);
    assert_non_null(gguf_meta_find(m, "qwen3vl.rope.dimension_sections"));
    gguf_meta_free(m);
    expect_refusal("Qwen2_5_VLForConditionalGeneration", "", ERR_FORMAT, "mrope_section");
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
static void what_a_runtime_has_built_in_must_be_so(void **state)
{
    (void)state;
    struct arch_model m;
    struct hf_config *c;
    expect_refusal("Olmo2ForCausalLM", "\"head_dim\": 32", ERR_UNSUPPORTED, "do not make up hidden_size");
    expect_refusal("GraniteForCausalLM", "\"head_dim\": 32", ERR_UNSUPPORTED, "do not make up hidden_size");
    expect_refusal("GraniteForCausalLM", "\"logits_scaling\": 0", ERR_FORMAT, "'logits_scaling' is 0");
    expect_refusal("GraniteForCausalLM", "\"residual_multiplier\": -1", ERR_FORMAT, "'residual_multiplier'");
    expect_refusal("SmolLM3ForCausalLM", "\"no_rope_layer_interval\": 3", ERR_UNSUPPORTED, "interval is 3");
    expect_refusal("SmolLM3ForCausalLM", "\"no_rope_layers\": [1, 0, 1, 0]", ERR_UNSUPPORTED,
                   "no_rope_layers");
    expect_refusal("SmolLM3ForCausalLM", "\"no_rope_layers\": [1]", ERR_UNSUPPORTED, "no_rope_layers");
    expect_refusal("SmolLM3ForCausalLM", "\"use_sliding_window\": true, \"sliding_window\": 64",
                   ERR_UNSUPPORTED, "use_sliding_window");
    expect_refusal("Gemma2ForCausalLM", "\"tie_word_embeddings\": false", ERR_UNSUPPORTED,
                   "no head of its own");
    expect_refusal("Gemma2ForCausalLM", "\"hidden_act\": \"silu\"", ERR_UNSUPPORTED,
                   "compute gelu_pytorch_tanh");
    expect_refusal("Gemma2ForCausalLM",
                   "\"layer_types\": [\"full_attention\", \"sliding_attention\", \"full_attention\"]",
                   ERR_UNSUPPORTED, "does not give every 2nd layer full attention");
    expect_refusal("Gemma3ForCausalLM", "\"sliding_window_pattern\": 4", ERR_UNSUPPORTED, "every 6th layer");
    expect_refusal("Gemma3ForCausalLM", "\"attn_logit_softcapping\": 50.0", ERR_UNSUPPORTED,
                   "attn_logit_softcapping is 50");
    expect_refusal("Phi3ForCausalLM", "\"rope_scaling\": {\"type\": \"linear\", \"factor\": 2.0}",
                   ERR_UNSUPPORTED, "'phi3' has 'longrope' alone");
    expect_refusal("Phi3ForCausalLM", "\"rope_scaling\": {\"type\": \"su\", \"short_factor\": [1, 1, 1]}",
                   ERR_FORMAT, "'long_factor' has 0 numbers, expected 8");
    expect_refusal("Phi3ForCausalLM",
                   "\"partial_rotary_factor\": 0.25, \"rope_scaling\": {\"type\": \"longrope\", "
                   "\"long_factor\": [1, 1], \"short_factor\": [1, 0]}",
                   ERR_FORMAT, "'short_factor' [1] is not a number above 0");
    expect_refusal("Phi3ForCausalLM", "\"head_dim\": 8", ERR_UNSUPPORTED, "do not make up hidden_size");
    expect_refusal("Glm4ForCausalLM", "\"partial_rotary_factor\": 0.2", ERR_FORMAT,
                   "3 entries of a head are rotated");
    expect_refusal("Glm4MoeForCausalLM", "\"n_shared_experts\": 0", ERR_UNSUPPORTED, "n_shared_experts is 0");
    expect_refusal("GptOssForCausalLM", "\"swiglu_limit\": 6.0", ERR_UNSUPPORTED, "have 7 built in");
    expect_refusal("GptOssForCausalLM", "\"attention_bias\": false", ERR_UNSUPPORTED,
                   "attention_bias is false");
    expect_refusal("GptOssForCausalLM",
                   "\"layer_types\": [\"full_attention\", \"sliding_attention\", \"full_attention\"]",
                   ERR_UNSUPPORTED, "every 2nd layer full attention");
    expect_refusal("DeepseekV3ForCausalLM", "\"rope_interleave\": false", ERR_UNSUPPORTED, "rope_interleave");
    expect_refusal("DeepseekV3ForCausalLM", "\"attention_bias\": true", ERR_UNSUPPORTED, "attention_bias");
    expect_refusal("DeepseekV2ForCausalLM", "\"norm_topk_prob\": true", ERR_UNSUPPORTED, "norm_topk_prob");
    expect_refusal(
        "DeepseekV3ForCausalLM",
        "\"rope_scaling\": {\"type\": \"yarn\", \"factor\": 40, \"mscale\": 1.0, \"mscale_all_dim\": 0.7}",
        ERR_UNSUPPORTED, "is not mscale_all_dim");
    expect_refusal("Mistral3ForConditionalGeneration", "\"text_config\": {\"model_type\": \"ministral3\"}",
                   ERR_UNSUPPORTED, "is 'ministral3'; 'mistral' alone");
    expect_refusal("SeedOssForCausalLM", "\"attention_out_bias\": true", ERR_UNSUPPORTED,
                   "'attention_out_bias' is true");
    resolve(&m, &c, "Glm4MoeForCausalLM",
            "\"first_k_dense_replace\": 2, \"num_nextn_predict_layers\": 1, \"partial_rotary_factor\": 0.5");
    assert_true(m.dense_layers[0] == 3 && m.value[ARCH_ES] == 3 && m.value[ARCH_R] == 8);
    uint64_t block = 9;
    assert_true(arch_is_behind(&m, "model.layers.3.eh_proj.weight", &block) && block == 0);
    assert_false(arch_is_behind(&m, "model.layers.2.mlp.gate.weight", &block));
    assert_false(arch_is_behind(&m, "model.layers.4.mlp.gate.weight", &block));
    hf_config_free(c);
    resolve(&m, &c, "Gemma2ForCausalLM",
            "\"layer_types\": [\"sliding_attention\", \"full_attention\", \"sliding_attention\"]");
    assert_true(m.tied);
    hf_config_free(c);
    resolve(&m, &c, "SmolLM3ForCausalLM", "\"no_rope_layers\": [1, 1, 1, 0, 1, 1, 1, 0]");
    assert_int_equal(m.arch->runtime.unrotated_period, 4);
    hf_config_free(c);
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
        expect_refusal("Glm4MoeForCausalLM", extra, ERR_FORMAT, "do not fit 8 experts, 3 of a token");
        expect_refusal("DeepseekV3ForCausalLM", extra, ERR_FORMAT, "do not fit 8 experts, 3 of a token");
        snprintf(extra, sizeof extra, EIGHT "\"topk_method\": \"group_limited_greedy\", %s", bad[i]);
        expect_refusal("DeepseekV2ForCausalLM", extra, ERR_FORMAT, "do not fit 8 experts, 3 of a token");
    }
    expect_refusal("DeepseekV2ForCausalLM", "\"topk_method\": \"group_limited_greedy\"", ERR_UNSUPPORTED,
                   "without n_group");
    expect_refusal("DeepseekV2ForCausalLM", "\"topk_method\": \"noaux_tc\"", ERR_UNSUPPORTED, "noaux_tc");
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
        cmocka_unit_test(what_a_runtime_has_built_in_must_be_so),
        cmocka_unit_test(groups_of_experts_must_fit_them),
        cmocka_unit_test(groups_that_choose_nothing_are_written_as_one),
        cmocka_unit_test(layers_without_experts_have_a_plain_network_and_a_warning),
        cmocka_unit_test(an_unknown_class_is_refused_by_name),
        cmocka_unit_test(llama_rows_of_q_and_k_are_permuted_by_the_formula),
        cmocka_unit_test(next_rows_are_regrouped_by_the_table),
        cmocka_unit_test(qwen35_value_heads_are_tiled),
        cmocka_unit_test(zero_centred_norms_get_one_added_but_not_that_of_the_delta_net),
        cmocka_unit_test(hybrid_layers_follow_the_interval_or_the_list),
        cmocka_unit_test(prediction_blocks_stand_behind_the_last_layer),
        cmocka_unit_test(hybrid_keys_describe_the_delta_net),
        cmocka_unit_test(vision_families_write_sections_and_deepstack),
        cmocka_unit_test(rope_frequency_divisors_equal_the_reference),
        cmocka_unit_test(keys_of_a_dense_model_have_the_types_the_runtime_checks),
        cmocka_unit_test(rope_scaling_is_written_as_the_runtime_reads_it),
        cmocka_unit_test(an_active_sliding_window_is_written_and_warned_about),
        cmocka_unit_test(the_window_of_mistral_is_written_that_of_a_llama_file_is_not),
        cmocka_unit_test(what_the_runtime_lacks_is_kept_in_keys_of_our_own),
        cmocka_unit_test(the_first_configuration_of_qwen_has_other_names),
        cmocka_unit_test(expert_normalisation_other_than_the_runtimes_is_noted),
    };
    return cmocka_run_group_tests_name("arch", tests, NULL, NULL);
}
