/* test_gguf_read.c - what opens, what is refused and with which words, and split sets. */
#include "formats/gguf/gguf_read.h"
#include "formats/gguf/gguf_write.h"
#include "libquant/base/filemap.h"

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define BAD KERF_TEST_DATA "/bad/gguf"

/* One line for each file of the folder (second parts of split sets follow from their first). */
static const struct {
    const char *file;
    enum err_code code;
    const char *words;
} bad_files[] = {
    {"empty-file", ERR_FORMAT, "only 0 bytes"},
    {"cut-in-magic", ERR_FORMAT, "only 3 bytes"},
    {"cut-in-version", ERR_FORMAT, "the version at byte 4 needs 4 bytes, 2 are left"},
    {"cut-in-counts", ERR_FORMAT, "number of keys at byte 16 needs 8 bytes, 4 are left"},
    {"magic-wrong", ERR_FORMAT, "expected 47 47 55 46"},
    {"magic-reversed", ERR_UNSUPPORTED, "FUGG"},
    {"big-endian", ERR_UNSUPPORTED, "big-endian"},
    {"version-0", ERR_FORMAT, "version 0"},
    {"version-1", ERR_UNSUPPORTED, "version 1"},
    {"version-4", ERR_UNSUPPORTED, "version 4"},
    {"keys-more-than-bytes", ERR_FORMAT, "keys cannot fit into the 0 bytes"},
    {"tensors-more-than-bytes", ERR_FORMAT, "tensors cannot fit"},
    {"tensors-more-than-bytes-behind-keys", ERR_FORMAT, "3 tensors cannot fit into the 0 bytes"},
    {"key-beyond-end", ERR_FORMAT, "key 0 at byte 32 needs 1000 bytes"},
    {"key-empty", ERR_FORMAT, "empty key"},
    {"key-not-utf8", ERR_FORMAT, "not UTF-8"},
    {"key-with-nul", ERR_FORMAT, "not UTF-8 text"},
    {"key-twice", ERR_FORMAT, "duplicate key 'same'"},
    {"value-type-unknown", ERR_FORMAT, "key 'k' at byte 24: unknown value type 13"},
    {"value-cut", ERR_FORMAT, "key 'k' at byte 37 needs 8 bytes, 4 are left"},
    {"value-bool-2", ERR_FORMAT, "a bool must be 0 or 1, found 2"},
    {"string-beyond-end", ERR_FORMAT, "needs 100 bytes, 3 are left"},
    {"string-over-limit", ERR_FORMAT, "a string of 1073741825 bytes"},
    {"array-of-arrays", ERR_FORMAT, "key 'k': an array of arrays"},
    {"array-element-type-unknown", ERR_FORMAT, "unknown element type 77"},
    {"array-beyond-end", ERR_FORMAT, "needs 400 bytes, 4 are left"},
    {"array-over-limit", ERR_FORMAT, "an array of 1073741825 elements"},
    {"array-strings-more-than-bytes", ERR_FORMAT, "1000000 strings cannot fit"},
    {"array-string-cut", ERR_FORMAT, "needs 8 bytes, 4 are left"},
    {"array-bool-7", ERR_FORMAT, "found 7"},
    {"alignment-not-u32", ERR_FORMAT, "expected a u32, found u64"},
    {"alignment-0", ERR_FORMAT, "0 is not a power of two"},
    {"alignment-48", ERR_FORMAT, "48 is not a power of two"},
    {"tensor-name-empty", ERR_FORMAT, "has 0 bytes; 1 to 63"},
    {"tensor-name-64-bytes", ERR_FORMAT, "has 64 bytes; 1 to 63"},
    {"tensor-name-not-utf8", ERR_FORMAT, "tensor 0 at byte 24 is not UTF-8"},
    {"tensor-name-with-nul", ERR_FORMAT, "not UTF-8 text"},
    {"tensor-name-twice", ERR_FORMAT, "duplicate tensor 'same'"},
    {"tensor-5-dimensions", ERR_FORMAT, "tensor 't': 5 dimensions"},
    {"tensor-dimension-0", ERR_FORMAT, "dimension 1 is 0"},
    {"tensor-dimension-negative", ERR_FORMAT, "2^63 elements"},
    {"tensor-elements-2-to-63", ERR_FORMAT, "2^63 elements"},
    {"tensor-bytes-overflow", ERR_FORMAT, "does not fit 64 bits"},
    {"tensor-type-retired", ERR_UNSUPPORTED, "type Q4_2 (4) is retired"},
    {"tensor-type-unknown", ERR_UNSUPPORTED, "tensor 't': unknown type 99"},
    {"tensor-type-activations", ERR_FORMAT, "Q8_1 is for activations only"},
    {"tensor-row-not-blocks", ERR_FORMAT, "rows of 33 elements do not divide into blocks of 32 (Q8_0)"},
    {"tensor-data-cut", ERR_FORMAT, "cut short?"},
    {"tensor-data-missing", ERR_FORMAT, "cut short?"},
    {"tensor-record-cut", ERR_FORMAT, "needs 8 bytes, 5 are left"},
    {"offset-gap", ERR_FORMAT, "tensor 'b': its data is at offset 64, expected 32"},
    {"offset-not-aligned", ERR_FORMAT, "offset 16, expected 32"},
    {"offset-not-in-record-order", ERR_FORMAT, "tensor 'a': its data is at offset 32, expected 0"},
    {"offset-overlap", ERR_FORMAT, "tensor 'b': its data is at offset 0, expected 32"},
    {"split-name-lost", ERR_FORMAT, "its name must end in -00001-of-00002.gguf"},
    {"split-part-missing-00001-of-00002", ERR_FORMAT, "split-part-missing-00002-of-00002.gguf"},
    {"split-no-wrong-00001-of-00002", ERR_FORMAT, "'split.no' is 0, its name says 1"},
    {"split-count-wrong-00001-of-00002", ERR_FORMAT, "'split.count' is not 2"},
    {"split-total-wrong-00001-of-00002", ERR_FORMAT,
     "'split.tensors.count' is 3, the 2 parts hold 2 tensors"},
    {"split-tensor-twice-00001-of-00002", ERR_FORMAT, "duplicate tensor 'a', also in"},
    {"split-keys-missing-00001-of-00002", ERR_FORMAT, "'split.no' is missing"},
};

