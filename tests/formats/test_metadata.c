/* test_metadata.c - model cards, model names and the general.* keys that come from them. */
#include "formats/metadata/metadata.h"
#include "formats/metadata/model_card.h"
#include "formats/metadata/model_name.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* --- model cards --------------------------------------------------------------------------------------- */

/* The tree as one line: maps {k:v,...}, lists [v,...], texts 'v', null ~. */
static void print_node(FILE *f, const struct card_node *n)
{
    const char *open = n->kind == CARD_MAP ? "{" : "[", *close = n->kind == CARD_MAP ? "}" : "]";
    if (n->kind == CARD_NULL || n->kind == CARD_TEXT) {
        fprintf(f, n->kind == CARD_TEXT ? "'%s'" : "~", n->text ? n->text : "");
        return;
    }
    fputs(open, f);
    for (const struct card_node *c = n->first; c; c = c->next) {
        if (c->key)
            fprintf(f, "%s:", c->key);
        print_node(f, c);
        fputs(c->next ? "," : "", f);
    }
    fputs(close, f);
}

static char *parse(const char *text, struct err *e)
{
    struct model_card *card = NULL;
    char *out = NULL;
    size_t n = 0;
    if (model_card_parse(&card, text, strlen(text), e) != 0)
        return NULL;
    FILE *f = open_memstream(&out, &n);
    assert_non_null(f);
    print_node(f, model_card_root(card));
    fclose(f);
    model_card_free(card);
    return out;
}

/* Expected trees are those of PyYAML, but for scalars, which are always text here. */
static void front_matter_is_read_as_yaml(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        {"", "{}"},
        {"# no front matter\n---\na: b\n---\n", "{}"},
        {"---\n---\n", "{}"},
        {"---\nlicense: mit\n---\n# Title\nx: y\n", "{license:'mit'}"},
        {"---\r\nlicense: mit\r\nn: 1\r\n---\r\n", "{license:'mit',n:'1'}"},
        {"---\nlanguage:\n- en\n- no\n---\n", "{language:['en','no']}"},
        {"---\nlanguage:\n  - en\n\n  # a comment\n  - de # here too\n---\n", "{language:['en','de']}"},
        {"---\ntags: [a, \"b c\", 'd''e', f-g]\n---\n", "{tags:['a','b c','d'e','f-g']}"},
        {"---\ntags: [a,\n  b,\n  c]\nx: y\n---\n", "{tags:['a','b','c'],x:'y'}"},
        {"---\na: {b: c, d: [e, {f: g}]}\n---\n", "{a:{b:'c',d:['e',{f:'g'}]}}"},
        {"---\na: []\nb: {}\nc:\nd: ~\ne: null\nf: \"\"\n---\n", "{a:[],b:{},c:~,d:~,e:~,f:''}"},
        {"---\nurl: https://x.y/z#frag # comment\n---\n", "{url:'https://x.y/z#frag'}"},
        {"---\na: \"x: y # z\"\nb: 'it''s'\nc: \"\\u00e9\\n\\x41\"\n---\n",
         "{a:'x: y # z',b:'it's',c:'\xc3\xa9\nA'}"},
        {"---\na: one\n  two\n  three\nb: c\n---\n", "{a:'one two three',b:'c'}"},
        {"---\na: |\n  one\n   two\n\n  three\n\nb: c\n---\n", "{a:'one\n two\n\nthree\n',b:'c'}"},
        {"---\na: >-\n  one\n  two\n\n  three\nb: c\n---\n", "{a:'one two\nthree',b:'c'}"},
        {"---\na: |+\n  one\n\nb: c\n---\n", "{a:'one\n\n',b:'c'}"},
        {"---\nbase_model:\n- name: A\n  organization: B\n- org/c\n---\n",
         "{base_model:[{name:'A',organization:'B'},'org/c']}"},
        {"---\nmodel-index:\n- name: x\n  results:\n  - task:\n      type: t\n    metrics:\n    - value: "
         "1\n---\n",
         "{model-index:[{name:'x',results:[{task:{type:'t'},metrics:[{value:'1'}]}]}]}"},
        {"---\nx:\n- - a\n  - b\n- c\n---\n", "{x:[['a','b'],'c']}"},
        {"---\nx:\n\t- a\n---\n", "{x:['a']}"},
        {"---\n\"quoted key\": v\n---\n", "{quoted key:'v'}"},
        {"---\na: |2\n    one\n---\n", "{a:'  one\n'}"},
        {"---\n'it''s': \"a\\\n  b\"\n---\n", "{it's:'ab'}"},
        {"---\n# nothing but a comment\n---\n", "{}"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct err e = {0};
        char *tree = parse(cases[i][0], &e);
        if (!tree)
            fail_msg("case %zu: %s", i, e.msg);
        assert_string_equal(tree, cases[i][1]);
        free(tree);
    }
}

