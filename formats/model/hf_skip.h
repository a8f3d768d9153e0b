/* hf_skip.h - which tensors of a checkpoint become nothing, and why: those of parts that are not converted,
 * buffers, and what the user asks to leave out. */
#ifndef KERF_HF_SKIP_H
#define KERF_HF_SKIP_H

#include "model.h"

#include "formats/arch/arch.h"
#include "libquant/base/arena.h"

struct pattern;

/* Caller-owned; a zeroed struct is empty. */
struct hf_skip {
    const struct arch_model *a;
    const struct model_options *opt;
    struct pattern **patterns; /* of opt->skip_tensors, in order */
    bool *used;                /* has it matched a name yet? */
};

/* ERR_ARG quotes an expression that is none. Release also after a failure. */
int hf_skip_init(struct hf_skip *s, const struct arch_model *a, const struct model_options *opt,
                 struct err *e);
void hf_skip_release(struct hf_skip *s);

/* Why the tensor `name`, `stripped` by arch_strip, is left out: *reason, NULL when it is to be mapped.
 * ERR_ARG: an expression that takes too long. */
int hf_skip_reason(struct hf_skip *s, const char *name, const char *stripped, const char **reason,
                   struct err *e);

#endif