static void every_malformed_file_is_refused_with_its_reason(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof bad_files / sizeof *bad_files; i++) {
        char path[512];
        struct err e = {0};
        struct gguf_reader *r = NULL;
        snprintf(path, sizeof path, "%s/%s.gguf", BAD, bad_files[i].file);
        int rc = gguf_reader_open(&r, path, NULL, &e);
        if (rc != (int)bad_files[i].code || !strstr(e.msg, bad_files[i].words) || !strstr(e.msg, BAD "/") ||
            r) /* the message names the file at fault */
            fail_msg("%s: code %d, message '%s', expected %d '%s'", bad_files[i].file, rc, e.msg,
                     (int)bad_files[i].code, bad_files[i].words);
    }
}

static void the_list_covers_the_whole_folder(void **state)
{
    (void)state;
    DIR *d = opendir(BAD);
    assert_non_null(d);
    for (struct dirent *ent; (ent = readdir(d)) != NULL;) {
        char *dot = strrchr(ent->d_name, '.');
        if (!dot || strcmp(dot, ".gguf") != 0 || strstr(ent->d_name, "-00002-of-"))
            continue;
        *dot = 0;
        bool found = false;
        for (size_t i = 0; i < sizeof bad_files / sizeof *bad_files; i++)
            found |= strcmp(bad_files[i].file, ent->d_name) == 0;
        if (!found)
            fail_msg("%s is not in the list", ent->d_name);
    }
    closedir(d);
}

/* --- files written here --- */

struct built {
    uint8_t *data;
    size_t n;
};

/* A file of `n_tensors` tensors "<prefix><i>" of 8 floats, tensor i full of byte i + 1. */
static struct built build(const struct gguf_meta *meta, const char *prefix, size_t n_tensors)
{
    struct gguf_out_tensor t[8];
    char names[8][32];
    struct built b;
    size_t header;
    uint64_t total;
    for (size_t i = 0; i < n_tensors; i++) {
        snprintf(names[i], sizeof names[i], "%s%zu", prefix, i);
        t[i] = (struct gguf_out_tensor){.name = names[i], .type = QTYPE_F32, .n_dims = 1, .ne = {5}};
    }
    assert_int_equal(gguf_layout(meta, t, n_tensors, &b.data, &header, &total, NULL), 0);
    b.data = realloc(b.data, total);
    b.n = total;
    memset(b.data + header, 0, total - header);
    for (size_t i = 0; i < n_tensors; i++)
        memset(b.data + t[i].offset, (int)i + 1, t[i].n_bytes);
    return b;
}

