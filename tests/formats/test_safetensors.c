/* test_safetensors.c - the reader refuses what it must, with the tensor named; the writer's files read back.
 */
#include "formats/hf/safetensors_read.h"
#include "formats/hf/safetensors_write.h"
#include "scratch.h"

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

/* Every file of tests/data/bad/safetensors, and what its message must say. */
static const struct {
    const char *name, *says;
} bad_files[] = {
    {"data-hole", "'b' begins at 12 but 'a' ends at 8: the format allows no hole"},
    {"data-overlap", "'b' begins at 4 but 'a' ends at 8: the format allows no overlap"},
    {"data-shared", "'b' begins at 0 but 'a' ends at 8: the format allows no overlap"},
    {"data-starts-late", "'a' begins at 4 but 'the start of the data' ends at 0"},
    {"data-too-long", "the last tensor ends at 8 but the data section has 9 bytes"},
    {"data-truncated", "'a' ends at 8 of a data section of 7 bytes; truncated?"},
    {"data-without-tensors", "the last tensor ends at 0 but the data section has 1 bytes"},
    {"dtype-lower-case", "'a': dtype 'f32' is not one of the format"},
    {"dtype-missing", "'a': dtype must be a string, found nothing"},
    {"dtype-not-string", "'a': dtype must be a string, found a number"},
    {"dtype-unknown", "'a': dtype 'F33' is not one of the format"},
    {"field-twice", "dtype"},
    {"file-empty", "expected at least 8 bytes of header length, the file has 0"},
    {"file-too-short", "expected at least 8 bytes of header length, the file has 7"},
    {"git-lfs-pointer", "git-lfs-pointer.safetensors: this is a git-lfs pointer"},
    {"header-beyond-file", "header needs 4096 bytes after the first 8, the file has"},
    {"header-empty", "header must begin with '{', found an empty header"},
    {"header-is-array", "header must begin with '{'"},
    {"header-length-overflows", "header length 18446744073709551612 exceeds the format's limit"},
    {"header-not-json", "header-not-json.safetensors: not valid JSON"},
    {"header-not-utf8", "UTF-8"},
    {"header-too-long", "header length 100000001 exceeds the format's limit of 100000000"},
    {"header-trailing-nul", "header must end with '}' and then white space only, found byte 0x00 at 62"},
    {"header-trailing-object", "not valid JSON"},
    {"header-unquoted-key", "not valid JSON"},
    {"metadata-not-object", "__metadata__ must be an object, found a string"},
    {"metadata-null", "__metadata__ entry 'format' must be a string, found null"},
    {"metadata-number", "__metadata__ entry 'step' must be a string, found a number"},
    {"metadata-twice", "__metadata__"},
    {"name-twice", "'a'"},
    {"name-with-nul", "NUL"},
    {"offsets-above-64-bits", "'a': data_offsets[0] must be a whole number, found a number"},
    {"offsets-backwards", "'a': data_offsets end 0 is before begin 8"},
    {"offsets-boolean", "'a': data_offsets[0] must be a whole number, found true or false"},
    {"offsets-fraction", "'a': data_offsets[1] must be a whole number, found a number"},
    {"offsets-missing", "'a': data_offsets must be an array of two whole numbers, found nothing"},
    {"offsets-negative", "'a': data_offsets[0] must be a whole number, found a number"},
    {"offsets-not-array", "'a': data_offsets must be an array of two whole numbers, found an object"},
    {"offsets-one", "'a': data_offsets must be an array of two whole numbers, found an array of 1"},
    {"offsets-three", "'a': data_offsets must be an array of two whole numbers, found an array of 3"},
    {"shape-boolean", "'a': every entry of shape must be a whole number, found true or false"},
    {"shape-fraction", "'a': every entry of shape must be a whole number, found a number"},
    {"shape-missing", "'a': shape must be an array of whole numbers, found nothing"},
    {"shape-negative", "'a': every entry of shape must be a whole number, found a number"},
    {"shape-nine-dims", "'a': at most 8 dimensions are supported, found 9"},
    {"shape-not-array", "'a': shape must be an array of whole numbers, found a number"},
    {"shape-null", "'a': shape must be an array of whole numbers, found null"},
    {"shape-string", "'a': every entry of shape must be a whole number, found a string"},
    {"size-bits-overflow", "'a': size of F64 [4503599627370496, 128] overflows"},
    {"size-elements-overflow",
     "'a': number of elements of U8 [4503599627370496, 4503599627370496] overflows"},
    {"size-half-byte", "'a': F4 [3] takes 12 bits, not a whole number of bytes"},
    {"size-larger-than-shape", "'a': F32 [1] needs 4 bytes, data_offsets [0, 8] span 8"},
    {"size-scalar", "'a': F32 [] needs 4 bytes, data_offsets [0, 8] span 8"},
    {"size-six-bits", "'a': F6_E2M3 [2] takes 12 bits, not a whole number of bytes"},
    {"size-smaller-than-shape", "'a': F32 [3] needs 12 bytes, data_offsets [0, 8] span 8"},
    {"tensor-not-object", "'a': expected an object, found an array"},
};

