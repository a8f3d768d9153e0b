/* feedback_sequence.h - the matrices of a model solved once more, each behind layers that are quantized
 * already, for the inputs that it is going to have.
 *
 * Two models go through the text side by side, a step of a layer at a time: the original, and the one of the
 * blocks that were chosen so far. Where they enter a step, the sums of what each product is given (H', and
 * how far it is from the original's) tell what its weights should be (feedback_correction.h); they are
 * solved, and the second model goes on with them. Products of experts and of latents, and the head, stay as
 * they are. Memory: as hessian_collect.h, for the products of one step; states between steps. */
#ifndef KERF_FEEDBACK_SEQUENCE_H
#define KERF_FEEDBACK_SEQUENCE_H

#include "feedback_model.h"

/* Corrects the tensors that are solved and not plain. `text` to calibrate on; `validation` decides about
 * strengths. Both borrowed during the call. */
int feedback_model_correct(struct feedback_model *f, const struct windows *text,
                           const struct windows *validation, struct err *e);

#endif
