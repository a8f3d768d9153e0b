/* outcome.h - what a run says beside its result: warnings, and why it failed; for people on standard error,
 * for programs in the one JSON object, and by the exit code.
 *
 * It is kept for the whole process, because the option parser and main have to say something too, before a
 * command has its options and after it has given them up. Commands use it through cmd.h. */
#ifndef KERF_OUTCOME_H
#define KERF_OUTCOME_H

#include "tools/options/opt.h"

#include "libquant/base/err.h"

/* From main: so that wrong usage is told in JSON as well where --json stands among the arguments. */
void outcome_begin(int argc, char **argv);

/* The command line as a shell would take it, "kerf" first, for what tells how it was made. malloc'ed, caller
 * frees; NULL: no memory. */
char *outcome_command(void);

/* From the parser, once the shared options are known. */
void outcome_options(const struct shared_options *o);

/* One JSON object {"error", "warnings"} on standard output, if --json asks for it and no object went out yet.
 * `code` is a word of a fixed list: io, format, unsupported, argument, memory, cancelled, exists, usage. File
 * and tensor are those that the message names. */
void outcome_error(const char *code, const char *message);

/* The word for a code of err.h. */
const char *outcome_code(enum err_code code);

/* At the end of a run: tells warnings that are still held back, and returns its exit status: with --strict a
 * warning makes "done" 3. */
int outcome_end(int status);

/* Give up what cmd_claim_outputs took; from outcome_end. */
void outcome_release_claims(void);

/* Was --json given, and has nothing gone out yet? Looked at by signal handlers. */
bool outcome_owes_json(void);

#endif