static void front_matter_that_is_no_plain_yaml_is_refused(void **state)
{
    (void)state;
    static const char *const cases[] = {
        "---\n- - a\n---\n",      "---\na: &anchor b\n---\n",
        "---\na: *alias\n---\n",  "---\na: !!str b\n---\n",
        "---\na: [b, c\n---\n",   "---\na: \"b\n---\n",
        "---\na: \"\\q\"\n---\n", "---\na: \"\\u0000\"\n---\n",
        "---\na: [b] c\n---\n",   "---\na:\n    b: c\n  d: e\n---\n",
        "---\njust text\n---\n",  "---\na: b\n\xff: c\n---\n",
        "---\na: b: c\n---\n",    "---\n? [a, b]\n: c\n---\n",
        "---\n&k a: b\n---\n",    "---\na: b\n...\nc: d\n---\n",
        "---\na: \"\\0\"\n---\n",
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct err e = {0};
        char *tree = parse(cases[i], &e);
        if (tree)
            fail_msg("case %zu was accepted: %s", i, tree);
        assert_int_equal(e.code, ERR_FORMAT);
        assert_non_null(strstr(e.msg, "front matter"));
    }
}

static void errors_name_the_line(void **state)
{
    (void)state;
    struct err e = {0};
    assert_null(parse("---\na: b\nc: d\n- e\n---\n", &e));
    assert_non_null(strstr(e.msg, "line 4"));
}

static void nesting_is_bounded(void **state)
{
    (void)state;
    char text[2048] = "---\na: ";
    struct err e = {0};
    memset(text + strlen(text), '[', 1000);
    assert_null(parse(text, &e));
    assert_non_null(strstr(e.msg, "deep"));
    char list[2100] = "---\na:\n";
    for (int i = 0; i < 1000; i++)
        strcat(list, "- ");
    assert_null(parse(list, &e));
    assert_non_null(strstr(e.msg, "deep"));
}

static void a_repeated_key_counts_once_the_last(void **state)
{
    (void)state;
    static const char text[] = "---\na: b\na: c\n---\n";
    struct model_card *card = NULL;
    assert_int_equal(model_card_parse(&card, text, strlen(text), NULL), 0);
    assert_string_equal(card_get(model_card_root(card), "a")->text, "c");
    assert_null(card_get(model_card_root(card), "b"));
    assert_null(card_get(card_get(model_card_root(card), "a"), "x"));
    model_card_free(card);
}

/* --- names --------------------------------------------------------------------------------------------- */

static const char *or_none(const char *s)
{
    return s ? s : "(none)";
}

/* Answers of llama.cpp's gguf-py (August 2026). */
struct name_case {
    const char *id;
    uint64_t n_params;
    struct model_name want; /* full, organization, basename, finetune, version, size_label */
    const char *title;
};

static void take_apart(const struct name_case *cases, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        struct arena arena = {0};
        struct model_name got;
        const char *title;
        assert_int_equal(model_name_parse(&got, cases[i].id, cases[i].n_params, &arena, NULL), 0);
        assert_string_equal(got.full, cases[i].want.full);
        assert_string_equal(or_none(got.organization), or_none(cases[i].want.organization));
        assert_string_equal(or_none(got.basename), or_none(cases[i].want.basename));
        assert_string_equal(or_none(got.finetune), or_none(cases[i].want.finetune));
        assert_string_equal(or_none(got.version), or_none(cases[i].want.version));
        assert_string_equal(or_none(got.size_label), or_none(cases[i].want.size_label));
        assert_int_equal(model_name_title(&title, got.full, &arena, NULL), 0);
        assert_string_equal(title, cases[i].title);
        arena_release(&arena);
    }
}

