/* test_rewrite_resume.c - runs that were stopped or failed late are continued, and only from bytes that are
 * their own. */
#include "formats/rewrite/rewrite_internal.h"
#include "rewrite_run.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

/* The linker puts this in the place of the library's calls (see CMakeLists.txt). */
int __real_fdatasync(int fd);
int __wrap_fdatasync(int fd);
static int flush_fails; /* how many of the next calls fail */

int __wrap_fdatasync(int fd)
{
    if (flush_fails == 0)
        return __real_fdatasync(fd);
    flush_fails--;
    errno = EIO;
    return -1;
}

static void a_stopped_run_leaves_nothing_unless_it_shall_be_resumed(void **state)
{
    (void)state;
    char src[256], whole[256], out[256];
    struct err e = {0};
    write_source(in_folder(src, "src.gguf"), QTYPE_BF16, -1, 0);
    struct rewrite_report full, resumed;
    struct setup plain = {.threads = 1, .type = "Q5_K_M", .report = &full};
    assert_int_equal(rewrite(src, in_folder(whole, "whole.gguf"), &plain, &e), 0);
    size_t n_jobs = plain.n_calls;
    assert_true(n_jobs > N_SPECS); /* one tensor has several */

    struct setup stop = {.threads = 1, .type = "Q5_K_M", .cancel_after = 4};
    assert_int_equal(rewrite(src, in_folder(out, "stop.gguf"), &stop, &e), ERR_CANCELLED);
    assert_non_null(strstr(e.msg, "stopped on request, nothing is kept; a run with --resume"));
    assert_nothing_left(out);
    assert_false(full.resumed);

    size_t most_kept = 0;
    for (size_t k = 1; k < n_jobs; k++) {
        stop.resume = true;
        stop.cancel_after = k;
        assert_int_equal(rewrite(src, out, &stop, &e), ERR_CANCELLED);
        assert_false(exists(out, ""));
        assert_true(exists(out, ".kerf-part"));
        assert_true(exists(out, ".kerf-part.journal"));
        size_t n_kept = 0, n_tensors = 0;
        const char *kept = strstr(e.msg, "stopped on request: ");
        assert_non_null(kept);
        assert_int_equal(
            sscanf(kept, "stopped on request: %zu of %zu tensors are done and kept in", &n_kept, &n_tensors),
            2);
        assert_int_equal(n_tensors, N_SPECS);
        assert_true(n_kept <= k && n_kept >= most_kept); /* a job is a tensor or a part of one */
        most_kept = n_kept;
        struct setup again = {.threads = 1, .type = "Q5_K_M", .resume = true, .report = &resumed};
        assert_int_equal(rewrite(src, out, &again, &e), 0);
        assert_true(resumed.resumed);
        assert_int_equal(resumed.n_resumed, n_kept);
        assert_true(again.first_done > 0);
        assert_int_equal(resumed.n_warnings, full.n_warnings);
        for (size_t i = 0; i < N_SPECS; i++)
            assert_memory_equal(&resumed.tensors[i].rmse, &full.tensors[i].rmse, sizeof full.tensors[i].rmse);
        rewrite_report_release(&resumed);
        assert_same_file(whole, out);
        unlink(out);
        assert_nothing_left(out);
    }
    rewrite_report_release(&full);
}

