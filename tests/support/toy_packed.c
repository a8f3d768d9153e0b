/* toy_packed.c - see toy_packed.h. */
#include "toy_packed.h"

#include "formats/hf/safetensors_write.h"
#include "libquant/base/rng.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum layout { SCALED, GPTQ, AWQ, CT_PACK, FP4, BITNET, BNB4, BNB8, MLX };

struct facts {
    const char *name, *config, *type;
    enum layout layout;
    enum st_dtype codes, scale;
    unsigned bits;
    uint64_t block_o, block_i; /* of the scales; 0: the whole axis */
    bool zeros, index, v2, gaps;
    const char *scale_name;
};

#define CT(format, weights)                                                                                  \
    "{\"quant_method\": \"compressed-tensors\", \"format\": \"" format                                       \
    "\", \"config_groups\": {\"group_0\": {\"targets\": [\"Linear\"], \"weights\": {" weights                \
    "}}}, \"ignore\": [\"lm_head\"]}"
#define GPTQ_CONFIG(bits, group, more)                                                                       \
    "{\"quant_method\": \"gptq\", \"bits\": " bits ", \"group_size\": " group more "}"

#define MLX_CONFIG(bits, group, more) "{\"group_size\": " group ", \"bits\": " bits more "}"
#define AUTO_CONFIG(format)                                                                                  \
    "{\"quant_method\": \"auto-round\", \"bits\": 4, \"group_size\": 32, \"sym\": false, \"data_type\": "    \
    "\"int\", "                                                                                              \
    "\"packing_format\": \"" format "\"}"

