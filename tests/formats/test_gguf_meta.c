/* test_gguf_meta.c - the ordered list of typed metadata: setting, finding, removing, converting. */
#include "formats/gguf/gguf_meta.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct gguf_meta *new_meta(void)
{
    struct gguf_meta *m;
    assert_int_equal(gguf_meta_new(&m, NULL), 0);
    return m;
}

static void keys_keep_their_order_and_are_found(void **state)
{
    (void)state;
    struct gguf_meta *m = new_meta();
    char key[32];
    for (uint32_t i = 0; i < 1000; i++) {
        snprintf(key, sizeof key, "key.%u", i);
        assert_int_equal(gguf_meta_set_u32(m, key, i, NULL), 0);
    }
    assert_int_equal(gguf_meta_set_string(m, "key.5", "five", NULL), 0); /* replaced in place */
    assert_int_equal(gguf_meta_n(m), 1000);
    assert_string_equal(gguf_meta_key(m, 5), "key.5");
    assert_int_equal(gguf_meta_value(m, 5)->type, GGUF_STRING);
    assert_true(gguf_meta_remove(m, "key.5"));
    assert_false(gguf_meta_remove(m, "key.5"));
    assert_null(gguf_meta_find(m, "key.5"));
    assert_int_equal(gguf_meta_n(m), 999);
    for (uint32_t i = 0; i < 1000; i++) {
        uint64_t v;
        snprintf(key, sizeof key, "key.%u", i);
        assert_int_equal(gguf_meta_get_u64(m, key, &v), i != 5);
        if (i != 5) {
            assert_int_equal(v, i);
            assert_string_equal(gguf_meta_key(m, i - (i > 5)), key);
        }
    }
    gguf_meta_free(m);
    gguf_meta_free(NULL);
}

static void values_are_copied(void **state)
{
    (void)state;
    struct gguf_meta *m = new_meta(), *c;
    char text[] = "hello";
    int32_t numbers[] = {1, -2, 3};
    struct gguf_string strings[] = {{"ab", 2}, {"", 0}, {"\xff\x00z", 3}};
    assert_int_equal(gguf_meta_set_string(m, "s", text, NULL), 0);
    assert_int_equal(gguf_meta_set_array(m, "a", GGUF_I32, numbers, 3, NULL), 0);
    assert_int_equal(gguf_meta_set_strings(m, "t", strings, 3, NULL), 0);
    assert_int_equal(gguf_meta_set_strings(m, "none", NULL, 0, NULL), 0);
    assert_int_equal(gguf_meta_set_array(m, "empty", GGUF_F32, NULL, 0, NULL), 0);
    memset(text, 'x', 5);
    memset(numbers, 0, sizeof numbers);
    strings[0].data = "zz";
    assert_int_equal(gguf_meta_copy(&c, m, NULL), 0);
    gguf_meta_free(m);
    struct gguf_string s;
    assert_true(gguf_meta_get_string(c, "s", &s));
    assert_true(gguf_string_is(s, "hello"));
    assert_false(gguf_string_is(s, "hell"));
    int64_t i;
    const struct gguf_value *a = gguf_meta_find(c, "a");
    assert_true(gguf_array_i64(a, 1, &i) && i == -2);
    assert_false(gguf_array_i64(a, 3, &i));
    const struct gguf_value *t = gguf_meta_find(c, "t");
    assert_true(gguf_array_string(t, 0, &s) && gguf_string_is(s, "ab"));
    assert_true(gguf_array_string(t, 2, &s) && s.len == 3 && memcmp(s.data, "\xff\x00z", 3) == 0);
    assert_false(gguf_array_string(t, 3, &s));
    assert_false(gguf_array_i64(t, 0, &i));
    assert_true(gguf_value_equal(t, t));
    assert_false(gguf_value_equal(t, a));
    assert_int_equal(gguf_meta_find(c, "empty")->a.n, 0);
    gguf_meta_free(c);
}

