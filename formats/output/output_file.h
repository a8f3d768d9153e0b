/* output_file.h - an output that appears under its name whole or not at all.
 *
 * Bytes go to a temporary file in the same folder (so the final rename cannot cross file systems);
 * output_file_commit flushes it to the disk and renames it. Until then whatever stood at the name stands
 * there untouched. Without `overwrite` the rename itself refuses to replace, so nothing that appears
 * meanwhile is lost. Several outputs that belong together are committed by output_set.h. */
#ifndef KERF_OUTPUT_FILE_H
#define KERF_OUTPUT_FILE_H

#include "libquant/base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct output_file;

struct output_file_options {
    bool overwrite;      /* allow an existing file at `path` (checked at open and again at commit) */
    bool keep_partial;   /* on abort, and when a commit fails, keep the temporary file for a later `resume` */
    bool resume;         /* continue an existing partial file of this name, if there is one */
    uint64_t size_bytes; /* reserve this much; ERR_IO names what is needed and what is free. 0: unknown */
};

/* The temporary name is `<path>.kerf-part`, exclusive to one process (a second one is refused). A journal
 * beside it (path.h) goes before its bytes do, so that none outlives what it vouches for. *out: caller ends
 * it with output_file_commit or output_file_abort. */
int output_file_open(struct output_file **out, const char *path, const struct output_file_options *opt,
                     struct err *e);

/* True when output_file_open found and kept a partial file (`resume`). */
bool output_file_resumed(const struct output_file *f);

/* Drop what was kept of an earlier run: the file is empty again, its space reserved. */
int output_file_restart(struct output_file *f, struct err *e);

/* File descriptor of the temporary file, for reading back what a resumed run kept. Borrowed. */
int output_file_fd(const struct output_file *f);

/* All `n` bytes at `offset`; safe to call from several threads. ERR_IO names the file and the reason. */
int output_file_write_at(struct output_file *f, uint64_t offset, const void *data, size_t n, struct err *e);

/* Append at the running position (single thread). */
int output_file_write(struct output_file *f, const void *data, size_t n, struct err *e);

/* Truncate to `n_bytes` (0: leave) and flush to the disk: the last that can fail for want of space. The file
 * stays open. */
int output_file_seal(struct output_file *f, uint64_t n_bytes, struct err *e);

/* Seal, rename, flush the folder. Frees `f` in every case; on failure the temporary file is removed, unless
 * `keep_partial`. */
int output_file_commit(struct output_file *f, uint64_t n_bytes, struct err *e);

/* Drop everything (or keep the partial file, see options). NULL is allowed. */
void output_file_abort(struct output_file *f);

/* Unlink the temporary files of all open outputs without `keep_partial`; async-signal-safe, for a handler. */
void output_file_abort_all_from_signal(void);

/* Let output_file_abort_all_from_signal unlink one more file (a companion of an output). `path` is borrowed
 * until output_file_unguard. Returns a slot, or -1 when memory is refused: then a signal leaves that file
 * behind. */
int output_file_guard(char *path);
void output_file_unguard(int slot);

/* What output_file_open would refuse at once, for callers with hours of work before their output: a folder at
 * `path`, or an existing file without `overwrite`. */
int output_file_check_target(const char *path, bool overwrite, struct err *e);

/* ERR_EXISTS: what stands at `path` is only replaced when the user says so. */
int output_file_in_the_way(const char *path, struct err *e);

/* ERR_ARG when `path`, or a temporary name beside it, is the same file as `input`: by name, by a link of
 * either kind, or by another way to the folder. A missing file is none. */
int output_file_check_input(const char *path, const char *input, struct err *e);

/* Put renames and removals in the folder of `path` on the disk. Never fails: some file systems refuse, and
 * what was done is done. */
void output_file_sync_beside(const char *path);

/* Whole small file in one call: open, write, commit. */
int output_file_write_all(const char *path, const void *data, size_t n, bool overwrite, struct err *e);

#endif