static void write_file(const char *path, const void *data, size_t n)
{
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}

static void write_part(const char *dir, unsigned no, unsigned count, size_t n_tensors, int total)
{
    struct gguf_meta *m;
    char prefix[16], path[128];
    assert_int_equal(gguf_meta_new(&m, NULL), 0);
    if (no == 0)
        assert_int_equal(gguf_meta_set_string(m, "general.architecture", "toy", NULL), 0);
    assert_int_equal(gguf_meta_set_u16(m, "split.no", (uint16_t)no, NULL), 0);
    assert_int_equal(gguf_meta_set_u16(m, "split.count", (uint16_t)count, NULL), 0);
    assert_int_equal(gguf_meta_set_i32(m, "split.tensors.count", total, NULL), 0);
    snprintf(prefix, sizeof prefix, "p%u.t", no);
    struct built b = build(m, prefix, n_tensors);
    snprintf(path, sizeof path, "%s/m-%05u-of-%05u.gguf", dir, no + 1, count);
    write_file(path, b.data, b.n);
    free(b.data);
    gguf_meta_free(m);
}

static void split_sets_open_from_any_part(void **state)
{
    (void)state;
    char dir[] = "/tmp/kerf-test-XXXXXX", path[128];
    assert_non_null(mkdtemp(dir));
    write_part(dir, 0, 3, 0, 5); /* a first part without tensors is legal */
    write_part(dir, 1, 3, 2, 5);
    write_part(dir, 2, 3, 3, 5);
    for (unsigned from = 1; from <= 3; from++) {
        struct gguf_reader *r;
        struct err e = {0};
        snprintf(path, sizeof path, "%s/m-%05u-of-00003.gguf", dir, from);
        if (gguf_reader_open(&r, path, NULL, &e) != 0)
            fail_msg("%s", e.msg);
        struct gguf_string arch;
        assert_true(gguf_meta_get_string(gguf_reader_meta(r), "general.architecture", &arch));
        assert_int_equal(gguf_reader_n_parts(r), 3);
        assert_int_equal(gguf_reader_n_tensors(r), 5);
        const struct gguf_tensor *t = gguf_reader_find(r, "p2.t1");
        assert_non_null(t);
        assert_ptr_equal(t, gguf_reader_tensor(r, 3));
        assert_int_equal(t->part, 2);
        assert_int_equal(t->data[19], 2);
        assert_non_null(strstr(gguf_reader_part_path(r, 2), "m-00003-of-00003.gguf"));
        assert_null(gguf_reader_find(r, "p0.t0"));
        gguf_reader_close(r);
        assert_int_equal(gguf_reader_open(&r, path, &(struct gguf_read_options){.single_part = true}, &e), 0);
        assert_int_equal(gguf_reader_n_parts(r), 1);
        assert_int_equal(gguf_reader_n_tensors(r), from == 1 ? 0 : from);
        gguf_reader_close(r);
    }
    for (unsigned i = 1; i <= 3; i++) {
        snprintf(path, sizeof path, "%s/m-%05u-of-00003.gguf", dir, i);
        unlink(path);
    }
    rmdir(dir);
}

