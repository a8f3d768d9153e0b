/* test_footprint.c - cache, states and working space against figures that llama.cpp printed (August 2026, CPU
 * backend, flash attention, batches of 512; files of these shapes without contents), and against sums by
 * hand; which level fits. */
#include "formats/inspect/fit.h"
#include "formats/gguf/gguf_write.h"
#include "formats/model/hparams.h"

#include "scratch.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define MIB (1024.0 * 1024.0)

/* Shapes of published models, in the words of config.json. */
static struct kv_cache both(enum qtype t)
{
    return (struct kv_cache){t, t};
}

static const char *const qwen3_06b =
    "{\"model_type\": \"qwen3\", \"hidden_size\": 1024, \"num_hidden_layers\": 28, \"num_attention_heads\": "
    "16, "
    "\"num_key_value_heads\": 8, \"head_dim\": 128, \"intermediate_size\": 3072, \"vocab_size\": 151936, "
    "\"max_position_embeddings\": 40960, \"tie_word_embeddings\": true}";
static const char *const qwen3_8b =
    "{\"model_type\": \"qwen3\", \"hidden_size\": 4096, \"num_hidden_layers\": 36, \"num_attention_heads\": "
    "32, "
    "\"num_key_value_heads\": 8, \"head_dim\": 128, \"intermediate_size\": 12288, \"vocab_size\": 151936, "
    "\"max_position_embeddings\": 40960, \"tie_word_embeddings\": false}";
static const char *const llama_8b =
    "{\"model_type\": \"llama\", \"hidden_size\": 4096, \"num_hidden_layers\": 32, \"num_attention_heads\": "
    "32, "
    "\"num_key_value_heads\": 8, \"intermediate_size\": 14336, \"vocab_size\": 128256, "
    "\"max_position_embeddings\": 131072}";
static const char *const qwen3_30b_a3b =
    "{\"model_type\": \"qwen3_moe\", \"hidden_size\": 2048, \"num_hidden_layers\": 48, "
    "\"num_attention_heads\": 32, "
    "\"num_key_value_heads\": 4, \"head_dim\": 128, \"moe_intermediate_size\": 768, \"num_experts\": 128, "
    "\"num_experts_per_tok\": 8, \"vocab_size\": 151936, \"max_position_embeddings\": 40960, "
    "\"norm_topk_prob\": true}";
static const char *const mixtral =
    "{\"model_type\": \"mixtral\", \"hidden_size\": 4096, \"num_hidden_layers\": 32, "
    "\"num_attention_heads\": 32, "
    "\"num_key_value_heads\": 8, \"intermediate_size\": 14336, \"num_local_experts\": 8, "
    "\"num_experts_per_tok\": 2, \"vocab_size\": 32000, \"max_position_embeddings\": 32768, "
    "\"sliding_window\": null}";
static const char *const qwen2_57b_a14b =
    "{\"model_type\": \"qwen2_moe\", \"hidden_size\": 3584, \"num_hidden_layers\": 28, "
    "\"num_attention_heads\": 28, "
    "\"num_key_value_heads\": 4, \"moe_intermediate_size\": 2560, \"shared_expert_intermediate_size\": "
    "20480, "
    "\"num_experts\": 64, \"num_experts_per_tok\": 8, \"vocab_size\": 151936, "
    "\"max_position_embeddings\": 131072}";
static const char *const qwen35_27b =
    "{\"model_type\": \"qwen3_5_text\", \"hidden_size\": 5120, \"num_hidden_layers\": 64, "
    "\"num_attention_heads\": 24, \"num_key_value_heads\": 4, \"head_dim\": 256, \"intermediate_size\": "
    "17408, "
    "\"vocab_size\": 248320, \"linear_num_key_heads\": 16, \"linear_num_value_heads\": 48, "
    "\"linear_key_head_dim\": 128, \"linear_value_head_dim\": 128, \"linear_conv_kernel_dim\": 4, "
    "\"full_attention_interval\": 4, \"max_position_embeddings\": 262144}";
