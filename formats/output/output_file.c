/* output_file.c - see output_file.h. */
#define _GNU_SOURCE /* renameat2 */
#include "libquant/base/path.h"

#include "output_file_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <libgen.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

/* --- the table for the signal handler --- */

/* A list of chunks that only ever grows, because a handler may neither lock nor allocate: it walks what is
 * there. The first chunk needs no memory, and a set of many parts gets what it needs. */
#define CHUNK_SLOTS 64
struct chunk {
    _Atomic(char *) temps[CHUNK_SLOTS];
    _Atomic(struct chunk *) next;
};
static struct chunk live;

int output_file_guard(char *path)
{
    int base = 0;
    for (struct chunk *c = &live;; base += CHUNK_SLOTS) {
        for (int i = 0; i < CHUNK_SLOTS; i++) {
            char *expected = NULL;
            if (atomic_compare_exchange_strong(&c->temps[i], &expected, path))
                return base + i;
        }
        struct chunk *next = atomic_load(&c->next);
        if (!next) {
            struct chunk *more = calloc(1, sizeof *more);
            if (!more)
                return -1;
            if (atomic_compare_exchange_strong(&c->next, &next, more))
                next = more;
            else
                free(more); /* another thread was first; `next` is its chunk */
        }
        c = next;
    }
}

void output_file_unguard(int slot)
{
    struct chunk *c = &live;
    if (slot < 0)
        return;
    for (; slot >= CHUNK_SLOTS; slot -= CHUNK_SLOTS)
        c = atomic_load(&c->next);
    atomic_store(&c->temps[slot], NULL);
}

void output_file_abort_all_from_signal(void)
{
    for (struct chunk *c = &live; c; c = atomic_load(&c->next))
        for (int i = 0; i < CHUNK_SLOTS; i++) {
            char *t = atomic_load(&c->temps[i]);
            if (t)
                unlink(t);
        }
}

void output_file_release(struct output_file *f)
{
    if (!f)
        return;
    output_file_unguard(f->slot);
    if (f->fd >= 0)
        close(f->fd);
    free(f->path);
    free(f->temp);
    free(f->folder);
    free(f);
}

/* --- names --- */

int output_file_in_the_way(const char *path, struct err *e)
{
    return err_set(e, ERR_EXISTS, "%s: exists already; use --force to replace it", path);
}

int output_file_check_target(const char *path, bool overwrite, struct err *e)
{
    struct stat st;
    if (lstat(path, &st) != 0) {
        if (errno == ENOENT)
            return 0;
        return err_set(e, ERR_IO, "%s: cannot be written: %s", path, strerror(errno));
    }
    if (S_ISDIR(st.st_mode))
        return err_set(e, ERR_IO, "%s: is a folder; name a file to write", path);
    if (!overwrite)
        return output_file_in_the_way(path, e);
    return 0;
}

static bool same_file(const char *a, const char *b)
{
    struct stat x, y;
    return stat(a, &x) == 0 && stat(b, &y) == 0 && stat_is_same(&x, &y);
}

int output_file_check_input(const char *path, const char *input, struct err *e)
{
    static const char *const endings[] = {"", PATH_PART, PATH_JOURNAL, PATH_JOURNAL_NEW, PATH_OLD};
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < sizeof endings / sizeof *endings; i++) {
        char *name = path_with(path, endings[i]);
        if (!name)
            rc = err_set(e, ERR_NOMEM, "%s: out of memory", path);
        else if (!same_file(name, input))
            rc = 0;
        else if (i == 0)
            rc = err_set(e, ERR_ARG,
                         "%s: is the same file as the input %s; inputs are never replaced, choose another "
                         "name for the output",
                         path, input);
        else
            rc = err_set(e, ERR_ARG,
                         "%s: this output would be written by way of %s, which is the input %s; choose "
                         "another name for the output",
                         path, name, input);
        free(name);
    }
    return rc;
}