static void header_only_accepts_missing_data(void **state)
{
    (void)state;
    struct gguf_meta *m;
    struct err e = {0};
    struct gguf_reader *r;
    assert_int_equal(gguf_meta_new(&m, NULL), 0);
    struct built b = build(m, "t", 3);
    size_t cut = b.n - 64;
    assert_int_equal(gguf_reader_open_memory(&r, b.data, cut, "cut", NULL, &e), ERR_FORMAT);
    assert_int_equal(
        gguf_reader_open_memory(&r, b.data, cut, "cut", &(struct gguf_read_options){.header_only = true}, &e),
        0);
    assert_non_null(gguf_reader_tensor(r, 0)->data);
    assert_null(gguf_reader_tensor(r, 2)->data);
    assert_int_equal(gguf_reader_tensor(r, 2)->offset, b.n - 32);
    gguf_reader_close(r);
    /* the padding behind the last tensor may be missing */
    assert_int_equal(gguf_reader_open_memory(&r, b.data, b.n - 12, "unpadded", NULL, &e), 0);
    gguf_reader_close(r);
    assert_int_equal(gguf_reader_open_memory(&r, b.data, b.n - 13, "cut", NULL, &e), ERR_FORMAT);
    free(b.data);
    /* without tensors the file may end before the aligned start of the data */
    b = build(m, "t", 0);
    assert_int_equal(b.n, 32);
    assert_int_equal(gguf_reader_open_memory(&r, b.data, 24, "vocabulary", NULL, &e), 0);
    gguf_reader_close(r);
    free(b.data);
    gguf_meta_free(m);
}

/* Every prefix and every changed byte of a small file either opens or is refused; a sanitizer watches. */
static void no_damage_crashes_the_reader(void **state)
{
    (void)state;
    struct gguf_meta *m;
    struct gguf_string strings[] = {{"ab", 2}, {"c", 1}};
    assert_int_equal(gguf_meta_new(&m, NULL), 0);
    assert_int_equal(gguf_meta_set_strings(m, "s", strings, 2, NULL), 0);
    assert_int_equal(gguf_meta_set_bool(m, "b", true, NULL), 0);
    struct built b = build(m, "t", 2);
    for (size_t n = 0; n <= b.n; n++) {
        uint8_t *exact = malloc(n ? n : 1);
        memcpy(exact, b.data, n);
        struct gguf_reader *r;
        struct err e = {0};
        if (gguf_reader_open_memory(&r, exact, n, "cut", NULL, &e) == 0)
            gguf_reader_close(r);
        else
            assert_non_null(strstr(e.msg, "cut"));
        free(exact);
    }
    static const uint8_t changes[] = {0, 1, 2, 7, 0x7f, 0x80, 0xff};
    for (size_t i = 0; i < b.n; i++)
        for (size_t k = 0; k < sizeof changes; k++) {
            uint8_t old = b.data[i];
            struct gguf_reader *r;
            b.data[i] = changes[k];
            if (gguf_reader_open_memory(&r, b.data, b.n, "changed", NULL, NULL) == 0)
                gguf_reader_close(r);
            b.data[i] = old;
        }
    free(b.data);
    gguf_meta_free(m);
}

/* Quadratic duplicate checks or look-ups would take minutes here. */
static void many_keys_and_tensors_open_quickly(void **state)
{
    (void)state;
    enum { N = 50000 };
    struct gguf_meta *m;
    assert_int_equal(gguf_meta_new(&m, NULL), 0);
    struct gguf_out_tensor *t = calloc(N, sizeof *t);
    char(*names)[16] = calloc(N, sizeof *names);
    for (uint32_t i = 0; i < N; i++) {
        snprintf(names[i], sizeof names[i], "n%u", i);
        assert_int_equal(gguf_meta_set_u32(m, names[i], i, NULL), 0);
        t[i] = (struct gguf_out_tensor){.name = names[i], .type = QTYPE_I8, .n_dims = 1, .ne = {1}};
    }
    uint8_t *data;
    size_t header;
    uint64_t total;
    assert_int_equal(gguf_layout(m, t, N, &data, &header, &total, NULL), 0);
    data = realloc(data, total);
    memset(data + header, 0, total - header);
    struct gguf_reader *r;
    assert_int_equal(gguf_reader_open_memory(&r, data, total, "large", NULL, NULL), 0);
    assert_int_equal(gguf_reader_n_tensors(r), N);
    assert_int_equal(gguf_reader_find(r, "n49999")->offset, total - 32);
    gguf_reader_close(r);
    free(data);
    free(names);
    free(t);
    gguf_meta_free(m);
}

/* --- real files, where they are present --- */

static void open_folder(const char *folder, size_t *n_opened, size_t *n_refused)
{
    DIR *d = opendir(folder);
    assert_non_null(d);
    for (struct dirent *ent; (ent = readdir(d)) != NULL;) {
        char path[1024];
        struct stat st;
        snprintf(path, sizeof path, "%s/%s", folder, ent->d_name);
        if (stat(path, &st) != 0 || !S_ISREG(st.st_mode))
            continue;
        struct gguf_reader *r;
        struct err e = {0};
        if (gguf_reader_open(&r, path, NULL, &e) == 0) {
            ++*n_opened;
            gguf_reader_close(r);
        } else {
            ++*n_refused;
            assert_non_null(strstr(e.msg, ent->d_name));
        }
    }
    closedir(d);
}

