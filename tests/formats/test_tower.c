/* test_tower.c - the files of vision and audio towers: the tensors, bytes and keys of the reference
 * converter, for toy checkpoints of every tower and in every type; refusals; and that text and towers
 * together hold all. */
#include "formats/gguf/gguf_read.h"
#include "formats/hf/safetensors_read.h"
#include "formats/json.h"
#include "formats/rewrite/rewrite.h"
#include "formats/tower/tower.h"
#include "libquant/base/filemap.h"
#include "libquant/base/pool.h"
#include "libquant/base/sha256.h"
#include "libquant/base/strmap.h"

#include "open_model.h"
#include "scratch.h"
#include "toy_tower.h"

#include <dirent.h>
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

static const struct model_options of_towers = {.towers = true};

static const char *toy(const char *name)
{
    const char *folder = in_scratch(name);
    struct err e = {0};
    if (toy_tower_write(folder, name, &e) != 0)
        fail_msg("%s", e.msg);
    return folder;
}

static struct model *open_towers(const char *folder)
{
    struct model *m = NULL;
    struct err e = {0};
    if (model_open(&m, folder, &of_towers, &e) != 0)
        fail_msg("%s", e.msg);
    return m;
}

static void write_towers(const char *folder, const char *path, const char *type, unsigned threads,
                         uint64_t memory)
{
    struct model *m = open_towers(folder);
    struct err e = {0};
    struct pool *pool = NULL;
    assert_int_equal(pool_new(&pool, threads, &e), 0);
    struct rewrite_options ro = {.recipe = {.mix = mix_find(type)},
                                 .overwrite = true,
                                 .memory_bytes = memory,
                                 .kern = kern_native(),
                                 .pool = pool};
    if (rewrite_model(NULL, m, path, &ro, &e) != 0)
        fail_msg("%s", e.msg);
    pool_free(pool);
    model_close(m);
}

/* --- the reference converter --- */

struct comparison {
    const char *tower, *type;
    const struct gguf_reader *file;
    size_t n;
};

static void compare_tensor(void *ctx, const char *text)
{
    struct comparison *c = ctx;
    char type[16], name[100], element[16], dims[60], hash[70], found[65], shape[60] = "";
    if (sscanf(text, "out %15s %99s %15s %59s %69s", type, name, element, dims, hash) != 5 ||
        strcmp(type, c->type) != 0)
        return;
    /* quantized files have the quantizer's order; the reference saw other names of qwen3omni */
    bool ordered = strcmp(type, "Q8_0") != 0 && strcmp(c->tower, "qwen3omni") != 0;
    const struct gguf_tensor *t = ordered && c->n < gguf_reader_n_tensors(c->file)
                                      ? gguf_reader_tensor(c->file, c->n)
                                      : gguf_reader_find(c->file, name);
    c->n++;
    if (!t || strcmp(t->name, name) != 0)
        fail_msg("%s in %s: '%s' expected, found '%s'", c->tower, type, name, t ? t->name : "nothing");
    if (strcmp(qtype_name(t->type), element) != 0)
        fail_msg("%s in %s: '%s' is %s, expected %s", c->tower, type, name, qtype_name(t->type), element);
    for (uint32_t i = 0; i < t->n_dims; i++)
        snprintf(shape + strlen(shape), sizeof shape - strlen(shape), "%s%llu", i ? "," : "",
                 (unsigned long long)t->ne[i]);
    assert_string_equal(shape, dims);
    sha256_hex_of(t->data, t->n_bytes, found);
    if (strcmp(hash, "computed") != 0 && strncmp(found, hash, 16) != 0)
        fail_msg("%s in %s: '%s' has other bytes", c->tower, type, name);
}

static void expect_reference_tensors(const char *tower, const char *folder, const char *type)
{
    struct comparison c = {.tower = tower, .type = type};
    struct gguf_reader *r = NULL;
    struct err e = {0};
    const char *path = in_scratch("out.gguf");
    write_towers(folder, path, type, 2, 64u << 20);
    if (gguf_reader_open(&r, path, NULL, &e) != 0)
        fail_msg("%s", e.msg);
    c.file = r;
    toy_tower_lines(tower, compare_tensor, &c);
    assert_true(c.n > 20);
    assert_int_equal(c.n, gguf_reader_n_tensors(r));
    gguf_reader_close(r);
}

