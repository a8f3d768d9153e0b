/* collect_command.h - what the commands that collect statistics over a text share: a state file beside the
 * output, outputs that are claimed and checked before hours of work, one model, one text. */
#ifndef KERF_COLLECT_COMMAND_H
#define KERF_COLLECT_COMMAND_H

#include "eval_command.h"

/* `state` is where a stopped run is kept. */
typedef int (*collect_fn)(struct eval_run *r, const char *model, const void *args, const char *state,
                          struct err *e);

/* From parsed options to an exit code: run(r, model, args, OUTPUT.kerf-state). */
int collect_command(const struct opt_command *cmd, struct eval_run *r, const char *model, const char *output,
                    collect_fn run, const void *args);

/* Checks and claims the outputs, opens model and text. */
int collect_open(struct eval_run *r, const char *model, const char *output, const char *state, struct err *e);

#endif
