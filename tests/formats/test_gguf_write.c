/* test_gguf_write.c - the header bytes, the offsets, and what cannot be written. */
#include "formats/gguf/gguf_read.h"
#include "formats/gguf/gguf_write.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static struct gguf_meta *new_meta(void)
{
    struct gguf_meta *m;
    assert_int_equal(gguf_meta_new(&m, NULL), 0);
    return m;
}

/* Worked by hand from the layout in the specification. */
static void header_bytes_are_the_format(void **state)
{
    (void)state;
    static const uint8_t
        expected[] =
            {
                'G', 'G', 'U', 'F', 3, 0, 0, 0, 1,   0,   0, 0, 0, 0,    0,    0,    2,
                0,   0,   0,   0,   0, 0, 0, /* 1 tensor, 2 keys */
                1,   0,   0,   0,   0, 0, 0, 0, 'n', 5,   0, 0, 0, 0xfe, 0xff, 0xff, 0xff, /* n: i32 -2 */
                2,   0,   0,   0,   0, 0, 0, 0, 's', 's', 9, 0, 0, 0,    8,    0,    0,
                0,   2,   0,   0,   0, 0, 0, 0, 0,                                      /* ss: 2 strings */
                1,   0,   0,   0,   0, 0, 0, 0, 'x', 0,   0, 0, 0, 0,    0,    0,    0, /* "x", "" */
                1,   0,   0,   0,   0, 0, 0, 0, 't', 2,   0, 0, 0, 32,   0,    0,    0,
                0,   0,   0,   0,   3, 0, 0, 0, 0,   0,   0, 0, /* t [32, 3] */
                8,   0,   0,   0,   0, 0, 0, 0, 0,   0,   0, 0, /* Q8_0 at 0 */
            };
    struct gguf_meta *m = new_meta();
    struct gguf_string strings[] = {{"x", 1}, {"", 0}};
    assert_int_equal(gguf_meta_set_i32(m, "n", -2, NULL), 0);
    assert_int_equal(gguf_meta_set_strings(m, "ss", strings, 2, NULL), 0);
    struct gguf_out_tensor t = {.name = "t", .type = QTYPE_Q8_0, .n_dims = 2, .ne = {32, 3}};
    uint8_t *header;
    size_t n;
    uint64_t total;
    assert_int_equal(gguf_layout(m, &t, 1, &header, &n, &total, NULL), 0);
    size_t padded = (sizeof expected + 31) / 32 * 32;
    assert_int_equal(n, padded);
    assert_memory_equal(header, expected, sizeof expected);
    for (size_t i = sizeof expected; i < n; i++)
        assert_int_equal(header[i], 0);
    assert_int_equal(t.n_bytes, 3 * 34);
    assert_int_equal(t.offset, padded);
    assert_int_equal(total, padded + 128);
    assert_int_equal(t.ne[2], 1);
    assert_int_equal(t.ne[3], 1);
    free(header);
    gguf_meta_free(m);
}

/* Every value type, through the writer and back through the reader. */
static void add_scalars(struct gguf_meta *m)
{
    static const struct gguf_value scalars[] = {
        {.type = GGUF_U8, .u = 255},
        {.type = GGUF_I8, .i = -128},
        {.type = GGUF_U16, .u = 65535},
        {.type = GGUF_I16, .i = -32768},
        {.type = GGUF_U32, .u = UINT32_MAX},
        {.type = GGUF_I32, .i = INT32_MIN},
        {.type = GGUF_U64, .u = UINT64_MAX},
        {.type = GGUF_I64, .i = INT64_MIN},
        {.type = GGUF_F32, .f = -0.333333343267440796},
        {.type = GGUF_F64, .f = 1e300},
        {.type = GGUF_BOOL, .u = 1},
        {.type = GGUF_STRING, .s = {"gr\xc3\xbc\xc3\x9f", 6}},
        {.type = GGUF_STRING, .s = {"", 0}},
    };
    char key[32];
    for (size_t i = 0; i < sizeof scalars / sizeof *scalars; i++) {
        snprintf(key, sizeof key, "scalar.%zu", i);
        assert_int_equal(gguf_meta_set(m, key, &scalars[i], NULL), 0);
    }
}

