/* test_vocabulary_sources.c - vocabularies from other files than tokenizer.json: vocab.json with merges,
 * ranks of tiktoken, keys of a GGUF file. Expected tokens, types and ids were checked against the peer's
 * converter. */
#include "formats/tokenizer/vocab_build.h"
#include "scratch.h"
#include "vocabulary_check.h"

#include "libquant/base/sha256.h"

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

static void vocab_json_with_merges_txt_is_read(void **state)
{
    (void)state;
    struct scratch s;
    scratch_make(&s);
    scratch_text(&s, "vocab.json", "{\"a\":0,\"b\":1,\"ab\":2}");
    scratch_text(&s, "merges.txt", "#version: 0.2\na b\r\n\n  b   a  \n# c\nx y z\nlonely\n");
    vocabulary_refused(s.folder, 0, ERR_UNSUPPORTED, "add the model's tokenizer.json");
    scratch_text(&s, "tokenizer_config.json",
                 "{\"tokenizer_class\":\"Qwen2Tokenizer\",\"eos_token\":\"<|e|>\"}");
    scratch_text(&s, "added_tokens.json", "{\"<|e|>\":4,\"<x>\":3}");
    struct vocabulary *v = vocabulary_of(s.folder, NULL, 0);
    assert_string_equal(v->pre, "qwen2");
    assert_true(v->nfc);
    assert_int_equal(v->n_merges, 3); /* only the first line may be a comment */
    assert_string_equal(v->merges[0].text, "a b");
    assert_string_equal(v->merges[1].text, "b a");
    assert_string_equal(v->merges[2].text, "# c");
    assert_true(vocabulary_warned(v, "2 lines that are not two words"));
    vocabulary_has(v, 3, "<x>", TOKEN_USER_DEFINED);
    vocabulary_has(v, 4, "<|e|>", TOKEN_CONTROL);
    assert_int_equal(v->eos, 4); /* by text: there is no tokenizer.json */
    vocabulary_free(v);
    scratch_remove(&s);
}

