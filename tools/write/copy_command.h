/* copy_command.h - the common body of `split`, `merge` and `edit`: open, copy, report. */
#ifndef KERF_COPY_COMMAND_H
#define KERF_COPY_COMMAND_H

#include "tools/cmd.h"

#include "formats/rewrite/copy_gguf.h"

/* Write `in` to `output` and print the report. Returns an exit status. */
int copy_and_report(const struct gguf_reader *in, const char *output, struct copy_gguf_options *opt,
                    const struct shared_options *s);

#endif
