/* test_repacked.c - weights in 4-bit floats stay packed under "auto": one layer of a hybrid with experts,
 * whose rows and columns move, keeps every value to the bit in blocks and the factors beside them. */
#include "formats/inspect/model_verify.h"
#include "formats/rewrite/rewrite.h"
#include "formats/gguf/gguf_read.h"
#include "libquant/base/pool.h"
#include "scratch.h"
#include "toy_packed.h"
#include "toy_tokenizer.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define P "model.layers.0."

enum { D = 192, HEADS = 4, DV = 96, VALUE = HEADS * DV, KEY = 2 * DV, VOCAB = 320, N_EXPERTS = 3 };

static struct pool *pool;

static int make_dir(void **state)
{
    struct err e = {0};
    scratch_begin(state);
    return pool_new(&pool, 2, &e);
}

static int remove_dir(void **state)
{
    pool_free(pool);
    return scratch_end(state);
}

static void plain(struct toy_packed *p, const char *name, uint32_t n_dims, uint64_t d0, uint64_t d1,
                  uint64_t d2)
{
    toy_packed_tensor(p, name, ST_BF16, n_dims, (uint64_t[]){d0, d1, d2}, NULL);
}

/* Value heads of 96: columns of out_proj move by 96, three MXFP4 blocks but no whole number of NVFP4's. */
static void write_checkpoint(struct toy_packed *p, enum toy_packing kind)
{
    static const char config[] =
        "{\"architectures\": [\"Qwen3_5MoeForCausalLM\"], \"model_type\": \"qwen3_5_moe_text\", "
        "\"hidden_size\": 192, "
        "\"num_hidden_layers\": 1, \"num_attention_heads\": 2, \"num_key_value_heads\": 1, \"head_dim\": 32, "
        "\"vocab_size\": 320, \"max_position_embeddings\": 512, \"rms_norm_eps\": 1e-6, \"num_experts\": 3, "
        "\"num_experts_per_tok\": 2, \"moe_intermediate_size\": 192, \"shared_expert_intermediate_size\": "
        "32, "
        "\"linear_num_key_heads\": 2, \"linear_num_value_heads\": 4, \"linear_key_head_dim\": 96, "
        "\"linear_value_head_dim\": 96, \"linear_conv_kernel_dim\": 4, \"layer_types\": "
        "[\"linear_attention\"], "
        "\"tie_word_embeddings\": false, \"rope_parameters\": {\"rope_type\": \"default\", \"rope_theta\": "
        "10000.0, "
        "\"partial_rotary_factor\": 0.25, \"mrope_section\": [2, 1, 1]}, \"quantization_config\": %s}";
    char text[2000], stem[100];
    struct err e = {0};
    plain(p, "model.embed_tokens.weight", 2, VOCAB, D, 0);
    plain(p, "lm_head.weight", 2, VOCAB, D, 0);
    plain(p, "model.norm.weight", 1, D, 0, 0);
    plain(p, P "input_layernorm.weight", 1, D, 0, 0);
    plain(p, P "post_attention_layernorm.weight", 1, D, 0, 0);
    toy_packed_add(p, kind, P "linear_attn.in_proj_qkv", 2 * KEY + VALUE, D);
    toy_packed_add(p, kind, P "linear_attn.in_proj_z", VALUE, D);
    plain(p, P "linear_attn.in_proj_b.weight", 2, HEADS, D, 0);
    plain(p, P "linear_attn.in_proj_a.weight", 2, HEADS, D, 0);
    plain(p, P "linear_attn.A_log", 1, HEADS, 0, 0);
    plain(p, P "linear_attn.dt_bias", 1, HEADS, 0, 0);
    plain(p, P "linear_attn.conv1d.weight", 3, 2 * KEY + VALUE, 1, 4);
    plain(p, P "linear_attn.norm.weight", 1, DV, 0, 0);
    toy_packed_add(p, kind, P "linear_attn.out_proj", D, VALUE);
    plain(p, P "mlp.gate.weight", 2, N_EXPERTS, D, 0);
    for (int j = 0; j < N_EXPERTS; j++) {
        static const char *const names[] = {"gate_proj", "up_proj", "down_proj"};
        for (int k = 0; k < 3; k++) {
            snprintf(stem, sizeof stem, P "mlp.experts.%d.%s", j, names[k]);
            toy_packed_add(p, kind, stem, D, D);
        }
    }
    plain(p, P "mlp.shared_expert.gate_proj.weight", 2, 32, D, 0);
    plain(p, P "mlp.shared_expert.up_proj.weight", 2, 32, D, 0);
    plain(p, P "mlp.shared_expert.down_proj.weight", 2, D, 32, 0);
    plain(p, P "mlp.shared_expert_gate.weight", 2, 1, D, 0);
    if (kind != TOY_CT_MXFP4) { /* a sign in a scale has no place in a block */
        uint8_t *scale =
            (uint8_t *)(uintptr_t)toy_packed_find(p, P "linear_attn.in_proj_z.weight_scale")->data;
        scale[5] ^= 128;
        scale[40] ^= 128;
    }
    snprintf(text, sizeof text, config, toy_packing_config(kind));
    scratch_text_in(in_scratch(""), "config.json", text);
    if (toy_tokenizer_write(in_scratch(""), VOCAB, 1, &e) != 0 ||
        toy_packed_write(p, in_scratch("model.safetensors"), &e) != 0)
        fail_msg("%s", e.msg);
}

