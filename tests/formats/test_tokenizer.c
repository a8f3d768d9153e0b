/* test_tokenizer.c - token ids against the reference tokenizers, the rules of added tokens, and hostile text.
 */
#include "formats/gguf/gguf_read.h"
#include "formats/tokenizer/tokenizer.h"
#include "libquant/base/clock.h"
#include "hex.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define DEMO KERF_TEST_DATA "/demo-qwen3"

/* A tokenizer together with the vocabulary it borrows. */
struct both {
    struct vocabulary *v;
    struct tokenizer *t;
};

static void release(struct both *b)
{
    tokenizer_free(b->t);
    vocabulary_free(b->v);
}

static void open_path(struct both *b, const char *path)
{
    struct gguf_reader *r = NULL;
    struct err e = {0};
    int rc;
    memset(b, 0, sizeof *b);
    if (gguf_is_gguf_file(path)) {
        rc = gguf_reader_open(&r, path, &(struct gguf_read_options){.header_only = true}, &e);
        if (rc == 0)
            rc = vocabulary_from_gguf(&b->v, gguf_reader_meta(r), &e);
        gguf_reader_close(r);
    } else {
        rc = vocabulary_load_hf(&b->v, path, NULL, 0, &e);
    }
    if (rc == 0)
        rc = tokenizer_new(&b->t, b->v, &e);
    if (rc != 0)
        fail_msg("%s: %s", path, e.msg);
}

/* Ids of `text` as "1 2 3"; the caller frees. */
static char *ids_of(const struct tokenizer *t, const char *text, size_t len, bool special, bool parse)
{
    int32_t *ids = NULL;
    size_t n = 0, k = 0;
    struct tokenize_options opt = {.add_special = special, .parse_special = parse};
    assert_int_equal(tokenizer_encode(t, text, len, &opt, &ids, &n, NULL), 0);
    char *out = malloc(12 * n + 1);
    assert_non_null(out);
    *out = 0;
    for (size_t i = 0; i < n; i++)
        k += (size_t)sprintf(out + k, "%s%d", i ? " " : "", ids[i]);
    free(ids);
    return out;
}

static void expect_ids(const struct tokenizer *t, const char *text, bool special, bool parse,
                       const char *want)
{
    char *got = ids_of(t, text, strlen(text), special, parse);
    assert_string_equal(got, want);
    free(got);
}

/* --- the demo tokenizer
 * -------------------------------------------------------------------------------------- */

static void ids_are_those_of_the_reference(void **state)
{
    (void)state;
    struct both b;
    size_t n_file, n_lines = 0;
    char *file = hex_read_file(KERF_TEST_GOLDEN "/tokenize_demo.txt", &n_file);
    assert_non_null(file);
    open_path(&b, DEMO);
    for (char *line = file, *eol; line && *line; line = eol) {
        if ((eol = strchr(line, '\n')) != NULL)
            *eol++ = 0;
        char *space = strchr(line, ' ');
        if (*line == '#')
            continue;
        size_t len = 0;
        uint8_t *text = *line == '-' ? calloc(1, 1) : hex_bytes(line, (size_t)(space - line), &len);
        assert_non_null(text);
        char *got = ids_of(b.t, (const char *)text, len, false, true);
        if (strcmp(got, space + 1) != 0)
            fail_msg("%.200s\n got %s\nwant %s", line, got, space + 1);
        free(got);
        free(text);
        n_lines++;
    }
    assert_true(n_lines > 200);
    free(file);
    release(&b);
}

/* Pieces of the ids, put together, are the text (where form C changes nothing). */
static void pieces_put_together_are_the_text(void **state)
{
    (void)state;
    struct both b;
    open_path(&b, DEMO);
    for (size_t n = 1; n < 3000; n += 37) {
        char text[3000];
        uint64_t x = n;
        for (size_t i = 0; i < n; i++) {
            x = x * 6364136223846793005u + 1442695040888963407u;
            text[i] = (char)(x >> 40 & 0x7F);
        }
        int32_t *ids;
        size_t n_ids, k = 0, len;
        assert_int_equal(tokenizer_encode(b.t, text, n, &(struct tokenize_options){.parse_special = true},
                                          &ids, &n_ids, NULL),
                         0);
        for (size_t i = 0; i < n_ids; i++) {
            const char *p = tokenizer_piece(b.t, ids[i], &len);
            assert_true(k + len <= n);
            assert_memory_equal(p, text + k, len);
            k += len;
        }
        assert_int_equal(k, n);
        free(ids);
    }
    size_t len;
    assert_string_equal(tokenizer_piece(b.t, -1, &len), "");
    assert_int_equal(len, 0);
    tokenizer_piece(b.t, 4096, &len);
    assert_int_equal(len, 0);
    tokenizer_piece(b.t, 4094, &len);
    assert_int_equal(len, strlen("<|im_start|>"));
    release(&b);
}

