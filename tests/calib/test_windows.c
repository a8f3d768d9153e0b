/* test_windows.c - windows as llama.cpp cuts them, worked out by hand on counted ids; what is refused. */
#include "calib/corpus.h"
#include "formats/model/model.h"
#include "formats/tokenizer/tokenizer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static char path[] = "kerf-corpus-XXXXXX";

static int make_file(void **state)
{
    (void)state;
    int fd = mkstemp(path);
    return fd < 0 ? -1 : close(fd);
}

static int remove_file(void **state)
{
    (void)state;
    return unlink(path);
}

static void write_text(const char *text)
{
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(text, 1, strlen(text), f), strlen(text));
    fclose(f);
}

/* Two texts: ids 0..9 and 10..15. */
static void count_ids(struct corpus *c)
{
    *c = (struct corpus){0};
    write_text("[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]");
    assert_int_equal(corpus_add_ids(c, path, NULL), 0);
    write_text("[10, 11, 12, 13, 14, 15]");
    assert_int_equal(corpus_add_ids(c, path, NULL), 0);
    assert_int_equal(c->n_ids, 16);
    assert_int_equal(c->n_texts, 2);
}

static void windows_stay_inside_a_text_and_score_their_second_half(void **state)
{
    (void)state;
    struct corpus c;
    struct windows w;
    count_ids(&c);
    assert_int_equal(windows_cut(&w, &c, &(struct window_options){.ctx = 4, .bos = 99}, NULL), 0);
    const int32_t inputs[] = {99, 1, 2, 3, 99, 5, 6, 7, 99, 11, 12, 13}; /* 8 9 and 14 15 are left over */
    const int32_t targets[] = {3, 7, 13};                                /* position 2 predicts position 3 */
    assert_int_equal(w.n, 3);
    assert_int_equal(w.first, 2);
    assert_int_equal(windows_n_scored(&w), 1);
    assert_memory_equal(w.inputs, inputs, sizeof inputs);
    assert_memory_equal(w.targets, targets, sizeof targets);
    windows_release(&w);
    assert_int_equal(
        windows_cut(&w, &c, &(struct window_options){.ctx = 4, .bos = -1, .max_windows = 2}, NULL), 0);
    assert_int_equal(w.n, 2);
    assert_int_equal(w.inputs[4], 4); /* nothing is replaced without BOS */
    windows_release(&w);
    corpus_release(&c);
}

static void a_stride_scores_the_last_tokens_of_overlapping_windows(void **state)
{
    (void)state;
    struct corpus c;
    struct windows w;
    count_ids(&c);
    assert_int_equal(windows_cut(&w, &c, &(struct window_options){.ctx = 5, .stride = 2, .bos = -1}, NULL),
                     0);
    /* ceil((10 - 5) / 2) = 3 windows at 0, 2, 4 and ceil((6 - 5) / 2) = 1 at 10; targets are their last two.
     */
    const int32_t starts[] = {0, 2, 4, 10}, targets[] = {3, 4, 5, 6, 7, 8, 13, 14};
    assert_int_equal(w.n, 4);
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(w.inputs[i * 5], starts[i]);
    assert_int_equal(windows_n_scored(&w), 2);
    assert_memory_equal(w.targets, targets, sizeof targets);
    windows_release(&w);
    corpus_release(&c);
}

static void a_short_list_of_ids_is_one_window(void **state)
{
    (void)state;
    struct corpus c = {0};
    struct windows w;
    write_text("[7, 8, 9]");
    assert_int_equal(corpus_add_ids(&c, path, NULL), 0);
    assert_int_equal(windows_cut(&w, &c, &(struct window_options){.ctx = 512, .bos = -1}, NULL), 0);
    assert_int_equal(w.n, 1);
    assert_int_equal(w.ctx, 3);
    assert_int_equal(w.targets[0], 9);
    windows_release(&w);
    corpus_release(&c);
}