static void for_each_tower(void (*check)(const char *name, const char *folder))
{
    static const char *const names[] = {"qwen2vl",    "qwen25vl",  "qwen3vl",  "qwen2audio",
                                        "qwen25omni", "qwen3omni", "qwen3asr", "qwen3tts"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        check(names[i], toy(names[i]));
}

static void in_three_types(const char *name, const char *folder)
{
    expect_reference_tensors(name, folder, "F16");
    expect_reference_tensors(name, folder, "BF16");
    expect_reference_tensors(name, folder, "Q8_0");
}

static void towers_have_the_bytes_of_the_reference_converter(void **state)
{
    (void)state;
    for_each_tower(in_three_types);
}

static void value_text(const struct gguf_meta *m, const char *key, const struct gguf_value *v, char *out,
                       size_t cap)
{
    uint64_t u;
    double d;
    bool b;
    struct gguf_string s;
    if (v->type == GGUF_STRING && gguf_meta_get_string(m, key, &s))
        snprintf(out, cap, "string %.*s", (int)s.len, s.data);
    else if (v->type == GGUF_BOOL && gguf_meta_get_bool(m, key, &b))
        snprintf(out, cap, "bool %s", b ? "true" : "false");
    else if (v->type == GGUF_U32 && gguf_meta_get_u64(m, key, &u))
        snprintf(out, cap, "u32 %llu", (unsigned long long)u);
    else if (v->type == GGUF_F32 && gguf_meta_get_f64(m, key, &d))
        snprintf(out, cap, "f32 %.9g", d);
    else if (v->type == GGUF_ARRAY)
        snprintf(out, cap, v->a.elem == GGUF_BOOL ? "bool[] " : "f32[] ");
    for (uint64_t i = 0; v->type == GGUF_ARRAY && i < v->a.n; i++) {
        size_t at = strlen(out);
        float f;
        if (v->a.elem == GGUF_BOOL) {
            snprintf(out + at, cap - at, "%s%s", i ? "," : "",
                     ((const uint8_t *)v->a.data)[i] ? "true" : "false");
        } else {
            memcpy(&f, (const uint8_t *)v->a.data + 4 * i, 4);
            snprintf(out + at, cap - at, "%s%.9g", i ? "," : "", (double)f);
        }
    }
}

struct keys {
    const struct gguf_meta *meta;
    size_t n;
};

static void compare_key(void *ctx, const char *text)
{
    struct keys *k = ctx;
    char key[100], found[500] = "";
    int at = 0;
    if (sscanf(text, "meta %99s %n", key, &at) != 1 || at == 0)
        return;
    assert_true(k->n < gguf_meta_n(k->meta));
    assert_string_equal(gguf_meta_key(k->meta, k->n), key); /* in this order */
    value_text(k->meta, key, gguf_meta_value(k->meta, k->n), found, sizeof found);
    if (strcmp(found, text + at) != 0 && strcmp(key, "general.file_type") != 0)
        fail_msg("%s is %s, expected %s", key, found, text + at);
    k->n++;
}

static void expect_reference_keys(const char *name, const char *folder)
{
    struct model *m = open_towers(folder);
    struct keys k = {.meta = model_meta(m)};
    toy_tower_lines(name, compare_key, &k);
    assert_true(k.n > 10);
    assert_int_equal(k.n, gguf_meta_n(model_meta(m)));
    model_close(m);
}

static void keys_are_those_of_the_reference_converter(void **state)
{
    (void)state;
    for_each_tower(expect_reference_keys);
}

static void computed_positions_are_sines_and_cosines(void **state)
{
    (void)state;
    struct model *m = open_towers(toy("qwen25omni"));
    const struct model_tensor *t = model_find(m, "a.position_embd.weight");
    assert_true(t && t->ne[0] == 32 && t->ne[1] == 1500);
    float *x = read_all(m, t);
    for (unsigned p = 0; p < 1500; p += 7)
        for (unsigned i = 0; i < 16; i++) {
            double angle = p * pow(10000, -(double)i / 15);
            assert_true(fabs(x[32 * p + i] - sin(angle)) < 1e-4);
            assert_true(fabs(x[32 * p + 16 + i] - cos(angle)) < 1e-4);
        }
    free(x);
    model_close(m);
}

/* Speech: what the reference takes from its math library, here in double and rounded once; and the refusals
 * that this tower has of its own. */
static void logarithms_of_the_sound_decoder_are_undone(void **state)
{
    (void)state;
    struct model *m = open_towers(toy("qwen3tts"));
    static const char *const pairs[][2] = {{"a.gen.wav.dac.post_snake.alpha", "decoder.decoder.5.alpha"},
                                           {"a.gen.wav.dac.post_snake.beta", "decoder.decoder.5.beta"}};
    struct safetensors_reader *r = NULL;
    struct err e = {0};
    assert_int_equal(safetensors_open(&r, in_scratch("qwen3tts/speech_tokenizer/model.safetensors"), &e), 0);
    for (size_t i = 0; i < 2; i++) {
        const struct model_tensor *t = model_find(m, pairs[i][0]);
        const struct st_tensor *s = safetensors_find(r, pairs[i][1]);
        assert_true(t && s && s->n_elems == t->ne[0]);
        float *have = read_all(m, t);
        for (uint64_t k = 0; k < t->ne[0]; k++) {
            float x;
            memcpy(&x, s->data + 4 * k, 4);
            double y = exp((double)x);
            double want = i == 0 ? y : 1 / (y + 1e-9);
            assert_true(fabs((double)have[k] - want) <= 2e-7 * want);
        }
        free(have);
    }
    safetensors_close(r);
    model_close(m);
}

static void bytes_do_not_depend_on_threads_and_memory(void **state)
{
    (void)state;
    char hash[2][65];
    struct err e = {0};
    const char *folder = toy("qwen3omni"), *path = in_scratch("out.gguf");
    for (int i = 0; i < 2; i++) {
        struct filemap f;
        write_towers(folder, path, "Q8_0", i ? 5 : 1, i ? (uint64_t)1 << 30 : 64u << 20);
        assert_int_equal(filemap_open(&f, path, &e), 0);
        sha256_hex_of(f.data, f.size, hash[i]);
        filemap_close(&f);
    }
    assert_string_equal(hash[0], hash[1]);
}

/* --- text and towers together --- */

/* Names that a model left out, up to the colon. */
static void collect(struct strmap *map, const struct model *m)
{
    for (size_t i = 0; i < model_n_skipped(m); i++) {
        const char *line = model_skipped(m, i);
        assert_int_equal(strmap_put(map, line, strcspn(line, ":"), i, NULL), 0);
    }
}

/* What neither file holds; must be what makes speech, or marks that no runtime reads. */
static void expect_whole(const struct model *text, const struct model *towers, size_t n_neither)
{
    struct strmap left = {0};
    size_t n = 0;
    collect(&left, towers);
    for (size_t i = 0; i < model_n_skipped(text); i++) {
        const char *line = model_skipped(text, i);
        size_t len = strcspn(line, ":");
        if (!strmap_find(&left, line, len, NULL))
            continue;
        n++;
        if (!strstr(line, "talker.") && !strstr(line, "token2wav.") && !strstr(line, "code2wav.") &&
            !strstr(line, "audio_bos_eos_token") && !strstr(line, "mtp."))
            fail_msg("in neither file: %s", line);
    }
    assert_int_equal(n, n_neither);
    assert_true(model_n_skipped(text) > n && model_n_tensors(towers) > 20);
    strmap_release(&left);
}

static void whole(const char *name, const char *folder)
{
    struct model *text = open_model(folder), *towers = open_towers(folder);
    assert_true(model_has_towers(text) && !model_has_towers(towers));
    expect_whole(text, towers, strcmp(name, "qwen25omni") == 0 ? 1 : 0);
    model_close(text);
    model_close(towers);
}

static void every_tensor_is_in_one_of_the_two_files(void **state)
{
    (void)state;
    for_each_tower(whole);
}

/* The same names and shapes, but for the head, which a backbone lacks. */
static void expect_same_tensors(const struct model *whole_model, const struct model *part)
{
    for (size_t i = 0; i < model_n_tensors(whole_model); i++) {
        const struct model_tensor *a = model_tensor(whole_model, i), *b = model_find(part, a->name);
        if (!b && strcmp(a->name, "output.weight") != 0)
            fail_msg("'%s' is missing", a->name);
        assert_true(!b || memcmp(a->ne, b->ne, sizeof a->ne) == 0);
    }
    assert_true(model_n_tensors(part) + 1 >= model_n_tensors(whole_model));
    assert_string_equal(model_arch_name(whole_model), model_arch_name(part));
}

static void parts_are_read_under_class_names_of_their_own(void **state)
{
    (void)state;
    static const char *const pairs[][2] = {{"qwen3vl", "qwen3vl-backbone"},
                                           {"qwen25vl", "qwen25vl-backbone"},
                                           {"qwen25omni", "qwen25omni-thinker"},
                                           {"qwen3omni", "qwen3omni-thinker"},
                                           {"qwen3asr", "qwen3asr-native"}};
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++)
        for (int towers = 0; towers < 2; towers++) {
            struct model *m[2];
            for (int k = 0; k < 2; k++)
                m[k] = towers ? open_towers(toy(pairs[i][k])) : open_model(toy(pairs[i][k]));
            expect_same_tensors(m[0], m[1]);
            uint64_t n[2] = {9, 9}; /* features of vision enter the same text layers */
            for (int k = 0; k < 2; k++)
                gguf_meta_get_u64(model_meta(m[k]), "qwen3vlmoe.n_deepstack_layers", &n[k]);
            assert_int_equal(n[0], n[1]);
            model_close(m[0]);
            model_close(m[1]);
        }
}

