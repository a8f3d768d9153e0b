/* git_lfs.h - a file that git-lfs has not fetched yet: a few lines of text in the place of the content, which
 * every reader would otherwise call broken. */
#ifndef KERF_GIT_LFS_H
#define KERF_GIT_LFS_H

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

/* Takes the file's name. */
#define GIT_LFS_POINTER_FMT                                                                                  \
    "%s: this is a git-lfs pointer, not the file; fetch the real one with `git lfs pull`"

/* Whether these first `n` bytes of a file begin such a pointer. */
static inline bool git_lfs_is_pointer(const void *bytes, size_t n)
{
    static const char first[] = "version https://git-lfs";
    return n >= sizeof first - 1 && memcmp(bytes, first, sizeof first - 1) == 0;
}

#endif
