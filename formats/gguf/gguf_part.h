/* gguf_part.h - one file of a GGUF model while its header is read; for gguf_read.c alone. */
#ifndef KERF_GGUF_PART_H
#define KERF_GGUF_PART_H

#include "gguf_read.h"
#include "libquant/base/arena.h"
#include "libquant/base/filemap.h"

#define GGUF_MIN_TENSOR_BYTES (8 + 1 + 4 + 4 + 8) /* name of one byte, no dimensions, type, offset */

struct gguf_part {
    const char *path; /* borrowed */
    struct filemap map;
    struct gguf_meta *meta;
    uint32_t version;
    uint64_t alignment;
    uint64_t n_tensors, n_kv;
    uint64_t pos;      /* how far the header has been read */
    uint64_t data_end; /* of the last tensor with its padding; once the directory has been read */
};

uint64_t gguf_part_remaining(const struct gguf_part *p);

/* Everything up to the tensor directory, from `path` and `map`. `meta` is the caller's to free, also on
 * failure. */
int gguf_part_take_metadata(struct gguf_part *p, struct err *e);

/* The next record of the directory. The name goes into `names`; `offset` is relative to the data as in the
 * file, and `data` is left alone. */
int gguf_part_take_tensor(struct gguf_part *p, struct arena *names, struct gguf_tensor *t, uint64_t index,
                          struct err *e);

#endif
