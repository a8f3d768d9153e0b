/* page.h - what the pages of reports have in common: links to the data in them, and tables that sort. No page
 * asks the network for anything. */
#ifndef KERF_PAGE_H
#define KERF_PAGE_H

#include <stdio.h>

/* A link "name" behind which what `print` writes is kept, inside of the page; `type`: "text/csv". 0 or
 * ERR_NOMEM. */
int page_link(FILE *out, const char *name, const char *type, void (*print)(const void *ctx, FILE *out),
              const void *ctx);

/* At the end of the page: a press on a head of a table sorts by its column, the first number of each cell;
 * again: the other way. */
void page_sort_script(FILE *out);

#endif