static void look_ups_convert_only_what_is_exact(void **state)
{
    (void)state;
    struct gguf_meta *m = new_meta();
    assert_int_equal(gguf_meta_set_i32(m, "minus", -7, NULL), 0);
    assert_int_equal(gguf_meta_set_u64(m, "huge", UINT64_MAX, NULL), 0);
    assert_int_equal(gguf_meta_set_f32(m, "third", 1.0f / 3, NULL), 0);
    assert_int_equal(gguf_meta_set_bool(m, "yes", true, NULL), 0);
    assert_int_equal(gguf_meta_set_u16(m, "small", 65535, NULL), 0);
    assert_int_equal(gguf_meta_set(m, "f", &(struct gguf_value){.type = GGUF_F32, .f = 0.1}, NULL), 0);
    uint64_t u;
    int64_t i;
    double f;
    bool b;
    struct gguf_string s;
    assert_false(gguf_meta_get_u64(m, "minus", &u));
    assert_true(gguf_meta_get_i64(m, "minus", &i) && i == -7);
    assert_true(gguf_meta_get_f64(m, "minus", &f) && f == -7);
    assert_true(gguf_meta_get_u64(m, "huge", &u) && u == UINT64_MAX);
    assert_false(gguf_meta_get_i64(m, "huge", &i));
    assert_true(gguf_meta_get_f64(m, "third", &f) && f == (double)(1.0f / 3));
    assert_true(gguf_meta_get_f64(m, "f", &f) && f == (double)0.1f);
    assert_false(gguf_meta_get_u64(m, "third", &u));
    assert_true(gguf_meta_get_bool(m, "yes", &b) && b);
    assert_false(gguf_meta_get_u64(m, "yes", &u) || gguf_meta_get_f64(m, "yes", &f));
    assert_false(gguf_meta_get_bool(m, "small", &b) || gguf_meta_get_string(m, "small", &s));
    assert_true(gguf_meta_get_i64(m, "small", &i) && i == 65535);
    assert_false(gguf_meta_get_u64(m, "absent", &u));
    gguf_meta_free(m);
}

static void arrays_of_every_width_are_read(void **state)
{
    (void)state;
    static const uint8_t raw[] = {0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
    static const struct {
        enum gguf_type type;
        bool is_int;
        int64_t i;
    } cases[] = {
        {GGUF_U8, true, 0xfe},        {GGUF_I8, true, -2},  {GGUF_U16, true, 0xfffe}, {GGUF_I16, true, -2},
        {GGUF_U32, true, 0xfffffffe}, {GGUF_I32, true, -2}, {GGUF_I64, true, -2},     {GGUF_U64, false, 0},
        {GGUF_F64, false, 0},         {GGUF_F32, false, 0},
    };
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        struct gguf_meta *m = new_meta();
        uint64_t n = 8 / gguf_type_size(cases[k].type);
        assert_int_equal(gguf_meta_set_array(m, "a", cases[k].type, raw, n, NULL), 0);
        const struct gguf_value *v = gguf_meta_find(m, "a");
        int64_t i;
        double f;
        assert_int_equal(gguf_array_i64(v, 0, &i), cases[k].is_int);
        assert_true(!cases[k].is_int || i == cases[k].i);
        assert_true(gguf_array_f64(v, 0, &f));
        if (cases[k].type == GGUF_U64)
            assert_true(f == 18446744073709551616.0);
        else if (cases[k].is_int)
            assert_true(f == (double)cases[k].i);
        else
            assert_true(f != f); /* these bits are a NaN */
        gguf_meta_free(m);
    }
}

static void impossible_values_are_refused(void **state)
{
    (void)state;
    struct gguf_meta *m = new_meta();
    struct err e = {0};
    const struct {
        const char *key, *word;
        struct gguf_value v;
    } cases[] = {
        {"", "empty", {.type = GGUF_U8, .u = 1}},
        {"\xff", "UTF-8", {.type = GGUF_U8, .u = 1}},
        {"k", "fit", {.type = GGUF_U8, .u = 256}},
        {"k", "fit", {.type = GGUF_U32, .u = (uint64_t)1 << 32}},
        {"k", "fit", {.type = GGUF_I8, .i = -129}},
        {"k", "fit", {.type = GGUF_I16, .i = 32768}},
        {"k", "0 or 1", {.type = GGUF_BOOL, .u = 2}},
        {"k", "UTF-8", {.type = GGUF_STRING, .s = {"\xc0\x80", 2}}},
        {"k", "arrays hold", {.type = GGUF_ARRAY, .a = {GGUF_ARRAY, 0, NULL}}},
        {"k", "unknown", {.type = (enum gguf_type)99}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_int_equal(gguf_meta_set(m, cases[i].key, &cases[i].v, &e), ERR_ARG);
        if (!strstr(e.msg, cases[i].word))
            fail_msg("'%s' lacks '%s'", e.msg, cases[i].word);
    }
    assert_int_equal(gguf_meta_set_array(m, "k", GGUF_STRING, NULL, 0, &e), ERR_ARG);
    assert_int_equal(gguf_meta_n(m), 0);
    assert_int_equal(gguf_meta_set(m, "k", &(struct gguf_value){.type = GGUF_I64, .i = INT64_MIN}, &e), 0);
    assert_int_equal(gguf_meta_append_borrowed(m, "k", 1, &(struct gguf_value){.type = GGUF_U8}, &e),
                     ERR_FORMAT);
    assert_int_equal(gguf_meta_append_borrowed(m, "a\0b", 3, &(struct gguf_value){.type = GGUF_U8}, &e),
                     ERR_FORMAT);
    gguf_meta_free(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keys_keep_their_order_and_are_found),
        cmocka_unit_test(values_are_copied),
        cmocka_unit_test(look_ups_convert_only_what_is_exact),
        cmocka_unit_test(arrays_of_every_width_are_read),
        cmocka_unit_test(impossible_values_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
