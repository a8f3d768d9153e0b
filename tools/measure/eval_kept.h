/* eval_kept.h - inside of eval_command: --resume. */
#ifndef KERF_EVAL_KEPT_H
#define KERF_EVAL_KEPT_H

#include "eval_command.h"

/* Run the models of `r` with the folder of scores that --state names, into r->evaluation. */
int eval_kept(struct eval_run *r, const struct evaluate_model *list, const struct evaluate_options *opt,
              struct err *e);

#endif