static const char *const qwen35_35b_a3b =
    "{\"model_type\": \"qwen3_5_moe_text\", \"hidden_size\": 2048, \"num_hidden_layers\": 40, "
    "\"num_attention_heads\": 16, \"num_key_value_heads\": 2, \"head_dim\": 256, \"moe_intermediate_size\": "
    "512, "
    "\"shared_expert_intermediate_size\": 512, \"num_experts\": 256, \"num_experts_per_tok\": 8, "
    "\"vocab_size\": 248320, \"linear_num_key_heads\": 16, \"linear_num_value_heads\": 32, "
    "\"linear_key_head_dim\": 128, \"linear_value_head_dim\": 128, \"linear_conv_kernel_dim\": 4, "
    "\"full_attention_interval\": 4, \"max_position_embeddings\": 262144}";
static const char *const qwen3_next =
    "{\"model_type\": \"qwen3_next\", \"hidden_size\": 2048, \"num_hidden_layers\": 48, "
    "\"num_attention_heads\": 16, \"num_key_value_heads\": 2, \"head_dim\": 256, \"moe_intermediate_size\": "
    "512, "
    "\"shared_expert_intermediate_size\": 512, \"num_experts\": 512, \"num_experts_per_tok\": 10, "
    "\"vocab_size\": 151936, \"linear_num_key_heads\": 16, \"linear_num_value_heads\": 32, "
    "\"linear_key_head_dim\": 128, \"linear_value_head_dim\": 128, \"linear_conv_kernel_dim\": 4, "
    "\"full_attention_interval\": 4, \"max_position_embeddings\": 262144}";

/* Drawn at random. */
static const char *const wide_dense =
    "{\"model_type\": \"qwen3\", \"hidden_size\": 5888, \"num_hidden_layers\": 16, \"num_attention_heads\": "
    "64, "
    "\"num_key_value_heads\": 8, \"head_dim\": 64, \"intermediate_size\": 6912, \"vocab_size\": 64768, "
    "\"max_position_embeddings\": 262144, \"tie_word_embeddings\": false}";

struct opened {
    struct scratch s;
    struct model *m;
    struct footprint f;
};

static void open_config(struct opened *o, const char *config)
{
    char path[120];
    struct err e = {0};
    const struct model_options opt = {.allow_missing_weights = true};
    *o = (struct opened){.m = NULL};
    scratch_make(&o->s);
    scratch_text(&o->s, "config.json", config);
    snprintf(path, sizeof path, "%s/config.json", o->s.folder);
    if (model_open(&o->m, path, &opt, &e) != 0 || footprint_init(&o->f, o->m, &e) != 0)
        fail_msg("%s", e.msg);
}

static void close_opened(struct opened *o)
{
    footprint_release(&o->f);
    model_close(o->m);
    scratch_remove(&o->s);
}

/* As the peer prints sizes. */
static void expect_mib(const char *what, uint64_t n_bytes, double mib)
{
    if (fabs((double)n_bytes / MIB - mib) > 0.005001)
        fail_msg("%s: %.4f MiB, the peer has %.2f", what, (double)n_bytes / MIB, mib);
}

static void test_caches_and_states_are_the_peers(void **state)
{
    (void)state;
    static const struct {
        const char *const *config;
        uint64_t ctx;
        enum qtype kv;
        double cache, states; /* MiB */
    } cases[] = {
        {&qwen3_06b, 1000, QTYPE_F16, 112, 0},         {&qwen3_06b, 4096, QTYPE_F16, 448, 0},
        {&qwen3_06b, 8192, QTYPE_Q8_0, 476, 0},        {&qwen3_06b, 8192, QTYPE_Q4_0, 252, 0},
        {&qwen3_06b, 16384, QTYPE_F16, 1792, 0},       {&llama_8b, 1000, QTYPE_F16, 128, 0},
        {&llama_8b, 8192, QTYPE_Q8_0, 544, 0},         {&llama_8b, 8192, QTYPE_Q4_0, 288, 0},
        {&qwen3_30b_a3b, 1000, QTYPE_F16, 96, 0},      {&qwen3_30b_a3b, 8192, QTYPE_Q8_0, 408, 0},
        {&qwen3_30b_a3b, 8192, QTYPE_Q4_0, 216, 0},    {&qwen35_27b, 4096, QTYPE_F16, 256, 149.62},
        {&qwen35_35b_a3b, 4096, QTYPE_F16, 80, 62.81}, {&qwen3_next, 4096, QTYPE_F16, 96, 75.38},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct opened o;
        open_config(&o, *cases[i].config);
        uint64_t states = footprint_cache_bytes(&o.f, 0, both(cases[i].kv));
        expect_mib("states", states, cases[i].states);
        expect_mib("cache", footprint_cache_bytes(&o.f, cases[i].ctx, both(cases[i].kv)) - states,
                   cases[i].cache);
        assert_false(o.f.is_guess);
        close_opened(&o);
    }
}

