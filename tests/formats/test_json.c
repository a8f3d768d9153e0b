/* test_json.c - the JSON guard: what is accepted, what is refused, and what the writer gives back. */
#include "formats/json.h"
#include "formats/text.h"
#include "formats/utf8.h"
#include "libquant/base/clock.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>

#include <cmocka.h>

static struct json_doc *parse(const char *text)
{
    struct json_doc *d = NULL;
    struct err e = {0};
    if (json_parse(&d, text, strlen(text), "t.json", &e) != 0)
        fail_msg("%s: %s", text, e.msg);
    return d;
}

static void good_values_are_read(void **state)
{
    (void)state;
    struct json_doc *d =
        parse(" {\"a\": [1, -2.5, \"x\\u00e9\\ud83d\\ude00\\n\", true, null, {}, []], \"A\": false}\n");
    const struct json *root = json_root(d);
    const struct json *a = json_get(root, "a");
    assert_true(json_is_object(root) && json_is_array(a));
    assert_int_equal(json_n_children(root), 2);
    assert_int_equal(json_n_children(a), 7);
    int64_t i;
    double f;
    bool b;
    const struct json *c = json_first(a);
    assert_true(json_int(c, &i) && i == 1);
    c = json_next(c);
    assert_false(json_int(c, &i));
    assert_true(json_number(c, &f) && f == -2.5);
    c = json_next(c);
    assert_string_equal(json_string(c), "x\xc3\xa9\xf0\x9f\x98\x80\n");
    c = json_next(c);
    assert_true(json_bool(c, &b) && b);
    c = json_next(c);
    assert_true(json_is_null(c));
    assert_true(json_bool(json_get(root, "A"), &b) && !b);
    assert_string_equal(json_key(json_next(json_first(root))), "A");
    assert_null(json_get(root, "b"));
    assert_null(json_get(json_get(root, "b"), "c")); /* look-ups chain through what is absent */
    assert_false(json_int(NULL, &i));
    assert_null(json_string(a));
    char *text = json_to_text(root);
    assert_string_equal(text,
                        "{\"a\":[1,-2.5,\"x\xc3\xa9\xf0\x9f\x98\x80\\n\",true,null,{},[]],\"A\":false}");
    free(text);
    json_free(d);
    json_free(NULL);
}

static void integers_are_exact_or_no_integers(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        bool is_int;
        int64_t value;
    } cases[] = {
        {"0", true, 0},
        {"-0", true, 0},
        {"9007199254740992", true, 9007199254740992},
        {"-9007199254740992", true, -9007199254740992},
        {"1000000000000000", true, 1000000000000000},
        {"9007199254740993", false, 0},
        {"18446744073709551616", false, 0},
        {"99999999999999999999999999999999", false, 0},
        {"1.0", false, 0},
        {"1e3", false, 0},
        {"0.5", false, 0},
        {"1E-2", false, 0},
    };
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        struct json_doc *d = parse(cases[k].text);
        int64_t i = 77;
        double f;
        assert_int_equal(json_int(json_root(d), &i), cases[k].is_int);
        assert_true(json_number(json_root(d), &f));
        assert_true(f == strtod(cases[k].text, NULL));
        if (cases[k].is_int) {
            assert_int_equal(i, cases[k].value);
            char *text = json_to_text(json_root(d));
            assert_int_equal(strtoll(text, NULL, 10), cases[k].value);
            free(text);
        }
        json_free(d);
    }
    struct json_doc *d = parse("-3");
    uint64_t u;
    assert_false(json_uint(json_root(d), &u));
    json_free(d);
}

static void refused(const char *text, size_t len, const char *word)
{
    struct json_doc *d = (struct json_doc *)&d;
    struct err e = {0};
    int rc = json_parse(&d, text, len, "t.json", &e);
    if (rc != ERR_FORMAT || !strstr(e.msg, word) || !strstr(e.msg, "t.json"))
        fail_msg("<%.60s>: code %d, message '%s', expected '%s'", text, rc, e.msg, word);
    assert_ptr_equal(d, &d); /* untouched on failure */
}

