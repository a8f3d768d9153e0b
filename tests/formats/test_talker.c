/* test_talker.c - the talker of Qwen3-TTS: an embedding that a network is folded into, codes as tokens, and
 * what is refused. The toy is that of the towers (toy_tower.h): 4096 texts of width 40, 1100 codes, width 64.
 */
#include "formats/gguf/gguf_meta.h"
#include "formats/hf/safetensors_read.h"
#include "formats/model/model.h"
#include "formats/tokenizer/vocabulary.h"
#include "libquant/base/filemap.h"
#include "libquant/half.h"

#include "open_model.h"
#include "scratch.h"
#include "toy_tokenizer.h"
#include "toy_tower.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { N_TEXTS = 4096, N_CODES = 1100, TEXT_WIDTH = 40, WIDTH = 64, N_TOKENS = 4000 };

static const char *toy(void)
{
    const char *folder = in_scratch("talker");
    struct err e = {0};
    if (toy_tower_write(folder, "qwen3tts", &e) != 0 || toy_tokenizer_write(folder, N_TOKENS, 3, &e) != 0)
        fail_msg("%s", e.msg);
    return folder;
}

/* Element `i` of a tensor of the checkpoint, which is bf16. */
static double stored(const struct safetensors_reader *r, const char *name, uint64_t i)
{
    const struct st_tensor *t = safetensors_find(r, name);
    uint16_t v;
    assert_non_null(t);
    memcpy(&v, t->data + 2 * i, 2);
    return (double)bf16_to_f32(v);
}

#define PROJECTION "talker.text_projection.linear_"

/* Row `id` of the embedding by its formula. */
static void reference_row(const struct safetensors_reader *r, uint64_t id, double row[WIDTH])
{
    double hidden[TEXT_WIDTH];
    for (uint64_t o = 0; o < TEXT_WIDTH; o++) {
        double x = stored(r, PROJECTION "fc1.bias", o);
        for (uint64_t c = 0; c < TEXT_WIDTH; c++)
            x += stored(r, PROJECTION "fc1.weight", o * TEXT_WIDTH + c) *
                 stored(r, "talker.model.text_embedding.weight", id * TEXT_WIDTH + c);
        hidden[o] = x / (1 + exp(-x));
    }
    for (uint64_t o = 0; o < WIDTH; o++) {
        row[o] = stored(r, PROJECTION "fc2.bias", o);
        for (uint64_t c = 0; c < TEXT_WIDTH; c++)
            row[o] += stored(r, PROJECTION "fc2.weight", o * TEXT_WIDTH + c) * hidden[c];
    }
}

static void texts_pass_the_network_and_codes_stand_behind(void **state)
{
    (void)state;
    static const uint64_t ids[] = {0, 1, 127, 128, 2000, N_TEXTS - 1};
    const char *folder = toy();
    struct model *m = open_model(folder);
    const struct model_tensor *t = model_find(m, "token_embd.weight"), *head = model_find(m, "output.weight");
    struct safetensors_reader *r = NULL;
    struct err e = {0};
    assert_true(t && head && t->ne[0] == WIDTH && t->ne[1] == N_TEXTS + N_CODES);
    assert_true(head->ne[1] == N_CODES && head->raw);
    assert_int_equal(safetensors_open(&r, in_scratch("talker/model.safetensors"), &e), 0);
    float row[WIDTH];
    for (size_t i = 0; i < sizeof ids / sizeof *ids; i++) {
        double want[WIDTH];
        reference_row(r, ids[i], want);
        assert_int_equal(model_read_rows(m, t, ids[i], 1, row, &e), 0);
        for (int c = 0; c < WIDTH; c++)
            if (!(fabs((double)row[c] - want[c]) <= 1e-6))
                fail_msg("row %d, column %d: %g, expected %g", (int)ids[i], c, (double)row[c], want[c]);
    }
    assert_int_equal(model_read_rows(m, t, N_TEXTS + 7, 1, row, &e), 0);
    for (uint64_t c = 0; c < WIDTH; c++)
        assert_true((double)row[c] == stored(r, "talker.model.codec_embedding.weight", 7 * WIDTH + c));
    safetensors_close(r);
    model_close(m);
}

/* Alone, in company of any size, across the border of texts and codes, and with every kernel. */
static void a_row_is_the_same_however_it_is_read(void **state)
{
    (void)state;
    const char *folder = toy();
    struct err e = {0};
    enum { FIRST = N_TEXTS - 300, N = 310 };
    float *one = malloc(N * WIDTH * sizeof *one), *all = malloc(N * WIDTH * sizeof *all);
    assert_true(one && all);
    for (const char *const *isa = kern_names(); *isa; isa++) {
        const struct model_options opt = {.kern = kern_by_name(*isa)};
        struct model *m = NULL;
        assert_int_equal(model_open(&m, folder, &opt, &e), 0);
        const struct model_tensor *t = model_find(m, "token_embd.weight");
        assert_int_equal(model_read_rows(m, t, FIRST, N, all, &e), 0);
        for (uint64_t i = 0; i < N; i += isa == kern_names() ? 1 : 61)
            assert_int_equal(model_read_rows(m, t, FIRST + i, 1, one + i * WIDTH, &e), 0);
        for (uint64_t i = 0; i < N; i += isa == kern_names() ? 1 : 61)
            assert_memory_equal(one + i * WIDTH, all + i * WIDTH, WIDTH * sizeof *one);
        model_close(m);
    }
    free(one);
    free(all);
}