/* "CPU compute buffer size" and where the estimate may lie. The last shape is the one on which it is low. */
static void test_working_space_is_near_the_peers(void **state)
{
    (void)state;
    static const struct {
        const char *const *config;
        double least, most;
        double mib[6]; /* at 512, 4096, 16384, 32768, 131072, 262144 */
    } cases[] = {
        {&qwen3_06b, 1, 1.5, {309.26, 312.76, 320.75, 300.75, 300.75, 300.75}},
        {&qwen3_8b, 1, 1.5, {312.75, 312.75, 312.75, 312.75, 312.75, 360.01}},
        {&llama_8b, 1, 1.5, {266.50, 266.50, 266.50, 266.50, 266.50, 372.01}},
        {&qwen3_30b_a3b, 1, 1.5, {304.75, 304.75, 304.75, 304.75, 304.75, 344.01}},
        {&mixtral, 1, 1.4, {200.51, 204.01, 216.01, 232.01, 328.01, 456.01}},
        {&qwen2_57b_a14b, 1, 1.8, {381.26, 384.76, 381.02, 381.02, 374.02, 420.28}},
        {&qwen35_27b, 1, 1.5, {515.52, 519.02, 521.02, 515.00, 633.02, 761.02}},
        {&qwen35_35b_a3b, 1, 1.8, {501.52, 501.02, 497.00, 497.00, 497.00, 497.00}},
        {&qwen3_next, 1, 2.0, {313.26, 312.76, 308.75, 340.76, 308.75, 342.01}},
        {&wide_dense, 0.98, 1.5, {192.51, 196.01, 161.00, 161.00, 211.01, 339.01}},
    };
    static const uint64_t ctx[6] = {512, 4096, 16384, 32768, 131072, 262144};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct opened o;
        open_config(&o, *cases[i].config);
        for (size_t k = 0; k < 6; k++) {
            double ratio = (double)footprint_work_bytes(&o.f, ctx[k]) / MIB / cases[i].mib[k];
            if (ratio < cases[i].least || ratio > cases[i].most)
                fail_msg("case %zu, %llu tokens: %.3f times the peer's", i, (unsigned long long)ctx[k],
                         ratio);
        }
        close_opened(&o);
    }
}

/* A Gemma 3 of 8 layers of width 256, 2 heads of 64 for keys and values, a window of 1024 in layers but the
 * sixth of each six; the peer printed 2.00 + 5.25 MiB at 4096 and so on. */
