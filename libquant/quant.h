/* quant.h - the face of the quantization core towards the other rooms: rows of float32 to rows of blocks and
 * back.
 *
 * Rows never interact, so callers may split a matrix anywhere between rows and over any number of threads
 * without changing a byte. All functions here are pure and reentrant. */
#ifndef KERF_QUANT_H
#define KERF_QUANT_H

#include "base/err.h"
#include "kern/kern.h"
#include "types.h"

/* Decode n_rows x n_cols elements of `type` at `src` (src_bytes long, no alignment needed) to `dst`
 * [n_rows, n_cols]. Bit-exact with the specification for arbitrary block contents, NaN and Inf included.
 * ERR_ARG: n_cols not a multiple of the block, src_bytes not n_rows x row bytes; ERR_UNSUPPORTED: not
 * decodable. */
int quant_decode_rows(const struct kern *k, enum qtype type, const void *src, size_t src_bytes, float *dst,
                      size_t n_rows, size_t n_cols, struct err *e);

/* Encode `src` [n_rows, n_cols] (finite values) to `dst` (dst_bytes = n_rows x row bytes).
 * `importance` [n_cols], finite and >= 0, or NULL; the same weights serve all rows.
 * ERR_ARG also when the type requires importance and none is given. */
int quant_encode_rows(const struct kern *k, enum qtype type, const float *src, void *dst, size_t dst_bytes,
                      size_t n_rows, size_t n_cols, const float *importance, struct err *e);

/* Blocks of a row that importance says nothing about: all of it, over a whole block or over a group of
 * columns that has a scale of its own, is zero, or so small that its products vanish. */
size_t quant_n_unweighted_blocks(enum qtype type, const float *importance, size_t n_cols);

/* As quant_encode_rows, for files: a search whose weights are all zero finds the scale 0 and writes zeros, as
 * llama.cpp does. Here such a block is encoded as without importance, and such a group beside others with
 * even weights, the smallest of its block, unless its values are zeros anyway; all other blocks are those of
 * quant_encode_rows. Also ERR_NOMEM.
 */
int quant_encode_informed(const struct kern *k, enum qtype type, const float *src, void *dst,
                          size_t dst_bytes, size_t n_rows, size_t n_cols, const float *importance,
                          struct err *e);

/* What quant_encode_rows refuses, without looking at values. */
int quant_check_encode(const struct kern *k, enum qtype type, size_t dst_bytes, size_t n_rows, size_t n_cols,
                       const float *importance, struct err *e);

/* Index of the first element that is NaN, infinite, or larger than `limit` (not negative) in magnitude; n
 * when there is none. */
size_t quant_find_bad(const float *x, size_t n, float limit);

/* Largest magnitude the type's element may have without becoming infinite: 65504 for F16, else FLT_MAX. */
float quant_limit(enum qtype type);

/* Do blocks of this type want a factor beside them, one for a matrix, where a file is made (NVFP4)? */
bool quant_has_factor(enum qtype type);

/* That factor, for weights whose largest magnitude is `amax`: they are divided by it before they are encoded,
 * so that the largest scale of a block is the largest its byte can hold. 1 for other types, and for weights
 * that are all zero. */
float quant_factor(enum qtype type, float amax);

/* What encoding loses beyond the rounding that a type is known for. */
struct quant_losses {
    uint64_t
        n_flushed; /* blocks that hold weights and decode to zeros; of F16 and BF16 the single values that
                      are off by more than an eighth, unless they are below the rounding of their row */
    uint64_t n_clipped; /* blocks of 4-bit floats with a weight that is more than half a step beyond the
                           largest level of its scale */
};

/* Add what a row lost: `src` as it was encoded, `decoded` as it is read back; n_cols a whole number of
 * blocks. */
void quant_count_losses(struct quant_losses *sum, enum qtype type, const float *src, const float *decoded,
                        size_t n_cols);

/* Check stored blocks: no NaN/Inf in plain floats or in scale fields, no forbidden scale byte (specification,
 * quantization 6.6). *bad_byte: offset of the first offending block. 0, ERR_FORMAT or ERR_ARG. */
int quant_validate(enum qtype type, const void *src, size_t src_bytes, size_t *bad_byte, struct err *e);

#endif
