/* test_output_set.c - outputs that appear whole or not at all: a rename fails, or the process is killed, at
 * every step of a commit, on file systems with and without a rename that does not replace.
 *
 * The linker puts the __wrap_ functions below in the place of the calls of the library (see CMakeLists.txt).
 */
#include "formats/output/output_file.h"
#include "formats/output/output_lock.h"
#include "formats/output/output_set.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

/* --- faults --- */

enum fault { NO_FAULT, DIES, FAILS, FAILS_ON };
static enum fault fault;
static int fault_at, n_calls; /* at which of the calls below */
static bool old_kernel;       /* renameat2 is not known */
static bool no_links;
static char appears[300]; /* a file that somebody else makes at that call; "": none */

int __real_renameat2(int a, const char *from, int b, const char *to, unsigned flags);
int __wrap_renameat2(int a, const char *from, int b, const char *to, unsigned flags);
int __real_rename(const char *from, const char *to);
int __wrap_rename(const char *from, const char *to);
int __real_link(const char *from, const char *to);
int __wrap_link(const char *from, const char *to);
int __real_unlink(const char *path);
int __wrap_unlink(const char *path);

int __real_flock(int fd, int how);
int __wrap_flock(int fd, int how);
static int lock_errno;     /* 0: locks work */
static char replaced[300]; /* this file is another one when it is locked next; "": none is */

int __wrap_flock(int fd, int how)
{
    if (replaced[0]) {
        assert_int_equal(unlink(replaced), 0);
        int other = open(replaced, O_WRONLY | O_CREAT | O_EXCL, 0666);
        assert_true(other >= 0 && close(other) == 0);
        replaced[0] = 0;
    }
    if (lock_errno == 0)
        return __real_flock(fd, how);
    errno = lock_errno;
    return -1;
}

/* Nonzero: the call fails. */
static int strike(void)
{
    int now = n_calls++;
    if (now == fault_at && appears[0]) {
        int fd = open(appears, O_WRONLY | O_CREAT | O_EXCL, 0666);
        if (fd >= 0)
            close(fd);
    }
    if (fault == DIES && now == fault_at)
        _exit(9);
    if ((fault == FAILS && now == fault_at) || (fault == FAILS_ON && now >= fault_at)) {
        errno = EIO;
        return -1;
    }
    return 0;
}

/* What reached the disk, and when: "f" a file's bytes, "d" a folder's names, "r" a name given. */
static char flushed[64];

static void note_step(char what)
{
    size_t n = strlen(flushed);
    if (n + 1 < sizeof flushed)
        flushed[n] = what, flushed[n + 1] = 0;
}

int __wrap_renameat2(int a, const char *from, int b, const char *to, unsigned flags)
{
    if (old_kernel) {
        errno = EINVAL;
        return -1;
    }
    note_step('r');
    return strike() ? -1 : __real_renameat2(a, from, b, to, flags);
}

int __wrap_rename(const char *from, const char *to)
{
    note_step('r');
    return strike() ? -1 : __real_rename(from, to);
}

int __wrap_link(const char *from, const char *to)
{
    if (no_links) {
        errno = EPERM;
        return -1;
    }
    return strike() ? -1 : __real_link(from, to);
}

int __wrap_unlink(const char *path)
{
    return strike() ? -1 : __real_unlink(path);
}

int __real_fsync(int fd);
int __wrap_fsync(int fd);

int __wrap_fsync(int fd)
{
    struct stat st;
    assert_int_equal(fstat(fd, &st), 0);
    note_step(S_ISDIR(st.st_mode) ? 'd' : 'f');
    return __real_fsync(fd);
}

static void no_fault(void)
{
    fault = NO_FAULT;
    fault_at = n_calls = 0;
    appears[0] = 0;
}

/* --- a set of files --- */

enum { N = 4 };

static char dir[64];
static char paths[N][128];
static const char *const path_list[N] = {paths[0], paths[1], paths[2], paths[3]};

static void put(const char *path, const char *text)
{
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);
}

static bool holds(const char *path, const char *text)
{
    char got[64] = "";
    FILE *f = fopen(path, "r");
    if (!f)
        return false;
    size_t n = fread(got, 1, sizeof got - 1, f);
    fclose(f);
    return n == strlen(text) && memcmp(got, text, n) == 0;
}

