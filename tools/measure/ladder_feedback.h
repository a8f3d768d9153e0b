/* ladder_feedback.h - levels made with error feedback: every matrix of a level solved under Hessians from a
 * file, as kerf quantize --method feedback --hessian FILE --held-out 0 does, and its blocks put in place of
 * the mix's.
 *
 *     ladder_feedback_open(&f, "h.gguf", &run, &e);      // after the models are open
 *     ladder_feedback_solve(f, &run, &e);                // all levels
 *     ...evaluate; eval_release(&run)...
 *     ladder_feedback_free(f);                           // the levels' weights borrow the blocks */
#ifndef KERF_LADDER_FEEDBACK_H
#define KERF_LADDER_FEEDBACK_H

#include "eval_command.h"

struct ladder_feedback;

/* *out: caller frees. Warns of Hessians of other weights. ERR_ARG: a model without a language head. */
int ladder_feedback_open(struct ladder_feedback **out, const char *path, struct eval_run *r, struct err *e);
void ladder_feedback_free(struct ladder_feedback *f); /* NULL is allowed */

/* Levels without a type that takes error feedback stay as they are. Warns of texts that the Hessians may have
 * seen. Blocks lie in unlinked files of $TMPDIR (else /var/tmp). */
int ladder_feedback_solve(struct ladder_feedback *f, struct eval_run *r, struct err *e);

#endif