static void open_windowed(struct opened *o, const bool *pattern)
{
    static const struct {
        const char *key;
        uint32_t value;
    } keys[] = {
        {"context_length", 131072},     {"embedding_length", 256},          {"block_count", 8},
        {"attention.head_count", 4},    {"attention.head_count_kv", 2},     {"attention.key_length", 64},
        {"attention.value_length", 64}, {"attention.sliding_window", 1024}, {"feed_forward_length", 512}};
    struct gguf_out_tensor tensors[2] = {
        {.name = "token_embd.weight", .type = QTYPE_F32, .n_dims = 2, .ne = {256, 4096, 1, 1}},
        {.name = "blk.0.ffn_up.weight", .type = QTYPE_F32, .n_dims = 2, .ne = {256, 512, 1, 1}}};
    const struct model_options opt = {.allow_missing_weights = true};
    struct gguf_meta *meta = NULL;
    struct err e = {0};
    char key[80], path[120];
    uint8_t *header = NULL;
    size_t n = 0;
    uint64_t file_bytes;
    *o = (struct opened){.m = NULL};
    scratch_make(&o->s);
    assert_int_equal(gguf_meta_new(&meta, &e), 0);
    assert_int_equal(gguf_meta_set_string(meta, "general.architecture", "gemma3", &e), 0);
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        snprintf(key, sizeof key, "gemma3.%s", keys[i].key);
        assert_int_equal(gguf_meta_set_u32(meta, key, keys[i].value, &e), 0);
    }
    if (pattern)
        assert_int_equal(
            gguf_meta_set_array(meta, "gemma3.attention.sliding_window_pattern", GGUF_BOOL, pattern, 8, &e),
            0);
    assert_int_equal(gguf_layout(meta, tensors, 2, &header, &n, &file_bytes, &e), 0);
    scratch_bytes(&o->s, "g.gguf", header, n);
    snprintf(path, sizeof path, "%s/g.gguf", o->s.folder);
    if (model_open(&o->m, path, &opt, &e) != 0 || footprint_init(&o->f, o->m, &e) != 0)
        fail_msg("%s", e.msg);
    free(header);
    gguf_meta_free(meta);
}

static void test_sliding_windows_bound_the_cache(void **state)
{
    (void)state;
    struct opened o;
    open_windowed(&o, NULL);
    assert_false(o.f.is_guess);
    expect_mib("1000", footprint_cache_bytes(&o.f, 1000, both(QTYPE_F16)), 0.50 + 3.50);
    expect_mib("4096", footprint_cache_bytes(&o.f, 4096, both(QTYPE_F16)), 2.00 + 5.25);
    expect_mib("8192 q8_0", footprint_cache_bytes(&o.f, 8192, both(QTYPE_Q8_0)), 2.125 + 2.789);
    expect_mib("8192 q4_0", footprint_cache_bytes(&o.f, 8192, both(QTYPE_Q4_0)), 1.125 + 1.477);
    expect_mib("16384", footprint_cache_bytes(&o.f, 16384, both(QTYPE_F16)), 8.00 + 5.25);
    static const double mib[][2] = {
        {1000, 9.50}, {4096, 10.02}, {8192, 14.08}, {16384, 22.02}, {262144, 262.02}};
    for (size_t i = 0; i < sizeof mib / sizeof *mib; i++) {
        double ratio = (double)footprint_work_bytes(&o.f, (uint64_t)mib[i][0]) / MIB / mib[i][1];
        if (ratio < 1 || ratio > 1.56)
            fail_msg("%.0f tokens: %.3f times the peer's", mib[i][0], ratio);
    }
    close_opened(&o);

    /* a list of layers wins: here one window, so 7 * 16384 and 1536 cells of 2 * 2 * 64 numbers */
    const bool pattern[8] = {false, true};
    open_windowed(&o, pattern);
    assert_int_equal(footprint_cache_bytes(&o.f, 16384, both(QTYPE_F16)), (7 * 16384 + 1536) * 2 * 128 * 2);
    close_opened(&o);
}

/* Families of ours: llama.cpp keeps the whole context even where the configuration names a window. */
static void test_described_families_keep_the_whole_context(void **state)
{
    (void)state;
    struct opened o;
    char config[600];
    snprintf(config, sizeof config,
             "%.*s, \"use_sliding_window\": true, \"sliding_window\": 512, "
             "\"max_window_layers\": 0}",
             (int)strlen(qwen3_06b) - 1, qwen3_06b);
    open_config(&o, config);
    assert_non_null(gguf_meta_find(model_meta(o.m), "qwen3.attention.sliding_window"));
    expect_mib("full", footprint_cache_bytes(&o.f, 4096, both(QTYPE_F16)), 448);
    close_opened(&o);
}