static const struct facts all_facts[TOY_PACKING_COUNT] = {
    [TOY_FP8_BLOCK] = {"fp8-block", "{\"quant_method\": \"fp8\", \"weight_block_size\": [16, 40]}",
                       "FP8 E4M3 16x40", SCALED, ST_F8_E4M3, ST_BF16, 8, 16, 40,
                       .scale_name = "weight_scale_inv"},
    [TOY_FP8_TENSOR] = {"fp8-tensor", "{\"quant_method\": \"fp8\"}", "FP8 E4M3 per tensor", SCALED,
                        ST_F8_E4M3, ST_F32, 8, 0, 0, .scale_name = "weight_scale_inv"},
    [TOY_FP8_E5M2_ROW] = {"fp8-e5m2-row", "{\"quant_method\": \"fp8\", \"fmt\": \"e5m2\"}",
                          "FP8 E5M2 per channel", SCALED, ST_F8_E5M2, ST_F16, 8, 1, 0,
                          .scale_name = "weight_scale_inv"},
    [TOY_FBGEMM] = {"fbgemm", "{\"quant_method\": \"fbgemm_fp8\"}", "FP8 E4M3 per channel", SCALED,
                    ST_F8_E4M3, ST_F32, 8, 1, 0, .scale_name = "weight_scale"},
    [TOY_MODELOPT_FP8] = {"modelopt-fp8", "{\"quant_algo\": \"FP8\", \"producer\": {\"name\": \"modelopt\"}}",
                          "FP8 E4M3 per tensor", SCALED, ST_F8_E4M3, ST_F32, 8, 0, 0,
                          .scale_name = "weight_scale"},
    [TOY_GPTQ_2] = {"gptq-2", GPTQ_CONFIG("2", "32", ""), "GPTQ 2-bit g32", GPTQ, ST_I32, ST_F16, 2, 1, 32,
                    .zeros = true, .index = true},
    [TOY_GPTQ_3] = {"gptq-3", GPTQ_CONFIG("3", "32", ""), "GPTQ 3-bit g32", GPTQ, ST_I32, ST_F16, 3, 1, 32,
                    .zeros = true, .index = true},
    [TOY_GPTQ_4] = {"gptq-4", GPTQ_CONFIG("4", "48", ", \"checkpoint_format\": \"gptq\""), "GPTQ 4-bit g48",
                    GPTQ, ST_I32, ST_F16, 4, 1, 48, .zeros = true, .index = true},
    [TOY_GPTQ_8] = {"gptq-8", GPTQ_CONFIG("8", "32", ""), "GPTQ 8-bit g32", GPTQ, ST_I32, ST_BF16, 8, 1, 32,
                    .zeros = true, .index = true},
    [TOY_GPTQ_ACT] = {"gptq-act-order", GPTQ_CONFIG("4", "32", ", \"desc_act\": true"), "GPTQ 4-bit g32",
                      GPTQ, ST_I32, ST_F16, 4, 1, 32, .zeros = true, .index = true},
    [TOY_GPTQ_V2] = {"gptq-v2", GPTQ_CONFIG("4", "32", ", \"checkpoint_format\": \"gptq_v2\""),
                     "GPTQ 4-bit g32", GPTQ, ST_I32, ST_F16, 4, 1, 32, .zeros = true, .index = true,
                     .v2 = true},
    [TOY_GPTQ_BARE] = {"gptq-bare", GPTQ_CONFIG("4", "-1", ""), "GPTQ 4-bit", GPTQ, ST_I32, ST_F16, 4, 1, 0,
                       .zeros = true},
    [TOY_AWQ] = {"awq", "{\"quant_method\": \"awq\", \"bits\": 4, \"group_size\": 32, \"version\": \"gemm\"}",
                 "AWQ 4-bit g32", AWQ, ST_I32, ST_F16, 4, 1, 32, .zeros = true},
    [TOY_CT_FLOAT_BLOCK] = {"ct-float-block",
                            CT("float-quantized",
                               "\"num_bits\": 8, \"type\": \"float\", \"strategy\": \"block\", "
                               "\"block_structure\": [16, 40]"),
                            "FP8 E4M3 16x40", SCALED, ST_F8_E4M3, ST_F32, 8, 16, 40,
                            .scale_name = "weight_scale"},
    [TOY_CT_INT_ROW] = {"ct-int-row",
                        CT("int-quantized", "\"num_bits\": 8, \"type\": \"int\", \"strategy\": \"channel\", "
                                            "\"group_size\": null"),
                        "INT8 per channel", SCALED, ST_I8, ST_BF16, 8, 1, 0, .scale_name = "weight_scale"},
    [TOY_CT_INT_ASYMMETRIC] = {"ct-int-asymmetric",
                               CT("int-quantized",
                                  "\"num_bits\": 8, \"strategy\": \"group\", \"group_size\": 32"),
                               "INT8 g32", SCALED, ST_I8, ST_F32, 8, 1, 32, true,
                               .scale_name = "weight_scale"},
    [TOY_CT_PACK_4] = {"ct-pack-4",
                       CT("pack-quantized", "\"num_bits\": 4, \"strategy\": \"group\", \"group_size\": 32"),
                       "INT4 g32", CT_PACK, ST_I32, ST_BF16, 4, 1, 32, .zeros = false},
    [TOY_CT_PACK_4_ASYMMETRIC] = {"ct-pack-4-asymmetric",
                                  CT("pack-quantized",
                                     "\"num_bits\": 4, \"group_size\": 96, \"symmetric\": false"),
                                  "INT4 g96", CT_PACK, ST_I32, ST_F16, 4, 1, 96, .zeros = true},
    [TOY_CT_PACK_4_INDEX] = {"ct-pack-4-index",
                             CT("pack-quantized",
                                "\"num_bits\": 4, \"group_size\": 32, \"actorder\": \"group\""),
                             "INT4 g32", CT_PACK, ST_I32, ST_F16, 4, 1, 32, .zeros = true, .index = true},
    [TOY_CT_PACK_3_GAPS] = {"ct-pack-3-gaps", CT("pack-quantized", "\"num_bits\": 3, \"group_size\": 32"),
                            "INT3 g32", CT_PACK, ST_I32, ST_F32, 3, 1, 32, .gaps = true},
    [TOY_CT_PACK_3_DENSE] = {"ct-pack-3-dense",
                             CT("pack-quantized",
                                "\"num_bits\": 3, \"group_size\": 32, \"symmetric\": false"),
                             "INT3 g32", CT_PACK, ST_I32, ST_F16, 3, 1, 32, .zeros = true},
    [TOY_CT_NVFP4] = {"ct-nvfp4",
                      CT("nvfp4-pack-quantized", "\"num_bits\": 4, \"type\": \"float\", \"group_size\": 16"),
                      "NVFP4", FP4, ST_U8, ST_F8_E4M3, 4, 1, 16, .scale_name = "weight_scale"},
    [TOY_CT_MXFP4] = {"ct-mxfp4",
                      CT("mxfp4-pack-quantized", "\"num_bits\": 4, \"type\": \"float\", \"group_size\": 32"),
                      "MXFP4", FP4, ST_U8, ST_U8, 4, 1, 32, .scale_name = "weight_scale"},
    [TOY_CT_MXFP8] = {"ct-mxfp8",
                      CT("mxfp8-quantized", "\"num_bits\": 8, \"type\": \"float\", \"group_size\": 32"),
                      "FP8 E4M3 g32", SCALED, ST_F8_E4M3, ST_U8, 8, 1, 32, .scale_name = "weight_scale"},
    [TOY_MODELOPT_NVFP4] = {"modelopt-nvfp4", "{\"quant_method\": \"modelopt\", \"quant_algo\": \"NVFP4\"}",
                            "NVFP4", FP4, ST_U8, ST_F8_E4M3, 4, 1, 16, .scale_name = "weight_scale"},
    [TOY_BITNET] = {"bitnet", "{\"quant_method\": \"bitnet\"}", "BitNet 2-bit", BITNET, ST_U8, ST_BF16, 2, 0,
                    0, .zeros = false},
    [TOY_BNB_NF4] = {"bnb-nf4", "{\"quant_method\": \"bitsandbytes\", \"load_in_4bit\": true}",
                     "bitsandbytes nf4 g64", BNB4, ST_U8, ST_U8, 4, 0, 64, .zeros = true},
    [TOY_BNB_FP4] = {"bnb-fp4", "{\"quant_method\": \"bitsandbytes\", \"load_in_4bit\": true}",
                     "bitsandbytes fp4 g128", BNB4, ST_U8, ST_F32, 4, 0, 128, .zeros = false},
    [TOY_BNB_INT8] = {"bnb-int8", "{\"quant_method\": \"bitsandbytes\", \"load_in_8bit\": true}",
                      "bitsandbytes int8", BNB8, ST_I8, ST_F32, 8, 1, 0, .scale_name = "SCB"},
    [TOY_MLX_2] = {"mlx-2", MLX_CONFIG("2", "32", ""), "MLX 2-bit g32", MLX, ST_U32, ST_BF16, 2, 1, 32,
                   .zeros = false},
    [TOY_MLX_3] = {"mlx-3", MLX_CONFIG("3", "32", ", \"mode\": \"affine\""), "MLX 3-bit g32", MLX, ST_U32,
                   ST_F16, 3, 1, 32, .zeros = false},
    [TOY_MLX_4] = {"mlx-4", MLX_CONFIG("4", "96", ""), "MLX 4-bit g96", MLX, ST_U32, ST_BF16, 4, 1, 96,
                   .zeros = false},
    [TOY_MLX_5] = {"mlx-5", MLX_CONFIG("5", "32", ""), "MLX 5-bit g32", MLX, ST_U32, ST_F32, 5, 1, 32,
                   .zeros = false},
    [TOY_MLX_6] = {"mlx-6", MLX_CONFIG("6", "32", ""), "MLX 6-bit g32", MLX, ST_U32, ST_F16, 6, 1, 32,
                   .zeros = false},
    [TOY_MLX_8] = {"mlx-8", MLX_CONFIG("8", "32", ""), "MLX 8-bit g32", MLX, ST_U32, ST_BF16, 8, 1, 32,
                   .zeros = false},
    [TOY_MLX_OWN] = {"mlx-own",
                     MLX_CONFIG("4", "64",
                                ", \"m\": {\"group_size\": 32, \"bits\": 6}, "
                                "\"model.layers.0.mlp.up_proj\": {\"group_size\": 32, \"bits\": 6}, "
                                "\"lm_head\": false"),
                     "MLX 6-bit g32", MLX, ST_U32, ST_BF16, 6, 1, 32, .zeros = false},
    [TOY_AUTO_GPTQ] = {"auto-gptq", AUTO_CONFIG("auto_round:auto_gptq"), "GPTQ 4-bit g32", GPTQ, ST_I32,
                       ST_F16, 4, 1, 32, .zeros = true, .index = true},
    [TOY_AUTO_PLAIN] = {"auto-plain", AUTO_CONFIG("auto_round"), "GPTQ 4-bit g32", GPTQ, ST_I32, ST_F16, 4, 1,
                        32, .zeros = true, .v2 = true},
    [TOY_AUTO_AWQ] = {"auto-awq", AUTO_CONFIG("auto_round:auto_awq"), "AWQ 4-bit g32", AWQ, ST_I32, ST_F16, 4,
                      1, 32, .zeros = true},
};

