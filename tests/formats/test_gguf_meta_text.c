/* test_gguf_meta_text.c - metadata typed by people: kept types, guessed types, refused values. */
#include "formats/gguf/gguf_meta_text.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static const struct gguf_value *set(struct gguf_meta *m, const struct gguf_meta *old, const char *text,
                                    const char *key)
{
    struct err e = {0};
    assert_int_equal(gguf_meta_set_text(m, old, text, &e), 0);
    const struct gguf_value *v = gguf_meta_find(m, key);
    assert_non_null(v);
    return v;
}

static void new_keys_get_the_type_their_value_suggests(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        enum gguf_type type;
    } cases[] = {
        {"k=true", GGUF_BOOL},
        {"k=0", GGUF_U32},
        {"k=4294967295", GGUF_U32},
        {"k=4294967296", GGUF_I64},
        {"k=-1", GGUF_I32},
        {"k=-3000000000", GGUF_I64},
        {"k=18446744073709551615", GGUF_U64},
        {"k=1.5", GGUF_F32},
        {"k=1e-6", GGUF_F32},
        {"k=hello", GGUF_STRING},
        {"k=", GGUF_STRING},
        {"k=a=b:c", GGUF_STRING},
        {"k=12 apples", GGUF_STRING},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct gguf_meta *m;
        assert_int_equal(gguf_meta_new(&m, NULL), 0);
        assert_int_equal(set(m, NULL, cases[i].text, "k")->type, cases[i].type);
        gguf_meta_free(m);
    }
}

static void new_keys_that_are_known_as_arrays_are_arrays(void **state)
{
    (void)state;
    struct gguf_meta *old, *m;
    assert_int_equal(gguf_meta_new(&old, NULL), 0);
    assert_int_equal(gguf_meta_new(&m, NULL), 0);
    const struct gguf_value *v = set(m, old, "general.tags=code,chat", "general.tags");
    assert_int_equal(v->type, GGUF_ARRAY);
    assert_int_equal(v->a.elem, GGUF_STRING);
    assert_int_equal(v->a.n, 2);
    assert_int_equal(set(m, old, "general.languages=7", "general.languages")->a.elem, GGUF_STRING);
    assert_int_equal(set(m, old, "tokenizer.ggml.token_type=1,1,3", "tokenizer.ggml.token_type")->a.elem,
                     GGUF_I32);
    assert_int_equal(set(m, old, "general.tags:string=one", "general.tags")->type, GGUF_STRING);
    assert_int_equal(gguf_meta_set_string(old, "general.tags", "one", NULL), 0);
    assert_int_equal(set(m, old, "general.tags=a,b", "general.tags")->type, GGUF_STRING);
    gguf_meta_free(old);
    gguf_meta_free(m);
}

static void known_keys_keep_their_type_and_types_can_be_stated(void **state)
{
    (void)state;
    struct gguf_meta *old, *m;
    struct err e = {0};
    assert_int_equal(gguf_meta_new(&old, &e), 0);
    assert_int_equal(gguf_meta_new(&m, &e), 0);
    assert_int_equal(gguf_meta_set_f32(old, "f", 1, &e), 0);
    assert_int_equal(gguf_meta_set_u16(old, "s", 1, &e), 0);
    int32_t two[2] = {1, 2};
    assert_int_equal(gguf_meta_set_array(old, "a", GGUF_I32, two, 2, &e), 0);
    assert_int_equal(set(m, old, "f=10000", "f")->type, GGUF_F32);
    assert_true(gguf_meta_find(m, "f")->f == 10000);
    assert_int_equal(set(m, old, "s=7", "s")->type, GGUF_U16);
    const struct gguf_value *a = set(m, old, "a=-5,6,7", "a");
    int64_t v;
    assert_int_equal(a->a.elem, GGUF_I32);
    assert_int_equal(a->a.n, 3);
    assert_true(gguf_array_i64(a, 0, &v) && v == -5);
    assert_int_equal(set(m, old, "n:string=12", "n")->type, GGUF_STRING);
    assert_int_equal(set(m, old, "n:u64=12", "n")->type, GGUF_U64);
    a = set(m, old, "w:string[]=one,two", "w");
    struct gguf_string s;
    assert_true(gguf_array_string(a, 1, &s) && gguf_string_is(s, "two"));
    double d;
    a = set(m, old, "x:f32[]=0.5,2", "x");
    assert_true(gguf_array_f64(a, 0, &d) && d == 0.5);
    assert_int_equal(set(m, old, "empty:u8[]=", "empty")->a.n, 0);
    gguf_meta_free(old);
    gguf_meta_free(m);
}

static void values_that_do_not_fit_are_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {"novalue",     "=5",
                                      ":u32=5",      "k:u32=-1",
                                      "k:u8=256",    "k:i8=-129",
                                      "k:bool=yes",  "k:f32=1e39",
                                      "k:f32=nan",   "k:u33=1",
                                      "k:u32[]=1,x", "k:array=1",
                                      "k:u32=1.0",   "k:i64=9223372036854775808"};
    struct gguf_meta *m;
    assert_int_equal(gguf_meta_new(&m, NULL), 0);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct err e = {0};
        assert_int_equal(gguf_meta_set_text(m, NULL, bad[i], &e), ERR_ARG);
        assert_true(e.msg[0] != 0);
    }
    assert_int_equal(gguf_meta_n(m), 0);
    gguf_meta_free(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(new_keys_get_the_type_their_value_suggests),
        cmocka_unit_test(new_keys_that_are_known_as_arrays_are_arrays),
        cmocka_unit_test(known_keys_keep_their_type_and_types_can_be_stated),
        cmocka_unit_test(values_that_do_not_fit_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