/* renameat2 came late to some file systems (EINVAL) and kernels (ENOSYS). A hard link does not replace
 * either; where even that is unknown, looking first is all that is left. */
int output_file_rename_new(const char *from, const char *to)
{
    struct stat st;
    if (renameat2(AT_FDCWD, from, AT_FDCWD, to, RENAME_NOREPLACE) == 0)
        return 0;
    if (errno != EINVAL && errno != ENOSYS && errno != ENOTSUP)
        return -1;
    if (link(from, to) == 0) {
        if (unlink(from) == 0)
            return 0;
        int cause = errno;
        unlink(to);
        errno = cause;
        return -1;
    }
    if (errno != EPERM && errno != ENOTSUP && errno != ENOSYS && errno != EMLINK)
        return -1;
    if (lstat(to, &st) == 0) {
        errno = EEXIST;
        return -1;
    }
    return rename(from, to);
}

void output_file_sync_folder(const char *folder)
{
    int dir = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir < 0)
        return;
    (void)fsync(dir);
    close(dir);
}

void output_file_sync_beside(const char *path)
{
    char *copy = strdup(path);
    if (copy)
        output_file_sync_folder(dirname(copy));
    free(copy);
}

int output_file_lock(int fd, const char *path, struct err *e)
{
    int rc;
    do
        rc = flock(fd, LOCK_EX | LOCK_NB);
    while (rc != 0 && errno == EINTR);
    if (rc == 0)
        return 0;
    int cause = errno;
    rc = cause == EWOULDBLOCK
             ? err_set(e, ERR_IO, "%s: another process is writing this output", path)
             : err_set(e, ERR_IO, "%s: cannot be locked: %s; write to a file system that has locks", path,
                       strerror(cause));
    errno = cause;
    return rc;
}

/* --- one output --- */

static int reserve(struct output_file *f, struct err *e)
{
    uint64_t need = f->opt.size_bytes;
    struct stat st;
    struct statvfs vfs;
    if (fstat(f->fd, &st) != 0 || fstatvfs(f->fd, &vfs) != 0)
        return 0;
    uint64_t have = (uint64_t)st.st_blocks * 512; /* a resumed file owns these already */
    uint64_t avail = (uint64_t)vfs.f_bavail * vfs.f_frsize;
    if (need > have && need - have > avail)
        return err_set(e, ERR_IO,
                       "%s: needs %" PRIu64 " bytes, but only %" PRIu64
                       " are free on this file system; free some space or write elsewhere",
                       f->path, need - have, avail);
    int rc = posix_fallocate(f->fd, 0, (off_t)need);
    if (rc == ENOSPC || rc == EDQUOT || rc == EFBIG)
        return err_set(e, ERR_IO, "%s: cannot reserve %" PRIu64 " bytes: %s", f->path, need, strerror(rc));
    return 0; /* a file system without fallocate reports a full disk when written */
}

/* Open and lock the temporary file. Between opening and locking, the process that held the lock may have
 * renamed the file to its final name: then this descriptor is a finished output, which must not be touched.
 */
static int open_temp(struct output_file *f, struct stat *st, struct err *e)
{
    for (;;) {
        struct stat named;
        f->fd = open(f->temp, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666);
        if (f->fd < 0)
            return err_set(e, ERR_IO, "%s: cannot be created: %s", f->temp, strerror(errno));
        int rc = output_file_lock(f->fd, f->temp, e);
        if (rc && errno != EWOULDBLOCK && fstat(f->fd, st) == 0 && st->st_size == 0)
            unlink(f->temp); /* new, or as good as new */
        if (rc)
            return rc;
        if (fstat(f->fd, st) != 0 || !S_ISREG(st->st_mode))
            return err_set(e, ERR_IO, "%s: is not a regular file; remove it", f->temp);
        bool current = lstat(f->temp, &named) == 0 && stat_is_same(&named, st);
        if (current && st->st_nlink == 1)
            return 0;
        if (current) /* linked to its final name and then killed: not a partial file any more */
            unlink(f->temp);
        close(f->fd);
        f->fd = -1;
    }
}