static void hashes_name_what_was_read(void **state)
{
    (void)state;
    struct corpus c = {0};
    char hash[65];
    write_text("[]");
    assert_int_equal(corpus_add_ids(&c, path, NULL), 0);
    corpus_hash(&c, hash); /* SHA-256 of nothing */
    assert_string_equal(hash, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    assert_string_equal(c.texts[0].sha256, hash);
    corpus_release(&c);
}

static void text_goes_through_the_tokenizer(void **state)
{
    (void)state;
    struct err e = {0};
    struct model *m = NULL;
    const struct vocabulary *v = NULL;
    struct tokenizer *t = NULL;
    struct corpus c = {0};
    if (model_open(&m, KERF_TEST_DATA "/demo-qwen3", &(struct model_options){0}, &e) ||
        model_vocabulary(m, &v, &e) || tokenizer_new(&t, v, &e))
        fail_msg("%s", e.msg);
    write_text("abc");
    assert_int_equal(corpus_add_text(&c, t, path, false, &e), 0);
    assert_string_equal(c.texts[0].sha256,
                        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    assert_int_equal(c.texts[0].n_bytes, 3);
    assert_in_range(c.n_ids, 1, 3);
    struct windows w;
    assert_int_equal(windows_cut(&w, &c, &(struct window_options){.ctx = 512, .bos = -1}, &e), ERR_ARG);
    assert_non_null(strstr(e.msg, "--ctx"));
    corpus_release(&c);
    tokenizer_free(t);
    model_close(m);
}

/* Windows by the id they begin with. */
static void starts(struct windows *w, size_t n)
{
    *w = (struct windows){.ctx = 2, .n = n, .first = 1, .end = 2};
    w->inputs = malloc(2 * n * sizeof *w->inputs);
    w->targets = malloc(n * sizeof *w->targets);
    for (size_t i = 0; i < n; i++) {
        w->inputs[2 * i] = (int32_t)i;
        w->inputs[2 * i + 1] = -1;
        w->targets[i] = (int32_t)(100 + i);
    }
}

static void expect_starts(struct windows *w, const int32_t *want, size_t n)
{
    assert_int_equal(w->n, n);
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(w->inputs[2 * i], want[i]);
        assert_int_equal(w->targets[i], 100 + want[i]);
    }
    windows_release(w);
}

static void what_is_set_apart_is_not_among_those_that_stay(void **state)
{
    (void)state;
    struct windows w, rest;
    starts(&w, 10);
    assert_int_equal(windows_split(&w, 2, &rest, 3, NULL), 0);
    expect_starts(&w, (const int32_t[]){2, 7}, 2); /* as windows_thin picks */
    expect_starts(&rest, (const int32_t[]){1, 5, 8}, 3);
    starts(&w, 8); /* too few: a quarter is set aside */
    assert_int_equal(windows_split(&w, 8, &rest, 4, NULL), 0);
    expect_starts(&w, (const int32_t[]){0, 2, 3, 4, 6, 7}, 6);
    expect_starts(&rest, (const int32_t[]){1, 5}, 2);
    starts(&w, 2);
    assert_int_equal(windows_split(&w, 4, &rest, 2, NULL), 0);
    expect_starts(&w, (const int32_t[]){1}, 1);
    expect_starts(&rest, (const int32_t[]){0}, 1);
    starts(&w, 1);
    assert_int_equal(windows_split(&w, 4, &rest, 2, NULL), 0);
    expect_starts(&w, (const int32_t[]){0}, 1);
    expect_starts(&rest, NULL, 0);
}

static void what_is_no_list_of_ids_is_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {"{}",    "[1, -2]",      "[1.5]", "[\"a\"]", "[4294967296]",
                                      "[1, 2", "{\"ids\": 7}", "7 x",   "7,8",     "7 4294967296",
                                      "1.5",   "not ids",      ""};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct corpus c = {0};
        struct err e = {0};
        write_text(bad[i]);
        assert_int_equal(corpus_add_ids(&c, path, &e), ERR_FORMAT);
        assert_non_null(strstr(e.msg, path));
        assert_int_equal(c.n_ids, 0);
        corpus_release(&c);
    }
}