/* --- what a file cannot say --- */

/* The configuration of a toy with `from` replaced by `to`, refused with `want`. */
static void expect_refusal_of(const char *name, const char *from, const char *to, const char *want)
{
    const char *folder = toy(name);
    char config[3000];
    struct model *m = NULL;
    struct err e = {0};
    snprintf(config, sizeof config, "%s/config.json", folder);
    struct filemap f;
    assert_int_equal(filemap_open(&f, config, &e), 0);
    snprintf(config, sizeof config, "%.*s", (int)f.size, (const char *)f.data);
    filemap_close(&f);
    char *at = strstr(config, from);
    assert_non_null(at);
    char *rest = strdup(at + strlen(from));
    assert_non_null(rest);
    snprintf(at, sizeof config - (size_t)(at - config), "%s%s", to, rest);
    free(rest);
    scratch_text_in(folder, "config.json", config);
    if (model_open(&m, folder, &of_towers, &e) == 0)
        fail_msg("%s: '%s' as '%s' is taken", name, from, to);
    if (!strstr(e.msg, want))
        fail_msg("%s: '%s', expected '%s'", name, e.msg, want);
}

static void what_no_file_can_say_is_refused_by_name(void **state)
{
    (void)state;
    expect_refusal_of("qwen2vl", "\"temporal_patch_size\":2", "\"temporal_patch_size\":1",
                      "temporal_patch_size is 1");
    expect_refusal_of("qwen2vl", "\"depth\":3", "\"depth\":2", "layer 2, but config.json says 2 layers");
    expect_refusal_of("qwen2vl", "\"depth\":3", "\"depth\":4", "visual.blocks.3.");
    expect_refusal_of("qwen2vl", "\"depth\":3", "\"depth\":0",
                      "vision_config.depth|num_hidden_layers' is zero");
    expect_refusal_of("qwen2vl", "\"depth\":3", "\"depth\":\"3\"",
                      "'vision_config.depth' is not a whole number");
    expect_refusal_of("qwen2vl", "\"depth\":3", "\"depth\":5000", "more than the 4096");
    expect_refusal_of("qwen2vl", "\"num_heads\":2", "\"num_heads\":3", "does not divide into 3 heads");
    expect_refusal_of("qwen2vl", "\"depth\":3", "\"depth\":3,\"hidden_act\":\"relu\"", "compute quick_gelu");
    expect_refusal_of("qwen25vl", "[1,3]", "[1,2]", "entry 1 breaks the period");
    expect_refusal_of("qwen25vl", "[1,3]", "[]", "fullatt_block_indexes is empty");
    expect_refusal_of("qwen25vl", "\"vision_config\"", "\"video_config\"", "leave out --mmproj");
    expect_refusal_of("qwen25vl", "Qwen2_5_VLForC", "Other", "the towers of class 'Otheronditional");
    expect_refusal_of("qwen3vl", "[0,2]", "[0,3]", "different layers below 3");
    expect_refusal_of("qwen3vl", "[0,2]", "[2,2]", "different layers below 3");
    expect_refusal_of("qwen3vl", "[0,2]", "[0]", "deepstack_merger_list.1");
    expect_refusal_of("qwen3vl", "\"num_position_embeddings\":16", "\"num_position_embeddings\":25",
                      "visual.pos_embed");
    expect_refusal_of("qwen2audio", "\"d_model\":32", "\"d_model\":32,\"scale_embedding\":true",
                      "do not scale");
    expect_refusal_of("qwen2audio", "\"d_model\":32", "\"d_model\":31", "expected an even number");
    expect_refusal_of("qwen2audio", "\"num_mel_bins\":20", "\"num_mel_bins\":21", "audio_tower.conv1.weight");
    expect_refusal_of("qwen3omni", "\"audio_config\"", "\"sound_config\"", "'audio_config' is missing");
    expect_refusal_of("qwen3tts", "\"num_code_groups\":16,\"model", "\"num_code_groups\":8,\"model",
                      "num_code_groups 8 and enc_res2net_scale 8; runtimes know 16 and 8");
    expect_refusal_of("qwen3tts",
                      "\"num_hidden_layers\":2,\"num_attention_heads\":4,\"num_key_value_heads\":2,"
                      "\"head_dim\":16,\"rms_norm_eps\":1e-06,\"vocab_size\":48",
                      "\"vocab_size\":48", "code_predictor_config.num_hidden_layers is missing");
    expect_refusal_of("qwen3asr", "\"downsample_hidden_size\":8", "\"downsample_hidden_size\":9",
                      "audio_tower.conv2d1");
}

