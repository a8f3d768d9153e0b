/* test_model.c - checkpoint folders as models: every row equals its source, and what does not fit is refused
 * by name. Transformed tensors: test_model_transforms.c; models that answer once for a text:
 * test_model_answers.c. */
#include "builder.h"
#include "formats/hf/hf_checkpoint.h"
#include "formats/tokenizer/vocabulary.h"
#include "libquant/base/slice.h"
#include "libquant/half.h"
#include "open_model.h"
#include "scratch.h"
#include "toy_checkpoint.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

/* --- a second, independent way from a source tensor to floats ---------------------------------------------
 */

static float source_value(const struct st_tensor *t, uint64_t i)
{
    if (t->dtype == ST_F32)
        return load_f32(t->data + 4 * i);
    uint16_t h;
    memcpy(&h, t->data + 2 * i, 2);
    return t->dtype == ST_BF16 ? f32_from_bits((uint32_t)h << 16) : f16_to_f32(h);
}

/* HuggingFace name of a dense model's GGUF name. */
static void hf_name(const char *gguf, char *out, size_t cap)
{
    static const char *const pairs[][2] = {
        {"token_embd.weight", "model.embed_tokens.weight"},
        {"output_norm.weight", "model.norm.weight"},
        {"output.weight", "lm_head.weight"},
        {"attn_norm", "input_layernorm"},
        {"ffn_norm", "post_attention_layernorm"},
        {"attn_q_norm", "self_attn.q_norm"},
        {"attn_k_norm", "self_attn.k_norm"},
        {"attn_q", "self_attn.q_proj"},
        {"attn_k", "self_attn.k_proj"},
        {"attn_v", "self_attn.v_proj"},
        {"attn_output", "self_attn.o_proj"},
        {"ffn_gate", "mlp.gate_proj"},
        {"ffn_up", "mlp.up_proj"},
        {"ffn_down", "mlp.down_proj"},
    };
    unsigned layer;
    char part[40], tail[20];
    bool in_block = sscanf(gguf, "blk.%u.%39[^.].%19s", &layer, part, tail) == 3;
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        if (strcmp(in_block ? part : gguf, pairs[i][0]) != 0)
            continue;
        if (in_block)
            snprintf(out, cap, "model.layers.%u.%s.%s", layer, pairs[i][1], tail);
        else
            snprintf(out, cap, "%s", pairs[i][1]);
        return;
    }
    fail_msg("no HuggingFace name for %s", gguf);
}

/* Row that stands at `row` of an output tensor: q and k of Llama are permuted (specification,
 * architectures 17.3). */
static uint64_t source_row(bool permuted, uint64_t head_dim, uint64_t row)
{
    uint64_t h = row / head_dim, j = row % head_dim;
    return permuted ? h * head_dim + (j % 2) * (head_dim / 2) + j / 2 : row;
}

/* Read the tensor in pieces of `step` rows and compare with the source. */
static void check_tensor(const struct model *m, const struct model_tensor *t, const struct st_tensor *s,
                         bool permuted, uint64_t head_dim, uint64_t step)
{
    struct err e = {0};
    bool vector = t->n_dims == 1;
    uint64_t n_cols = t->ne[0];
    float *rows = malloc(step * n_cols * sizeof *rows);
    assert_int_equal(t->n_dims, s->n_dims);
    for (uint32_t d = 0; d < s->n_dims; d++)
        assert_int_equal(t->ne[d], s->shape[s->n_dims - 1 - d]);
    assert_int_equal(t->type, s->dtype == ST_F32 ? QTYPE_F32 : s->dtype == ST_F16 ? QTYPE_F16 : QTYPE_BF16);
    assert_int_equal(t->n_bytes, s->n_bytes);
    assert_string_equal(t->source_type, st_dtype_name(s->dtype));
    assert_non_null(strstr(t->origin, s->name));
    if (permuted) {
        assert_null(t->raw);
    } else {
        assert_non_null(t->raw);
        assert_memory_equal(t->raw, s->data, s->n_bytes);
    }
    for (uint64_t r = 0; r < t->n_rows; r += step) {
        uint64_t n = t->n_rows - r < step ? t->n_rows - r : step;
        model_want_rows(m, t, r, n);
        if (model_read_rows(m, t, r, n, rows, &e) != 0)
            fail_msg("%s", e.msg);
        for (uint64_t i = 0; i < n * n_cols; i++) {
            uint64_t at = vector ? source_row(permuted, head_dim, i)
                                 : source_row(permuted, head_dim, r + i / n_cols) * n_cols + i % n_cols;
            if (rows[i] != source_value(s, at))
                fail_msg("%s: row %llu element %llu differs", t->name, (unsigned long long)r,
                         (unsigned long long)i);
        }
        model_drop_rows(m, t, r, n);
    }
    free(rows);
}

