/* hf_packed_internal.h - what the hf_packed_*.c files share; included by nobody else.
 *
 * Every format is seen as codes (one small number for each element), a grid of scales, and perhaps a grid of
 * zero points, a group number for each input column and one more factor:
 *
 *     W[m, o, i] = global * scale[m, o, group(i)] * (code[m, o, i] - zero[m, o, group(i)])
 *     W[m, o, i] = scale[m, o, group(i)] * code[m, o, i] + bias[m, o, group(i)]                (mlx)
 *
 * with m the matrix of a stack, o the output row and i the input column. */
#ifndef KERF_HF_PACKED_INTERNAL_H
#define KERF_HF_PACKED_INTERNAL_H

#include "hf_packed.h"

#include "libquant/base/slice.h"
#include "libquant/half.h"

enum quant_method {
    METHOD_FP8,
    METHOD_FBGEMM_FP8,
    METHOD_GPTQ,
    METHOD_AWQ,
    METHOD_COMPRESSED_TENSORS,
    METHOD_MODELOPT,
    METHOD_BITNET,
    METHOD_BITSANDBYTES,
    METHOD_MLX,
    METHOD_MXFP4,
};

/* One way in which a configuration says that weights are stored; compressed-tensors may list several. */
struct quant_scheme {
    uint64_t bits;             /* 0: not stated */
    uint64_t group_size;       /* 0: none stated, or one group for the whole row */
    uint64_t block_o, block_i; /* 0: no blocks */
};

struct hf_quant {
    struct arena arena;
    struct json_doc *doc; /* of the separate file; NULL when config.json says it all */
    const struct json *json;
    enum quant_method method;
    const char *name;
    struct quant_scheme *schemes;
    size_t n_schemes;
    const struct json *modules; /* mlx, auto-round: settings of single modules by their names; NULL: none */
    bool zeros_minus_one;       /* gptq: stored zero points are one too low */
    bool mixed_bits;            /* gptq: single modules may differ from `bits` */
    bool has_fp4;               /* compressed-tensors, modelopt: weights of 4-bit floats are announced */
};

enum part {
    PART_CODES,
    PART_SCALE,
    PART_ZERO,
    PART_GROUP, /* group of each column */
    PART_SHAPE,
    PART_GLOBAL,
    PART_LEVELS,        /* bitsandbytes: value of each code */
    PART_NESTED_SCALE,  /* of the scales, when these are codes themselves */
    PART_NESTED_LEVELS, /* value of each code of a scale */
    PART_STATE,
    PART_COUNT
};

enum code_layout {
    CODES_F8_E4M3,
    CODES_F8_E5M2,
    CODES_I8,
    CODES_INT_ROWS,    /* words along a row: [O, words] */
    CODES_INT_COLUMNS, /* words along a column: [words, O] (gptq) */
    CODES_AWQ,
    CODES_FP4,    /* two e2m1 in a byte, low nibble first */
    CODES_BITNET, /* 2 bits, 4 rows in a byte */
    CODES_BNB4,   /* two codes in a byte, high nibble first, counted over the whole weight */
};

enum zero_layout {
    ZERO_NONE,
    ZERO_CONSTANT,
    ZERO_I8,       /* one byte for each scale */
    ZERO_GPTQ,     /* [G, words along o] */
    ZERO_AWQ,      /* [G, O/8] */
    ZERO_INT_ROWS, /* [words along o, G] */
    ZERO_BIAS      /* no zero point: a number for each scale that is added to the product (mlx) */
};

/* Integers of `bits` bits in 32-bit words: without gaps (a number may continue in the next word), or only
 * whole numbers with the upper bits of each word unused. */
struct bit_layout {
    unsigned bits;
    bool has_gaps;
};

/* One number for each block_o x block_i rectangle of each matrix. */
struct grid {
    const uint8_t *data;
    enum st_dtype dtype;
    uint64_t block_o, block_i;
    uint64_t stride_m, stride_o, stride_i; /* in elements, per matrix and rectangle */
};

struct hf_packed {
    const char *name, *file, *type;
    const struct st_tensor *part[PART_COUNT];
    uint32_t n_dims;
    uint64_t shape[ST_MAX_DIMS];
    uint64_t n_mats, n_rows, n_cols; /* the shape as [M, O, I] */
    bool late;
    bool names_only; /* of the rest, only `codes` and scale.dtype of 4-bit floats are set */

    enum code_layout codes;
    struct bit_layout bits;
    struct grid scale;
    uint64_t n_groups; /* along a row */
    enum zero_layout zeros;
    struct bit_layout zero_bits;
    float zero;    /* constant, or what is added to the stored one */
    bool by_index; /* PART_GROUP counts */
    bool global_divides;
    float factor; /* of all values: 1, but 1/127 for bitsandbytes int8, which multiplies last */

    uint64_t block, nested_block; /* bitsandbytes: elements with one scale, scales with one nested scale */
    float nested_offset;
};

/* Check the parts of `w` against each other and the configuration, and fill in how to read them. */
int packed_bind(struct hf_packed *w, const struct hf_quant *q, struct arena *arena, struct err *e);

/* The same for bitsandbytes (hf_packed_bnb.c). */
int packed_bind_bnb(struct hf_packed *w, struct arena *arena, struct err *e);

/* Elements [first, first+n) of a 4-bit bitsandbytes weight. */
int packed_read_bnb4(const struct hf_packed *w, uint64_t first, uint64_t n, float *dst, struct err *e);

/* "[4096, 32]" for messages. */
const char *packed_shape_text(char *buf, size_t cap, const uint64_t *shape, uint32_t n);

/* ERR_FORMAT: `t` is expected to be `what` of this shape. */
int packed_bad_shape(const struct hf_packed *w, const struct st_tensor *t, const uint64_t *want,
                     uint32_t n_want, struct err *e);
int packed_bad_dtype(const struct hf_packed *w, const struct st_tensor *t, const char *want, struct err *e);

/* Number `i` of a sequence in words that lie `stride` words apart. */
static inline uint32_t bits_at(const uint8_t *words, uint64_t stride, struct bit_layout l, uint64_t i)
{
    const uint32_t mask = (1u << l.bits) - 1;
    if (l.has_gaps) {
        const unsigned per_word = 32 / l.bits;
        return load_u32(words + 4 * stride * (i / per_word)) >> (l.bits * (i % per_word)) & mask;
    }
    const uint64_t bit = i * l.bits;
    const unsigned shift = bit % 32;
    const uint8_t *p = words + 4 * stride * (bit / 32);
    uint32_t v = load_u32(p) >> shift;
    if (shift + l.bits > 32)
        v |= load_u32(p + 4 * stride) << (32 - shift);
    return v & mask;
}

/* Words for `n` numbers. */
static inline uint64_t bits_n_words(struct bit_layout l, uint64_t n)
{
    const uint64_t per_word = 32 / l.bits;
    if (l.has_gaps)
        return n / per_word + (n % per_word != 0);
    return n / 32 * l.bits + (n % 32 * l.bits + 31) / 32;
}

/* One number of a scale tensor. U8 is an exponent (mx formats store E8M0 so). */
static inline float scale_at(const uint8_t *data, enum st_dtype dtype, uint64_t i)
{
    switch (dtype) {
    case ST_F32: return load_f32(data + 4 * i);
    case ST_F16: return f16_to_f32(load_u16(data + 2 * i));
    case ST_BF16: return bf16_to_f32(load_u16(data + 2 * i));
    case ST_F8_E4M3: return f8_e4m3_to_f32(data[i]);
    default: return e8m0_to_f32(data[i]);
    }
}

#endif
