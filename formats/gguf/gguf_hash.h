/* gguf_hash.h - SHA-256 of the tensors and of the whole content of a GGUF model.
 *
 * What is hashed does not depend on the order of tensors and keys, on alignment, on the version of the
 * container or on how a model is split into files: two files with equal hashes compute the same thing. All
 * numbers are little-endian; H is SHA-256; texts in quotes are their bytes without a terminator.
 *
 *     data(t)     H(the tensor's bytes as stored, without padding)
 *     tensor(t)   H("kerf tensor 1\n", u64 length of the name, name, u32 type id, u64 ne[0..3] (fastest
 * first, 1 where there is no dimension), data(t)) tensors     H("kerf tensors 1\n", u64 number of tensors,
 * tensor(t) for all t in byte order of the names) metadata    H("kerf metadata 1\n", u64 number of keys, then
 * for all keys in byte order: u64 length, key, u32 value type, the value as a GGUF file stores it);
 * general.alignment and split.* are left out model       H("kerf model 1\n", tensors, metadata)
 *
 * data(t) is also what the peer's hash tool prints for a tensor. */
#ifndef KERF_GGUF_HASH_H
#define KERF_GGUF_HASH_H

#include "gguf_read.h"
#include "libquant/base/pool.h"
#include "libquant/base/progress.h"

struct gguf_tensor_hash {
    const struct gguf_tensor *tensor; /* borrowed from the reader */
    uint8_t data[32], digest[32];     /* data(t), tensor(t) */
};

struct gguf_hash {
    uint8_t model[32], tensors[32], metadata[32];
    struct gguf_tensor_hash *tensor; /* in byte order of the names */
    size_t n_tensors;
};

/* Tensors are hashed in parallel, whole tensors per thread; the result does not depend on the pool. *out:
 * caller frees with gguf_hash_release, before the reader is closed. `progress`, in bytes, may be NULL.
 * ERR_ARG when the data of a tensor is missing. */
int gguf_hash_model(struct gguf_hash *out, const struct gguf_reader *r, struct pool *pool,
                    const struct progress *progress, struct err *e);
void gguf_hash_release(struct gguf_hash *h);

#endif
