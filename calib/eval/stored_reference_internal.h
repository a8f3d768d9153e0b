/* stored_reference_internal.h - what writer and reader of a stored reference share. */
#ifndef KERF_STORED_REFERENCE_INTERNAL_H
#define KERF_STORED_REFERENCE_INTERNAL_H

#include "stored_reference.h"

#include "formats/gguf/gguf_meta.h"
#include "libquant/base/sha256.h"

#define REFERENCE_TYPE    "kerf-reference"
#define REFERENCE_VERSION 2

enum reference_tensor {
    REFERENCE_INPUTS,
    REFERENCE_NLL,
    REFERENCE_TOP,
    REFERENCE_ENDS,
    REFERENCE_TEXT_OF,
    REFERENCE_USE,
    REFERENCE_SKETCHES,
    REFERENCE_N_TENSORS
};
extern const char *const reference_tensor_names[REFERENCE_N_TENSORS];

/* The checksum begins with all metadata but itself. Then come inputs, sketches, nll, top, ends,
 * and of version 2 text_of and use. */
void reference_hash_begin(struct sha256 *h, const struct gguf_meta *m);

#endif
