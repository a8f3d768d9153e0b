/* test_gguf_api.c - the public face of the GGUF reader, through the shared library itself. */
#include <kerf/gguf.h>

#include "formats/gguf/gguf_write.h"

#include "scratch.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct scratch folder;

static int make_folder(void **state)
{
    (void)state;
    scratch_make(&folder);
    return 0;
}

static int remove_folder(void **state)
{
    (void)state;
    scratch_remove(&folder);
    return 0;
}

/* Good until the next call. */
static const char *in_folder(const char *name)
{
    static char path[128];
    snprintf(path, sizeof path, "%s/%s", folder.folder, name);
    return path;
}

/* Two tensors, and a key of each kind that the accessors tell apart. */
static void write_file(void)
{
    struct gguf_meta *m;
    static const int32_t numbers[] = {-3, 70000};
    const struct gguf_string words[] = {{"ab", 2}, {"", 0}};
    assert_int_equal(gguf_meta_new(&m, NULL), 0);
    assert_int_equal(gguf_meta_set_string(m, "general.architecture", "toy", NULL), 0);
    assert_int_equal(gguf_meta_set_u32(m, "u", 4000000000u, NULL), 0);
    assert_int_equal(gguf_meta_set_i32(m, "i", -5, NULL), 0);
    assert_int_equal(gguf_meta_set_f32(m, "f", 0.5f, NULL), 0);
    assert_int_equal(gguf_meta_set_bool(m, "b", true, NULL), 0);
    assert_int_equal(gguf_meta_set_array(m, "numbers", GGUF_I32, numbers, 2, NULL), 0);
    assert_int_equal(gguf_meta_set_strings(m, "words", words, 2, NULL), 0);
    struct gguf_out_tensor t[] = {{.name = "one", .type = QTYPE_Q8_0, .n_dims = 2, .ne = {32, 3}},
                                  {.name = "two", .type = QTYPE_F32, .n_dims = 1, .ne = {2}}};
    uint8_t *header;
    size_t n;
    uint64_t total;
    assert_int_equal(gguf_layout(m, t, 2, &header, &n, &total, NULL), 0);
    uint8_t *file = calloc(1, total);
    assert_non_null(file);
    memcpy(file, header, n);
    const float two[] = {1.5f, -2};
    memcpy(file + t[1].offset, two, sizeof two);
    scratch_bytes(&folder, "m.gguf", file, (size_t)total);
    scratch_bytes(&folder, "cut.gguf", file, n - 1);
    free(file);
    free(header);
    gguf_meta_free(m);
}

static struct kerf_gguf *open_file(void)
{
    struct kerf_gguf *g = NULL;
    struct kerf_error e;
    write_file();
    if (kerf_gguf_open(&g, in_folder("m.gguf"), &e) != 0)
        fail_msg("%s", e.message);
    return g;
}

static void tensors_are_listed_and_found(void **state)
{
    (void)state;
    struct kerf_gguf *g = open_file();
    assert_int_equal(kerf_gguf_n_tensors(g), 2);
    struct kerf_gguf_tensor t = kerf_gguf_tensor_at(g, 0);
    assert_string_equal(t.name, "one");
    assert_int_equal(t.type, KERF_TYPE_Q8_0);
    assert_int_equal(t.n_dims, 2);
    assert_int_equal(t.dims[0], 32);
    assert_int_equal(t.dims[1], 3);
    assert_int_equal(t.dims[3], 1);
    assert_int_equal(t.n_bytes, 3 * 34);
    float x[2];
    t = kerf_gguf_find_tensor(g, "two");
    assert_int_equal(kerf_dequantize_rows(NULL, t.type, t.data, t.n_bytes, x, 1, 2, NULL), 0);
    assert_true(x[0] == 1.5f && x[1] == -2);
    assert_null(kerf_gguf_find_tensor(g, "three").name);
    assert_null(kerf_gguf_tensor_at(g, 2).name);
    kerf_gguf_close(g);
}

static void values_come_in_their_kind_or_not_at_all(void **state)
{
    (void)state;
    struct kerf_gguf *g = open_file();
    uint64_t u = 1, n = 0;
    int64_t i = 1;
    double f = 1;
    bool b = false;
    const char *text = NULL;
    size_t len = 0;
    enum kerf_gguf_kind kind;
    assert_int_equal(kerf_gguf_n_keys(g), 7);
    assert_string_equal(kerf_gguf_key_at(g, 0), "general.architecture");
    assert_null(kerf_gguf_key_at(g, 7));
    assert_true(kerf_gguf_kind(g, "b", &kind));
    assert_int_equal(kind, KERF_GGUF_BOOL);
    assert_false(kerf_gguf_kind(g, "none", &kind));
    assert_true(kerf_gguf_get_string(g, "general.architecture", &text, &len));
    assert_int_equal(len, 3);
    assert_memory_equal(text, "toy", 3);
    assert_true(kerf_gguf_get_u64(g, "u", &u));
    assert_int_equal(u, 4000000000u);
    assert_false(kerf_gguf_get_u64(g, "i", &u));
    assert_int_equal(u, 4000000000u);
    assert_true(kerf_gguf_get_i64(g, "i", &i));
    assert_int_equal(i, -5);
    assert_true(kerf_gguf_get_f64(g, "f", &f));
    assert_true(f == 0.5);
    assert_true(kerf_gguf_get_bool(g, "b", &b) && b);
    assert_false(kerf_gguf_get_string(g, "u", &text, &len));
    assert_true(kerf_gguf_get_array(g, "numbers", &kind, &n));
    assert_int_equal(kind, KERF_GGUF_I32);
    assert_int_equal(n, 2);
    assert_true(kerf_gguf_get_array_i64(g, "numbers", 1, &i));
    assert_int_equal(i, 70000);
    assert_true(kerf_gguf_get_array_f64(g, "numbers", 0, &f));
    assert_true(f == -3);
    assert_false(kerf_gguf_get_array_i64(g, "numbers", 2, &i));
    assert_false(kerf_gguf_get_array(g, "u", &kind, &n));
    assert_true(kerf_gguf_get_array_string(g, "words", 0, &text, &len));
    assert_int_equal(len, 2);
    assert_memory_equal(text, "ab", 2);
    assert_false(kerf_gguf_get_array_string(g, "numbers", 0, &text, &len));
    kerf_gguf_close(g);
}

static void what_cannot_be_opened_says_why(void **state)
{
    (void)state;
    struct kerf_gguf *g = NULL;
    struct kerf_error e;
    write_file();
    assert_int_equal(kerf_gguf_open(&g, in_folder("cut.gguf"), &e), KERF_ERROR_FORMAT);
    assert_non_null(strstr(e.message, "cut.gguf"));
    assert_int_equal(kerf_gguf_open(&g, in_folder("none.gguf"), &e), KERF_ERROR_IO);
    assert_int_equal(e.code, KERF_ERROR_IO);
    assert_int_equal(kerf_gguf_open(&g, in_folder("none.gguf"), NULL), KERF_ERROR_IO);
    assert_null(g);
    kerf_gguf_close(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tensors_are_listed_and_found),
        cmocka_unit_test(values_come_in_their_kind_or_not_at_all),
        cmocka_unit_test(what_cannot_be_opened_says_why),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
