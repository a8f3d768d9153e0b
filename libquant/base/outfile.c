/* outfile.c - see outfile.h. */
#include "outfile.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <libgen.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

struct outfile {
    int fd;
    char *path, *temp, *folder; /* owned */
    uint64_t pos;
    struct outfile_options opt;
    bool resumed;
    int slot; /* in the table for the signal handler, or -1 */
};

/* A fixed table, because a signal handler may neither lock nor allocate. A full table only means that a
 * signal leaves a temporary file behind; nothing breaks. */
#define N_SLOTS 64
static _Atomic(char *) live_temps[N_SLOTS];

static int slot_take(char *temp)
{
    for (int i = 0; i < N_SLOTS; i++) {
        char *expected = NULL;
        if (atomic_compare_exchange_strong(&live_temps[i], &expected, temp))
            return i;
    }
    return -1;
}

void outfile_abort_all_from_signal(void)
{
    for (int i = 0; i < N_SLOTS; i++) {
        char *t = atomic_load(&live_temps[i]);
        if (t)
            unlink(t);
    }
}

int outfile_guard(char *path)
{
    return slot_take(path);
}

void outfile_unguard(int slot)
{
    if (slot >= 0)
        atomic_store(&live_temps[slot], NULL);
}

static void destroy(struct outfile *f)
{
    if (!f)
        return;
    outfile_unguard(f->slot);
    if (f->fd >= 0)
        close(f->fd);
    free(f->path);
    free(f->temp);
    free(f->folder);
    free(f);
}

static int check_target(const char *path, bool overwrite, struct err *e)
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
        return err_set(e, ERR_IO, "%s: exists already; use --force to replace it", path);
    return 0;
}

static int reserve(struct outfile *f, struct err *e)
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
static int open_temp(struct outfile *f, struct stat *st, struct err *e)
{
    for (;;) {
        struct stat named;
        f->fd = open(f->temp, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666);
        if (f->fd < 0)
            return err_set(e, ERR_IO, "%s: cannot be created: %s", f->temp, strerror(errno));
        if (flock(f->fd, LOCK_EX | LOCK_NB) != 0)
            return err_set(e, ERR_IO, "%s: another process is writing this output", f->temp);
        if (fstat(f->fd, st) != 0 || !S_ISREG(st->st_mode))
            return err_set(e, ERR_IO, "%s: is not a regular file; remove it", f->temp);
        if (lstat(f->temp, &named) == 0 && named.st_dev == st->st_dev && named.st_ino == st->st_ino)
            return 0;
        close(f->fd);
        f->fd = -1;
    }
}

int outfile_open(struct outfile **out, const char *path, const struct outfile_options *opt, struct err *e)
{
    static const struct outfile_options defaults;
    if (!opt)
        opt = &defaults;
    int rc = check_target(path, opt->overwrite, e);
    if (rc)
        return rc;
    struct outfile *f = calloc(1, sizeof *f);
    if (!f)
        return err_set(e, ERR_NOMEM, "%s: out of memory", path);
    f->fd = f->slot = -1;
    f->opt = *opt;
    f->path = strdup(path);
    size_t len = strlen(path);
    f->temp = malloc(len + sizeof ".kerf-part");
    char *scratch = strdup(path);
    if (f->path && f->temp && scratch) {
        memcpy(f->temp, path, len);
        memcpy(f->temp + len, ".kerf-part", sizeof ".kerf-part");
        f->folder = strdup(dirname(scratch));
    }
    free(scratch);
    if (!f->folder) {
        destroy(f);
        return err_set(e, ERR_NOMEM, "%s: out of memory", path);
    }
    struct stat st;
    rc = open_temp(f, &st, e);
    if (rc) {
        destroy(f);
        return rc;
    }
    f->resumed = opt->resume && st.st_size > 0;
    if (!f->resumed && ftruncate(f->fd, 0) != 0)
        rc = err_set(e, ERR_IO, "%s: cannot truncate: %s", f->temp, strerror(errno));
    if (!opt->keep_partial)
        f->slot = slot_take(f->temp);
    if (rc == 0 && opt->size_bytes)
        rc = reserve(f, e);
    if (rc) {
        if (!f->resumed)
            unlink(f->temp);
        destroy(f);
        return rc;
    }
    *out = f;
    return 0;
}

bool outfile_resumed(const struct outfile *f)
{
    return f->resumed;
}

int outfile_restart(struct outfile *f, struct err *e)
{
    if (!f->resumed)
        return 0; /* new, and reserved when it was opened */
    if (ftruncate(f->fd, 0) != 0)
        return err_set(e, ERR_IO, "%s: cannot truncate: %s", f->temp, strerror(errno));
    f->resumed = false;
    f->pos = 0;
    return f->opt.size_bytes ? reserve(f, e) : 0;
}

int outfile_fd(const struct outfile *f)
{
    return f->fd;
}

int outfile_write_at(struct outfile *f, uint64_t offset, const void *data, size_t n, struct err *e)
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

int outfile_write(struct outfile *f, const void *data, size_t n, struct err *e)
{
    int rc = outfile_write_at(f, f->pos, data, n, e);
    if (rc == 0)
        f->pos += n;
    return rc;
}

int outfile_commit(struct outfile *f, uint64_t n_bytes, struct err *e)
{
    int rc = check_target(f->path, f->opt.overwrite, e);
    if (rc == 0 && n_bytes && ftruncate(f->fd, (off_t)n_bytes) != 0)
        rc = err_set(e, ERR_IO, "%s: cannot set the size: %s", f->path, strerror(errno));
    if (rc == 0 && fsync(f->fd) != 0)
        rc = err_set(e, ERR_IO, "%s: cannot flush to disk: %s", f->path, strerror(errno));
    if (rc == 0 && rename(f->temp, f->path) != 0)
        rc = err_set(e, ERR_IO, "%s: cannot rename the finished file: %s", f->path, strerror(errno));
    if (rc == 0) {
        int dir = open(f->folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (dir >= 0) {
            (void)fsync(dir); /* some file systems refuse; the rename itself is done */
            close(dir);
        }
    } else {
        unlink(f->temp);
    }
    destroy(f);
    return rc;
}

void outfile_abort(struct outfile *f)
{
    if (f && !f->opt.keep_partial)
        unlink(f->temp);
    destroy(f);
}

int outfile_write_all(const char *path, const void *data, size_t n, bool overwrite, struct err *e)
{
    struct outfile *f;
    int rc = outfile_open(&f, path, &(struct outfile_options){.overwrite = overwrite}, e);
    if (rc)
        return rc;
    rc = outfile_write(f, data, n, e);
    if (rc) {
        outfile_abort(f);
        return rc;
    }
    return outfile_commit(f, 0, e);
}