const char *toy_packing_name(enum toy_packing kind)
{
    return all_facts[kind].name;
}

const char *toy_packing_config(enum toy_packing kind)
{
    return all_facts[kind].config;
}

const char *toy_packing_type(enum toy_packing kind)
{
    return all_facts[kind].type;
}

/* --- contents ------------------------------------------------------------------------------------------- */

/* Bytes of which every element is a reasonable number: scales between 2^-8 and 2^-5. */
static void fill(uint8_t *p, const struct st_tensor *t, bool is_scale, struct rng *rng)
{
    for (uint64_t i = 0; i < t->n_bytes; i++)
        p[i] = (uint8_t)(rng_u64(rng) >> 24);
    for (uint64_t i = 0; i < t->n_elems; i++) {
        uint64_t r = rng_u64(rng) >> 20;
        uint16_t h = (uint16_t)(t->dtype == ST_F16 ? 8 << 10 | (r & 0x3ff) : 0x78 << 7 | (r & 0x7f));
        float f = 0x1p-7f + (float)(r & 0xfffff) * 0x1p-26f;
        if (t->dtype == ST_F32)
            memcpy(p + 4 * i, &f, 4);
        else if (t->dtype == ST_F16 || t->dtype == ST_BF16)
            memcpy(p + 2 * i, &h, 2);
        else if (t->dtype == ST_F8_E4M3 && (p[i] & 0x7f) == 0x7f)
            p[i] = 0x38;
        else if (t->dtype == ST_F8_E5M2 && (p[i] & 0x7c) == 0x7c)
            p[i] = 0x38;
        else if (t->dtype == ST_U8 && is_scale)
            p[i] = (uint8_t)(115 + r % 10);
    }
}

