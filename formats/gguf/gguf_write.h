/* gguf_write.h - layout and header of a GGUF version 3 file.
 *
 * Types and shapes are known before the first weight is read, so the header is laid out once, and tensor data
 * may then be written in any order at the stated offsets. */
#ifndef KERF_GGUF_WRITE_H
#define KERF_GGUF_WRITE_H

#include "gguf_meta.h"
#include "formats/output/output_file.h"
#include "libquant/types.h"

/* Limits that reader and writer share (specification, architectures 21.1). */

#define GGUF_MAX_NAME          63 /* bytes of a tensor name; what the runtime has room for */
#define GGUF_DEFAULT_ALIGNMENT 32
#define GGUF_MAX_WRITE_ALIGNMENT                                                                             \
    (1 << 20) /* ours: a hostile alignment must not become gigabytes of padding */
#define GGUF_MAX_STRING ((uint64_t)1 << 30) /* bytes of a string; limit of the runtime */
#define GGUF_MAX_ARRAY  ((uint64_t)1 << 30) /* elements of an array; limit of the runtime */

struct gguf_out_tensor {
    const char *name; /* borrowed; 1 to GGUF_MAX_NAME bytes of UTF-8 */
    enum qtype type;
    uint32_t n_dims;
    uint64_t ne[4];
    /* filled in by gguf_layout */
    uint64_t n_bytes;
    uint64_t offset; /* from the start of the file */
};

/* Validate (names unique and short enough, rows divide into blocks, no overflow), fill n_bytes and offset of
 * each tensor, and build the header (magic to the padding before the data). Alignment: `general.alignment` of
 * `meta`, else
 * 32. *header: malloc'ed, caller frees with free(); *file_bytes: total size with the padding of the last
 * tensor. */
int gguf_layout(const struct gguf_meta *meta, struct gguf_out_tensor *tensors, size_t n_tensors,
                uint8_t **header, size_t *header_bytes, uint64_t *file_bytes, struct err *e);

/* Name of part `no` (0-based) of `count`: "<prefix>-00001-of-00003.gguf". malloc'ed; NULL when memory is
 * refused. */
char *gguf_split_name(const char *prefix, uint32_t no, uint32_t count);

/* Is `path` such a name (five digits each, 1 <= index <= count)? Then *prefix_len, *no (0-based), *count. */
bool gguf_split_parse(const char *path, size_t *prefix_len, uint32_t *no, uint32_t *count);

/* After opening `path` has failed with `rc`: when it is a missing part of a set whose replacement was killed
 * (output_set.h), `e` says so and what to do. Returns the error code. */
int gguf_split_missing(const char *path, int rc, struct err *e);

#endif
