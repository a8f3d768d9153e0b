/* feedback_finished.h - is the output that stands there what this run of error feedback would write?
 *
 * Solving takes hours, so a run that goes on must know its finished output without it. The file carries an
 * identity: a SHA-256 over what decides about the solved blocks (of the weights: metadata and rows of every
 * tensor), and one over these blocks. Where both are this run's, the blocks in the file are what the run
 * would make, and the rewriting engine gets them from there: it compares the header and encodes rows of every
 * other tensor again, as it does for any output. */
#ifndef KERF_FEEDBACK_FINISHED_H
#define KERF_FEEDBACK_FINISHED_H

#include "feedback_command.h"

struct hessian_source;

/* run->planned: the importance of the Hessians that are given, else entries of no values (feedback_stand_in).
 * `s` as below. */
int feedback_plan_importance(struct feedback_run *run, const struct hessian_source *s,
                             const struct feedback_options *f, struct err *e);

/* The same, once windows and Hessians are known, and run->identity; and with --resume and without --force,
 * where the output is there, run->finished, and in *ro blocks, importance and metadata. `s`: of the Hessians
 * that are, or are going to be, collected. ERR_EXISTS: the output is another run's. */
int feedback_find_finished(struct feedback_run *run, struct rewrite_options *ro,
                           const struct hessian_source *s, const struct feedback_options *f,
                           const char *output, struct err *e);

/* Of the blocks that were solved, for the file. */
int feedback_hash_blocks(const struct feedback_run *run, char out[65], struct err *e);

/* ERR_EXISTS: the solved blocks of a file of the run's are no longer those that were written. Where none were
 * solved there is nothing to check. `path`: for the message. */
int feedback_check_blocks(struct gguf_reader *file, const char *path, const struct net *net,
                          const struct corpus *corpus, struct err *e);

/* `done`: what the run that finished the output could not remove any more goes. */
void feedback_finished_release(struct feedback_run *run, bool done);

/* *out: an importance matrix with the entries that the Hessians of this text will have, of no values, to plan
 * types with before they are collected; caller frees with imatrix_free. */
int feedback_stand_in(struct imatrix **out, const struct net *net, const struct corpus *corpus,
                      struct err *e);

#endif