static void add_arrays(struct gguf_meta *m)
{
    struct gguf_string strings[] = {{"\x00\xff", 2}, {"", 0}, {"abc", 3}};
    char key[32];
    uint8_t bytes[48];
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (uint8_t)(i & 1); /* sound for bool, too */
    for (unsigned t = 0; t < GGUF_TYPE_COUNT; t++) {
        if (gguf_type_size((enum gguf_type)t) == 0)
            continue;
        snprintf(key, sizeof key, "array.%u", t);
        assert_int_equal(gguf_meta_set_array(m, key, (enum gguf_type)t, bytes, 5, NULL), 0);
    }
    assert_int_equal(gguf_meta_set_array(m, "array.empty", GGUF_F64, NULL, 0, NULL), 0);
    assert_int_equal(gguf_meta_set_strings(m, "array.strings", strings, 3, NULL), 0);
}

/* A file of these tensors, of zeros, as it is read; *bytes, of which `header` are its header, are the
 * caller's. */
static struct gguf_reader *write_and_read(const struct gguf_meta *m, struct gguf_out_tensor *tensors,
                                          size_t n_tensors, uint8_t **bytes, size_t *header)
{
    uint64_t total;
    struct err e = {0};
    struct gguf_reader *r;
    assert_int_equal(gguf_layout(m, tensors, n_tensors, bytes, header, &total, &e), 0);
    *bytes = realloc(*bytes, total);
    assert_non_null(*bytes);
    memset(*bytes + *header, 0, total - *header);
    if (gguf_reader_open_memory(&r, *bytes, total, "memory", NULL, &e) != 0)
        fail_msg("%s", e.msg);
    return r;
}

static void every_value_type_reads_back(void **state)
{
    (void)state;
    struct gguf_meta *m = new_meta();
    struct gguf_out_tensor one = {.name = "a", .type = QTYPE_F32, .n_dims = 1, .ne = {5}};
    uint8_t *file, *again;
    size_t n, again_n;
    uint64_t total;
    add_scalars(m);
    add_arrays(m);
    struct gguf_reader *r = write_and_read(m, &one, 1, &file, &n);
    const struct gguf_meta *back = gguf_reader_meta(r);
    assert_int_equal(gguf_meta_n(back), gguf_meta_n(m));
    for (size_t i = 0; i < gguf_meta_n(m); i++) {
        assert_string_equal(gguf_meta_key(back, i), gguf_meta_key(m, i));
        if (!gguf_value_equal(gguf_meta_value(back, i), gguf_meta_value(m, i)))
            fail_msg("%s differs", gguf_meta_key(m, i));
    }
    /* the same list laid out again gives the same bytes */
    assert_int_equal(gguf_layout(back, &one, 1, &again, &again_n, &total, NULL), 0);
    assert_int_equal(again_n, n);
    assert_memory_equal(again, file, n);
    free(again);
    gguf_reader_close(r);
    free(file);
    gguf_meta_free(m);
}

static void tensors_lie_where_the_alignment_says(void **state)
{
    (void)state;
    struct gguf_meta *m = new_meta();
    struct gguf_out_tensor tensors[3] = {
        {.name = "a", .type = QTYPE_F32, .n_dims = 1, .ne = {5}},
        {.name = "scalar", .type = QTYPE_F16, .n_dims = 0},
        {.name = "c", .type = QTYPE_Q4_K, .n_dims = 4, .ne = {256, 2, 3, 4}},
    };
    uint8_t *file;
    size_t n;
    assert_int_equal(gguf_meta_set_u32(m, "general.alignment", 128, NULL), 0);
    struct gguf_reader *r = write_and_read(m, tensors, 3, &file, &n);
    assert_int_equal(gguf_reader_alignment(r), 128);
    assert_int_equal(n % 128, 0);
    assert_int_equal(tensors[1].offset, n + 128);
    assert_int_equal(tensors[2].offset, n + 256);
    assert_int_equal(tensors[2].n_bytes, 144 * 24);
    for (size_t i = 0; i < 3; i++) {
        const struct gguf_tensor *t = gguf_reader_tensor(r, i);
        assert_string_equal(t->name, tensors[i].name);
        assert_int_equal(t->type, tensors[i].type);
        assert_int_equal(t->n_dims, tensors[i].n_dims);
        assert_int_equal(t->offset, tensors[i].offset);
        assert_int_equal(t->n_bytes, tensors[i].n_bytes);
        assert_ptr_equal(t->data, file + t->offset);
        assert_memory_equal(t->ne, tensors[i].ne, sizeof t->ne);
    }
    gguf_reader_close(r);
    free(file);
    gguf_meta_free(m);
}

static void refused(struct gguf_meta *m, struct gguf_out_tensor *t, size_t n_tensors, const char *word)
{
    uint8_t *header;
    size_t n;
    uint64_t total;
    struct err e = {0};
    int rc = gguf_layout(m, t, n_tensors, &header, &n, &total, &e);
    if (rc != ERR_ARG || !strstr(e.msg, word))
        fail_msg("code %d, message '%s', expected '%s'", rc, e.msg, word);
}