uint8_t *toy_packed_tensor(struct toy_packed *p, const char *name, enum st_dtype dtype, uint32_t n_dims,
                           const uint64_t *shape, const void *data)
{
    if (p->n == p->cap) {
        p->cap = p->cap ? 2 * p->cap : 64;
        p->t = realloc(p->t, p->cap * sizeof *p->t);
        if (!p->t)
            abort();
    }
    struct st_tensor *t = &p->t[p->n++];
    *t = (struct st_tensor){.name = strdup(name), .dtype = dtype, .n_dims = n_dims, .n_elems = 1};
    for (uint32_t i = 0; i < n_dims; i++) {
        t->shape[i] = shape[i];
        t->n_elems *= shape[i];
    }
    t->n_bytes = t->n_elems * st_dtype_bits(dtype) / 8;
    uint8_t *bytes = malloc(t->n_bytes + 1);
    if (!bytes || !t->name)
        abort();
    struct rng rng = {1000 * p->seed + p->n};
    if (data)
        memcpy(bytes, data, t->n_bytes);
    else
        fill(bytes, t, strstr(name, "scale") != NULL, &rng);
    t->data = bytes;
    return bytes;
}

struct st_tensor *toy_packed_find(const struct toy_packed *p, const char *name)
{
    for (size_t i = 0; i < p->n; i++)
        if (strcmp(p->t[i].name, name) == 0)
            return &p->t[i];
    return NULL;
}