static void names_of_models_are_taken_apart_as_the_reference_does(void **state)
{
    (void)state;
    static const struct name_case cases[] = {
        {"Qwen/Qwen2.5-Coder-7B-Instruct",
         7615616512ull,
         {"Qwen2.5-Coder-7B-Instruct", "Qwen", "Qwen2.5-Coder", "Instruct", NULL, "7B"},
         "Qwen2.5 Coder 7B Instruct"},
        {"Qwen/Qwen2.5-Coder-7B-Instruct",
         0,
         {"Qwen2.5-Coder-7B-Instruct", "Qwen", "Qwen2.5-Coder", "Instruct", NULL, "7B"},
         "Qwen2.5 Coder 7B Instruct"},
        {"Qwen2.5-0.5B", 494032768ull, {"Qwen2.5-0.5B", NULL, "Qwen2.5", NULL, NULL, "0.5B"}, "Qwen2.5 0.5B"},
        {"Qwen3-30B-A3B-Instruct-2507",
         30532122624ull,
         {"Qwen3-30B-A3B-Instruct-2507", NULL, "Qwen3", "Instruct", "2507", "30B-A3B"},
         "Qwen3 30B A3B Instruct 2507"},
        {"Qwen2.5-7B-Instruct-1M",
         7615616512ull,
         {"Qwen2.5-7B-Instruct-1M", NULL, "Qwen2.5", "Instruct-1m", NULL, "7B"},
         "Qwen2.5 7B Instruct 1M"},
        {"meta-llama/Llama-3.1-8B-Instruct",
         8030261248ull,
         {"Llama-3.1-8B-Instruct", "meta-llama", "Llama-3.1", "Instruct", NULL, "8B"},
         "Llama 3.1 8B Instruct"},
        {"Mixtral-8x7B-v0.1",
         46702792704ull,
         {"Mixtral-8x7B-v0.1", NULL, "Mixtral", NULL, "v0.1", "8x7B"},
         "Mixtral 8x7B v0.1"},
        {"bloom-7b1", 7069016064ull, {"bloom-7b1", NULL, "bloom", NULL, NULL, "7.1B"}, "Bloom 7b1"},
        {"Qwen1.5-MoE-A2.7B-Chat",
         14315784192ull,
         {"Qwen1.5-MoE-A2.7B-Chat", NULL, "Qwen1.5-MoE", "Chat", NULL, "A2.7B"},
         "Qwen1.5 MoE A2.7B Chat"},
        {"gpt2-xl", 1557611200ull, {"gpt2-xl", NULL, "gpt2", NULL, NULL, "xl"}, "Gpt2 Xl"},
        {"gpt2-large-774M",
         774030080ull,
         {"gpt2-large-774M", NULL, "gpt2-large", NULL, NULL, "774M"},
         "Gpt2 Large 774M"},
        {"Qwen3-4B-Q4_K_M-bf16",
         4022468096ull,
         {"Qwen3-4B-Q4_K_M-bf16", NULL, "Qwen3", NULL, NULL, "4B"},
         "Qwen3 4B Q4_K_M Bf16"},
        {"Yarn-Llama-2-7b-128k",
         6738415616ull,
         {"Yarn-Llama-2-7b-128k", NULL, "Yarn-Llama-2", "128k", NULL, "7B"},
         "Yarn Llama 2 7b 128k"},
    };
    take_apart(cases, sizeof cases / sizeof *cases);
}

