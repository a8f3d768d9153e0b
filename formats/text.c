/* text.c - see text.h. Everything is read in chunks, so that a pipe works like a file. */
#include "text.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#define DEFAULT_MAX ((size_t)1 << 30)
#define CHUNK       ((size_t)1 << 16)

struct text_in {
    const char *name;
    int fd;
    size_t max;
    char *data; /* owned; room for cap bytes and a NUL */
    size_t len, cap;
};

/* Room for at least one more byte, and for no more than the bound and one (so that "too large" shows). */
static int grow(struct text_in *in, struct err *e)
{
    if (in->len < in->cap)
        return 0;
    if (in->len > in->max)
        return err_set(e, ERR_IO, "%s: holds more than %zu bytes of text; split it", in->name, in->max);
    size_t cap = in->cap < CHUNK ? CHUNK : in->cap * 2;
    if (cap > in->max + 1)
        cap = in->max + 1;
    char *p = realloc(in->data, cap + 1);
    if (!p)
        return err_set(e, ERR_NOMEM, "%s: out of memory", in->name);
    in->data = p;
    in->cap = cap;
    return 0;
}

/* *got bytes, 0 at the end of the input. */
static int read_some(const struct text_in *in, void *buf, size_t n, size_t *got, struct err *e)
{
    ssize_t k;
    do
        k = read(in->fd, buf, n);
    while (k < 0 && errno == EINTR);
    if (k < 0)
        return err_set(e, ERR_IO, "%s: cannot be read: %s", in->name, strerror(errno));
    *got = (size_t)k;
    return 0;
}

static int read_plain(struct text_in *in, struct err *e)
{
    for (;;) {
        size_t got = 0;
        int rc = grow(in, e);
        if (rc == 0)
            rc = read_some(in, in->data + in->len, in->cap - in->len, &got, e);
        if (rc || got == 0)
            return rc;
        in->len += got;
    }
}

static int inflate_failed(const struct text_in *in, const z_stream *z, int status, bool between,
                          struct err *e)
{
    if (status == Z_MEM_ERROR)
        return err_set(e, ERR_NOMEM, "%s: out of memory", in->name);
    if (between && z->total_out == 0)
        return err_set(e, ERR_FORMAT, "%s: bytes after the end of the gzip data", in->name);
    return err_set(e, ERR_FORMAT, "%s: damaged gzip data: %s", in->name, z->msg ? z->msg : "unknown reason");
}

/* Members follow each other until the input ends exactly behind one. */
static int read_gzip_stream(struct text_in *in, z_stream *z, unsigned char *buf, struct err *e)
{
    bool finished = false; /* a member has just ended */
    bool between = false;  /* at least one member has ended */
    for (;;) {
        size_t got = 0;
        int rc = read_some(in, buf, CHUNK, &got, e);
        if (rc)
            return rc;
        if (got == 0 && !finished)
            return err_set(e, ERR_FORMAT, "%s: the gzip data is cut short", in->name);
        if (got == 0)
            return 0;
        z->next_in = buf;
        z->avail_in = (uInt)got;
        bool more_out = false;
        while (z->avail_in || more_out) {
            if (finished) {
                if (inflateReset(z) != Z_OK)
                    return err_set(e, ERR_FORMAT, "%s: cannot continue the gzip data", in->name);
                finished = false;
            }
            rc = grow(in, e);
            if (rc)
                return rc;
            size_t room = in->cap - in->len < CHUNK ? in->cap - in->len : CHUNK;
            z->next_out = (unsigned char *)in->data + in->len;
            z->avail_out = (uInt)room;
            int status = inflate(z, Z_NO_FLUSH);
            in->len += room - z->avail_out;
            more_out = z->avail_out == 0;
            if (status == Z_STREAM_END) {
                finished = between = true;
                more_out = false;
            } else if (status != Z_OK && status != Z_BUF_ERROR) {
                return inflate_failed(in, z, status, between, e);
            }
        }
    }
}

static int read_gzip(struct text_in *in, struct err *e)
{
    z_stream z = {0};
    unsigned char *buf = malloc(CHUNK);
    int rc;
    if (!buf)
        return err_set(e, ERR_NOMEM, "%s: out of memory", in->name);
    if (inflateInit2(&z, 15 + 16) != Z_OK) { /* 16: a gzip header is demanded */
        rc = err_set(e, ERR_NOMEM, "%s: cannot set up decompression", in->name);
    } else {
        rc = read_gzip_stream(in, &z, buf, e);
        inflateEnd(&z);
    }
    free(buf);
    return rc;
}

static bool ends_in_gz(const char *path)
{
    size_t n = strlen(path);
    return n > 3 && strcmp(path + n - 3, ".gz") == 0;
}

int text_read(char **text, size_t *len, const char *path, size_t max_bytes, struct err *e)
{
    struct text_in in = {.name = path, .fd = STDIN_FILENO, .max = max_bytes ? max_bytes : DEFAULT_MAX};
    bool from_stdin = strcmp(path, "-") == 0;
    struct stat st;
    int rc;
    if (in.max > SIZE_MAX / 4)
        in.max = SIZE_MAX / 4;
    if (from_stdin)
        in.name = "standard input";
    else
        in.fd = open(path, O_RDONLY | O_CLOEXEC);
    if (in.fd < 0)
        return err_set_open(e, path, errno);
    if (fstat(in.fd, &st) == 0 && S_ISDIR(st.st_mode))
        rc = err_set(e, ERR_IO, "%s: is a folder, not a text file", in.name);
    else
        rc = !from_stdin && ends_in_gz(path) ? read_gzip(&in, e) : read_plain(&in, e);
    if (rc == 0 && in.len > in.max)
        rc = err_set(e, ERR_IO, "%s: holds more than %zu bytes of text; split it", in.name, in.max);
    if (!from_stdin)
        close(in.fd);
    if (rc == 0 && !in.data)
        rc = grow(&in, e);
    if (rc) {
        free(in.data);
        return rc;
    }
    in.data[in.len] = 0;
    *text = in.data;
    *len = in.len;
    return 0;
}
