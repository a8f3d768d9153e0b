/* textfile.h - a small file that is printed: through a FILE into memory, then to its name whole or not at
 * all.
 *
 *     struct textfile t;
 *     int rc = textfile_begin(&t, path, e);
 *     if (rc != 0)
 *         return rc;
 *     fprintf(t.out, ...);
 *     return textfile_end(&t, 0, overwrite, e);
 */
#ifndef KERF_TEXTFILE_H
#define KERF_TEXTFILE_H

#include "err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

struct textfile {
    FILE *out;        /* print here until textfile_end */
    const char *path; /* borrowed */
    char *text;       /* what was printed; owned */
    size_t n;
};

/* 0, and textfile_end is due; or ERR_NOMEM. */
int textfile_begin(struct textfile *t, const char *path, struct err *e);

/* Write what was printed (outfile.h) and release it. Where `rc` is not 0, printing failed: nothing is
 * written, and `rc` is the answer. */
int textfile_end(struct textfile *t, int rc, bool overwrite, struct err *e);

#endif