static void bad_texts_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *text, *word;
    } cases[] = {
        {"", "too early"},
        {"  \n", "too early"},
        {"{\"a\":1,}", "double quotes"},
        {"[1,]", "value is expected"},
        {"[1 2]", "',' or ']'"},
        {"{\"a\" 1}", "':'"},
        {"{\"a\":1 \"b\":2}", "',' or '}'"},
        {"{a:1}", "double quotes"},
        {"[1", "too early"},
        {"[1}", "',' or ']'"},
        {"{\"a\":1]", "',' or '}'"},
        {"1 2", "after the value"},
        {"{}x", "after the value"},
        {"[]]", "after the value"},
        {"nul", "value is expected"},
        {"True", "value is expected"},
        {"NaN", "value is expected"},
        {"Infinity", "value is expected"},
        {"// c\n1", "value is expected"},
        {"01", "leading zero"},
        {"-", "too early"},
        {"-x", "digit"},
        {"+1", "value is expected"},
        {".5", "value is expected"},
        {"1.", "too early"},
        {"1.x", "decimal point"},
        {"1e", "too early"},
        {"1ex", "exponent"},
        {"1e999", "too large"},
        {"0x10", "after the value"},
        {"1234567890123456789012345678901234567890123456789012345678901234", "63 characters"},
        {"\"abc", "no end"},
        {"\"a\tb\"", "control character"},
        {"\"\\x41\"", "unknown escape"},
        {"\"\\u12g4\"", "hexadecimal"},
        {"\"\\u12", "hexadecimal"},
        {"\"\\u0000\"", "NUL"},
        {"{\"a\\u0000b\":1}", "NUL"},
        {"\"\\ud800\"", "surrogate"},
        {"\"\\ud800\\u0041\"", "surrogate"},
        {"\"\\udc00\"", "surrogate"},
        {"\"\xff\"", "not UTF-8"},
        {"\"\xc0\xaf\"", "not UTF-8"},
        {"\"\xed\xa0\x80\"", "not UTF-8"},
        {"\"\xf4\x90\x80\x80\"", "not UTF-8"},
        {"\"\xe2\x82\"", "not UTF-8"},
        {"\xef\xbb\xbf{}", "byte order mark"},
        {"{\"a\":1,\"a\":2}", "duplicate key"},
        {"{\"a\":1,\"\\u0061\":2}", "duplicate key"},
        {"[{\"x\":{\"k\":1,\"k\":1}}]", "'k'"},
        {"{\"1\":0,\"2\":0,\"3\":0,\"4\":0,\"5\":0,\"6\":0,\"7\":0,\"8\":0,\"9\":0,\"5\":0}", "'5'"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        refused(cases[i].text, strlen(cases[i].text), cases[i].word);
    refused("\"a\0b\"", 5, "control character");
    refused("1\0", 2, "after the value");
    refused("{\"a\":\n 1,\n  ?}", 13, "line 3, column 3");
}

/* What Python's json module reads beyond the standard. */
static void python_files_may_hold_its_words_and_repeated_keys(void **state)
{
    (void)state;
    static const char text[] =
        "{\"a\": NaN, \"b\": [Infinity, -Infinity, 7], \"c\": 1, \"d\": {\"x\": 5, \"x\": 6.5}, "
        "\"c\": 3, \"e\": -2, \"c\": 2}";
    struct json_doc *d = NULL;
    struct err e = {0};
    uint64_t u;
    int64_t i;
    double v;
    assert_int_equal(json_parse(&d, text, sizeof text - 1, "inline", &e), ERR_FORMAT);
    if (json_parse_python(&d, text, sizeof text - 1, "inline", &e) != 0)
        fail_msg("%s", e.msg);
    const struct json *root = json_root(d), *b = json_first(json_get(root, "b"));
    assert_int_equal(json_n_children(root), 5);
    assert_string_equal(json_string(json_get(root, "a")), "NaN");
    assert_false(json_number(json_get(root, "a"), &v));
    assert_string_equal(json_string(b), "Infinity");
    assert_string_equal(json_string(json_next(b)), "-Infinity");
    assert_true(json_uint(json_next(json_next(b)), &u) && u == 7);
    assert_true(json_uint(json_get(root, "c"), &u) && u == 2);
    assert_true(json_number(json_get(json_get(root, "d"), "x"), &v) && v == 6.5);
    assert_true(json_int(json_get(root, "e"), &i) && i == -2);
    json_free(d);
    static const char *const bad[] = {"nan",      "[Inf]",  "+Infinity", "[-NaN]",        "{\"a\": NaNs}",
                                      "{NaN: 1}", "[NaN,]", "// x\n1",   "\xef\xbb\xbf{}"};
    for (size_t k = 0; k < sizeof bad / sizeof *bad; k++)
        assert_int_equal(json_parse_python(&d, bad[k], strlen(bad[k]), "inline", &e), ERR_FORMAT);
}

static void depth_is_bounded(void **state)
{
    (void)state;
    char text[200];
    memset(text, '[', 64);
    memset(text + 64, ']', 64);
    struct json_doc *d;
    struct err e = {0};
    assert_int_equal(json_parse(&d, text, 128, "deep", &e), 0);
    json_free(d);
    memset(text, '[', 65);
    memset(text + 65, ']', 65);
    refused(text, 130, "t.json");
    refused(text, 130, "64 levels");
    size_t n = 1 << 20;
    char *deep = malloc(n);
    for (size_t i = 0; i < n; i++)
        deep[i] = i % 5 == 0 ? '{' : i % 5 == 4 ? ':' : i % 5 == 2 ? 'a' : '"';
    refused(deep, n, "64 levels");
    free(deep);
}

/* A vocabulary of 200000 tokens: quadratic checks would take minutes, and json_free walks it once. */
static void large_objects_parse_in_linear_time(void **state)
{
    (void)state;
    const int n = 200000;
    char *text = malloc((size_t)n * 32);
    size_t len = 0;
    text[len++] = '{';
    for (int i = 0; i < n; i++)
        len += (size_t)sprintf(text + len, "%s\"token-%d\":%d", i ? "," : "", i, i);
    text[len++] = '}';
    struct json_doc *d;
    struct err e = {0};
    double begin = clock_read(CLOCK_PROCESS_CPUTIME_ID);
    assert_int_equal(json_parse(&d, text, len, "vocab.json", &e), 0);
    double seconds = clock_read(CLOCK_PROCESS_CPUTIME_ID) - begin;
    printf("200000 keys in %.3f s of CPU time\n", seconds);
    assert_true(seconds < 5.0); /* generous: sanitizers are slow; quadratic would be hundreds */
    assert_int_equal(json_n_children(json_root(d)), n);
    json_free(d);
    memcpy(text + len - 8, "0\":1,\"", 6); /* damage the end */
    assert_int_not_equal(json_parse(&d, text, len, "vocab.json", &e), 0);
    free(text);
}

static void utf8_is_judged_by_the_table(void **state)
{
    (void)state;
    assert_int_equal(utf8_prefix("", 0), 0);
    assert_true(utf8_valid(
        "\x7f\xc2\x80\xdf\xbf\xe0\xa0\x80\xed\x9f\xbf\xee\x80\x80\xf0\x90\x80\x80\xf4\x8f\xbf\xbf", 22));
    static const char *const bad[] = {"\x80",
                                      "\xc0\x80",
                                      "\xc1\xbf",
                                      "\xe0\x9f\xbf",
                                      "\xed\xa0\x80",
                                      "\xf0\x8f\xbf\xbf",
                                      "\xf4\x90\x80\x80",
                                      "\xf5\x80\x80\x80",
                                      "\xff",
                                      "\xc2",
                                      "\xe1\x80",
                                      "\xf1\x80\x80",
                                      "\xc2 "};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char text[32];
        int n = snprintf(text, sizeof text, "01234567%s", bad[i]);
        assert_int_equal(utf8_prefix(text, (size_t)n), 8);
    }
}

