/* toy_packed.h - for tests: packed linear layers of every layout with random contents, and what they mean.
 *
 *     struct toy_packed p = {0};
 *     toy_packed_add(&p, TOY_GPTQ_4, "model.layers.0.mlp.up_proj", 24, 96);    all tensors of one layer
 *     toy_packed_value(&p, TOY_GPTQ_4, "model.layers.0.mlp.up_proj", o, i)     its weight, in double
 * precision
 *
 * The meaning is written from the formulas of the specification, one number at a time and sharing nothing
 * with the decoder, not even the conversion of small floats. */
#ifndef KERF_TOY_PACKED_H
#define KERF_TOY_PACKED_H

#include "formats/hf/safetensors_read.h"

enum toy_packing {
    TOY_FP8_BLOCK,    /* 16 x 40, bf16 scales */
    TOY_FP8_TENSOR,   /* one f32 scale */
    TOY_FP8_E5M2_ROW, /* [O] scales, e5m2 */
    TOY_FBGEMM,       /* [O, 1] scales */
    TOY_MODELOPT_FP8,
    TOY_GPTQ_2,
    TOY_GPTQ_3,
    TOY_GPTQ_4,
    TOY_GPTQ_8,
    TOY_GPTQ_ACT, /* 4 bits, shuffled groups */
    TOY_GPTQ_V2,
    TOY_GPTQ_BARE, /* without g_idx, one group for a row */
    TOY_AWQ,
    TOY_CT_FLOAT_BLOCK,
    TOY_CT_INT_ROW,
    TOY_CT_INT_ASYMMETRIC, /* int8 zero points */
    TOY_CT_PACK_4,
    TOY_CT_PACK_4_ASYMMETRIC,
    TOY_CT_PACK_4_INDEX, /* with a group index */
    TOY_CT_PACK_3_GAPS,  /* ten numbers in a word */
    TOY_CT_PACK_3_DENSE, /* 32 numbers in three words, asymmetric */
    TOY_CT_NVFP4,
    TOY_CT_MXFP4,
    TOY_CT_MXFP8,
    TOY_MODELOPT_NVFP4,
    TOY_BITNET,
    TOY_BNB_NF4, /* scales quantized once more */
    TOY_BNB_FP4, /* plain scales, blocks that cross rows */
    TOY_BNB_INT8,
    TOY_MLX_2,
    TOY_MLX_3,
    TOY_MLX_4,
    TOY_MLX_5,
    TOY_MLX_6,
    TOY_MLX_8,
    TOY_MLX_OWN,    /* settings of its own for the module */
    TOY_AUTO_GPTQ,  /* auto-round: zero points one too low */
    TOY_AUTO_PLAIN, /* zero points as they are */
    TOY_AUTO_AWQ,
    TOY_PACKING_COUNT
};

const char *toy_packing_name(enum toy_packing kind);   /* "gptq-4" */
const char *toy_packing_config(enum toy_packing kind); /* quantization_config as JSON */
const char *toy_packing_type(enum toy_packing kind);   /* what people are to read */

struct toy_packed {
    struct st_tensor *t; /* names and data are owned */
    size_t n, cap;
    uint64_t seed;
};

/* Columns a multiple of 96, rows of 8. Aborts when memory is refused. */
void toy_packed_add(struct toy_packed *p, enum toy_packing kind, const char *stem, uint64_t n_rows,
                    uint64_t n_cols);
/* One tensor more; random contents when `data` is NULL. Its data may be changed. */
uint8_t *toy_packed_tensor(struct toy_packed *p, const char *name, enum st_dtype dtype, uint32_t n_dims,
                           const uint64_t *shape, const void *data);
struct st_tensor *toy_packed_find(const struct toy_packed *p, const char *name); /* NULL: none */
double toy_packed_value(const struct toy_packed *p, enum toy_packing kind, const char *stem, uint64_t o,
                        uint64_t i);
void toy_packed_release(struct toy_packed *p);

/* All tensors as one safetensors file. */
int toy_packed_write(const struct toy_packed *p, const char *path, struct err *e);

#endif
