/* test_pretokenize.c - the hand matchers against the regular expressions, character classes, and form C. */
#include "formats/tokenizer/char_class.h"
#include "formats/tokenizer/codepoint.h"
#include "formats/tokenizer/nfc.h"
#include "formats/tokenizer/pretokenize.h"
#include "libquant/base/clock.h"
#include "hex.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* The next line of a golden file, comments skipped; NULL at the end. Cuts the text in place. */
static char *next_line(char **at)
{
    while (*at && **at) {
        char *line = *at, *eol = strchr(line, '\n');
        if (eol)
            *eol = 0;
        *at = eol ? eol + 1 : NULL;
        if (*line && *line != '#')
            return line;
    }
    return NULL;
}

static void check_pieces(const char *path, size_t least)
{
    size_t n_file, n_lines = 0;
    char *file = hex_read_file(path, &n_file), *at = file;
    assert_non_null(file);
    for (char *line; (line = next_line(&at)) != NULL; n_lines++) {
        char *save = NULL, *name = strtok_r(line, " ", &save), *hex = strtok_r(NULL, " ", &save);
        size_t len, n;
        uint8_t *text = hex_bytes(hex, strlen(hex), &len);
        const struct pretokenizer_info *info = pretokenizer_find(name);
        assert_non_null(text);
        assert_non_null(info);
        struct pretokenize p;
        const char *piece;
        pretokenize_begin(&p, info->kind, (const char *)text, len);
        for (char *want; (want = strtok_r(NULL, " ", &save)) != NULL;) {
            assert_true(pretokenize_next(&p, &piece, &n));
            if (n != strtoul(want, NULL, 10))
                fail_msg("%s: %s at byte %td: %zu bytes, expected %s", name, hex,
                         (const uint8_t *)piece - text, n, want);
        }
        assert_false(pretokenize_next(&p, &piece, &n));
        free(text);
    }
    assert_true(n_lines > least);
    free(file);
}

static void pieces_are_those_of_the_regular_expression(void **state)
{
    (void)state;
    check_pieces(KERF_TEST_GOLDEN "/pretokenize.txt", 500);
    check_pieces(KERF_TEST_GOLDEN "/pretokenize_steps.txt", 1000);
    check_pieces(KERF_TEST_GOLDEN "/pretokenize_later.txt", 600);
    if (getenv("KERF_PRETOKENIZE")) /* a file of one's own, larger than a test should be */
        check_pieces(getenv("KERF_PRETOKENIZE"), 0);
}

static void form_c_is_that_of_the_reference(void **state)
{
    (void)state;
    size_t n_file, n_lines = 0;
    char *file = hex_read_file(KERF_TEST_GOLDEN "/nfc.txt", &n_file), *at = file;
    assert_non_null(file);
    for (char *line; (line = next_line(&at)) != NULL; n_lines++) {
        char *space = strchr(line, ' ');
        size_t n_in, n_want, n_out;
        uint8_t *in = hex_bytes(line, (size_t)(space - line), &n_in);
        uint8_t *want = hex_bytes(space + 1, strlen(space + 1), &n_want);
        char *out = NULL;
        assert_int_equal(nfc_normalize(&out, &n_out, (const char *)in, n_in, NULL), 0);
        if (!out) { /* unchanged */
            assert_int_equal(n_in, n_want);
            assert_memory_equal(in, want, n_want);
        } else if (n_out != n_want || memcmp(out, want, n_want) != 0) {
            fail_msg("%s", line);
        }
        free(in);
        free(want);
        free(out);
    }
    assert_true(n_lines > 100);
    free(file);
}

/* White space of the property White_Space, not of category Z; the rest from Unicode 16 whatever the library.
 */