static void writer_output_reads_back_equal(void **state)
{
    (void)state;
    static const double values[] = {0.0,
                                    1.0,
                                    -1.5,
                                    0.1,
                                    1.0 / 3,
                                    1e15,
                                    1e300,
                                    5e-324,
                                    2.2250738585072014e-308,
                                    123456789.123456789,
                                    1.7976931348623157e308};
    char *text = NULL;
    size_t n = 0;
    FILE *f = open_memstream(&text, &n);
    struct json_writer w;
    jw_begin(&w, f);
    jw_object(&w);
    jw_key(&w, "quote\"\\\n\x01");
    jw_string(&w, "tab\t bad \xff euro \xe2\x82\xac");
    jw_key(&w, "none");
    jw_string(&w, NULL);
    jw_key(&w, "empty");
    jw_array(&w);
    jw_end(&w);
    jw_key(&w, "numbers");
    jw_array(&w);
    for (size_t i = 0; i < sizeof values / sizeof *values; i++)
        jw_double(&w, values[i]);
    jw_double(&w, strtod("nan", NULL));
    jw_double(&w, strtod("inf", NULL));
    jw_end(&w);
    jw_key(&w, "mixed");
    jw_array(&w);
    jw_uint(&w, UINT64_MAX);
    jw_int(&w, INT64_MIN);
    jw_object(&w);
    jw_key(&w, "x");
    jw_bool(&w, true);
    jw_end(&w);
    jw_null(&w);
    jw_string_n(&w, "abc", 2);
    jw_end(&w);
    jw_end(&w);
    fclose(f);
    static const char expected[] =
        "{\n"
        "  \"quote\\\"\\\\\\n\\u0001\": \"tab\\t bad \xef\xbf\xbd euro \xe2\x82\xac\",\n"
        "  \"none\": null,\n"
        "  \"empty\": [],\n"
        "  \"numbers\": [0, 1, -1.5, 0.1, 0.3333333333333333, 1e+15, 1e+300, 5e-324, "
        "2.2250738585072014e-308, 123456789.12345679, 1.7976931348623157e+308, null, null],\n"
        "  \"mixed\": [18446744073709551615, -9223372036854775808,\n"
        "    {\n"
        "      \"x\": true\n"
        "    },\n"
        "    null,\n"
        "    \"ab\"\n"
        "  ]\n"
        "}\n";
    assert_string_equal(text, expected);
    struct json_doc *d = parse(text);
    const struct json *c = json_first(json_get(json_root(d), "numbers"));
    for (size_t i = 0; i < sizeof values / sizeof *values; i++, c = json_next(c)) {
        double v;
        assert_true(json_number(c, &v) && v == values[i]);
    }
    json_free(d);
    free(text);
}

