/* plan_origin.c - see plan_origin.h. */
#include "plan_origin.h"

#include "loss_table.h"

#include <stdio.h>
#include <string.h>

static void remark(struct plan_origin *o, const char *what, const char *planned, const char *found,
                   const char *advice)
{
    snprintf(o->remarks[o->n++], sizeof o->remarks[0],
             "[plan-origin] the plan was measured with %s (%.12s..., at hand %.12s%s); %s", what, planned,
             found, strlen(found) > 12 ? "..." : "", advice);
}

struct plan_origin plan_origin_compare(const struct plan *plan, const struct model *m,
                                       const struct imatrix *imatrix, unsigned parts)
{
    struct plan_origin o = {.n = 0};
    const char *weights = plan_weights(plan), *importance = plan_importance(plan);
    char found[65] = "none";
    bool comparable = weights[0] && (parts & PLAN_ORIGIN_WEIGHTS);
    for (size_t i = 0; i < model_n_tensors(m); i++)
        comparable = comparable && !model_tensor(m, i)->has_blocks;
    if (comparable && loss_weights_hash(m, found, NULL) == 0 && strcmp(found, weights) != 0)
        remark(&o, "other weights", weights, found, "what it promises holds for them");
    snprintf(found, sizeof found, "none");
    if (imatrix)
        loss_imatrix_hash(imatrix, found);
    if ((parts & PLAN_ORIGIN_IMPORTANCE) && strlen(importance) == 64 && strcmp(found, importance) != 0)
        remark(&o, imatrix ? "another importance matrix" : "an importance matrix", importance, found,
               "give that one with --imatrix");
    return o;
}
