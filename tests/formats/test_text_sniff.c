/* test_text_sniff.c - what is evidently no text is known, and texts are left alone. */
#include "formats/text_sniff.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#define N 9000

/* `unit` again and again. */
static void fill(char *out, const char *unit, size_t n)
{
    for (size_t i = 0; i < N; i++)
        out[i] = unit[i % n];
}

static void texts_are_not_doubted(void **state)
{
    (void)state;
    char text[N], why[TEXT_SNIFF_BYTES] = "";
    static const char *const units[] = {
        "Plain words, and more.\n", "GGUF is a format of files.\n",
        "\xd0\x9f\xd1\x80\xd0\xb8\xd0\xb2\xd0\xb5\xd1\x82 ", /* UTF-8; 8192 falls into a letter */
        "Pr\xfc"
        "fung der Stra\xdf"
        "e und so weiter\n", /* Latin-1 */
    };
    for (size_t i = 0; i < sizeof units / sizeof *units; i++) {
        fill(text, units[i], strlen(units[i]));
        assert_false(text_sniff(why, text, N));
    }
    memset(text, 0, 40); /* short */
    assert_false(text_sniff(why, text, 40));
    assert_string_equal(why, "");
}

static void other_bytes_are_doubted(void **state)
{
    (void)state;
    char text[N], why[TEXT_SNIFF_BYTES];
    fill(text, "\xcf\xf0\xe8\xe2\xe5\xf2 ", 7); /* another code page */
    assert_true(text_sniff(why, text, N));
    assert_non_null(strstr(why, "bytes that are not UTF-8 among its first 8192"));
    fill(text, "a\0", 2);
    assert_true(text_sniff(why, text, N));
    assert_string_equal(why, "has 4096 NUL bytes among its first 8192");
    fill(text, "A text.\n", 8);
    memcpy(text, "\x10\x27\0\0\0\0\0\0{\"", 10);
    assert_true(text_sniff(why, text, N));
    assert_string_equal(why, "begins as a safetensors file does");
    memcpy(text, "GGUF\x03\0\0\0", 8);
    assert_true(text_sniff(why, text, 64));
    assert_string_equal(why, "begins as a GGUF file does");
}

static void only_what_is_never_a_text_is_refused(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        size_t len;
        const char *words; /* NULL: let pass */
    } cases[] = {
        {"GGUF\x03\0\0\0", 8, "in.txt: expected a text, found a GGUF file"},
        {"GGUF\0\0\0\x03", 8, "in.txt: expected a text, found a GGUF file"},
        {"\x1f\x8b\x08\0", 4, "in.txt: expected a text, found a gzip file"},
        {"GGUF is a file format", 21, NULL},
        {"GGUF\0\0", 6, NULL},
        {"PK\x03\x04\0\0\0\0", 8, NULL},
        {"", 0, NULL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct err e = {0};
        int rc = text_refuse("in.txt", cases[i].text, cases[i].len, &e);
        assert_int_equal(rc, cases[i].words ? ERR_FORMAT : 0);
        if (cases[i].words)
            assert_non_null(strstr(e.msg, cases[i].words));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(texts_are_not_doubted),
        cmocka_unit_test(other_bytes_are_doubted),
        cmocka_unit_test(only_what_is_never_a_text_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
