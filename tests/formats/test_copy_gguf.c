/* test_copy_gguf.c - splitting, merging and editing GGUF files, and the content hash that survives all but
 * edits. */
#include "formats/rewrite/copy_gguf.h"
#include "formats/gguf/gguf_hash.h"
#include "formats/gguf/gguf_parts.h"
#include "libquant/base/filemap.h"
#include "libquant/base/sha256.h"
#include "scratch.h"

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

enum { N_TENSORS = 7 };

/* Tensors of different types and sizes, and metadata of about 4000 bytes. */
static void write_model(const char *path, const uint32_t *alignment, bool reversed)
{
    static const enum qtype types[N_TENSORS] = {QTYPE_F32,  QTYPE_Q8_0, QTYPE_F16, QTYPE_Q4_K,
                                                QTYPE_BF16, QTYPE_I8,   QTYPE_F32};
    struct gguf_out_tensor t[N_TENSORS];
    char names[N_TENSORS][32];
    struct gguf_meta *m;
    struct gguf_parts *p;
    struct err e = {0};
    char text[4000];
    memset(text, 't', sizeof text - 1);
    text[sizeof text - 1] = 0;
    assert_int_equal(gguf_meta_new(&m, &e), 0);
    assert_int_equal(
        gguf_meta_set_string(m, reversed ? "z.text" : "general.architecture", reversed ? text : "toy", &e),
        0);
    assert_int_equal(
        gguf_meta_set_string(m, reversed ? "general.architecture" : "z.text", reversed ? "toy" : text, &e),
        0);
    if (alignment)
        assert_int_equal(gguf_meta_set_u32(m, "general.alignment", *alignment, &e), 0);
    for (int i = 0; i < N_TENSORS; i++) {
        int k = reversed ? N_TENSORS - 1 - i : i;
        snprintf(names[i], sizeof names[i], "blk.%d.weight", k);
        t[i] = (struct gguf_out_tensor){
            .name = names[i], .type = types[k], .n_dims = 2, .ne = {256, 1 + (uint64_t)k}};
    }
    assert_int_equal(gguf_parts_plan(&p, m, t, N_TENSORS, path, NULL, &e), 0);
    assert_int_equal(gguf_parts_open(p, &e), 0);
    for (size_t i = N_TENSORS; i-- > 0;) { /* any order, any pieces */
        uint8_t *data = malloc(t[i].n_bytes);
        for (uint64_t k = 0; k < t[i].n_bytes; k++)
            data[k] = (uint8_t)(names[i][4] * 31 + (int)k * 7);
        uint64_t half = t[i].n_bytes / 2;
        assert_int_equal(gguf_parts_write(p, i, half, data + half, t[i].n_bytes - half, &e), 0);
        assert_int_equal(gguf_parts_write(p, i, 0, data, half, &e), 0);
        free(data);
    }
    assert_int_equal(access(path, F_OK), -1);
    assert_int_equal(gguf_parts_commit(p, &e), 0);
    gguf_parts_free(p);
    gguf_meta_free(m);
}

static struct gguf_reader *open_model(const char *path)
{
    struct gguf_reader *r;
    struct err e = {0};
    if (gguf_reader_open(&r, path, NULL, &e) != 0)
        fail_msg("%s", e.msg);
    return r;
}

static void repack(const char *from, const char *to, const struct copy_gguf_options *opt,
                   struct copy_gguf_report *report)
{
    struct gguf_reader *r = open_model(from);
    struct err e = {0};
    if (copy_gguf(r, to, opt, report, &e) != 0)
        fail_msg("%s", e.msg);
    gguf_reader_close(r);
}

static void same_files(const char *a, const char *b)
{
    struct filemap x, y;
    assert_int_equal(filemap_open(&x, a, NULL), 0);
    assert_int_equal(filemap_open(&y, b, NULL), 0);
    assert_int_equal(x.size, y.size);
    assert_memory_equal(x.data, y.data, x.size);
    filemap_close(&x);
    filemap_close(&y);
}

