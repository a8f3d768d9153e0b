/* test_model_transforms.c - tensors that are not their source as it lies there: stacked, split, turned and
 * reordered, element by element. */
#include "builder.h"
#include "open_model.h"
#include "scratch.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static void experts_one_by_one_are_stacked_in_order(void **state)
{
    (void)state;
    static const char *const kinds[] = {"gate", "up", "down"};
    struct builder *b = malloc(sizeof *b);
    char name[100];
    builder_fill(b, "Qwen2MoeForCausalLM", false, 1);
    struct model *m = open_model(builder_write(b, "moe-single"));
    assert_int_equal(model_n_tensors(m), 3 + 17 * L);
    for (int n = 0; n < L; n++) {
        for (int k = 0; k < 3; k++) {
            snprintf(name, sizeof name, "blk.%d.ffn_%s_exps.weight", n, kinds[k]);
            const struct model_tensor *t = model_find(m, name);
            assert_non_null(t);
            assert_int_equal(t->n_dims, 3);
            assert_int_equal(t->ne[0], k == 2 ? FE : D);
            assert_int_equal(t->ne[1], k == 2 ? D : FE);
            assert_int_equal(t->ne[2], E);
            assert_null(t->raw);
            float *x = read_all(m, t);
            for (uint64_t j = 0; j < E; j++) {
                snprintf(name, sizeof name, "model.layers.%d.mlp.experts.%d.%s_proj.weight", n, (int)j,
                         kinds[k]);
                for (uint64_t i = 0; i < FE * D; i++)
                    assert_true(x[j * FE * D + i] == spec_value(spec_of(b, name), i));
            }
            free(x);
        }
    }
    const struct model_tensor *router = model_find(m, "blk.1.ffn_gate_inp.weight");
    assert_true(router && router->always_f32 && router->ne[1] == E);
    assert_true(model_find(m, "blk.1.ffn_gate_inp_shexp.weight")->always_f32);
    model_close(m);
    free(b);
}

static void stacked_experts_are_split_into_gate_and_up(void **state)
{
    (void)state;
    struct builder *b = malloc(sizeof *b);
    builder_fill(b, "Qwen2MoeForCausalLM", false, 2);
    struct model *m = open_model(builder_write(b, "moe-stacked"));
    assert_int_equal(model_n_tensors(m), 3 + 17 * L);
    const struct tensor_spec *fused = spec_of(b, "model.layers.1.mlp.experts.gate_up_proj");
    float *gate = read_all(m, model_find(m, "blk.1.ffn_gate_exps.weight"));
    float *up = read_all(m, model_find(m, "blk.1.ffn_up_exps.weight"));
    for (uint64_t j = 0; j < E; j++)
        for (uint64_t r = 0; r < FE; r++)
            for (uint64_t c = 0; c < D; c++) {
                assert_true(gate[(j * FE + r) * D + c] == spec_value(fused, (j * 2 * FE + r) * D + c));
                assert_true(up[(j * FE + r) * D + c] == spec_value(fused, (j * 2 * FE + FE + r) * D + c));
            }
    free(gate);
    free(up);
    assert_non_null(model_find(m, "blk.0.ffn_down_exps.weight")->raw); /* unchanged: straight from the map */
    model_close(m);
    free(b);
}