/* Is what stands at the temporary name something that a run of ours left? Its journal says so, or how it
 * begins: as a GGUF file, as nothing but zeros (space that was reserved), or as a text that kerf writes. */
static bool is_ours(const struct output_file *f, const struct stat *st)
{
    static const char *const heads[] = {"GGUF", "# kerf", "<!doctype html", "{\n  \"", "kerf"};
    char head[4096];
    if (st->st_size == 0)
        return true;
    char *journal = path_with(f->path, PATH_JOURNAL);
    bool ours = journal && access(journal, F_OK) == 0;
    free(journal);
    ssize_t n = pread(f->fd, head, sizeof head, 0);
    for (size_t i = 0; n > 0 && !ours && i < sizeof heads / sizeof *heads; i++) {
        size_t len = strlen(heads[i]);
        ours = memcmp(head, heads[i], (size_t)n < len ? (size_t)n : len) == 0;
    }
    bool zeros = n > 0;
    for (ssize_t i = 0; zeros && i < n; i++)
        zeros = head[i] == 0;
    return ours || zeros;
}

static int refuse_stranger(const struct output_file *f, const struct stat *st, struct err *e)
{
    if (is_ours(f, st))
        return 0;
    return err_set(
        e, ERR_IO,
        "%s: is in the way and does not look like what a killed run leaves; remove it, or rename it if you "
        "need it",
        f->temp);
}

/* Empty the temporary file. What a journal beside it promises of its bytes goes first, and for good: else a
 * later run could take the next bytes for the promised ones. */
static int empty_temp(struct output_file *f, struct err *e)
{
    static const char *const journals[] = {PATH_JOURNAL_NEW, PATH_JOURNAL};
    bool removed = false;
    for (size_t i = 0; i < sizeof journals / sizeof *journals; i++) {
        char *name = path_with(f->path, journals[i]);
        int rc = name ? 0 : err_set(e, ERR_NOMEM, "%s: out of memory", f->path);
        if (rc == 0 && unlink(name) == 0)
            removed = true;
        else if (rc == 0 && errno != ENOENT)
            rc = err_set(e, ERR_IO, "%s: belongs to the bytes of an earlier run; cannot be removed: %s", name,
                         strerror(errno));
        free(name);
        if (rc)
            return rc;
    }
    if (removed)
        output_file_sync_folder(f->folder);
    return ftruncate(f->fd, 0) == 0 ? 0
                                    : err_set(e, ERR_IO, "%s: cannot truncate: %s", f->temp, strerror(errno));
}

int output_file_open(struct output_file **out, const char *path, const struct output_file_options *opt,
                     struct err *e)
{
    static const struct output_file_options defaults;
    if (!opt)
        opt = &defaults;
    int rc = output_file_check_target(path, opt->overwrite, e);
    if (rc)
        return rc;
    struct output_file *f = calloc(1, sizeof *f);
    if (!f)
        return err_set(e, ERR_NOMEM, "%s: out of memory", path);
    f->fd = f->slot = -1;
    f->opt = *opt;
    f->path = strdup(path);
    f->temp = path_with(path, PATH_PART);
    char *scratch = strdup(path);
    if (f->path && f->temp && scratch)
        f->folder = strdup(dirname(scratch));
    free(scratch);
    if (!f->folder) {
        output_file_release(f);
        return err_set(e, ERR_NOMEM, "%s: out of memory", path);
    }
    struct stat st;
    rc = open_temp(f, &st, e);
    if (rc) {
        output_file_release(f);
        return rc;
    }
    f->resumed = opt->resume && st.st_size > 0;
    if (!f->resumed && (rc = refuse_stranger(f, &st, e)) != 0) {
        output_file_release(f);
        return rc;
    }
    if (!f->resumed)
        rc = empty_temp(f, e);
    if (!opt->keep_partial)
        f->slot = output_file_guard(f->temp);
    if (rc == 0 && opt->size_bytes && (!f->resumed || is_ours(f, &st))) /* a stranger is not made longer */
        rc = reserve(f, e);
    if (rc) {
        if (!f->resumed)
            unlink(f->temp);
        output_file_release(f);
        return rc;
    }
    *out = f;
    return 0;
}

