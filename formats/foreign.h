/* foreign.h - a file that holds something else than its name says, in ways that are so common that the
 * complaint of a parser would send people the wrong way: what git-lfs has not fetched, what a server answered
 * in the place of the file, a file of another kind. Every reader asks before it looks at its own format. */
#ifndef KERF_FOREIGN_H
#define KERF_FOREIGN_H

#include "libquant/base/err.h"

#include <stddef.h>

/* What is looked for besides git-lfs pointers and web pages, which no reader takes. */
enum foreign_kind {
    FOREIGN_GGUF = 1,
    FOREIGN_TEXT = 2,   /* text of any other kind: the reader's format is binary */
    FOREIGN_PICKLE = 4, /* a zip archive, in the place of weights */
};

/* ERR_FORMAT, naming `path` and what to do, when the `n` bytes at `bytes`, the head of a file or all of it,
 * begin what nobody can have meant; else 0. `kinds`: of enum foreign_kind. `expected` ("a plan") ends the
 * sentence about a GGUF file. */
int foreign_refuse(const char *path, const void *bytes, size_t n, unsigned kinds, const char *expected,
                   struct err *e);

#endif