static uint8_t *put(struct toy_packed *p, const char *stem, const char *part, enum st_dtype dtype,
                    uint32_t n_dims, uint64_t d0, uint64_t d1, const void *data)
{
    char name[200];
    snprintf(name, sizeof name, "%s.%s", stem, part);
    return toy_packed_tensor(p, name, dtype, n_dims, (uint64_t[]){d0, d1}, data);
}

static uint64_t ceil_div(uint64_t a, uint64_t b)
{
    return (a + b - 1) / b;
}

/* 32-bit words for n numbers. */
static uint64_t n_words(const struct facts *f, uint64_t n)
{
    return f->gaps ? ceil_div(n, 32 / f->bits) : ceil_div(n * f->bits, 32);
}

static void put_index(struct toy_packed *p, const char *stem, const char *part, uint64_t n, uint64_t group,
                      bool shuffled)
{
    int32_t *g = malloc(n * sizeof *g);
    if (!g)
        abort();
    for (uint64_t i = 0; i < n; i++)
        g[i] = (int32_t)((shuffled ? i * 7 % n : i) / group); /* 7 is coprime to the widths in use */
    put(p, stem, part, ST_I32, 1, n, 0, g);
    free(g);
}

static void put_bnb4(struct toy_packed *p, const struct facts *f, const char *stem, uint64_t rows,
                     uint64_t cols)
{
    char state[300];
    uint64_t n_blocks = ceil_div(rows * cols, f->block_i);
    bool nf4 = f->zeros;
    int len = snprintf(
        state, sizeof state,
        "{\"quant_type\": \"%s\", \"blocksize\": %d, \"dtype\": \"bfloat16\", \"shape\": [%d, %d]%s}",
        nf4 ? "nf4" : "fp4", (int)f->block_i, (int)rows, (int)cols,
        nf4 ? ", \"nested_blocksize\": 8, \"nested_dtype\": \"float32\", \"nested_offset\": 0.0625" : "");
    put(p, stem, "weight", ST_U8, 2, ceil_div(rows * cols, 2), 1, NULL);
    put(p, stem, "weight.absmax", f->scale, 1, n_blocks, 0, NULL);
    put(p, stem, "weight.quant_map", ST_F32, 1, 16, 0, NULL);
    put(p, stem, nf4 ? "weight.quant_state.bitsandbytes__nf4" : "weight.quant_state.bitsandbytes__fp4", ST_U8,
        1, (uint64_t)len, 0, state);
    if (nf4) {
        put(p, stem, "weight.nested_absmax", ST_F32, 1, ceil_div(n_blocks, 8), 0, NULL);
        put(p, stem, "weight.nested_quant_map", ST_F32, 1, 256, 0, NULL);
    }
}