/* Corrupt what a stopped run left in several ways; the next run must start again or use what is sound. */
static void a_partial_file_is_trusted_only_when_it_fits(void **state)
{
    (void)state;
    char src[256], whole[256], out[256], part[300], journal[300];
    struct err e = {0};
    write_source(in_folder(src, "src.gguf"), QTYPE_BF16, -1, 0);
    struct setup plain = {.threads = 1, .type = "Q5_K_M"};
    assert_int_equal(rewrite(src, in_folder(whole, "whole.gguf"), &plain, &e), 0);
    in_folder(out, "stop.gguf");
    snprintf(part, sizeof part, "%s.kerf-part", out);
    snprintf(journal, sizeof journal, "%s.kerf-part.journal", out);
    for (int way = 0; way < 5; way++) {
        struct setup stop = {.threads = 1, .type = "Q5_K_M", .cancel_after = 6, .resume = true};
        assert_int_equal(rewrite(src, out, &stop, &e), ERR_CANCELLED);
        size_t n;
        uint8_t *bytes = read_file(journal, &n);
        const char *type = "Q5_K_M";
        bool restarts = true;
        if (way == 0) { /* other options */
            type = "Q4_K_M";
            unlink(out);
            struct setup other = {.threads = 1, .type = type};
            char expect[256];
            assert_int_equal(rewrite(src, in_folder(expect, "whole4.gguf"), &other, &e), 0);
        } else if (way == 1) { /* the source was written again */
            struct timespec times[2] = {{1000, 0}, {1000, 0}};
            assert_int_equal(utimensat(AT_FDCWD, src, times, 0), 0);
        } else if (way == 2) { /* the partial file is gone, a stale journal is not */
            unlink(part);
        } else if (way == 3) { /* a torn batch counts for nothing */
            assert_int_equal(truncate(journal, (off_t)n - 3), 0);
            restarts = false; /* the identity fits; no job is known */
        } else {              /* a flipped bit likewise */
            bytes[n - 20] ^= 1;
            FILE *f = fopen(journal, "wb");
            assert_int_equal(fwrite(bytes, 1, n, f), n);
            fclose(f);
            restarts = false;
        }
        free(bytes);
        struct rewrite_report r;
        struct setup again = {.threads = 1, .type = type, .resume = true, .report = &r};
        assert_int_equal(rewrite(src, out, &again, &e), 0);
        assert_int_equal(again.first_done, 0);
        bool told = false;
        for (size_t i = 0; i < r.n_warnings; i++)
            told = told || strstr(r.warnings[i], "started");
        assert_int_equal(told,
                         restarts && way != 2); /* nothing was there to go on with: that is no warning */
        assert_int_equal(r.resumed, !restarts);
        rewrite_report_release(&r);
        char expect[256];
        assert_same_file(in_folder(expect, way == 0 ? "whole4.gguf" : "whole.gguf"), out);
        unlink(out);
        assert_nothing_left(out);
    }
}

static bool told(const struct rewrite_report *r, const char *words)
{
    for (size_t i = 0; i < r->n_warnings; i++)
        if (strstr(r->warnings[i], words))
            return true;
    return false;
}

/* The last step fails: with `resume` the finished temporary files stay, and the next run only has to repeat
 * that step. */
static void a_failed_commit_can_be_resumed(void **state)
{
    (void)state;
    for (int split = 0; split < 2; split++) {
        char src[256], out[256], block[256];
        struct err e = {0};
        struct rewrite_report r;
        write_source(in_folder(src, "src.gguf"), QTYPE_BF16, -1, 0);
        in_folder(out, "late.gguf");
        in_folder(block, split ? "late-00002-of-00002.gguf" : "late.gguf");
        struct setup s = {.type = "Q8_0", .in_the_way = block, .split = split ? 720000 : 0};
        assert_int_equal(rewrite(src, out, &s, &e), ERR_IO); /* without `resume` nothing is left */
        assert_non_null(strstr(e.msg, "is a folder"));
        assert_false(exists(block, ".kerf-part"));
        assert_int_equal(rmdir(block), 0);
        s.resume = true;
        assert_int_equal(rewrite(src, out, &s, &e), ERR_IO);
        assert_non_null(strstr(e.msg, "--resume continues from there"));
        assert_true(exists(block, ".kerf-part"));
        struct setup again = {
            .type = "Q8_0", .split = s.split, .resume = true, .report = &r, .in_the_way = block};
        assert_int_equal(rewrite(src, out, &again, &e), ERR_IO); /* and once more */
        assert_true(again.n_calls == 0 || again.first_done > 0);
        assert_int_equal(rmdir(block), 0);
        again.in_the_way = NULL;
        again.threads = 1;
        assert_int_equal(rewrite(src, out, &again, &e), 0);
        struct model *m;
        assert_int_equal(model_open(&m, src, &(struct model_options){0}, &e), 0);
        uint64_t all = 0;
        for (size_t i = 0; i < model_n_tensors(m); i++)
            all += model_tensor(m, i)->n_bytes;
        model_close(m);
        assert_int_equal(again.first_done, all); /* nothing was computed again */
        assert_false(told(&r, "started"));
        assert_int_equal(r.n_files, split ? 2 : 1);
        for (size_t i = 0; i < r.n_files; i++) {
            assert_false(exists(r.files[i], ".kerf-part"));
            assert_false(exists(r.files[i], ".kerf-part.journal"));
            unlink(r.files[i]);
        }
        rewrite_report_release(&r);
    }
}

