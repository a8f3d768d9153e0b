/* test_model_situations.c - checkpoints as programs really leave them: names inside wrappers, buffers,
 * indexes that list too much, adapters, functions that no runtime has. What is read must be what the
 * reference reads, and what is not must be said. */
#include "builder.h"
#include "open_model.h"
#include "scratch.h"
#include "toy_family.h"

#include "formats/hf/hf_checkpoint.h"
#include "formats/hf/hf_names.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { N_TENSORS = 2 + 12 * L }; /* of the tied model */

static struct builder *tied_model(void)
{
    struct builder *b = malloc(sizeof *b);
    assert_non_null(b);
    builder_fill(b, "Qwen2ForCausalLM", true, 0);
    return b;
}

static bool listed(const struct model *m, size_t (*n)(const struct model *),
                   const char *(*item)(const struct model *, size_t), const char *words)
{
    for (size_t i = 0; i < n(m); i++)
        if (strstr(item(m, i), words))
            return true;
    return false;
}

static bool warned(const struct model *m, const char *words)
{
    return listed(m, model_n_warnings, model_warning, words);
}

static bool skipped(const struct model *m, const char *words)
{
    return listed(m, model_n_skipped, model_skipped, words);
}

/* --- wrappers --- */

static void wrappers_are_taken_off_wherever_they_stand(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        {"_orig_mod.model.norm.weight", "model.norm.weight"},
        {"model._orig_mod.norm.weight", "model.norm.weight"},
        {"module.model.norm.weight", "model.norm.weight"},
        {"module.module.model.norm.weight", "model.norm.weight"},
        {"module._orig_mod.model.norm.weight", "model.norm.weight"},
        {"_orig_mod.module.lm_head.weight", "lm_head.weight"},
        {"_fsdp_wrapped_module.model.layers.0._fsdp_wrapped_module.mlp.up_proj.weight",
         "model.layers.0.mlp.up_proj.weight"},
        {"model.layers.1._checkpoint_wrapped_module.mlp.up_proj.weight", "model.layers.1.mlp.up_proj.weight"},
        {"base_model.model.model.norm.weight", "model.norm.weight"},
        {"base_model.model.lm_head.weight", "lm_head.weight"},
        {"_orig_mod.base_model.model.model.norm.weight", "model.norm.weight"},
        {"base_model.model._orig_mod.model.norm.weight", "model.norm.weight"},
        {"model.model.norm.weight", "model.norm.weight"},
        {"model.model.model.norm.weight", "model.norm.weight"},
        {"model.lm_head.weight", "lm_head.weight"},
        {"module.model.model.layers.3.mlp.up_proj.weight", "model.layers.3.mlp.up_proj.weight"},
        {"_forward_module.model.norm.weight", "model.norm.weight"},
        {"pretrained_model.model.norm.weight", "model.norm.weight"},
    };
    static const char *const plain[] = {"model.norm.weight",
                                        "lm_head.weight",
                                        "transformer.h.0.ln_1.weight",
                                        "model.language_model.norm.weight",
                                        "model.layers.0.module_x.weight",
                                        "submodule.weight",
                                        "my_orig_mod.weight",
                                        "x._orig_mod"};
    struct arena arena = {0};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *wrapper = NULL, *got = hf_name_unwrap(cases[i][0], &arena, &wrapper);
        if (strcmp(got, cases[i][1]) != 0 || !wrapper)
            fail_msg("%s became %s", cases[i][0], got);
    }
    for (size_t i = 0; i < sizeof plain / sizeof *plain; i++) {
        const char *wrapper = NULL;
        assert_ptr_equal(hf_name_unwrap(plain[i], &arena, &wrapper), plain[i]);
        assert_null(wrapper);
    }
    arena_release(&arena);
}

