/* score_page.h - what kerf score found, as one self-contained HTML page: accuracies with their errors, flips,
 * the table, the data, and what is needed to repeat it. */
#ifndef KERF_SCORE_PAGE_H
#define KERF_SCORE_PAGE_H

#include "score_print.h"

struct page_about;

/* 0 or ERR_NOMEM. Write errors are the FILE's: ask ferror. */
int score_page(const struct score_result *r, const struct page_about *about, FILE *out);

#endif
