/* gguf_read.h - GGUF files, versions 2 and 3, split sets included, as a mapped directory of tensors.
 *
 * The file is hostile: every count and length is checked against the bytes that remain. Big-endian files and
 * version 1 are refused with a clear message. Truth: specification, architectures 21. */
#ifndef KERF_GGUF_READ_H
#define KERF_GGUF_READ_H

#include "gguf_meta.h"
#include "libquant/types.h"

struct gguf_tensor {
    const char *name; /* NUL-terminated */
    enum qtype type;  /* known and allowed in files */
    uint32_t n_dims;  /* 0..4 as stored */
    uint64_t ne[4];   /* fastest first, padded with 1 */
    uint64_t n_bytes;
    const uint8_t *data; /* in the map of part `part`; possibly unaligned */
    uint64_t offset;     /* of the data from the start of that file */
    uint32_t part;
};

/* Number of elements; cannot overflow, the reader has checked it. */
static inline uint64_t gguf_tensor_n_elems(const struct gguf_tensor *t)
{
    return t->ne[0] * t->ne[1] * t->ne[2] * t->ne[3];
}

struct gguf_reader;

struct gguf_read_options {
    bool single_part; /* do not look for the other parts of a split set */
    bool header_only; /* tensor data may be missing (vocabulary files, cut files): `data` is then NULL */
};

/* Map `path` (any part of a split set: the others are found by name) and validate header, metadata and
 * directory. `opt` NULL: defaults. After it succeeds every view lies inside its file. A reader is immutable,
 * so threads may share it. *out: caller frees with gguf_reader_close. ERR_FORMAT names key or tensor and byte
 * offset, or a part of the set that is not there; ERR_UNSUPPORTED: version 1 or above 3, big-endian, tensor
 * types that are retired or unknown; ERR_IO: the file cannot be opened, or another part that is there, or
 * whose replacement was killed. */
int gguf_reader_open(struct gguf_reader **out, const char *path, const struct gguf_read_options *opt,
                     struct err *e);

/* The same on bytes in memory (fuzzing, tests); `data` is borrowed until close. Single part. */
int gguf_reader_open_memory(struct gguf_reader **out, const void *data, size_t len, const char *what,
                            const struct gguf_read_options *opt, struct err *e);
void gguf_reader_close(struct gguf_reader *r);

uint32_t gguf_reader_version(const struct gguf_reader *r);
uint32_t gguf_reader_n_parts(const struct gguf_reader *r);
const char *gguf_reader_part_path(const struct gguf_reader *r, uint32_t part);
/* Bytes behind the padding of the last tensor of a part, where the format has nothing. */
uint64_t gguf_reader_n_trailing_bytes(const struct gguf_reader *r, uint32_t part);
uint64_t gguf_reader_alignment(const struct gguf_reader *r);
const struct gguf_meta *gguf_reader_meta(const struct gguf_reader *r); /* of part 0, split.* keys included */
size_t gguf_reader_n_tensors(const struct gguf_reader *r);
const struct gguf_tensor *gguf_reader_tensor(const struct gguf_reader *r,
                                             size_t i); /* i < n_tensors; file order */
const struct gguf_tensor *gguf_reader_find(const struct gguf_reader *r,
                                           const char *name); /* NULL if absent */

/* True when the first bytes of the file are the GGUF magic (either byte order). False also when unreadable.
 */
bool gguf_is_gguf_file(const char *path);

#endif