/* Published Qwen3-VL checkpoints store experts as [E, in, out]. */
static void transposed_experts_are_turned(void **state)
{
    (void)state;
    static const char *const norms[] = {"q", "k"};
    struct builder *b = malloc(sizeof *b);
    char name[100];
    builder_fill(b, "Qwen3VLMoeForConditionalGeneration", false, 2);
    for (int n = 0; n < L; n++) {
        for (int i = 0; i < 2; i++) {
            snprintf(name, sizeof name, "model.layers.%d.self_attn.%s_norm.weight", n, norms[i]);
            builder_add(b, name, 1, D / H, 0, 0);
        }
        for (int i = 0; i < 4; i++) {
            static const char *const shared[] = {"_expert.gate_proj", "_expert.up_proj", "_expert.down_proj",
                                                 "_expert_gate"};
            snprintf(name, sizeof name, "model.layers.%d.mlp.shared%s.weight", n, shared[i]);
            builder_drop(b, name);
        }
        snprintf(name, sizeof name, "model.layers.%d.mlp.experts.gate_up_proj", n);
        spec_of(b, name)->shape[1] = D;
        spec_of(b, name)->shape[2] = 2 * FE;
        snprintf(name, sizeof name, "model.layers.%d.mlp.experts.down_proj", n);
        spec_of(b, name)->shape[1] = FE;
        spec_of(b, name)->shape[2] = D;
    }
    struct model *m = open_model(builder_write(b, "moe-transposed"));
    const struct tensor_spec *fused = spec_of(b, "model.layers.1.mlp.experts.gate_up_proj");
    const struct tensor_spec *stored = spec_of(b, "model.layers.1.mlp.experts.down_proj");
    const struct model_tensor *t = model_find(m, "blk.1.ffn_down_exps.weight");
    float *gate = read_all(m, model_find(m, "blk.1.ffn_gate_exps.weight"));
    float *up = read_all(m, model_find(m, "blk.1.ffn_up_exps.weight"));
    float *down = read_all(m, t), row[FE];
    assert_null(t->raw);
    for (uint64_t j = 0; j < E; j++)
        for (uint64_t f = 0; f < FE; f++)
            for (uint64_t c = 0; c < D; c++) {
                assert_true(gate[(j * FE + f) * D + c] == spec_value(fused, (j * D + c) * 2 * FE + f));
                assert_true(up[(j * FE + f) * D + c] == spec_value(fused, (j * D + c) * 2 * FE + FE + f));
                assert_true(down[(j * D + c) * FE + f] == spec_value(stored, (j * FE + f) * D + c));
            }
    for (uint64_t r = 0; r < t->n_rows; r++) { /* one by one as all at once */
        assert_int_equal(model_read_rows(m, t, r, 1, row, NULL), 0);
        assert_memory_equal(row, down + r * FE, sizeof row);
    }
    free(gate);
    free(up);
    free(down);
    model_close(m);
    free(b);
}

/* One delta-net layer of Qwen3.5: every kind of transformation, element by element. */
static void a_delta_net_layer_is_transformed_by_formula(void **state)
{
    (void)state;
    enum { HK = 2, HV = 4, DK = 3, KC = 4, KEY = HK * DK, VAL = HV * DK, CONV = 2 * KEY + VAL, R = HV / HK };
    static const struct {
        const char *name;
        uint32_t n_dims;
        uint64_t shape[3];
    } rows[] = {
        {"input_layernorm.weight", 1, {D}},
        {"post_attention_layernorm.weight", 1, {D}},
        {"linear_attn.in_proj_qkv.weight", 2, {CONV, D}},
        {"linear_attn.in_proj_z.weight", 2, {VAL, D}},
        {"linear_attn.in_proj_a.weight", 2, {HV, D}},
        {"linear_attn.in_proj_b.weight", 2, {HV, D}},
        {"linear_attn.A_log", 1, {HV}},
        {"linear_attn.dt_bias", 1, {HV}},
        {"linear_attn.conv1d.weight", 3, {CONV, 1, KC}},
        {"linear_attn.norm.weight", 1, {DK}},
        {"linear_attn.out_proj.weight", 2, {D, VAL}},
        {"mlp.gate_proj.weight", 2, {FF, D}},
        {"mlp.up_proj.weight", 2, {FF, D}},
        {"mlp.down_proj.weight", 2, {D, FF}},
    };
    struct builder *b = calloc(1, sizeof *b);
    snprintf(b->config, sizeof b->config,
             "{\"architectures\": [\"Qwen3_5ForCausalLM\"], \"vocab_size\": %d, \"hidden_size\": %d,"
             "\"num_hidden_layers\": 1, \"num_attention_heads\": %d, \"num_key_value_heads\": %d,"
             "\"intermediate_size\": %d, \"max_position_embeddings\": 64, \"rms_norm_eps\": 1e-6,"
             "\"rope_theta\": 1e4, \"tie_word_embeddings\": true, \"linear_num_key_heads\": %d,"
             "\"linear_num_value_heads\": %d, \"linear_key_head_dim\": %d, \"linear_value_head_dim\": %d,"
             "\"linear_conv_kernel_dim\": %d}",
             V, D, H, H, FF, HK, HV, DK, DK, KC);
    builder_add(b, "model.language_model.embed_tokens.weight", 2, V, D, 0);
    builder_add(b, "model.language_model.norm.weight", 1, D, 0, 0);
    builder_add(b, "mtp.fc.weight", 2, D, 2 * D, 0);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char name[100];
        snprintf(name, sizeof name, "model.language_model.layers.0.%s", rows[i].name);
        struct tensor_spec *t =
            builder_add(b, name, rows[i].n_dims, rows[i].shape[0], rows[i].shape[1], rows[i].shape[2]);
        t->step = 0.125f;
        t->first = -0.5f;
    }
    struct model *m = open_model(builder_write(b, "delta-net"));
    assert_int_equal(model_n_tensors(m), 2 + sizeof rows / sizeof *rows);
    assert_string_equal(model_skipped(m, 0), "mtp.fc.weight: multi-token prediction block");