static void control_tokens_are_text_when_not_parsed(void **state)
{
    (void)state;
    struct both b;
    open_path(&b, DEMO);
    char *parsed = ids_of(b.t, "<|im_end|>", 10, false, true),
         *plain = ids_of(b.t, "<|im_end|>", 10, false, false);
    assert_string_equal(parsed, "4095");
    assert_null(strstr(plain, "4095"));
    assert_false(tokenizer_adds_bos(b.t));
    assert_false(tokenizer_adds_eos(b.t));
    free(parsed);
    free(plain);
    b.v->add_eos = VOCAB_FLAG_TRUE;
    b.v->add_bos = VOCAB_FLAG_TRUE;
    assert_int_equal(b.v->bos, -1); /* only config.json names it, which was not given */
    b.v->bos = 4094;
    tokenizer_free(b.t);
    assert_int_equal(tokenizer_new(&b.t, b.v, NULL), 0);
    assert_true(tokenizer_adds_bos(b.t));
    expect_ids(b.t, "", true, true, "4094 4093");
    expect_ids(b.t, "", false, true, "");
    b.v->pre = "unheard-of";
    struct tokenizer *t = NULL;
    struct err e = {0};
    assert_int_equal(tokenizer_new(&t, b.v, &e), ERR_UNSUPPORTED);
    assert_non_null(strstr(e.msg, "pre-tokenizer 'unheard-of'"));
    release(&b);
}

static void odd_bytes_are_text(void **state)
{
    (void)state;
    struct both b;
    open_path(&b, DEMO);
    char *nul = ids_of(b.t, "a\0b", 3, false, false);
    assert_string_equal(nul, "97 0 98");
    free(nul);
    char *bad = ids_of(b.t, "\xFF\xE2\x82", 3, false, false),
         *fffd = ids_of(b.t, "\xEF\xBF\xBD\xEF\xBF\xBD", 6, false, false);
    assert_string_equal(bad, fffd);
    free(bad);
    free(fffd);
    /* form C joins across what follows, but not across a special token */
    char *composed = ids_of(b.t, "\xC3\xA9", 2, false, true),
         *apart = ids_of(b.t, "e\xCC\x81", 3, false, true);
    assert_string_equal(composed, apart);
    free(composed);
    free(apart);
    release(&b);
}

static void long_texts_take_their_time_in_proportion(void **state)
{
    (void)state;
    enum { N = 3000000 };
    static const char *const units[] = {"a",         " ",    "\n",  "<|im_start", "<|im_end|>",
                                        "e\xCC\x81", "\xFF", "ab ", "1"};
    struct both b;
    char *text = malloc(N);
    assert_non_null(text);
    open_path(&b, DEMO);
    double start = clock_read(CLOCK_PROCESS_CPUTIME_ID);
    for (size_t u = 0; u < sizeof units / sizeof *units; u++) {
        size_t w = strlen(units[u]), len = N / w * w, n;
        int32_t *ids;
        for (size_t i = 0; i < len; i += w)
            memcpy(text + i, units[u], w);
        assert_int_equal(tokenizer_encode(b.t, text, len, &(struct tokenize_options){.parse_special = true},
                                          &ids, &n, NULL),
                         0);
        assert_true(n > 0 && n <= 3 * len);
        free(ids);
    }
    assert_true(clock_read(CLOCK_PROCESS_CPUTIME_ID) - start < 120); /* quadratic would take days */
    free(text);
    release(&b);
}

/* --- made-up vocabularies
 * ------------------------------------------------------------------------------------ */

struct toy {
    struct vocabulary v;
    struct vocab_token tokens[64];
    struct vocab_merge merges[16];
};

static void add_token(struct toy *y, const char *text, enum token_type type, float score)
{
    y->tokens[y->v.n_tokens++] =
        (struct vocab_token){.text = text, .len = (uint32_t)strlen(text), .type = type, .score = score};
}

static void init_toy(struct toy *y, enum vocab_model model, const char *pre)
{
    memset(y, 0, sizeof *y);
    struct vocabulary *v = &y->v;
    v->model = model;
    v->pre = pre;
    v->tokens = y->tokens;
    v->merges = y->merges;
    v->bos = v->eos = v->unk = v->sep = v->pad = v->mask = v->eot = v->eom = -1;
    v->add_bos = v->add_eos = v->add_sep = v->add_space_prefix = VOCAB_FLAG_UNSET;
}

