/* plan_origin.h - is a plan used on what it was measured with? */
#ifndef KERF_PLAN_ORIGIN_H
#define KERF_PLAN_ORIGIN_H

#include "formats/gguf/imatrix_file.h"
#include "formats/model/model.h"
#include "formats/recipe/plan.h"

/* What a plan says of weights and importance matrix, beside those at hand. */
struct plan_origin {
    char remarks[2][256]; /* warnings, with their code */
    size_t n;
};

enum plan_origin_parts {
    PLAN_ORIGIN_WEIGHTS = 1,    /* not for a model with more tensors than a plan speaks of */
    PLAN_ORIGIN_IMPORTANCE = 2, /* not where the matrix is collected on the way */
};

/* `imatrix` NULL: none is used. `parts`: what is compared, of enum plan_origin_parts; weights that may be
 * missing or packed never are, since their hash would be another one anyway. */
struct plan_origin plan_origin_compare(const struct plan *plan, const struct model *m,
                                       const struct imatrix *imatrix, unsigned parts);

#endif
