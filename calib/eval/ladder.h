/* ladder.h - the quality ladder: which levels it has, and how a list of them is read. The measuring is
 * evaluate.h with the candidates that these names give. */
#ifndef KERF_LADDER_H
#define KERF_LADDER_H

#include "candidate.h"

/* The levels of a ladder when none are named: from Q8_0 down to Q2_K, those that need no importance matrix.
 */
extern const char *const ladder_default_types[];
extern const size_t ladder_n_default_types;

/* Mixes named in `text`, separated by commas; NULL: the default. *out: malloc'ed, caller frees with free().
 * ERR_ARG names the word that is no mix, which is also in `unknown`, else "". */
int ladder_parse_types(const struct mix ***out, size_t *n, const char *text, char unknown[64], struct err *e);

#endif
