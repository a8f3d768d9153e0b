/* test_hf_config.c - one rule of config.json after another on small texts, then real configs against the
 * published dimensions. */
#include "formats/hf/hf_config.h"

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

static struct hf_config *parse(const char *text)
{
    struct hf_config *c = NULL;
    struct err e = {0};
    if (hf_config_parse(&c, text, strlen(text), "inline", &e) != 0)
        fail_msg("%s: %s", text, e.msg);
    return c;
}

static uint64_t uint_of(const struct hf_config *c, const char *key)
{
    uint64_t v = 0;
    if (!hf_config_uint(c, key, &v, NULL))
        fail_msg("no %s", key);
    return v;
}

static double number_of(const struct hf_config *c, const char *key)
{
    double v = 0;
    if (!hf_config_number(c, key, &v, NULL))
        fail_msg("no %s", key);
    return v;
}

static struct hf_rope rope_of(const struct hf_config *c)
{
    struct hf_rope r;
    struct err e = {0};
    if (hf_config_rope(c, &r, &e) != 0)
        fail_msg("%s", e.msg);
    return r;
}

#define assert_number(a, b) assert_true((a) == (b)) /* exact: both come from the same decimal text */

/* --- which object ----------------------------------------------------------------------------------------
 */

static void the_text_part_overlays_the_root(void **state)
{
    (void)state;
    struct hf_config *c =
        parse("{\"architectures\":[\"Outer\"],\"model_type\":\"outer\",\"hidden_size\":1,\"vocab_size\":7,"
              "\"text_config\":{\"model_type\":\"inner\",\"hidden_size\":2,\"rms_norm_eps\":1e-5}}");
    assert_string_equal(hf_config_architecture(c), "Outer");
    assert_string_equal(hf_config_model_type(c), "inner");
    assert_string_equal(hf_config_string(c, "model_type"), "inner");
    assert_int_equal(uint_of(c, "hidden_size"), 2);
    assert_int_equal(uint_of(c, "vocab_size"), 7);
    assert_number(number_of(c, "rms_norm_eps"), 1e-5);
    assert_non_null(json_get(hf_config_root(c), "text_config"));
    assert_null(hf_config_string(c, "hidden_size"));
    hf_config_free(c);
}

static void the_architecture_of_the_text_part_wins(void **state)
{
    (void)state;
    struct hf_config *c =
        parse("{\"architectures\":[\"Outer\"],\"text_config\":{\"architectures\":[\"Inner\"]}}");
    assert_string_equal(hf_config_architecture(c), "Inner");
    assert_string_equal(hf_config_model_type(c), "");
    hf_config_free(c);
    c = parse("{\"architectures\":[],\"model_type\":\"qwen2\"}");
    assert_string_equal(hf_config_architecture(c), "");
    hf_config_free(c);
}

static void the_text_part_is_the_first_of_four_places(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "{\"thinker_config\":{\"text_config\":{\"n\":1}},\"text_config\":{\"n\":2},\"n\":9}",
        ("{\"language_config\":{\"n\":4},\"llm_config\":{\"n\":3},\"text_config\":{\"n\":1},"
         "\"thinker_config\":{}}"),
        "{\"language_config\":{\"n\":4},\"llm_config\":{\"n\":1},\"text_config\":null}",
        "{\"language_config\":{\"n\":1}}",
        "{\"n\":1}",
    };
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        struct hf_config *c = parse(texts[i]);
        assert_int_equal(uint_of(c, "n"), 1);
        hf_config_free(c);
    }
}

static void what_is_not_an_object_is_refused(void **state)
{
    (void)state;
    static const char *const texts[] = {"[]", "3", "null", "", "{\"a\":1,,}", "{"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        struct hf_config *c = NULL;
        struct err e = {0};
        assert_int_equal(hf_config_parse(&c, texts[i], strlen(texts[i]), "inline", &e), ERR_FORMAT);
        assert_non_null(strstr(e.msg, "inline"));
        assert_null(c);
    }
    hf_config_free(NULL);
}

/* --- defaults --------------------------------------------------------------------------------------------
 */