static void check_folder(const char *folder, bool is_llama, uint64_t head_dim, size_t n_computed)
{
    struct hf_checkpoint *c = NULL;
    struct model *m = open_model(folder);
    char name[120];
    assert_int_equal(hf_checkpoint_open(&c, folder, false, NULL), 0);
    size_t n_checked = 0;
    for (size_t i = 0; i < model_n_tensors(m); i++) {
        const struct model_tensor *t = model_tensor(m, i);
        assert_ptr_equal(model_find(m, t->name), t);
        if (strcmp(t->name, "rope_freqs.weight") == 0)
            continue;
        hf_name(t->name, name, sizeof name);
        const struct st_tensor *s = hf_checkpoint_find(c, name);
        if (!s)
            fail_msg("no source %s", name);
        bool permuted = is_llama && (strstr(t->name, "attn_q.") || strstr(t->name, "attn_k."));
        check_tensor(m, t, s, permuted, head_dim, 1 + i % 7);
        assert_int_equal(t->always_f32, t->n_dims == 1);
        n_checked++;
    }
    assert_int_equal(n_checked + n_computed, model_n_tensors(m));
    assert_int_equal(n_checked + model_n_skipped(m), hf_checkpoint_n_tensors(c));
    hf_checkpoint_close(c);
    model_close(m);
}

static void the_demo_is_read_tensor_by_tensor(void **state)
{
    (void)state;
    check_folder(KERF_TEST_DATA "/demo-qwen3", false, 64, 0);
    struct model *m = open_model(KERF_TEST_DATA "/demo-qwen3/");
    const struct vocabulary *v = NULL;
    uint64_t u;
    assert_int_equal(model_n_tensors(m), 2 + 11 * 4);
    assert_string_equal(model_arch_name(m), "qwen3");
    assert_false(model_is_gguf(m));
    assert_true(model_has_weights(m));
    assert_int_equal(model_n_warnings(m), 0);
    assert_true(gguf_meta_get_u64(model_meta(m), "general.file_type", &u) && u == 32);
    assert_int_equal(model_vocabulary(m, &v, NULL), 0);
    assert_int_equal(v->n_tokens, 4096);
    struct gguf_string s;
    assert_true(gguf_meta_get_string(model_meta(m), "general.name", &s));
    assert_memory_equal(s.data, "Demo Qwen3", 10);
    model_close(m);
}

static void toys_of_every_family_equal_their_sources(void **state)
{
    (void)state;
    static const enum st_dtype dtypes[] = {ST_BF16, ST_F16, ST_F32};
    for (int arch = 0; arch < TOY_ARCH_COUNT; arch++) {
        for (size_t k = 0; k < 3; k++) {
            struct toy_spec spec = toy_spec_tiny((enum toy_arch)arch);
            struct err e = {0};
            char name[64];
            bool is_llama = arch == TOY_LLAMA || arch == TOY_MISTRAL;
            spec.dtype = dtypes[k];
            spec.tied = k == 1;
            spec.bias = k == 2 && arch != TOY_MISTRAL;
            spec.n_shards = k == 0 ? 3 : 1;
            spec.rope_scaling = arch == TOY_LLAMA && k == 0 ? ROPE_LLAMA3 : ROPE_DEFAULT;
            snprintf(name, sizeof name, "%s-%zu", toy_arch_name((enum toy_arch)arch), k);
            if (toy_checkpoint_write(in_scratch(name), &spec, &e) != 0)
                fail_msg("%s", e.msg);
            check_folder(in_scratch(name), is_llama,
                         spec.head_dim ? spec.head_dim : spec.hidden / spec.n_heads,
                         spec.rope_scaling == ROPE_LLAMA3);
        }
    }
}

