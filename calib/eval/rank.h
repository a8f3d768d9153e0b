/* rank.h - do two series order things alike? Both coefficients are 1 for the same order, -1 for the opposite.
 *
 *     Kendall  tau-b = (C - D) / sqrt( (P - Ta) (P - Tb) )
 *     Spearman rho   = correlation of the ranks, ties sharing the mean of theirs
 *
 * C and D are the pairs that both series order alike and oppositely, P all pairs, Ta and Tb the pairs that
 * are tied in a and in b. Kendall 1945 (Biometrika 33) with ties; computed as Knight 1966 (JASA 61). */
#ifndef KERF_RANK_H
#define KERF_RANK_H

#include "libquant/base/err.h"

#include <stddef.h>

/* n pairs of finite numbers, O(n log n). NaN when a series has no two different values. ERR_NOMEM. */
int rank_agreement(double *kendall, double *spearman, const double *a, const double *b, size_t n,
                   struct err *e);

#endif
