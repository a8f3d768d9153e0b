/* test_model_names.c - tensor names and dimensions of real models: configurations and checkpoint indices as
 * they were published, against the tensor lists of published GGUF files. Skipped where that data is not at
 * hand. */
#include "formats/model/model.h"
#include "formats/json.h"
#include "scratch.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static const char *shared(const char *name)
{
    static char path[2][512];
    static int turn;
    char *p = path[turn++ % 2];
    snprintf(p, 512, "%s/data/%s", KERF_SHARED, name);
    return access(p, R_OK) == 0 ? p : NULL;
}

static char *read_text(const char *path, size_t *n)
{
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    char *text = NULL;
    FILE *out = open_memstream(&text, n);
    for (int c; (c = fgetc(f)) != EOF;)
        fputc(c, out);
    fclose(out);
    fclose(f);
    return text;
}

/* Open a planning model of this configuration and index text. */
static struct model *plan(const char *config, const char *index)
{
    struct model *m = NULL;
    struct err e = {0};
    struct model_options opt = {.allow_missing_weights = true};
    scratch_text_in(in_scratch(""), "config.json", config);
    scratch_text_in(in_scratch(""), "model.safetensors.index.json", index);
    if (model_open(&m, in_scratch(""), &opt, &e) != 0)
        fail_msg("%s", e.msg);
    return m;
}

/* Index of a decoder with these tensors per layer. */
static char *make_index(unsigned n_layers, bool tied, const char *const *parts)
{
    char *text = NULL;
    size_t n;
    static const char file[] = "model-00001-of-00001.safetensors";
    FILE *f = open_memstream(&text, &n);
    fprintf(f, "{\"weight_map\": {\"model.embed_tokens.weight\": \"%s\", \"model.norm.weight\": \"%s\"", file,
            file);
    if (!tied)
        fprintf(f, ", \"lm_head.weight\": \"%s\"", file);
    for (unsigned i = 0; i < n_layers; i++)
        for (const char *const *p = parts; *p; p++)
            fprintf(f, ", \"model.layers.%u.%s\": \"%s\"", i, *p, file);
    fputs("}}", f);
    fclose(f);
    return text;
}

static const char *const dense[] = {"input_layernorm.weight",
                                    "post_attention_layernorm.weight",
                                    "self_attn.q_proj.weight",
                                    "self_attn.k_proj.weight",
                                    "self_attn.v_proj.weight",
                                    "self_attn.o_proj.weight",
                                    "mlp.gate_proj.weight",
                                    "mlp.up_proj.weight",
                                    "mlp.down_proj.weight",
                                    NULL,
                                    NULL,
                                    NULL,
                                    NULL};

/* The names that a published list (name -> hash, metadata besides) gives as tensors. */
static void expect_names(const struct model *m, const char *list)
{
    struct json_doc *doc = NULL;
    struct err e = {0};
    size_t n = 0;
    if (json_load(&doc, list, 0, &e) != 0)
        fail_msg("%s", e.msg);
    for (const struct json *j = json_first(json_root(doc)); j; j = json_next(j)) {
        const char *key = json_key(j), *dot = strrchr(key, '.');
        if (!dot || (strcmp(dot, ".weight") != 0 && strcmp(dot, ".bias") != 0))
            continue;
        n++;
        if (!model_find(m, key))
            fail_msg("%s is not made", key);
    }
    assert_int_equal(n, model_n_tensors(m));
    json_free(doc);
}

static void qwen25_has_the_published_names(void **state)
{
    (void)state;
    static const char config[] =
        "{\"architectures\": [\"Qwen2ForCausalLM\"], \"model_type\": \"qwen2\", \"hidden_size\": 896,"
        "\"intermediate_size\": 4864, \"num_attention_heads\": 14, \"num_key_value_heads\": 2,"
        "\"num_hidden_layers\": 24, \"max_position_embeddings\": 32768, \"rms_norm_eps\": 1e-06,"
        "\"rope_theta\": 1000000.0, \"tie_word_embeddings\": true, \"vocab_size\": 151936}";
    const char *list = shared("tensor-lists/Qwen2.5-0.5B-Instruct.json");
    const char *parts[13];
    if (!list)
        skip();
    memcpy(parts, dense, sizeof parts);
    parts[9] = "self_attn.q_proj.bias";
    parts[10] = "self_attn.k_proj.bias";
    parts[11] = "self_attn.v_proj.bias";
    char *index = make_index(24, true, parts);
    struct model *m = plan(config, index);
    expect_names(m, list);
    uint64_t n = 0;
    for (size_t i = 0; i < model_n_tensors(m); i++)
        n += model_tensor(m, i)->ne[0] * model_tensor(m, i)->n_rows;
    assert_int_equal(n, 494032768); /* general.parameter_count of the list */
    model_close(m);
    free(index);
}