static void missing_keys_take_the_class_default(void **state)
{
    (void)state;
    struct hf_config *c = parse("{\"model_type\":\"qwen3\",\"hidden_size\":1024}");
    bool present = true, flag = true;
    uint64_t v = 0;
    assert_true(hf_config_uint(c, "head_dim", &v, &present));
    assert_int_equal(v, 128);
    assert_false(present);
    assert_true(hf_config_uint(c, "hidden_size", &v, &present));
    assert_int_equal(v, 1024);
    assert_true(present);
    assert_true(hf_config_bool(c, "use_sliding_window", &flag, &present));
    assert_false(flag);
    assert_number(number_of(c, "rms_norm_eps"), 1e-6);
    assert_false(hf_config_uint(c, "no_such_key", &v, &present));
    assert_false(present);
    /* a default of another kind is no answer */
    assert_false(hf_config_bool(c, "vocab_size", &flag, NULL));
    assert_false(hf_config_uint(c, "rms_norm_eps", &v, NULL));
    hf_config_free(c);
}

static void a_class_without_a_head_dim_has_no_default(void **state)
{
    (void)state;
    uint64_t v;
    struct hf_config *c = parse("{\"model_type\":\"qwen2\"}");
    assert_false(hf_config_uint(c, "head_dim", &v, NULL));
    hf_config_free(c);
}

static void null_is_absence_without_a_default(void **state)
{
    (void)state;
    struct hf_config *c = parse("{\"model_type\":\"mistral\",\"sliding_window\":null,\"head_dim\":null}");
    bool present = true;
    uint64_t v;
    assert_false(hf_config_uint(c, "sliding_window", &v, &present));
    assert_false(present);
    assert_null(hf_config_get(c, "head_dim"));
    hf_config_free(c);
    c = parse("{\"model_type\":\"mistral\"}");
    assert_int_equal(uint_of(c, "sliding_window"), 4096);
    hf_config_free(c);
    /* a null of the text part hides the root's value */
    c = parse("{\"n\":3,\"text_config\":{\"n\":null}}");
    assert_null(hf_config_get(c, "n"));
    hf_config_free(c);
}

static void a_value_of_another_kind_is_present_but_refused(void **state)
{
    (void)state;
    struct hf_config *c = parse("{\"model_type\":\"qwen3\",\"head_dim\":\"128\",\"hidden_size\":-1,"
                                "\"num_hidden_layers\":2.5,\"use_sliding_window\":0,\"rms_norm_eps\":true}");
    static const char *const keys[] = {"head_dim", "hidden_size", "num_hidden_layers"};
    for (size_t i = 0; i < 3; i++) {
        bool present = false;
        uint64_t v;
        assert_false(hf_config_uint(c, keys[i], &v, &present));
        assert_true(present);
    }
    bool present = false, flag;
    double d;
    assert_false(hf_config_bool(c, "use_sliding_window", &flag, &present));
    assert_true(present);
    assert_false(hf_config_number(c, "rms_norm_eps", &d, &present));
    assert_true(present);
    hf_config_free(c);
}

/* The columns of the specification's table that differ most between classes. */
static void the_default_table_holds_the_published_values(void **state)
{
    (void)state;
    static const struct {
        const char *model_type;
        uint64_t vocab, width, layers, heads, kv;
        double theta, rotary;
    } rows[] = {
        {"qwen2", 151936, 4096, 32, 32, 32, 1e4, 1},
        {"qwen2_moe", 151936, 2048, 24, 16, 16, 1e4, 1},
        {"qwen3", 151936, 4096, 32, 32, 32, 1e4, 1},
        {"qwen3_moe", 151936, 2048, 24, 32, 4, 1e4, 1},
        {"qwen3_next", 151936, 2048, 48, 16, 2, 1e4, 0.25},
        {"qwen3_5_text", 248320, 4096, 32, 16, 4, 1e4, 0.25},
        {"qwen3_5_moe_text", 248320, 2048, 40, 16, 2, 1e4, 0.25},
        {"qwen2_vl", 152064, 8192, 80, 64, 8, 1e6, 1},
        {"qwen2_5_vl_text", 152064, 8192, 80, 64, 8, 1e6, 1},
        {"qwen3_vl_text", 151936, 4096, 32, 32, 32, 5e6, 1},
        {"qwen3_vl_moe_text", 151936, 2048, 24, 16, 16, 5e5, 1},
        {"qwen3_omni_moe_text", 3584, 2048, 28, 28, 4, 1e6, 1},
        {"mistral", 32000, 4096, 32, 32, 8, 1e4, 1},
        {"mixtral", 32000, 4096, 32, 32, 8, 1e6, 1},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char text[100];
        snprintf(text, sizeof text, "{\"text_config\":{\"model_type\":\"%s\"}}", rows[i].model_type);
        struct hf_config *c = parse(text);
        assert_int_equal(uint_of(c, "vocab_size"), rows[i].vocab);
        assert_int_equal(uint_of(c, "hidden_size"), rows[i].width);
        assert_int_equal(uint_of(c, "num_hidden_layers"), rows[i].layers);
        assert_int_equal(uint_of(c, "num_attention_heads"), rows[i].heads);
        assert_int_equal(uint_of(c, "num_key_value_heads"), rows[i].kv);
        struct hf_rope r = rope_of(c);
        assert_number(r.theta, rows[i].theta);
        assert_number(r.partial_rotary_factor, rows[i].rotary);
        assert_int_equal(r.type, ROPE_DEFAULT);
        hf_config_free(c);
    }
}

