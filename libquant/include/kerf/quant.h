/* kerf/quant.h - rows of float32 to rows of quantized blocks, and back.
 *
 *     struct kerf_error e;
 *     uint64_t n;
 *     if (kerf_row_bytes(&n, KERF_TYPE_Q4_K, n_cols, &e) != 0) return report(&e);
 *     void *blocks = malloc(n_rows * n);
 *     if (kerf_quantize_rows(NULL, KERF_TYPE_Q4_K, w, blocks, n_rows * n, n_rows, n_cols, NULL, &e) != 0)
 *         return report(&e);
 *
 * The bytes are those of a tensor in a GGUF file, and those that llama.cpp writes for the same weights. They
 * do not depend on the processor. Rows never interact: a matrix may be cut between rows, over any number of
 * threads, without changing a byte. */
#ifndef KERF_PUBLIC_QUANT_H
#define KERF_PUBLIC_QUANT_H

#include <kerf/base.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Ids as GGUF files have them. Ids that are missing here are retired. */
enum kerf_type {
    KERF_TYPE_F32 = 0,
    KERF_TYPE_F16 = 1,
    KERF_TYPE_Q4_0 = 2,
    KERF_TYPE_Q4_1 = 3,
    KERF_TYPE_Q5_0 = 6,
    KERF_TYPE_Q5_1 = 7,
    KERF_TYPE_Q8_0 = 8,
    KERF_TYPE_Q2_K = 10,
    KERF_TYPE_Q3_K = 11,
    KERF_TYPE_Q4_K = 12,
    KERF_TYPE_Q5_K = 13,
    KERF_TYPE_Q6_K = 14,
    KERF_TYPE_IQ2_XXS = 16,
    KERF_TYPE_IQ2_XS = 17,
    KERF_TYPE_IQ3_XXS = 18,
    KERF_TYPE_IQ1_S = 19,
    KERF_TYPE_IQ4_NL = 20,
    KERF_TYPE_IQ3_S = 21,
    KERF_TYPE_IQ2_S = 22,
    KERF_TYPE_IQ4_XS = 23,
    KERF_TYPE_I8 = 24,
    KERF_TYPE_I16 = 25,
    KERF_TYPE_I32 = 26,
    KERF_TYPE_I64 = 27,
    KERF_TYPE_F64 = 28,
    KERF_TYPE_IQ1_M = 29,
    KERF_TYPE_BF16 = 30,
    KERF_TYPE_TQ1_0 = 34,
    KERF_TYPE_TQ2_0 = 35,
    KERF_TYPE_MXFP4 = 39,
    KERF_TYPE_NVFP4 = 40,
    KERF_TYPE_Q1_0 = 41,
    KERF_TYPE_Q2_0 = 42,
};

/* --- types --- */

/* The type of a name such as "q4_K", in upper or lower case; false when there is none. */
KERF_API bool kerf_type_find(enum kerf_type *out, const char *name);

/* "Q4_K"; "?" for an id that is no type. */
KERF_API const char *kerf_type_name(enum kerf_type type);

/* Weights and bytes of one block; 0 for an id that is no type. Columns of a row are a multiple of the former.
 */
KERF_API uint32_t kerf_type_block_weights(enum kerf_type type);
KERF_API uint32_t kerf_type_block_bytes(enum kerf_type type);

/* Does this version write it, and read it? */
KERF_API bool kerf_type_can_quantize(enum kerf_type type);
KERF_API bool kerf_type_can_dequantize(enum kerf_type type);

/* Can it be quantized with importance weights only? */
KERF_API bool kerf_type_needs_importance(enum kerf_type type);

/* Bytes of a row of n_cols weights. KERF_ERROR_ARGUMENT: no such type, n_cols is not a multiple of the block,
 * or the bytes exceed 64 bits. */
KERF_API int kerf_row_bytes(uint64_t *out, enum kerf_type type, uint64_t n_cols, struct kerf_error *e);

/* --- instruction sets --- */

/* A level of instructions, such as "avx2". All levels write and read the same bytes; they differ in speed. */
struct kerf_isa;

/* Names of the levels that this processor has, the best first, "ref", which is plain C, last;
 * NULL-terminated. */
KERF_API const char *const *kerf_isa_names(void);

/* The level of a name; "native" is the best here. NULL: no such level, or this processor does not have it. */
KERF_API const struct kerf_isa *kerf_isa_find(const char *name);

/* --- rows; `isa` may be NULL: the best level of this processor --- */

/* Quantize src [n_rows, n_cols] to dst, dst_bytes = n_rows * kerf_row_bytes long. `importance` [n_cols] says
 * how much the error of each column counts (the mean square of the inputs it is multiplied with), finite and
 * not negative; the same for all rows. NULL: no such weights. Blocks for which it is all zero are quantized
 * as without it. KERF_ERROR_ARGUMENT: a length that does not fit, importance that is needed and missing or
 * not valid, a weight that is NaN, infinite or larger than the type holds; the message names its place.
 * KERF_ERROR_UNSUPPORTED: a type that is not written. On failure dst is not touched. */
KERF_API int kerf_quantize_rows(const struct kerf_isa *isa, enum kerf_type type, const float *src, void *dst,
                                size_t dst_bytes, size_t n_rows, size_t n_cols, const float *importance,
                                struct kerf_error *e);

/* Dequantize src, src_bytes long and at any alignment, to dst [n_rows, n_cols]. Any bytes may be given:
 * blocks with damaged scales give NaN or infinity, never a fault. */
KERF_API int kerf_dequantize_rows(const struct kerf_isa *isa, enum kerf_type type, const void *src,
                                  size_t src_bytes, float *dst, size_t n_rows, size_t n_cols,
                                  struct kerf_error *e);

/* Do these blocks hold finite numbers only? KERF_ERROR_FORMAT: no, and *bad_byte is the offset of the first
 * block that does not; bad_byte may be NULL. */
KERF_API int kerf_validate_blocks(enum kerf_type type, const void *src, size_t src_bytes, size_t *bad_byte,
                                  struct kerf_error *e);

#ifdef __cplusplus
}
#endif

#endif