static void make_dir(void)
{
    strcpy(dir, "/tmp/kerf-output_set.XXXXXX");
    assert_non_null(mkdtemp(dir));
    for (int i = 0; i < N; i++)
        snprintf(paths[i], sizeof paths[i], "%s/s-%d", dir, i + 1);
    no_fault();
    old_kernel = no_links = false;
}

/* Files in the folder whose names end like this; `all` of them removed. */
static int count_files(const char *ending, bool remove_all)
{
    DIR *d = opendir(dir);
    int n = 0;
    assert_non_null(d);
    for (struct dirent *ent; (ent = readdir(d));) {
        size_t len = strlen(ent->d_name), k = strlen(ending);
        char path[400];
        if (ent->d_name[0] == '.' || len < k || strcmp(ent->d_name + len - k, ending) != 0)
            continue;
        n++;
        snprintf(path, sizeof path, "%s/%s", dir, ent->d_name);
        if (remove_all)
            __real_unlink(path);
    }
    closedir(d);
    return n;
}

static void remove_dir(void)
{
    no_fault();
    count_files("", true);
    assert_int_equal(rmdir(dir), 0);
}

static void old_text(char text[32], int i)
{
    snprintf(text, 32, "old %d", i);
}

static void new_text(char text[32], int i)
{
    snprintf(text, 32, "new part %d", i);
}

static void write_old(void)
{
    char text[32];
    for (int i = 0; i < N; i++) {
        old_text(text, i);
        put(paths[i], text);
    }
}

/* What a reader that opens the first part finds. */
enum finding { NOTHING, OLD_SET, NEW_SET, A_LIE };

static enum finding look(void)
{
    char was[32], is[32];
    int n_old = 0, n_new = 0;
    if (access(paths[0], F_OK) != 0)
        return NOTHING;
    for (int i = 0; i < N; i++) {
        old_text(was, i);
        new_text(is, i);
        n_old += holds(paths[i], was);
        n_new += holds(paths[i], is);
    }
    return n_old == N ? OLD_SET : n_new == N ? NEW_SET : A_LIE;
}

static bool is_new(void *ctx, size_t i)
{
    char text[32];
    (void)ctx;
    new_text(text, (int)i);
    return holds(paths[i], text);
}

static int open_and_write(struct output_file *files[N], bool overwrite, bool resume, struct err *e)
{
    for (int i = 0; i < N; i++) {
        char text[32];
        struct output_file_options opt = {.overwrite = overwrite, .keep_partial = true, .resume = resume};
        int rc = output_file_open(&files[i], paths[i], &opt, e);
        if (rc)
            return rc;
        new_text(text, i);
        if (resume) { /* a run that goes on finds what it had written */
            char part[600];
            assert_true(output_file_resumed(files[i]));
            snprintf(part, sizeof part, "%s.kerf-part", paths[i]);
            assert_true(holds(part, text));
        } else {
            assert_int_equal(output_file_write(files[i], text, strlen(text), e), 0);
        }
        assert_int_equal(output_file_seal(files[i], 0, e), 0);
    }
    return 0;
}

/* --- the claims --- */

static void write_in_a_child_that_dies_at(int k, bool had_old)
{
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        struct output_file *files[N];
        struct err e = {0};
        no_fault();
        if (open_and_write(files, had_old, false, &e) != 0)
            _exit(1);
        fault = DIES;
        fault_at = k;
        n_calls = 0;
        _exit(output_set_commit(files, N, &e) == 0 ? 0 : 1);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status) && (WEXITSTATUS(status) == 0 || WEXITSTATUS(status) == 9));
    fault_at = WEXITSTATUS(status); /* 0: it came through */
}

/* What will stand is known before. */
static int foretell_and_recover(struct err *e)
{
    bool stands[N];
    const int n_files = count_files("", false);
    for (int i = 0; i < N; i++)
        stands[i] = output_set_stands(path_list, N, (size_t)i, is_new, NULL);
    assert_int_equal(count_files("", false), n_files);
    int rc = output_set_recover(path_list, N, is_new, NULL, e);
    for (int i = 0; rc == 0 && i < N; i++)
        assert_int_equal(stands[i], access(paths[i], F_OK) == 0);
    return rc;
}