static void classes_follow_unicode_16(void **state)
{
    (void)state;
    static const struct {
        uint32_t cp;
        int class;
    } cases[] = {
        {'a', CHAR_LETTER},     {'0', CHAR_NUMBER},     {'_', CHAR_OTHER},      {'\v', CHAR_SPACE},
        {0x85, CHAR_SPACE},     {0xA0, CHAR_SPACE},     {0x200B, CHAR_OTHER},   {0x180E, CHAR_OTHER},
        {0x3000, CHAR_SPACE},   {0x301, CHAR_MARK},     {0x903, CHAR_MARK},     {0x20DD, CHAR_MARK},
        {0x2160, CHAR_NUMBER},  {0xBD, CHAR_NUMBER},    {0x2EBF0, CHAR_LETTER}, {0x2EE5E, CHAR_OTHER},
        {0x1C89, CHAR_LETTER},  {0x10D40, CHAR_NUMBER}, {0x897, CHAR_MARK},     {0xE000, CHAR_OTHER},
        {0xFFFFF, CHAR_OTHER},  {0x10FFFF, CHAR_OTHER}, {0x1F600, CHAR_OTHER},  {0x4E00, CHAR_LETTER},
        {0x1E5F1, CHAR_NUMBER}, {0x1611E, CHAR_MARK},   {0x1, CHAR_OTHER},      {0x7F, CHAR_OTHER},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        if (char_class(cases[i].cp) != cases[i].class)
            fail_msg("U+%04X: class %d, expected %d", cases[i].cp, char_class(cases[i].cp), cases[i].class);
}

/* What \\d and \\w mean, and signs newer than the library. */
static void details_follow_the_engine(void **state)
{
    (void)state;
    static const struct {
        uint32_t cp;
        int detail;
    } cases[] = {
        {'7', DETAIL_DECIMAL | DETAIL_WORD},
        {0x663, DETAIL_DECIMAL | DETAIL_WORD},
        {'_', DETAIL_PUNCTUATION | DETAIL_WORD},
        {'-', DETAIL_PUNCTUATION},
        {0xB2, DETAIL_WORD},
        {0x2074, 0},
        {0x2160, DETAIL_WORD},
        {0x24B6, DETAIL_SYMBOL | DETAIL_WORD},
        {0x301, DETAIL_MARK | DETAIL_WORD},
        {0x1CEAE, DETAIL_SYMBOL},
        {0x1B4E, DETAIL_PUNCTUATION},
        {0x16D70, DETAIL_DECIMAL | DETAIL_WORD},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        if (char_detail(cases[i].cp) != cases[i].detail)
            fail_msg("U+%04X: detail %d, expected %d", cases[i].cp, char_detail(cases[i].cp),
                     cases[i].detail);
}

static void byte_alphabet_is_a_bijection(void **state)
{
    (void)state;
    assert_int_equal(byte_to_codepoint(' '), 0x120);
    assert_int_equal(byte_to_codepoint('\n'), 0x10A);
    assert_int_equal(byte_to_codepoint(0xAD), 0x143);
    assert_int_equal(byte_to_codepoint(0x7F), 0x121);
    assert_int_equal(byte_to_codepoint(0xA0), 0x142);
    size_t n = 0;
    for (uint32_t cp = 0; cp < 0x300; cp++) {
        int b = codepoint_to_byte(cp);
        if (b < 0)
            continue;
        n++;
        assert_int_equal(byte_to_codepoint((uint8_t)b), cp);
    }
    assert_int_equal(n, 256);
    uint8_t out[8];
    size_t len;
    assert_true(bytes_from_alphabet("\xC4\xA0t", 3, out, &len));
    assert_int_equal(len, 2);
    assert_memory_equal(out, " t", 2);
    assert_false(bytes_from_alphabet(" t", 2, out, &len));           /* a space is not in the alphabet */
    assert_false(bytes_from_alphabet("\xE2\x96\x81", 3, out, &len)); /* nor is U+2581 */
    assert_false(bytes_from_alphabet("\xC4", 1, out, &len));
}

static void ill_formed_parts_become_one_replacement_each(void **state)
{
    (void)state;
    static const struct {
        const char *in, *out;
    } cases[] = {
        {"a\xFF"
         "b",
         "a\xEF\xBF\xBD"
         "b"},
        {"\xE2\x82"
         "A",
         "\xEF\xBF\xBD"
         "A"},                                                    /* a cut sequence is one part */
        {"\xE0\x80", "\xEF\xBF\xBD\xEF\xBF\xBD"},                 /* overlong: each byte by itself */
        {"\xED\xA0\x80", "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD"}, /* surrogate */
        {"\xF0\x9F\xA6", "\xEF\xBF\xBD"},
        {"\xF4\x90\x80\x80", "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD"},
        {"\xC3\xA9", "\xC3\xA9"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        size_t n;
        char *out = utf8_repair(cases[i].in, strlen(cases[i].in), &n);
        assert_non_null(out);
        assert_int_equal(n, strlen(cases[i].out));
        assert_memory_equal(out, cases[i].out, n);
        free(out);
    }
}

/* Texts made to be slow where a matcher looks ahead or a sorter exchanges neighbours. */
static void long_runs_take_linear_time(void **state)
{
    (void)state;
    enum { N = 300000 };
    static const char *const units[] = {" ",
                                        "a",
                                        " \n",
                                        "1",
                                        "1 ",
                                        "!",
                                        "\xCC\x81\xCC\xA3",
                                        "'",
                                        "\xE1\x84\x80",
                                        "`",
                                        "(",
                                        "A",
                                        "\xE2\x80\x8B",
                                        "\xE6\xBC\xA2",
                                        " (",
                                        "Aa",
                                        "1a",
                                        "IMGIMGA",
                                        "<sentinel:1"};
    char *text = malloc(N + 16);
    assert_non_null(text);
    double start = clock_read(CLOCK_PROCESS_CPUTIME_ID);
    for (size_t u = 0; u < sizeof units / sizeof *units; u++) {
        size_t w = strlen(units[u]), len = N / w * w, n, total;
        for (size_t i = 0; i < len; i += w)
            memcpy(text + i, units[u], w);
        for (int kind = PRE_QWEN2; kind < PRE_COUNT; kind++) {
            struct pretokenize p;
            const char *piece;
            pretokenize_begin(&p, (enum pretokenizer)kind, text, len);
            for (total = 0; pretokenize_next(&p, &piece, &n); total += n)
                assert_true(n > 0);
            assert_int_equal(total, len);
        }
        char *out = NULL;
        assert_int_equal(nfc_normalize(&out, &n, text, len, NULL), 0);
        free(out);
    }
    free(text);
    assert_true(clock_read(CLOCK_PROCESS_CPUTIME_ID) - start < 60); /* quadratic would take hours */
}

static void patterns_and_names_are_told_apart(void **state)
{
    (void)state;
    enum pretokenizer kind;
    static const char *const qwen2[] = {"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| "
                                        "?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"},
                             *const deepseek[] = {"[\r\n]", "\\s?\\p{L}+", "\\s?\\p{P}+",
                                                  "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+", "\\p{N}"},
                             *const other[] = {"\\s+"};
    assert_true(pretokenizer_from_patterns(qwen2, 1, &kind));
    assert_int_equal(kind, PRE_QWEN2);
    assert_null(pretokenizer_name(kind));
    assert_true(pretokenizer_from_patterns(deepseek, 5, &kind));
    assert_int_equal(kind, PRE_DEEPSEEK_CODER);
    assert_string_equal(pretokenizer_name(kind), "deepseek-coder");
    assert_false(pretokenizer_from_patterns(deepseek, 4, &kind));
    assert_false(pretokenizer_from_patterns(other, 1, &kind));
    assert_false(pretokenizer_from_patterns(other, 0, &kind));
    assert_int_equal(pretokenizer_find("default")->kind, PRE_DEFAULT);
    assert_null(pretokenizer_find(""));
    assert_true(pretokenizer_find("llama-bpe")->ignore_merges);
    assert_true(pretokenizer_find("qwen35")->nfc);
    assert_false(pretokenizer_find("deepseek-r1-qwen")->nfc);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pieces_are_those_of_the_regular_expression),
        cmocka_unit_test(form_c_is_that_of_the_reference),
        cmocka_unit_test(classes_follow_unicode_16),
        cmocka_unit_test(details_follow_the_engine),
        cmocka_unit_test(byte_alphabet_is_a_bijection),
        cmocka_unit_test(ill_formed_parts_become_one_replacement_each),
        cmocka_unit_test(long_runs_take_linear_time),
        cmocka_unit_test(patterns_and_names_are_told_apart),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
