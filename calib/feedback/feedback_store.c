/* feedback_store.c - see feedback_store.h. */
#include "feedback_store.h"

#include "libquant/base/checked.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAGIC "kerf-feedback 1\n"

/* The head of the file; figures of the tensors follow, then their blocks. */
struct head {
    char magic[16], identity[64];
    uint64_t n_tensors, n_bytes, n_done;
    uint64_t n_corrected; /* parts of the layers, behind these choices */
    char choices[64];
};

struct feedback_store {
    char *path;
    struct head *map;
    uint64_t n_bytes;
    struct feedback_figures *figures;
    uint64_t *offsets, *sizes; /* [n] */
    size_t n, n_kinds;
    bool restarted;
};

static uint64_t page_up(uint64_t n)
{
    return (n + 4095) / 4096 * 4096;
}

static int failed(const char *path, const char *what, int error, struct err *e)
{
    return err_set(e, ERR_IO, "%s: %s: %s", path, what, strerror(error));
}

/* Does the open file hold what an earlier run of this identity left? */
static bool is_ours(int fd, const char identity[65], size_t n, uint64_t n_bytes)
{
    struct head h;
    struct stat st;
    return fstat(fd, &st) == 0 && (uint64_t)st.st_size == n_bytes &&
           pread(fd, &h, sizeof h, 0) == (ssize_t)sizeof h && memcmp(h.magic, MAGIC, sizeof h.magic) == 0 &&
           memcmp(h.identity, identity, 64) == 0 && h.n_tensors == n && h.n_bytes == n_bytes;
}

/* An open file may be used if it is empty or a store, of whatever identity. */
static int refuse_stranger(int fd, const char *path, bool *is_empty, struct err *e)
{
    char magic[sizeof((struct head *)0)->magic];
    struct stat st;
    if (fstat(fd, &st) != 0)
        return failed(path, "cannot be read", errno, e);
    *is_empty = st.st_size == 0;
    if (S_ISREG(st.st_mode) && (*is_empty || (pread(fd, magic, sizeof magic, 0) == (ssize_t)sizeof magic &&
                                              memcmp(magic, MAGIC, sizeof magic) == 0)))
        return 0;
    return err_set(e, ERR_IO, "%s: exists and was not written by kerf; move it away", path);
}

int feedback_store_check(const char *path, struct err *e)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    bool ignored;
    if (fd < 0)
        return errno == ENOENT ? 0 : failed(path, "cannot be opened", errno, e);
    int rc = refuse_stranger(fd, path, &ignored, e);
    close(fd);
    return rc;
}

/* An empty store. The head goes first: what a run that is killed here leaves can be told from other files. */
static int begin_file(const struct feedback_store *s, int fd, const char identity[65], struct err *e)
{
    struct head h = {.n_tensors = s->n, .n_bytes = s->n_bytes};
    memcpy(h.magic, MAGIC, sizeof h.magic);
    memcpy(h.identity, identity, sizeof h.identity);
    if (ftruncate(fd, 0) != 0)
        return failed(s->path, "cannot be emptied", errno, e);
    ssize_t n = pwrite(fd, &h, sizeof h, 0);
    int error = n < 0 ? errno : n < (ssize_t)sizeof h ? ENOSPC : posix_fallocate(fd, 0, (off_t)s->n_bytes);
    if (!error)
        return 0;
    unlink(s->path);
    return failed(s->path, "no room for the blocks", error, e);
}

static int map_file(struct feedback_store *s, const char identity[65], bool resume, struct err *e)
{
    int fd = open(s->path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0644);
    if (fd < 0)
        return failed(s->path, "cannot be opened", errno, e);
    bool is_empty = true;
    int rc = refuse_stranger(fd, s->path, &is_empty, e);
    bool ours = rc == 0 && resume && is_ours(fd, identity, s->n, s->n_bytes);
    s->restarted = resume && !ours && !is_empty;
    if (rc == 0 && !ours)
        rc = begin_file(s, fd, identity, e);
    void *map =
        rc == 0 ? mmap(NULL, (size_t)s->n_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) : MAP_FAILED;
    if (rc == 0 && map == MAP_FAILED) {
        rc = failed(s->path, "cannot be mapped", errno, e);
        if (!ours)
            unlink(s->path);
    }
    close(fd);
    if (rc != 0)
        return rc;
    s->map = map;
    s->figures = (struct feedback_figures *)((char *)map + page_up(sizeof *s->map));
    return 0;
}