static void a_wrapped_checkpoint_is_the_model(void **state)
{
    (void)state;
    static const char *const wrappers[] = {"_orig_mod.",        "module.", "_fsdp_wrapped_module.",
                                           "base_model.model.", "model.",  "module._orig_mod."};
    struct builder *b = tied_model();
    struct model *want = open_model(builder_write(b, "unwrapped"));
    for (size_t i = 0; i < sizeof wrappers / sizeof *wrappers; i++) {
        struct builder *w = tied_model();
        for (size_t k = 0; k < w->n; k++)
            assert_true(snprintf(w->t[k].name, sizeof w->t[k].name, "%s%s", wrappers[i], b->t[k].name) < 100);
        struct model *m = open_model(builder_write(w, "wrapped"));
        assert_int_equal(model_n_tensors(m), N_TENSORS);
        for (size_t k = 0; k < N_TENSORS; k++) {
            const struct model_tensor *t = model_find(m, model_tensor(want, k)->name);
            assert_non_null(t);
            assert_memory_equal(t->raw, model_tensor(want, k)->raw, t->n_bytes);
        }
        assert_true(warned(m, "names of 26 tensors have components that a training program put around"));
        model_close(m);
        free(w);
    }
    assert_false(warned(want, "training program"));
    model_close(want);
    free(b);
}

/* --- adapters --- */

static void parts_of_an_adapter_are_refused_as_that(void **state)
{
    (void)state;
    static const char *const names[] = {
        "base_model.model.model.layers.0.self_attn.q_proj.base_layer.weight",
        "model.layers.0.self_attn.q_proj.lora_A.weight",
        "model.layers.0.self_attn.q_proj.lora_A.default.weight",
        "base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight",
        "model.layers.1.mlp.up_proj.hada_w1_a",
        "lm_head.modules_to_save.default.weight",
        "model.layers.0.self_attn.q_proj.lora_magnitude_vector.weight",
    };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        struct builder *b = tied_model();
        builder_add(b, names[i], 2, D, D, 0);
        expect_refusal(builder_write(b, "unmerged"), ERR_UNSUPPORTED,
                       "belongs to an adapter that was not merged");
        free(b);
    }
}

static void parts_of_a_quanto_weight_are_refused_as_that(void **state)
{
    (void)state;
    struct builder *b = tied_model();
    builder_add(b, "model.layers.0.mlp.up_proj.input_scale", 1, 1, 0, 0);
    builder_add(b, "model.layers.0.mlp.up_proj.weight._data", 2, D, D, 0);
    expect_refusal(builder_write(b, "quanto"), ERR_UNSUPPORTED,
                   "'model.layers.0.mlp.up_proj.weight._data' is part of a weight that optimum-quanto");
    free(b);
}

static void an_adapter_beside_the_weights_is_told(void **state)
{
    (void)state;
    struct builder *b = tied_model();
    const char *folder = builder_write(b, "adapter-beside");
    scratch_text_in(folder, "adapter_config.json", "{\"peft_type\":\"LORA\",\"r\":8}");
    struct model *m = open_model(folder);
    assert_true(warned(m, "a LORA adapter of rank 8 lies beside the weights and is not applied"));
    model_close(m);
    free(b);
}

/* --- buffers and what else is left out --- */

static void known_buffers_are_left_out_with_a_reason(void **state)
{
    (void)state;
    static const char *const names[] = {
        "model.position_ids",
        "model.embeddings.position_ids",
        "model.layers.0.self_attn.rotary_emb.inv_freq",
        "model.rotary_emb.inv_freq",
        "model.rotary_emb.original_inv_freq",
        "model.rotary_pos_emb.inv_freq",
        "model.freqs_cis",
        "model.layers.0.self_attn.rotary_emb.cos_cached",
        "model.layers.0.self_attn.rotary_emb.sin_cached",
        "model.layers.0.self_attn._extra_state",
        "model.layers.0.self_attn.core_attention._extra_state",
        "v_head.summary.weight",
        "v_head.summary.bias",
        "value_head.weight",
        "module.v_head.summary.weight",
    };
    struct builder *b = tied_model();
    size_t n = sizeof names / sizeof *names;
    for (size_t i = 0; i < n; i++)
        builder_add(b, names[i], 1, 3, 0, 0);
    struct model *m = open_model(builder_write(b, "buffers"));
    assert_int_equal(model_n_tensors(m), N_TENSORS);
    assert_int_equal(model_n_skipped(m), n);
    for (size_t i = 0; i < n; i++)
        assert_true(skipped(m, names[i]));
    assert_true(skipped(m, "v_head.summary.bias: the value head of a trainer"));
    assert_true(skipped(m, "cos_cached: a buffer that is computed"));
    model_close(m);
    free(b);
}

