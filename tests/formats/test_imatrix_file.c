/* test_imatrix_file.c - both forms of importance matrices against files the peer wrote, merging, and
 * refusals. */
#include "formats/gguf/gguf_write.h"
#include "formats/gguf/imatrix_file.h"
#include "libquant/base/filemap.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define GOLDEN KERF_TEST_GOLDEN "/imatrix/"

static struct imatrix *load(const char *path)
{
    struct imatrix *m = NULL;
    struct err e = {0};
    if (imatrix_load(&m, path, &e) != 0)
        fail_msg("%s", e.msg);
    return m;
}

static struct imatrix *merged(const char *first, const char *second)
{
    struct imatrix *m, *from;
    struct err e = {0};
    assert_int_equal(imatrix_new(&m, &e), 0);
    for (int i = 0; i < 2; i++) {
        if (i && !second)
            break;
        from = load(i ? second : first);
        if (imatrix_merge(m, from, &e) != 0)
            fail_msg("%s", e.msg);
        imatrix_free(from);
    }
    return m;
}

static void same_bytes_as(const struct imatrix *m, enum imatrix_format format, const char *expected)
{
    char path[] = "/tmp/kerf-test-XXXXXX";
    struct err e = {0};
    struct filemap a, b;
    close(mkstemp(path));
    if (imatrix_save(m, path, format, true, &e) != 0)
        fail_msg("%s", e.msg);
    assert_int_equal(filemap_open(&a, path, &e), 0);
    assert_int_equal(filemap_open(&b, expected, &e), 0);
    if (a.size != b.size)
        fail_msg("%s: %zu bytes, expected %zu", expected, a.size, b.size);
    assert_memory_equal(a.data, b.data, a.size);
    filemap_close(&a);
    filemap_close(&b);
    unlink(path);
}

static void peer_files_are_written_back_unchanged(void **state)
{
    (void)state;
    static const char *const files[] = {"a.gguf", "b.gguf", "a+b.gguf", "b-from-dat.gguf", "a.dat", "b.dat"};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        char path[512];
        snprintf(path, sizeof path, "%s%s", GOLDEN, files[i]);
        struct imatrix *m = load(path);
        bool dat = strstr(files[i], ".dat") != NULL;
        assert_int_equal(imatrix_counts_are_chunks(m), dat);
        same_bytes_as(m, dat ? IMATRIX_DAT : IMATRIX_GGUF, path);
        imatrix_free(m);
    }
}

