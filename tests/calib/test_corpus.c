/* test_corpus.c - texts and JSON lines as token ids, and the windows that are cut from them. */
#include "calib/corpus.h"
#include "formats/tokenizer/tokenizer.h"
#include "toy_tokenizer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define N_VOCAB 400 /* the last three ids: <|endoftext|>, <|im_start|>, <|im_end|> */

static char folder[] = "kerf-corpus-XXXXXX", path[64];
static struct vocabulary *vocab;
static struct tokenizer *tok;

static int set_up(void **state)
{
    (void)state;
    struct err e = {0};
    if (!mkdtemp(folder) || toy_tokenizer_write(folder, N_VOCAB, 1, &e) ||
        vocabulary_load_hf(&vocab, folder, NULL, N_VOCAB, &e) || tokenizer_new(&tok, vocab, &e)) {
        print_error("%s\n", e.msg);
        return -1;
    }
    snprintf(path, sizeof path, "%s/text", folder);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    char command[64];
    tokenizer_free(tok);
    vocabulary_free(vocab);
    snprintf(command, sizeof command, "rm -r '%s'", folder);
    return system(command);
}

static void write_text(const char *text)
{
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(text, 1, strlen(text), f), strlen(text));
    assert_int_equal(fclose(f), 0);
}

/* The ids of parts that are tokenized one by one, special tokens parsed. */
static void assert_is_parts(const struct corpus *c, const char *const *parts, size_t n_parts)
{
    struct err e = {0};
    size_t at = 0;
    for (size_t i = 0; i < n_parts; i++) {
        int32_t *ids;
        size_t n;
        struct tokenize_options opt = {.add_special = true, .parse_special = true};
        assert_int_equal(tokenizer_encode(tok, parts[i], strlen(parts[i]), &opt, &ids, &n, &e), 0);
        assert_true(at + n <= c->n_ids);
        assert_memory_equal(c->ids + at, ids, n * sizeof *ids);
        at += n;
        free(ids);
    }
    assert_int_equal(at, c->n_ids);
}

/* The last tokens of the prompt are the model's question: a long document must not push them out. */
static void long_pairs_lose_the_end_of_the_document(void **state)
{
    (void)state;
    static const char tail[] = "<|im_end|>\nIs it so?";
    struct tokenize_options special = {.parse_special = true};
    struct jsonl_options opt = {.field = "p",
                                .separate = true,
                                .pair_template = "<|im_start|>Q: {query} D: {document}<|im_end|>\nIs it so?"};
    struct err e = {0};
    int32_t *end = NULL;
    size_t n_end = 0, whole;
    struct corpus c = {0};
    write_text("{\"p\": {\"query\": \"why\", \"document\": "
               "\"\u00e9\u4e16 it is long {query} and \u00e9\u4e16 has many words, more than fit\"}}\n");
    assert_int_equal(tokenizer_encode(tok, tail, strlen(tail), &special, &end, &n_end, &e), 0);
    assert_int_equal(corpus_add_jsonl(&c, tok, path, &opt, &e), 0);
    whole = c.n_ids;
    assert_false(c.record_cut[0]);
    corpus_release(&c);
    size_t smallest = 0;
    for (opt.ctx = whole; opt.ctx > 0; opt.ctx--) {
        int rc = corpus_add_jsonl(&c, tok, path, &opt, &e);
        if (rc != 0) {
            char want[40];
            assert_int_equal(rc, ERR_ARG);
            snprintf(want, sizeof want, "give --ctx %zu or more", opt.ctx + 1);
            assert_non_null(strstr(e.msg, want));
            corpus_release(&c);
            break;
        }
        assert_int_equal(c.n_records, 1);
        assert_true(c.record_cut[0] == (opt.ctx < whole));
        assert_true(c.n_ids <= opt.ctx && c.n_ids + 6 >= opt.ctx);
        assert_memory_equal(c.ids + c.n_ids - n_end, end, n_end * sizeof *end);
        smallest = c.n_ids;
        corpus_release(&c);
    }
    assert_true(opt.ctx > n_end && smallest > 0 && smallest < whole - 10);
    free(end);
}

