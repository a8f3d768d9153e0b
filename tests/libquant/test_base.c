/* test_base.c - the small tools every module stands on: errors, arena, map, pool, hash, output files. */
#include "libquant/base/arena.h"
#include "libquant/base/checked.h"
#include "libquant/base/err.h"
#include "libquant/base/filemap.h"
#include "libquant/base/order.h"
#include "libquant/base/path.h"
#include "formats/output/output_file.h"
#include "libquant/base/pool.h"
#include "libquant/base/printable.h"
#include "libquant/base/progress.h"
#include "libquant/base/sha256.h"
#include "libquant/base/strmap.h"
#include "formats/output/text_file.h"

#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static void context_grows_leftwards_and_control_characters_are_scrubbed(void **state)
{
    (void)state;
    struct err e = {0};
    assert_int_equal(err_set(&e, ERR_FORMAT, "bad\nname %d", 7), ERR_FORMAT);
    assert_string_equal(e.msg, "bad?name 7");
    assert_int_equal(err_context(&e, ERR_FORMAT, "file %s", "a.gguf"), ERR_FORMAT);
    assert_string_equal(e.msg, "file a.gguf: bad?name 7");
    char big[1000];
    memset(big, 'x', sizeof big - 1);
    big[sizeof big - 1] = 0;
    err_context(&e, ERR_FORMAT, "%s", big);
    assert_true(strlen(e.msg) < sizeof e.msg);
    assert_non_null(strstr(e.msg, "x ... x"));
    assert_non_null(strstr(e.msg, "bad?name 7")); /* what was found survives the longest name */
    err_set(&e, ERR_IO, "%s: cannot open", big);
    assert_int_equal(strlen(e.msg), sizeof e.msg - 1);
    assert_string_equal(e.msg + strlen(e.msg) - strlen("x: cannot open"), "x: cannot open");
    for (size_t i = 0; i + 2 < sizeof big; i += 2) /* cut between characters, not inside one */
        memcpy(big + i, "\xc3\xa4", 2);
    for (int shift = 0; shift < 2; shift++) {
        err_set(&e, ERR_IO, "%s%s: no", shift ? "y" : "", big);
        const char *gap = strstr(e.msg, " ... ");
        assert_non_null(gap);
        assert_memory_equal(gap - 2, "\xc3\xa4", 2);
        assert_memory_equal(gap + 5, "\xc3\xa4", 2);
    }
    assert_int_equal(err_set(NULL, ERR_IO, "nobody listens"), ERR_IO);
}

