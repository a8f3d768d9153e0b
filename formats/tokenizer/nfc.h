/* nfc.h - Unicode normalisation form C of long texts: linear time, and memory only where something changes.
 */
#ifndef KERF_NFC_H
#define KERF_NFC_H

#include "libquant/base/err.h"

#include <stddef.h>

/* `text` is valid UTF-8. *out: NULL when the text is in form C already, else malloc'ed, `*out_len` bytes,
 * caller frees with free(). The Unicode version is utf8proc's. ERR_NOMEM. */
int nfc_normalize(char **out, size_t *out_len, const char *text, size_t len, struct err *e);

#endif
