/* test_model_answers.c - checkpoints of models that answer once for a text: rerankers, score heads, reward
 * models, embeddings with a pooling. */
#include "builder.h"
#include "open_model.h"
#include "scratch.h"
#include "toy_family.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

/* A dense Qwen3 of this builder. */
static void build_qwen3(struct builder *b, bool tied)
{
    char name[100];
    builder_fill(b, "Qwen3ForCausalLM", tied, 0);
    for (int n = 0; n < L; n++)
        for (int i = 0; i < 2; i++) {
            snprintf(name, sizeof name, "model.layers.%d.self_attn.%s_norm.weight", n, i ? "q" : "k");
            builder_add(b, name, 1, D / H, 0, 0);
        }
}

static void write_tokenizer(const char *folder, const char *const *named, size_t n_named)
{
    char *text = NULL;
    size_t n;
    FILE *f = open_memstream(&text, &n);
    fputs("{\"model\": {\"type\": \"BPE\", \"vocab\": {", f);
    for (size_t i = 0; i < V; i++) {
        if (i < n_named)
            fprintf(f, "%s\"%s\": %zu", i ? ", " : "", named[i], i);
        else
            fprintf(f, ", \"t%zu\": %zu", i, i);
    }
    fputs("}, \"merges\": []}, \"added_tokens\": [], \"pre_tokenizer\": {\"type\": \"Sequence\", "
          "\"pretokenizers\": [{\"type\":"
          "\"Split\", \"pattern\": {\"Regex\": "
          "\"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?\\\\p{L}+|\\\\p{N}| "
          "?[^\\\\s\\\\p{L}\\\\p{N}]+[\\\\r\\\\n]*|\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s+\"}, "
          "\"behavior\": "
          "\"Isolated\", \"invert\": false}, {\"type\": \"ByteLevel\", \"use_regex\": false}]}}",
          f);
    fclose(f);
    scratch_text_in(folder, "tokenizer.json", text);
    free(text);
}

/* Specification, architectures 12: row 0 is that of "yes", row 1 that of "no". */
static void a_reranker_keeps_two_rows_of_its_head(void **state)
{
    (void)state;
    static const char *const tokens[] = {"a", "b", "c", "no", "d", "yes"};
    for (int tied = 0; tied < 2; tied++) {
        struct builder *b = malloc(sizeof *b);
        uint64_t u;
        struct gguf_string s;
        build_qwen3(b, tied);
        const char *folder = builder_write(b, tied ? "my-Qwen3-Reranker-0.6B" : "other");
        if (!tied)
            scratch_text_in(folder, "README.md", "---\nlicense: mit\n---\n\n# Qwen3-Reranker-4B\n");
        expect_refusal(folder, ERR_FORMAT, "token 'yes'");
        write_tokenizer(folder, tokens, 6);
        struct model *m = open_model(folder);
        const struct tensor_spec *head = spec_of(b, tied ? "model.embed_tokens.weight" : "lm_head.weight");
        const struct model_tensor *t = model_find(m, "cls.output.weight");
        assert_true(t && t->n_dims == 2 && t->ne[0] == D && t->ne[1] == 2);
        float *x = read_all(m, t);
        for (uint64_t c = 0; c < D; c++) {
            assert_true(x[c] == spec_value(head, 5 * D + c));
            assert_true(x[D + c] == spec_value(head, 3 * D + c));
        }
        free(x);
        assert_null(model_find(m, "output.weight"));
        assert_non_null(model_find(m, "token_embd.weight"));
        assert_int_equal(model_n_warnings(m), 0);
        assert_true(gguf_meta_get_u64(model_meta(m), "qwen3.pooling_type", &u) && u == 4);
        assert_true(gguf_meta_get_string(model_meta(m), "tokenizer.chat_template.rerank", &s));
        assert_non_null(gguf_meta_find(model_meta(m), "qwen3.classifier.output_labels"));
        model_close(m);
        free(b);
    }
}

static void expect_labels(const struct model *m, const char *key, const char *first, const char *second)
{
    struct gguf_string s;
    const struct gguf_value *v = gguf_meta_find(model_meta(m), key);
    assert_non_null(v);
    assert_int_equal(v->a.n, second ? 2 : 1);
    assert_true(gguf_array_string(v, 0, &s) && gguf_string_is(s, first));
    assert_true(!second || (gguf_array_string(v, 1, &s) && gguf_string_is(s, second)));
}

/* Change one text of a file to another of the same length. */
static void replace_in(const char *folder, const char *name, const char *from, const char *to)
{
    char path[300], *text = NULL, *at;
    size_t n = strlen(from);
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *f = fopen(path, "r+b");
    assert_non_null(f);
    fseek(f, 0, SEEK_END);
    size_t size = (size_t)ftell(f);
    text = calloc(size + 1, 1);
    rewind(f);
    assert_int_equal(fread(text, 1, size, f), size);
    assert_int_equal(strlen(to), n);
    for (at = text; (size_t)(at - text) + n <= size && memcmp(at, from, n) != 0; at++)
        ;
    assert_true((size_t)(at - text) + n <= size);
    fseek(f, (long)(at - text), SEEK_SET);
    assert_int_equal(fwrite(to, 1, n, f), n);
    fclose(f);
    free(text);
}