/* What changes the metadata of an open model must have its numbers read again. */
static void read_again(const struct model *m)
{
    hparams_read((struct hparams *)(uintptr_t)model_hparams(m), model_meta(m), model_arch_name(m));
}

/* Prediction layers, kept with --keep-mtp: hybrids cache nothing for them, families outside llama.cpp's list
 * as for any layer. */
static void test_prediction_layers_of_hybrids_have_no_cache(void **state)
{
    (void)state;
    struct opened o;
    struct footprint with;
    struct err e = {0};
    open_config(&o, qwen35_27b);
    struct gguf_meta *meta = (struct gguf_meta *)(uintptr_t)model_meta(o.m); /* the test's own model */
    assert_int_equal(gguf_meta_set_u32(meta, "qwen35.block_count", 65, &e), 0);
    assert_int_equal(gguf_meta_set_u32(meta, "qwen35.nextn_predict_layers", 1, &e), 0);
    read_again(o.m);
    if (footprint_init(&with, o.m, &e) != 0)
        fail_msg("%s", e.msg);
    assert_int_equal(with.n_layers, 65);
    assert_int_equal(footprint_cache_bytes(&with, 4096, both(QTYPE_F16)),
                     footprint_cache_bytes(&o.f, 4096, both(QTYPE_F16)));
    assert_int_equal(footprint_work_bytes(&with, 4096), footprint_work_bytes(&o.f, 4096));
    footprint_release(&with);
    close_opened(&o);

    open_windowed(&o, NULL);
    meta = (struct gguf_meta *)(uintptr_t)model_meta(o.m);
    assert_int_equal(gguf_meta_set_u32(meta, "gemma3.nextn_predict_layers", 1, &e), 0);
    if (footprint_init(&with, o.m, &e) != 0)
        fail_msg("%s", e.msg);
    assert_int_equal(footprint_cache_bytes(&with, 4096, both(QTYPE_F16)),
                     footprint_cache_bytes(&o.f, 4096, both(QTYPE_F16)));
    footprint_release(&with);
    close_opened(&o);
}

/* DeepSeek: a cache of latents has no values. Older files have the rank of the latents as well, but not the
 * sizes of heads before them; their runtime expands keys and values of every head. */
static void test_values_are_cached_unless_the_file_attends_over_latents(void **state)
{
    (void)state;
    static const char config[] =
        "{\"model_type\": \"deepseek_v3\", \"hidden_size\": 64, \"num_hidden_layers\": 3, "
        "\"num_attention_heads\": 4, \"kv_lora_rank\": 32, \"q_lora_rank\": 24, \"qk_nope_head_dim\": 16, "
        "\"qk_rope_head_dim\": 8, \"v_head_dim\": 16, \"vocab_size\": 320, \"n_routed_experts\": 16, "
        "\"max_position_embeddings\": 512}";
    struct opened o;
    struct footprint older;
    struct err e = {0};
    open_config(&o, config);
    assert_int_equal(footprint_cache_bytes(&o.f, 256, both(QTYPE_F16)), 256 * 3 * (32 + 8) * 2);
    struct gguf_meta *meta = (struct gguf_meta *)(uintptr_t)model_meta(o.m); /* the test's own model */
    assert_true(gguf_meta_remove(meta, "deepseek2.attention.key_length_mla"));
    assert_true(gguf_meta_remove(meta, "deepseek2.attention.value_length_mla"));
    assert_int_equal(gguf_meta_set_u32(meta, "deepseek2.attention.head_count_kv", 4, &e), 0);
    assert_int_equal(gguf_meta_set_u32(meta, "deepseek2.attention.key_length", 24, &e), 0);
    assert_int_equal(gguf_meta_set_u32(meta, "deepseek2.attention.value_length", 16, &e), 0);
    read_again(o.m);
    assert_int_equal(footprint_init(&older, o.m, &e), 0);
    assert_int_equal(footprint_cache_bytes(&older, 256, both(QTYPE_F16)), 256 * 3 * 4 * (24 + 16) * 2);
    footprint_release(&older);
    close_opened(&o);

    open_config(&o, qwen3_06b); /* a family without such attention, whatever its keys say */
    uint64_t plain = footprint_cache_bytes(&o.f, 256, both(QTYPE_F16));
    meta = (struct gguf_meta *)(uintptr_t)model_meta(o.m);
    assert_int_equal(gguf_meta_set_u32(meta, "qwen3.attention.kv_lora_rank", 32, &e), 0);
    assert_int_equal(gguf_meta_set_u32(meta, "qwen3.attention.key_length_mla", 32, &e), 0);
    assert_int_equal(gguf_meta_set_u32(meta, "qwen3.attention.value_length_mla", 32, &e), 0);
    read_again(o.m);
    assert_int_equal(footprint_init(&older, o.m, &e), 0);
    assert_int_equal(footprint_cache_bytes(&older, 256, both(QTYPE_F16)), plain);
    footprint_release(&older);
    close_opened(&o);
}

