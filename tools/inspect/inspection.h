/* inspection.h - what `kerf inspect` knows about a path, whatever kind of file it is. */
#ifndef KERF_INSPECTION_H
#define KERF_INSPECTION_H

#include "formats/gguf/gguf_read.h"
#include "formats/gguf/imatrix_file.h"
#include "formats/hf/hf_checkpoint.h"
#include "formats/hf/hf_config.h"
#include "formats/inspect/tensor_stats.h"
#include "libquant/kern/kern.h"

struct inspect_tensor {
    const char *name, *type, *file; /* file: NULL for a single file */
    uint32_t n_dims;
    uint64_t shape[ST_MAX_DIMS]; /* slowest first */
    uint64_t n_elems, n_bytes, offset;
    bool has_offset, present; /* present: its bytes are in the file */
    const struct gguf_tensor *gguf;
    const struct st_tensor *st;
    const struct imatrix_entry *entry;
    bool has_stats;
    struct tensor_stats stats;
};

struct inspection {
    const char *format;                   /* "gguf", "safetensors", "checkpoint", "imatrix" */
    const char *architecture, *file_type; /* NULL: the file does not say */
    bool planned;                         /* a plan gave types; file_type is that of most weights */
    struct inspect_tensor *tensors;
    size_t n_tensors;
    size_t n_listed; /* of them, at the front: those that are shown; --tensors makes it smaller */
    uint64_t n_parameters, tensor_bytes;
    uint64_t n_bytes; /* of the file, or of all files that hold the tensors; 0: they are not there */
    bool incomplete;  /* some tensor's bytes are missing */
    /* the one that is open; NULL otherwise */
    struct gguf_reader *gguf;
    struct safetensors_reader *st;
    struct hf_checkpoint *checkpoint;
    struct hf_config *config;
    struct imatrix *imatrix;
    char architecture_text[128];
};

/* The kind is found by content. The caller runs inspection_close in every case. */
int inspection_open(struct inspection *in, const char *path, struct err *e);
void inspection_close(struct inspection *in);

/* Statistics of every tensor that holds numbers. */
int inspection_stats(struct inspection *in, const struct kern *kern, struct pool *pool, uint64_t memory_bytes,
                     struct err *e);

#endif