static void a_kill_at_any_step_leaves_no_set_the_old_or_the_new(void **state)
{
    (void)state;
    for (int way = 0; way < 6; way++) {
        bool had_old = way % 2, done = false;
        int n_nothing = 0, n_steps = 0;
        for (int k = 0; !done; k++) {
            struct output_file *files[N];
            struct err e = {0};
            make_dir();
            old_kernel = way >= 2;
            no_links = way >= 4;
            if (had_old)
                write_old();
            write_in_a_child_that_dies_at(k, had_old);
            done = fault_at == 0;
            no_fault();
            enum finding found = look();
            assert_true(found == NEW_SET || found == NOTHING || (had_old && found == OLD_SET));
            n_nothing += found == NOTHING;
            n_steps++;

            assert_int_equal(foretell_and_recover(&e), 0);
            assert_int_equal(count_files(".kerf-old", false), 0);
            if (found == NEW_SET) {
                assert_int_equal(look(), NEW_SET);
            } else {
                assert_int_equal(look(), had_old ? OLD_SET : NOTHING);
                assert_int_equal(open_and_write(files, had_old, true, &e), 0);
                assert_int_equal(output_set_commit(files, N, &e), 0);
                assert_int_equal(look(), NEW_SET);
            }
            if (old_kernel) { /* a kill between link and unlink leaves a second name; opening drops it */
                for (int i = 0; i < N; i++) {
                    struct output_file *f;
                    assert_int_equal(
                        output_file_open(&f, paths[i], &(struct output_file_options){.overwrite = true}, &e),
                        0);
                    output_file_abort(f);
                }
                assert_int_equal(look(), NEW_SET);
            }
            assert_int_equal(count_files("", false), N);
            remove_dir();
        }
        assert_true(n_steps > (had_old ? 3 * N : N)); /* every rename and unlink was struck */
        assert_true(n_nothing > 0);
    }
}

static void a_failure_at_any_step_takes_all_back(void **state)
{
    (void)state;
    for (int way = 0; way < 4; way++) {
        bool had_old = way % 2, done = false;
        int n_failed = 0;
        for (int k = 0; !done; k++) {
            struct output_file *files[N];
            struct err e = {0};
            make_dir();
            old_kernel = way >= 2;
            if (had_old)
                write_old();
            assert_int_equal(open_and_write(files, had_old, false, &e), 0);
            fault = FAILS;
            fault_at = k;
            n_calls = 0;
            int rc = output_set_commit(files, N, &e);
            done = n_calls <= k;
            no_fault();
            for (int i = 0; i < N; i++)
                assert_null(files[i]);
            if (rc == 0) {
                assert_int_equal(look(), NEW_SET); /* at most an older file could not be removed */
                assert_int_equal(foretell_and_recover(&e), 0);
                assert_int_equal(count_files("", false), N);
            } else {
                n_failed++;
                assert_non_null(strstr(e.msg, "s-"));
                assert_int_equal(look(), had_old ? OLD_SET : NOTHING);
                assert_int_equal(count_files(".kerf-part", false), N);
                assert_int_equal(count_files("", false), had_old ? 2 * N : N);
                assert_int_equal(open_and_write(files, had_old, true, &e), 0);
                assert_int_equal(output_set_commit(files, N, &e), 0);
                assert_int_equal(look(), NEW_SET);
            }
            remove_dir();
        }
        assert_true(n_failed >= (had_old ? 2 * N : N));
    }
}

/* When the file system refuses everything from some step on, nothing can be taken back: then no first part
 * may lie, and the next run puts things right. */
static void what_cannot_be_taken_back_is_recovered_later(void **state)
{
    (void)state;
    bool done = false;
    for (int k = 0; !done; k++) {
        struct output_file *files[N];
        struct err e = {0};
        make_dir();
        write_old();
        assert_int_equal(open_and_write(files, true, false, &e), 0);
        fault = FAILS_ON;
        fault_at = k;
        n_calls = 0;
        int rc = output_set_commit(files, N, &e);
        done = n_calls <= k;
        no_fault();
        enum finding found = look();
        assert_true(found == NEW_SET || found == NOTHING || found == OLD_SET);
        assert_int_equal(rc == 0, found == NEW_SET);
        if (found == NOTHING)
            assert_non_null(strstr(e.msg, ".kerf-old until this command runs again"));
        assert_int_equal(foretell_and_recover(&e), 0);
        assert_int_equal(look(), rc == 0 ? NEW_SET : OLD_SET);
        assert_int_equal(count_files(".kerf-old", false), 0);
        remove_dir();
    }
}

