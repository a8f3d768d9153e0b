/* safetensors_read.h - one safetensors file, mapped and validated by the strict rules (specification,
 * architectures 22). Tensor names and shapes are opaque here. */
#ifndef KERF_SAFETENSORS_READ_H
#define KERF_SAFETENSORS_READ_H

#include "libquant/base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum st_dtype {
    ST_BOOL,
    ST_U8,
    ST_I8,
    ST_I16,
    ST_U16,
    ST_I32,
    ST_U32,
    ST_I64,
    ST_U64,
    ST_F4,
    ST_F6_E2M3,
    ST_F6_E3M2,
    ST_F8_E5M2,
    ST_F8_E4M3,
    ST_F8_E8M0,
    ST_F8_E4M3FNUZ,
    ST_F8_E5M2FNUZ,
    ST_F16,
    ST_BF16,
    ST_F32,
    ST_F64,
    ST_C64,
    ST_DTYPE_COUNT,
};

const char *st_dtype_name(enum st_dtype t); /* "BF16" */
unsigned st_dtype_bits(enum st_dtype t);
bool st_dtype_find(enum st_dtype *out, const char *name); /* exact, case-sensitive; false: no such type */

#define ST_MAX_DIMS 8

struct st_tensor {
    const char *name; /* NUL-terminated UTF-8 */
    enum st_dtype dtype;
    uint32_t n_dims;
    uint64_t shape[ST_MAX_DIMS]; /* slowest first, as in the file */
    uint64_t n_elems;
    const uint8_t *data; /* in the map; any alignment */
    uint64_t n_bytes;
    uint64_t offset; /* of the data from the start of the file */
};

struct safetensors_reader;

/* Map `path` and check everything: after success every tensor lies inside the file, tensors cover the data
 * without hole or overlap, and all sizes agree with shape and dtype. ERR_FORMAT messages name the file, the
 * tensor, what was expected and what was found. A reader is immutable, so threads may share it.
 * *out: caller frees with safetensors_close. */
int safetensors_open(struct safetensors_reader **out, const char *path, struct err *e);
/* The same over memory, borrowed until safetensors_close; `what` opens the messages. */
int safetensors_open_memory(struct safetensors_reader **out, const void *data, size_t len, const char *what,
                            struct err *e);
void safetensors_close(struct safetensors_reader *r);

const char *safetensors_path(const struct safetensors_reader *r);
size_t safetensors_n_tensors(const struct safetensors_reader *r);
const struct st_tensor *safetensors_tensor(const struct safetensors_reader *r, size_t i); /* in data order */
const struct st_tensor *safetensors_find(const struct safetensors_reader *r, const char *name);
size_t safetensors_n_metadata(const struct safetensors_reader *r);
void safetensors_metadata(const struct safetensors_reader *r, size_t i, const char **key, const char **value);

#endif