static void strings_of_json_lines_follow_each_other(void **state)
{
    (void)state;
    struct corpus c = {0};
    struct err e = {0};
    write_text("{\"id\": 1, \"text\": \"the first <|im_end|>\"}\n\r\n"
               "{\"text\": \"ends its line\\n\"}\n"
               "  \t\n{\"text\": \"\"}\n{\"text\": \"no line end\\u00e9\"}");
    assert_int_equal(corpus_add_jsonl(&c, tok, path,
                                      &(struct jsonl_options){.field = "text",
                                                              .chat_template = vocab->chat_template,
                                                              .parse_special = true},
                                      &e),
                     0);
    static const char *const parts[] = {"the first <|im_end|>\n", "ends its line\n", "\n",
                                        "no line end\xc3\xa9\n"};
    assert_is_parts(&c, parts, 4);
    assert_int_equal(c.n_texts, 1);
    assert_string_equal(c.texts[0].path, path);
    assert_int_equal(c.texts[0].end, c.n_ids);
    size_t n = c.n_ids;
    assert_int_equal(corpus_add_jsonl(&c, tok, path,
                                      &(struct jsonl_options){.field = "text",
                                                              .chat_template = vocab->chat_template,
                                                              .parse_special = false},
                                      &e),
                     0); /* <|im_end|> as text: longer */
    assert_int_equal(c.n_texts, 2);
    assert_true(c.n_ids > 2 * n);
    corpus_release(&c);
}

static void messages_are_rendered_as_the_template_says(void **state)
{
    (void)state;
    struct corpus c = {0};
    struct err e = {0};
    write_text("{\"m\": [{\"role\": \"user\", \"content\": \"What?\"}, {\"content\": \"That.\\n\", "
               "\"role\": \"assistant\"}]}\n{\"m\": \"plain\"}\n");
    assert_int_equal(corpus_add_jsonl(&c, tok, path,
                                      &(struct jsonl_options){.field = "m",
                                                              .chat_template = vocab->chat_template,
                                                              .parse_special = false},
                                      &e),
                     0);
    static const char *const parts[] = {
        "<|im_start|>user\nWhat?<|im_end|>\n<|im_start|>assistant\nThat.\n<|im_end|>\n", "plain\n"};
    assert_is_parts(&c, parts, 2);
    assert_int_equal(c.ids[0], N_VOCAB - 2);
    corpus_release(&c);
    static const char *const unknown[] = {NULL, "{{ bos }}{% for m in messages %}[INST]{% endfor %}"};
    for (size_t i = 0; i < 2; i++) {
        struct jsonl_options opt = {.field = "m", .chat_template = unknown[i], .parse_special = false};
        assert_int_equal(corpus_add_jsonl(&c, tok, path, &opt, &e), ERR_UNSUPPORTED);
        assert_non_null(strstr(e.msg, "line 1"));
        assert_non_null(strstr(e.msg, "chat template"));
        assert_int_equal(c.n_texts, 0);
    }
}

static void answers_are_marked_and_alone_count(void **state)
{
    (void)state;
    struct corpus c = {0};
    struct windows w;
    struct err e = {0};
    struct jsonl_options opt = {.field = "m", .chat_template = vocab->chat_template, .answers = true};
    write_text("{\"m\": [{\"role\": \"user\", \"content\": \"What?\"}, {\"role\": \"assistant\", "
               "\"content\": \"That.\"}, {\"role\": \"user\", \"content\": \"Really, assistant?\"}, "
               "{\"role\": \"assistant\", \"content\": \"Yes\"}]}\n");
    assert_int_equal(corpus_add_jsonl(&c, tok, path, &opt, &e), 0);
    static const struct {
        const char *text;
        uint8_t mark;
    } parts[] = {{"<|im_start|>user\nWhat?<|im_end|>\n<|im_start|>assistant\n", 0},
                 {"That.<|im_end|>", 1},
                 {"\n<|im_start|>user\nReally, assistant?<|im_end|>\n<|im_start|>assistant\n", 0},
                 {"Yes<|im_end|>", 1},
                 {"\n", 0}};
    size_t at = 0, n_marked = 0;
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        struct tokenize_options all = {.parse_special = true};
        int32_t *ids = NULL;
        size_t n = 0;
        assert_int_equal(tokenizer_encode(tok, parts[i].text, strlen(parts[i].text), &all, &ids, &n, &e), 0);
        assert_memory_equal(c.ids + at, ids, n * sizeof *ids);
        for (size_t k = 0; k < n; k++)
            assert_int_equal(c.answers[at + k], parts[i].mark);
        n_marked += parts[i].mark * n;
        at += n;
        free(ids);
    }
    assert_int_equal(at, c.n_ids);
    /* One window over all of it: the first token is nobody's target. */
    struct window_options cut = {.ctx = c.n_ids, .bos = -1, .all_positions = true};
    size_t n_scored = 0, n_depth = 0;
    assert_int_equal(windows_cut(&w, &c, &cut, &e), 0);
    assert_true(w.first == 0 && w.text[0] == 0);
    for (size_t i = 0; i < windows_n_scored(&w); i++) {
        assert_int_equal((w.use[i] & WINDOW_DEPTH) != 0, c.answers[i + 1]);
        n_depth += (w.use[i] & WINDOW_DEPTH) != 0;
        n_scored += (w.use[i] & WINDOW_SCORED) != 0;
        assert_true(!(w.use[i] & WINDOW_SCORED) || i >= c.n_ids / 2);
    }
    assert_int_equal(n_depth, n_marked);
    assert_true(n_scored > 0 && n_scored < n_depth);
    windows_release(&w);
    corpus_release(&c);
    write_text("{\"m\": \"a string\"}\n");
    assert_int_equal(corpus_add_jsonl(&c, tok, path, &opt, &e), ERR_FORMAT);
    assert_non_null(strstr(e.msg, "expected messages in the field 'm'"));
    corpus_release(&c);
    write_text("{\"m\": [{\"role\": \"user\", \"content\": \"Nobody answers to this.\"}]}\n");
    assert_int_equal(corpus_add_jsonl(&c, tok, path, &opt, &e), 0);
    cut = (struct window_options){.ctx = 8, .bos = -1};
    assert_int_equal(windows_cut(&w, &c, &cut, &e), ERR_ARG);
    assert_non_null(strstr(e.msg, "no token of an answer"));
    corpus_release(&c);
}