static void add_merge(struct toy *y, const char *text)
{
    y->merges[y->v.n_merges++] = (struct vocab_merge){text, (uint32_t)strlen(text)};
}

/* Letters a b c x (0 to 3), space (4), "ab" (5), "abc" (6), and added tokens. */
static void bpe_toy(struct toy *y)
{
    static const char *const texts[] = {"a", "b", "c", "x", "\xC4\xA0", "ab", "abc"};
    init_toy(y, VOCAB_BPE, "gpt-2");
    for (size_t i = 0; i < 7; i++)
        add_token(y, texts[i], TOKEN_NORMAL, 0);
    add_merge(y, "a b");
    add_merge(y, "ab c");
}

static void expect_toy(struct toy *y, const char *text, const char *want)
{
    struct tokenizer *t = NULL;
    struct err e = {0};
    if (tokenizer_new(&t, &y->v, &e) != 0)
        fail_msg("%s", e.msg);
    expect_ids(t, text, false, true, want);
    tokenizer_free(t);
}

static void added_tokens_match_leftmost_then_longest(void **state)
{
    (void)state;
    struct toy y;
    bpe_toy(&y);
    add_token(&y, "<b", TOKEN_USER_DEFINED, 0);  /* 7 */
    add_token(&y, "<b>", TOKEN_CONTROL, 0);      /* 8 */
    add_token(&y, "b>a", TOKEN_USER_DEFINED, 0); /* 9 */
    expect_toy(&y, "abc", "6");
    expect_toy(&y, "a<b>a", "0 8 0"); /* "b>a" begins later */
    expect_toy(&y, "b>a<b", "9 7");
    struct tokenizer *t = NULL;
    assert_int_equal(tokenizer_new(&t, &y.v, NULL), 0);
    expect_ids(t, "<b>a", false, false,
               "7 0"); /* without control tokens, "<b"; '>' is no token and vanishes */
    tokenizer_free(t);
}

static void flags_of_added_tokens_are_honoured(void **state)
{
    (void)state;
    struct toy y;
    bpe_toy(&y);
    add_token(&y, "<m>", TOKEN_USER_DEFINED, 0); /* 7 */
    expect_toy(&y, "a <m> b", "0 4 7 4 1");
    y.tokens[7].lstrip = true;
    expect_toy(&y, "a \t\n <m> b", "0 7 4 1");
    y.tokens[7].rstrip = true;
    expect_toy(&y, "a <m>\xE3\x80\x80 b", "0 7 1"); /* U+3000 is white space too */
    expect_toy(&y, "<m> <m>  a", "7 7 0");
    y.tokens[7].lstrip = y.tokens[7].rstrip = false;
    y.tokens[7].single_word = true;
    expect_toy(&y, "a<m> <m> <m>b",
               "0 4 7 4 1"); /* only the one that stands alone; <, m and > are no tokens */
}

/* Characters, not bytes: U+2581 for a space, runs of line ends by themselves, byte tokens for what is no
 * token. Ids are those of tokenizers 0.23 on the same vocabulary and merges (byte_fallback, Replace " "). */
static void plain_bpe_works_on_characters(void **state)
{
    (void)state;
    static const char *const texts[] = {"a",
                                        "b",
                                        "c",
                                        "\342\226\201",
                                        "\n",
                                        "\xC3\xA9",
                                        "ab",
                                        "abc",
                                        "\342\226\201a",
                                        "\342\226\201ab",
                                        "\n\n",
                                        "\342\226\201\342\226\201",
                                        "bc"};
    static const char *const merges[] = {
        "a b", "b c", "ab c", "\342\226\201 \342\226\201", "\342\226\201 a", "\342\226\201a b", "\n \n"};
    static const char *const bytes[] = {"<0x78>", "<0xE6>", "<0xBC>", "<0xA2>"};
    struct toy y;
    init_toy(&y, VOCAB_BPE, "sarvam-moe");
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        add_token(&y, texts[i], TOKEN_NORMAL, 0);
    for (size_t i = 0; i < sizeof bytes / sizeof *bytes; i++)
        add_token(&y, bytes[i], TOKEN_BYTE, 0); /* 13 to 16 */
    for (size_t i = 0; i < sizeof merges / sizeof *merges; i++)
        add_merge(&y, merges[i]);
    expect_toy(&y, "abc", "7");
    expect_toy(&y, " ab  abc", "3 6 11 7");
    expect_toy(&y, "a\n\n\nb", "0 10 4 1");
    expect_toy(&y, "x\xC3\xA9\n", "13 5 4");
    expect_toy(&y, "bc ab", "12 3 6");
    expect_toy(&y, "  a", "11 0");
    expect_toy(&y, "a\xC3\xA9\xE6\xBC\xA2\n\n", "0 5 14 15 16 10");
    expect_toy(&y, "ababc", "6 7");
    expect_toy(&y, "a?b", "0 1"); /* no token and no byte token: vanishes, as in llama.cpp */
    struct tokenizer *t = NULL;
    size_t len;
    assert_int_equal(tokenizer_new(&t, &y.v, NULL), 0);
    assert_memory_equal(tokenizer_piece(t, 9, &len), " ab", 3);
    assert_int_equal(len, 3);
    assert_memory_equal(tokenizer_piece(t, 14, &len), "\xE6", 1);
    assert_int_equal(len, 1);
    tokenizer_free(t);

    y.v.bos = 0; /* runtimes add it under these names, whatever the file says */
    y.v.add_bos = VOCAB_FLAG_FALSE;
    y.v.pre = "gemma4";
    assert_int_equal(tokenizer_new(&t, &y.v, NULL), 0);
    assert_true(tokenizer_adds_bos(t));
    expect_ids(t, "b", true, true, "0 1");
    tokenizer_free(t);

    y.v.pre = "whitespace"; /* words alone; a space is no token */
    expect_toy(&y, " ab\tabc\n x\xE3\x80\x80 b", "6 7 13 1");
}