/* Bytes a, b, c and the tokens ab, abc, bc: merges follow from the ranks. */
static void tiktoken_ranks_become_merges(void **state)
{
    (void)state;
    struct scratch s;
    scratch_make(&s);
    scratch_text(&s, "qwen.tiktoken", "YQ== 0\nYg== 1\nYw== 2\nYWI= 3\nYWJj 4\nYmM= 5\nIA== 6\n");
    struct vocabulary *v = vocabulary_of(s.folder, NULL, 220);
    assert_int_equal(v->n_merges, 3);
    assert_string_equal(v->merges[0].text, "a b");
    assert_string_equal(v->merges[1].text, "ab c"); /* not "a bc": bc has a higher rank */
    assert_string_equal(v->merges[2].text, "b c");
    vocabulary_has(v, 6, "\xC4\xA0", TOKEN_NORMAL);
    vocabulary_has(v, 7, "<|endoftext|>", TOKEN_CONTROL);
    vocabulary_has(v, 9, "<|im_end|>", TOKEN_CONTROL);
    vocabulary_has(v, 10, "<|extra_0|>", TOKEN_CONTROL);
    vocabulary_has(v, 214, "<|extra_204|>", TOKEN_CONTROL);
    vocabulary_has(v, 215, "[PAD215]", TOKEN_UNUSED);
    assert_int_equal(v->bos, 7);
    assert_int_equal(v->eos, 7);
    assert_int_equal(v->unk, 7);
    assert_string_equal(v->pre, "qwen2");
    vocabulary_free(v);
    /* Qwen-VL: nine more, where the configuration says that "<img>" is the seventh of them. */
    static const char *const configs[] = {"{\"visual\":{\"image_start_id\":221}}",
                                          "{\"visual\":{\"image_start_id\":222}}"};
    for (int i = 0; i < 2; i++) {
        struct hf_config *c = NULL;
        assert_int_equal(hf_config_parse(&c, configs[i], strlen(configs[i]), "config.json", NULL), 0);
        v = vocabulary_of(s.folder, c, 225);
        vocabulary_has(v, 215, i == 0 ? "<ref>" : "[PAD215]", i == 0 ? TOKEN_CONTROL : TOKEN_UNUSED);
        vocabulary_has(v, 221, i == 0 ? "<img>" : "[PAD221]", i == 0 ? TOKEN_CONTROL : TOKEN_UNUSED);
        vocabulary_has(v, 223, i == 0 ? "<imgpad>" : "[PAD223]", i == 0 ? TOKEN_CONTROL : TOKEN_UNUSED);
        vocabulary_has(v, 224, "[PAD224]", TOKEN_UNUSED);
        vocabulary_free(v);
        hf_config_free(c);
    }
    static const struct {
        const char *text, *words;
    } bad[] = {
        {"", "there are no tokens"},
        {"YQ== 1\n", "line 1 should have rank 0"},
        {"YQ== 0\nYg==\n", "line 2 should have rank 1"},
        {"YQ= 0\n", "line 1 is not"},
        {"Y!== 0\n", "line 1 is not"},
        {"YQ== 0\nYQ== 1\n", "token 1 repeats an earlier one"},
        {"YQ== 0\nYWI= 1\n", "token 1 cannot be formed"},
        {"YQ== 0x\n", "line 1 should have rank 0"},
        {"YQ== 99999999999999999999999\n", "line 1 should have rank 0"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        scratch_text(&s, "qwen.tiktoken", bad[i].text);
        vocabulary_refused(s.folder, 0, ERR_FORMAT, bad[i].words);
    }
    scratch_delete(&s, "qwen.tiktoken");
    scratch_text(&s, "tokenizer.model", "YQ== 0\nYg== 1\nYw== 2\nYWI= 3\nYmM= 4\nYWJj 5\n");
    v = vocabulary_of(s.folder, NULL, 0); /* Llama 3's own file: all splits, by the rank of the left part */
    assert_int_equal(v->n_merges, 4);
    assert_string_equal(v->merges[2].text, "a bc");
    assert_string_equal(v->merges[3].text, "ab c");
    assert_string_equal(v->pre, "llama-bpe");
    assert_true(v->ignore_merges);
    vocabulary_has(v, 6 + 9, "<|eot_id|>", TOKEN_CONTROL);
    assert_int_equal(v->n_tokens, 6 + 256);
    vocabulary_free(v);
    scratch_remove(&s);
}

static void gguf_keys_are_checked(void **state)
{
    (void)state;
    struct gguf_meta *m = NULL;
    struct vocabulary *v = NULL;
    struct err e = {0};
    const struct gguf_string tokens[] = {{"a", 1}, {"b", 1}, {"ab", 2}, {"<|x|>", 5}, {"ab", 2}};
    const struct gguf_string good[] = {{"a b", 3}}, bad[] = {{"ab", 2}};
    const int32_t types[] = {1, 1, 1, 4, 77};
    assert_int_equal(gguf_meta_new(&m, NULL), 0);
    assert_int_equal(vocabulary_from_gguf(&v, m, &e), ERR_FORMAT);
    assert_non_null(strstr(e.msg, "tokenizer.ggml.model"));
    gguf_meta_set_string(m, "tokenizer.ggml.model", "bert", NULL);
    assert_int_equal(vocabulary_from_gguf(&v, m, &e), ERR_UNSUPPORTED);
    assert_non_null(strstr(e.msg, "'bert'"));
    gguf_meta_set_string(m, "tokenizer.ggml.model", "gpt2", NULL);
    assert_int_equal(vocabulary_from_gguf(&v, m, &e), ERR_FORMAT);
    assert_non_null(strstr(e.msg, "tokenizer.ggml.tokens"));
    gguf_meta_set_strings(m, "tokenizer.ggml.tokens", tokens, 5, NULL);
    assert_int_equal(vocabulary_from_gguf(&v, m, &e), ERR_FORMAT);
    assert_non_null(strstr(e.msg, "tokenizer.ggml.merges"));
    gguf_meta_set_strings(m, "tokenizer.ggml.merges", bad, 1, NULL);
    assert_int_equal(vocabulary_from_gguf(&v, m, &e), ERR_FORMAT);
    assert_non_null(strstr(e.msg, "entry 0 is not two parts"));
    gguf_meta_set_strings(m, "tokenizer.ggml.merges", good, 1, NULL);
    gguf_meta_set_array(m, "tokenizer.ggml.token_type", GGUF_I32, types, 4, NULL);
    assert_int_equal(vocabulary_from_gguf(&v, m, &e), ERR_FORMAT);
    assert_non_null(strstr(e.msg, "for token 4"));
    gguf_meta_set_array(m, "tokenizer.ggml.token_type", GGUF_I32, types, 5, NULL);
    gguf_meta_set_u32(m, "tokenizer.ggml.bos_token_id", 9, NULL);
    assert_int_equal(vocabulary_from_gguf(&v, m, &e), 0);
    assert_int_equal(v->bos, -1);
    assert_true(vocabulary_warned(v, "9 is not a token id"));
    assert_true(vocabulary_warned(v, "tokens 2 and 4 have the same text 'ab'"));
    assert_true(vocabulary_warned(v, "1 values that are not token types"));
    assert_true(vocabulary_warned(v, "text is split as runtimes do it then"));
    vocabulary_has(v, 3, "<|x|>", TOKEN_CONTROL);
    struct gguf_meta *out = NULL;
    assert_int_equal(gguf_meta_new(&out, NULL), 0);
    assert_int_equal(vocabulary_to_gguf(v, out, &e), ERR_FORMAT); /* reading is lenient, writing is not */
    gguf_meta_free(out);
    vocabulary_free(v);
    gguf_meta_free(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(vocab_json_with_merges_txt_is_read),
        cmocka_unit_test(tiktoken_ranks_become_merges),
        cmocka_unit_test(gguf_keys_are_checked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