void toy_packed_add(struct toy_packed *p, enum toy_packing kind, const char *stem, uint64_t rows,
                    uint64_t cols)
{
    const struct facts *f = &all_facts[kind];
    uint64_t group = f->block_i ? f->block_i : cols, G = ceil_div(cols, group);
    int64_t shape[2] = {(int64_t)rows, (int64_t)cols};
    switch (f->layout) {
    case SCALED:
        put(p, stem, "weight", f->codes, 2, rows, cols, NULL);
        put(p, stem, f->scale_name, f->scale,
            f->block_o ? f->block_o == 1 && !f->block_i && kind != TOY_FBGEMM ? 1 : 2 : 0,
            f->block_o ? ceil_div(rows, f->block_o) : 1, G, NULL);
        if (f->zeros)
            put(p, stem, "weight_zero_point", ST_I8, 2, rows, G, NULL);
        break;
    case GPTQ:
        put(p, stem, "qweight", ST_I32, 2, n_words(f, cols), rows, NULL);
        put(p, stem, "qzeros", ST_I32, 2, G, n_words(f, rows), NULL);
        put(p, stem, "scales", f->scale, 2, G, rows, NULL);
        if (f->index)
            put_index(p, stem, "g_idx", cols, group, kind == TOY_GPTQ_ACT);
        break;
    case AWQ:
        put(p, stem, "qweight", ST_I32, 2, cols, rows / 8, NULL);
        put(p, stem, "qzeros", ST_I32, 2, G, rows / 8, NULL);
        put(p, stem, "scales", f->scale, 2, G, rows, NULL);
        break;
    case CT_PACK:
        put(p, stem, "weight_packed", ST_I32, 2, rows, n_words(f, cols), NULL);
        put(p, stem, "weight_scale", f->scale, 2, rows, G, NULL);
        put(p, stem, "weight_shape", ST_I64, 1, 2, 0, shape);
        if (f->zeros)
            put(p, stem, "weight_zero_point", ST_I32, 2, n_words(f, rows), G, NULL);
        if (f->index)
            put_index(p, stem, "weight_g_idx", cols, group, true);
        break;
    case FP4:
        put(p, stem, kind == TOY_MODELOPT_NVFP4 ? "weight" : "weight_packed", ST_U8, 2, rows, cols / 2, NULL);
        put(p, stem, "weight_scale", f->scale, 2, rows, G, NULL);
        if (kind != TOY_CT_MXFP4)
            put(p, stem, kind == TOY_MODELOPT_NVFP4 ? "weight_scale_2" : "weight_global_scale", ST_F32,
                kind == TOY_CT_NVFP4, 1, 0, NULL);
        break;
    case BITNET:
        put(p, stem, "weight", ST_U8, 2, rows / 4, cols, NULL);
        put(p, stem, "weight_scale", f->scale, 1, 1, 0, NULL);
        break;
    case BNB4: put_bnb4(p, f, stem, rows, cols); break;
    case BNB8:
        put(p, stem, "weight", ST_I8, 2, rows, cols, NULL);
        put(p, stem, "SCB", ST_F32, 1, rows, 0, NULL);
        put(p, stem, "weight_format", ST_U8, 0, 0, 0, NULL);
        break;
    case MLX:
        put(p, stem, "weight", ST_U32, 2, rows, n_words(f, cols), NULL);
        put(p, stem, "scales", f->scale, 2, rows, G, NULL);
        put(p, stem, "biases", f->scale, 2, rows, G, NULL);
        break;
    }
}

/* --- meaning -------------------------------------------------------------------------------------------- */

static const struct st_tensor *get(const struct toy_packed *p, const char *stem, const char *part)
{
    char name[200];
    snprintf(name, sizeof name, "%s.%s", stem, part);
    const struct st_tensor *t = toy_packed_find(p, name);
    if (!t)
        abort();
    return t;
}

/* A float of `n_exp` exponent and `n_man` mantissa bits, without infinities. */
static double small_float(uint32_t v, int n_exp, int n_man)
{
    int bias = (1 << (n_exp - 1)) - 1;
    int e = (int)(v >> n_man) & ((1 << n_exp) - 1);
    double m = (double)(v & ((1u << n_man) - 1)) / (double)(1u << n_man);
    double x = e ? ldexp(1 + m, e - bias) : ldexp(m, 1 - bias);
    return v >> (n_exp + n_man) & 1 ? -x : x;
}