static void tensors_without_elements_are_nothing(void **state)
{
    (void)state;
    struct builder *b = tied_model();
    builder_add(b, "model.extra", 1, 0, 0, 0);
    struct model *m = open_model(builder_write(b, "empty-extra"));
    assert_true(skipped(m, "model.extra: a tensor without elements"));
    model_close(m);
    struct tensor_spec *down = spec_of(b, "model.layers.0.mlp.down_proj.weight");
    down->n_dims = 1;
    down->shape[0] = 0;
    expect_refusal(
        builder_write(b, "zero3"), ERR_FORMAT,
        "tensor 'model.layers.0.mlp.down_proj.weight': it is empty, as DeepSpeed ZeRO 3 leaves weights");
    free(b);
}

static void users_may_leave_tensors_out(void **state)
{
    (void)state;
    static const char *const patterns[] = {"^my_head\\.", "\\.gain$"};
    struct model_options opt = {.skip_tensors = patterns, .n_skip_tensors = 2};
    struct builder *b = tied_model();
    struct model *m = NULL;
    struct err e = {0};
    builder_add(b, "my_head.weight", 2, 2, D, 0);
    builder_add(b, "model.layers.0.gain", 1, 1, 0, 0);
    const char *folder = builder_write(b, "skips");
    expect_refusal(folder, ERR_UNSUPPORTED, "--skip-tensor");
    assert_int_equal(model_open(&m, folder, &opt, &e), 0);
    assert_int_equal(model_n_tensors(m), N_TENSORS);
    assert_int_equal(model_n_skipped(m), 2);
    assert_true(skipped(m, "my_head.weight: left out by --skip-tensor"));
    assert_true(skipped(m, "model.layers.0.gain: left out by --skip-tensor"));
    assert_false(warned(m, "--skip-tensor"));
    model_close(m);

    builder_drop(b, "my_head.weight");
    assert_int_equal(model_open(&m, builder_write(b, "skips"), &opt, &e), 0);
    assert_true(warned(m, "--skip-tensor '^my_head\\.' fits no tensor"));
    model_close(m);

    m = NULL;
    opt.skip_tensors = (const char *const[]){"(", "a"};
    assert_int_equal(model_open(&m, in_scratch("skips"), &opt, &e), ERR_ARG);
    assert_non_null(strstr(e.msg, "pattern '('"));
    opt.skip_tensors = (const char *const[]){"embed_tokens", "gain"};
    assert_int_equal(model_open(&m, in_scratch("skips"), &opt, &e), ERR_FORMAT);
    assert_non_null(strstr(e.msg, "1 expected tensor is missing: model.embed_tokens.weight"));
    assert_null(m);
    free(b);
}

/* --- indexes that list what no file has --- */

/* All tensors of the model in model.safetensors, and one name more. */
static void write_index(const char *folder, const struct builder *b, const char *more, const char *file)
{
    char *text = NULL;
    size_t n;
    FILE *f = open_memstream(&text, &n);
    fprintf(f, "{\"weight_map\":{\"%s\":\"%s\"", more, file);
    for (size_t i = 0; i < b->n; i++)
        fprintf(f, ",\"%s\":\"model.safetensors\"", b->t[i].name);
    fputs("}}", f);
    fclose(f);
    scratch_text_in(folder, "model.safetensors.index.json", text);
    free(text);
}

static void names_that_nobody_needs_may_be_absent(void **state)
{
    (void)state;
    static const struct {
        const char *name, *file, *reason;
    } cases[] = {
        {"mtp.fc.weight", "model.safetensors", "multi-token prediction block"},
        {"model.visual.patch_embed.proj.weight", "visual.safetensors", "other modality"},
        {"lm_head.weight", "model.safetensors", "tied to the embedding"},
        {"_orig_mod.lm_head.weight", "model-2.safetensors", "tied to the embedding"},
        {"model.layers.0.self_attn.rotary_emb.inv_freq", "model.safetensors", "a buffer"},
    };
    struct builder *b = tied_model();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char want[200];
        const char *folder = builder_write(b, "index-more");
        write_index(folder, b, cases[i].name, cases[i].file);
        snprintf(want, sizeof want, "%s: in the index, but in no file: %s", cases[i].name, cases[i].reason);
        struct model *m = open_model(folder);
        assert_int_equal(model_n_tensors(m), N_TENSORS);
        if (!skipped(m, want))
            fail_msg("not told: %s", want);
        model_close(m);
    }
    const char *folder = builder_write(b, "index-need");
    write_index(folder, b, "model.layers.0.mlp.gain", "model.safetensors");
    expect_refusal(folder, ERR_FORMAT, "1 tensors of model.safetensors.index.json are not in their files");
    write_index(folder, b, "model.layers.0.mlp.gain", "model-2.safetensors");
    expect_refusal(folder, ERR_IO, "1 of 2 files named by model.safetensors.index.json are missing");
    free(b);

    b = malloc(sizeof *b); /* not tied: the head is needed */
    builder_fill(b, "Qwen2ForCausalLM", false, 0);
    builder_drop(b, "lm_head.weight");
    folder = builder_write(b, "index-head");
    write_index(folder, b, "lm_head.weight", "model.safetensors");
    expect_refusal(folder, ERR_FORMAT, "'lm_head.weight' (model.safetensors)");
    free(b);
}

