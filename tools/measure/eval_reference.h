/* eval_reference.h - inside of eval_command: a reference that is stored in a file, or is to be. */
#ifndef KERF_EVAL_REFERENCE_H
#define KERF_EVAL_REFERENCE_H

#include "eval_command.h"

/* Open r->reference_path; what the command line says of windows must agree with it, and r->windows are its
 * own. Before the candidates. */
int eval_reference_open(struct eval_run *r, struct err *e);

/* Candidates that read other tokens than the reference did cannot be compared with it. */
int eval_reference_check_tokens(struct eval_run *r, struct err *e);

/* A text that was given although the file has its tokens: it is the same one. `given`: cut like r->windows.
 */
int eval_reference_check_text(const struct eval_run *r, const struct windows *given, struct err *e);

/* What the report says of a stored reference. */
void eval_reference_describe(const struct eval_run *r, struct report *p);

/* Begin to write r->save_reference, if that is asked for, and let `opt` feed it; after the run its end, which
 * keeps or drops it. */
int eval_reference_begin(struct eval_run *r, struct evaluate_options *opt, struct err *e);
int eval_reference_end(struct eval_run *r, int rc, struct err *e);

#endif
