/* model_name.h - what the name of a model says: "Qwen/Qwen2.5-Coder-7B-Instruct" into organisation, base
 * name, size, finetune, version. Specification, architectures 20; the rules are those of llama.cpp's
 * converter. */
#ifndef KERF_MODEL_NAME_H
#define KERF_MODEL_NAME_H

#include "libquant/base/arena.h"
#include "libquant/base/err.h"

#include <stdint.h>

/* Parts that the name does not have are NULL. Strings live in the arena. */
struct model_name {
    const char *full, *organization, *basename, *finetune, *version, *size_label;
};

/* `n_params`: real parameter count, against which a size in the name is judged; 0: unknown. */
int model_name_parse(struct model_name *out, const char *id, uint64_t n_params, struct arena *arena,
                     struct err *e);

/* "qwen2.5-coder" -> "Qwen2.5 Coder": words that are all lower case and no version or number get a capital.
 */
int model_name_title(const char **out, const char *id, struct arena *arena, struct err *e);

/* "494M", "7.6B", "128x1.8B". `n_experts` 0: dense. `expert`: parameters of one expert over all layers. */
const char *model_name_size_label(uint64_t total, uint64_t shared, uint64_t expert, uint64_t n_experts,
                                  struct arena *arena);

#endif