/* Without `overwrite` a file that appears between the check and its rename stays, for one output and for a
 * set, also where a rename that does not replace has to be made of others. */
static void what_appears_during_a_commit_is_not_replaced(void **state)
{
    (void)state;
    for (int way = 0; way < 2; way++)
        for (int k = 0; k < N; k++) {
            struct output_file *files[N];
            struct err e = {0};
            make_dir();
            old_kernel = way;
            assert_int_equal(open_and_write(files, false, false, &e), 0);
            strcpy(appears, paths[0]); /* the last one to be renamed */
            n_calls = 0;
            fault_at = k;
            assert_int_equal(output_set_commit(files, N, &e), ERR_EXISTS);
            assert_non_null(strstr(e.msg, "exists already"));
            no_fault();
            assert_true(holds(paths[0], ""));
            assert_int_equal(count_files(".kerf-part", false), N);
            assert_int_equal(count_files("", false), N + 1);
            remove_dir();
        }
    for (int way = 0; way < 2; way++) {
        struct output_file *f;
        struct err e = {0};
        make_dir();
        old_kernel = way;
        assert_int_equal(output_file_open(&f, paths[0], NULL, &e), 0);
        assert_int_equal(output_file_write(f, "x", 1, &e), 0);
        strcpy(appears, paths[0]);
        n_calls = 0;
        assert_int_equal(output_file_commit(f, 0, &e), ERR_EXISTS);
        assert_non_null(strstr(e.msg, "exists already"));
        assert_true(holds(paths[0], ""));
        no_fault();
        assert_int_equal(count_files("", false), 1);
        remove_dir();
    }
    for (int way = 0; way < 2; way++) { /* all the fallbacks do their work when nothing is in the way */
        struct err e = {0};
        make_dir();
        old_kernel = true;
        no_links = way;
        assert_int_equal(output_file_write_all(paths[0], "x", 1, false, &e), 0);
        assert_true(holds(paths[0], "x"));
        assert_int_equal(count_files("", false), 1);
        remove_dir();
    }
}

static void a_failed_commit_keeps_what_shall_be_resumed(void **state)
{
    (void)state;
    for (int keep = 0; keep < 2; keep++) {
        struct output_file *f;
        struct err e = {0};
        make_dir();
        struct output_file_options opt = {.keep_partial = keep, .resume = keep};
        assert_int_equal(output_file_open(&f, paths[0], &opt, &e), 0);
        assert_int_equal(output_file_write(f, "all of it", 9, &e), 0);
        fault = FAILS;
        n_calls = 0;
        assert_int_equal(output_file_commit(f, 0, &e), ERR_IO);
        no_fault();
        assert_int_equal(count_files("", false), keep);
        if (keep) {
            assert_int_equal(output_file_open(&f, paths[0], &opt, &e), 0);
            assert_true(output_file_resumed(f));
            assert_int_equal(output_file_commit(f, 0, &e), 0);
            assert_true(holds(paths[0], "all of it"));
        }
        remove_dir();
    }
}

static void recovery_leaves_alone_what_is_not_its_own(void **state)
{
    (void)state;
    struct err e = {0};
    char part[200], old[200];
    make_dir();
    assert_int_equal(foretell_and_recover(&e), 0);
    assert_int_equal(count_files("", false), 0);

    /* a stopped run, and somebody else's file under the name of one of its parts */
    snprintf(part, sizeof part, "%s.kerf-part", paths[0]);
    put(part, "x");
    put(paths[1], "foreign");
    assert_int_equal(foretell_and_recover(&e), 0);
    assert_true(holds(paths[1], "foreign"));
    assert_int_equal(count_files("", false), 2);

    /* a part set aside beside a first part: no commit leaves that */
    put(paths[0], "first");
    snprintf(old, sizeof old, "%s.kerf-old", paths[2]);
    put(old, "precious");
    assert_int_equal(foretell_and_recover(&e), ERR_IO);
    assert_non_null(strstr(e.msg, "s-3.kerf-old"));
    assert_true(holds(old, "precious"));

    /* another process is at it */
    int fd = open(part, O_RDWR);
    assert_true(fd >= 0);
    assert_int_equal(flock(fd, LOCK_EX), 0);
    assert_int_equal(foretell_and_recover(&e), ERR_IO);
    assert_non_null(strstr(e.msg, "another process"));
    close(fd);
    remove_dir();
}