static void each_rule_refuses_its_file_and_says_why(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof bad_files / sizeof *bad_files; i++) {
        char path[1024];
        snprintf(path, sizeof path, "%s/bad/safetensors/%s.safetensors", KERF_TEST_DATA, bad_files[i].name);
        struct safetensors_reader *r = NULL;
        struct err e = {0};
        int rc = safetensors_open(&r, path, &e);
        if (rc == 0 || !strstr(e.msg, bad_files[i].says) || !strstr(e.msg, bad_files[i].name))
            fail_msg("%s: answered %d \"%s\", expected \"%s\"", bad_files[i].name, rc, e.msg,
                     bad_files[i].says);
        assert_int_equal(rc, strcmp(bad_files[i].name, "shape-nine-dims") ? ERR_FORMAT : ERR_UNSUPPORTED);
        assert_null(r);
    }
}

static void no_bad_file_is_without_a_test(void **state)
{
    (void)state;
    DIR *d = opendir(KERF_TEST_DATA "/bad/safetensors");
    assert_non_null(d);
    size_t n = 0;
    for (struct dirent *ent; (ent = readdir(d)) != NULL;)
        n += ent->d_name[0] != '.';
    closedir(d);
    assert_int_equal(n, sizeof bad_files / sizeof *bad_files);
}

/* A file in memory from its JSON and `n_data` bytes 0, 1, 2 ... */
static struct safetensors_reader *open_text(const char *json, size_t n_data, uint8_t **buffer, struct err *e)
{
    uint64_t n = strlen(json);
    *buffer = malloc(8 + n + n_data);
    memcpy(*buffer, &n, 8);
    memcpy(*buffer + 8, json, n);
    for (size_t i = 0; i < n_data; i++)
        (*buffer)[8 + n + i] = (uint8_t)i;
    struct safetensors_reader *r = NULL;
    safetensors_open_memory(&r, *buffer, 8 + n + n_data, "text", e);
    return r;
}