static void conversion_and_merging_give_the_peers_bytes(void **state)
{
    (void)state;
    static const struct {
        const char *first, *second, *expected;
    } cases[] = {
        {"a.gguf", NULL, "a.gguf"},          {"a.gguf", NULL, "a.dat"},
        {"b.gguf", NULL, "b.dat"},           {"b.dat", NULL, "b-from-dat.gguf"},
        {"a.gguf", "b.gguf", "a+b.gguf"},    {"a.gguf", "b.dat", "a+b-dat.gguf"},
        {"b.dat", "a.gguf", "b-dat+a.gguf"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char first[512], second[512], expected[512];
        snprintf(first, sizeof first, "%s%s", GOLDEN, cases[i].first);
        snprintf(expected, sizeof expected, "%s%s", GOLDEN, cases[i].expected);
        if (cases[i].second)
            snprintf(second, sizeof second, "%s%s", GOLDEN, cases[i].second);
        struct imatrix *m = merged(first, cases[i].second ? second : NULL);
        same_bytes_as(m, strstr(expected, ".dat") ? IMATRIX_DAT : IMATRIX_GGUF, expected);
        imatrix_free(m);
    }
}

static void weights_are_sums_over_counts(void **state)
{
    (void)state;
    struct imatrix *m = load(GOLDEN "a.gguf");
    assert_int_equal(imatrix_n(m), 3);
    assert_int_equal(imatrix_chunk_size(m), 512);
    assert_int_equal(imatrix_chunk_count(m), 9); /* 5000 tokens at most */
    assert_int_equal(imatrix_n_datasets(m), 2);
    assert_string_equal(imatrix_dataset(m, 1), "texts/two-1.txt");
    const struct imatrix_entry *x = imatrix_find(m, "blk.0.ffn_down_exps.weight");
    assert_ptr_equal(x, imatrix_entry_at(m, 1));
    assert_int_equal(x->n_values, 64);
    assert_int_equal(x->n_mats, 4);
    assert_true(x->counts[0] == 700 && x->counts[1] == 0 && x->counts[2] == 1 && x->counts[3] == 5000);
    float w[64];
    struct err e = {0};
    assert_int_equal(imatrix_weights(x, 3, 4, 16, w, &e), 0);
    for (int k = 0; k < 16; k++)
        assert_true(w[k] == (float)x->sums[48 + k] / 5000.0f);
    assert_int_equal(imatrix_weights(x, 1, 4, 16, w, &e), 0); /* an expert without tokens weighs evenly */
    for (int k = 0; k < 16; k++)
        assert_true(w[k] == 1);
    assert_int_equal(imatrix_weights(x, 4, 4, 16, w, &e), ERR_ARG);
    assert_int_equal(imatrix_weights(x, 0, 4, 17, w, &e), ERR_ARG);
    assert_int_equal(imatrix_weights(x, 0, 1, 16, w, &e), ERR_ARG);
    assert_non_null(strstr(e.msg, "64 values"));
    x = imatrix_find(m, "blk.0.attn_q.weight"); /* one count may serve the slices of a plain 3-D weight */
    assert_int_equal(imatrix_weights(x, 1, 2, 16, w, &e), 0);
    assert_true(w[3] == (float)x->sums[19] / 1536.0f);
    assert_null(imatrix_find(m, "output.weight"));
    imatrix_free(m);
    m = load(GOLDEN "a.dat");
    x = imatrix_find(m, "blk.0.ffn_down_exps.weight");
    assert_int_equal(x->n_mats, 1);
    assert_int_equal(imatrix_weights(x, 1, 4, 16, w, &e), 0);
    assert_true(w[0] == 1);
    assert_int_equal(imatrix_chunk_size(m), 0);
    double ncall = x->counts[0], first = x->sums[0];
    imatrix_set_chunks(m, 100, 7);
    assert_false(imatrix_counts_are_chunks(m));
    assert_true(x->counts[0] == ncall * 100 && x->sums[0] == first * 100);
    imatrix_free(m);
    imatrix_free(NULL);
}

static void entries_are_added_in_any_order_and_stay_sorted(void **state)
{
    (void)state;
    struct imatrix *m;
    struct imatrix_entry *x, *y;
    struct err e = {0};
    char name[32], path[] = "/tmp/kerf-test-XXXXXX";
    assert_int_equal(imatrix_new(&m, &e), 0);
    assert_int_equal(imatrix_save(m, path, IMATRIX_GGUF, true, &e), ERR_ARG);
    for (unsigned i = 0; i < 500; i++) {
        snprintf(name, sizeof name, "t%u", i * 7919 % 500);
        assert_int_equal(imatrix_add(m, name, 6, 2, &x, &e), 0);
        x->counts[0] = i;
    }
    assert_int_equal(imatrix_n(m), 500);
    for (size_t i = 1; i < 500; i++)
        assert_true(strcmp(imatrix_entry_at(m, i - 1)->name, imatrix_entry_at(m, i)->name) < 0);
    assert_int_equal(imatrix_add(m, "t7", 6, 2, &y, &e), 0);
    assert_ptr_equal(y, imatrix_find(m, "t7"));
    assert_int_equal(imatrix_add(m, "t7", 6, 3, &y, &e), ERR_ARG);
    assert_int_equal(imatrix_add(m, "u", 7, 2, &y, &e), ERR_ARG);
    assert_int_equal(imatrix_add(m, "", 4, 2, &y, &e), ERR_ARG);
    imatrix_free(m);
}

static void values_that_cannot_be_stored_are_refused(void **state)
{
    (void)state;
    char long_name[64], dir[] = "/tmp/kerf-test-XXXXXX", path[64];
    struct imatrix *m;
    struct imatrix_entry *x;
    struct err e = {0};
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/out", dir);
    memset(long_name, 'n', 56);
    long_name[56] = 0;
    assert_int_equal(imatrix_new(&m, &e), 0);
    assert_int_equal(imatrix_add(m, long_name, 4, 1, &x, &e), 0);
    assert_int_equal(imatrix_save(m, path, IMATRIX_DAT, false, &e), ERR_ARG); /* no tokens at all */
    assert_non_null(strstr(e.msg, "no importance data"));
    x->counts[0] = 10;
    assert_int_equal(imatrix_save(m, path, IMATRIX_GGUF, false, &e), ERR_ARG);
    assert_non_null(strstr(e.msg, "55"));
    assert_int_equal(imatrix_save(m, path, IMATRIX_DAT, false, &e), 0);
    x->sums[2] = 1e300;
    assert_int_equal(imatrix_save(m, path, IMATRIX_DAT, true, &e), ERR_ARG);
    assert_non_null(strstr(e.msg, "float32"));
    float w[4];
    assert_int_equal(imatrix_weights(x, 0, 1, 4, w, &e), ERR_FORMAT);
    imatrix_free(m);
    unlink(path);
    rmdir(dir);
}

static void merging_what_does_not_fit_is_refused(void **state)
{
    (void)state;
    struct imatrix *a, *b;
    struct imatrix_entry *x;
    struct err e = {0};
    assert_int_equal(imatrix_new(&a, &e), 0);
    assert_int_equal(imatrix_new(&b, &e), 0);
    assert_int_equal(imatrix_add(a, "t", 12, 3, &x, &e), 0);
    assert_int_equal(imatrix_add(b, "t", 12, 2, &x, &e), 0);
    assert_int_equal(imatrix_merge(a, b, &e), ERR_ARG);
    assert_non_null(strstr(e.msg, "counts"));
    imatrix_free(b);
    assert_int_equal(imatrix_new(&b, &e), 0);
    assert_int_equal(imatrix_add(b, "t", 6, 3, &x, &e), 0);
    assert_int_equal(imatrix_merge(a, b, &e), ERR_ARG);
    assert_non_null(strstr(e.msg, "values"));
    imatrix_free(a);
    imatrix_free(b);
}

/* --- malformed files --- */

struct bytes {
    uint8_t data[512];
    size_t n;
};

static void i32(struct bytes *b, int32_t v)
{
    memcpy(b->data + b->n, &v, 4);
    b->n += 4;
}

static void text(struct bytes *b, const char *s, size_t n)
{
    i32(b, (int32_t)n);
    memcpy(b->data + b->n, s, n);
    b->n += n;
}

static void f32(struct bytes *b, float v)
{
    memcpy(b->data + b->n, &v, 4);
    b->n += 4;
}

static void refused(const void *data, size_t n, const char *word)
{
    struct imatrix *m = NULL;
    struct err e = {0};
    void *exact = malloc(n ? n : 1);
    if (n)
        memcpy(exact, data, n);
    int rc = imatrix_load_memory(&m, exact, n, "bad", &e);
    if (rc != ERR_FORMAT || !strstr(e.msg, word) || m)
        fail_msg("code %d, message '%s', expected '%s'", rc, e.msg, word);
    free(exact);
}

static struct bytes sound_dat(void)
{
    struct bytes b = {.n = 0};
    i32(&b, 1);
    text(&b, "t", 1);
    i32(&b, 2);
    i32(&b, 1);
    f32(&b, 3.0f);
    i32(&b, 2);
    text(&b, "data", 4);
    return b;
}

static void damaged_legacy_files_are_refused(void **state)
{
    (void)state;
    struct bytes b = sound_dat();
    struct imatrix *m;
    struct err e = {0};
    assert_int_equal(imatrix_load_memory(&m, b.data, b.n, "ok", &e), 0);
    imatrix_free(m);
    assert_int_equal(imatrix_load_memory(&m, b.data, 21, "without trailer", &e), 0);
    assert_int_equal(imatrix_chunk_count(m), 2);
    imatrix_free(m);
    for (size_t n = 0; n < b.n; n++)
        if (n != 21)
            refused(b.data, n, "bad");
    refused(b.data, 20, "1 entries in 20 bytes");
    refused(b.data, 27, "cut short");
    b.data[b.n] = 7;
    refused(b.data, b.n + 1, "1 trailing bytes");
    static const struct {
        size_t at;
        int32_t v;
        const char *word;
    } cases[] = {
        {0, 0, "0 entries"},          {0, -1, "-1 entries"},
        {0, 1 << 30, "entries in"},   {0, 2, "bad"},
        {4, 0, "no UTF-8 name"},      {4, -1, "cut short"},
        {4, 1 << 30, "cut short"},    {9, -1, "-1 calls"},
        {13, 0, "0 values"},          {13, -5, "-5 values"},
        {13, INT32_MAX, "cut short"}, {17, 0x7fc00000, "finite"},
        {17, 0x7f800000, "finite"},   {17, (int32_t)0xbf800000, "finite"},
        {21, -1, "-1 chunks"},        {25, 1000, "cut short"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        b = sound_dat();
        memcpy(b.data + cases[i].at, &cases[i].v, 4);
        refused(b.data, b.n, cases[i].word);
    }
    b = sound_dat();
    b.data[8] = 0xff;
    refused(b.data, b.n, "UTF-8");
    b.data[8] = 0;
    refused(b.data, b.n, "NUL");
    struct bytes twice = {.n = 0};
    i32(&twice, 2);
    for (int i = 0; i < 2; i++) {
        text(&twice, "t", 1);
        i32(&twice, 1);
        i32(&twice, 1);
        f32(&twice, 1);
    }
    refused(twice.data, twice.n, "duplicate entry");
}

struct gguf_case {
    const char *sums, *counts; /* names; NULL: left out */
    uint64_t n_sums, n_counts;
    enum qtype type;
    float sum, count;
    const char *general_type, *word;
};

static void damaged_gguf_files_are_refused(void **state)
{
    (void)state;
    const struct gguf_case cases[] = {
        {"t.in_sum2", "t.counts", 8, 2, QTYPE_F32, 1, 3, "imatrix", NULL},
        {"t.in_sum2", NULL, 8, 2, QTYPE_F32, 1, 1, "imatrix", "has no 't.counts'"},
        {NULL, "t.counts", 8, 2, QTYPE_F32, 1, 1, "imatrix", "has no 't.in_sum2'"},
        {"t.in_sum2", "u.counts", 8, 2, QTYPE_F32, 1, 1, "imatrix", "has no"},
        {"t.sums", "t.other", 8, 2, QTYPE_F32, 1, 1, "imatrix", "no importance data"},
        {".in_sum2", ".counts", 8, 2, QTYPE_F32, 1, 1, "imatrix", "no importance data"},
        {"t.in_sum2", "t.counts", 8, 3, QTYPE_F32, 1, 1, "imatrix", "do not divide"},
        {"t.in_sum2", "t.counts", 8, 2, QTYPE_I32, 1, 1, "imatrix", "expected F32, found I32"},
        {"t.in_sum2", "t.counts", 8, 2, QTYPE_F32, -1, 1, "imatrix", "'t.in_sum2': element 0 is -1"},
        {"t.in_sum2", "t.counts", 8, 2, QTYPE_F32, INFINITY, 1, "imatrix", "'t.in_sum2': element 0 is inf"},
        {"t.in_sum2", "t.counts", 8, 2, QTYPE_F32, 1, -2, "imatrix", "'t.counts': element 0 is -2"},
        {"t.in_sum2", "t.counts", 8, 2, QTYPE_F32, 1, NAN, "imatrix", "'t.counts': element 0"},
        {"t.in_sum2", "t.counts", 8, 2, QTYPE_F32, 1, 1e30f, "imatrix", "'t.counts': element 0"},
        {"t.in_sum2", "t.counts", 8, 2, QTYPE_F32, 1, 1, "model", "expected 'imatrix'"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const struct gguf_case *c = &cases[i];
        struct gguf_meta *meta;
        struct gguf_out_tensor t[2];
        size_t n = 0, header;
        uint64_t total;
        uint8_t *file;
        assert_int_equal(gguf_meta_new(&meta, NULL), 0);
        assert_int_equal(gguf_meta_set_string(meta, "general.type", c->general_type, NULL), 0);
        if (c->sums)
            t[n++] =
                (struct gguf_out_tensor){.name = c->sums, .type = c->type, .n_dims = 1, .ne = {c->n_sums}};
        if (c->counts)
            t[n++] = (struct gguf_out_tensor){
                .name = c->counts, .type = c->type, .n_dims = 1, .ne = {c->n_counts}};
        assert_int_equal(gguf_layout(meta, t, n, &file, &header, &total, NULL), 0);
        file = realloc(file, total);
        memset(file + header, 0, total - header);
        memcpy(file + t[0].offset, c->sums ? &c->sum : &c->count, 4);
        if (c->sums && c->counts)
            memcpy(file + t[1].offset, &c->count, 4);
        if (c->word) {
            refused(file, total, c->word);
        } else {
            struct imatrix *m;
            assert_int_equal(imatrix_load_memory(&m, file, total, "ok", NULL), 0);
            assert_true(imatrix_entry_at(m, 0)->counts[0] == 3);
            imatrix_free(m);
        }
        free(file);
        gguf_meta_free(meta);
    }
    refused("GGUF", 4, "bad");
}

static void real_legacy_files_are_read(void **state)
{
    (void)state;
    static const struct {
        const char *file, *dataset;
        unsigned chunks;
    } files[] = {
        {"Qwen3-4B-Instruct-2507.imatrix_ubergarm.dat", "ubergarm-imatrix-calibration-corpus-v02.txt", 840},
        {"qwen2.5-3b-shape.dat", "imatrix-training-full-3", 318},
    };
    if (access(KERF_SHARED "/data/imatrix", R_OK) != 0)
        skip();
    for (size_t i = 0; i < 2; i++) {
        char path[1024], copy[] = "/tmp/kerf-test-XXXXXX";
        snprintf(path, sizeof path, "%s/data/imatrix/%s", KERF_SHARED, files[i].file);
        struct imatrix *m = load(path), *again;
        assert_int_equal(imatrix_n(m), 252);
        assert_int_equal(imatrix_chunk_count(m), files[i].chunks);
        assert_string_equal(imatrix_dataset(m, 0), files[i].dataset);
        /* the writer sorts, so the bytes move; the content stays */
        close(mkstemp(copy));
        assert_int_equal(imatrix_save(m, copy, IMATRIX_DAT, true, NULL), 0);
        again = load(copy);
        assert_int_equal(imatrix_n(again), 252);
        for (size_t k = 0; k < 252; k++) {
            const struct imatrix_entry *x = imatrix_entry_at(m, k), *y = imatrix_entry_at(again, k);
            assert_string_equal(x->name, y->name);
            assert_int_equal(x->n_values, y->n_values);
            assert_true(x->counts[0] == y->counts[0]);
            assert_memory_equal(x->sums, y->sums, x->n_values * sizeof(double));
        }
        same_bytes_as(again, IMATRIX_DAT, copy);
        imatrix_free(again);
        imatrix_free(m);
        unlink(copy);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(peer_files_are_written_back_unchanged),
        cmocka_unit_test(conversion_and_merging_give_the_peers_bytes),
        cmocka_unit_test(weights_are_sums_over_counts),
        cmocka_unit_test(entries_are_added_in_any_order_and_stay_sorted),
        cmocka_unit_test(values_that_cannot_be_stored_are_refused),
        cmocka_unit_test(merging_what_does_not_fit_is_refused),
        cmocka_unit_test(damaged_legacy_files_are_refused),
        cmocka_unit_test(damaged_gguf_files_are_refused),
        cmocka_unit_test(real_legacy_files_are_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