static void expect_refusal_beside(const char *config, const char *want)
{
    const char *folder = toy("qwen3tts");
    char inner[600];
    struct model *m = NULL;
    struct err e = {0};
    snprintf(inner, sizeof inner, "%s/speech_tokenizer", folder);
    scratch_text_in(inner, "config.json", config);
    assert_int_not_equal(model_open(&m, folder, &of_towers, &e), 0);
    if (!strstr(e.msg, want))
        fail_msg("'%s', expected '%s'", e.msg, want);
}

/* Heads of speech codes have no shape in the rows: those of one stack must be alike, not just of one size. */
static void heads_of_another_shape_than_the_first_are_refused(void **state)
{
    (void)state;
    const char *folder = toy("qwen3tts");
    char path[600];
    struct filemap f = {0};
    struct model *m = NULL;
    struct err e = {0};
    snprintf(path, sizeof path, "%s/model.safetensors", folder);
    assert_int_equal(filemap_open(&f, path, &e), 0);
    char *copy = malloc(f.size + 1);
    assert_non_null(copy);
    memcpy(copy, f.data, f.size);
    copy[f.size] = 0;
    char *head = strstr(copy + 8, "\"talker.code_predictor.lm_head.3.weight\""); /* behind the length */
    char *shape = head ? strstr(head, "[48,32]") : NULL;
    assert_true(shape && shape < strchr(head, '}'));
    long at = shape - copy;
    filemap_close(&f);
    free(copy);
    FILE *out = fopen(path, "r+b");
    assert_non_null(out);
    assert_int_equal(fseek(out, at, SEEK_SET), 0);
    fputs("[32,48]", out);
    assert_int_equal(fclose(out), 0);
    assert_int_equal(model_open(&m, folder, &of_towers, &e), ERR_FORMAT);
    if (!strstr(e.msg, "lm_head.3.weight': another shape than others of 'a.gen.code.head.weight'"))
        fail_msg("%s", e.msg);
}