static void json_files_may_have_a_bound_of_values(void **state)
{
    (void)state;
    char path[] = "kerf-json-XXXXXX";
    struct json_doc *d = NULL;
    struct err e = {0};
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    static const char text[] = "{\"a\": [1, \"x\"], \"b\": null}"; /* keys are no values */
    assert_int_equal(write(fd, text, sizeof text - 1), sizeof text - 1);
    close(fd);
    assert_int_equal(json_load_limited(&d, path, 0, 5, &e), 0);
    json_free(d);
    assert_int_equal(json_load_limited(&d, path, 0, 4, &e), ERR_FORMAT);
    assert_non_null(strstr(e.msg, "more than 4 values"));
    unlink(path);
}

static void json_files_have_a_size_bound(void **state)
{
    (void)state;
    char path[] = "/tmp/kerf-test-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, "[1, 2, 3]", 9), 9);
    close(fd);
    struct json_doc *d;
    struct err e = {0};
    assert_int_equal(json_load(&d, path, 9, &e), 0);
    json_free(d);
    assert_int_equal(json_load(&d, path, 8, &e), ERR_FORMAT);
    assert_non_null(strstr(e.msg, "9 bytes"));
    assert_int_equal(truncate(path, 0), 0);
    assert_int_equal(json_load(&d, path, 0, &e), ERR_FORMAT);
    unlink(path);
    assert_int_equal(json_load(&d, path, 0, &e), ERR_IO);
}

/* --- text input --- */

static void write_file(const char *path, const void *data, size_t n)
{
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, n, f), n);
    fclose(f);
}

/* One gzip member of `text`; caller frees. */
static unsigned char *gzip(const void *text, size_t n, size_t *out_n)
{
    z_stream z = {0};
    assert_int_equal(deflateInit2(&z, 9, Z_DEFLATED, 15 + 16, 9, Z_DEFAULT_STRATEGY), Z_OK);
    size_t cap = deflateBound(&z, n) + 64;
    unsigned char *out = malloc(cap);
    z.next_in = (unsigned char *)(uintptr_t)text;
    z.avail_in = (unsigned)n;
    z.next_out = out;
    z.avail_out = (unsigned)cap;
    assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
    *out_n = cap - z.avail_out;
    deflateEnd(&z);
    return out;
}