/* What is aside goes only when the new set is complete. Else it may be the only copy, whoever put a file at
 * the first name after a kill. */
static void recovery_removes_nothing_unless_the_new_set_stands(void **state)
{
    (void)state;
    char text[32], old[600], part[600];
    for (int way = 0; way < 6; way++) {
        struct err e = {0};
        make_dir();
        old_kernel = way % 2;
        write_old();
        /* of 2 * N renames, which are two calls each where links make them */
        write_in_a_child_that_dies_at(way < 2 ? N : way < 4 ? N + 2 : N / 2, true);
        no_fault();
        assert_int_equal(look(), NOTHING);
        assert_true(count_files(".kerf-old", false) > 0);
        snprintf(old, sizeof old, "%s.kerf-old", paths[0]);
        old_text(text, 0);
        assert_true(holds(old, text));
        put(paths[0], way == 0 ? text : "foreign !"); /* a copy by hand, or somebody's file */
        int n_files = count_files("", false);
        assert_int_equal(foretell_and_recover(&e), ERR_IO);
        assert_non_null(strstr(e.msg, ".kerf-old"));
        assert_non_null(strstr(e.msg, paths[0]));
        assert_non_null(strstr(e.msg, "Nothing was changed"));
        assert_int_equal(count_files("", false), n_files);

        assert_int_equal(unlink(paths[0]), 0); /* as the message says */
        assert_int_equal(foretell_and_recover(&e), 0);
        assert_int_equal(look(), OLD_SET);
        remove_dir();
    }
    for (int missing = 0; missing < 2; missing++) { /* no temporary file, but a part is missing */
        struct err e = {0};
        make_dir();
        write_old();
        for (int i = 0; i < N; i++) {
            snprintf(old, sizeof old, "%s.kerf-old", paths[i]);
            old_text(text, i);
            put(old, text);
        }
        if (missing)
            unlink(paths[2]);
        assert_int_equal(foretell_and_recover(&e), missing ? ERR_IO : 0);
        assert_int_equal(count_files(".kerf-old", false), missing ? N : 0);
        if (missing)
            assert_non_null(strstr(e.msg, "s-3 is missing"));
        remove_dir();
    }
    struct err e = {0};
    make_dir(); /* killed in the last step but one: link without its unlink */
    old_kernel = true;
    write_old();
    snprintf(old, sizeof old, "%s.kerf-old", paths[0]);
    snprintf(part, sizeof part, "%s.kerf-part", paths[0]);
    put(old, "older");
    assert_int_equal(__real_link(paths[0], part), 0);
    assert_int_equal(foretell_and_recover(&e), 0);
    assert_int_equal(count_files(".kerf-old", false), 0);
    assert_int_equal(look(), OLD_SET);
    remove_dir();
}

/* A journal vouches for the bytes of one run: it goes before they do. */
static void no_journal_outlives_its_bytes(void **state)
{
    (void)state;
    char part[600], journal[600], fresh[600];
    for (int way = 0; way < 3; way++) { /* anew; resumed; resumed and begun anew */
        struct output_file *f;
        struct err e = {0};
        struct output_file_options opt = {.keep_partial = true, .resume = way > 0};
        make_dir();
        snprintf(part, sizeof part, "%s.kerf-part", paths[0]);
        snprintf(journal, sizeof journal, "%s.kerf-part.journal", paths[0]);
        snprintf(fresh, sizeof fresh, "%s.kerf-part.journal.new", paths[0]);
        put(part, "half");
        put(journal, "promises");
        put(fresh, "promises");
        assert_int_equal(output_file_open(&f, paths[0], &opt, &e), 0);
        if (way == 2)
            assert_int_equal(output_file_restart(f, &e), 0);
        assert_int_equal(count_files(".journal", false), way == 1);
        assert_int_equal(count_files(".journal.new", false), way == 1);
        assert_true(holds(part, way == 1 ? "half" : ""));
        output_file_abort(f);
        remove_dir();
    }
    struct output_file *f; /* one that cannot go keeps its bytes */
    struct err e = {0};
    make_dir();
    snprintf(part, sizeof part, "%s.kerf-part", paths[0]);
    snprintf(journal, sizeof journal, "%s.kerf-part.journal", paths[0]);
    put(part, "half");
    assert_int_equal(mkdir(journal, 0777), 0);
    assert_int_equal(output_file_open(&f, paths[0], &(struct output_file_options){.keep_partial = true}, &e),
                     ERR_IO);
    assert_non_null(strstr(e.msg, ".kerf-part.journal: belongs to the bytes of an earlier run"));
    assert_int_equal(rmdir(journal), 0);
    remove_dir();
}