static struct model *open_model(const char *path, bool keep_packed)
{
    struct model *m = NULL;
    struct err e = {0};
    struct model_options opt = {.keep_packed = keep_packed};
    if (model_open(&m, path, &opt, &e) != 0)
        fail_msg("%s", e.msg);
    return m;
}

static int write_model(struct rewrite_report *r, struct model *m, const char *path, const char *mix,
                       struct err *e)
{
    struct rewrite_options opt = {.recipe = {.mix = mix ? mix_find(mix) : NULL},
                                  .allow_requantize = true,
                                  .overwrite = true,
                                  .measure = true,
                                  .memory_bytes = (uint64_t)64 << 20,
                                  .pool = pool,
                                  .kern = kern_native()};
    return rewrite_model(r, m, path, &opt, e);
}

static float *all_rows(const struct model *m, const char *name, uint64_t *n)
{
    const struct model_tensor *t = model_find(m, name);
    struct err e = {0};
    if (!t)
        fail_msg("tensor '%s' is missing", name);
    *n = t->ne[0] * t->n_rows;
    float *x = malloc(*n * sizeof *x);
    if (model_read_rows(m, t, 0, t->n_rows, x, &e) != 0)
        fail_msg("%s", e.msg);
    return x;
}

/* Largest difference relative to the largest value. */
static double distance(const struct model *a, const struct model *b, const char *name)
{
    uint64_t n, n_b;
    float *x = all_rows(a, name, &n), *y = all_rows(b, name, &n_b);
    double most = 0, worst = 0;
    assert_int_equal(n, n_b);
    for (uint64_t i = 0; i < n; i++) {
        most = fmax(most, fabs((double)x[i]));
        worst = fmax(worst, fabs((double)x[i] - (double)y[i]));
    }
    free(x);
    free(y);
    assert_true(most > 0);
    return worst / most;
}

static const char *const kept[] = {"blk.0.attn_qkv.weight",      "blk.0.attn_gate.weight",
                                   "blk.0.ffn_gate_exps.weight", "blk.0.ffn_up_exps.weight",
                                   "blk.0.ffn_down_exps.weight", "blk.0.ssm_out.weight"};

static void check_sound(const struct model *m)
{
    struct verify_report v = {0};
    struct err e = {0};
    assert_int_equal(model_verify(&v, m, pool, NULL, &e), 0);
    for (size_t i = 0; i < v.n_findings; i++)
        fail_msg("%s", v.findings[i]);
    verify_report_release(&v);
}