static void names_of_another_pattern_are_taken_as_far_as_it_goes(void **state)
{
    (void)state;
    static const struct name_case cases[] = {
        {"demo-qwen3", 4197120ull, {"demo-qwen3", NULL, NULL, NULL, NULL, NULL}, "Demo Qwen3"},
        {"./local-dir-3b",
         3000000000ull,
         {"local-dir-3b", NULL, "local-dir", NULL, NULL, "3B"},
         "Local Dir 3b"},
        {"a sentence with spaces",
         5,
         {"a sentence with spaces", NULL, NULL, NULL, NULL, NULL},
         "A Sentence With Spaces"},
        {"org/sub/dir", 0, {"sub/dir", "org", NULL, NULL, NULL, NULL}, "Sub/Dir"},
        {"x--y", 0, {"x--y", NULL, NULL, NULL, NULL, NULL}, "X Y"},
        {"tiny_model-8_5b-iter3",
         8500000000ull,
         {"tiny_model-8_5b-iter3", NULL, "tiny_model", NULL, "iter3", "8.5B"},
         "Tiny_Model 8_5b Iter3"},
        {"v2-model", 0, {"v2-model", NULL, NULL, NULL, NULL, NULL}, "v2 Model"},
        {"Qwen-Qwen-3B-3B",
         3000000000ull,
         {"Qwen-Qwen-3B-3B", NULL, "Qwen-Qwen", NULL, NULL, "3B"},
         "Qwen Qwen 3B 3B"},
        {"mini-2-chat-lora",
         100000,
         {"mini-2-chat-lora", NULL, "mini-2", "chat-lora", NULL, NULL},
         "Mini 2 Chat Lora"},
    };
    take_apart(cases, sizeof cases / sizeof *cases);
}

static void titles_capitalise_words_but_not_versions(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        {"deepseek-ai", "Deepseek Ai"},
        {"o'neil v1.5 v1x 3b ABC", "O'Neil v1.5 V1X 3b ABC"},
        {"  a--b  ", "A B"},
        {"\xc3\xa9"
         "a \xc3\xb1",
         "\xc3\x89"
         "a \xc3\x91"},
        {"v", "V"},
        {"v1.", "V1."},
        {"v1..2", "V1..2"},
        {"", ""},
        {"\xff\xfe", "\xff\xfe"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct arena arena = {0};
        const char *title;
        assert_int_equal(model_name_title(&title, cases[i][0], &arena, NULL), 0);
        assert_string_equal(title, cases[i][1]);
        arena_release(&arena);
    }
}

