/* filemap.c - see filemap.h. */
#include "filemap.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

int filemap_open(struct filemap *out, const char *path, struct err *e)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a pipe without a writer must not hang */
    struct stat st;
    if (fd < 0 && errno == ENOENT && lstat(path, &st) == 0) /* as a cache with a lost blob has them */
        return err_set(e, ERR_IO, "%s: a link to a file that is not there", path);
    if (fd < 0)
        return err_set_open(e, path, errno);
    int rc = 0;
    if (fstat(fd, &st) != 0)
        rc = err_set(e, ERR_IO, "%s: cannot stat: %s", path, strerror(errno));
    else if (!S_ISREG(st.st_mode))
        rc = err_set(e, ERR_IO, "%s: expected a regular file, found a %s", path,
                     S_ISDIR(st.st_mode) ? "folder" : "special file");
    if (rc == 0) {
        struct filemap m = {NULL, (size_t)st.st_size};
        if (m.size) {
            void *p = mmap(NULL, m.size, PROT_READ, MAP_PRIVATE, fd, 0);
            if (p == MAP_FAILED)
                rc = err_set(e, ERR_IO, "%s: cannot map %zu bytes: %s", path, m.size, strerror(errno));
            else
                m.data = p;
        }
        if (rc == 0)
            *out = m;
    }
    close(fd);
    return rc;
}

void filemap_close(struct filemap *m)
{
    if (m && m->data)
        munmap((void *)m->data, m->size);
    if (m)
        *m = (struct filemap){0};
}

/* madvise over the pages that lie completely (drop) or partly (want) in the range. */
static void advise(const void *p, size_t n, int advice, int whole_only)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    uintptr_t a = (uintptr_t)p, b = a + n;
    if (whole_only) {
        a = (a + page - 1) & ~(page - 1);
        b &= ~(page - 1);
    } else {
        a &= ~(page - 1);
    }
    if (b > a)
        (void)madvise((void *)a, b - a, advice);
}

void filemap_want(const void *p, size_t n)
{
    advise(p, n, MADV_WILLNEED, 0);
}

void filemap_drop(const void *p, size_t n)
{
    advise(p, n, MADV_DONTNEED, 1);
}