static void computed_tensors_stand_first_and_survive_hints(void **state)
{
    (void)state;
    struct model *m = open_model(in_scratch("llama-0")); /* of the test before */
    const struct model_tensor *t = model_tensor(m, 0);
    float a[64], b[64];
    assert_string_equal(t->name, "rope_freqs.weight");
    assert_null(t->raw);
    assert_int_equal(t->n_dims, 1);
    assert_true(t->ne[0] <= 64 && t->always_f32);
    assert_int_equal(model_read_rows(m, t, 0, 1, a, NULL), 0);
    model_want_rows(m, t, 0, 1);
    model_drop_rows(m, t, 0, 1);
    assert_int_equal(model_read_rows(m, t, 0, 1, b, NULL), 0);
    assert_memory_equal(a, b, t->ne[0] * sizeof *a);
    assert_true((double)a[0] == 1.0 && a[t->ne[0] - 1] > 1.0f);
    model_close(m);
}

static void rows_beyond_the_tensor_are_refused(void **state)
{
    (void)state;
    struct model *m = open_model(KERF_TEST_DATA "/demo-qwen3");
    const struct model_tensor *t = model_find(m, "blk.0.attn_q.weight");
    struct err e = {0};
    float x[256];
    assert_int_equal(model_read_rows(m, t, t->n_rows, 1, x, &e), ERR_ARG);
    assert_int_equal(model_read_rows(m, t, UINT64_MAX, 2, x, &e), ERR_ARG);
    assert_int_equal(model_read_rows(m, t, t->n_rows, 0, x, &e), 0);
    assert_null(model_find(m, "blk.4.attn_q.weight"));
    model_close(m);
}

/* --- small checkpoints written by hand ------------------------------------------------------------------ */

static void a_mandatory_head_is_written_twice_when_tied(void **state)
{
    (void)state;
    struct builder *b = malloc(sizeof *b);
    builder_fill(b, "Qwen2MoeForCausalLM", true, 1);
    struct model *m = open_model(builder_write(b, "moe-tied"));
    const struct model_tensor *head = model_find(m, "output.weight"),
                              *embd = model_find(m, "token_embd.weight");
    assert_true(head && embd && head != embd);
    assert_ptr_equal(head->raw, embd->raw);
    model_close(m);
    free(b);
}