/* The system tells of lost writes once. When the journal hears it, the run must not end well. */
static void a_flush_that_fails_ends_the_run(void **state)
{
    (void)state;
    char src[256], out[256];
    struct err e = {0};
    write_source(in_folder(src, "src.gguf"), QTYPE_BF16, -1, 0);
    in_folder(out, "flush.gguf");
    struct setup s = {.type = "Q8_0"};
    flush_fails = 1; /* that of the new journal */
    assert_int_equal(rewrite(src, out, &s, &e), ERR_IO);
    assert_nothing_left(out);
    /* one for each batch: the journal's thread may or may not come to write one before the last */
    struct setup stop = {.type = "Q8_0", .cancel_after = 3, .resume = true, .threads = 1};
    assert_int_equal(rewrite(src, out, &stop, &e), ERR_CANCELLED);
    flush_fails = 1; /* that of the outputs, before the journal is written anew: the old one must survive */
    struct setup again = {.type = "Q8_0", .resume = true, .threads = 1};
    assert_int_equal(rewrite(src, out, &again, &e), ERR_IO);
    assert_int_equal(flush_fails, 0);
    assert_true(exists(out, ".kerf-part.journal"));
    assert_false(exists(out, ".kerf-part.journal.new"));
    assert_int_equal(rewrite(src, out, &again, &e), 0);
    assert_true(again.first_done > 0);
    unlink(out);
    assert_nothing_left(out);
}

static int flush_fails_later(void *ctx, const struct progress_step *s)
{
    (void)ctx;
    if (progress_share(s) > 0.5)
        flush_fails = 1;
    return 0;
}

static void a_flush_that_fails_in_the_middle_is_not_forgotten(void **state)
{
    (void)state;
    char src[256], out[256];
    struct err e = {0};
    struct model *m;
    struct pool *pool;
    write_source(in_folder(src, "src.gguf"), QTYPE_BF16, -1, 0);
    in_folder(out, "flush.gguf");
    assert_int_equal(pool_new(&pool, 1, &e), 0);
    assert_int_equal(model_open(&m, src, &(struct model_options){0}, &e), 0);
    struct rewrite_options opt = {.recipe = {.recipe = "llama.cpp", .mix = mix_find("Q8_0")},
                                  .kern = kern_by_name("native"),
                                  .pool = pool,
                                  .progress = {flush_fails_later, NULL}};
    assert_int_equal(rewrite_model(NULL, m, out, &opt, &e), ERR_IO);
    assert_non_null(strstr(e.msg, "flush.gguf: cannot flush to disk"));
    assert_int_equal(flush_fails, 0);
    assert_nothing_left(out);
    model_close(m);
    pool_free(pool);
}

/* One output as one file and as a set: each has its own journal, so neither spoils the other's. */
static void single_and_split_runs_do_not_share_a_journal(void **state)
{
    (void)state;
    char src[256], whole[256], out[256];
    struct err e = {0};
    struct rewrite_report r;
    write_source(in_folder(src, "src.gguf"), QTYPE_BF16, -1, 0);
    struct setup plain = {.threads = 1, .type = "Q5_K_M"};
    assert_int_equal(rewrite(src, in_folder(whole, "whole.gguf"), &plain, &e), 0);
    in_folder(out, "both.gguf");
    struct setup stop = {.threads = 1, .type = "Q5_K_M", .cancel_after = 6, .resume = true};
    assert_int_equal(rewrite(src, out, &stop, &e), ERR_CANCELLED);
    struct setup set = {.threads = 1, .type = "Q5_K_M", .resume = true, .split = 500000, .report = &r};
    assert_int_equal(rewrite(src, out, &set, &e), 0);
    assert_true(r.n_files > 1);
    for (size_t i = 0; i < r.n_files; i++) {
        assert_false(exists(r.files[i], ".kerf-part.journal"));
        unlink(r.files[i]);
    }
    rewrite_report_release(&r);
    struct setup again = {.threads = 1, .type = "Q5_K_M", .resume = true};
    assert_int_equal(rewrite(src, out, &again, &e), 0);
    assert_true(again.first_done > 0);
    assert_same_file(whole, out);
    unlink(out);
    assert_nothing_left(out);
}