static double number(const struct st_tensor *t, uint64_t i)
{
    uint16_t h = 0;
    float f;
    if (t->dtype == ST_F16 || t->dtype == ST_BF16)
        memcpy(&h, t->data + 2 * i, 2);
    switch (t->dtype) {
    case ST_F32: memcpy(&f, t->data + 4 * i, 4); return f;
    case ST_F16: return small_float(h, 5, 10);
    case ST_BF16: return small_float(h, 8, 7);
    case ST_F8_E4M3: return small_float(t->data[i], 4, 3);
    case ST_F8_E5M2: return small_float(t->data[i], 5, 2);
    case ST_I8: return (int8_t)t->data[i];
    default: return ldexp(1, t->data[i] - 127); /* U8 scales are exponents */
    }
}

static unsigned bit_of_word(const struct st_tensor *t, uint64_t word, uint64_t bit)
{
    return t->data[4 * word + bit / 8] >> (bit % 8) & 1;
}

/* Number `k` of a sequence whose word `j` is word first + j*stride of the tensor, bit by bit. */
static double packed(const struct st_tensor *t, const struct facts *f, uint64_t first, uint64_t stride,
                     uint64_t k)
{
    unsigned v = 0;
    for (unsigned b = 0; b < f->bits; b++) {
        uint64_t at = f->gaps ? k / (32 / f->bits) * 32 + k % (32 / f->bits) * f->bits + b : k * f->bits + b;
        v |= bit_of_word(t, first + at / 32 * stride, at % 32) << b;
    }
    return v;
}

static double bnb4_value(const struct toy_packed *p, const struct facts *f, const char *stem, uint64_t k)
{
    const struct st_tensor *absmax = get(p, stem, "weight.absmax");
    uint8_t byte = get(p, stem, "weight")->data[k / 2];
    double scale;
    uint64_t b = k / f->block_i;
    if (f->zeros)
        scale = number(get(p, stem, "weight.nested_quant_map"), absmax->data[b]) *
                    number(get(p, stem, "weight.nested_absmax"), b / 8) +
                0.0625;
    else
        scale = number(absmax, b);
    return number(get(p, stem, "weight.quant_map"), k % 2 ? byte & 15 : byte >> 4) * scale;
}

static double awq_number(const struct st_tensor *t, uint64_t row, uint64_t o)
{
    static const int nibble[8] = {0, 4, 1, 5, 2, 6, 3, 7};
    uint64_t word = row * t->shape[1] + o / 8;
    unsigned v = 0;
    for (unsigned b = 0; b < 4; b++)
        v |= bit_of_word(t, word, (uint64_t)(4 * nibble[o % 8]) + b) << b;
    return v;
}

static double ct_value(const struct toy_packed *p, const struct facts *f, const char *stem, uint64_t o,
                       uint64_t i)
{
    const struct st_tensor *codes = get(p, stem, "weight_packed"), *scale = get(p, stem, "weight_scale");
    uint64_t g = i / f->block_i, G = scale->shape[1];
    double zero = 1 << (f->bits - 1);
    if (f->index)
        g = get(p, stem, "weight_g_idx")->data[4 * i];
    if (f->zeros)
        zero = packed(get(p, stem, "weight_zero_point"), f, g, G, o);
    return number(scale, o * G + g) * (packed(codes, f, o * codes->shape[1], 1, i) - zero);
}

static double fp4_value(const struct toy_packed *p, enum toy_packing kind, const char *stem, uint64_t o,
                        uint64_t i)
{
    static const double magnitude[8] = {0, 0.5, 1, 1.5, 2, 3, 4, 6};
    const struct st_tensor *codes = get(p, stem, kind == TOY_MODELOPT_NVFP4 ? "weight" : "weight_packed");
    const struct st_tensor *scale = get(p, stem, "weight_scale");
    unsigned c = codes->data[o * codes->shape[1] + i / 2] >> (i % 2 ? 4 : 0) & 15;
    double x = (c & 8 ? -1 : 1) * magnitude[c & 7] *
               number(scale, o * scale->shape[1] + i / all_facts[kind].block_i);
    if (kind == TOY_MODELOPT_NVFP4)
        return x * number(get(p, stem, "weight_scale_2"), 0);
    return kind == TOY_CT_NVFP4 ? x / number(get(p, stem, "weight_global_scale"), 0) : x;
}

