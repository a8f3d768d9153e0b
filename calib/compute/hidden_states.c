/* hidden_states.c - see hidden_states.h. */
#include "hidden_states.h"

#include "libquant/base/checked.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define COPY_ROWS 256 /* at a time */

struct host_states {
    struct hidden_states base;
    float *rows; /* NULL: in the file */
    int fd;
    char folder[256]; /* for messages */
};

static int open_file(struct host_states *h, uint64_t n_bytes, struct err *e)
{
    const char *folder = getenv("TMPDIR");
    snprintf(h->folder, sizeof h->folder, "%s", folder && folder[0] ? folder : "/var/tmp");
    char path[300];
    snprintf(path, sizeof path, "%s/kerf-states-XXXXXX", h->folder);
    h->fd = mkstemp(path);
    if (h->fd < 0)
        return err_set(e, ERR_IO, "cannot create a temporary file in '%s' for %llu bytes of states: %s",
                       h->folder, (unsigned long long)n_bytes, strerror(errno));
    unlink(path);
    return 0;
}

static const struct hidden_states_kind on_host;

int hidden_states_new(struct hidden_states **out, size_t n_rows, size_t n_cols, uint64_t memory_bytes,
                      struct err *e)
{
    uint64_t n = 0, n_bytes = 0;
    struct host_states *h = calloc(1, sizeof *h);
    if (!h || !checked_mul(n_rows, n_cols, &n) || !checked_mul(n, sizeof(float), &n_bytes) ||
        n_bytes > (uint64_t)INT64_MAX) {
        free(h);
        return err_set(e, ERR_NOMEM, "out of memory for %zu states of %zu values", n_rows, n_cols);
    }
    h->base = (struct hidden_states){&on_host, n_rows, n_cols};
    h->fd = -1;
    if (n_bytes <= memory_bytes)
        h->rows = aligned_alloc(64, (size_t)((n_bytes + 64) / 64 * 64));
    if (!h->rows) {
        int rc = open_file(h, n_bytes, e);
        if (rc != 0) {
            free(h);
            return rc;
        }
    }
    *out = &h->base;
    return 0;
}

static void host_free(struct hidden_states *base)
{
    struct host_states *h = (struct host_states *)(void *)base;
    if (h->fd >= 0)
        close(h->fd);
    free(h->rows);
    free(h);
}

static bool host_in_memory(const struct hidden_states *base)
{
    return ((const struct host_states *)(const void *)base)->rows != NULL;
}

static int host_get(const struct hidden_states *base, size_t row0, size_t n, float *buffer, float **rows,
                    struct err *e)
{
    const struct host_states *h = (const struct host_states *)(const void *)base;
    if (h->rows) {
        *rows = h->rows + row0 * base->n_cols;
        return 0;
    }
    char *p = (char *)buffer;
    size_t left = n * base->n_cols * sizeof(float);
    off_t at = (off_t)(row0 * base->n_cols * sizeof(float));
    while (left > 0) {
        ssize_t got = pread(h->fd, p, left, at);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return err_set(e, ERR_IO, "cannot read back states from the temporary file in '%s': %s",
                           h->folder, got < 0 ? strerror(errno) : "it is shorter than what was written");
        p += got;
        at += got;
        left -= (size_t)got;
    }
    *rows = buffer;
    return 0;
}

static int host_put(struct hidden_states *base, size_t row0, size_t n, const float *rows, struct err *e)
{
    struct host_states *h = (struct host_states *)(void *)base;
    if (h->rows) {
        if (rows != h->rows + row0 * base->n_cols)
            memcpy(h->rows + row0 * base->n_cols, rows, n * base->n_cols * sizeof(float));
        return 0;
    }
    const char *p = (const char *)rows;
    size_t left = n * base->n_cols * sizeof(float);
    off_t at = (off_t)(row0 * base->n_cols * sizeof(float));
    while (left > 0) {
        ssize_t put = pwrite(h->fd, p, left, at);
        if (put < 0 && errno == EINTR)
            continue;
        if (put <= 0)
            return err_set(
                e, ERR_IO,
                "cannot write states to the temporary file in '%s': %s; set TMPDIR to a folder with "
                "room, or raise --memory",
                h->folder, strerror(errno));
        p += put;
        at += put;
        left -= (size_t)put;
    }
    return 0;
}

static const struct hidden_states_kind on_host = {host_free, host_get, host_put, host_in_memory};

void hidden_states_free(struct hidden_states *h)
{
    if (h)
        h->kind->free(h);
}

size_t hidden_states_n_rows(const struct hidden_states *h)
{
    return h->n_rows;
}

size_t hidden_states_n_cols(const struct hidden_states *h)
{
    return h->n_cols;
}

bool hidden_states_in_memory(const struct hidden_states *h)
{
    return h->kind->in_memory(h);
}

int hidden_states_get(const struct hidden_states *h, size_t row0, size_t n, float *buffer, float **rows,
                      struct err *e)
{
    return h->kind->get(h, row0, n, buffer, rows, e);
}

int hidden_states_put(struct hidden_states *h, size_t row0, size_t n, const float *rows, struct err *e)
{
    return h->kind->put(h, row0, n, rows, e);
}

/* --- rows of others --- */

struct rows_of {
    struct hidden_states base, *of;
    size_t first;
};

static void rows_free(struct hidden_states *h)
{
    free(h);
}

static int rows_get(const struct hidden_states *h, size_t row0, size_t n, float *buffer, float **rows,
                    struct err *e)
{
    const struct rows_of *r = (const struct rows_of *)(const void *)h;
    return hidden_states_get(r->of, r->first + row0, n, buffer, rows, e);
}

static int rows_put(struct hidden_states *h, size_t row0, size_t n, const float *rows, struct err *e)
{
    const struct rows_of *r = (const struct rows_of *)(const void *)h;
    return hidden_states_put(r->of, r->first + row0, n, rows, e);
}

static bool rows_in_memory(const struct hidden_states *h)
{
    return hidden_states_in_memory(((const struct rows_of *)(const void *)h)->of);
}

static const struct hidden_states_kind rows_of_others = {rows_free, rows_get, rows_put, rows_in_memory};

int hidden_states_rows(struct hidden_states **out, struct hidden_states *of, size_t first, size_t n,
                       struct err *e)
{
    struct rows_of *r = calloc(1, sizeof *r);
    if (!r)
        return err_set(e, ERR_NOMEM, "out of memory for a view of states");
    r->base = (struct hidden_states){&rows_of_others, n, of->n_cols};
    r->of = of;
    r->first = first;
    *out = &r->base;
    return 0;
}

int hidden_states_copy(struct hidden_states *to, size_t at, const struct hidden_states *from, size_t first,
                       size_t n, struct err *e)
{
    float *buffer = malloc(COPY_ROWS * from->n_cols * sizeof *buffer + 1);
    int rc = buffer ? 0 : err_set(e, ERR_NOMEM, "out of memory for states");
    for (size_t i = 0; rc == 0 && i < n; i += COPY_ROWS) {
        size_t now = n - i < COPY_ROWS ? n - i : COPY_ROWS;
        float *rows = NULL;
        rc = hidden_states_get(from, first + i, now, buffer, &rows, e);
        if (rc == 0)
            rc = hidden_states_put(to, at + i, now, rows, e);
    }
    free(buffer);
    return rc;
}