/* A plan with one small tensor and a text of n bytes in its header. */
static struct gguf_parts *small_plan(const char *path, struct gguf_out_tensor *t, size_t n)
{
    struct gguf_meta *m;
    struct gguf_parts *p;
    char text[4000];
    memset(text, 'b', sizeof text);
    text[n] = 0;
    *t = (struct gguf_out_tensor){.name = "x.weight", .type = QTYPE_F32, .n_dims = 2, .ne = {256, 1, 1, 1}};
    assert_int_equal(gguf_meta_new(&m, NULL), 0);
    assert_int_equal(gguf_meta_set_string(m, "general.architecture", text, NULL), 0);
    struct gguf_parts_options opt = {.keep_partial = true, .resume = true};
    assert_int_equal(gguf_parts_plan(&p, m, t, 1, path, &opt, NULL), 0);
    gguf_meta_free(m);
    return p;
}

/* Another run of the same name must not spoil a partial output before it knows whose it is. */
static void a_partial_output_is_untouched_until_its_owner_is_known(void **state)
{
    (void)state;
    const char *path = in_scratch("partial.gguf");
    char temp[600];
    struct gguf_out_tensor t;
    snprintf(temp, sizeof temp, "%s.kerf-part", path);
    struct gguf_parts *p = small_plan(path, &t, 3);
    uint8_t data[1024];
    memset(data, 0xaa, sizeof data);
    assert_int_equal(gguf_parts_open(p, NULL), 0);
    assert_false(gguf_parts_resumed(p));
    assert_int_equal(gguf_parts_write(p, 0, 0, data, sizeof data, NULL), 0);
    uint64_t offset = t.offset;
    gguf_parts_free(p);

    p = small_plan(path, &t, 3000); /* a header that would reach into the data of the first */
    assert_true(t.offset > offset + sizeof data);
    assert_int_equal(gguf_parts_open(p, NULL), 0);
    assert_true(gguf_parts_resumed(p));
    struct filemap f;
    assert_int_equal(filemap_open(&f, temp, NULL), 0);
    assert_memory_equal(f.data + offset, data, sizeof data);
    filemap_close(&f);
    assert_int_equal(gguf_parts_restart(p, NULL), 0);
    assert_int_equal(filemap_open(&f, temp, NULL), 0);
    assert_memory_not_equal(f.data + offset, data, sizeof data);
    filemap_close(&f);
    gguf_parts_free(p);
    assert_int_equal(unlink(temp), 0);
}

static size_t n_files_in_dir(void)
{
    size_t n = 0;
    DIR *d = opendir(in_scratch(""));
    for (struct dirent *ent; (ent = readdir(d)) != NULL;)
        n += ent->d_name[0] != '.';
    closedir(d);
    return n;
}

static void copying_gives_the_same_bytes(void **state)
{
    (void)state;
    for (uint32_t align = 1; align <= 4096; align *= 64) {
        write_model(in_scratch("a.gguf"), &align, false);
        repack(in_scratch("a.gguf"), in_scratch("b.gguf"), NULL, NULL);
        same_files(in_scratch("a.gguf"), in_scratch("b.gguf"));
        unlink(in_scratch("a.gguf"));
        unlink(in_scratch("b.gguf"));
    }
}