/* --- the activation --- */

static void only_silu_is_computed(void **state)
{
    (void)state;
    static const char *const keys[] = {"hidden_act", "hidden_activation", "activation_function"};
    static const char *const others[] = {"\"gelu\"",  "\"gelu_pytorch_tanh\"", "\"gelu_new\"", "\"relu\"",
                                         "\"relu2\"", "\"quick_gelu\"",        "\"SiLU\"",     "7"};
    static const char *const same[] = {"\"silu\"", "\"swish\"", "null"};
    struct builder *b = tied_model();
    size_t end = strlen(b->config) - 1;
    for (size_t k = 0; k < 3; k++) {
        for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
            char want[60];
            snprintf(b->config + end, sizeof b->config - end, ",\"%s\":%s}", keys[k], others[i]);
            snprintf(want, sizeof want, "%s is '", keys[k]);
            expect_refusal(builder_write(b, "act"), ERR_UNSUPPORTED, want);
        }
        for (size_t i = 0; i < sizeof same / sizeof *same; i++) {
            snprintf(b->config + end, sizeof b->config - end, ",\"%s\":%s}", keys[k], same[i]);
            model_close(open_model(builder_write(b, "act")));
        }
    }
    free(b);
}

/* --- YaRN's magnitude in keys that llama.cpp multiplies by --- */

static void yarn_magnitudes_reach_the_runtime(void **state)
{
    (void)state;
    struct builder *b = tied_model();
    size_t end = strlen(b->config) - 1;
    double v;
    snprintf(b->config + end, sizeof b->config - end,
             ",\"rope_scaling\":{\"type\":\"yarn\",\"factor\":4.0,\"mscale\":0.7,\"mscale_all_dim\":0.7}}");
    struct model *m = open_model(builder_write(b, "yarn"));
    assert_true(gguf_meta_get_f64(model_meta(m), "qwen2.rope.scaling.yarn_attn_factor", &v) && v == 1);
    /* 1 / (1 + 0.1 ln 4) */
    assert_true(gguf_meta_get_f64(model_meta(m), "qwen2.rope.scaling.attn_factor", &v));
    assert_true(v > 0.878247 && v < 0.878249);
    model_close(m);
    snprintf(b->config + end, sizeof b->config - end,
             ",\"rope_scaling\":{\"type\":\"yarn\",\"factor\":4.0}}");
    m = open_model(builder_write(b, "yarn"));
    assert_false(gguf_meta_get_f64(model_meta(m), "qwen2.rope.scaling.attn_factor", &v));
    model_close(m);
    static const char *const refused[] = {"{\"type\":\"yarn\"}", "{\"type\":\"linear\"}",
                                          "{\"type\":\"longrope\",\"short_factor\":[1],\"long_factor\":[1]}",
                                          "{\"type\":\"ntk-aware\"}"};
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        snprintf(b->config + end, sizeof b->config - end, ",\"rope_scaling\":%s}", refused[i]);
        expect_refusal(builder_write(b, "yarn"), i < 2 ? ERR_FORMAT : ERR_UNSUPPORTED,
                       "config.json: rope_type");
    }
    snprintf(b->config + end, sizeof b->config - end, ",\"rope_scaling\":{\"factor\":4.0}}");
    m = open_model(builder_write(b, "yarn"));
    assert_true(warned(m, "have a factor, but no type that would use it"));
    model_close(m);
    free(b);
}

/* --- MTP --- */

