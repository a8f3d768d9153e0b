/* text_file.h - a small file that is printed: through a FILE into memory, then to its name whole or not at
 * all.
 *
 *     struct text_file t;
 *     int rc = text_file_begin(&t, path, e);
 *     if (rc != 0)
 *         return rc;
 *     fprintf(t.out, ...);
 *     return text_file_end(&t, 0, overwrite, e);
 */
#ifndef KERF_TEXT_FILE_H
#define KERF_TEXT_FILE_H

#include "libquant/base/err.h"
#include "libquant/base/printed.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

struct text_file {
    FILE *out;        /* print here until text_file_end */
    const char *path; /* borrowed */
    struct printed printed;
};

/* 0, and text_file_end is due; or ERR_NOMEM. */
int text_file_begin(struct text_file *t, const char *path, struct err *e);

/* Write what was printed (output_file.h) and release it. Where `rc` is not 0, printing failed: nothing is
 * written, and `rc` is the answer. */
int text_file_end(struct text_file *t, int rc, bool overwrite, struct err *e);

#endif