static void llama3_has_the_published_names(void **state)
{
    (void)state;
    const char *list = shared("tensor-lists/Meta-Llama-3-8B-Instruct.json");
    const char *config_path = shared("configs/slices/Llama-3.1-8B.config.json");
    if (!list || !config_path)
        skip();
    size_t n;
    char *config = read_text(config_path, &n), *index = make_index(32, false, dense);
    struct model *m = plan(config, index);
    /* 3.1 has the shapes of 3, and frequency scaling besides. */
    assert_int_equal(model_n_tensors(m), 292);
    assert_string_equal(model_tensor(m, 0)->name, "rope_freqs.weight");
    assert_int_equal(model_tensor(m, 0)->ne[0], 64);
    model_close(m);

    char *scaling = strstr(config, "\"rope_scaling\"");
    assert_non_null(scaling);
    memcpy(scaling, "\"not_scaling_\"", 14);
    m = plan(config, index);
    expect_names(m, list);
    model_close(m);
    free(config);
    free(index);
}

/* "name<TAB>ne0, ne1,<TAB>type<TAB>bytes" lines. */
static void expect_tensors(const struct model *m, const char *tsv)
{
    char line[300], name[100], dims[100], type[20];
    unsigned long long n_bytes;
    size_t n = 0;
    FILE *f = fopen(tsv, "rb");
    assert_non_null(f);
    while (fgets(line, sizeof line, f)) {
        assert_int_equal(sscanf(line, "%99[^\t]\t%99[^\t]\t%19[^\t]\t%llu", name, dims, type, &n_bytes), 4);
        const struct model_tensor *t = model_find(m, name);
        if (!t)
            fail_msg("%s is not made", name);
        uint32_t k = 0;
        for (char *p = dims; *p; k++) {
            assert_true(k < t->n_dims);
            if (strtoull(p, &p, 10) != t->ne[k])
                fail_msg("%s: dimensions are not %s", name, dims);
            p += strspn(p, ", ");
        }
        assert_int_equal(k, t->n_dims);
        assert_int_equal(t->always_f32, strcmp(type, "f32") == 0);
        assert_int_equal(t->ne[0] * t->n_rows * (t->always_f32 ? 4 : 2), n_bytes);
        n++;
    }
    fclose(f);
    assert_int_equal(n, model_n_tensors(m));
}

static void qwen3_has_the_published_tensors(void **state)
{
    (void)state;
    const char *params = shared("tensor-lists/maxtext-qwen3-hf_params.json");
    if (!params)
        skip();
    struct json_doc *doc = NULL;
    char *index = NULL;
    size_t n;
    assert_int_equal(json_load(&doc, params, 0, NULL), 0);
    FILE *f = open_memstream(&index, &n);
    fputs("{\"weight_map\": {", f);
    for (const struct json *j = json_first(json_root(doc)); j; j = json_next(j))
        fprintf(f, "%s\"%s\": \"model-00001-of-00001.safetensors\"",
                j == json_first(json_root(doc)) ? "" : ",", json_key(j));
    fputs("}}", f);
    fclose(f);
    json_free(doc);
    char *config = read_text(shared("configs/slices/Qwen3-4B.config.json"), &n);
    struct model *m = plan(config, index);
    expect_tensors(m, shared("tensor-lists/Qwen3-4B-Thinking-2507.bf16.tsv"));
    model_close(m);
    free(config);
    free(index);
}

/* Layer index patterns of Qwen3.5, with the prefix of the conditional-generation class. */
static char *make_hybrid_index(unsigned n_layers, bool moe)
{
    static const char *const linear[] = {
        "in_proj_qkv.weight", "in_proj_z.weight", "in_proj_a.weight", "in_proj_b.weight", "A_log", "dt_bias",
        "conv1d.weight",      "norm.weight",      "out_proj.weight"};
    static const char *const full[] = {"q_proj", "k_proj", "v_proj", "o_proj", "q_norm", "k_norm"};
    static const char *const dense_ffn[] = {"gate_proj.weight", "up_proj.weight", "down_proj.weight"};
    static const char *const moe_ffn[] = {"gate.weight",
                                          "experts.gate_up_proj",
                                          "experts.down_proj",
                                          "shared_expert.gate_proj.weight",
                                          "shared_expert.up_proj.weight",
                                          "shared_expert.down_proj.weight",
                                          "shared_expert_gate.weight"};
    static const char file[] = "model-00001-of-00001.safetensors", prefix[] = "model.language_model";
    char *text = NULL;
    size_t n;
    FILE *f = open_memstream(&text, &n);
    fprintf(f,
            "{\"weight_map\": {\"%s.embed_tokens.weight\": \"%s\", \"%s.norm.weight\": \"%s\","
            " \"lm_head.weight\": \"%s\", \"model.visual.blocks.0.norm1.weight\": \"%s\"",
            prefix, file, prefix, file, file, file);
    for (unsigned i = 0; i < n_layers; i++) {
        fprintf(f, ", \"%s.layers.%u.input_layernorm.weight\": \"%s\"", prefix, i, file);
        fprintf(f, ", \"%s.layers.%u.post_attention_layernorm.weight\": \"%s\"", prefix, i, file);
        for (size_t k = 0; (i + 1) % 4 != 0 && k < 9; k++)
            fprintf(f, ", \"%s.layers.%u.linear_attn.%s\": \"%s\"", prefix, i, linear[k], file);
        for (size_t k = 0; (i + 1) % 4 == 0 && k < 6; k++)
            fprintf(f, ", \"%s.layers.%u.self_attn.%s.weight\": \"%s\"", prefix, i, full[k], file);
        for (size_t k = 0; k < (moe ? 7 : 3); k++)
            fprintf(f, ", \"%s.layers.%u.mlp.%s\": \"%s\"", prefix, i, moe ? moe_ffn[k] : dense_ffn[k], file);
    }
    fputs("}}", f);
    fclose(f);
    return text;
}

