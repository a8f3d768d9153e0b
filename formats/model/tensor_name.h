/* tensor_name.h - names of a layer's tensors: "blk.<layer>.<kind>", taken apart and put together. */
#ifndef KERF_TENSOR_NAME_H
#define KERF_TENSOR_NAME_H

#include <stdint.h>

#define TENSOR_NAME_MAX 128

/* "blk.7.attn_q.weight": 7, with *kind at "attn_q.weight". Names without a layer: -1, with *kind at the whole
 * name. A layer beyond INT32_MAX counts as that. `kind` may be NULL. */
int64_t tensor_layer(const char *name, const char **kind);

/* The reverse, cut to the buffer. Returns `out`. */
const char *tensor_name_of(char out[TENSOR_NAME_MAX], uint64_t layer, const char *kind);

#endif