static void splitting_and_merging_come_back_to_the_same_bytes(void **state)
{
    (void)state;
    static const struct copy_gguf_options cases[] = {
        {.max_tensors = 1},  {.max_tensors = 3},    {.max_tensors = 100},
        {.max_bytes = 7500}, {.max_bytes = 100000}, {.max_bytes = 8000, .max_tensors = 2},
    };
    static const size_t n_parts[] = {7, 3, 1, 0, 1, 0};
    for (uint32_t align = 32; align <= 64; align *= 2) {
        write_model(in_scratch("a.gguf"), align == 32 ? NULL : &align, false);
        for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
            struct copy_gguf_report report;
            repack(in_scratch("a.gguf"), in_scratch("s.gguf"), &cases[i], &report);
            assert_int_equal(report.n_tensors, N_TENSORS);
            if (n_parts[i])
                assert_int_equal(report.n_files, n_parts[i]);
            else
                assert_true(report.n_files > 1);
            size_t total = 0, n = 0;
            for (size_t k = 0; k < report.n_files; k++) {
                struct stat st;
                assert_int_equal(stat(report.files[k].path, &st), 0);
                assert_int_equal(st.st_size, report.files[k].n_bytes);
                if (cases[i].max_bytes)
                    assert_true(report.files[k].n_bytes <= cases[i].max_bytes);
                if (cases[i].max_tensors)
                    assert_true(report.files[k].n_tensors <= cases[i].max_tensors);
                total += report.files[k].n_bytes;
                n += report.files[k].n_tensors;
            }
            assert_int_equal(total, report.n_bytes);
            assert_int_equal(n, N_TENSORS);
            assert_int_equal(n_files_in_dir(), 1 + report.n_files);
            repack(report.files[report.n_files - 1].path, in_scratch("m.gguf"), NULL, NULL);
            same_files(in_scratch("a.gguf"), in_scratch("m.gguf"));
            for (size_t k = 0; k < report.n_files; k++)
                unlink(report.files[k].path);
            unlink(in_scratch("m.gguf"));
            copy_gguf_report_release(&report);
        }
        unlink(in_scratch("a.gguf"));
    }
}

static void a_dry_run_reports_and_writes_nothing(void **state)
{
    (void)state;
    struct copy_gguf_report report;
    write_model(in_scratch("a.gguf"), NULL, false);
    repack(in_scratch("a.gguf"), in_scratch("s"),
           &(struct copy_gguf_options){.max_tensors = 4, .dry_run = true}, &report);
    assert_int_equal(report.n_files, 2);
    assert_non_null(strstr(report.files[1].path, "/s-00002-of-00002.gguf"));
    assert_int_equal(n_files_in_dir(), 1);
    copy_gguf_report_release(&report);
    copy_gguf_report_release(NULL);
}

static int stop_in_the_middle(void *ctx, const struct progress_step *s)
{
    (void)ctx;
    return progress_share(s) > 0.5;
}

