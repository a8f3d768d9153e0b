/* collect_command.h - what the commands that collect statistics over a text share: a state file beside the
 * output, outputs that are claimed and checked before hours of work, one model, one text. */
#ifndef KERF_COLLECT_COMMAND_H
#define KERF_COLLECT_COMMAND_H

#include "tools/measure/eval_command.h"

/* `state` is where a stopped run is kept. */
typedef int (*collect_fn)(struct eval_run *r, const char *model, const void *args, const char *state,
                          struct err *e);

/* From parsed options to an exit code: run(r, model, args, OUTPUT.kerf-state). */
int collect_command(struct eval_run *r, const char *model, const char *output, collect_fn run,
                    const void *args);

/* Checks and claims the outputs, opens model and text. With `resume` the output may be there. */
int collect_open(struct eval_run *r, const char *model, const char *output, const char *state, bool resume,
                 struct err *e);

/* --resume of commands that collect: what it found (NULL: nothing), and the same for people, in the words of
 * the other commands. ERR_IO of collect_not_ours: a file that the run would not write is in its way. */
const char *collect_resumed_word(bool finished, size_t n_resumed);
void collect_tell_resumed(const struct eval_run *r, const char *output, bool resume, size_t n_resumed,
                          size_t n, const char *what);
void collect_tell_finished(const struct eval_run *r, const char *output);
int collect_not_ours(const char *output, struct err *e);

#endif