/* --- tied embeddings -------------------------------------------------------------------------------------
 */

static void the_tie_flag_is_the_roots_then_the_text_parts_then_the_class(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        bool tied;
    } rows[] = {
        {"{\"tie_word_embeddings\":false,\"text_config\":{\"tie_word_embeddings\":true}}", false},
        {"{\"tie_word_embeddings\":true,\"text_config\":{\"tie_word_embeddings\":false}}", true},
        {"{\"text_config\":{\"tie_word_embeddings\":true}}", true},
        {"{\"tie_word_embeddings\":null,\"text_config\":{\"tie_word_embeddings\":true}}", true},
        {"{\"thinker_config\":{\"tie_word_embeddings\":false,\"text_config\":{\"tie_word_embeddings\":true}}"
         "}",
         false},
        {"{\"thinker_config\":{\"text_config\":{\"tie_word_embeddings\":true}}}", true},
        {"{\"model_type\":\"qwen3\"}", false},
        {"{\"model_type\":\"qwen3_vl_moe\"}", true},
        {"{\"model_type\":\"unknown\"}", false},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct hf_config *c = parse(rows[i].text);
        assert_int_equal(hf_config_tied(c), rows[i].tied);
        hf_config_free(c);
    }
}

/* --- RoPE ------------------------------------------------------------------------------------------------
 */

static void both_rope_layouts_give_one_record(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "{\"rope_theta\":1e6,\"partial_rotary_factor\":0.5,\"rope_scaling\":{\"type\":\"yarn\",\"factor\":4."
        "0,"
        "\"original_max_position_embeddings\":32768,\"attn_factor\":1.5,\"beta_fast\":16,\"beta_slow\":2,"
        "\"extrapolation_factor\":0.75,\"truncate\":false}}",
        "{\"rope_parameters\":{\"rope_type\":\"yarn\",\"rope_theta\":1e6,\"partial_rotary_factor\":0.5,"
        "\"factor\":4.0,\"attention_factor\":1.5,\"beta_fast\":16,\"beta_slow\":2,\"extrapolation_factor\":0."
        "75,"
        "\"truncate\":false},\"original_max_position_embeddings\":32768,\"rope_theta\":7,"
        "\"rope_scaling\":{}}",
        "{\"rope_parameters\":{\"sliding_attention\":{\"rope_theta\":3},\"full_attention\":{\"type\":"
        "\"yarn\","
        "\"rope_theta\":1e6,\"partial_rotary_factor\":0.5,\"original_max_position_embeddings\":32768,"
        "\"factor\":4.0,\"attention_factor\":1.5,\"beta_fast\":16,\"beta_slow\":2,"
        "\"extrapolation_factor\":0.75,\"truncate\":false}}}",
    };
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        struct hf_config *c = parse(texts[i]);
        struct hf_rope r = rope_of(c);
        assert_int_equal(r.type, ROPE_YARN);
        assert_string_equal(r.type_name, "yarn");
        assert_number(r.theta, 1e6);
        assert_number(r.partial_rotary_factor, 0.5);
        assert_true(r.has_factor && r.has_original_context && r.has_attention_factor && r.has_beta_fast &&
                    r.has_beta_slow && r.has_extrapolation_factor && r.has_truncate);
        assert_number(r.factor, 4);
        assert_int_equal(r.original_context, 32768);
        assert_number(r.attention_factor, 1.5);
        assert_number(r.beta_fast, 16);
        assert_number(r.beta_slow, 2);
        assert_number(r.extrapolation_factor, 0.75);
        assert_false(r.truncate);
        assert_false(r.has_low_freq_factor || r.has_high_freq_factor);
        hf_config_free(c);
    }
}