/* Specification, architectures 0.6. */
static void tied_heads_follow_the_flag(void **state)
{
    (void)state;
    struct builder *b = malloc(sizeof *b);
    builder_fill(b, "Qwen2ForCausalLM", true, 0);
    struct model *m = open_model(builder_write(b, "tied"));
    assert_null(model_find(m, "output.weight"));
    assert_int_equal(model_n_tensors(m), 2 + 12 * L);
    assert_int_equal(model_n_warnings(m), 1); /* no tokenizer */
    model_close(m);

    builder_add(b, "lm_head.weight", 2, V, D, 0)->first = spec_of(b, "model.embed_tokens.weight")->first;
    m = open_model(builder_write(b, "tied-equal-head"));
    assert_null(model_find(m, "output.weight"));
    assert_int_equal(model_n_warnings(m), 1);
    assert_int_equal(model_n_skipped(m), 1);
    assert_non_null(strstr(model_skipped(m, 0), "lm_head.weight"));
    model_close(m);

    spec_of(b, "lm_head.weight")->first = 77;
    m = open_model(builder_write(b, "tied-other-head"));
    const struct model_tensor *head = model_find(m, "output.weight");
    float *x = read_all(m, head);
    for (uint64_t i = 0; i < V * D; i++)
        assert_true(x[i] == spec_value(spec_of(b, "lm_head.weight"), i));
    free(x);
    assert_int_equal(model_n_skipped(m), 0);
    assert_int_equal(model_n_warnings(m), 2);
    assert_non_null(strstr(model_warning(m, 0), "'lm_head.weight' differs from the embedding") ||
                    strstr(model_warning(m, 1), "'lm_head.weight' differs from the embedding"));
    model_close(m);

    spec_of(b, "lm_head.weight")->dtype =
        ST_F64; /* 0.1 apart instead of 0.25: other values in another dtype */
    m = open_model(builder_write(b, "tied-other-dtype"));
    assert_non_null(model_find(m, "output.weight"));
    model_close(m);

    builder_drop(b, "model.embed_tokens.weight"); /* the head alone: it is the embedding */
    spec_of(b, "lm_head.weight")->dtype = ST_F32;
    m = open_model(builder_write(b, "tied-head-alone"));
    assert_null(model_find(m, "output.weight"));
    assert_int_equal(model_n_tensors(m), 2 + 12 * L);
    assert_non_null(strstr(model_find(m, "token_embd.weight")->origin, "lm_head.weight"));
    x = read_all(m, model_find(m, "token_embd.weight"));
    assert_true(x[V * D - 1] == spec_value(spec_of(b, "lm_head.weight"), V * D - 1));
    free(x);
    model_close(m);
    builder_add(b, "model.embed_tokens.weight", 2, V, D, 0);

    spec_of(b, "lm_head.weight")->dtype = ST_F8_E4M3; /* packed: the embedding as far as eight bits can say */
    struct tensor_spec *scale = builder_add(b, "lm_head.weight_scale_inv", 2, (V + 15) / 16, 1, 0);
    struct tensor_spec *rows = spec_of(b, "model.embed_tokens.weight");
    rows->first = rows->step = scale->first = scale->step = 0; /* both are zeros */
    size_t end = strlen(b->config);
    snprintf(b->config + end - 1, sizeof b->config - end,
             ", \"quantization_config\": {\"quant_method\": \"fp8\", \"weight_block_size\": [16, 16]}}");
    m = open_model(builder_write(b, "tied-packed-head"));
    assert_null(model_find(m, "output.weight"));
    assert_int_equal(model_n_warnings(m), 1);
    assert_int_equal(model_n_skipped(m), 1);
    model_close(m);
    scale->first = 1; /* another matrix, however it is packed */
    m = open_model(builder_write(b, "tied-packed-other"));
    assert_non_null(model_find(m, "output.weight"));
    assert_int_equal(model_n_warnings(m), 2);
    model_close(m);

    builder_fill(b, "Qwen2ForCausalLM", false, 0);
    m = open_model(builder_write(b, "untied"));
    assert_non_null(model_find(m, "output.weight"));
    model_close(m);
    builder_drop(b, "lm_head.weight");
    m = open_model(builder_write(b, "untied-no-head"));
    assert_null(model_find(m, "output.weight"));
    assert_non_null(strstr(model_warning(m, 1), "no lm_head.weight"));
    model_close(m);
    free(b);
}

static void other_modalities_are_listed_as_skipped(void **state)
{
    (void)state;
    struct builder *b = malloc(sizeof *b);
    builder_fill(b, "Qwen2ForCausalLM", false, 0);
    builder_add(b, "visual.blocks.0.attn.qkv.weight", 2, 3, 3, 0);
    builder_add(b, "model.layers.0.self_attn.rotary_emb.inv_freq", 1, 2, 0, 0);
    struct model *m = open_model(builder_write(b, "visual"));
    assert_int_equal(model_n_tensors(m), 3 + 12 * L);
    assert_int_equal(model_n_skipped(m), 2);
    assert_string_equal(model_skipped(m, 1), "visual.blocks.0.attn.qkv.weight: other modality");
    model_close(m);
    free(b);
}

static void wide_and_narrow_floats_are_read_as_f32(void **state)
{
    (void)state;
    struct builder *b = malloc(sizeof *b);
    builder_fill(b, "Qwen2ForCausalLM", false, 0);
    spec_of(b, "lm_head.weight")->dtype = ST_F64;
    spec_of(b, "model.layers.0.mlp.up_proj.weight")->dtype = ST_F8_E4M3;
    struct model *m = open_model(builder_write(b, "dtypes"));
    const struct model_tensor *head = model_find(m, "output.weight"),
                              *up = model_find(m, "blk.0.ffn_up.weight");
    assert_int_equal(head->type, QTYPE_F32);
    assert_string_equal(head->source_type, "F64");
    assert_string_equal(up->source_type, "F8_E4M3");
    assert_null(head->raw);
    assert_int_equal(head->n_bytes, 4 * V * D);
    float *x = read_all(m, head);
    for (uint64_t i = 0; i < V * D; i++)
        assert_true(x[i] == (float)((double)spec_of(b, "lm_head.weight")->first + (double)i * 0.1));
    free(x);
    x = read_all(m, up);
    for (uint64_t i = 0; i < FF * D; i++)
        assert_true(x[i] == f8_e4m3_to_f32((uint8_t)(i & 0x7e)));
    free(x);
    model_close(m);
    free(b);
}