/* A run may be killed after its last step, before it could say so: then there is nothing left to resume. */
static void a_finished_output_needs_no_resuming(void **state)
{
    (void)state;
    for (int split = 0; split < 2; split++) {
        char src[256], out[256];
        struct err e = {0};
        struct rewrite_report r;
        write_source(in_folder(src, "src.gguf"), QTYPE_BF16, -1, 0);
        in_folder(out, "done.gguf");
        struct setup s = {
            .type = "Q8_0", .resume = true, .keep_old = true, .split = split ? 720000 : 0, .report = &r};
        assert_int_equal(rewrite(src, out, &s, &e), 0);
        assert_true(s.n_calls > 0);
        rewrite_report_release(&r);
        assert_int_equal(rewrite(src, out, &s, &e), 0);
        assert_int_equal(s.n_calls, 0);
        assert_true(r.finished);
        assert_true(isnan(r.tensors[0].rmse));
        s.report = NULL;
        s.type = "Q4_0"; /* another output has this name */
        if (!split) {
            assert_int_equal(rewrite(src, out, &s, &e), ERR_EXISTS);
            assert_non_null(strstr(e.msg, "not what this run would write"));
        }
        s.type = "Q8_0";
        struct timespec later[2] = {{4000000000, 0}, {4000000000, 0}};
        assert_int_equal(utimensat(AT_FDCWD, src, later, 0), 0);
        assert_int_equal(rewrite(src, out, &s, &e), ERR_EXISTS);
        assert_non_null(strstr(e.msg, "a file of its source has a later time of change"));
        write_source(src, QTYPE_BF16, -1, 0);
        s.resume = false;
        assert_int_equal(rewrite(src, out, &s, &e), ERR_EXISTS);
        assert_non_null(strstr(e.msg, "exists already"));
        if (split) { /* a set lacks a part */
            s.resume = true;
            unlink(r.files[1]);
            assert_int_equal(rewrite(src, out, &s, &e), ERR_EXISTS);
        }
        for (size_t i = 0; i < r.n_files; i++)
            unlink(r.files[i]);
        rewrite_report_release(&r);
    }
}

/* Same shapes, same names, older: only the bytes tell that a finished output was made from something else. */
static void an_output_of_another_source_is_not_finished(void **state)
{
    (void)state;
    char src[256], other[256], last[256], out[256];
    struct err e = {0};
    write_source(in_folder(src, "src.gguf"), QTYPE_BF16, -1, 0);
    source_seed = 8;
    write_source(in_folder(other, "other.gguf"), QTYPE_BF16, -1, 0);
    source_seed = 7;
    write_source(in_folder(last, "last.gguf"), QTYPE_BF16, 96 * N_COLS - 1, 0.75f); /* one value */
    in_folder(out, "done.gguf");
    struct imatrix *a = make_imatrix(true), *b = make_imatrix(true);
    assert_true(imatrix_n(b) > 0);
    for (size_t i = 0; i < imatrix_n(b); i++) {
        struct imatrix_entry *x = (struct imatrix_entry *)imatrix_entry_at(b, i);
        for (uint64_t k = 0; k < x->n_values; k += 3)
            x->sums[k] *= 40;
    }
    for (int way = 0; way < 2; way++) { /* encoded, copied */
        struct setup s = {.type = way ? "BF16" : "Q4_K_M", .resume = true, .keep_old = true};
        s.imatrix = way ? NULL : a;
        assert_int_equal(rewrite(src, out, &s, &e), 0);
        assert_int_equal(rewrite(src, out, &s, &e), 0);
        assert_int_equal(s.n_calls, 0);
        for (int k = 0; k < 2; k++) {
            assert_int_equal(rewrite(k ? last : other, out, &s, &e), ERR_EXISTS);
            assert_non_null(strstr(e.msg, "not what this run would write"));
        }
        s.imatrix = b;
        if (way == 0) {
            assert_int_equal(rewrite(src, out, &s, &e), ERR_EXISTS);
            assert_non_null(strstr(e.msg, "not what this run would write"));
        }
        s.imatrix = way ? NULL : a;
        assert_int_equal(rewrite(src, out, &s, &e), 0); /* nothing of it has touched the output */
        assert_int_equal(s.n_calls, 0);
        /* An older time of a source that came later does not hide that it did. */
        struct timespec old_times[2] = {{1000000000, 0}, {1000000000, 0}};
        assert_int_equal(utimensat(AT_FDCWD, out, old_times, 0), 0);
        old_times[0].tv_sec = old_times[1].tv_sec = 999999999;
        assert_int_equal(utimensat(AT_FDCWD, src, old_times, 0), 0);
        assert_int_equal(rewrite(src, out, &s, &e), ERR_EXISTS);
        assert_non_null(strstr(e.msg, "a file of its source has a later time of change"));
        unlink(out);
    }
    imatrix_free(a);
    imatrix_free(b);
    unlink(other);
    unlink(last);
}