/* Both layouts at once, as transformers 5 resolves them: rope_scaling decides. */
static void rope_scaling_displaces_the_newer_block(void **state)
{
    (void)state;
    static const char yarn[] = "\"rope_type\":\"yarn\",\"factor\":4.0";
    char text[400];
    snprintf(text, sizeof text,
             "{\"rope_theta\":1e6,\"rope_scaling\":{%s},\"rope_parameters\":{\"rope_type\":\"default\","
             "\"rope_theta\":1e6,\"mrope_section\":[24,20,20]}}",
             yarn);
    struct hf_config *c = parse(text);
    struct hf_rope r = rope_of(c);
    assert_int_equal(r.type, ROPE_YARN);
    assert_number(r.factor, 4);
    assert_number(r.theta, 1e6);
    assert_int_equal(r.n_mrope_sections, 3);
    hf_config_free(c);

    static const char *const lost[][2] = {
        {"\"rope_theta\":1e6", "rope_theta"},
        {"\"rope_type\":\"linear\",\"factor\":4.0", "rope_type"},
        {"\"rope_type\":\"yarn\",\"factor\":2.0", "factor"},
        {"\"rope_type\":\"yarn\",\"factor\":4.0,\"beta_fast\":16", "beta_fast"},
        {"\"partial_rotary_factor\":0.5", "partial_rotary_factor"},
    };
    for (size_t i = 0; i < sizeof lost / sizeof *lost; i++) {
        struct err e = {0};
        char want[60];
        snprintf(text, sizeof text, "{\"rope_scaling\":{%s},\"rope_parameters\":{%s}}", yarn, lost[i][0]);
        snprintf(want, sizeof want, "but '%s' of the latter would be lost", lost[i][1]);
        c = parse(text);
        assert_int_equal(hf_config_rope(c, &r, &e), ERR_FORMAT);
        if (!strstr(e.msg, want))
            fail_msg("%s: %s", lost[i][0], e.msg);
        hf_config_free(c);
    }
}

/* get_mscale(4, 0.7) / get_mscale(4, 1.2) with get_mscale(s, m) = 0.1 m ln(s) + 1, by hand. */
static void yarn_is_inferred_as_the_reference_does(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        bool has;
        double attention, factor;
    } cases[] = {
        {"\"factor\":4.0,\"mscale\":0.7,\"mscale_all_dim\":0.7", true, 1, 4},
        {"\"factor\":4.0,\"mscale\":0.7,\"mscale_all_dim\":1.2", true, 0.94057153, 4},
        {"\"factor\":4.0,\"mscale\":0.7", false, 0, 4},
        {"\"factor\":4.0,\"mscale\":0.7,\"mscale_all_dim\":0", false, 0, 4},
        {"\"factor\":4.0,\"mscale\":0.7,\"mscale_all_dim\":0.5,\"attention_factor\":1.25", true, 1.25, 4},
        {"\"factor\":null,\"original_max_position_embeddings\":128", false, 0, 8},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char text[300];
        snprintf(text, sizeof text,
                 "{\"max_position_embeddings\":1024,\"rope_scaling\":{\"type\":\"yarn\",%s}}", cases[i].text);
        struct hf_config *c = parse(text);
        struct hf_rope r = rope_of(c);
        assert_int_equal(r.has_attention_factor, cases[i].has);
        if (cases[i].has && !(fabs(r.attention_factor - cases[i].attention) < 1e-8))
            fail_msg("%s: %.9g", cases[i].text, r.attention_factor);
        assert_number(r.factor, cases[i].factor);
        hf_config_free(c);
    }
}

static void unstated_rope_fields_stay_unset(void **state)
{
    (void)state;
    struct hf_config *c = parse("{\"rope_scaling\":null,\"rope_parameters\":null}");
    struct hf_rope r = rope_of(c);
    assert_int_equal(r.type, ROPE_DEFAULT);
    assert_string_equal(r.type_name, "default");
    assert_number(r.theta, 1e4);
    assert_number(r.partial_rotary_factor, 1);
    assert_false(r.has_factor || r.has_original_context || r.has_attention_factor || r.has_beta_fast ||
                 r.has_beta_slow || r.has_extrapolation_factor || r.has_truncate);
    assert_true(r.truncate);
    assert_int_equal(r.n_mrope_sections, 0);
    hf_config_free(c);
}

