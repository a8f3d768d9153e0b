/* repack_command.h - the common body of `split`, `merge` and `edit`: open, copy, report. */
#ifndef KERF_REPACK_COMMAND_H
#define KERF_REPACK_COMMAND_H

#include "cmd.h"

#include "formats/convert/repack.h"

/* Write `in` to `output` and print the report. Returns an exit status. */
int repack_and_report(const struct gguf_reader *in, const char *output, struct repack_options *opt,
                      const struct shared_options *s);

#endif