bool output_file_resumed(const struct output_file *f)
{
    return f->resumed;
}

int output_file_restart(struct output_file *f, struct err *e)
{
    if (!f->resumed)
        return 0; /* new, and reserved when it was opened */
    struct stat st = {0};
    int rc = fstat(f->fd, &st) == 0 ? refuse_stranger(f, &st, e) : 0;
    if (rc != 0) { /* nor when the run gives up */
        f->opt.keep_partial = true;
        output_file_unguard(f->slot);
        f->slot = -1;
        return rc;
    }
    rc = empty_temp(f, e);
    if (rc)
        return rc;
    f->resumed = false;
    f->pos = 0;
    return f->opt.size_bytes ? reserve(f, e) : 0;
}

int output_file_fd(const struct output_file *f)
{
    return f->fd;
}

int output_file_write_at(struct output_file *f, uint64_t offset, const void *data, size_t n, struct err *e)
{
    const char *p = data;
    while (n) {
        ssize_t k = pwrite(f->fd, p, n, (off_t)offset);
        if (k < 0 && errno == EINTR)
            continue;
        if (k <= 0)
            return err_set(e, ERR_IO, "%s: cannot write: %s", f->path,
                           k < 0 ? strerror(errno) : "no progress");
        p += k;
        offset += (uint64_t)k;
        n -= (size_t)k;
    }
    return 0;
}

int output_file_write(struct output_file *f, const void *data, size_t n, struct err *e)
{
    int rc = output_file_write_at(f, f->pos, data, n, e);
    if (rc == 0)
        f->pos += n;
    return rc;
}

int output_file_seal(struct output_file *f, uint64_t n_bytes, struct err *e)
{
    if (n_bytes && ftruncate(f->fd, (off_t)n_bytes) != 0)
        return err_set(e, ERR_IO, "%s: cannot set the size: %s", f->path, strerror(errno));
    if (fsync(f->fd) != 0)
        return err_set(e, ERR_IO, "%s: cannot flush to disk: %s", f->path, strerror(errno));
    return 0;
}

int output_file_commit(struct output_file *f, uint64_t n_bytes, struct err *e)
{
    int rc = output_file_check_target(f->path, f->opt.overwrite, e);
    if (rc == 0)
        rc = output_file_seal(f, n_bytes, e);
    if (rc == 0 &&
        (f->opt.overwrite ? rename(f->temp, f->path) : output_file_rename_new(f->temp, f->path)) != 0) {
        rc = errno == EEXIST /* since we looked; nothing is overwritten unasked */
                 ? output_file_in_the_way(f->path, e)
                 : err_set(e, ERR_IO, "%s: cannot rename the finished file: %s", f->path, strerror(errno));
    }
    if (rc) {
        output_file_abort(f);
        return rc;
    }
    output_file_sync_folder(f->folder);
    output_file_release(f);
    return 0;
}

void output_file_abort(struct output_file *f)
{
    if (f && !f->opt.keep_partial)
        unlink(f->temp);
    output_file_release(f);
}

int output_file_write_all(const char *path, const void *data, size_t n, bool overwrite, struct err *e)
{
    struct output_file *f;
    int rc = output_file_open(&f, path, &(struct output_file_options){.overwrite = overwrite}, e);
    if (rc)
        return rc;
    rc = output_file_write(f, data, n, e);
    if (rc) {
        output_file_abort(f);
        return rc;
    }
    return output_file_commit(f, 0, e);
}