static void failures_leave_nothing_behind(void **state)
{
    (void)state;
    struct err e = {0};
    write_model(in_scratch("a.gguf"), NULL, false);
    struct gguf_reader *r = open_model(in_scratch("a.gguf"));
    struct gguf_meta *set;
    assert_int_equal(gguf_meta_new(&set, &e), 0);
    assert_int_equal(gguf_meta_set_u16(set, "split.count", 1, &e), 0);
    const char *absent = "no.such.key", *split = "split.no";
    const struct {
        struct copy_gguf_options opt;
        int code;
        const char *words;
    } cases[] = {
        {{.remove = &absent, .n_remove = 1}, ERR_ARG, "key 'no.such.key': cannot be removed"},
        {{.remove = &split, .n_remove = 1}, ERR_ARG, "cannot be edited"},
        {{.set = set}, ERR_ARG, "cannot be edited"},
        {{.max_bytes = 2000}, ERR_ARG, "the metadata alone needs"},
        {{.max_bytes = 4200}, ERR_ARG, "tensor 'blk.6.weight' alone needs a file of"},
        {{.progress = {stop_in_the_middle, NULL}}, ERR_CANCELLED, "stopped on request"},
        {{.max_tensors = 2, .progress = {stop_in_the_middle, NULL}}, ERR_CANCELLED, "stopped on request"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int rc = copy_gguf(r, in_scratch("out.gguf"), &cases[i].opt, NULL, &e);
        if (rc != cases[i].code || !strstr(e.msg, cases[i].words))
            fail_msg("code %d, message '%s', expected '%s'", rc, e.msg, cases[i].words);
        assert_int_equal(n_files_in_dir(), 1);
    }
    /* one part of the set is in the way: none of the others may appear */
    assert_int_equal(output_file_write_all(in_scratch("s-00003-of-00004.gguf"), "old", 3, false, &e), 0);
    assert_int_equal(copy_gguf(r, in_scratch("s"), &(struct copy_gguf_options){.max_tensors = 2}, NULL, &e),
                     ERR_EXISTS);
    assert_non_null(strstr(e.msg, "s-00003-of-00004.gguf"));
    assert_int_equal(n_files_in_dir(), 2);
    struct copy_gguf_options force = {.max_tensors = 2, .overwrite = true};
    assert_int_equal(copy_gguf(r, in_scratch("s"), &force, NULL, &e), 0);
    assert_int_equal(n_files_in_dir(), 5);
    gguf_reader_close(r);
    gguf_meta_free(set);
}

/* The output is refused when it is the input, or a part of it, by whatever name. */
static void an_input_is_never_replaced(void **state)
{
    (void)state;
    struct err e = {0};
    write_model(in_scratch("a.gguf"), NULL, false);
    write_model(in_scratch("b.gguf"), NULL, false);
    repack(in_scratch("a.gguf"), in_scratch("s"), &(struct copy_gguf_options){.max_tensors = 3}, NULL);
    assert_int_equal(link(in_scratch("a.gguf"), in_scratch("hard.gguf")), 0);
    assert_int_equal(symlink("a.gguf", in_scratch("soft.gguf")), 0);
    assert_int_equal(symlink("s-00002-of-00003.gguf", in_scratch("part.gguf")), 0);
    int n_files = n_files_in_dir();
    const struct {
        const char *from, *to;
        uint64_t max_tensors;
        bool in_place;
    } cases[] = {
        {"a.gguf", "a.gguf", 0, false},
        {"a.gguf", "hard.gguf", 0, false},
        {"a.gguf", "soft.gguf", 0, false},
        {"soft.gguf", "a.gguf", 0, false},
        {"s-00001-of-00003.gguf", "s", 3, false},
        {"s-00003-of-00003.gguf", "s-00002-of-00003.gguf", 0, false},
        {"s-00003-of-00003.gguf", "part.gguf", 0, false},
        {"s-00001-of-00003.gguf", "s-00001-of-00003.gguf", 0, true}, /* the others would be left behind */
        {"a.gguf", "hard.gguf", 0, true},
        {"a.gguf", "soft.gguf", 0, true},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (int dry = 0; dry < 2; dry++) {
            struct gguf_reader *r = open_model(in_scratch(cases[i].from));
            struct copy_gguf_options opt = {.overwrite = true,
                                            .dry_run = dry,
                                            .in_place = cases[i].in_place,
                                            .max_tensors = cases[i].max_tensors};
            assert_int_equal(copy_gguf(r, in_scratch(cases[i].to), &opt, NULL, &e), ERR_ARG);
            assert_non_null(strstr(e.msg, "inputs are never replaced"));
            gguf_reader_close(r);
            assert_int_equal(n_files_in_dir(), n_files);
            same_files(in_scratch("a.gguf"), in_scratch("b.gguf"));
        }
    repack(in_scratch("s-00001-of-00003.gguf"), in_scratch("m.gguf"), NULL, NULL);
    same_files(in_scratch("a.gguf"), in_scratch("m.gguf"));
}

/* A set of another number of parts has other names: it stays, and is told of. */
static void older_sets_of_another_size_are_told_of(void **state)
{
    (void)state;
    struct copy_gguf_report report;
    write_model(in_scratch("a.gguf"), NULL, false);
    /* A set of one part is no older set of its own. */
    repack(in_scratch("a.gguf"), in_scratch("one"), &(struct copy_gguf_options){.max_tensors = 300}, &report);
    assert_int_equal(report.n_files, 1);
    assert_string_equal(report.files[0].path, in_scratch("one-00001-of-00001.gguf"));
    assert_int_equal(report.n_warnings, 0);
    copy_gguf_report_release(&report);
    repack(in_scratch("a.gguf"), in_scratch("one-00001-of-00007.gguf"), NULL,
           &report); /* one file of that name */
    assert_int_equal(report.n_warnings, 1);
    assert_non_null(strstr(report.warnings[0], "one-00001-of-00001.gguf: an older set of 1 part stays"));
    copy_gguf_report_release(&report);
    repack(in_scratch("a.gguf"), in_scratch("s"), &(struct copy_gguf_options){.max_tensors = 3}, &report);
    assert_int_equal(report.n_files, 3);
    assert_int_equal(report.n_warnings, 0);
    copy_gguf_report_release(&report);
    repack(in_scratch("a.gguf"), in_scratch("s"), &(struct copy_gguf_options){.max_tensors = 4}, &report);
    assert_int_equal(report.n_files, 2);
    assert_int_equal(report.n_warnings, 1);
    assert_non_null(strstr(report.warnings[0], "s-00001-of-00003.gguf: an older set of 3 parts"));
    copy_gguf_report_release(&report);
    repack(in_scratch("s-00003-of-00003.gguf"), in_scratch("m.gguf"), NULL, NULL);
    same_files(in_scratch("a.gguf"), in_scratch("m.gguf"));
    assert_int_equal(
        output_file_write_all(in_scratch("t-00001-of-00009.gguf.kerf-part"), "x", 1, false, NULL), 0);
    assert_int_equal(output_file_write_all(in_scratch("t-00001-of-00008.gguf.kerf-old"), "x", 1, false, NULL),
                     0);
    assert_int_equal(output_file_write_all(in_scratch("u-t-00001-of-00009.gguf"), "x", 1, false, NULL), 0);
    assert_int_equal(output_file_write_all(in_scratch("t-00002-of-00009.gguf"), "x", 1, false, NULL), 0);
    /* Aside, while no set stands: it may be the only copy, so nothing is written beside it. */
    struct err e = {0};
    struct gguf_reader *r = open_model(in_scratch("a.gguf"));
    int n_files = n_files_in_dir();
    assert_int_equal(copy_gguf(r, in_scratch("t"), &(struct copy_gguf_options){.max_tensors = 4}, NULL, &e),
                     ERR_IO);
    assert_non_null(
        strstr(e.msg, "t-00001-of-00008.gguf.kerf-old: a run that split into 8 parts was killed"));
    assert_int_equal(n_files_in_dir(), n_files);
    gguf_reader_close(r);
    assert_int_equal(output_file_write_all(in_scratch("t-00001-of-00008.gguf"), "x", 1, false, NULL), 0);
    repack(in_scratch("a.gguf"), in_scratch("t"), &(struct copy_gguf_options){.max_tensors = 4}, &report);
    assert_int_equal(report.n_warnings, 3);
    copy_gguf_report_release(&report);
}

/* A set whose commit was killed: the parts that have their names already are taken back and written anew,
 * while a file of another making is in the way. */
static void a_killed_commit_does_not_stand_in_the_way(void **state)
{
    (void)state;
    struct err e = {0};
    struct copy_gguf_options opt = {.max_tensors = 3};
    write_model(in_scratch("a.gguf"), NULL, false);
    repack(in_scratch("a.gguf"), in_scratch("s"), &opt, NULL);
    repack(in_scratch("a.gguf"), in_scratch("t"), &opt, NULL);
    assert_int_equal(
        rename(in_scratch("s-00001-of-00003.gguf"), in_scratch("s-00001-of-00003.gguf.kerf-part")), 0);
    assert_int_equal(
        rename(in_scratch("s-00002-of-00003.gguf"), in_scratch("s-00002-of-00003.gguf.kerf-part")), 0);
    repack(in_scratch("a.gguf"), in_scratch("s"), &opt, NULL);
    for (int i = 1; i <= 3; i++) {
        char s[64], t[64];
        snprintf(s, sizeof s, "s-0000%d-of-00003.gguf", i);
        snprintf(t, sizeof t, "t-0000%d-of-00003.gguf", i);
        same_files(in_scratch(s), in_scratch(t));
    }
    assert_int_equal(n_files_in_dir(), 7);

    /* killed while it replaced an older set: part 1 and 2 are aside, new parts 3 and 2 in place */
    assert_int_equal(
        rename(in_scratch("t-00001-of-00003.gguf"), in_scratch("s-00001-of-00003.gguf.kerf-part")), 0);
    assert_int_equal(
        rename(in_scratch("s-00001-of-00003.gguf"), in_scratch("s-00001-of-00003.gguf.kerf-old")), 0);
    assert_int_equal(
        rename(in_scratch("s-00002-of-00003.gguf"), in_scratch("s-00002-of-00003.gguf.kerf-old")), 0);
    assert_int_equal(rename(in_scratch("t-00002-of-00003.gguf"), in_scratch("s-00002-of-00003.gguf")), 0);
    assert_int_equal(
        rename(in_scratch("s-00003-of-00003.gguf"), in_scratch("s-00003-of-00003.gguf.kerf-old")), 0);
    assert_int_equal(rename(in_scratch("t-00003-of-00003.gguf"), in_scratch("s-00003-of-00003.gguf")), 0);
    static const char *const parts[] = {"s-00001-of-00003.gguf", "s-00002-of-00003.gguf"};
    for (size_t i = 0; i < 2; i++) { /* a reader says what the matter is, whichever part it is given */
        struct gguf_reader *none;
        assert_int_equal(gguf_reader_open(&none, in_scratch(parts[i]), NULL, &e), ERR_IO);
        assert_non_null(strstr(e.msg, "s-00001-of-00003.gguf: is missing, while "));
        assert_non_null(strstr(e.msg, "s-00001-of-00003.gguf.kerf-old stands"));
    }
    struct gguf_reader *r = open_model(in_scratch("a.gguf"));
    assert_int_equal(copy_gguf(r, in_scratch("s"), &opt, NULL, &e), ERR_EXISTS);
    assert_non_null(strstr(e.msg, "exists already"));
    repack(in_scratch("s-00002-of-00003.gguf"), in_scratch("m.gguf"), NULL, NULL); /* it stands again */
    same_files(in_scratch("a.gguf"), in_scratch("m.gguf"));

    unlink(in_scratch("s-00001-of-00003.gguf"));
    unlink(in_scratch("s-00002-of-00003.gguf"));
    write_model(in_scratch("s-00002-of-00003.gguf"), NULL, true);
    assert_int_equal(copy_gguf(r, in_scratch("s"), &opt, NULL, &e), ERR_EXISTS);
    assert_non_null(strstr(e.msg, "exists already"));
    gguf_reader_close(r);
}

static void edits_change_the_metadata_alone(void **state)
{
    (void)state;
    struct err e = {0};
    struct gguf_meta *set;
    const char *gone = "z.text";
    write_model(in_scratch("a.gguf"), NULL, false);
    assert_int_equal(gguf_meta_new(&set, &e), 0);
    assert_int_equal(gguf_meta_set_string(set, "general.architecture", "other", &e), 0);
    assert_int_equal(gguf_meta_set_u32(set, "new.key", 7, &e), 0);
    assert_int_equal(gguf_meta_set_u32(set, "general.alignment", 256, &e), 0);
    struct copy_gguf_options opt = {
        .set = set, .remove = &gone, .n_remove = 1, .overwrite = true, .in_place = true};
    struct gguf_reader *before = open_model(in_scratch("a.gguf"));
    assert_int_equal(copy_gguf(before, in_scratch("a.gguf"), &opt, NULL, &e),
                     0); /* the output replaces the input */
    struct gguf_reader *after = open_model(in_scratch("a.gguf"));
    struct gguf_string arch;
    assert_true(gguf_meta_get_string(gguf_reader_meta(after), "general.architecture", &arch));
    assert_true(gguf_string_is(arch, "other"));
    assert_null(gguf_meta_find(gguf_reader_meta(after), "z.text"));
    assert_string_equal(gguf_meta_key(gguf_reader_meta(after), 1), "new.key");
    assert_int_equal(gguf_reader_alignment(after), 256);
    for (size_t i = 0; i < N_TENSORS; i++) {
        const struct gguf_tensor *x = gguf_reader_tensor(before, i), *y = gguf_reader_tensor(after, i);
        assert_string_equal(x->name, y->name);
        assert_int_equal(y->offset % 256, 0);
        assert_memory_equal(x->data, y->data, x->n_bytes);
    }
    gguf_reader_close(before);
    gguf_reader_close(after);
    gguf_meta_free(set);
}

static struct gguf_hash hash(const char *path, unsigned n_threads, struct gguf_reader **r)
{
    struct gguf_hash h;
    struct pool *pool;
    struct err e = {0};
    *r = open_model(path);
    assert_int_equal(pool_new(&pool, n_threads, &e), 0);
    if (gguf_hash_model(&h, *r, pool, NULL, &e) != 0)
        fail_msg("%s", e.msg);
    pool_free(pool);
    return h;
}

/* Told of every byte, once the last step is `stop_at` bytes or more it asks to stop. */
struct listener {
    double stop_at, done, total;
};

static int listen(void *ctx, const struct progress_step *s)
{
    struct listener *l = ctx;
    assert_true(s->done >= l->done && s->done <= s->total);
    l->done = s->done;
    l->total = s->total;
    return s->done >= l->stop_at;
}

static void hashing_tells_and_stops(void **state)
{
    (void)state;
    struct gguf_hash h;
    struct pool *pool;
    struct err e = {0};
    write_model(in_scratch("a.gguf"), NULL, false);
    struct gguf_reader *r = open_model(in_scratch("a.gguf"));
    assert_int_equal(pool_new(&pool, 1, &e), 0);
    struct listener all = {.stop_at = 1e9}, half;
    assert_int_equal(gguf_hash_model(&h, r, pool, &(struct progress){listen, &all}, &e), 0);
    gguf_hash_release(&h);
    assert_true(all.total > 0 && all.done == all.total);
    half = (struct listener){.stop_at = all.total / 2};
    assert_int_equal(gguf_hash_model(&h, r, pool, &(struct progress){listen, &half}, &e), ERR_CANCELLED);
    assert_true(half.done < all.total);
    pool_free(pool);
    gguf_reader_close(r);
}

/* Asks to stop when it is told for the second time. The first takes so long that another thread takes the
 * next tensor. */
static int stop_second(void *ctx, const struct progress_step *s)
{
    int *n_told = ctx;
    if (++*n_told == 1)
        usleep(50000);
    else
        assert_true(s->done < s->total); /* told while the other thread is at work, not behind it */
    return *n_told >= 2;
}

/* The caller has the small tensor and then nothing to do; another thread is in the large one. */
static void a_stop_is_heard_while_other_threads_hash(void **state)
{
    (void)state;
    struct gguf_out_tensor t[] = {{.name = "small", .type = QTYPE_I8, .n_dims = 1, .ne = {64}},
                                  {.name = "large", .type = QTYPE_I8, .n_dims = 1, .ne = {96u << 20}}};
    struct gguf_meta *m;
    struct gguf_parts *p;
    struct gguf_hash h;
    struct pool *pool;
    struct err e = {0};
    int n_told = 0;
    assert_int_equal(gguf_meta_new(&m, &e), 0);
    assert_int_equal(gguf_parts_plan(&p, m, t, 2, in_scratch("large.gguf"), NULL, &e), 0);
    assert_int_equal(gguf_parts_open(p, &e), 0);
    assert_int_equal(gguf_parts_commit(p, &e), 0); /* of holes */
    struct gguf_reader *r = open_model(in_scratch("large.gguf"));
    assert_int_equal(pool_new(&pool, 2, &e), 0);
    assert_int_equal(gguf_hash_model(&h, r, pool, &(struct progress){stop_second, &n_told}, &e),
                     ERR_CANCELLED);
    assert_int_equal(n_told, 2); /* and then never again */
    pool_free(pool);
    gguf_reader_close(r);
    gguf_parts_free(p);
    gguf_meta_free(m);
}

static void the_hash_sees_content_only(void **state)
{
    (void)state;
    struct gguf_reader *r, *q;
    uint32_t align = 512;
    write_model(in_scratch("a.gguf"), NULL, false);
    write_model(in_scratch("b.gguf"), &align, true);
    repack(in_scratch("a.gguf"), in_scratch("s"), &(struct copy_gguf_options){.max_tensors = 2}, NULL);
    struct gguf_hash a = hash(in_scratch("a.gguf"), 1, &r);
    /* one tensor by the formula of the header, over another path through the code */
    const struct gguf_tensor *t = gguf_reader_find(r, "blk.3.weight");
    struct sha256 s;
    uint8_t data[32], digest[32], record[200];
    size_t n = 0;
    sha256_init(&s);
    sha256_update(&s, t->data, t->n_bytes);
    sha256_final(&s, data);
    memcpy(record, "kerf tensor 1\n\x0c\0\0\0\0\0\0\0blk.3.weight\x0c\0\0\0", 38);
    n = 38;
    for (int d = 0; d < 4; d++, n += 8)
        memcpy(record + n, &t->ne[d], 8);
    memcpy(record + n, data, 32);
    sha256_init(&s);
    sha256_update(&s, record, n + 32);
    sha256_final(&s, digest);
    assert_string_equal(a.tensor[3].tensor->name, "blk.3.weight");
    assert_memory_equal(a.tensor[3].data, data, 32);
    assert_memory_equal(a.tensor[3].digest, digest, 32);
    static const char *const same[] = {"b.gguf", "s-00002-of-00004.gguf", "a.gguf"};
    for (size_t i = 0; i < 3; i++) {
        struct gguf_hash b = hash(in_scratch(same[i]), 4, &q);
        assert_memory_equal(a.tensors, b.tensors, 32);
        assert_memory_equal(a.metadata, b.metadata, 32);
        assert_memory_equal(a.model, b.model, 32);
        gguf_hash_release(&b);
        gguf_reader_close(q);
    }
    struct gguf_meta *set;
    assert_int_equal(gguf_meta_new(&set, NULL), 0);
    assert_int_equal(gguf_meta_set_string(set, "z.text", "changed", NULL), 0);
    repack(in_scratch("a.gguf"), in_scratch("c.gguf"), &(struct copy_gguf_options){.set = set}, NULL);
    struct gguf_hash c = hash(in_scratch("c.gguf"), 2, &q);
    assert_memory_equal(a.tensors, c.tensors, 32);
    assert_memory_not_equal(a.metadata, c.metadata, 32);
    assert_memory_not_equal(a.model, c.model, 32);
    gguf_hash_release(&c);
    gguf_reader_close(q);
    gguf_meta_free(set);
    FILE *f = fopen(in_scratch("c.gguf"), "r+b"); /* one byte of the last tensor */
    fseek(f, -100, SEEK_END);
    int byte = fgetc(f);
    fseek(f, -100, SEEK_END);
    fputc(byte ^ 1, f);
    fclose(f);
    c = hash(in_scratch("c.gguf"), 2, &q);
    assert_memory_not_equal(a.tensors, c.tensors, 32);
    assert_memory_equal(a.tensor[5].digest, c.tensor[5].digest, 32);
    assert_memory_not_equal(a.tensor[6].digest, c.tensor[6].digest, 32);
    gguf_hash_release(&c);
    gguf_reader_close(q);
    gguf_hash_release(&a);
    gguf_hash_release(&a);
    gguf_reader_close(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_partial_output_is_untouched_until_its_owner_is_known),
        cmocka_unit_test_setup_teardown(copying_gives_the_same_bytes, scratch_begin, scratch_end),
        cmocka_unit_test_setup_teardown(splitting_and_merging_come_back_to_the_same_bytes, scratch_begin,
                                        scratch_end),
        cmocka_unit_test_setup_teardown(a_dry_run_reports_and_writes_nothing, scratch_begin, scratch_end),
        cmocka_unit_test_setup_teardown(failures_leave_nothing_behind, scratch_begin, scratch_end),
        cmocka_unit_test_setup_teardown(an_input_is_never_replaced, scratch_begin, scratch_end),
        cmocka_unit_test_setup_teardown(older_sets_of_another_size_are_told_of, scratch_begin, scratch_end),
        cmocka_unit_test_setup_teardown(a_killed_commit_does_not_stand_in_the_way, scratch_begin,
                                        scratch_end),
        cmocka_unit_test_setup_teardown(edits_change_the_metadata_alone, scratch_begin, scratch_end),
        cmocka_unit_test_setup_teardown(hashing_tells_and_stops, scratch_begin, scratch_end),
        cmocka_unit_test_setup_teardown(a_stop_is_heard_while_other_threads_hash, scratch_begin, scratch_end),
        cmocka_unit_test_setup_teardown(the_hash_sees_content_only, scratch_begin, scratch_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