/* Another command at the same output begins anew where a resumable run stopped, and is killed as well. */
static void bytes_of_another_command_are_not_resumed(void **state)
{
    (void)state;
    char src[256], whole[256], out[256];
    struct err e = {0};
    struct output_file *f;
    write_source(in_folder(src, "src.gguf"), QTYPE_BF16, -1, 0);
    in_folder(out, "commands.gguf");
    struct setup s = {.threads = 1, .type = "Q5_K_M"};
    assert_int_equal(rewrite(src, in_folder(whole, "whole.gguf"), &s, &e), 0);
    struct setup stop = {.threads = 1, .type = "Q5_K_M", .cancel_after = 6, .resume = true};
    assert_int_equal(rewrite(src, out, &stop, &e), ERR_CANCELLED);
    assert_true(exists(out, ".kerf-part.journal"));
    size_t n;
    uint8_t *bytes = read_file(whole, &n);
    memset(bytes + n / 4, 0x11, n - n / 4);
    assert_int_equal(output_file_open(&f, out, &(struct output_file_options){.keep_partial = true}, &e), 0);
    assert_int_equal(output_file_write(f, bytes, n, &e), 0);
    output_file_abort(f); /* as if killed: what was written stays */
    free(bytes);
    struct setup again = {.threads = 1, .type = "Q5_K_M", .resume = true};
    assert_int_equal(rewrite(src, out, &again, &e), 0);
    assert_same_file(whole, out);
    unlink(out);
    assert_nothing_left(out);
}

static void another_version_does_not_go_on(void **state)
{
    (void)state;
    char src[256], out[256], a[65], b[65];
    struct err e = {0};
    struct model *m;
    write_source(in_folder(src, "src.gguf"), QTYPE_BF16, -1, 0);
    assert_int_equal(model_open(&m, src, &(struct model_options){0}, &e), 0);
    struct rewrite_options opt = {.recipe = {.recipe = "llama.cpp", .mix = mix_find("Q8_0")}};
    struct rw_plan plan = {0};
    assert_int_equal(rw_plan_make(&plan, m, in_folder(out, "out.gguf"), &opt, &e), 0);
    assert_int_equal(rw_journal_identity(a, "1.2.3", m, &plan, &opt, &e), 0);
    assert_int_equal(rw_journal_identity(b, "1.2.3", m, &plan, &opt, &e), 0);
    assert_string_equal(a, b);
    assert_int_equal(rw_journal_identity(b, "1.2.4", m, &plan, &opt, &e), 0);
    assert_string_not_equal(a, b);
    rw_plan_release(&plan);
    model_close(m);
}

/* The header names the importance matrix, not its numbers, so only the identity can tell two of one name
 * apart. Mutation that this catches: hash_importance left out of rw_journal_identity. */
static void another_importance_matrix_is_another_run(void **state)
{
    (void)state;
    char src[256], whole[256], out[256];
    struct err e = {0};
    struct rewrite_report r;
    write_source(in_folder(src, "src.gguf"), QTYPE_BF16, -1, 0);
    struct imatrix *first = make_imatrix(true), *second = make_imatrix(true);
    for (size_t i = 0; i < imatrix_n(second); i++) {
        struct imatrix_entry *entry = (struct imatrix_entry *)imatrix_entry_at(second, i);
        for (uint64_t v = 0; v < entry->n_values; v++)
            entry->sums[v] *= 1 + 30 * (float)(v % 7);
    }
    struct setup fresh = {.threads = 1, .type = "Q3_K_M", .imatrix = second, .report = &r};
    assert_int_equal(rewrite(src, in_folder(whole, "whole.gguf"), &fresh, &e), 0);
    rewrite_report_release(&r);

    struct setup stop = {.threads = 1, .type = "Q3_K_M", .imatrix = first, .resume = true, .cancel_after = 5};
    assert_int_equal(rewrite(src, in_folder(out, "resumed.gguf"), &stop, &e), ERR_CANCELLED);
    assert_true(exists(out, ".kerf-part"));
    struct setup go_on = {.threads = 1, .type = "Q3_K_M", .imatrix = second, .resume = true, .report = &r};
    assert_int_equal(rewrite(src, out, &go_on, &e), 0);
    assert_false(r.resumed);
    assert_same_file(out, whole);
    rewrite_report_release(&r);
    unlink(whole);
    unlink(out);
    imatrix_free(first);
    imatrix_free(second);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_stopped_run_leaves_nothing_unless_it_shall_be_resumed),
        cmocka_unit_test(a_partial_file_is_trusted_only_when_it_fits),
        cmocka_unit_test(a_failed_commit_can_be_resumed),
        cmocka_unit_test(a_flush_that_fails_ends_the_run),
        cmocka_unit_test(a_flush_that_fails_in_the_middle_is_not_forgotten),
        cmocka_unit_test(single_and_split_runs_do_not_share_a_journal),
        cmocka_unit_test(a_finished_output_needs_no_resuming),
        cmocka_unit_test(an_output_of_another_source_is_not_finished),
        cmocka_unit_test(bytes_of_another_command_are_not_resumed),
        cmocka_unit_test(another_version_does_not_go_on),
        cmocka_unit_test(another_importance_matrix_is_another_run),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
