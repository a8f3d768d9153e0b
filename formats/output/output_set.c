/* output_set.c - see output_set.h.
 *
 * No record of the commit is kept beside the files: which of the names `path`, `path.kerf-part` (new, not yet
 * renamed) and `path.kerf-old` (older, set aside) exist says how far it got. A new part is under exactly one
 * of the first two names; the first part's own name tells on which side of step 4 we are. */
#include "output_set.h"

#include "libquant/base/path.h"
#include "output_file_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static bool exists(const char *path)
{
    struct stat st;
    return lstat(path, &st) == 0;
}

static int no_memory(const char *path, struct err *e)
{
    return err_set(e, ERR_NOMEM, "%s: out of memory", path);
}

static bool one_file(const char *a, const char *b)
{
    struct stat x, y;
    return lstat(a, &x) == 0 && lstat(b, &y) == 0 && stat_is_same(&x, &y);
}

/* --- commit --- */

struct commit {
    struct output_file **files;
    size_t n;
    char **old;  /* [n] owned names of what is set aside */
    bool *aside; /* [n] the older part stands at old[i] */
    bool *there; /* [n] the new part stands at its name */
};

static int cannot_rename(const char *from, const char *to, struct err *e)
{
    if (errno == EEXIST)
        return output_file_in_the_way(to, e);
    return err_set(e, ERR_IO, "%s: cannot rename the finished file %s: %s", to, from, strerror(errno));
}

static int set_aside(struct commit *c, struct err *e)
{
    for (size_t i = 0; i < c->n; i++) {
        const struct output_file *f = c->files[i];
        if (!exists(f->path))
            continue;
        if (output_file_rename_new(f->path, c->old[i]) != 0) {
            if (errno == ENOENT) /* removed since we looked */
                continue;
            return err_set(e, ERR_IO, "%s: cannot set the older file aside as %s: %s", f->path, c->old[i],
                           strerror(errno));
        }
        c->aside[i] = true;
        if (i == 0) /* before any other part changes, also after a power cut */
            output_file_sync_folder(f->folder);
    }
    return 0;
}

static int put_in_place(struct commit *c, struct err *e)
{
    for (size_t i = c->n; i-- > 0;) {
        const struct output_file *f = c->files[i];
        if (i == 0)
            output_file_sync_folder(f->folder);
        if (output_file_rename_new(f->temp, f->path) != 0)
            return cannot_rename(f->temp, f->path, e);
        c->there[i] = true;
    }
    output_file_sync_folder(c->files[0]->folder);
    return 0;
}

/* Backwards, the first part last: until then no reader finds a set. The cause of the failure stays in `e`. */
static void take_back(struct commit *c, int rc, struct err *e)
{
    const char *stuck = NULL;
    for (size_t i = 0; i < c->n && !stuck; i++)
        if (c->there[i] && output_file_rename_new(c->files[i]->path, c->files[i]->temp) != 0)
            stuck = c->files[i]->path;
    for (size_t i = c->n; i-- > 0 && !stuck;)
        if (c->aside[i] && output_file_rename_new(c->old[i], c->files[i]->path) != 0)
            stuck = c->old[i];
    int cause = errno;
    output_file_sync_folder(c->files[0]->folder);
    if (!stuck)
        return;
    for (size_t i = 0; i < c->n; i++) /* what the next attempt needs to finish this */
        c->files[i]->opt.keep_partial = true;
    err_context(
        e, rc,
        "%s: cannot be renamed back (%s); the older parts stand as *.kerf-old until this command runs "
        "again",
        stuck, strerror(cause));
}

static int run_commit(struct commit *c, struct err *e)
{
    int rc = 0;
    for (size_t i = 0; i < c->n && rc == 0; i++)
        rc = output_file_check_target(c->files[i]->path, c->files[i]->opt.overwrite, e);
    if (rc)
        return rc;
    /* From here on a signal's handler must not remove temporary files: output_set_recover reads meaning in
     * them.
     */
    for (size_t i = 0; i < c->n; i++) {
        output_file_unguard(c->files[i]->slot);
        c->files[i]->slot = -1;
    }
    rc = set_aside(c, e);
    if (rc == 0)
        rc = put_in_place(c, e);
    if (rc) {
        take_back(c, rc, e);
        return rc;
    }
    for (size_t i = c->n; i-- > 0;)
        if (c->aside[i] && unlink(c->old[i]) != 0)
            break; /* the first one stays, so output_set_recover knows what the others are */
    return 0;
}

int output_set_commit(struct output_file **files, size_t n, struct err *e)
{
    struct commit c = {.files = files, .n = n};
    if (n == 1) { /* one rename is enough, also to replace */
        int rc = output_file_commit(files[0], 0, e);
        files[0] = NULL;
        return rc;
    }
    if (n == 0)
        return 0;
    c.old = calloc(n, sizeof *c.old);
    c.aside = calloc(n, sizeof *c.aside);
    c.there = calloc(n, sizeof *c.there);
    int rc = c.old && c.aside && c.there ? 0 : no_memory(files[0]->path, e);
    for (size_t i = 0; i < n && rc == 0; i++)
        if (!(c.old[i] = path_with(files[i]->path, PATH_OLD)))
            rc = no_memory(files[i]->path, e);
    if (rc == 0)
        rc = run_commit(&c, e);
    for (size_t i = 0; i < n; i++) {
        if (rc)
            output_file_abort(files[i]);
        else
            output_file_release(files[i]);
        files[i] = NULL;
        if (c.old)
            free(c.old[i]);
    }
    free(c.old);
    free(c.aside);
    free(c.there);
    return rc;
}

/* --- recovery --- */

struct names {
    char *part, *old; /* owned */
};