static void mtp_that_is_not_there_cannot_be_kept(void **state)
{
    (void)state;
    struct model_options opt = {.keep_mtp = true};
    struct model *m = NULL;
    struct err e = {0};
    struct builder *b = tied_model();
    assert_int_equal(model_open(&m, builder_write(b, "no-mtp"), &opt, &e), ERR_ARG);
    assert_non_null(strstr(e.msg, "the checkpoint has no MTP tensors; leave out --keep-mtp"));
    builder_add(b, "mtp.fc.weight", 2, D, 2 * D, 0);
    assert_int_equal(model_open(&m, builder_write(b, "no-mtp"), &opt, &e), ERR_UNSUPPORTED);
    assert_non_null(strstr(e.msg, "MTP tensors have no form in architecture 'qwen2'"));
    free(b);
    const char *folder = in_scratch("hybrid");
    assert_int_equal(toy_family_write(folder, "qwen35", &e), 0);
    for (int i = 0; i < 2; i++) {
        opt.allow_missing_weights = i != 0;
        assert_int_equal(model_open(&m, folder, &opt, &e), ERR_ARG);
        assert_non_null(strstr(e.msg, "the checkpoint has no MTP tensors; leave out --keep-mtp"));
    }
    assert_null(m);
}

/* --- FP8 that nothing speaks of --- */

static void fp8_is_known_by_dtype_and_scale(void **state)
{
    (void)state;
    static const struct {
        const char *ending;
        uint64_t rows, cols;
    } cases[] = {{"_scale_inv", 1, 1}, {"_scale", 1, 1}, {"_scale", FF, 1}, {"_scale_inv", FF, 1}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct builder *b = tied_model();
        char name[120];
        spec_of(b, "model.layers.0.mlp.up_proj.weight")->dtype = ST_F8_E4M3;
        snprintf(name, sizeof name, "model.layers.0.mlp.up_proj.weight%s", cases[i].ending);
        struct tensor_spec *scale = builder_add(b, name, 2, cases[i].rows, cases[i].cols, 0);
        scale->first = 2;
        scale->step = 1;
        struct model *m = open_model(builder_write(b, "fp8"));
        assert_true(warned(m, "FP8 weights with scales, but no quantization_config"));
        float *x = read_all(m, model_find(m, "blk.0.ffn_up.weight"));
        for (uint64_t k = 0; k < FF * D; k++) {
            uint8_t code = (uint8_t)(k & 0x7e); /* as the builder writes them: e4m3 without the sign */
            int exponent = code >> 3, mantissa = code & 7;
            float v =
                exponent ? ldexpf(1 + (float)mantissa / 8, exponent - 7) : ldexpf((float)mantissa / 8, -6);
            assert_true(x[k] == v * (cases[i].rows == 1 ? 2 : 2 + (float)(k / D)));
        }
        free(x);
        model_close(m);
        scale->shape[0] = 5;
        expect_refusal(builder_write(b, "fp8"), ERR_FORMAT,
                       "expected one for each 128 x 128 values, one for each row");
        free(b);
    }
    struct builder *b = tied_model(); /* no scales: a plain cast */
    spec_of(b, "model.layers.0.mlp.up_proj.weight")->dtype = ST_F8_E4M3;
    struct model *m = open_model(builder_write(b, "fp8"));
    assert_false(warned(m, "quantization_config"));
    model_close(m);
    free(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(wrappers_are_taken_off_wherever_they_stand),
        cmocka_unit_test(a_wrapped_checkpoint_is_the_model),
        cmocka_unit_test(parts_of_an_adapter_are_refused_as_that),
        cmocka_unit_test(parts_of_a_quanto_weight_are_refused_as_that),
        cmocka_unit_test(an_adapter_beside_the_weights_is_told),
        cmocka_unit_test(known_buffers_are_left_out_with_a_reason),
        cmocka_unit_test(tensors_without_elements_are_nothing),
        cmocka_unit_test(users_may_leave_tensors_out),
        cmocka_unit_test(names_that_nobody_needs_may_be_absent),
        cmocka_unit_test(only_silu_is_computed),
        cmocka_unit_test(mtp_that_is_not_there_cannot_be_kept),
        cmocka_unit_test(fp8_is_known_by_dtype_and_scale),
        cmocka_unit_test(yarn_magnitudes_reach_the_runtime),
    };
    return cmocka_run_group_tests(tests, scratch_begin, scratch_end);
}