static void impossible_files_are_refused(void **state)
{
    (void)state;
    struct gguf_meta *m = new_meta();
    char name64[65], name63[64];
    memset(name64, 'x', 64);
    memset(name63, 'y', 63);
    name64[64] = name63[63] = 0;
    struct gguf_out_tensor ok = {.name = name63, .type = QTYPE_F32, .n_dims = 1, .ne = {1}};
    uint8_t *header;
    size_t n;
    uint64_t total;
    assert_int_equal(gguf_layout(m, &ok, 1, &header, &n, &total, NULL), 0);
    free(header);
    assert_int_equal(gguf_layout(m, NULL, 0, &header, &n, &total, NULL), 0);
    assert_int_equal(n, 32);
    assert_int_equal(total, 32);
    free(header);
    refused(m, &(struct gguf_out_tensor){.name = name64, .n_dims = 1, .ne = {1}}, 1, "64");
    refused(m, &(struct gguf_out_tensor){.name = "", .n_dims = 1, .ne = {1}}, 1, "1 to 63");
    refused(m, &(struct gguf_out_tensor){.name = "\xff", .n_dims = 1, .ne = {1}}, 1, "UTF-8");
    refused(m, &(struct gguf_out_tensor){.name = "t", .type = (enum qtype)4, .n_dims = 1, .ne = {32}}, 1,
            "type");
    refused(m, &(struct gguf_out_tensor){.name = "t", .type = QTYPE_Q8_K, .n_dims = 1, .ne = {256}}, 1,
            "Q8_K");
    refused(m, &(struct gguf_out_tensor){.name = "t", .n_dims = 5, .ne = {1, 1, 1, 1}}, 1, "at most 4");
    refused(m, &(struct gguf_out_tensor){.name = "t", .n_dims = 2, .ne = {4, 0}}, 1, "shape");
    refused(m, &(struct gguf_out_tensor){.name = "t", .n_dims = 2, .ne = {(uint64_t)1 << 62, 2}}, 1, "shape");
    refused(m, &(struct gguf_out_tensor){.name = "t", .type = QTYPE_Q4_K, .n_dims = 1, .ne = {128}}, 1,
            "256");
    struct gguf_out_tensor two[2] = {ok, ok};
    refused(m, two, 2, "duplicate tensor");
    struct gguf_out_tensor huge[3];
    static const char *const names[3] = {"a", "b", "c"};
    for (int i = 0; i < 3; i++)
        huge[i] =
            (struct gguf_out_tensor){.name = names[i], .type = QTYPE_I8, .n_dims = 1, .ne = {INT64_MAX - 1}};
    refused(m, huge, 3, "2^63");
    assert_int_equal(gguf_meta_set_u32(m, "general.alignment", 24, NULL), 0);
    refused(m, &ok, 1, "power of two");
    assert_int_equal(gguf_meta_set_u32(m, "general.alignment", (uint32_t)1 << 31, NULL), 0);
    refused(m, &ok, 1, "pad every tensor");
    assert_int_equal(gguf_meta_set_u64(m, "general.alignment", 32, NULL), 0);
    refused(m, &ok, 1, "u32");
    gguf_meta_free(m);
}

static void split_names_follow_the_pattern(void **state)
{
    (void)state;
    char *name = gguf_split_name("dir/model", 1, 12);
    assert_string_equal(name, "dir/model-00002-of-00012.gguf");
    size_t prefix;
    uint32_t no, count;
    assert_true(gguf_split_parse(name, &prefix, &no, &count));
    assert_int_equal(prefix, 9);
    assert_int_equal(no, 1);
    assert_int_equal(count, 12);
    free(name);
    static const char *const bad[] = {"model.gguf",
                                      "-1-of-2.gguf",
                                      "m-00000-of-00002.gguf",
                                      "m-00003-of-00002.gguf",
                                      "m-0000a-of-00002.gguf",
                                      "m-00001-of-00002.bin",
                                      "m-00001-of-00002.gguf.gz",
                                      "m_00001-of-00002.gguf",
                                      "m-00001_of-00002.gguf",
                                      ""};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_false(gguf_split_parse(bad[i], &prefix, &no, &count));
    assert_true(gguf_split_parse("-00001-of-00001.gguf", &prefix, &no, &count));
    assert_int_equal(prefix, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(header_bytes_are_the_format),
        cmocka_unit_test(every_value_type_reads_back),
        cmocka_unit_test(tensors_lie_where_the_alignment_says),
        cmocka_unit_test(impossible_files_are_refused),
        cmocka_unit_test(split_names_follow_the_pattern),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