static void scalars_empty_tensors_and_unaligned_starts_are_valid(void **state)
{
    (void)state;
    struct err e = {0};
    uint8_t *buffer;
    struct safetensors_reader *r =
        open_text("{\"z\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[3,7]},"
                  "\"empty\":{\"data_offsets\":[3,3],\"dtype\":\"F64\",\"shape\":[0,7,4503599627370496]},"
                  "\"none\":{\"data_offsets\":[0,0],\"dtype\":\"I8\",\"shape\":[0],\"comment\":[{}]},"
                  "\"b\":{\"dtype\":\"U8\",\"shape\":[3,1],\"data_offsets\":[0,3]},"
                  "\"__metadata__\":{\"format\":\"pt\",\"\":\"x\"}}     ",
                  7, &buffer, &e);
    assert_string_equal(e.msg, "");
    assert_non_null(r);
    assert_int_equal(safetensors_n_tensors(r), 4);
    /* data order, the name breaking the tie of empty ones */
    const char *order[] = {"none", "b", "empty", "z"};
    for (size_t i = 0; i < 4; i++)
        assert_string_equal(safetensors_tensor(r, i)->name, order[i]);
    assert_null(safetensors_tensor(r, 4));
    const struct st_tensor *z = safetensors_find(r, "z");
    assert_int_equal(z->n_dims, 0);
    assert_int_equal(z->n_elems, 1);
    assert_int_equal(z->n_bytes, 4);
    assert_int_equal(z->data[0], 3);
    assert_ptr_equal(z->data, buffer + z->offset);
    const struct st_tensor *b = safetensors_find(r, "b");
    assert_int_equal(b->shape[0], 3);
    assert_int_equal(b->shape[1], 1);
    assert_int_equal(safetensors_find(r, "empty")->n_elems, 0);
    assert_null(safetensors_find(r, "absent"));
    assert_int_equal(safetensors_n_metadata(r), 2);
    const char *key, *value;
    safetensors_metadata(r, 0, &key, &value);
    assert_string_equal(key, "format");
    assert_string_equal(value, "pt");
    safetensors_close(r);
    free(buffer);
}

/* What the safetensors library reads, too. */
static void space_around_the_header_and_no_metadata_are_valid(void **state)
{
    (void)state;
    static const char *const texts[] = {
        " \n\t{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}",
        "{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}\r\n \n",
        "{\"__metadata__\":null,\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}",
        "{\"__metadata__\":{},\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}",
    };
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        struct err e = {0};
        uint8_t *buffer;
        struct safetensors_reader *r = open_text(texts[i], 1, &buffer, &e);
        if (!r)
            fail_msg("%s", e.msg);
        assert_non_null(safetensors_find(r, "a"));
        assert_int_equal(safetensors_n_metadata(r), 0);
        safetensors_close(r);
        free(buffer);
    }
}

