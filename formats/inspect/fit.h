/* fit.h - which levels of a model a given memory holds at a given context.
 *
 *     fit_level(&level, model, mix_find("Q4_K_M"), &question, &e);
 *
 * Weights are those that `kerf quantize` would write, tensor by tensor (rewrite.h), without metadata and
 * padding, which a runtime keeps elsewhere; the rest is footprint.h. */
#ifndef KERF_FIT_H
#define KERF_FIT_H

#include "footprint.h"
#include "formats/recipe/recipe.h"

#include "formats/gguf/imatrix_file.h"

struct fit_question {
    const struct footprint *footprint; /* of the model */
    uint64_t memory_bytes, ctx;
    struct kv_cache kv;            /* types of keys and values */
    const char *recipe;            /* "llama.cpp" */
    const struct imatrix *imatrix; /* changes some types; NULL: none */
    const char *imatrix_path;
    bool requantize;
};

struct fit_level {
    char type[32];       /* "Q4_K_M" */
    uint64_t file_bytes; /* with its header; 0: not known, for want of a vocabulary */
    uint64_t weights_bytes, cache_bytes, work_bytes, total_bytes;
    uint64_t cache_saved;        /* bytes less than with a cache in F16 */
    bool fits, lacks_importance; /* the latter: cannot be made without an importance matrix */
    uint64_t max_ctx;            /* 0: not even one token */
};

/* One level; `mix` NULL: the model as it is (a checkpoint: at the precision of its source). Errors: those of
 * rewrite_model's dry run. */
int fit_level(struct fit_level *out, struct model *m, const struct mix *mix, const struct fit_question *q,
              struct err *e);

/* Do levels below make sense for this model? Always from float weights; from quantized ones while they have
 * at least 8 bits, since what a narrower type has lost no other brings back. */
bool fit_has_levels(const struct model *m);

#endif
