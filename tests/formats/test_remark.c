/* Warnings as texts with a head: codes, tensors, groups, and the JSON that scripts read. */
#include "formats/remark.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void a_text_is_split_into_code_tensor_and_sentence(void **state)
{
    (void)state;
    struct remark_list l = {0};
    assert_string_equal(remark_sentence("[text-cut] two of three"), "two of three");
    assert_string_equal(remark_sentence("no head: at all"), "no head: at all");
    assert_string_equal(remark_sentence("[INFO] upper case is no code"), "[INFO] upper case is no code");
    assert_true(remark_has_code("[text-cut] two", "text-cut"));
    assert_false(remark_has_code("[text-cut] two", "text"));
    const struct remark *r = remark_list_add(&l, "a.gguf", "[type-fallback|blk.0.w] rows of 576", true);
    assert_string_equal(r->code, "type-fallback");
    assert_string_equal(r->tensor, "blk.0.w");
    assert_string_equal(r->message, "a.gguf: rows of 576");
    r = remark_list_add(&l, "a.gguf", "[data-missing] a.gguf: cut", true);
    assert_null(r->tensor);
    assert_string_equal(r->message, "a.gguf: cut"); /* named already */
    r = remark_list_add(&l, NULL, "said without a code", true);
    assert_string_equal(r->code, "other");
    r = remark_list_add(&l, NULL, "[broken|tensor without an end", true);
    assert_string_equal(r->code, "other");
    assert_string_equal(r->message, "[broken|tensor without an end");
    assert_int_equal(l.n, 4);
    remark_list_release(&l);
}

static void a_message_holds_no_control_characters(void **state)
{
    (void)state;
    struct remark_list l = {0};
    const struct remark *r = remark_list_add(&l, "a.gguf", "[type-fallback|w\x1b[2J] w\x1b[2J: narrow", true);
    assert_string_equal(r->message, "a.gguf: w?[2J: narrow");
    assert_string_equal(r->tensor, "w\x1b[2J"); /* the name itself, for programs */
    remark_list_release(&l);
}

static void tensors_of_one_code_and_file_are_one_item(void **state)
{
    (void)state;
    struct remark_list l = {0};
    char text[80];
    for (int i = 0; i < 60; i++) {
        snprintf(text, sizeof text, "[type-fallback|blk.%d.w] blk.%d.w: rows of 576", i, i);
        remark_list_add(&l, "a.gguf", text, true);
    }
    remark_list_add(&l, "b.gguf", text, true);
    for (int i = 0; i < 3; i++)
        remark_list_add(&l, NULL, "[not-utf8] the same words", true);
    remark_list_add(&l, NULL, "[not-utf8] other words", true);
    assert_int_equal(l.n, 4);
    assert_int_equal(l.items[0].count, 60);
    char more[REMARK_COUNT_BYTES];
    assert_string_equal(l.items[0].message, "a.gguf: blk.0.w: rows of 576");
    assert_string_equal(remark_count(&l.items[0], more), " (and 59 more tensors; --verbose lists them)");
    assert_string_equal(remark_count(&l.items[1], more), "");
    assert_int_equal(l.items[1].count, 1);
    assert_int_equal(l.items[2].count, 3);
    assert_string_equal(l.items[2].message, "the same words");
    assert_string_equal(remark_count(&l.items[2], more), " (3 times)");
    remark_list_release(&l);
    for (int i = 0; i < 5; i++) /* --verbose */
        remark_list_add(&l, NULL, text, false);
    assert_int_equal(l.n, 5);
    remark_list_release(&l);
}

static void the_list_is_json_with_four_members(void **state)
{
    (void)state;
    struct remark_list l = {.n_lost = 2};
    char *text = NULL;
    size_t n = 0;
    struct json_doc *doc = NULL;
    struct err e = {0};
    remark_list_add(&l, NULL, "[type-fallback|x \"y\"] rows", true);
    remark_list_add(&l, NULL, "[no-vocabulary] no tokenizer", true);
    FILE *f = open_memstream(&text, &n);
    assert_non_null(f);
    struct json_writer w;
    jw_begin(&w, f);
    remark_list_json(&w, &l);
    assert_int_equal(fclose(f), 0);
    assert_int_equal(json_parse(&doc, text, n, "remarks", &e), 0);
    const struct json *item = json_first(json_root(doc));
    uint64_t count = 0;
    assert_int_equal(json_n_children(json_root(doc)), 3);
    assert_string_equal(json_string(json_get(item, "code")), "type-fallback");
    assert_string_equal(json_string(json_get(item, "message")), "rows");
    assert_string_equal(json_string(json_get(item, "tensor")), "x \"y\"");
    assert_true(json_uint(json_get(item, "count"), &count));
    assert_int_equal(count, 1);
    item = json_next(item);
    assert_null(json_string(json_get(item, "tensor")));
    item = json_next(item);
    assert_string_equal(json_string(json_get(item, "code")), "out-of-memory");
    assert_true(json_uint(json_get(item, "count"), &count));
    assert_int_equal(count, 2);
    json_free(doc);
    free(text);
    remark_list_release(&l);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_text_is_split_into_code_tensor_and_sentence),
        cmocka_unit_test(a_message_holds_no_control_characters),
        cmocka_unit_test(tensors_of_one_code_and_file_are_one_item),
        cmocka_unit_test(the_list_is_json_with_four_members),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