static void what_a_server_answered_is_said_to_be_that(void **state)
{
    (void)state;
    static const struct {
        const char *text, *says;
    } cases[] = {
        {"<!DOCTYPE html><html><body>403</body></html>", "this is a web page (HTML)"},
        {"\xef\xbb\xbf \r\n<html>", "this is a web page (HTML)"},
        {"<html>", "this is a web page (HTML)"},
        {"{\"error\":\"Invalid username or password.\"}", "this is a text, probably a pointer"},
        {"Entry not found\n", "this is a text, probably a pointer"},
        {"# xet version 0\nfilesize = 12\n", "this is a text, probably a pointer"},
        {"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "this is a git-lfs pointer"},
        {"PK\003\004rest of the archive", "this is a zip archive, probably a PyTorch pickle"},
        {"GGUF\003\000\000\000rest", "x.safetensors: this is a GGUF file, not a safetensors file"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct err e = {0};
        struct safetensors_reader *r = NULL;
        size_t n = i == 8 ? 12 : strlen(cases[i].text);
        assert_int_equal(safetensors_open_memory(&r, cases[i].text, n, "x.safetensors", &e), ERR_FORMAT);
        if (!strstr(e.msg, cases[i].says))
            fail_msg("%s: %s", cases[i].says, e.msg);
    }
}

static void a_header_without_tensors_is_valid(void **state)
{
    (void)state;
    struct err e = {0};
    uint8_t *buffer;
    struct safetensors_reader *r = open_text("{}", 0, &buffer, &e);
    assert_non_null(r);
    assert_int_equal(safetensors_n_tensors(r), 0);
    assert_null(safetensors_find(r, ""));
    safetensors_close(r);
    free(buffer);
}

static void a_missing_file_is_named(void **state)
{
    (void)state;
    struct err e = {0};
    struct safetensors_reader *r = NULL;
    assert_int_equal(safetensors_open(&r, in_scratch("absent.safetensors"), &e), ERR_IO);
    assert_non_null(strstr(e.msg, "absent.safetensors"));
    assert_int_equal(safetensors_open(&r, in_scratch(""), &e), ERR_IO);
}

static void every_dtype_survives_writing_and_reading(void **state)
{
    (void)state;
    struct err e = {0};
    struct safetensors_writer *w = NULL;
    const char *path = in_scratch("all.safetensors");
    assert_int_equal(safetensors_writer_open(&w, path, false, &e), 0);
    assert_int_equal(safetensors_writer_metadata(w, "made by", "a \"test\"\n", &e), 0);
    uint8_t data[ST_DTYPE_COUNT][8 * 8];
    uint64_t total = 0;
    for (unsigned t = 0; t < ST_DTYPE_COUNT; t++) {
        char name[64];
        snprintf(name, sizeof name, "tensor \\ \"%s\" \xc3\xa9", st_dtype_name(t));
        assert_int_equal(safetensors_writer_add(w, name, t, 2, (uint64_t[]){2, 4}, &e), 0);
        total += st_dtype_bits(t);
    }
    assert_int_equal(safetensors_writer_data_bytes(w), total);
    for (unsigned t = 0; t < ST_DTYPE_COUNT; t++) {
        for (size_t i = 0; i < sizeof data[t]; i++)
            data[t][i] = (uint8_t)(t * 37 + i);
        /* two pieces */
        assert_int_equal(safetensors_writer_write(w, data[t], 1, &e), 0);
        assert_int_equal(safetensors_writer_write(w, data[t] + 1, st_dtype_bits(t) - 1, &e), 0);
    }
    assert_int_equal(safetensors_writer_write(w, data, 1, &e), ERR_ARG);
    assert_int_equal(safetensors_writer_add(w, "late", ST_F32, 0, NULL, &e), ERR_ARG);
    assert_int_equal(safetensors_writer_commit(w, &e), 0);

    struct safetensors_reader *r = NULL;
    assert_int_equal(safetensors_open(&r, path, &e), 0);
    assert_string_equal(safetensors_path(r), path);
    assert_int_equal(safetensors_n_tensors(r), ST_DTYPE_COUNT);
    for (unsigned t = 0; t < ST_DTYPE_COUNT; t++) {
        const struct st_tensor *x = safetensors_tensor(r, t);
        assert_int_equal(x->dtype, t);
        assert_int_equal(x->n_bytes, st_dtype_bits(t)); /* 8 elements */
        assert_memory_equal(x->data, data[t], x->n_bytes);
        assert_ptr_equal(safetensors_find(r, x->name), x);
    }
    assert_int_equal(safetensors_tensor(r, 0)->offset % 8, 0);
    const char *key, *value;
    safetensors_metadata(r, 0, &key, &value);
    assert_string_equal(value, "a \"test\"\n");
    safetensors_close(r);
}

static void the_writer_refuses_half_files_and_impossible_tensors(void **state)
{
    (void)state;
    struct err e = {0};
    struct safetensors_writer *w = NULL;
    const char *path = in_scratch("half.safetensors");
    assert_int_equal(safetensors_writer_open(&w, path, false, &e), 0);
    assert_int_equal(safetensors_writer_add(w, "a", ST_F32, 1, (uint64_t[]){2}, &e), 0);
    assert_int_equal(safetensors_writer_add(w, "a", ST_F32, 1, (uint64_t[]){2}, &e), ERR_ARG);
    assert_int_equal(safetensors_writer_add(w, "__metadata__", ST_F32, 0, NULL, &e), ERR_ARG);
    assert_int_equal(safetensors_writer_add(w, "odd", ST_F4, 1, (uint64_t[]){1}, &e), ERR_ARG);
    assert_int_equal(safetensors_writer_add(w, "big", ST_F32, 2, (uint64_t[]){UINT64_MAX, 8}, &e), ERR_ARG);
    assert_int_equal(safetensors_writer_write(w, "1234", 4, &e), 0);
    assert_int_equal(safetensors_writer_commit(w, &e), ERR_ARG);
    assert_non_null(strstr(e.msg, "8 bytes were declared, 4 were written"));
    assert_int_equal(access(path, F_OK), -1);
    safetensors_writer_abort(NULL);
    safetensors_close(NULL);
}

static void an_empty_file_can_be_written(void **state)
{
    (void)state;
    struct err e = {0};
    struct safetensors_writer *w = NULL;
    struct safetensors_reader *r = NULL;
    assert_int_equal(safetensors_writer_open(&w, in_scratch("none.safetensors"), false, &e), 0);
    assert_int_equal(safetensors_writer_commit(w, &e), 0);
    assert_int_equal(safetensors_open(&r, in_scratch("none.safetensors"), &e), 0);
    assert_int_equal(safetensors_n_tensors(r), 0);
    safetensors_close(r);
}

/* Quadratic look-ups or checks would take minutes here; the test's time limit is the assertion. */
static void a_hundred_thousand_tensors_open_quickly(void **state)
{
    (void)state;
    struct err e = {0};
    struct safetensors_writer *w = NULL;
    const char *path = in_scratch("many.safetensors");
    uint8_t row[4] = {1, 2, 3, 4};
    assert_int_equal(safetensors_writer_open(&w, path, false, &e), 0);
    for (unsigned i = 0; i < 100000; i++) {
        char name[64];
        snprintf(name, sizeof name, "model.layers.%u.mlp.experts.%u.weight", i / 512, i % 512);
        assert_int_equal(safetensors_writer_add(w, name, ST_U8, 2, (uint64_t[]){2, 2}, &e), 0);
    }
    for (unsigned i = 0; i < 100000; i++)
        assert_int_equal(safetensors_writer_write(w, row, 4, &e), 0);
    assert_int_equal(safetensors_writer_commit(w, &e), 0);
    struct safetensors_reader *r = NULL;
    assert_int_equal(safetensors_open(&r, path, &e), 0);
    assert_int_equal(safetensors_n_tensors(r), 100000);
    assert_non_null(safetensors_find(r, "model.layers.195.mlp.experts.159.weight"));
    assert_null(safetensors_find(r, "model.layers.195.mlp.experts.160.weight"));
    safetensors_close(r);
}

static void the_demo_checkpoint_reads(void **state)
{
    (void)state;
    struct err e = {0};
    struct safetensors_reader *r = NULL;
    assert_int_equal(safetensors_open(&r, KERF_TEST_DATA "/demo-qwen3/model.safetensors", &e), 0);
    assert_int_equal(safetensors_n_tensors(r), 2 + 11 * 4); /* Qwen3, tied: 2 + 11 L */
    const struct st_tensor *t = safetensors_find(r, "model.embed_tokens.weight");
    assert_non_null(t);
    assert_int_equal(t->dtype, ST_BF16);
    assert_int_equal(t->shape[0], 4096);
    assert_int_equal(t->shape[1], 256);
    safetensors_close(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_rule_refuses_its_file_and_says_why),
        cmocka_unit_test(no_bad_file_is_without_a_test),
        cmocka_unit_test(scalars_empty_tensors_and_unaligned_starts_are_valid),
        cmocka_unit_test(a_header_without_tensors_is_valid),
        cmocka_unit_test(space_around_the_header_and_no_metadata_are_valid),
        cmocka_unit_test(what_a_server_answered_is_said_to_be_that),
        cmocka_unit_test(a_missing_file_is_named),
        cmocka_unit_test(every_dtype_survives_writing_and_reading),
        cmocka_unit_test(the_writer_refuses_half_files_and_impossible_tensors),
        cmocka_unit_test(an_empty_file_can_be_written),
        cmocka_unit_test(a_hundred_thousand_tensors_open_quickly),
        cmocka_unit_test(the_demo_checkpoint_reads),
    };
    return cmocka_run_group_tests(tests, scratch_begin, scratch_end);
}