static void check_kind(enum toy_packing kind)
{
    bool mx = kind == TOY_CT_MXFP4;
    size_t n_kept = sizeof kept / sizeof *kept - (mx ? 0 : 1), n_repacked = 0;
    struct toy_packed p = {.seed = 50 + (uint64_t)kind};
    struct rewrite_report r = {0};
    struct err e = {0};
    uint64_t file_type = 0;
    write_checkpoint(&p, kind);
    struct model *source = open_model(in_scratch(""), false), *m = open_model(in_scratch(""), true);
    bool warned = false;
    for (size_t i = 0; i < model_n_warnings(m); i++)
        warned |= strstr(model_warning(m, i), "1 weight of 4-bit floats cannot stay packed") != NULL &&
                  strstr(model_warning(m, i), "blk.0.ssm_out.weight") != NULL;
    assert_int_equal(warned, !mx);
    if (write_model(&r, m, in_scratch("packed.gguf"), NULL, &e) != 0)
        fail_msg("%s", e.msg);
    assert_string_equal(r.type_name, mx ? "MXFP4_MOE" : "NVFP4");
    for (size_t i = 0; i < r.n_tensors; i++) {
        n_repacked += r.tensors[i].repacked;
        if (r.tensors[i].repacked)
            assert_true(r.tensors[i].rmse == 0);
    }
    assert_int_equal(n_repacked, n_kept);
    rewrite_report_release(&r);
    model_close(m);

    m = open_model(in_scratch("packed.gguf"), false);
    assert_true(gguf_meta_get_u64(model_meta(m), "general.file_type", &file_type));
    assert_int_equal(file_type, mx ? 38 : 39);
    for (size_t i = 0; i < n_kept; i++) {
        const struct model_tensor *t = model_find(m, kept[i]);
        assert_int_equal(t->type, mx ? QTYPE_MXFP4 : QTYPE_NVFP4);
        assert_int_equal(t->scale ? t->scale->ne[0] : 0, mx ? 0 : t->ne[2]);
        if (distance(source, m, kept[i]) != 0)
            fail_msg("%s: values of '%s' differ", toy_packing_name(kind), kept[i]);
    }
    check_sound(m);

    /* another type takes the factors in, and their tensors go */
    if (write_model(NULL, m, in_scratch("q8.gguf"), "Q8_0", &e) != 0)
        fail_msg("%s", e.msg);
    struct model *q8 = open_model(in_scratch("q8.gguf"), false);
    for (size_t i = 0; i < model_n_tensors(q8); i++)
        assert_null(strstr(model_tensor(q8, i)->name, ".scale"));
    for (size_t i = 0; i < n_kept; i++)
        assert_true(distance(source, q8, kept[i]) < 0.005);
    check_sound(q8);
    model_close(q8);
    model_close(m);
    model_close(source);
    toy_packed_release(&p);
}

static void packed_weights_keep_every_value(void **state)
{
    (void)state;
    check_kind(TOY_CT_MXFP4);
    check_kind(TOY_CT_NVFP4);
    check_kind(TOY_MODELOPT_NVFP4);
}

static void a_checkpoint_opened_plainly_is_dequantized(void **state)
{
    (void)state;
    struct toy_packed p = {.seed = 60};
    struct err e = {0};
    write_checkpoint(&p, TOY_MODELOPT_NVFP4);
    struct model *source = open_model(in_scratch(""), false);
    if (write_model(NULL, source, in_scratch("f32.gguf"), "F32", &e) != 0)
        fail_msg("%s", e.msg);
    struct model *m = open_model(in_scratch("f32.gguf"), false);
    for (size_t i = 0; i < sizeof kept / sizeof *kept; i++) {
        assert_int_equal(model_find(m, kept[i])->type, QTYPE_F32);
        assert_null(model_find(m, kept[i])->scale);
        assert_true(distance(source, m, kept[i]) == 0);
    }
    model_close(m);
    model_close(source);
    toy_packed_release(&p);
}

static void a_scale_that_is_no_number_is_refused(void **state)
{
    (void)state;
    static const struct {
        enum toy_packing kind;
        uint8_t scale;
    } cases[] = {{TOY_CT_MXFP4, 255}, {TOY_CT_NVFP4, 127}, {TOY_MODELOPT_NVFP4, 255}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct toy_packed p = {.seed = 70};
        struct err e = {0};
        write_checkpoint(&p, cases[i].kind);
        const struct st_tensor *t = toy_packed_find(&p, P "mlp.experts.1.up_proj.weight_scale");
        ((uint8_t *)(uintptr_t)t->data)[7 * t->shape[1] + 2] = cases[i].scale;
        if (toy_packed_write(&p, in_scratch("model.safetensors"), &e) != 0)
            fail_msg("%s", e.msg);
        struct model *m = open_model(in_scratch(""), true);
        assert_int_equal(write_model(NULL, m, in_scratch("bad.gguf"), NULL, &e), ERR_FORMAT);
        if (!strstr(e.msg, "experts.1.up_proj.weight_scale") || !strstr(e.msg, "row 7"))
            fail_msg("%s", e.msg);
        model_close(m);
        toy_packed_release(&p);
    }
}

