/* allocate_page.h - an allocation as one self-contained HTML page: bits of each tensor as a map of layers and
 * kinds, and the least expected loss for every size, with the standard mixes beside it. */
#ifndef KERF_ALLOCATE_PAGE_H
#define KERF_ALLOCATE_PAGE_H

#include "calib/solve/confirm.h"

#include <stdio.h>

struct corpus;
struct page_about;

/* What allocator and choice do not know of themselves. */
struct allocate_source {
    const char *path; /* of the model, or NULL */
    const struct corpus
        *corpus; /* texts of this run; NULL, or without texts: the losses were read from a table */
};

/* Solves some thirty budgets for the frontier. `c`: how it was confirmed; NULL or without a mix: not. Write
 * errors are the FILE's: ask ferror. */
int allocate_page(const struct allocator *a, const struct allocation *r, const struct confirmation *c,
                  const struct allocate_source *source, const struct page_about *about, FILE *out,
                  struct err *e);

#endif