static void rope_types_and_old_key_names_are_known(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        enum rope_type type;
    } types[] = {{"default", ROPE_DEFAULT}, {"mrope", ROPE_DEFAULT},     {"linear", ROPE_LINEAR},
                 {"yarn", ROPE_YARN},       {"llama3", ROPE_LLAMA3},     {"dynamic", ROPE_DYNAMIC},
                 {"su", ROPE_LONGROPE},     {"longrope", ROPE_LONGROPE}, {"spiral", ROPE_UNKNOWN}};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        char text[100];
        snprintf(text, sizeof text, "{\"rope_scaling\":{\"rope_type\":\"%s\",\"type\":\"yarn\"}}",
                 types[i].name);
        struct hf_config *c = parse(text);
        struct hf_rope r = rope_of(c);
        assert_int_equal(r.type, types[i].type);
        assert_string_equal(r.type_name, types[i].name);
        hf_config_free(c);
    }
    struct hf_config *c = parse("{\"rotary_emb_base\":20000,\"rotary_pct\":0.25}");
    assert_number(rope_of(c).theta, 20000);
    assert_number(rope_of(c).partial_rotary_factor, 0.25);
    hf_config_free(c);
    c = parse("{\"rope_theta\":5,\"global_rope_theta\":6}");
    assert_number(rope_of(c).theta, 6);
    hf_config_free(c);
    c = parse("{\"rope_scaling\":{\"type\":\"mrope\",\"mrope_section\":[16,24,24]}}");
    struct hf_rope r = rope_of(c);
    assert_int_equal(r.n_mrope_sections, 3);
    assert_int_equal(r.mrope_sections[0], 16);
    assert_int_equal(r.mrope_sections[2], 24);
    assert_int_equal(r.mrope_sections[3], 0);
    hf_config_free(c);
}