/* Rows of keys and values that fill no whole block are padded to one; nothing overflows. */
static void test_odd_rows_and_large_numbers(void **state)
{
    (void)state;
    struct footprint_layer layers[2] = {{.k_width = 33, .v_width = 16}, {.state_bytes = 7}};
    struct footprint f = {.layers = layers, .n_layers = 2, .n_vocab = 10, .width = 4};
    assert_int_equal(footprint_cache_bytes(&f, 1, both(QTYPE_Q8_0)), 256 * (2 * 34 + 34) + 7);
    assert_int_equal(footprint_cache_bytes(&f, 257, both(QTYPE_F16)), 512 * 49 * 2 + 7);
    assert_int_equal(footprint_cache_bytes(&f, 0, both(QTYPE_F16)), 7);
    layers[0].k_width = UINT64_MAX / 2;
    assert_true(footprint_cache_bytes(&f, 1 << 20, both(QTYPE_F16)) == UINT64_MAX);
    assert_true(footprint_total_bytes(&f, 1, 1 << 20, both(QTYPE_F16)) == UINT64_MAX);
    assert_int_equal(footprint_max_ctx(&f, 0, UINT64_MAX - 1, both(QTYPE_F16)), 0);
}

static uint64_t count_up(const struct footprint *f, uint64_t weights, uint64_t memory, enum qtype kv,
                         uint64_t cap)
{
    uint64_t best = 0;
    for (uint64_t ctx = 1; ctx <= cap; ctx++)
        if (footprint_total_bytes(f, weights, ctx, both(kv)) <= memory)
            best = ctx;
    return best;
}

static void test_largest_context_is_what_counting_finds(void **state)
{
    (void)state;
    static const char *const *const configs[] = {&qwen3_06b, &qwen3_30b_a3b, &qwen35_27b, &qwen2_57b_a14b};
    static const enum qtype kvs[] = {QTYPE_F16, QTYPE_Q8_0, QTYPE_Q4_0};
    for (size_t i = 0; i < sizeof configs / sizeof *configs; i++) {
        struct opened o;
        open_config(&o, *configs[i]);
        o.f.trained_ctx = 9000; /* counting every context of the full range would take long */
        uint64_t before = 0;
        for (size_t k = 0; k < 3; k++) {
            uint64_t weights = 123456789, last = 0;
            for (double step = 0; step <= 1.2; step += 0.1) {
                uint64_t low = footprint_total_bytes(&o.f, weights, 1, both(kvs[k]));
                uint64_t high = footprint_total_bytes(&o.f, weights, 9000, both(kvs[k]));
                uint64_t memory = low - 1 + (uint64_t)(step * (double)(high - low));
                uint64_t got = footprint_max_ctx(&o.f, weights, memory, both(kvs[k]));
                assert_int_equal(got, count_up(&o.f, weights, memory, kvs[k], 9000));
                assert_true(got >= last); /* more memory, no less context */
                last = got;
            }
            assert_int_equal(last, 9000); /* never beyond the training */
            uint64_t fixed = footprint_max_ctx(
                &o.f, weights, footprint_total_bytes(&o.f, weights, 4000, both(QTYPE_F16)), both(kvs[k]));
            assert_true(fixed >= before); /* a smaller cache, no less context */
            before = fixed;
        }
        for (uint64_t ctx = 1, last = 0; ctx <= 9000; ctx++) {
            uint64_t n = footprint_total_bytes(&o.f, 0, ctx, both(QTYPE_F16));
            assert_true(n >= last);
            last = n;
        }
        o.f.trained_ctx = 0;
        assert_int_equal(footprint_max_ctx(&o.f, 0, UINT64_MAX - 1, both(QTYPE_F16)), FOOTPRINT_MAX_CTX);
        close_opened(&o);
    }
}

