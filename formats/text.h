/* text.h - a whole input of text in memory: a plain file, a gzip file, or standard input. */
#ifndef KERF_TEXT_H
#define KERF_TEXT_H

#include "libquant/base/err.h"

#include <stddef.h>

/* Read `path`: "-" is standard input, a name that ends in ".gz" is gzip (one member or several), anything
 * else (pipes included) is taken as it is. At most `max_bytes` after decompression (0: 1 GiB), which also
 * bounds what a small hostile gzip file may swell to. *text: malloc'ed, `*len` bytes and a NUL that is not
 * counted; caller frees with free(). The bytes are not checked to be UTF-8 (see utf8.h). ERR_IO: cannot be
 * read, or larger than the bound. ERR_FORMAT: not gzip, damaged, cut short, or followed by something else. */
int text_read(char **text, size_t *len, const char *path, size_t max_bytes, struct err *e);

#endif