static void expect_token(const struct vocabulary *v, size_t id, const char *text, enum token_type type)
{
    assert_true(id < v->n_tokens);
    assert_string_equal(v->tokens[id].text, text);
    assert_int_equal(v->tokens[id].type, type);
}

static void codes_are_tokens_with_the_names_of_the_configuration(void **state)
{
    (void)state;
    struct model *m = open_model(toy());
    const struct vocabulary *v = NULL;
    struct err e = {0};
    assert_int_equal(model_vocabulary(m, &v, &e), 0);
    assert_int_equal(v->n_tokens, N_TEXTS + N_CODES);
    expect_token(v, N_TOKENS, "[PAD4000]", TOKEN_UNUSED);
    expect_token(v, N_TEXTS, "<|codec_0|>", TOKEN_CONTROL);
    expect_token(v, N_TEXTS + 1080, "<|codec_bos|>", TOKEN_CONTROL);
    expect_token(v, N_TEXTS + 1081, "<|codec_eos_token|>", TOKEN_CONTROL);
    expect_token(v, N_TEXTS + 1091, "<|codec_language_english|>", TOKEN_CONTROL);
    expect_token(v, N_TEXTS + 1071, "<|spk_eric|>", TOKEN_CONTROL);
    const struct gguf_value *list = gguf_meta_find(model_meta(m), "tokenizer.ggml.suppress_tokens");
    assert_true(list && list->type == GGUF_ARRAY && list->a.elem == GGUF_I32 && list->a.n == 1023);
    const int32_t *ids = list->a.data;
    assert_int_equal(ids[0], N_TEXTS + N_CODES - 1024);
    assert_int_equal(ids[1022], N_TEXTS + N_CODES - 1);
    for (size_t i = 0; i < 1023; i++)
        assert_int_not_equal(ids[i], N_TEXTS + 1081);
    uint64_t eos = 0;
    assert_true(gguf_meta_get_u64(model_meta(m), "tokenizer.ggml.eos_token_id", &eos));
    assert_int_equal(eos, N_TEXTS + 1081);
    assert_null(gguf_meta_find(model_meta(m), "tokenizer.chat_template"));
    model_close(m);
}

/* The file of the toy with `from` replaced by `to`, of the same length, once. */
static void expect_altered_refusal(const char *file, const char *from, const char *to, const char *want)
{
    const char *folder = toy();
    char path[600];
    struct filemap f = {0};
    struct model *m = NULL;
    struct err e = {0};
    size_t n = strlen(from);
    snprintf(path, sizeof path, "%s/%s", folder, file);
    assert_int_equal(strlen(to), n);
    assert_int_equal(filemap_open(&f, path, &e), 0);
    long at = -1;
    for (size_t i = 0; at < 0 && i + n <= f.size; i++)
        if (memcmp(f.data + i, from, n) == 0)
            at = (long)i;
    filemap_close(&f);
    FILE *out = fopen(path, "r+b");
    assert_true(at >= 0 && out);
    assert_int_equal(fseek(out, at, SEEK_SET), 0);
    fputs(to, out);
    assert_int_equal(fclose(out), 0);
    if (model_open(&m, folder, &(struct model_options){0}, &e) == 0)
        fail_msg("%s: '%s' as '%s' is taken", file, from, to);
    if (!strstr(e.msg, want))
        fail_msg("'%s', expected '%s'", e.msg, want);
}

static void what_does_not_fit_is_refused_by_name(void **state)
{
    (void)state;
    expect_altered_refusal("model.safetensors", "projection.linear_fc2.bias", "projection.linear_fc9.bias",
                           "linear_fc9.bias");
    expect_altered_refusal("config.json", "\"text_hidden_size\":40", "\"text_hidden_size\":10",
                           "talker.model.text_embedding.weight': shape [4096, 10] expected");
    expect_altered_refusal("config.json", "\"text_hidden_size\":40", "\"text_hidden_wide\":40",
                           "text_vocab_size or text_hidden_size is missing");
    expect_altered_refusal("config.json", "\"codec_bos_id\":1080", "\"codec_bos_id\":1100",
                           "talker_config.codec_bos_id is no code below vocab_size (1100)");
    expect_altered_refusal("config.json", "\"english\":1091", "\"english\":9091",
                           "talker_config.codec_language_id.english is no code");
    expect_altered_refusal("config.json", "\"codec_eos_token_id\"", "\"codec_end_token_id\"",
                           "codec_eos_token_id is missing");
    expect_altered_refusal("config.json", "\"hidden_act\":\"silu\"", "\"hidden_act\":\"relu\"",
                           "hidden_act is 'relu'");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(texts_pass_the_network_and_codes_stand_behind),
        cmocka_unit_test(a_row_is_the_same_however_it_is_read),
        cmocka_unit_test(codes_are_tokens_with_the_names_of_the_configuration),
        cmocka_unit_test(what_does_not_fit_is_refused_by_name),
    };
    return cmocka_run_group_tests(tests, scratch_begin, scratch_end);
}
