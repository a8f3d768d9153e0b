/* opt_page.h - pieces of man pages, for opt_page.c and the page of the whole program. All print on standard
 * output. */
#ifndef KERF_OPT_PAGE_H
#define KERF_OPT_PAGE_H

#include <stddef.h>

/* Title and NAME: "kerf convert" becomes kerf-convert(1). */
void opt_page_head(const char *name, const char *summary);

/* `n` bytes of plain text as roff reads them. */
void opt_roff(const char *text, size_t n);

/* Exit status, see also. */
void opt_page_tail(void);

#endif
