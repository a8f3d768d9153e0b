/* path.h - names of files: those that stand beside an output while it is written, the parts of a path, and
 * how names compare. */
#ifndef KERF_PATH_H
#define KERF_PATH_H

#include <stdbool.h>
#include <stddef.h>

struct stat;

/* What an output's name is followed by. */
#define PATH_PART        ".kerf-part"         /* its bytes, until it is complete (output_file.h) */
#define PATH_JOURNAL     PATH_PART ".journal" /* which of them are safely on the disk (rewrite_resume.c) */
#define PATH_JOURNAL_NEW PATH_JOURNAL ".new"  /* the journal while it is begun */
#define PATH_OLD         ".kerf-old"          /* a part of the set that is being replaced (output_set.h) */

/* `path` followed by `ending`. Owned by the caller (free); NULL without memory. */
char *path_with(const char *path, const char *ending);

bool path_ends_with(const char *name, const char *ending);

/* The part of `path` that tables show: behind its last slash, or all of it where nothing stands there. */
const char *path_short(const char *path);

/* The last component of a folder's path, before any slashes at its end: the *n bytes from the pointer on. */
const char *path_last(const char *path, size_t *n);

/* The path of the folder that a file is in, "." when `path` names none. Owned by the caller (free); NULL
 * without memory. */
char *path_folder(const char *path);

/* One file under two names? */
bool stat_is_same(const struct stat *a, const struct stat *b);

#endif