static void wrong_rope_values_are_errors_that_name_the_key(void **state)
{
    (void)state;
    static const struct {
        const char *text, *says;
    } rows[] = {
        {"{\"rope_theta\":\"1e6\"}", "rope_theta"},
        {"{\"rope_theta\":0}", "rope_theta"},
        {"{\"rope_theta\":-1}", "rope_theta"},
        {"{\"partial_rotary_factor\":0}", "partial_rotary_factor"},
        {"{\"partial_rotary_factor\":1.5}", "partial_rotary_factor"},
        {"{\"rope_scaling\":[]}", "rope_scaling"},
        {"{\"rope_parameters\":\"yarn\"}", "rope_parameters"},
        {"{\"rope_scaling\":{\"type\":3}}", "rope_type"},
        {"{\"rope_scaling\":{\"type\":\"linear\",\"factor\":\"2\"}}", "factor"},
        {"{\"rope_scaling\":{\"type\":\"linear\",\"factor\":0}}", "factor"},
        {"{\"rope_scaling\":{\"type\":\"yarn\",\"beta_fast\":{}}}", "beta_fast"},
        {"{\"rope_scaling\":{\"type\":\"yarn\",\"truncate\":1}}", "truncate"},
        {"{\"rope_scaling\":{\"original_max_position_embeddings\":0.5}}", "original_max_position_embeddings"},
        {"{\"rope_scaling\":{\"mrope_section\":[1,2,3,4,5]}}", "mrope_section"},
        {"{\"rope_scaling\":{\"mrope_section\":[-1]}}", "mrope_section"},
        {"{\"rope_scaling\":{\"mrope_section\":3}}", "mrope_section"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct hf_config *c = parse(rows[i].text);
        struct hf_rope r;
        struct err e = {0};
        assert_int_equal(hf_config_rope(c, &r, &e), ERR_FORMAT);
        if (!strstr(e.msg, rows[i].says) || !strstr(e.msg, "inline"))
            fail_msg("%s: %s", rows[i].text, e.msg);
        hf_config_free(c);
    }
}

/* --- real configs ----------------------------------------------------------------------------------------
 */

static struct hf_config *load_real(const char *name)
{
    char path[1024];
    snprintf(path, sizeof path, "%s/data/configs/%s", KERF_SHARED, name);
    FILE *f = fopen(path, "rb");
    if (!f)
        fail_msg("%s is missing", path);
    static char text[1 << 20];
    size_t n = fread(text, 1, sizeof text, f);
    fclose(f);
    struct hf_config *c = NULL;
    struct err e = {0};
    if (hf_config_parse(&c, text, n, name, &e) != 0)
        fail_msg("%s", e.msg);
    return c;
}

/* Dimensions of specification, architectures 23.1 to 23.3; 0 where a family has none. */
static const struct {
    const char *file, *architecture, *model_type;
    uint64_t layers, width, heads, kv, head_dim, ffn, vocab, experts;
    double theta;
    bool tied;
} real[] = {
    {"Qwen--Qwen3-0.6B_config.json", "Qwen3ForCausalLM", "qwen3", 28, 1024, 16, 8, 128, 3072, 151936, 0, 1e6,
     true},
    {"Qwen--Qwen3-1.7B_config.json", "Qwen3ForCausalLM", "qwen3", 28, 2048, 16, 8, 128, 6144, 151936, 0, 1e6,
     true},
    {"Qwen--Qwen3-8B_config.json", "Qwen3ForCausalLM", "qwen3", 36, 4096, 32, 8, 128, 12288, 151936, 0, 1e6,
     false},
    {"Qwen--Qwen3-32B_config.json", "Qwen3ForCausalLM", "qwen3", 64, 5120, 64, 8, 128, 25600, 151936, 0, 1e6,
     false},
    {"Qwen--Qwen3-32B-FP8_config.json", "Qwen3ForCausalLM", "qwen3", 64, 5120, 64, 8, 128, 25600, 151936, 0,
     1e6, false},
    {"Qwen--Qwen3-32B-FP8-Static-PerTensor_config.json", "Qwen3ForCausalLM", "qwen3", 64, 5120, 64, 8, 128,
     25600, 151936, 0, 1e6, false},
    {"Qwen--Qwen3-30B-A3B_config.json", "Qwen3MoeForCausalLM", "qwen3_moe", 48, 2048, 32, 4, 128, 6144,
     151936, 128, 1e6, false},
    {"Qwen--Qwen3-30B-A3B-FP8_config.json", "Qwen3MoeForCausalLM", "qwen3_moe", 48, 2048, 32, 4, 128, 6144,
     151936, 128, 1e6, false},
    {"Qwen--Qwen3-235B-A22B_config.json", "Qwen3MoeForCausalLM", "qwen3_moe", 94, 4096, 64, 4, 128, 12288,
     151936, 128, 1e6, false},
    {"Qwen--Qwen3-235B-A22B-FP8_config.json", "Qwen3MoeForCausalLM", "qwen3_moe", 94, 4096, 64, 4, 128, 12288,
     151936, 128, 1e6, false},
    {"nvidia--Qwen3-235B-A22B-NVFP4_config.json", "Qwen3MoeForCausalLM", "qwen3_moe", 94, 4096, 64, 4, 128,
     12288, 151936, 128, 1e6, false},
    {"Qwen--Qwen3-Coder-480B-A35B-Instruct_config.json", "Qwen3MoeForCausalLM", "qwen3_moe", 62, 6144, 96, 8,
     128, 8192, 151936, 160, 1e7, false},
    {"Qwen--Qwen3-VL-2B-Instruct_config.json", "Qwen3VLForConditionalGeneration", "qwen3_vl_text", 28, 2048,
     16, 8, 128, 6144, 151936, 0, 5e6, true},
    {"Qwen--Qwen3-VL-8B-Instruct_config.json", "Qwen3VLForConditionalGeneration", "qwen3_vl_text", 36, 4096,
     32, 8, 128, 12288, 151936, 0, 5e6, false},
    {"Qwen--Qwen3-VL-30B-A3B-Instruct_config.json", "Qwen3VLMoeForConditionalGeneration", "qwen3_vl_moe_text",
     48, 2048, 32, 4, 128, 6144, 151936, 128, 5e6, false},
    {"Qwen--Qwen3-VL-235B-A22B-Instruct_config.json", "Qwen3VLMoeForConditionalGeneration",
     "qwen3_vl_moe_text", 94, 4096, 64, 4, 128, 12288, 151936, 128, 5e6, false},
    {"Qwen--Qwen3.5-27B_config.json", "Qwen3_5ForConditionalGeneration", "qwen3_5_text", 64, 5120, 24, 4, 256,
     17408, 248320, 0, 1e7, false},
    {"Qwen--Qwen3.5-35B-A3B_config.json", "Qwen3_5MoeForConditionalGeneration", "qwen3_5_moe_text", 40, 2048,
     16, 2, 256, 0, 248320, 256, 1e7, false},
    {"Qwen3.5-18B-REAP-A3B-Coding/config.json", "Qwen3_5MoeForConditionalGeneration", "qwen3_5_moe_text", 40,
     2048, 16, 2, 256, 0, 248320, 128, 1e7, false},
    {"nvidia--Qwen3.5-122B-A10B-NVFP4_config.json", "Qwen3_5MoeForConditionalGeneration", "qwen3_5_moe_text",
     48, 3072, 32, 2, 256, 0, 248320, 256, 1e7, false},
    {"nvidia--Qwen3.6-35B-A3B-NVFP4_config.json", "Qwen3_5MoeForConditionalGeneration", "qwen3_5_moe_text",
     40, 2048, 16, 2, 256, 0, 248320, 256, 1e7, false},
    {"slices/Qwen2.5-3B.config.json", "Qwen2ForCausalLM", "qwen2", 36, 2048, 16, 2, 0, 11008, 151936, 0, 1e6,
     true},
    {"slices/Qwen2.5-7B.config.json", "Qwen2ForCausalLM", "qwen2", 28, 3584, 28, 4, 0, 18944, 152064, 0, 1e6,
     false},
    {"slices/Qwen2.5-14B.config.json", "Qwen2ForCausalLM", "qwen2", 48, 5120, 40, 8, 0, 13824, 152064, 0, 1e6,
     false},
    {"slices/Qwen2.5-32B.config.json", "Qwen2ForCausalLM", "qwen2", 64, 5120, 40, 8, 0, 27648, 152064, 0, 1e6,
     false},
    {"slices/Qwen3-4B.config.json", "Qwen3ForCausalLM", "qwen3", 36, 2560, 32, 8, 128, 9728, 151936, 0, 1e6,
     true},
    {"slices/Qwen3-8B.config.json", "Qwen3ForCausalLM", "qwen3", 36, 4096, 32, 8, 128, 12288, 151936, 0, 1e6,
     false},
    {"slices/Qwen3-14B.config.json", "Qwen3ForCausalLM", "qwen3", 40, 5120, 40, 8, 128, 17408, 151936, 0, 1e6,
     false},
    {"slices/Qwen3-32B.config.json", "Qwen3ForCausalLM", "qwen3", 64, 5120, 64, 8, 128, 25600, 151936, 0, 1e6,
     false},
    {"slices/Qwen3-30B-A3B.config.json", "Qwen3MoeForCausalLM", "qwen3_moe", 48, 2048, 32, 4, 128, 6144,
     151936, 128, 1e6, false},
    {"meta-llama--Meta-Llama-3.1-8B_config.json", "LlamaForCausalLM", "llama", 32, 4096, 32, 8, 0, 14336,
     128256, 0, 5e5, false},
    {"nvidia--Llama-3.1-70B-Instruct-FP8_config.json", "LlamaForCausalLM", "llama", 80, 8192, 64, 8, 0, 28672,
     128256, 0, 5e5, false},
    {"slices/Llama-3.1-8B.config.json", "LlamaForCausalLM", "llama", 32, 4096, 32, 8, 0, 14336, 128256, 0,
     5e5, false},
    {"slices/Llama-3.2-3B.config.json", "LlamaForCausalLM", "llama", 28, 3072, 24, 8, 128, 8192, 128256, 0,
     5e5, true},
    {"mistralai--Mixtral-8x7B-v0.1_config.json", "MixtralForCausalLM", "mixtral", 32, 4096, 32, 8, 0, 14336,
     32000, 0, 1e6, false},
    {"Qwen-72B-Chat/config.json", "QWenLMHeadModel", "qwen", 80, 8192, 64, 64, 0, 49152, 152064, 0, 1e6,
     false},
};

static void need_shared(void)
{
    if (access(KERF_SHARED "/data/configs", R_OK) != 0)
        skip();
}

static void real_configs_state_the_published_dimensions(void **state)
{
    (void)state;
    need_shared();
    for (size_t i = 0; i < sizeof real / sizeof *real; i++) {
        struct hf_config *c = load_real(real[i].file);
        assert_string_equal(hf_config_architecture(c), real[i].architecture);
        assert_string_equal(hf_config_model_type(c), real[i].model_type);
        assert_int_equal(uint_of(c, "num_hidden_layers"), real[i].layers);
        assert_int_equal(uint_of(c, "hidden_size"), real[i].width);
        assert_int_equal(uint_of(c, "num_attention_heads"), real[i].heads);
        uint64_t v;
        assert_int_equal(hf_config_uint(c, "num_key_value_heads", &v, NULL) ? v : real[i].heads, real[i].kv);
        assert_int_equal(hf_config_uint(c, "head_dim", &v, NULL) ? v : 0, real[i].head_dim);
        if (real[i].ffn)
            assert_int_equal(uint_of(c, "intermediate_size"), real[i].ffn);
        assert_int_equal(uint_of(c, "vocab_size"), real[i].vocab);
        assert_int_equal(hf_config_uint(c, "num_experts", &v, NULL) ? v : 0, real[i].experts);
        assert_number(rope_of(c).theta, real[i].theta);
        assert_int_equal(hf_config_tied(c), real[i].tied);
        hf_config_free(c);
    }
}

static void real_rope_scaling_reads(void **state)
{
    (void)state;
    need_shared();
    struct hf_config *c = load_real("meta-llama--Meta-Llama-3.1-8B_config.json");
    struct hf_rope r = rope_of(c);
    assert_int_equal(r.type, ROPE_LLAMA3);
    assert_number(r.factor, 8);
    assert_number(r.low_freq_factor, 1);
    assert_number(r.high_freq_factor, 4);
    assert_int_equal(r.original_context, 8192);
    assert_number(number_of(c, "rms_norm_eps"), 1e-5);
    hf_config_free(c);

    c = load_real("slices/Llama-3.2-3B.config.json");
    assert_number(rope_of(c).factor, 32);
    hf_config_free(c);

    c = load_real("Qwen--Qwen3.5-27B_config.json");
    r = rope_of(c);
    assert_number(r.partial_rotary_factor, 0.25);
    assert_int_equal(r.mrope_sections[0], 11);
    assert_int_equal(r.mrope_sections[2], 10);
    assert_int_equal(uint_of(c, "linear_num_value_heads"), 48);
    assert_int_equal(uint_of(c, "full_attention_interval"), 4);
    hf_config_free(c);

    c = load_real("Qwen-7B/qwen_7b.fake.config.json");
    assert_string_equal(hf_config_architecture(c), "QWenLMHeadModel");
    assert_number(rope_of(c).theta, 10000);
    hf_config_free(c);
}

static void a_folder_is_read_and_a_missing_file_named(void **state)
{
    (void)state;
    struct hf_config *c = NULL;
    struct err e = {0};
    assert_int_equal(hf_config_load(&c, KERF_TEST_DATA "/demo-qwen3", &e), 0);
    assert_int_equal(uint_of(c, "hidden_size"), 256);
    assert_int_equal(uint_of(c, "head_dim"), 64);
    assert_true(hf_config_tied(c));
    assert_number(rope_of(c).theta, 1e4);
    hf_config_free(c);
    c = NULL;
    assert_int_equal(hf_config_load(&c, KERF_TEST_DATA, &e), ERR_IO);
    assert_non_null(strstr(e.msg, "config.json"));
    assert_null(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_text_part_overlays_the_root),
        cmocka_unit_test(the_architecture_of_the_text_part_wins),
        cmocka_unit_test(the_text_part_is_the_first_of_four_places),
        cmocka_unit_test(what_is_not_an_object_is_refused),
        cmocka_unit_test(missing_keys_take_the_class_default),
        cmocka_unit_test(a_class_without_a_head_dim_has_no_default),
        cmocka_unit_test(null_is_absence_without_a_default),
        cmocka_unit_test(a_value_of_another_kind_is_present_but_refused),
        cmocka_unit_test(the_default_table_holds_the_published_values),
        cmocka_unit_test(the_tie_flag_is_the_roots_then_the_text_parts_then_the_class),
        cmocka_unit_test(both_rope_layouts_give_one_record),
        cmocka_unit_test(rope_scaling_displaces_the_newer_block),
        cmocka_unit_test(yarn_is_inferred_as_the_reference_does),
        cmocka_unit_test(unstated_rope_fields_stay_unset),
        cmocka_unit_test(rope_types_and_old_key_names_are_known),
        cmocka_unit_test(wrong_rope_values_are_errors_that_name_the_key),
        cmocka_unit_test(real_configs_state_the_published_dimensions),
        cmocka_unit_test(real_rope_scaling_reads),
        cmocka_unit_test(a_folder_is_read_and_a_missing_file_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
