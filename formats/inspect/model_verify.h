/* model_verify.h - is a model what it claims to be: every tensor the architecture asks for, in its shape,
 * with finite values and valid blocks, and the metadata that a runtime cannot do without.
 *
 * Opening the model has checked the structure of its files already. What is found wrong is a list of
 * sentences, not a failure of the call. */
#ifndef KERF_MODEL_VERIFY_H
#define KERF_MODEL_VERIFY_H

#include "formats/model/model.h"

#include "libquant/base/pool.h"
#include "libquant/base/progress.h"

struct verify_report {
    size_t n_findings; /* 0: the model is sound */
    const char **findings;
    size_t n_notes; /* what could not be checked; with the head of remark.h: a warning */
    const char **notes;
    size_t n_tensors;
    uint64_t n_bytes;
    void *owner; /* internal */
};

/* Would a GGUF file of this architecture be of no use without `key`: general.architecture, the numbers of the
 * model, its vocabulary? `arch_name` may be one that is unknown here. */
bool model_needs_key(const char *arch_name, const char *key);

/* At most one finding for each tensor and kind. `pool` NULL: the values of the tensors are not looked at.
 * *out: caller frees with verify_report_release. */
int model_verify(struct verify_report *out, const struct model *m, struct pool *pool,
                 const struct progress *progress, struct err *e);
void verify_report_release(struct verify_report *r);

#endif