static void bad_lines_are_named(void **state)
{
    (void)state;
    static const struct {
        const char *text, *message;
    } cases[] = {
        {"{\"text\": \"a\"}\n{\"txt\": \"b\"}\n", "text: line 2: expected an object with the field 'text'"},
        {"{\"text\": 5}\n", "line 1: expected"},
        {"\n\n[\"text\"]\n", "line 3: expected"},
        {"{\"text\": \"a\"\n", "line 1"},
        {"{\"text\": \"a\"} {\"text\": \"b\"}\n", "line 1"},
        {"{\"text\": [{\"role\": \"user\"}]}\n", "message 0"},
        {"{\"text\": [{\"role\": \"user\", \"content\": \"a\"}, \"b\"]}\n", "line 1: message 1"},
        {"{\"text\": \"\xff\"}\n", "line 1"},
        {"{\"text\": \"a\"}\n{\"text\": []}\n", "line 2"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct corpus c = {0};
        struct err e = {0};
        write_text(cases[i].text);
        struct jsonl_options opt = {
            .field = "text", .chat_template = vocab->chat_template, .parse_special = false};
        assert_int_not_equal(corpus_add_jsonl(&c, tok, path, &opt, &e), 0);
        if (!strstr(e.msg, cases[i].message) || !strstr(e.msg, path))
            fail_msg("case %zu: %s", i, e.msg);
        assert_int_equal(c.n_ids, 0);
        corpus_release(&c);
    }
}

static void windows_do_not_cross_texts(void **state)
{
    (void)state;
    static const int32_t ids[10] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9};
    struct corpus c = {0};
    struct windows w;
    struct err e = {0};
    assert_int_equal(corpus_add_tokens(&c, "a", ids, 9, NULL, 0, &e), 0);
    assert_int_equal(corpus_add_tokens(&c, "b", ids + 5, 5, NULL, 0, &e), 0);
    struct window_options opt = {.ctx = 4, .bos = 77};
    assert_int_equal(windows_cut(&w, &c, &opt, &e), 0);
    static const int32_t want[12] = {77, 1, 2, 3, 77, 5, 6, 7, 77, 6, 7, 8}, targets[3] = {3, 7, 8};
    assert_int_equal(w.n, 3);
    assert_memory_equal(w.inputs, want, sizeof want);
    assert_int_equal(w.first, 2);
    assert_int_equal(windows_n_scored(&w), 1);
    assert_memory_equal(w.targets, targets, sizeof targets);
    windows_release(&w);
    opt.ctx = 10;
    assert_int_equal(windows_cut(&w, &c, &opt, &e), ERR_ARG);
    assert_non_null(strstr(e.msg, "9 tokens do not fill one window of 10"));
    corpus_release(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(long_pairs_lose_the_end_of_the_document),
        cmocka_unit_test(strings_of_json_lines_follow_each_other),
        cmocka_unit_test(messages_are_rendered_as_the_template_says),
        cmocka_unit_test(answers_are_marked_and_alone_count),
        cmocka_unit_test(bad_lines_are_named),
        cmocka_unit_test(windows_do_not_cross_texts),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
