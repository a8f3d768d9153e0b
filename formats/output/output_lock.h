/* output_lock.h - what a run will write, checked and locked before its work, which may take hours: that no
 * output is an input, that no two outputs are one file, and that no other run is about to write the same.
 *
 *     const char *const outputs[] = {plan, table, page}, *const inputs[] = {text, importance};
 *     output_check_names(outputs, 3, inputs, 2, &e);
 *     output_lock_take(&lock, table, &e);
 *
 * The lock of OUT is a file OUT.kerf-lock that holds nothing. It is the lock on it that counts and the system
 * drops that with the process, so one that a killed run leaves behind stops nobody. */
#ifndef KERF_OUTPUT_LOCK_H
#define KERF_OUTPUT_LOCK_H

#include "libquant/base/err.h"

#include <stddef.h>

/* NULLs among the names are passed over. ERR_ARG names both. */
int output_check_names(const char *const *outputs, size_t n_outputs, const char *const *inputs,
                       size_t n_inputs, struct err *e);

struct output_lock;

/* ERR_IO: another run has it, or the folder takes no files. *out: caller releases with output_lock_release.
 */
int output_lock_take(struct output_lock **out, const char *path, struct err *e);
/* The same for a folder that runs keep their state in (--state); it need not be there yet. */
int output_lock_take_folder(struct output_lock **out, const char *path, struct err *e);
void output_lock_release(struct output_lock *l); /* removes the lock file; NULL is allowed */

#endif