static void misfits_are_refused_by_name(void **state)
{
    (void)state;
    struct builder *b = malloc(sizeof *b);
    builder_fill(b, "Qwen2ForCausalLM", false, 0);
    builder_add(b, "model.layers.0.mlp.extra.weight", 1, D, 0, 0);
    expect_refusal(builder_write(b, "bad"), ERR_UNSUPPORTED,
                   "'model.layers.0.mlp.extra.weight': architecture 'qwen2'");

    builder_fill(b, "Qwen2ForCausalLM", false, 0);
    builder_drop(b, "model.layers.1.mlp.up_proj.weight");
    expect_refusal(builder_write(b, "bad"), ERR_FORMAT,
                   "1 expected tensor is missing: model.layers.1.mlp.up_proj.weight");
    b->n = 1;
    expect_refusal(builder_write(b, "bad"), ERR_FORMAT, "and 16 more");

    builder_fill(b, "Qwen2ForCausalLM", false, 0);
    spec_of(b, "model.layers.1.mlp.down_proj.weight")->shape[0] = D + 1;
    expect_refusal(builder_write(b, "bad"), ERR_FORMAT,
                   "shape [8, 12] expected from config.json, found [9, 12]");

    builder_fill(b, "Qwen2ForCausalLM", false, 0);
    snprintf(spec_of(b, "model.layers.1.mlp.down_proj.weight")->name, 100,
             "model.layers.2.mlp.down_proj.weight");
    expect_refusal(builder_write(b, "bad"), ERR_FORMAT, "layer 2, but config.json says 2 layers");

    builder_fill(b, "Qwen2ForCausalLM", false, 0);
    spec_of(b, "model.norm.weight")->dtype = ST_U8;
    expect_refusal(builder_write(b, "bad"), ERR_UNSUPPORTED, "a weight of type U8");

    builder_fill(b, "Qwen2MoeForCausalLM", false, 1);
    builder_drop(b, "model.layers.1.mlp.experts.2.up_proj.weight");
    expect_refusal(builder_write(b, "bad"), ERR_FORMAT, "is missing: model.layers.1.mlp.experts.");
    builder_fill(b, "Qwen2MoeForCausalLM", false, 1);
    snprintf(spec_of(b, "model.layers.1.mlp.experts.2.up_proj.weight")->name, 100,
             "model.layers.1.mlp.experts.3.up_proj.weight");
    expect_refusal(builder_write(b, "bad"), ERR_FORMAT, "expert 3, but config.json says 3 experts");
    builder_fill(b, "Qwen2MoeForCausalLM", false, 1);
    builder_add(b, "model.layers.0.mlp.experts.down_proj", 3, E, D, FE);
    expect_refusal(builder_write(b, "bad"), ERR_FORMAT, "is already made from");

    builder_fill(b, "BloomForCausalLM", false, 0);
    expect_refusal(builder_write(b, "bad"), ERR_UNSUPPORTED,
                   "class 'BloomForCausalLM' is not supported; the table of families in README.md");

    builder_fill(b, "Qwen2ForCausalLM", false, 0);
    snprintf(strrchr(b->config, '}'), 100, ", \"quantization_config\": {\"quant_method\": \"aqlm\"}}");
    expect_refusal(builder_write(b, "bad"), ERR_UNSUPPORTED, "compressed with 'aqlm'");
    free(b);

    expect_refusal(in_scratch("nothing-here"), ERR_IO, "no such file or folder");
    expect_refusal(in_scratch("bad/config.json"), ERR_ARG, "a configuration holds no weights");
    expect_refusal(in_scratch("bad/model.safetensors"), ERR_ARG, "give the folder");
}