static void texts_come_plain_or_gzipped_within_a_bound(void **state)
{
    (void)state;
    char dir[] = "/tmp/kerf-test-XXXXXX", path[64], gz[64];
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/a.txt", dir);
    snprintf(gz, sizeof gz, "%s/a.txt.gz", dir);
    size_t n = 300000, len, gz_n;
    char *body = malloc(n), *text;
    for (size_t i = 0; i < n; i++)
        body[i] = (char)('a' + i * i % 23);
    struct err e = {0};
    write_file(path, body, n);
    assert_int_equal(text_read(&text, &len, path, 0, &e), 0);
    assert_int_equal(len, n);
    assert_memory_equal(text, body, n);
    assert_int_equal(text[len], 0);
    free(text);
    assert_int_equal(text_read(&text, &len, path, n, &e), 0);
    free(text);
    assert_int_equal(text_read(&text, &len, path, n - 1, &e), ERR_IO);
    assert_non_null(strstr(e.msg, "more than 299999"));

    unsigned char *z = gzip(body, n, &gz_n);
    write_file(gz, z, gz_n);
    assert_int_equal(text_read(&text, &len, gz, n, &e), 0);
    assert_int_equal(len, n);
    assert_memory_equal(text, body, n);
    free(text);
    assert_int_equal(text_read(&text, &len, gz, n - 1, &e), ERR_IO);
    for (size_t cut = 0; cut < gz_n; cut += gz_n / 7 + 1) {
        write_file(gz, z, cut);
        assert_int_equal(text_read(&text, &len, gz, 0, &e), ERR_FORMAT);
        assert_non_null(strstr(e.msg, "cut short"));
    }
    unsigned char *twice = malloc(2 * gz_n);
    memcpy(twice, z, gz_n);
    memcpy(twice + gz_n, z, gz_n);
    write_file(gz, twice, 2 * gz_n); /* members follow each other */
    assert_int_equal(text_read(&text, &len, gz, 0, &e), 0);
    assert_int_equal(len, 2 * n);
    free(text);
    memset(twice + gz_n, 'x', gz_n);
    write_file(gz, twice, gz_n + 5);
    assert_int_equal(text_read(&text, &len, gz, 0, &e), ERR_FORMAT);
    assert_non_null(strstr(e.msg, "after the end"));
    memcpy(twice, z, gz_n);
    twice[gz_n / 2] ^= 0x55;
    write_file(gz, twice, gz_n);
    assert_int_equal(text_read(&text, &len, gz, 0, &e), ERR_FORMAT);
    write_file(gz, "plain", 5);
    assert_int_equal(text_read(&text, &len, gz, 0, &e), ERR_FORMAT);
    assert_non_null(strstr(e.msg, "header"));
    free(twice);
    free(z);

    z = gzip("", 0, &gz_n);
    write_file(gz, z, gz_n);
    assert_int_equal(text_read(&text, &len, gz, 0, &e), 0);
    assert_int_equal(len, 0);
    assert_string_equal(text, "");
    free(text);
    free(z);
    char *zeros = calloc(1, 64 << 20); /* a bomb: 64 MiB in 64 KiB */
    z = gzip(zeros, 64 << 20, &gz_n);
    write_file(gz, z, gz_n);
    assert_int_equal(text_read(&text, &len, gz, 1 << 20, &e), ERR_IO);
    free(zeros);
    free(z);
    assert_int_equal(text_read(&text, &len, dir, 0, &e), ERR_IO);
    assert_non_null(strstr(e.msg, "folder"));
    unlink(path);
    unlink(gz);
    assert_int_equal(text_read(&text, &len, path, 0, &e), ERR_IO);
    rmdir(dir);
    free(body);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(good_values_are_read),
        cmocka_unit_test(integers_are_exact_or_no_integers),
        cmocka_unit_test(bad_texts_are_refused),
        cmocka_unit_test(python_files_may_hold_its_words_and_repeated_keys),
        cmocka_unit_test(depth_is_bounded),
        cmocka_unit_test(large_objects_parse_in_linear_time),
        cmocka_unit_test(utf8_is_judged_by_the_table),
        cmocka_unit_test(writer_output_reads_back_equal),
        cmocka_unit_test(json_files_may_have_a_bound_of_values),
        cmocka_unit_test(json_files_have_a_size_bound),
        cmocka_unit_test(texts_come_plain_or_gzipped_within_a_bound),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
