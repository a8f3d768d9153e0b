/* knapsack.h - the multiple-choice knapsack behind bit allocation: one option for each item, least total
 * loss, within a budget of bytes. Solved to proven optimality, or with a stated gap when that would take too
 * long.
 *
 * Truth: specification, calibration-and-evaluation 10.3; Pisinger, "A minimal algorithm for the
 * multiple-choice knapsack problem" (1995). */
#ifndef KERF_KNAPSACK_H
#define KERF_KNAPSACK_H

#include "libquant/base/err.h"

#include <stddef.h>
#include <stdint.h>

struct knapsack_option {
    uint64_t n_bytes;
    double loss; /* finite, any sign */
};

struct knapsack_item {
    const struct knapsack_option *options; /* borrowed; at least one */
    size_t n_options;
};

struct knapsack_result {
    double loss;        /* of the choice */
    double lower_bound; /* no choice within the budget has less; equal to `loss` when optimality is proven */
    uint64_t n_bytes;   /* of the choice, at most the budget */
    uint64_t min_bytes; /* of the cheapest choice; set also when the budget is too small */
};

/* choice[i]: index of the option taken for item i (caller's array of n_items). Ties go to fewer bytes, then
 * to the lower option index, so the answer is the same everywhere. ERR_ARG when even the smallest options
 * exceed the budget (result->min_bytes tells by how much), when an item has no option or a loss is not
 * finite. ERR_NOMEM. */
int knapsack_solve(const struct knapsack_item *items, size_t n_items, uint64_t budget_bytes, size_t *choice,
                   struct knapsack_result *result, struct err *e);

#endif