#define SOURCE(part, i) spec_value(spec_of(b, "model.language_model.layers.0." part), (i))
#define TILED(h)        ((h) % HK * R + (h) / HK) /* old head of new head h */
    float *x = read_all(m, model_find(m, "blk.0.attn_qkv.weight"));
    for (uint64_t r = 0; r < CONV; r++) {
        uint64_t v = r - 2 * KEY, src = r < 2 * KEY ? r : 2 * KEY + TILED(v / DK) * DK + v % DK;
        for (uint64_t c = 0; c < D; c++)
            assert_true(x[r * D + c] == SOURCE("linear_attn.in_proj_qkv.weight", src * D + c));
    }
    free(x);
    x = read_all(m, model_find(m, "blk.0.ssm_out.weight"));
    for (uint64_t r = 0; r < D; r++)
        for (uint64_t c = 0; c < VAL; c++)
            assert_true(x[r * VAL + c] ==
                        SOURCE("linear_attn.out_proj.weight", r * VAL + TILED(c / DK) * DK + c % DK));
    free(x);
    const struct model_tensor *conv = model_find(m, "blk.0.ssm_conv1d.weight");
    assert_true(conv->n_dims == 2 && conv->ne[0] == KC && conv->ne[1] == CONV && conv->always_f32);
    x = read_all(m, conv);
    for (uint64_t k = 0; k < KC; k++)
        assert_true(x[(2 * KEY + DK) * KC + k] ==
                    SOURCE("linear_attn.conv1d.weight", (2 * KEY + TILED(1) * DK) * KC + k));
    free(x);
    const struct model_tensor *a = model_find(m, "blk.0.ssm_a");
    assert_true(a->always_f32 && a->type == QTYPE_F32 && !a->raw);
    x = read_all(m, a);
    for (uint64_t h = 0; h < HV; h++)
        assert_true(x[h] == -expf(SOURCE("linear_attn.A_log", TILED(h))));
    free(x);
    x = read_all(m, model_find(m, "blk.0.post_attention_norm.weight"));
    assert_true(x[2] == SOURCE("post_attention_layernorm.weight", 2) + 1.0f);
    free(x);
    x = read_all(m, model_find(m, "blk.0.ssm_norm.weight"));
    assert_true(x[2] == SOURCE("linear_attn.norm.weight", 2));
    free(x);
#undef SOURCE
#undef TILED
    model_close(m);
    free(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(experts_one_by_one_are_stacked_in_order),
        cmocka_unit_test(stacked_experts_are_split_into_gate_and_up),
        cmocka_unit_test(transposed_experts_are_turned),
        cmocka_unit_test(a_delta_net_layer_is_transformed_by_formula),
    };
    return cmocka_run_group_tests_name("model_transforms", tests, scratch_begin, scratch_end);
}
