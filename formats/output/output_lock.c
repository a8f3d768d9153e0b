/* output_lock.c - see output_lock.h. */
#include "output_lock.h"

#include "libquant/base/path.h"
#include "output_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

struct output_lock {
    int fd, slot;
    char *path; /* of the lock file; owned */
    bool is_folder;
};

/* The same file, or the same name in the same folder where neither is there yet. */
static bool is_same(const char *a, const char *b)
{
    struct stat x, y;
    if (stat(a, &x) == 0 && stat(b, &y) == 0)
        return x.st_dev == y.st_dev && x.st_ino == y.st_ino;
    char *p = path_folder(a), *q = path_folder(b);
    bool same = p && q && stat(p, &x) == 0 && stat(q, &y) == 0 && x.st_dev == y.st_dev &&
                x.st_ino == y.st_ino && strcmp(path_short(a), path_short(b)) == 0;
    free(p);
    free(q);
    return same;
}

int output_check_names(const char *const *outputs, size_t n_outputs, const char *const *inputs,
                       size_t n_inputs, struct err *e)
{
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < n_outputs; i++) {
        for (size_t j = 0; rc == 0 && outputs[i] && j < n_inputs; j++)
            if (inputs[j] && strcmp(inputs[j], "-") != 0)
                rc = output_file_check_input(outputs[i], inputs[j], e);
        for (size_t j = 0; rc == 0 && outputs[i] && j < i; j++)
            if (outputs[j] && is_same(outputs[i], outputs[j]))
                rc = err_set(e, ERR_ARG, "%s: two outputs of this run are this file; give each its own name",
                             outputs[i]);
    }
    return rc;
}

static int in_use(const struct output_lock *l, const char *path, struct err *e)
{
    return err_set(e, ERR_IO,
                   l->is_folder
                       ? "%s: this folder is in use by another run; wait for it, or name another with --state"
                       : "%s: another run is about to write this file; wait for it, or choose another name",
                   path);
}

/* Between opening and locking, a run that held the lock may have removed the file: then try the new one. */
static int take(struct output_lock *l, const char *path, struct err *e)
{
    for (;;) {
        struct stat own, named;
        l->fd = open(l->path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666);
        if (l->fd < 0)
            return err_set(e, ERR_IO, "%s: cannot be created: %s", l->path, strerror(errno));
        if (flock(l->fd, LOCK_EX | LOCK_NB) != 0) {
            if (errno == EINTR) {
                close(l->fd);
                continue;
            }
            if (errno == EWOULDBLOCK)
                return in_use(l, path, e);
            return 0; /* a file system without locks: as well as it goes */
        }
        if (fstat(l->fd, &own) == 0 && stat(l->path, &named) == 0 && own.st_ino == named.st_ino &&
            own.st_dev == named.st_dev)
            return 0;
        close(l->fd);
    }
}

static int take_new(struct output_lock **out, const char *path, bool is_folder, struct err *e)
{
    struct output_lock *l = calloc(1, sizeof *l);
    if (l) {
        l->fd = l->slot = -1;
        l->is_folder = is_folder;
        l->path = path_with(path, ".kerf-lock");
    }
    if (!l || !l->path) {
        free(l);
        return err_set(e, ERR_NOMEM, "%s: out of memory", path);
    }
    int rc = take(l, path, e);
    if (rc != 0) {
        if (l->fd >= 0)
            close(l->fd);
        free(l->path);
        free(l);
        return rc;
    }
    l->slot = output_file_guard(l->path);
    *out = l;
    return 0;
}

int output_lock_take(struct output_lock **out, const char *path, struct err *e)
{
    return take_new(out, path, false, e);
}

int output_lock_take_folder(struct output_lock **out, const char *path, struct err *e)
{
    return take_new(out, path, true, e);
}

void output_lock_release(struct output_lock *l)
{
    if (!l)
        return;
    unlink(l->path);
    output_file_unguard(l->slot);
    close(l->fd);
    free(l->path);
    free(l);
}