static void real_vocabularies_open_and_write_back_the_same(void **state)
{
    (void)state;
    static const char *const files[] = {"ggml-vocab-gpt-2.gguf", "ggml-vocab-llama-spm.gguf",
                                        "ggml-vocab-starcoder.gguf", "gguf-v2.falcon.gguf",
                                        "qwen2.5-vocab.gguf"};
    if (access(KERF_SHARED "/data/vocab-gguf", R_OK) != 0)
        skip();
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        char path[1024];
        struct gguf_reader *r;
        struct err e = {0};
        struct filemap map;
        snprintf(path, sizeof path, "%s/data/vocab-gguf/%s", KERF_SHARED, files[i]);
        if (gguf_reader_open(&r, path, NULL, &e) != 0)
            fail_msg("%s", e.msg);
        assert_true(gguf_is_gguf_file(path));
        const struct gguf_value *tokens = gguf_meta_find(gguf_reader_meta(r), "tokenizer.ggml.tokens");
        assert_non_null(tokens);
        assert_true(tokens->a.elem == GGUF_STRING && tokens->a.n > 30000);
        uint8_t *header;
        size_t n;
        uint64_t total;
        assert_int_equal(gguf_layout(gguf_reader_meta(r), NULL, 0, &header, &n, &total, &e), 0);
        assert_int_equal(filemap_open(&map, path, &e), 0);
        header[4] = map.data[4]; /* version 2 is written as 3 */
        assert_true(n >= map.size - 31 && n <= map.size + 31);
        assert_memory_equal(header, map.data, n < map.size ? n : map.size);
        filemap_close(&map);
        free(header);
        gguf_reader_close(r);
    }
}

static void hostile_files_open_or_are_refused(void **state)
{
    (void)state;
    if (access(KERF_SHARED "/data/hostile", R_OK) != 0)
        skip();
    size_t opened = 0, refused = 0;
    open_folder(KERF_SHARED "/data/hostile", &opened, &refused);
    open_folder(KERF_SHARED "/data/hostile/gguf", &opened, &refused);
    printf("hostile files: %zu opened, %zu refused\n", opened, refused);
    assert_true(refused > 50);
    struct gguf_reader *r;
    struct err e = {0};
    assert_int_equal(gguf_reader_open(&r, KERF_SHARED "/data/hostile/gguf-v1.llama.gguf", NULL, &e),
                     ERR_UNSUPPORTED);
    assert_non_null(strstr(e.msg, "version 1"));
}

static void what_is_no_file_is_said(void **state)
{
    (void)state;
    struct gguf_reader *r;
    struct err e = {0};
    assert_int_equal(gguf_reader_open(&r, KERF_TEST_DATA, NULL, &e), ERR_IO);
    assert_int_equal(gguf_reader_open(&r, KERF_TEST_DATA "/no-such.gguf", NULL, &e), ERR_IO);
    assert_non_null(strstr(e.msg, "no-such.gguf"));
    assert_false(gguf_is_gguf_file(KERF_TEST_DATA "/no-such.gguf"));
    assert_false(gguf_is_gguf_file(BAD "/magic-wrong.gguf"));
    assert_true(gguf_is_gguf_file(BAD "/magic-reversed.gguf"));
    assert_false(gguf_is_gguf_file(KERF_TEST_DATA));
    gguf_reader_close(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_malformed_file_is_refused_with_its_reason),
        cmocka_unit_test(the_list_covers_the_whole_folder),
        cmocka_unit_test(split_sets_open_from_any_part),
        cmocka_unit_test(header_only_accepts_missing_data),
        cmocka_unit_test(no_damage_crashes_the_reader),
        cmocka_unit_test(many_keys_and_tensors_open_quickly),
        cmocka_unit_test(real_vocabularies_open_and_write_back_the_same),
        cmocka_unit_test(hostile_files_open_or_are_refused),
        cmocka_unit_test(what_is_no_file_is_said),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