/* A temporary file that is another name of a finished output must not be emptied. */
static void a_linked_temporary_file_is_not_written_to(void **state)
{
    (void)state;
    struct output_file *f;
    struct err e = {0};
    char part[200];
    make_dir();
    put(paths[0], "finished");
    snprintf(part, sizeof part, "%s.kerf-part", paths[0]);
    assert_int_equal(__real_link(paths[0], part), 0);
    assert_int_equal(output_file_open(&f, paths[0], &(struct output_file_options){.overwrite = true}, &e), 0);
    assert_int_equal(output_file_write(f, "half", 4, &e), 0);
    assert_true(holds(paths[0], "finished"));
    output_file_abort(f);
    assert_true(holds(paths[0], "finished"));
    remove_dir();
}

static void an_output_that_is_an_input_is_found_by_any_name(void **state)
{
    (void)state;
    struct err e = {0};
    char link_path[200], hard[200], part[200], sub[200], round_about[300];
    make_dir();
    put(paths[0], "input");
    snprintf(link_path, sizeof link_path, "%s/soft", dir);
    snprintf(hard, sizeof hard, "%s/hard", dir);
    snprintf(sub, sizeof sub, "%s/sub", dir);
    snprintf(round_about, sizeof round_about, "%s/sub/../s-1", dir);
    assert_int_equal(symlink("s-1", link_path), 0);
    assert_int_equal(__real_link(paths[0], hard), 0);
    assert_int_equal(mkdir(sub, 0777), 0);
    const char *const same[] = {paths[0], link_path, hard, round_about};
    for (size_t i = 0; i < sizeof same / sizeof *same; i++) {
        assert_int_equal(output_file_check_input(same[i], paths[0], &e), ERR_ARG);
        assert_non_null(strstr(e.msg, "inputs are never replaced"));
    }
    assert_int_equal(output_file_check_input(paths[1], paths[0], &e), 0);
    put(paths[1], "input"); /* the same bytes are not the same file */
    assert_int_equal(output_file_check_input(paths[1], paths[0], &e), 0);
    assert_int_equal(output_file_check_input(paths[1], paths[2], &e), 0); /* not there */
    static const char *const endings[] = {".kerf-part", ".kerf-part.journal", ".kerf-part.journal.new",
                                          ".kerf-old"};
    for (size_t i = 0; i < sizeof endings / sizeof *endings; i++) {
        snprintf(part, sizeof part, "%s%s", paths[1], endings[i]);
        put(part, "an input of an odd name");
        assert_int_equal(output_file_check_input(paths[1], part, &e), ERR_ARG);
        assert_non_null(strstr(e.msg, "by way of"));
    }
    assert_int_equal(rmdir(sub), 0);
    remove_dir();
}

static void a_file_system_without_locks_is_not_another_process(void **state)
{
    (void)state;
    static const struct {
        int cause;
        const char *words;
    } cases[] = {
        {EWOULDBLOCK, "another process"}, {ENOLCK, "No locks available"}, {EOPNOTSUPP, "not supported"}};
    make_dir();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct output_file *f;
        struct err e = {0};
        lock_errno = cases[i].cause;
        int rc = output_file_open(&f, paths[0], NULL, &e);
        lock_errno = 0;
        assert_int_equal(rc, ERR_IO);
        assert_non_null(strstr(e.msg, cases[i].words));
        assert_int_equal(strstr(e.msg, "another process") != NULL, cases[i].cause == EWOULDBLOCK);
        assert_int_equal(count_files("", true), cases[i].cause == EWOULDBLOCK); /* the other one's */
    }
    remove_dir();
}