static void check_hybrid(const char *config_name, const char *tsv_name, unsigned n_layers, bool moe)
{
    const char *path = shared(config_name);
    if (!path)
        skip();
    size_t n;
    char *config = read_text(path, &n), *index = make_hybrid_index(n_layers, moe);
    struct model *m = plan(config, index);
    expect_tensors(m, shared(tsv_name));
    assert_int_equal(model_n_skipped(m), 1);
    model_close(m);
    free(config);
    free(index);
}

static void qwen35_has_the_published_tensors(void **state)
{
    (void)state;
    check_hybrid("configs/Qwen--Qwen3.5-35B-A3B_config.json", "tensor-lists/Qwen3.5-35B-A3B.bf16.tsv", 40,
                 true);
    check_hybrid("configs/Qwen--Qwen3.5-27B_config.json", "tensor-lists/Qwen3.5-27B.bf16.tsv", 64, false);
}

static void qwen3_vl_has_the_published_tensors(void **state)
{
    (void)state;
    static const char *const parts[] = {
        "input_layernorm.weight",   "post_attention_layernorm.weight", "self_attn.q_proj.weight",
        "self_attn.k_proj.weight",  "self_attn.v_proj.weight",         "self_attn.o_proj.weight",
        "self_attn.q_norm.weight",  "self_attn.k_norm.weight",         "mlp.gate.weight",
        "mlp.experts.gate_up_proj", "mlp.experts.down_proj",           NULL};
    const char *path = shared("configs/Qwen--Qwen3-VL-235B-A22B-Instruct_config.json");
    if (!path)
        skip();
    size_t n;
    char *config = read_text(path, &n), *index = make_index(94, false, parts);
    struct model *m = plan(config, index);
    expect_tensors(m, shared("tensor-lists/Qwen3-VL-235B-A22B-Instruct.bf16.tsv"));
    model_close(m);
    free(config);
    free(index);
}

static void mixtral_has_the_published_names(void **state)
{
    (void)state;
    const char *path = shared("configs/mistralai--Mixtral-8x7B-v0.1_config.json");
    if (!path)
        skip();
    const char *parts[6 + 1 + 3 * 8 + 1] = {"input_layernorm.weight",      "post_attention_layernorm.weight",
                                            "self_attn.q_proj.weight",     "self_attn.k_proj.weight",
                                            "self_attn.v_proj.weight",     "self_attn.o_proj.weight",
                                            "block_sparse_moe.gate.weight"};
    static char names[24][50];
    for (int i = 0; i < 24; i++) {
        snprintf(names[i], sizeof names[i], "block_sparse_moe.experts.%d.w%d.weight", i / 3, i % 3 + 1);
        parts[7 + i] = names[i];
    }
    size_t n;
    char *config = read_text(path, &n), *index = make_index(32, false, parts);
    struct model *m = plan(config, index);
    const struct model_tensor *t = model_find(m, "blk.31.ffn_down_exps.weight");
    assert_int_equal(model_n_tensors(m), 3 + 10 * 32);
    assert_true(t && t->ne[0] == 14336 && t->ne[1] == 4096 && t->ne[2] == 8);
    model_close(m);
    free(config);
    free(index);
}

/* Indices as they were published, with their own configuration. */
static void check_published(const char *folder, size_t n_tensors)
{
    char name[200];
    size_t n;
    snprintf(name, sizeof name, "configs/%s/config.json", folder);
    const char *path = shared(name);
    if (!path)
        skip();
    char *config = read_text(path, &n);
    snprintf(name, sizeof name, "configs/%s/model.safetensors.index.json", folder);
    char *index = read_text(shared(name), &n);
    struct model *m = plan(config, index);
    assert_int_equal(model_n_tensors(m), n_tensors);
    model_close(m);
    free(config);
    free(index);
}

static void published_indices_map_completely(void **state)
{
    (void)state;
    check_published("Qwen-72B-Chat", 3 + 8 * 80);
    check_published("Qwen3.5-18B-REAP-A3B-Coding", 733);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(qwen25_has_the_published_names),
        cmocka_unit_test(llama3_has_the_published_names),
        cmocka_unit_test(qwen3_has_the_published_tensors),
        cmocka_unit_test(qwen35_has_the_published_tensors),
        cmocka_unit_test(qwen3_vl_has_the_published_tensors),
        cmocka_unit_test(mixtral_has_the_published_names),
        cmocka_unit_test(published_indices_map_completely),
    };
    return cmocka_run_group_tests_name("model_names", tests, scratch_begin, scratch_end);
}
