/* names.h - names of files: those that stand beside an output while it is written, the parts of a path, and
 * how names compare. */
#ifndef KERF_NAMES_H
#define KERF_NAMES_H

#include <stdbool.h>
#include <stddef.h>

struct stat;

/* What an output's name is followed by. */
#define NAME_PART        ".kerf-part"         /* its bytes, until it is complete (outfile.h) */
#define NAME_JOURNAL     NAME_PART ".journal" /* which of them are safely on the disk (rewrite_resume.c) */
#define NAME_JOURNAL_NEW NAME_JOURNAL ".new"  /* the journal while it is begun */
#define NAME_OLD         ".kerf-old"          /* a part of the set that is being replaced (outset.h) */

/* `path` followed by `ending`. Owned by the caller (free); NULL without memory. */
char *name_with(const char *path, const char *ending);

bool name_ends_with(const char *name, const char *ending);

/* The part of `path` that tables show: behind its last slash, or all of it where nothing stands there. */
const char *name_short(const char *path);

/* The last component of a folder's path, before any slashes at its end: the *n bytes from the pointer on. */
const char *name_last(const char *path, size_t *n);

/* The path of the folder that a file is in, "." when `path` names none. Owned by the caller (free); NULL
 * without memory. */
char *name_folder(const char *path);

/* One file under two names? */
bool stat_is_same(const struct stat *a, const struct stat *b);

#endif