static void a_signal_removes_any_number_of_temporary_files(void **state)
{
    (void)state;
    enum { MANY = 200 };
    static struct output_file *files[MANY];
    struct err e = {0};
    make_dir();
    for (int round = 0; round < 2; round++) { /* slots are used again */
        for (int i = 0; i < MANY; i++) {
            char path[128];
            snprintf(path, sizeof path, "%s/many-%d", dir, i);
            struct output_file_options opt = {.keep_partial = i == 77};
            assert_int_equal(output_file_open(&files[i], path, &opt, &e), 0);
        }
        assert_int_equal(count_files(".kerf-part", false), MANY);
        output_file_abort_all_from_signal();
        assert_int_equal(count_files(".kerf-part", false), 1);
        for (int i = 0; i < MANY; i++)
            output_file_abort(files[i]);
    }
    remove_dir();
}

/* A power cut after a commit finds the bytes and the name: the bytes are flushed before the name is given,
 * the folder after. Mutations that this catches: the fsync in output_file_seal removed, that in
 * output_file_sync_folder removed, either of them moved behind the other side of the rename. */
static void bytes_reach_the_disk_before_the_name_and_the_name_before_success(void **state)
{
    (void)state;
    struct err e = {0};
    make_dir();
    for (int overwrite = 0; overwrite < 2; overwrite++) {
        flushed[0] = 0;
        assert_int_equal(output_file_write_all(paths[0], "bytes", 5, overwrite, &e), 0);
        assert_string_equal(flushed, "frd");
    }
    struct output_file *files[N];
    assert_int_equal(open_and_write(files, true, false, &e), 0);
    assert_non_null(strstr(flushed, "ffff")); /* each part, before the first of them gets its name */
    flushed[0] = 0;
    assert_int_equal(output_set_commit(files, N, &e), 0);
    assert_null(strchr(flushed, 'f'));
    const char *last_name = strrchr(flushed, 'r');
    assert_non_null(last_name);
    assert_non_null(strchr(last_name, 'd'));
    remove_dir();
}

/* Mutation: whether the locked file still has its name is not looked at. */
static void a_lock_is_on_the_file_that_has_the_name(void **state)
{
    (void)state;
    char path[256];
    struct err e = {0};
    struct output_lock *first = NULL, *second = NULL;
    make_dir();
    snprintf(path, sizeof path, "%s/out.gguf", dir);
    snprintf(replaced, sizeof replaced, "%s.kerf-lock", path);
    assert_int_equal(output_lock_take(&first, path, &e), 0);
    assert_int_equal(replaced[0], 0);
    assert_int_equal(output_lock_take(&second, path, &e), ERR_IO);
    assert_non_null(strstr(e.msg, "another run is about to write this file"));
    output_lock_release(first);
    assert_int_equal(output_lock_take(&second, path, &e), 0);
    output_lock_release(second);
    remove_dir();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_kill_at_any_step_leaves_no_set_the_old_or_the_new),
        cmocka_unit_test(a_failure_at_any_step_takes_all_back),
        cmocka_unit_test(what_cannot_be_taken_back_is_recovered_later),
        cmocka_unit_test(what_appears_during_a_commit_is_not_replaced),
        cmocka_unit_test(a_failed_commit_keeps_what_shall_be_resumed),
        cmocka_unit_test(recovery_leaves_alone_what_is_not_its_own),
        cmocka_unit_test(recovery_removes_nothing_unless_the_new_set_stands),
        cmocka_unit_test(no_journal_outlives_its_bytes),
        cmocka_unit_test(a_linked_temporary_file_is_not_written_to),
        cmocka_unit_test(an_output_that_is_an_input_is_found_by_any_name),
        cmocka_unit_test(a_lock_is_on_the_file_that_has_the_name),
        cmocka_unit_test(a_file_system_without_locks_is_not_another_process),
        cmocka_unit_test(bytes_reach_the_disk_before_the_name_and_the_name_before_success),
        cmocka_unit_test(a_signal_removes_any_number_of_temporary_files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
