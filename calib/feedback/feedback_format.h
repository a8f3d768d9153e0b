/* feedback_format.h - the block types as the error feedback sees them: a grid of codes, steps and offsets,
 * however the bits lie; and the bits.
 *
 * A block is n_sub groups of `sub` weights. Weight i of group s is
 *
 *     w = (d * scale_s) * code_i - dmin * min_s
 *
 * with d and dmin in float16 for the block, scale and min integers for the group (1 and 1 in the types with a
 * block of one group, where d and dmin are all there is; no min, no dmin in the symmetric types), and codes
 * from a range of integers or from the 16 levels of iq4. In this form encoders need not know a type.
 *
 * The code books (iq2, iq3) have levels of both signs, odd scales 1..31 and d times `unit`. Their codes come
 * in tuples: the magnitudes of a tuple are an entry of the book, and where signs are even, an even number of
 * each eight weights is negative.
 * Specification: quantization 3. */
#ifndef KERF_FEEDBACK_FORMAT_H
#define KERF_FEEDBACK_FORMAT_H

#include "libquant/codebook.h"
#include "libquant/types.h"

enum { FEEDBACK_MAX_SUB = 32, FEEDBACK_MAX_BLOCK = 256, FEEDBACK_MAX_GROUPS = 16 };

struct feedback_format {
    enum qtype type;
    unsigned block, sub, n_sub; /* block = sub * n_sub */
    int code_min, code_max;     /* when `levels` is NULL */
    const float *levels;        /* [n_levels] rising, or NULL */
    bool has_min;               /* dmin and min_s */
    bool has_scales;            /* integers for the group; else scale_s = min_s = 1 */
    int scale_min, scale_max, min_max;
    unsigned n_levels;
    float unit;     /* a power of two: what the block stores is d / unit */
    int scale_step; /* from one scale to the next: 1, or 2 */
    bool has_book, even_signs;
    enum codebook_id book;
};

/* The weights of a code book that are chosen at once: those of a tuple, or of an even number of signs. */
static inline unsigned feedback_unit(const struct feedback_format *f)
{
    return f->book == CODEBOOK_IQ3_S ? 4 : 8;
}

/* NULL: a type without error feedback. */
const struct feedback_format *feedback_format(enum qtype type);

/* One block in that form. */
struct feedback_block {
    float d, dmin; /* float16 values, d times `unit` */
    int scale[FEEDBACK_MAX_GROUPS], min[FEEDBACK_MAX_GROUPS];
    int code[FEEDBACK_MAX_BLOCK]; /* integer, or value of the level */
};

void feedback_pack(const struct feedback_format *f, const struct feedback_block *b, void *dst);

#endif