/* "normalized": sought after form C is made, so a mark that composes with its last character hides it. */
static void normalised_tokens_are_sought_in_normalised_text(void **state)
{
    (void)state;
    struct toy y;
    bpe_toy(&y);
    y.v.nfc = true;
    add_token(&y, "<x>", TOKEN_USER_DEFINED, 0);
    expect_toy(&y,
               "<x>\xCC\xB8"
               "a",
               "7 0"); /* > and U+0338 would be U+226F */
    y.tokens[7].normalized = true;
    expect_toy(&y,
               "<x>\xCC\xB8"
               "a",
               "3 0");
    expect_toy(&y, "<x>a", "7 0");
}

static void whole_words_are_taken_when_merges_are_ignored(void **state)
{
    (void)state;
    struct toy y;
    bpe_toy(&y);
    add_token(&y, "xx", TOKEN_NORMAL, 0); /* 7: no merge makes it */
    expect_toy(&y, "xx abc", "3 3 4 6");
    y.v.ignore_merges = true;
    expect_toy(&y, "xx abc", "7 4 6");
}

/* A merge whose result is no token falls apart into bytes. */
static void results_that_are_no_token_become_bytes(void **state)
{
    (void)state;
    struct toy y;
    bpe_toy(&y);
    add_merge(&y, "x c");
    expect_toy(&y, "xcx", "3 2 3");
}

static void spm_toy(struct toy *y)
{
    init_toy(y, VOCAB_SPM, "default");
    add_token(y, "<unk>", TOKEN_UNKNOWN, 0);        /* 0 */
    add_token(y, "<s>", TOKEN_CONTROL, 0);          /* 1 */
    add_token(y, "</s>", TOKEN_CONTROL, 0);         /* 2 */
    add_token(y, "\xE2\x96\x81", TOKEN_NORMAL, -9); /* 3 */
    add_token(y, "a", TOKEN_NORMAL, -9);            /* 4 */
    add_token(y, "b", TOKEN_NORMAL, -9);            /* 5 */
    add_token(y, "ab", TOKEN_NORMAL, -2);           /* 6 */
    add_token(y, "ba", TOKEN_NORMAL, -1);           /* 7 */
    add_token(y,
              "\xE2\x96\x81"
              "a",
              TOKEN_NORMAL, -1);          /* 8 */
    add_token(y, "aba", TOKEN_NORMAL, 0); /* 9 */
}

static void sentencepiece_joins_the_best_score_first(void **state)
{
    (void)state;
    struct toy y;
    spm_toy(&y);
    expect_toy(&y, "", "");
    expect_toy(&y, "ba", "3 7");
    expect_toy(&y, "a", "8");
    expect_toy(&y, "ab", "8 5");
    expect_toy(&y, "b aba",
               "3 5 8 7"); /* the equal scores -1: the left pair first, then ba; aba needs a pair */
    expect_toy(&y, "bab", "3 7 5");
    expect_toy(&y, "<s>a<s>", "1 8 1");
    expect_toy(&y, "c", "3 0"); /* no bytes: unknown */
    add_token(&y, "<0x63>", TOKEN_BYTE, 0);
    expect_toy(&y, "c", "3 10");
    expect_toy(&y, "<0x63>", "3 0 0 0 0 0 0"); /* the text of a byte token is not that token */
    y.v.add_space_prefix = VOCAB_FLAG_FALSE;
    expect_toy(&y, "ba a", "7 8");
    struct tokenizer *t = NULL;
    assert_int_equal(tokenizer_new(&t, &y.v, NULL), 0);
    assert_true(tokenizer_adds_bos(t)); /* the default of SentencePiece models */
    expect_ids(t, "b", true, true, "1 5");
    size_t n;
    assert_memory_equal(tokenizer_piece(t, 8, &n), " a", 2);
    assert_int_equal(n, 2);
    assert_memory_equal(tokenizer_piece(t, 10, &n), "c", 1);
    tokenizer_free(t);
}