static void the_folder_of_the_decoder_must_fit(void **state)
{
    (void)state;
    expect_refusal_beside("{\"decoder_config\": {\"num_hidden_layers\": 2, \"upsampling_ratios\": [2, 2], "
                          "\"upsample_rates\": [8, 5, 4]}}",
                          "runtimes know 4 blocks");
    expect_refusal_beside("{\"decoder_config\": {\"num_hidden_layers\": 3, \"upsampling_ratios\": [2, 2], "
                          "\"upsample_rates\": [8, 5, 4, 3]}}",
                          "decoder.pre_transformer.layers.2.input_layernorm.weight");
    expect_refusal_beside("{\"decoder_config\": {\"num_hidden_layers\": 2, \"upsampling_ratios\": [2], "
                          "\"upsample_rates\": [8, 5, 4, 3]}}",
                          "layer 1, but config.json says 1 layers");
    expect_refusal_beside("{}", "runtimes know 4 blocks");
    expect_refusal_beside("{", "speech_tokenizer/config.json");
}

static void colours_are_scaled_as_the_processor_says(void **state)
{
    (void)state;
    const char *folder = toy("qwen3vl");
    double v[3];
    scratch_text_in(folder, "processor_config.json",
                    "{\"image_processor\": {\"image_mean\": [0.25, 0.5, 0.75], \"image_std\": [1, 2, 3]}}");
    struct model *m = open_towers(folder);
    const struct gguf_value *mean = gguf_meta_find(model_meta(m), "clip.vision.image_mean");
    assert_true(mean && mean->a.n == 3);
    for (int i = 0; i < 3; i++) {
        float f;
        memcpy(&f, (const uint8_t *)mean->a.data + 4 * i, 4);
        v[i] = (double)f;
    }
    assert_true(v[0] == 0.25 && v[1] == 0.5 && v[2] == 0.75);
    model_close(m);
    scratch_text_in(folder, "processor_config.json",
                    "{\"image_mean\": [0.25, 0.5], \"image_std\": [1, 2, 3]}");
    struct err e = {0};
    m = NULL;
    assert_int_equal(model_open(&m, folder, &of_towers, &e), ERR_FORMAT);
    assert_non_null(strstr(e.msg, "processor_config.json: image_mean and image_std"));
    unlink(in_scratch("qwen3vl/processor_config.json"));
}