static void a_factor_that_cannot_be_right_is_told(void **state)
{
    (void)state;
    static const float factors[] = {0, -1, 1e36f, NAN};
    for (size_t i = 0; i < sizeof factors / sizeof *factors; i++) {
        struct toy_packed p = {.seed = 90};
        struct err e = {0};
        struct model *m = NULL;
        bool warned = false;
        write_checkpoint(&p, TOY_MODELOPT_NVFP4);
        const struct st_tensor *t = toy_packed_find(&p, P "mlp.experts.1.up_proj.weight_scale_2");
        memcpy((uint8_t *)(uintptr_t)t->data, &factors[i], sizeof factors[i]);
        if (toy_packed_write(&p, in_scratch("model.safetensors"), &e) != 0)
            fail_msg("%s", e.msg);
        struct model_options opt = {.keep_packed = true};
        int rc = model_open(&m, in_scratch(""), &opt, &e);
        assert_int_equal(rc, i == 0 ? 0 : ERR_FORMAT);
        if (rc != 0)
            assert_non_null(strstr(e.msg, "experts.1.up_proj.weight"));
        for (size_t w = 0; rc == 0 && w < model_n_warnings(m); w++)
            warned |= strstr(model_warning(m, w), "experts.1.up_proj.weight' has a global scale") != NULL;
        assert_int_equal(warned, i == 0);
        model_close(m);
        toy_packed_release(&p);
    }
}

static void put(const char *path, uint64_t at, const void *data, size_t n)
{
    FILE *f = fopen(path, "rb+");
    assert_non_null(f);
    assert_int_equal(fseek(f, (long)at, SEEK_SET), 0);
    assert_int_equal(fwrite(data, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}

/* Of a GGUF file the factors are known to be factors, and none but a positive number can be meant. */
static void factors_of_a_file_are_checked(void **state)
{
    (void)state;
    static const struct {
        float factor;
        const char *why;
    } cases[] = {{0, "expected a factor above zero for the weights beside it, found 0"},
                 {-0.5f, "expected a factor above zero for the weights beside it, found -0.5"},
                 {INFINITY, "expected a finite value, found Inf"},
                 {NAN, "expected a finite value, found NaN"}};
    static const char *const names[] = {"blk.0.ffn_up_exps.scale", "blk.0.attn_qkv.scale"};
    struct toy_packed p = {.seed = 95};
    struct err e = {0};
    write_checkpoint(&p, TOY_MODELOPT_NVFP4);
    struct model *m = open_model(in_scratch(""), true);
    const char *path = in_scratch("factors.gguf");
    for (size_t i = 0; i < 2 * sizeof cases / sizeof *cases; i++) {
        const char *name = names[i % 2];
        struct gguf_reader *r = NULL;
        struct verify_report v = {0};
        char sentence[200];
        if (write_model(NULL, m, path, NULL, &e) != 0 || gguf_reader_open(&r, path, NULL, &e) != 0)
            fail_msg("%s", e.msg);
        const struct gguf_tensor *t = gguf_reader_find(r, name);
        uint64_t last = t->ne[0] - 1;
        put(path, t->offset + 4 * last, &cases[i / 2].factor, 4);
        gguf_reader_close(r);
        struct model *damaged = open_model(path, false);
        assert_int_equal(model_verify(&v, damaged, pool, NULL, &e), 0);
        snprintf(sentence, sizeof sentence, "tensor '%s' (F32): row 0, column %u: %s", name, (unsigned)last,
                 cases[i / 2].why);
        if (v.n_findings != 1)
            fail_msg("%zu findings, expected: %s", v.n_findings, sentence);
        assert_string_equal(v.findings[0], sentence);
        verify_report_release(&v);
        model_close(damaged);
    }
    model_close(m);
    toy_packed_release(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(packed_weights_keep_every_value),
        cmocka_unit_test(a_checkpoint_opened_plainly_is_dequantized),
        cmocka_unit_test(a_scale_that_is_no_number_is_refused),
        cmocka_unit_test(a_factor_that_cannot_be_right_is_told),
        cmocka_unit_test(factors_of_a_file_are_checked),
    };
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
