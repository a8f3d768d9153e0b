/* plan_origin.h - is a plan used on what it was measured with? */
#ifndef KERF_PLAN_ORIGIN_H
#define KERF_PLAN_ORIGIN_H

#include "formats/gguf/imatrix_file.h"
#include "formats/model/model.h"
#include "formats/recipe/plan.h"

/* What a plan says of weights and importance matrix, beside those at hand (`imatrix` NULL: none). */
struct plan_origin {
    char remarks[2][256]; /* warnings, with their code */
    size_t n;
};

/* Weights are not compared where they may be missing or packed, nor without `compare_weights`, for a model
 * with more tensors than a plan speaks of: their hash would be another one anyway. */
struct plan_origin plan_origin_compare(const struct plan *plan, const struct model *m,
                                       const struct imatrix *imatrix, bool compare_weights);

#endif
