/* model_sum.h - adapters in words: ADAPTER[=SCALE], and MODEL+ADAPTER[=SCALE]+... for a model with some.
 *
 * Names of files and folders may hold '+' and '=': what is there under the whole name counts first. */
#ifndef KERF_MODEL_SUM_H
#define KERF_MODEL_SUM_H

#include "model.h"

#include "libquant/base/arena.h"

struct model_sum {
    const char *model;
    struct model_adapter *adapters;
    size_t n;
};

/* "ADAPTER" or "ADAPTER=SCALE", `n` bytes of text; the path is copied into the arena. ERR_ARG: the scale is
 * no finite number. */
int model_adapter_parse(struct model_adapter *out, const char *text, size_t n, struct arena *arena,
                        struct err *e);

/* Is `text` no file or folder, but begins with the name of one and a '+'? */
bool model_is_sum(const char *text);

/* What to call it in a table: without the folders in front of the model's name. Inside of `text`. */
const char *model_sum_label(const char *text);

/* The parts of a sum; of another text the model is all of it, borrowed. Everything else lives in the arena.
 */
int model_sum_parse(struct model_sum *out, const char *text, struct arena *arena, struct err *e);

#endif