int feedback_store_open(struct feedback_store **out, const char *path, const char identity[65],
                        const uint64_t *n_bytes, size_t n, size_t n_kinds, bool resume, struct err *e)
{
    struct feedback_store *s = calloc(1, sizeof *s);
    if (s) {
        s->path = strdup(path);
        s->offsets = calloc(n + 1, sizeof *s->offsets);
        s->sizes = calloc(n + 1, sizeof *s->sizes);
        s->n = n;
        s->n_kinds = n_kinds;
    }
    if (!s || !s->path || !s->offsets || !s->sizes) {
        feedback_store_free(s, true);
        return err_set(e, ERR_NOMEM, "%s: out of memory", path);
    }
    bool fits = true;
    s->n_bytes = page_up(sizeof *s->map) + page_up(n * sizeof *s->figures);
    for (size_t i = 0; fits && i < n; i++) {
        uint64_t all = 0;
        s->offsets[i] = s->n_bytes;
        s->sizes[i] = n_bytes[i];
        fits = n_bytes[i] < INT64_MAX / 4 && checked_mul(page_up(n_bytes[i]), n_kinds, &all) &&
               checked_add(s->n_bytes, all, &s->n_bytes) && s->n_bytes < INT64_MAX;
    }
    int rc =
        fits ? map_file(s, identity, resume, e) : err_set(e, ERR_ARG, "%s: the blocks are too many", path);
    if (rc != 0)
        feedback_store_free(s, true);
    else
        *out = s;
    return rc;
}

void feedback_store_free(struct feedback_store *s, bool keep)
{
    if (!s)
        return;
    if (s->map)
        munmap(s->map, (size_t)s->n_bytes);
    if (!keep)
        unlink(s->path);
    free(s->path);
    free(s->offsets);
    free(s->sizes);
    free(s);
}

uint8_t *feedback_store_blocks(struct feedback_store *s, enum feedback_blocks kind, size_t i)
{
    return (uint8_t *)s->map + s->offsets[i] + kind * page_up(s->sizes[i]);
}

void feedback_store_copy(struct feedback_store *s, enum feedback_blocks to, enum feedback_blocks from,
                         size_t i)
{
    memcpy(feedback_store_blocks(s, to, i), feedback_store_blocks(s, from, i), (size_t)s->sizes[i]);
}

struct feedback_figures *feedback_store_figures(struct feedback_store *s, size_t i)
{
    return &s->figures[i];
}

bool feedback_store_restarted(const struct feedback_store *s)
{
    return s->restarted;
}

uint64_t feedback_store_n_done(const struct feedback_store *s)
{
    return s->map->n_done;
}

static int flush_head(struct feedback_store *s, struct err *e)
{
    return msync(s->map, 4096, MS_SYNC) == 0 ? 0 : failed(s->path, "cannot be flushed to disk", errno, e);
}

int feedback_store_set_done(struct feedback_store *s, uint64_t n, struct err *e)
{
    if (msync(s->map, (size_t)s->n_bytes, MS_SYNC) != 0)
        return failed(s->path, "cannot be flushed to disk", errno, e);
    s->map->n_done = n;
    return flush_head(s, e);
}

uint64_t feedback_store_n_corrected(const struct feedback_store *s)
{
    return s->map->n_corrected;
}

int feedback_store_begin_corrections(struct feedback_store *s, const char choices[65], struct err *e)
{
    if (memcmp(s->map->choices, choices, sizeof s->map->choices) == 0)
        return 0;
    s->map->n_corrected = 0;
    memcpy(s->map->choices, choices, sizeof s->map->choices);
    return flush_head(s, e);
}

int feedback_store_set_corrected(struct feedback_store *s, uint64_t n, struct err *e)
{
    if (msync(s->map, (size_t)s->n_bytes, MS_SYNC) != 0)
        return failed(s->path, "cannot be flushed to disk", errno, e);
    s->map->n_corrected = n;
    return flush_head(s, e);
}
