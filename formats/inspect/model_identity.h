/* model_identity.h - is this the model that something was measured on? A word about a model that a file can
 * carry, cheap to make, and the same for a checkpoint folder and the GGUF files made of it.
 *
 * Two parts. The norms (vectors that every quantization keeps in float32) tell models apart at any precision;
 * a few rows of every matrix tell apart those whose norms are equal, where neither is quantized and both have
 * the same precision. A model that was trained further without its norms, seen quantized, is taken for the
 * same. */
#ifndef KERF_MODEL_IDENTITY_H
#define KERF_MODEL_IDENTITY_H

#include "formats/model/model.h"

#define MODEL_IDENTITY_BYTES 96

/* "norms 16 hex digits, BF16 16 hex digits"; the second half is "quantized" for a model that is. Reads three
 * rows of each matrix. "" when the weights are not there. */
int model_identity(char out[MODEL_IDENTITY_BYTES], const struct model *m, struct err *e);

/* Do two such words certainly speak of different models? False when one of them is empty or unknown. */
bool model_identity_differs(const char *a, const char *b);

#endif