double toy_packed_value(const struct toy_packed *p, enum toy_packing kind, const char *stem, uint64_t o,
                        uint64_t i)
{
    const struct facts *f = &all_facts[kind];
    const struct st_tensor *codes, *scale;
    uint64_t g, at;
    switch (f->layout) {
    case SCALED:
        codes = get(p, stem, "weight");
        scale = get(p, stem, f->scale_name);
        g = f->block_i ? i / f->block_i : 0;
        at = (f->block_o ? o / f->block_o : 0) * (f->block_i ? ceil_div(codes->shape[1], f->block_i) : 1) + g;
        return number(scale, at) * (number(codes, o * codes->shape[1] + i) -
                                    (f->zeros ? number(get(p, stem, "weight_zero_point"), at) : 0));
    case GPTQ:
        codes = get(p, stem, "qweight");
        scale = get(p, stem, "scales");
        g = f->index ? get(p, stem, "g_idx")->data[4 * i] : f->block_i ? i / f->block_i : 0;
        return number(scale, g * scale->shape[1] + o) *
               (packed(codes, f, o, codes->shape[1], i) -
                packed(get(p, stem, "qzeros"), f, g * get(p, stem, "qzeros")->shape[1], 1, o) -
                (f->v2 ? 0 : 1));
    case AWQ:
        scale = get(p, stem, "scales");
        g = i / f->block_i;
        return number(scale, g * scale->shape[1] + o) *
               (awq_number(get(p, stem, "qweight"), i, o) - awq_number(get(p, stem, "qzeros"), g, o));
    case CT_PACK: return ct_value(p, f, stem, o, i);
    case FP4: return fp4_value(p, kind, stem, o, i);
    case BITNET:
        codes = get(p, stem, "weight");
        at = codes->shape[0]; /* a quarter of the rows */
        return ((codes->data[o % at * codes->shape[1] + i] >> (2 * (o / at)) & 3) - 1) /
               number(get(p, stem, "weight_scale"), 0);
    case BNB4: {
        /* the width is only known from the state: "[rows, cols]" */
        const char *shape = strstr((const char *)get(p, stem,
                                                     f->zeros ? "weight.quant_state.bitsandbytes__nf4"
                                                              : "weight.quant_state.bitsandbytes__fp4")
                                       ->data,
                                   "\"shape\": [");
        return bnb4_value(p, f, stem, o * strtoull(strchr(shape, ',') + 1, NULL, 10) + i);
    }
    case MLX:
        codes = get(p, stem, "weight");
        scale = get(p, stem, "scales");
        at = o * scale->shape[1] + i / f->block_i;
        return number(scale, at) * packed(codes, f, o * codes->shape[1], 1, i) +
               number(get(p, stem, "biases"), at);
    default:
        codes = get(p, stem, "weight");
        return number(codes, o * codes->shape[1] + i) * number(get(p, stem, "SCB"), o) / 127;
    }
}

void toy_packed_release(struct toy_packed *p)
{
    for (size_t i = 0; i < p->n; i++) {
        free((void *)(uintptr_t)p->t[i].name);
        free((void *)(uintptr_t)p->t[i].data);
    }
    free(p->t);
    *p = (struct toy_packed){NULL, 0, 0, 0};
}

int toy_packed_write(const struct toy_packed *p, const char *path, struct err *e)
{
    struct safetensors_writer *w = NULL;
    int rc = safetensors_writer_open(&w, path, true, e);
    if (rc != 0)
        return rc;
    for (size_t i = 0; rc == 0 && i < p->n; i++)
        rc = safetensors_writer_add(w, p->t[i].name, p->t[i].dtype, p->t[i].n_dims, p->t[i].shape, e);
    for (size_t i = 0; rc == 0 && i < p->n; i++)
        rc = safetensors_writer_write(w, p->t[i].data, p->t[i].n_bytes, e);
    if (rc == 0)
        return safetensors_writer_commit(w, e);
    safetensors_writer_abort(w);
    return rc;
}