/* llama.cpp's rerankers take the softmax over two labels: a lone score gets a label of zeros. */
static void a_lone_score_is_ranked_beside_zeros(void **state)
{
    (void)state;
    struct err e = {0};
    uint64_t u;
    const char *folder = in_scratch("score");
    assert_int_equal(toy_family_write(folder, "score", &e), 0);
    struct model *m = open_model(folder);
    const struct model_tensor *t = model_find(m, "cls.output.weight");
    assert_true(t && t->ne[0] == 64 && t->ne[1] == 2 && t->type == QTYPE_BF16 && !t->raw);
    float *x = read_all(m, t), *second = malloc(64 * sizeof *second);
    assert_int_equal(model_read_rows(m, t, 1, 1, second, &e), 0);
    double sum = 0;
    for (size_t c = 0; c < 64; c++) {
        sum += fabs((double)x[c]);
        assert_true(x[64 + c] == 0 && second[c] == 0);
    }
    assert_true(sum > 1);
    free(x);
    free(second);
    assert_null(model_find(m, "output.weight"));
    assert_int_equal(model_n_warnings(m), 0);
    assert_true(gguf_meta_get_u64(model_meta(m), "qwen3.pooling_type", &u) && u == 4);
    expect_labels(m, "qwen3.classifier.output_labels", "LABEL_0", "none");
    assert_null(gguf_meta_find(model_meta(m), "tokenizer.chat_template.rerank"));
    model_close(m);

    /* The same head in the folder of a reranker: its labels and prompt. */
    scratch_text_in(folder, "README.md", "# Qwen3-Reranker-0.6B as a classifier\n");
    m = open_model(folder);
    expect_labels(m, "qwen3.classifier.output_labels", "yes", "no");
    assert_non_null(gguf_meta_find(model_meta(m), "tokenizer.chat_template.rerank"));
    model_close(m);

    /* Two labels (HuggingFace's default) do not fit the single row of the file. */
    replace_in(folder, "config.json", "id2label", "no2label");
    expect_refusal(folder, ERR_FORMAT, "'score.weight': shape [2, 64] expected");
}

/* Specification, architectures 5.6: names of our own, which no runtime knows. */
static void a_reward_model_keeps_its_two_layers(void **state)
{
    (void)state;
    struct err e = {0};
    uint64_t u;
    for (int steps = 0; steps < 2; steps++) {
        const char *folder = in_scratch(steps ? "stepreward" : "reward");
        assert_int_equal(toy_family_write(folder, steps ? "stepreward" : "reward", &e), 0);
        struct model *m = open_model(folder);
        const struct model_tensor *hidden = model_find(m, "cls.weight"),
                                  *out = model_find(m, "cls.output.weight");
        assert_true(hidden && hidden->ne[0] == 64 && hidden->ne[1] == 64);
        assert_true(out && out->ne[0] == 64 && out->n_rows == (steps ? 2 : 1));
        assert_true(model_find(m, "cls.bias") && model_find(m, "cls.output.bias"));
        assert_null(model_find(m, "output.weight"));
        assert_int_equal(model_n_skipped(m), 1);
        assert_non_null(strstr(model_skipped(m, 0), "lm_head.weight"));
        assert_int_equal(model_n_warnings(m), 1);
        assert_non_null(strstr(model_warning(m, 0), "no score head for architecture qwen2"));
        assert_true(gguf_meta_get_u64(model_meta(m), "qwen2.pooling_type", &u) && u == 3);
        expect_labels(m, "qwen2.classifier.output_labels", steps ? "wrong" : "reward",
                      steps ? "right" : NULL);
        model_close(m);
        replace_in(folder, "model.safetensors", "score.2.bias", "score.3.bias");
        expect_refusal(folder, ERR_UNSUPPORTED, "score.3.bias");
    }
}

