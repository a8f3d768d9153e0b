/* safetensors_write.h - a streaming writer: all tensors are declared first, then their bytes follow in that
 * order, so that a file of any size needs no more memory than its header.
 *
 *     struct safetensors_writer *w;
 *     safetensors_writer_open(&w, path, false, e);
 *     safetensors_writer_add(w, "norm.weight", ST_F32, 1, (uint64_t[]){1024}, e);
 *     safetensors_writer_write(w, norm, 4096, e);        any number of pieces
 *     safetensors_writer_commit(w, e);                   frees; the file appears
 *
 * The header is compact JSON padded with spaces to a multiple of 8 bytes. Specification, architectures 22.1.
 */
#ifndef KERF_SAFETENSORS_WRITE_H
#define KERF_SAFETENSORS_WRITE_H

#include "safetensors_read.h"

struct safetensors_writer;

/* *out: caller ends it with safetensors_writer_commit or safetensors_writer_abort. */
int safetensors_writer_open(struct safetensors_writer **out, const char *path, bool overwrite, struct err *e);

/* Declare the next tensor; its bytes follow those of the one before. ERR_ARG: after the first write, a name
 * that occurs twice or is "__metadata__", a size that overflows or is not a whole number of bytes. */
int safetensors_writer_add(struct safetensors_writer *w, const char *name, enum st_dtype dtype,
                           uint32_t n_dims, const uint64_t *shape, struct err *e);

/* One entry of __metadata__; before the first write. */
int safetensors_writer_metadata(struct safetensors_writer *w, const char *key, const char *value,
                                struct err *e);

/* The next `n` bytes of data; tensors simply follow each other. ERR_ARG beyond what was declared. */
int safetensors_writer_write(struct safetensors_writer *w, const void *data, size_t n, struct err *e);

/* Bytes of data declared so far. */
uint64_t safetensors_writer_data_bytes(const struct safetensors_writer *w);

/* Complete the file. ERR_ARG when fewer bytes were written than declared; then nothing appears. Frees `w`. */
int safetensors_writer_commit(struct safetensors_writer *w, struct err *e);
void safetensors_writer_abort(struct safetensors_writer *w);

#endif
