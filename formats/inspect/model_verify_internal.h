/* model_verify_internal.h - what the files of model_verify.h share; included by nobody else. */
#ifndef KERF_MODEL_VERIFY_INTERNAL_H
#define KERF_MODEL_VERIFY_INTERNAL_H

#include "model_verify.h"

#include "libquant/base/string_list.h"

/* Behind verify_report.owner. */
struct verify_owner {
    struct arena arena;
    struct string_list findings, notes; /* in `arena` */
};

int verify_add(struct verify_owner *o, struct string_list *l, struct err *e, const char *fmt, ...)
    KERF_PRINTF(4, 5);

/* "X.scale" or "X.input_scale" beside "X.weight": factors of weights in 4-bit floats. Returns the weight. */
const struct model_tensor *verify_factor_of(const struct model *m, const char *name);

struct arch_model;

/* A finding for each tensor that the family does not have, or has in another shape. */
int verify_shapes(struct verify_owner *o, const struct arch_model *a, const struct model *m, struct err *e);

/* All about keys, names and shapes of a file of towers (architecture "clip"). */
int verify_towers(struct verify_owner *o, const struct model *m, struct err *e);

/* At most one finding about the values of `t`. */
int verify_values(struct verify_owner *o, const struct model *m, const struct model_tensor *t,
                  struct pool *pool, struct err *e);

#endif