static void a_path_stands_in_front_once(void **state)
{
    (void)state;
    static const char *const cases[][3] = {
        {"d", "e.json: no", "d: e.json: no"},   {"d", "d/e.json: no", "d/e.json: no"},
        {"d/", "d/e.json: no", "d/e.json: no"}, {"d", "d: no", "d: no"},
        {"d", "do not", "d: do not"},           {"", "no", ": no"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct err e = {0};
        err_set(&e, ERR_IO, "%s", cases[i][1]);
        assert_int_equal(err_context_path(&e, ERR_IO, cases[i][0]), ERR_IO);
        assert_string_equal(e.msg, cases[i][2]);
    }
    assert_int_equal(err_context_path(NULL, ERR_IO, "d"), ERR_IO);
}

static void arithmetic_refuses_to_wrap(void **state)
{
    (void)state;
    uint64_t v;
    assert_false(checked_mul(UINT64_MAX / 2, 3, &v));
    assert_true(checked_mul(3, 5, &v));
    assert_int_equal(v, 15);
    assert_false(checked_add(UINT64_MAX, 1, &v));
    assert_true(checked_align(33, 32, &v));
    assert_int_equal(v, 64);
    assert_false(checked_align(UINT64_MAX - 3, 32, &v));
}

static void arena_memory_is_zeroed_and_survives_growth(void **state)
{
    (void)state;
    struct arena a = {0};
    char *names[2000];
    for (int i = 0; i < 2000; i++)
        names[i] = arena_printf(&a, "tensor %d", i);
    unsigned char *z = arena_array(&a, 100, 1000);
    for (int i = 0; i < 100000; i++)
        assert_int_equal(z[i], 0);
    assert_string_equal(names[0], "tensor 0");
    assert_string_equal(names[1999], "tensor 1999");
    assert_null(arena_array(&a, SIZE_MAX / 2, 3));
    arena_release(&a);
    arena_release(&a);
}

static void map_finds_what_was_put_and_keeps_the_first(void **state)
{
    (void)state;
    struct strmap m = {0};
    static char keys[5000][16];
    for (int i = 0; i < 5000; i++) {
        int n = snprintf(keys[i], sizeof keys[i], "k%d", i);
        bool existing;
        assert_int_equal(strmap_put(&m, keys[i], (size_t)n, (uint64_t)i, &existing), 0);
        assert_false(existing);
        if (i < 300) /* at every load, a full table among them, a key that is not there is not found */
            assert_false(strmap_find(&m, "none", 4, NULL));
    }
    bool existing;
    assert_int_equal(strmap_put(&m, "k77", 3, 1, &existing), 0);
    assert_true(existing);
    uint64_t v;
    assert_true(strmap_find(&m, "k77", 3, &v));
    assert_int_equal(v, 77);
    assert_false(strmap_find(&m, "k5000", 5, &v));
    assert_false(strmap_find(&m, "", 0, &v));
    assert_int_equal(strmap_put(&m, "", 0, 9, NULL), 0);
    assert_true(strmap_find(&m, "", 0, &v));
    strmap_release(&m);
}

static int square_or_fail(void *ctx, size_t job, unsigned worker, struct err *e)
{
    (void)worker;
    uint64_t *out = ctx;
    out[job] = job * job;
    if (job == 300 || job == 301)
        return err_set(e, ERR_ARG, "job %zu", job);
    return 0;
}

static void control_characters_are_not_printed(void **state)
{
    (void)state;
    char text[] = "a\x1b[2Jb\x7f\n\xc2\x9b"
                  "c \xc2\xa0\xc3\x9f\xe2\x80\x9c \xc2";
    printable(text);
    assert_string_equal(text, "a?[2Jb??"
                              "??c \xc2\xa0\xc3\x9f\xe2\x80\x9c \xc2");
}

static void pool_runs_every_job_and_reports_the_lowest_failure(void **state)
{
    (void)state;
    for (unsigned n = 1; n <= 16; n = n * 2 + 1) {
        struct pool *p;
        assert_int_equal(pool_new(&p, n, NULL), 0);
        static uint64_t out[1000];
        for (int round = 0; round < 20; round++) {
            memset(out, 0, sizeof out);
            struct err e = {0};
            assert_int_equal(pool_run(p, 300, square_or_fail, out, &e), 0);
            for (size_t i = 0; i < 300; i++)
                assert_int_equal(out[i], i * i);
            assert_int_equal(pool_run(p, 1000, square_or_fail, out, &e), ERR_ARG);
            assert_string_equal(e.msg, "job 300");
            assert_int_equal(pool_run(p, 0, square_or_fail, out, &e), 0);
        }
        pool_free(p);
    }
}

/* The linker puts __wrap_pthread_create in front of the system's (CMakeLists.txt). */
typedef void *thread_main(void *arg);
int __real_pthread_create(pthread_t *thread, const pthread_attr_t *attr, thread_main *start, void *arg);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attr, thread_main *start, void *arg);
static int n_threads_allowed = -1; /* negative: any number */

int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attr, thread_main *start, void *arg)
{
    if (n_threads_allowed == 0)
        return EAGAIN; /* as at a limit of processes */
    n_threads_allowed -= n_threads_allowed > 0;
    return __real_pthread_create(thread, attr, start, arg);
}

static void a_refused_thread_is_told_with_the_reason_of_the_system(void **state)
{
    (void)state;
    struct pool *p = NULL;
    struct err e = {0};
    n_threads_allowed = 2;
    int rc = pool_new(&p, 5, &e);
    n_threads_allowed = -1;
    assert_int_equal(rc, ERR_IO);
    assert_null(p);
    assert_non_null(strstr(e.msg, strerror(EAGAIN)));
    assert_non_null(strstr(e.msg, "thread 4 of 5"));
    assert_non_null(strstr(e.msg, "--threads"));
    assert_null(strstr(e.msg, "memory"));
}

static int lower_fails_later(void *ctx, size_t job, unsigned worker, struct err *e)
{
    (void)worker;
    atomic_int *n_failed = ctx;
    for (int i = 0; job == 0 && i < 1000 && atomic_load(n_failed) == 0; i++)
        usleep(1000);
    if (job == 0)
        usleep(50000); /* the other one is on its way out of its job */
    atomic_fetch_add(n_failed, 1);
    return err_set(e, ERR_ARG, "job %zu", job);
}

/* Mutation: the failure that comes first is kept. */
static void of_two_failures_the_lower_job_counts_even_when_it_fails_later(void **state)
{
    (void)state;
    struct err e = {0};
    struct pool *p;
    atomic_int n_failed = 0;
    assert_int_equal(pool_new(&p, 2, NULL), 0);
    assert_int_equal(pool_run(p, 2, lower_fails_later, &n_failed, &e), ERR_ARG);
    assert_string_equal(e.msg, "job 0");
    assert_int_equal(n_failed, 2);
    pool_free(p);
}