/* The lock of a running commit is on the first temporary file, which has its name until step 4. *fd -1 when
 * it is not there: then nobody is between 1 and 4. */
static int lock_first(const char *part, int *fd, struct err *e)
{
    for (;;) {
        struct stat st, named;
        *fd = open(part, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
        if (*fd < 0 && errno == ENOENT)
            return 0;
        if (*fd < 0)
            return err_set(e, ERR_IO, "%s: cannot be opened: %s", part, strerror(errno));
        int rc = output_file_lock(*fd, part, e);
        if (rc)
            return rc;
        if (fstat(*fd, &st) == 0 && lstat(part, &named) == 0 && stat_is_same(&st, &named))
            return 0;
        close(*fd); /* renamed while we waited: look again */
        *fd = -1;
    }
}

static int stuck(const char *from, const char *to, struct err *e)
{
    return err_set(e, ERR_IO,
                   "%s: an interrupted run left it, and it cannot be renamed to %s (%s); do so by hand", from,
                   to, strerror(errno));
}

/* A first part stands. Only when the whole set does, and nothing of it is temporary any more, is it the new
 * one, as step 4 left it. Else somebody put a file there after a kill, and what is aside may be the only
 * copy.
 */
static int check_complete(const char *const *paths, const struct names *names, size_t n, const char *old,
                          struct err *e)
{
    for (size_t i = 0; i < n; i++) {
        bool there = exists(paths[i]);
        if (there && (!exists(names[i].part) || one_file(paths[i], names[i].part)))
            continue;
        return err_set(
            e, ERR_IO,
            "%s: an interrupted run set it aside, and %s, which stands now, is not that run's output: %s %s. "
            "Nothing was changed. Move %s away and run the same command again, which puts the older "
            "set back; or rename its *" PATH_OLD " files yourself",
            old, paths[0], there ? names[i].part : paths[i], there ? "still stands" : "is missing", paths[0]);
    }
    return 0;
}

/* What is left of the older set goes, if the new one stands. */
static int clean(const char *const *paths, const struct names *names, size_t n, struct err *e)
{
    bool checked = false;
    for (size_t i = 0; i < n; i++) /* a link without its unlink: the file has its own name as well */
        if (one_file(paths[i], names[i].old))
            unlink(names[i].old);
    for (size_t i = n; i-- > 0;) {
        if (!exists(names[i].old))
            continue;
        int rc = checked ? 0 : check_complete(paths, names, n, names[i].old, e);
        if (rc)
            return rc;
        checked = true;
        if (!exists(names[0].old)) /* it goes last, so this is no commit of ours */
            return err_set(e, ERR_IO, "%s: left of an older set, while %s is not; move it away, or remove it",
                           names[i].old, names[0].old);
        if (unlink(names[i].old) != 0)
            return err_set(e, ERR_IO, "%s: left of the set that %s replaced; cannot be removed: %s",
                           names[i].old, paths[0], strerror(errno));
    }
    return 0;
}

bool output_set_stands(const char *const *paths, size_t n, size_t i, bool (*is_ours)(void *ctx, size_t i),
                       void *ctx)
{
    char part[PATH_MAX], old[PATH_MAX];
    if (n < 2 || exists(paths[0]))
        return exists(paths[i]);
    snprintf(part, sizeof part, "%s" PATH_PART, paths[i]);
    snprintf(old, sizeof old, "%s" PATH_OLD, paths[i]);
    if (exists(old) && !one_file(paths[i], old)) /* as `restore` decides */
        return true;
    return exists(paths[i]) && !one_file(paths[i], part) && (exists(part) || !is_ours(ctx, i));
}

static int restore(const char *const *paths, const struct names *names, size_t n,
                   bool (*is_ours)(void *ctx, size_t i), void *ctx, struct err *e)
{
    for (size_t i = n; i-- > 0;) {
        /* Where renaming takes a link and an unlink, a kill may have come between the two. */
        if (one_file(paths[i], names[i].old))
            unlink(names[i].old);
        if (one_file(paths[i], names[i].part))
            unlink(paths[i]);
        bool has_old = exists(names[i].old);
        /* With the older part aside, what stands at the name is new. Else it may be one not yet set aside, or
         * not of this set at all. */
        if (exists(paths[i]) && !exists(names[i].part) && (has_old || is_ours(ctx, i)) &&
            output_file_rename_new(paths[i], names[i].part) != 0)
            return stuck(paths[i], names[i].part, e);
        if (has_old && output_file_rename_new(names[i].old, paths[i]) != 0)
            return stuck(names[i].old, paths[i], e);
    }
    return 0;
}

int output_set_recover(const char *const *paths, size_t n, bool (*is_ours)(void *ctx, size_t i), void *ctx,
                       struct err *e)
{
    int fd = -1, rc = 0;
    if (n < 2)
        return 0; /* one rename */
    struct names *names = calloc(n, sizeof *names);
    if (!names)
        rc = no_memory(paths[0], e);
    for (size_t i = 0; i < n && rc == 0; i++) {
        names[i].part = path_with(paths[i], PATH_PART);
        names[i].old = path_with(paths[i], PATH_OLD);
        if (!names[i].part || !names[i].old)
            rc = no_memory(paths[i], e);
    }
    if (rc == 0)
        rc = lock_first(names[0].part, &fd, e);
    if (rc == 0 && exists(paths[0])) {
        rc = clean(paths, names, n, e);
    } else if (rc == 0) {
        rc = restore(paths, names, n, is_ours, ctx, e);
        output_file_sync_beside(paths[0]);
    }
    if (fd >= 0)
        close(fd);
    for (size_t i = 0; names && i < n; i++) {
        free(names[i].part);
        free(names[i].old);
    }
    free(names);
    return rc;
}
