/* cmd.h - what every command of the program shares: its signature, exit codes, messages, and the session
 * (threads and instruction-set level) that the shared options ask for.
 *
 *     int cmd_hash(int argc, char **argv)
 *     {
 *         struct shared_options shared = SHARED_OPTIONS_INIT;
 *         const struct opt options[] = {...};
 *         const struct opt_command cmd = {"hash", "FILE", "...", options, n, 1, 1};
 *         struct opt_operands args;
 *         int status = opt_parse(&cmd, argc, argv, &shared, &args);
 *         if (status != OPT_CONTINUE)
 *             return status;
 *         ...libraries...
 *         return rc ? cmd_fail(&e) : CMD_DONE;
 *     }
 *
 * A command holds no algorithm and no static state: it parses, calls libraries, prints one result on stdout.
 */
#ifndef KERF_CMD_H
#define KERF_CMD_H

#include "tools/options/opt.h"

#include "libquant/base/clock.h"
#include "libquant/base/err.h"

#include <stdbool.h>
#include <stdint.h>

enum cmd_status { /* exit codes; a promise to scripts */
                  CMD_DONE = 0,
                  CMD_FAILED = 1,
                  CMD_USAGE = 2,
                  CMD_GATE =
                      3, /* a check was not met: compare's limits, verify, diff --exit-code, --strict */
};

/* One line about a command, of the table in commands.c; "" for an unknown name. */
const char *command_summary(const char *name);

int cmd_inspect(int argc, char **argv);
int cmd_convert(int argc, char **argv);
int cmd_quantize(int argc, char **argv);
int cmd_tokenize(int argc, char **argv);
int cmd_imatrix(int argc, char **argv);
int cmd_hessian(int argc, char **argv);
int cmd_perplexity(int argc, char **argv);
int cmd_compare(int argc, char **argv);
int cmd_ladder(int argc, char **argv);
int cmd_score(int argc, char **argv);
int cmd_allocate(int argc, char **argv);
int cmd_best(int argc, char **argv);
int cmd_fit(int argc, char **argv);
int cmd_diff(int argc, char **argv);
int cmd_hash(int argc, char **argv);
int cmd_edit(int argc, char **argv);
int cmd_split(int argc, char **argv);
int cmd_merge(int argc, char **argv);
int cmd_verify(int argc, char **argv);

/* "kerf: error: <message>" on stderr, and the object of a failed run with --json; returns CMD_FAILED. A
 * cancelled run says so instead. */
int cmd_fail(const struct err *e);

/* A warning: "kerf: warning: ..." on stderr, unless --quiet; an object in the JSON; with --strict, exit
 * code 3. The text begins with its code and, where it is about one tensor of many, the tensor: "[code] ...",
 * "[code|tensor] ..." (formats/remark.h; the table of codes is in README.md). Those about tensors are
 * gathered: one line with a count, unless --verbose. */
void cmd_warn(const struct shared_options *o, const char *fmt, ...) KERF_PRINTF(2, 3);

/* The same for a text that a library gave; `file` (may be NULL) is put in front of its sentence. */
void cmd_warn_of(const struct shared_options *o, const char *file, const char *text);

/* Tell now what is being gathered: before long work, and before the result. */
void cmd_tell_warnings(void);

struct json_writer;

/* The one JSON object of a command: begin opens it on standard output; end writes "warnings" and closes it.
 * In between, cmd_json_error adds "error" to a result that is there although the run failed. */
void cmd_json_begin(struct json_writer *w);
void cmd_json_end(struct json_writer *w);
void cmd_json_warnings(
    struct json_writer *w); /* the member alone, for an object that another module writes */
void cmd_json_error(struct json_writer *w, const struct err *e);

/* What of a text was perhaps not meant to be read as it stands. */
struct corpus_form;
void cmd_warn_form(const struct shared_options *o, const char *path, const struct corpus_form *f);

/* That a cache which holds keys alone has no use for the type of values, where it is another one. */
struct kv_cache;
void cmd_warn_idle_values(const struct shared_options *o, const char *path, const struct kv_cache *cache);

/* model_vocabulary, with a warning for each thing that a GGUF file says of it and that is not honoured. (What
 * there is of a folder's is among the model's own warnings.) */
struct model;
struct vocabulary;
int cmd_vocabulary(const struct shared_options *o, struct model *m, const struct vocabulary **out,
                   struct err *e);

/* That an input is evidently no text, for which `doubt` is the reason (text_sniff.h; empty: there is none),
 * else that n bytes of it were not UTF-8, the first of them at offset `first`; nothing when n is 0. */
void cmd_warn_text(const struct shared_options *o, const char *path, const char *doubt, uint64_t n,
                   uint64_t first);

/* "kerf: ..." on stderr, unless --quiet. */
void cmd_note(const struct shared_options *o, const char *fmt, ...) KERF_PRINTF(2, 3);

/* "kerf NAME: ..." on stderr with a pointer to --help, and the object of a failed run with --json; returns
 * CMD_USAGE. */
int cmd_usage(const struct opt_command *cmd, const char *fmt, ...) KERF_PRINTF(2, 3);

struct pool;
struct kern;

struct session {
    struct pool *pool;       /* owns */
    const struct kern *kern; /* of --isa, else the best this CPU has */
};

/* Start the workers and choose the kernels. */
int session_open(struct session *s, const struct shared_options *o, struct err *e);
void session_close(struct session *s); /* NULL and zeroed structs are allowed */

/* Refuse before the work what would fail, or do harm, behind it: the folder of `path` is not there or takes
 * no files, or `path` is itself a folder, a device, a pipe, or "-". */
int cmd_check_folder(const char *path, struct err *e);

/* The same, and a file that is there without `force`: ERR_EXISTS. `path` may be NULL. */
int cmd_check_output(const char *path, bool force, struct err *e);

/* At the start of long work: no output is an input (NULLs are passed over), no two outputs are one file, and
 * no other run is about to write them. Held until the process ends; nothing is locked with --dry-run. */
int cmd_claim_outputs(const struct shared_options *o, const char *const *outputs, size_t n_outputs,
                      const char *const *inputs, size_t n_inputs, struct err *e);

/* The largest resident set of this process so far. */
uint64_t session_peak_rss(void);

/* What is left of a bound on working memory once inputs are open: the bound less the memory this process
 * holds already (mapped files do not count), and at least a quarter of the bound. */
uint64_t session_memory_left(uint64_t bound_bytes);

#endif