static void a_folder_without_weights_opens_for_planning(void **state)
{
    (void)state;
    struct builder *b = malloc(sizeof *b);
    builder_fill(b, "Qwen2MoeForCausalLM", false, 2);
    const char *folder = in_scratch("planned");
    char *index = NULL;
    size_t n;
    FILE *f = open_memstream(&index, &n);
    fputs("{\"weight_map\": {", f);
    for (size_t i = 0; i < b->n; i++)
        fprintf(f, "%s\"%s\": \"model-00001-of-00001.safetensors\"", i ? ", " : "", b->t[i].name);
    fputs("}}", f);
    fclose(f);
    mkdir(folder, 0700);
    scratch_text_in(folder, "config.json", b->config);
    scratch_text_in(folder, "model.safetensors.index.json", index);
    free(index);

    struct model *m = NULL, *full = open_model(builder_write(b, "moe-stacked"));
    struct err e = {0};
    float x[D];
    struct model_options opt = {.allow_missing_weights = true};
    if (model_open(&m, folder, &opt, &e) != 0)
        fail_msg("%s", e.msg);
    assert_false(model_has_weights(m));
    assert_int_equal(model_n_tensors(m), model_n_tensors(full));
    for (size_t i = 0; i < model_n_tensors(m); i++) {
        const struct model_tensor *t = model_tensor(m, i), *want = model_find(full, t->name);
        assert_non_null(want);
        assert_int_equal(t->n_dims, want->n_dims);
        assert_memory_equal(t->ne, want->ne, sizeof t->ne);
        assert_int_equal(t->type, QTYPE_BF16);
        assert_null(t->raw);
    }
    assert_int_equal(model_read_rows(m, model_tensor(m, 0), 0, 1, x, &e), ERR_ARG);
    assert_non_null(strstr(e.msg, "without its weights"));
    model_close(full);
    model_close(m);
    free(b);
}

static void a_folder_without_tokenizer_warns(void **state)
{
    (void)state;
    struct model *m = open_model(in_scratch("untied"));
    const struct vocabulary *v = NULL;
    struct err e = {0};
    assert_int_equal(model_n_warnings(m), 1);
    assert_non_null(strstr(model_warning(m, 0), "no tokenizer"));
    assert_int_equal(model_vocabulary(m, &v, &e), ERR_UNSUPPORTED);
    assert_null(gguf_meta_find(model_meta(m), "tokenizer.ggml.model"));
    model_close(m);
}

/* Asked for, it is an error with the way out; left out, the two keys that llama.cpp loads such a file by. */
static void a_vocabulary_is_needed_or_left_out_as_asked(void **state)
{
    (void)state;
    struct model *m = NULL;
    const struct vocabulary *v = NULL;
    struct gguf_string s;
    uint64_t n = 0;
    struct err e = {0};
    struct model_options needed = {.vocabulary = MODEL_VOCABULARY_NEEDED},
                         none = {.vocabulary = MODEL_VOCABULARY_NONE};
    assert_int_equal(model_open(&m, in_scratch("untied"), &needed, &e), ERR_ARG);
    assert_non_null(strstr(e.msg, "no vocabulary"));
    assert_non_null(strstr(e.msg, "--no-vocab"));
    assert_int_equal(model_open(&m, in_scratch("untied"), &none, &e), 0);
    assert_int_equal(model_n_warnings(m), 0);
    assert_int_equal(model_vocabulary(m, &v, &e), ERR_UNSUPPORTED);
    assert_true(gguf_meta_get_string(model_meta(m), "tokenizer.ggml.model", &s) && gguf_string_is(s, "none"));
    assert_true(gguf_meta_get_u64(model_meta(m), "qwen2.vocab_size", &n));
    assert_int_equal(n, V);
    model_close(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_demo_is_read_tensor_by_tensor),
        cmocka_unit_test(toys_of_every_family_equal_their_sources),
        cmocka_unit_test(computed_tensors_stand_first_and_survive_hints),
        cmocka_unit_test(rows_beyond_the_tensor_are_refused),
        cmocka_unit_test(a_mandatory_head_is_written_twice_when_tied),
        cmocka_unit_test(tied_heads_follow_the_flag),
        cmocka_unit_test(other_modalities_are_listed_as_skipped),
        cmocka_unit_test(wide_and_narrow_floats_are_read_as_f32),
        cmocka_unit_test(misfits_are_refused_by_name),
        cmocka_unit_test(a_folder_without_weights_opens_for_planning),
        cmocka_unit_test(a_folder_without_tokenizer_warns),
        cmocka_unit_test(a_vocabulary_is_needed_or_left_out_as_asked),
    };
    return cmocka_run_group_tests_name("model", tests, scratch_begin, scratch_end);
}