static void test_levels_are_what_quantize_would_write(void **state)
{
    (void)state;
    struct opened o;
    struct err e = {0};
    open_config(&o, qwen3_8b);
    struct fit_question q = {.footprint = &o.f,
                             .memory_bytes = (uint64_t)8 << 30,
                             .ctx = 8192,
                             .kv = {QTYPE_F16, QTYPE_F16},
                             .recipe = "llama.cpp"};
    static const struct {
        const char *mix;
        uint64_t weights; /* BF16: 8190735360 parameters, of which 308224 in norms; Q8_0: 8.5 bits for those
                             others */
    } levels[] = {{NULL, 2 * (uint64_t)8190735360 + 2 * 308224},
                  {"Q8_0", ((uint64_t)8190735360 - 308224) / 32 * 34 + 4 * 308224},
                  {"Q4_K_M", 5021827072}};
    for (size_t i = 0; i < sizeof levels / sizeof *levels; i++) {
        struct fit_level l;
        if (fit_level(&l, o.m, levels[i].mix ? mix_find(levels[i].mix) : NULL, &q, &e) != 0)
            fail_msg("%s", e.msg);
        assert_string_equal(l.type, levels[i].mix ? levels[i].mix : "BF16");
        assert_int_equal(l.weights_bytes, levels[i].weights);
        assert_int_equal(l.total_bytes, l.weights_bytes + l.cache_bytes + l.work_bytes);
        assert_int_equal(l.fits, l.total_bytes <= q.memory_bytes);
        assert_int_equal(l.fits, l.max_ctx >= q.ctx);
    }
    assert_true(fit_has_levels(o.m));
    close_opened(&o);
}

static void test_metadata_that_says_nothing_is_refused(void **state)
{
    (void)state;
    struct opened o;
    open_windowed(&o, NULL);
    struct gguf_meta *meta = (struct gguf_meta *)(uintptr_t)model_meta(o.m); /* the test's own file */
    struct footprint f;
    struct err e = {0};
    assert_int_equal(gguf_meta_set_u32(meta, "gemma3.block_count", 1000000, &e), 0);
    read_again(o.m);
    assert_int_equal(footprint_init(&f, o.m, &e), ERR_FORMAT);
    assert_non_null(strstr(e.msg, "gemma3.block_count is 1000000"));
    assert_true(gguf_meta_remove(meta, "gemma3.block_count"));
    read_again(o.m);
    assert_int_equal(footprint_init(&f, o.m, &e), ERR_FORMAT);
    assert_non_null(strstr(e.msg, "gemma3.block_count is missing"));
    close_opened(&o);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_caches_and_states_are_the_peers),
        cmocka_unit_test(test_working_space_is_near_the_peers),
        cmocka_unit_test(test_sliding_windows_bound_the_cache),
        cmocka_unit_test(test_described_families_keep_the_whole_context),
        cmocka_unit_test(test_prediction_layers_of_hybrids_have_no_cache),
        cmocka_unit_test(test_values_are_cached_unless_the_file_attends_over_latents),
        cmocka_unit_test(test_odd_rows_and_large_numbers),
        cmocka_unit_test(test_largest_context_is_what_counting_finds),
        cmocka_unit_test(test_levels_are_what_quantize_would_write),
        cmocka_unit_test(test_metadata_that_says_nothing_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