struct watched {
    pthread_t caller;
    atomic_int n_started, n_watched;
};

/* The caller's job ends when the other one has begun; that one ends when the caller was seen to watch. */
static int wait_to_be_watched(void *ctx, size_t job, unsigned worker, struct err *e)
{
    struct watched *w = ctx;
    const atomic_int *what = worker == 0 ? &w->n_started : &w->n_watched;
    const int enough = worker == 0 ? 2 : 1;
    atomic_fetch_add(&w->n_started, 1);
    for (int i = 0; i < 5000 && atomic_load(what) < enough; i++)
        usleep(1000);
    return atomic_load(what) < enough ? err_set(e, ERR_ARG, "job %zu waited in vain", job) : 0;
}

static void count_watch(void *ctx)
{
    struct watched *w = ctx;
    assert_true(pthread_equal(pthread_self(), w->caller));
    atomic_fetch_add(&w->n_watched, 1);
}

static int no_job(void *ctx, size_t job, unsigned worker, struct err *e)
{
    (void)ctx, (void)job, (void)worker, (void)e;
    return 0;
}

static void the_caller_watches_while_it_waits_and_behind_the_last_job(void **state)
{
    (void)state;
    struct err e = {0};
    struct pool *p;
    struct watched w = {.caller = pthread_self()};
    assert_int_equal(pool_new(&p, 2, NULL), 0);
    if (pool_run_watched(p, 2, wait_to_be_watched, count_watch, &w, &e) != 0)
        fail_msg("%s", e.msg);
    w.n_watched = 0;
    assert_int_equal(pool_run_watched(p, 0, no_job, count_watch, &w, &e), 0);
    assert_true(w.n_watched > 0);
    pool_free(p);
}

