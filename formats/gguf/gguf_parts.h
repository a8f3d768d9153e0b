/* gguf_parts.h - a GGUF output as one file or as a split set, laid out at once, written in any order, and
 * there whole or not at all.
 *
 *     gguf_parts_plan(&p, meta, tensors, n, path, &opt, e);  sizes and names are known; nothing is written
 *     gguf_parts_open(p, e);                                 temporary files with their headers
 *     gguf_parts_write(p, i, at, data, n, e);                any tensor, any piece, any thread
 *     gguf_parts_commit(p, e);                               all files under their names
 *     gguf_parts_free(p);                                    without a commit: nothing is left behind
 *
 * Truth: specification, architectures 21.4. */
#ifndef KERF_GGUF_PARTS_H
#define KERF_GGUF_PARTS_H

#include "gguf_write.h"

struct gguf_parts_options {
    bool overwrite;
    bool keep_partial, resume; /* as in output_file.h */
    uint64_t max_bytes;        /* of each file, header included; 0: no bound */
    uint64_t max_tensors;      /* in each file; 0: no bound */
};

struct gguf_parts;

/* Decide names, parts and offsets. With a bound the output is a split set: `path` loses a final ".gguf" and
 * becomes the prefix of the names, metadata goes into the first part, and the three split.* keys into every
 * one; tensors keep their order. Without, it is the one file `path`. split.* keys of `meta` are not carried
 * over. `meta` is read here only; the names of `tensors` (gguf_layout fills in n_bytes and offset, from the
 * start of the tensor's own file) are borrowed until gguf_parts_free. `opt` NULL: defaults. ERR_ARG also when
 * a tensor alone is larger than the bound, or the set has more than 65535 parts. */
int gguf_parts_plan(struct gguf_parts **out, const struct gguf_meta *meta, struct gguf_out_tensor *tensors,
                    size_t n_tensors, const char *path, const struct gguf_parts_options *opt, struct err *e);

uint32_t gguf_parts_n(const struct gguf_parts *p);
const char *gguf_parts_path(const struct gguf_parts *p, uint32_t part);
uint64_t gguf_parts_file_bytes(const struct gguf_parts *p, uint32_t part);
uint64_t gguf_parts_total_bytes(const struct gguf_parts *p);
uint32_t gguf_parts_of_tensor(const struct gguf_parts *p, size_t tensor);

/* Bring the names out of a commit that was killed: the older set is put back, new parts become temporary
 * files again. gguf_parts_open begins with it; earlier by those who look at the files before. ERR_IO also
 * when another process is at this set. */
int gguf_parts_recover(struct gguf_parts *p, struct err *e);

/* Is there a file of this part, or will there be once gguf_parts_recover has run? */
bool gguf_parts_stands(const struct gguf_parts *p, uint32_t part);

/* What gguf_parts_open would refuse because of the files that stand, for a dry run: ERR_EXISTS without
 * `overwrite`; ERR_IO for a folder, or when a killed run with another number of parts left a set of this
 * prefix aside, and none under its name. */
int gguf_parts_check(const struct gguf_parts *p, struct err *e);

/* Does every file stand under its name, of the right size and with the header of this plan? */
bool gguf_parts_finished(const struct gguf_parts *p);

/* Are these bytes, `n` at byte `at` of tensor `tensor`, in the finished file? Safe to call from several
 * threads. False also when the file cannot be read. */
bool gguf_parts_holds(const struct gguf_parts *p, size_t tensor, uint64_t at, const void *data, size_t n);

/* What stands beside a split set with the same prefix and another number of parts: older sets, which are not
 * touched, and what killed runs left. One call of `say` for each; a nonzero return ends it. */
int gguf_parts_remarks(const struct gguf_parts *p, int (*say)(void *ctx, const char *text, struct err *e),
                       void *ctx, struct err *e);

/* Create every temporary file, reserve its space, write its header. What `resume` finds is left as it is,
 * since it may belong to another plan: follow with gguf_parts_write_headers once that is settled, or
 * gguf_parts_restart. ERR_IO and ERR_EXISTS also as gguf_parts_check. */
int gguf_parts_open(struct gguf_parts *p, struct err *e);
int gguf_parts_write_headers(struct gguf_parts *p, struct err *e);

/* With `resume`: did every part exist already? */
bool gguf_parts_resumed(const struct gguf_parts *p);

/* Drop what was kept of an earlier run: headers alone again. */
int gguf_parts_restart(struct gguf_parts *p, struct err *e);

/* The bytes before the data of a part, which say all about its layout; borrowed. */
const uint8_t *gguf_parts_header(const struct gguf_parts *p, uint32_t part, size_t *n_bytes);

/* `n` bytes at byte `at` of tensor `tensor`. Safe to call from several threads. Padding need not be written.
 */
int gguf_parts_write(struct gguf_parts *p, size_t tensor, uint64_t at, const void *data, size_t n,
                     struct err *e);

/* The output of a part, between open and commit; borrowed. For reading back what a resumed run kept. */
struct output_file *gguf_parts_output_file(const struct gguf_parts *p, uint32_t part);

/* Flush all, then give all their names, as output_set.h says: whoever opens the first part finds nothing, the
 * whole older set, or the whole new one, also after a failure or a kill. On failure the older set stands
 * again, and the new parts are dropped, or kept with `keep_partial`. */
int gguf_parts_commit(struct gguf_parts *p, struct err *e);

/* Drop what was not committed. NULL is allowed. */
void gguf_parts_free(struct gguf_parts *p);

#endif