static void the_hash_of_windows_tells_where_texts_end(void **state)
{
    (void)state;
    const struct window_options opt = {.ctx = 4, .bos = -1}, bos = {.ctx = 4, .bos = 99};
    struct corpus two, one = {0};
    char of_two[65], of_one[65], of_bos[65], again[65];
    struct windows w;
    count_ids(&two);
    assert_int_equal(corpus_add_tokens(&one, "one", two.ids, two.n_ids, NULL, 0, NULL), 0);
    corpus_hash(&two, of_two);
    corpus_hash(&one, of_one);
    assert_string_equal(of_two, of_one);
    const struct corpus *texts[] = {&two, &one, &two, &two};
    const struct window_options *cuts[] = {&opt, &opt, &bos, &opt};
    char *hashes[] = {of_two, of_one, of_bos, again};
    for (int i = 0; i < 4; i++) {
        assert_int_equal(windows_cut(&w, texts[i], cuts[i], NULL), 0);
        windows_hash(&w, hashes[i]);
        windows_release(&w);
    }
    assert_string_not_equal(of_two, of_one);
    assert_string_not_equal(of_two, of_bos);
    assert_string_equal(of_two, again);
    corpus_release(&two);
    corpus_release(&one);
}

static void ids_are_those_of_a_vocabulary(void **state)
{
    (void)state;
    struct corpus c;
    struct err e = {0};
    count_ids(&c);
    assert_int_equal(corpus_check_ids(&c, 16, NULL), 0);
    assert_int_equal(corpus_check_ids(&c, 14, &e), ERR_ARG);
    assert_non_null(strstr(e.msg, "token id 14 at position 4 is outside the vocabulary of 14"));
    assert_non_null(strstr(e.msg, path));
    corpus_release(&c);
}

static void nothing_behind_a_nul_byte_is_dropped(void **state)
{
    (void)state;
    static const char bytes[] = "1 2\n\0003 4";
    struct corpus c = {0};
    struct err e = {0};
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, sizeof bytes - 1, f), sizeof bytes - 1);
    assert_int_equal(fclose(f), 0);
    assert_int_equal(corpus_add_ids(&c, path, &e), ERR_FORMAT);
    assert_non_null(strstr(e.msg, path));
    assert_non_null(strstr(e.msg, "a NUL byte at offset 4"));
    assert_int_equal(c.n_ids, 0);
    corpus_release(&c);
}

static void ids_are_taken_in_every_form_that_tokenize_prints(void **state)
{
    (void)state;
    static const char *const forms[] = {"[7, 0, 2147483647]", "{\"pieces\": [], \"ids\": [7, 0, 2147483647]}",
                                        "7 0 2147483647\n", "\n 7\n0\t2147483647"};
    static const int32_t want[] = {7, 0, 2147483647};
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        struct corpus c = {0};
        write_text(forms[i]);
        assert_int_equal(corpus_add_ids(&c, path, NULL), 0);
        assert_int_equal(c.n_ids, 3);
        assert_memory_equal(c.ids, want, sizeof want);
        corpus_release(&c);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(windows_stay_inside_a_text_and_score_their_second_half),
        cmocka_unit_test(a_stride_scores_the_last_tokens_of_overlapping_windows),
        cmocka_unit_test(a_short_list_of_ids_is_one_window),
        cmocka_unit_test(ids_are_taken_in_every_form_that_tokenize_prints),
        cmocka_unit_test(hashes_name_what_was_read),
        cmocka_unit_test(text_goes_through_the_tokenizer),
        cmocka_unit_test(what_is_set_apart_is_not_among_those_that_stay),
        cmocka_unit_test(what_is_no_list_of_ids_is_refused),
        cmocka_unit_test(the_hash_of_windows_tells_where_texts_end),
        cmocka_unit_test(ids_are_those_of_a_vocabulary),
        cmocka_unit_test(nothing_behind_a_nul_byte_is_dropped),
    };
    return cmocka_run_group_tests(tests, make_file, remove_file);
}