/* --- real vocabularies, where they are
 * ----------------------------------------------------------------------- */

static char *read_shared(const char *name)
{
    char path[1024];
    size_t n;
    snprintf(path, sizeof path, "%s/data/tokenizers/%s", KERF_SHARED, name);
    return hex_read_file(path, &n);
}

/* Texts separated by marker lines, and one line of ids for each. */
static void compare_pair(const char *pair, const char *vocabulary)
{
    static const char marker[] = "\n__ggml_vocab_test__\n";
    char name[128], path[1024];
    struct both b;
    snprintf(path, sizeof path, "%s/data/%s", KERF_SHARED, vocabulary);
    snprintf(name, sizeof name, "ggml-vocab-%s.gguf.inp", pair);
    char *texts = read_shared(name);
    snprintf(name, sizeof name, "ggml-vocab-%s.gguf.out", pair);
    char *ids = read_shared(name);
    if (!texts || !ids || access(path, R_OK) != 0) {
        free(texts);
        free(ids);
        skip();
    }
    open_path(&b, path);
    size_t n = 0;
    char *text = texts, *want = ids;
    for (char *end; (end = strstr(text, marker)) != NULL; text = end + sizeof marker - 1, n++) {
        char *eol = strchr(want, '\n');
        assert_non_null(eol);
        *eol = 0;
        while (*want == ' ')
            want++;
        char *last = eol;
        while (last > want && last[-1] == ' ')
            *--last = 0;
        char *got = ids_of(b.t, text, (size_t)(end - text), false, false);
        if (strcmp(got, want) != 0)
            fail_msg("%s, text %zu: got %s, expected %s", pair, n, got, want);
        free(got);
        want = eol + 1;
    }
    assert_true(n >= 45);
    free(texts);
    free(ids);
    release(&b);
}

static void expected_ids_of_qwen2(void **state)
{
    (void)state;
    compare_pair("qwen2", "vocab-gguf/qwen2.5-vocab.gguf");
}

static void expected_ids_of_gpt2(void **state)
{
    (void)state;
    compare_pair("gpt-2", "vocab-gguf/ggml-vocab-gpt-2.gguf");
}

static void expected_ids_of_starcoder(void **state)
{
    (void)state;
    compare_pair("starcoder", "vocab-gguf/ggml-vocab-starcoder.gguf");
}

static void expected_ids_of_llama_spm(void **state)
{
    (void)state;
    compare_pair("llama-spm", "vocab-gguf/ggml-vocab-llama-spm.gguf");
}

static void expected_ids_of_llama_spm_from_its_model(void **state)
{
    (void)state;
    compare_pair("llama-spm", "tokenizers/llama2");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ids_are_those_of_the_reference),
        cmocka_unit_test(pieces_put_together_are_the_text),
        cmocka_unit_test(control_tokens_are_text_when_not_parsed),
        cmocka_unit_test(odd_bytes_are_text),
        cmocka_unit_test(long_texts_take_their_time_in_proportion),
        cmocka_unit_test(added_tokens_match_leftmost_then_longest),
        cmocka_unit_test(flags_of_added_tokens_are_honoured),
        cmocka_unit_test(plain_bpe_works_on_characters),
        cmocka_unit_test(normalised_tokens_are_sought_in_normalised_text),
        cmocka_unit_test(whole_words_are_taken_when_merges_are_ignored),
        cmocka_unit_test(results_that_are_no_token_become_bytes),
        cmocka_unit_test(sentencepiece_joins_the_best_score_first),
        cmocka_unit_test(expected_ids_of_qwen2),
        cmocka_unit_test(expected_ids_of_gpt2),
        cmocka_unit_test(expected_ids_of_starcoder),
        cmocka_unit_test(expected_ids_of_llama_spm),
        cmocka_unit_test(expected_ids_of_llama_spm_from_its_model),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
