/* imatrix_command.h - the sub-commands of `kerf imatrix`, one file each. */
#ifndef KERF_IMATRIX_COMMAND_H
#define KERF_IMATRIX_COMMAND_H

#include "tools/cmd.h"

#include "formats/gguf/imatrix_file.h"
#include "formats/json.h"

int cmd_imatrix_collect(int argc, char **argv);
int cmd_imatrix_merge(int argc, char **argv);
int cmd_imatrix_show(int argc, char **argv);

/* The form that a file name's ending asks for: .gguf, .dat (and .imatrix, as such files are often called).
 * False: another ending. */
bool imatrix_format_of(const char *path, enum imatrix_format *out);

/* 0, or the status of the usage error that names the endings. */
int imatrix_check_output(const struct opt_command *cmd, const char *path, enum imatrix_format *out);

/* "40 chunks of 512 tokens"; the older form of the file knows the number alone. Returns `out`. */
const char *imatrix_chunks_text(char out[80], const struct imatrix *m);

/* Keys "n_entries", "n_chunks", "ctx" and "datasets" of a JSON object. */
void imatrix_put_keys(struct json_writer *w, const struct imatrix *m);

/* --expert-prior, the same for collecting and merging. */
#define IMATRIX_PRIOR_HELP                                                                                   \
    "give every expert N tokens' worth of its layer's mean, so that experts without data get that mean"
#define IMATRIX_PRIOR_FALLBACK "none: experts without data are not weighted"

/* Apply it, and say on how many experts it matters. */
int imatrix_prior_command(struct imatrix *m, uint64_t tokens, const struct shared_options *shared,
                          struct err *e);

#endif