/* Specification, architectures 11.2. */
static void pooling_is_read_from_the_named_module(void **state)
{
    (void)state;
    struct builder *b = malloc(sizeof *b);
    uint64_t u;
    char sub[300];
    build_qwen3(b, true);
    const char *folder = builder_write(b, "pooled");
    struct model *plain = open_model(folder);
    size_t n_warnings = model_n_warnings(plain);
    model_close(plain);
    scratch_text_in(
        folder, "modules.json",
        "[{\"type\": \"a.models.Transformer\", \"path\": \"\"}, {\"type\": \"a.models.Pooling\", \"path\": "
        "\"1_Pooling\"}]");
    snprintf(sub, sizeof sub, "%s/1_Pooling", folder);
    mkdir(sub, 0700);
    static const struct {
        const char *json;
        uint64_t want;
    } cases[] = {{"{\"pooling_mode_mean_tokens\": true}", 1},
                 {"{\"pooling_mode_mean_tokens\": false, \"pooling_mode_cls_token\": true}", 2},
                 {"{\"pooling_mode_lasttoken\": true}", 3},
                 {"{\"pooling_mode\": \"lasttoken\"}", 3},
                 {"{\"pooling_mode\": \"mean\"}", 1},
                 {"{\"pooling_mode\": [\"cls\"]}", 2}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        scratch_text_in(sub, "config.json", cases[i].json);
        struct model *m = open_model(folder);
        assert_true(gguf_meta_get_u64(model_meta(m), "qwen3.pooling_type", &u) && u == cases[i].want);
        assert_int_equal(model_n_warnings(m), n_warnings);
        model_close(m);
    }
    scratch_text_in(
        folder, "modules.json",
        "[{\"type\": \"a.Transformer\"}, {\"type\": \"a.Pooling\", \"path\": \"1_Pooling\"}, {\"type\": "
        "\"a.Dense\", \"path\": \"2_Dense\"}, {\"type\": \"a.Normalize\"}]");
    struct model *m = open_model(folder);
    assert_int_equal(model_n_warnings(m), n_warnings + 1);
    assert_non_null(strstr(model_warning(m, n_warnings), "'a.Dense'"));
    model_close(m);
    scratch_text_in(sub, "config.json", "{\"pooling_mode\": \"weightedmean\"}");
    expect_refusal(folder, ERR_UNSUPPORTED, "only mean, cls and lasttoken");
    scratch_text_in(sub, "config.json", "{\"pooling_mode_max_tokens\": true}");
    expect_refusal(folder, ERR_UNSUPPORTED, "only mean, cls and lasttoken");
    static const char *const joined[] = {
        "{\"pooling_mode_mean_tokens\": true, \"pooling_mode_lasttoken\": true}",
        "{\"pooling_mode_cls_token\": true, \"pooling_mode_max_tokens\": true}",
        "{\"pooling_mode\": [\"mean\", \"lasttoken\"]}"};
    for (size_t i = 0; i < 3; i++) {
        scratch_text_in(sub, "config.json", joined[i]);
        expect_refusal(folder, ERR_UNSUPPORTED, "2 pooling modes at once");
    }
    scratch_text_in(folder, "modules.json", "[{\"type\": \"a.models.Pooling\", \"path\": \"../../etc\"}]");
    expect_refusal(folder, ERR_FORMAT, "'../../etc' is not the name of a folder beside it");
    free(b);
}

/* Merging or saving again loses modules.json, and with it what makes a model one of embeddings. */
static void a_lost_pooling_is_told(void **state)
{
    (void)state;
    static const struct {
        const char *class_name, *folder, *readme, *says; /* NULL: nothing to tell */
    } cases[] = {
        {"Qwen3Model", "merged", NULL,
         "class 'Qwen3Model' is a model without head, but there is no modules.json"},
        {"Qwen3ForCausalLM", "My-Embedding-2B", NULL, "this is named a model of embeddings, but there is no"},
        {"Qwen3ForCausalLM", "tagged", "---\npipeline_tag: sentence-similarity\n---\n",
         "named a model of embeddings"},
        {"Qwen3ForCausalLM", "tagged2", "---\ntags:\n- sentence-transformers\n---\n",
         "named a model of embeddings"},
        {"Qwen3ForCausalLM", "chat", "---\npipeline_tag: text-generation\n---\n", NULL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct builder *b = malloc(sizeof *b);
        build_qwen3(b, true);
        char *at = strstr(b->config, "Qwen3ForCausalLM");
        assert_non_null(at);
        size_t n = strlen("Qwen3ForCausalLM"), k = strlen(cases[i].class_name);
        memmove(at + k, at + n, strlen(at + n) + 1);
        memcpy(at, cases[i].class_name, k);
        const char *folder = builder_write(b, cases[i].folder);
        if (cases[i].readme)
            scratch_text_in(folder, "README.md", cases[i].readme);
        struct model *m = open_model(folder);
        bool told = false;
        for (size_t w = 0; w < model_n_warnings(m); w++)
            told |= strstr(model_warning(m, w), cases[i].says ? cases[i].says : "modules.json") != NULL;
        if (told != (cases[i].says != NULL))
            fail_msg("%s", cases[i].folder);
        model_close(m);
        free(b);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_reranker_keeps_two_rows_of_its_head),
        cmocka_unit_test(a_lone_score_is_ranked_beside_zeros),
        cmocka_unit_test(a_reward_model_keeps_its_two_layers),
        cmocka_unit_test(pooling_is_read_from_the_named_module),
        cmocka_unit_test(a_lost_pooling_is_told),
    };
    return cmocka_run_group_tests_name("model_answers", tests, scratch_begin, scratch_end);
}
