/* text_sniff.h - does an input that is to be read as text evidently hold something else?
 *
 * Any bytes are legal input and have tokens, so a doubt refuses nothing; but a model file, an archive or a
 * text in another encoding gives figures that mean nothing, often after hours, and whoever asked should hear
 * of it. Two kinds are refused, because they come by a slip and nothing else begins like them: GGUF and gzip
 * files. */
#ifndef KERF_TEXT_SNIFF_H
#define KERF_TEXT_SNIFF_H

#include "libquant/base/err.h"

#include <stdbool.h>
#include <stddef.h>

#define TEXT_SNIFF_BYTES 96

/* Is it doubtful that `text` is UTF-8 text? The head of a known kind of file, NUL bytes, or bytes that are
 * not UTF-8 in its first 8 KiB, more of them than a stray one here and there. `why`: what was seen, as the
 * end of the sentence "it ..."; untouched without a doubt. Less than 64 bytes are never doubted. */
bool text_sniff(char why[TEXT_SNIFF_BYTES], const char *text, size_t len);

/* ERR_FORMAT, naming `path`, for what is never a text: a GGUF file, or a gzip file that is not called one.
 * Also with less than 64 bytes. */
int text_refuse(const char *path, const char *text, size_t len, struct err *e);

#endif