/* --- published models --- */

static void check_published(const char *path)
{
    const struct model_options text_options = {.allow_missing_weights = true};
    const struct model_options tower_options = {.allow_missing_weights = true, .towers = true};
    struct model *text = NULL, *towers = NULL;
    struct err e = {0};
    if (model_open(&text, path, &text_options, &e) != 0 || model_open(&towers, path, &tower_options, &e) != 0)
        fail_msg("%s", e.msg);
    assert_true(model_has_towers(text));
    /* a vision tower of Qwen3-VL: 12 tensors a layer, 6 each merger of deepstack, 10 besides */
    uint64_t depth = 0, n_deepstack = 0;
    const struct gguf_value *v = gguf_meta_find(model_meta(towers), "clip.vision.is_deepstack_layers");
    assert_true(v && gguf_meta_get_u64(model_meta(towers), "clip.vision.block_count", &depth));
    for (uint64_t i = 0; i < v->a.n; i++)
        n_deepstack += ((const uint8_t *)v->a.data)[i];
    assert_int_equal(v->a.n, depth);
    assert_int_equal(model_n_tensors(towers), 12 * depth + 6 * n_deepstack + 10);
    model_close(text);
    model_close(towers);
}

/* Every configuration at hand that has a part for vision; all of them are of Qwen3-VL's kind. */
static void published_models_are_whole_in_two_files(void **state)
{
    (void)state;
    DIR *d = opendir(KERF_SHARED "/data/configs");
    size_t n = 0;
    for (struct dirent *f; d && (f = readdir(d)) != NULL;) {
        char path[600];
        struct err e = {0};
        struct json_doc *doc = NULL;
        snprintf(path, sizeof path, "%s/data/configs/%s", KERF_SHARED, f->d_name);
        if (!strstr(f->d_name, "_config.json") || strstr(f->d_name, "hf_quant") ||
            json_load_python(&doc, path, 1u << 20, &e) != 0)
            continue;
        if (json_get(json_root(doc), "vision_config")) {
            check_published(path);
            n++;
        }
        json_free(doc);
    }
    if (d)
        closedir(d);
    if (n == 0)
        skip();
    assert_true(n >= 6);
}

static void the_page_of_the_room_lists_them(void **state)
{
    (void)state;
    char *page = NULL, *table = NULL;
    size_t n, cap = 0;
    FILE *f = fopen(KERF_TEST_DATA "/../../formats/tower/README.md", "r"), *out = open_memstream(&table, &n);
    assert_true(f && out);
    assert_true(getdelim(&page, &cap, EOF, f) > 0);
    tower_write_table(out);
    fclose(out);
    fclose(f);
    assert_non_null(strstr(page, table));
    free(page);
    free(table);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(towers_have_the_bytes_of_the_reference_converter),
        cmocka_unit_test(keys_are_those_of_the_reference_converter),
        cmocka_unit_test(computed_positions_are_sines_and_cosines),
        cmocka_unit_test(logarithms_of_the_sound_decoder_are_undone),
        cmocka_unit_test(bytes_do_not_depend_on_threads_and_memory),
        cmocka_unit_test(every_tensor_is_in_one_of_the_two_files),
        cmocka_unit_test(parts_are_read_under_class_names_of_their_own),
        cmocka_unit_test(what_no_file_can_say_is_refused_by_name),
        cmocka_unit_test(heads_of_another_shape_than_the_first_are_refused),
        cmocka_unit_test(the_folder_of_the_decoder_must_fit),
        cmocka_unit_test(colours_are_scaled_as_the_processor_says),
        cmocka_unit_test(published_models_are_whole_in_two_files),
        cmocka_unit_test(the_page_of_the_room_lists_them),
    };
    return cmocka_run_group_tests(tests, scratch_begin, scratch_end);
}