static void sha256_gives_the_published_digests(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        size_t n, repeat;
        const char *hex;
    } cases[] = {
        {"", 0, 1, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
        {"abc", 3, 1, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
        {"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", 56, 1,
         "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"},
        {"a", 1, 1000000, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct sha256 s;
        sha256_init(&s);
        for (size_t r = 0; r < cases[i].repeat; r++)
            sha256_update(&s, cases[i].text, cases[i].n);
        uint8_t digest[32];
        char hex[65];
        sha256_final(&s, digest);
        sha256_hex(digest, hex);
        assert_string_equal(hex, cases[i].hex);
        if (cases[i].repeat == 1) {
            memset(hex, 0, sizeof hex);
            sha256_hex_of(cases[i].text, cases[i].n, hex);
            assert_string_equal(hex, cases[i].hex);
        }
    }
}

static void output_appears_whole_or_not_at_all(void **state)
{
    (void)state;
    char dir[] = "/tmp/kerf-test-XXXXXX";
    assert_non_null(mkdtemp(dir));
    char path[64], temp[80];
    snprintf(path, sizeof path, "%s/out.bin", dir);
    snprintf(temp, sizeof temp, "%s.kerf-part", path);
    struct output_file *f;
    struct err e = {0};
    assert_int_equal(output_file_open(&f, path, &(struct output_file_options){.size_bytes = 4096}, &e), 0);
    assert_int_equal(output_file_write_at(f, 100, "hello", 5, &e), 0);
    assert_int_equal(access(path, F_OK), -1);
    struct output_file *g;
    assert_int_equal(output_file_open(&g, path, NULL, &e), ERR_IO);
    assert_non_null(strstr(e.msg, "another process"));
    output_file_abort(f);
    assert_int_equal(access(temp, F_OK), -1);

    assert_int_equal(output_file_write_all(path, "first", 5, false, &e), 0);
    assert_int_equal(output_file_write_all(path, "second", 6, false, &e), ERR_EXISTS);
    assert_non_null(strstr(e.msg, "--force"));
    struct filemap m;
    assert_int_equal(filemap_open(&m, path, &e), 0);
    assert_int_equal(output_file_write_all(path, "second", 6, true, &e), 0);
    assert_memory_equal(m.data, "first", 5); /* the old file lives on in its map */
    filemap_close(&m);
    assert_int_equal(filemap_open(&m, path, &e), 0);
    assert_int_equal(m.size, 6);
    filemap_close(&m);
    assert_int_equal(filemap_open(&m, dir, &e), ERR_IO);
    assert_int_equal(
        output_file_open(
            &f, path, &(struct output_file_options){.overwrite = true, .size_bytes = (uint64_t)1 << 60}, &e),
        ERR_IO);
    assert_non_null(strstr(e.msg, "free"));
    unlink(path);
    rmdir(dir);
}

static void a_printed_file_is_written_unless_printing_failed(void **state)
{
    (void)state;
    char dir[] = "/tmp/kerf-test-XXXXXX", path[64];
    struct err e = {0};
    struct text_file t;
    struct filemap m;
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/out.txt", dir);
    assert_int_equal(text_file_begin(&t, path, &e), 0);
    fputs("never", t.out);
    assert_int_equal(text_file_end(&t, ERR_FORMAT, true, &e), ERR_FORMAT);
    assert_int_equal(access(path, F_OK), -1);
    for (int overwrite = 0; overwrite < 2; overwrite++) {
        assert_int_equal(text_file_begin(&t, path, &e), 0);
        fprintf(t.out, "%d of 2", overwrite);
        assert_int_equal(access(path, F_OK), overwrite - 1);
        assert_int_equal(text_file_end(&t, 0, overwrite, &e), 0);
    }
    assert_int_equal(text_file_begin(&t, path, &e), 0);
    assert_int_equal(text_file_end(&t, 0, false, &e), ERR_EXISTS);
    assert_int_equal(filemap_open(&m, path, &e), 0);
    assert_int_equal(m.size, 6);
    assert_memory_equal(m.data, "1 of 2", 6);
    filemap_close(&m);
    unlink(path);
    rmdir(dir);
}

static void a_path_is_taken_apart_at_its_slashes(void **state)
{
    (void)state;
    static const struct {
        const char *path, *brief, *last, *folder;
    } cases[] = {
        {"a.gguf", "a.gguf", "a.gguf", "."},
        {"dir/a.gguf", "a.gguf", "a.gguf", "dir"},
        {"/a", "a", "a", "/"},
        {"x/y//", "x/y//", "y", "x/y/"},
        {"x//y", "y", "y", "x/"},
        {"..", "..", "..", "."},
        {"/", "/", "", "/"},
        {"", "", "", "."},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        size_t n;
        const char *last = path_last(cases[i].path, &n);
        char *folder = path_folder(cases[i].path);
        assert_string_equal(path_short(cases[i].path), cases[i].brief);
        assert_int_equal(n, strlen(cases[i].last));
        assert_memory_equal(last, cases[i].last, n);
        assert_string_equal(folder, cases[i].folder);
        free(folder);
    }
}

static void numbers_that_are_none_have_their_place(void **state)
{
    (void)state;
    const double rising[] = {-INFINITY, -1, 0, 0.5, INFINITY, NAN, -NAN};
    for (size_t i = 0; i < 7; i++)
        for (size_t j = 0; j < 7; j++) {
            int found = order_doubles(rising[i], rising[j]), want = (i > j) - (i < j);
            assert_int_equal(found, i >= 5 && j >= 5 ? 0 : want);
        }
}

static int stop_at_half(void *ctx, const struct progress_step *s)
{
    ++*(int *)ctx;
    return progress_share(s) >= 0.5;
}

static void progress_stops_work_only_where_somebody_listens(void **state)
{
    (void)state;
    int n = 0;
    struct err e = {0};
    const struct progress nobody = {0}, half = {stop_at_half, &n};
    const struct progress_step first = {.done = 1, .total = 4}, second = {.done = 2, .total = 4},
                               unknown = {.done = 9};
    assert_int_equal(progress_tell(NULL, &second, &e), 0);
    assert_int_equal(progress_tell(&nobody, &second, &e), 0);
    assert_int_equal(progress_tell(&half, &first, &e), 0);
    assert_int_equal(progress_tell(&half, &unknown, &e), 0);
    assert_int_equal(progress_tell(&half, &second, &e), ERR_CANCELLED);
    assert_string_equal(e.msg, ERR_STOPPED);
    assert_int_equal(n, 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(numbers_that_are_none_have_their_place),
        cmocka_unit_test(context_grows_leftwards_and_control_characters_are_scrubbed),
        cmocka_unit_test(a_path_stands_in_front_once),
        cmocka_unit_test(arithmetic_refuses_to_wrap),
        cmocka_unit_test(arena_memory_is_zeroed_and_survives_growth),
        cmocka_unit_test(map_finds_what_was_put_and_keeps_the_first),
        cmocka_unit_test(pool_runs_every_job_and_reports_the_lowest_failure),
        cmocka_unit_test(the_caller_watches_while_it_waits_and_behind_the_last_job),
        cmocka_unit_test(of_two_failures_the_lower_job_counts_even_when_it_fails_later),
        cmocka_unit_test(sha256_gives_the_published_digests),
        cmocka_unit_test(output_appears_whole_or_not_at_all),
        cmocka_unit_test(a_printed_file_is_written_unless_printing_failed),
        cmocka_unit_test(a_refused_thread_is_told_with_the_reason_of_the_system),
        cmocka_unit_test(control_characters_are_not_printed),
        cmocka_unit_test(a_path_is_taken_apart_at_its_slashes),
        cmocka_unit_test(progress_stops_work_only_where_somebody_listens),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