static void size_labels_have_two_digits(void **state)
{
    (void)state;
    static const struct {
        uint64_t total, shared, expert, n_experts;
        const char *want;
    } cases[] = {
        {494032768ull, 0, 0, 0, "494M"},
        {7615616512ull, 0, 0, 0, "7.6B"},
        {32763876352ull, 0, 0, 0, "33B"},
        {4197120, 0, 0, 0, "4.2M"},
        {999, 0, 0, 0, "1.0K"},
        {1000000, 0, 0, 0, "1000K"},
        {1000001, 0, 0, 0, "1.0M"},
        {9999999, 0, 0, 0, "10M"},
        {10500000, 0, 0, 0, "10M"},
        {1500000000000ull, 0, 0, 0, "1.5T"},
        {30532122624ull, 1543000000, 226492416, 128, "128x1.8B"},
        {0, 0, 0, 0, "0.00K"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct arena arena = {0};
        assert_string_equal(model_name_size_label(cases[i].total, cases[i].shared, cases[i].expert,
                                                  cases[i].n_experts, &arena),
                            cases[i].want);
        arena_release(&arena);
    }
}

/* --- general keys -------------------------------------------------------------------------------------- */

static int keep_warning(void *ctx, const char *text, struct err *e)
{
    (void)e;
    char *all = ctx; /* of 300 bytes */
    snprintf(all + strlen(all), 300 - strlen(all), "%s; ", text);
    return 0;
}

static struct gguf_meta *general(const char *readme, const char *generation, const char *name_or_path,
                                 const char *folder, uint64_t n_params, char *warning)
{
    struct gguf_meta *meta = NULL;
    struct json_doc *doc = NULL;
    struct err e = {0};
    struct metadata_sizes sizes = {.total = n_params, .shared = n_params};
    struct arch_warnings w = {keep_warning, warning};
    assert_int_equal(gguf_meta_new(&meta, &e), 0);
    if (generation)
        assert_int_equal(json_parse(&doc, generation, strlen(generation), "generation_config.json", &e), 0);
    if (metadata_general(meta, readme, readme ? strlen(readme) : 0, json_root(doc), name_or_path, folder,
                         &sizes, &w, &e) != 0)
        fail_msg("%s", e.msg);
    json_free(doc);
    return meta;
}

static void expect_text(const struct gguf_meta *meta, const char *key, const char *want)
{
    struct gguf_string s;
    bool found = gguf_meta_get_string(meta, key, &s);
    if (found != (want != NULL))
        fail_msg("key %s is %s", key, found ? "there" : "missing");
    if (want && (s.len != strlen(want) || memcmp(s.data, want, s.len) != 0))
        fail_msg("key %s is '%.*s', not '%s'", key, (int)s.len, s.data, want);
}

static void expect_list(const struct gguf_meta *meta, const char *key, const char *want)
{
    const struct gguf_value *v = gguf_meta_find(meta, key);
    char text[300] = "";
    assert_non_null(v);
    assert_int_equal(v->a.elem, GGUF_STRING);
    const struct gguf_string *s = v->a.data;
    for (uint64_t i = 0; i < v->a.n; i++)
        snprintf(text + strlen(text), sizeof text - strlen(text), "%s%.*s", i ? "," : "", (int)s[i].len,
                 s[i].data);
    assert_string_equal(text, want);
}

static const char card[] = "---\n"
                           "license: apache-2.0\n"
                           "license_link: https://huggingface.co/Qwen/x/blob/main/LICENSE\n"
                           "language:\n- en\n- no\n"
                           "base_model:\n- Qwen/Qwen2.5-Coder-7B\n- https://huggingface.co/org-x/base-v2\n"
                           "- name: Foo\n  version: 1.0\n- ssh://host/x\n"
                           "pipeline_tag: text-generation\n"
                           "tags:\n- code\n- chat\n"
                           "datasets: org/some-data-v2\n"
                           "model_creator: Someone\n"
                           "---\n# Title\n";

/* Values as llama.cpp's converter writes them for the same card. */
static void a_model_card_fills_the_general_keys(void **state)
{
    (void)state;
    char warning[300] = "";
    uint64_t n;
    double f;
    int64_t i;
    struct gguf_meta *m = general(card,
                                  "{\"temperature\": 0.7, \"top_k\": 20, \"top_p\": 0.8, "
                                  "\"repetition_penalty\": 1.05, \"min_p\": null}",
                                  NULL, "Qwen2.5-Coder-7B-Instruct", 7615616512ull, warning);
    assert_string_equal(warning, "");
    expect_text(m, "general.name", "Qwen2.5 Coder 7B Instruct");
    expect_text(m, "general.author", "Someone");
    expect_text(m, "general.finetune", "Instruct");
    expect_text(m, "general.basename", "Qwen2.5-Coder");
    expect_text(m, "general.size_label", "7B");
    expect_text(m, "general.organization", NULL);
    expect_text(m, "general.version", NULL);
    expect_text(m, "general.license", "apache-2.0");
    expect_text(m, "general.license.link", "https://huggingface.co/Qwen/x/blob/main/LICENSE");
    expect_list(m, "general.tags", "code,chat,text-generation");
    expect_list(m, "general.languages", "en,no");
    assert_true(gguf_meta_get_u64(m, "general.base_model.count", &n) && n == 4);
    expect_text(m, "general.base_model.0.name", "Qwen2.5 Coder 7B");
    expect_text(m, "general.base_model.0.organization", "Qwen");
    expect_text(m, "general.base_model.0.repo_url", "https://huggingface.co/Qwen/Qwen2.5-Coder-7B");
    expect_text(m, "general.base_model.1.name", "Base v2");
    expect_text(m, "general.base_model.1.organization", "Org X");
    expect_text(m, "general.base_model.1.version", "v2");
    expect_text(m, "general.base_model.1.repo_url", "https://huggingface.co/org-x/base-v2");
    expect_text(m, "general.base_model.2.name", "Foo");
    expect_text(m, "general.base_model.2.version", "1.0");
    expect_text(m, "general.base_model.3.name", NULL);
    expect_text(m, "general.base_model.3.repo_url", "ssh://host/x");
    assert_true(gguf_meta_get_u64(m, "general.dataset.count", &n) && n == 1);
    expect_text(m, "general.dataset.0.version", "v2");
    assert_true(gguf_meta_get_f64(m, "general.sampling.temp", &f) && (float)f == 0.7f);
    assert_int_equal(gguf_meta_find(m, "general.sampling.top_k")->type, GGUF_I32);
    assert_true(gguf_meta_get_i64(m, "general.sampling.top_k", &i) && i == 20);
    assert_null(gguf_meta_find(m, "general.sampling.min_p"));
    assert_null(gguf_meta_find(m, "general.sampling.penalty_repeat"));
    gguf_meta_free(m);
}

static void sources_of_a_name_have_their_order(void **state)
{
    (void)state;
    char warning[300] = "";
    struct gguf_meta *m = general("---\nname: From Card\nmodel_name: no\nversion: 2.0\n---\n", NULL,
                                  "Some-Org/base-4M-v2", "folder-7b-chat", 4197120, warning);
    expect_text(m, "general.name", "From Card");
    expect_text(m, "general.organization", "Some Org");
    expect_text(m, "general.version", "2.0");
    expect_text(m, "general.basename", "base");
    expect_text(m, "general.size_label", "4M");
    expect_text(m, "general.finetune", "7b-chat"); /* 7b is far from 4.2 million, so it is no size */
    gguf_meta_free(m);

    m = general(NULL, NULL, "/home/x/models/some-7b", "demo-qwen3", 4197120, warning); /* a path is no name */
    expect_text(m, "general.name", "Demo Qwen3");
    expect_text(m, "general.size_label", "4.2M");
    expect_text(m, "general.basename", NULL);
    gguf_meta_free(m);
}

static void a_broken_card_is_a_warning_not_a_failure(void **state)
{
    (void)state;
    char warning[300] = "";
    struct gguf_meta *m = general("---\na: *b\n---\n", "{\"top_k\": \"many\"}", NULL, "x", 5, warning);
    assert_non_null(strstr(warning, "README.md"));
    expect_text(m, "general.name", "X");
    assert_null(gguf_meta_find(m, "general.sampling.top_k"));
    gguf_meta_free(m);
}

static void a_list_of_licenses_is_joined(void **state)
{
    (void)state;
    char warning[300] = "";
    struct gguf_meta *m =
        general("---\nlicense: [mit, apache-2.0]\nbase_model: []\n---\n", NULL, NULL, "x", 5, warning);
    uint64_t n = 9;
    expect_text(m, "general.license", "mit,apache-2.0");
    assert_true(gguf_meta_get_u64(m, "general.base_model.count", &n) && n == 0);
    assert_null(gguf_meta_find(m, "general.tags"));
    gguf_meta_free(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(front_matter_is_read_as_yaml),
        cmocka_unit_test(front_matter_that_is_no_plain_yaml_is_refused),
        cmocka_unit_test(errors_name_the_line),
        cmocka_unit_test(nesting_is_bounded),
        cmocka_unit_test(a_repeated_key_counts_once_the_last),
        cmocka_unit_test(names_of_models_are_taken_apart_as_the_reference_does),
        cmocka_unit_test(names_of_another_pattern_are_taken_as_far_as_it_goes),
        cmocka_unit_test(titles_capitalise_words_but_not_versions),
        cmocka_unit_test(size_labels_have_two_digits),
        cmocka_unit_test(a_model_card_fills_the_general_keys),
        cmocka_unit_test(sources_of_a_name_have_their_order),
        cmocka_unit_test(a_broken_card_is_a_warning_not_a_failure),
        cmocka_unit_test(a_list_of_licenses_is_joined),
    };
    return cmocka_run_group_tests_name("metadata", tests, NULL, NULL);
}
