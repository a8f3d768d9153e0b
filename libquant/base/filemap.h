/* filemap.h - a file as a read-only map. Inputs are never opened for writing.
 *
 * Mapped pages belong to the page cache: they cost no working memory, but a streaming reader should drop what
 * it has passed (filemap_drop), so that the resident set stays small, and announce what comes next
 * (filemap_want). */
#ifndef KERF_FILEMAP_H
#define KERF_FILEMAP_H

#include "err.h"

#include <stddef.h>
#include <stdint.h>

struct filemap {
    const uint8_t *data; /* valid until filemap_close; NULL when the file is empty */
    size_t size;
};

/* Map the regular file `path`. Refuses folders, devices and pipes. ERR_IO names the path and the reason. */
int filemap_open(struct filemap *out, const char *path, struct err *e);
void filemap_close(struct filemap *m);

/* Hints about [p, p+n), which must lie inside a map; whole pages only, never an error. */
void filemap_want(const void *p, size_t n);
void filemap_drop(const void *p, size_t n);

#endif
