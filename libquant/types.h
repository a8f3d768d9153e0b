/* types.h - THE table of tensor types: ids as in GGUF files, names, block sizes.
 *
 * Ids are fixed by the file format (specification, quantization 2). Sizes are built from the block structs.
 */
#ifndef KERF_TYPES_H
#define KERF_TYPES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum qtype {
    QTYPE_F32 = 0,
    QTYPE_F16 = 1,
    QTYPE_Q4_0 = 2,
    QTYPE_Q4_1 = 3,
    QTYPE_Q5_0 = 6,
    QTYPE_Q5_1 = 7,
    QTYPE_Q8_0 = 8,
    QTYPE_Q8_1 = 9, /* activations only, never in files */
    QTYPE_Q2_K = 10,
    QTYPE_Q3_K = 11,
    QTYPE_Q4_K = 12,
    QTYPE_Q5_K = 13,
    QTYPE_Q6_K = 14,
    QTYPE_Q8_K = 15, /* activations only, never in files */
    QTYPE_IQ2_XXS = 16,
    QTYPE_IQ2_XS = 17,
    QTYPE_IQ3_XXS = 18,
    QTYPE_IQ1_S = 19,
    QTYPE_IQ4_NL = 20,
    QTYPE_IQ3_S = 21,
    QTYPE_IQ2_S = 22,
    QTYPE_IQ4_XS = 23,
    QTYPE_I8 = 24,
    QTYPE_I16 = 25,
    QTYPE_I32 = 26,
    QTYPE_I64 = 27,
    QTYPE_F64 = 28,
    QTYPE_IQ1_M = 29,
    QTYPE_BF16 = 30,
    QTYPE_TQ1_0 = 34,
    QTYPE_TQ2_0 = 35,
    QTYPE_MXFP4 = 39,
    QTYPE_NVFP4 = 40,
    QTYPE_Q1_0 = 41,
    QTYPE_Q2_0 = 42,
    QTYPE_COUNT = 43, /* ids below this that are not listed above are retired */
};

enum qtype_importance {
    IMPORTANCE_IGNORED,  /* the encoder has no use for weights */
    IMPORTANCE_OPTIONAL, /* better with, works without         */
    IMPORTANCE_REQUIRED, /* useless without                    */
};

struct qtype_info {
    const char *name;     /* upper case, as users write it: "Q4_K" */
    uint32_t block_elems; /* weights in one block */
    uint32_t block_bytes;
    bool in_files;     /* may stand in a GGUF file */
    bool is_quantized; /* not a plain number per element */
    bool can_decode;   /* to float32 */
    bool can_encode;   /* from float32 */
    enum qtype_importance importance;
};

/* NULL for retired and unknown ids. `id` comes from files: any value is allowed. */
const struct qtype_info *qtype_info(uint32_t id);

/* Name of a known type, "?" otherwise. Never NULL. */
const char *qtype_name(uint32_t id);

/* Type of a name, case-insensitive; false when unknown. */
bool qtype_from_name(const char *name, enum qtype *out);

/* Bytes of a row of `n_cols` elements; false when n_cols is not a multiple of the block, the type is unknown,
 * or the product overflows. */
bool qtype_row_bytes(uint32_t id, uint64_t n_cols, uint64_t *out);

#endif
