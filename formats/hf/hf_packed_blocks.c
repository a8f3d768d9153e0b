/* hf_packed_blocks.c - weights of 4-bit floats as the blocks of GGUF files: the same codes and scales in
 * another order, nothing rounded.
 *
 * A checkpoint stores two codes in a byte, low nibble first, and scales in a tensor of their own. MXFP4
 * blocks hold the E8M0 byte and 32 codes, low nibbles first half; NVFP4 blocks four UE4M3 bytes and 4 x 16
 * codes in the same manner. UE4M3 has no sign, so that of a scale goes into its codes. The block formulas are
 * written for doubled codes and half scales: the same values. Specification: quantization 3.14,
 * architectures 18.4. */
#include "hf_packed_internal.h"

#include "libquant/fp4.h"

#include <math.h>

static bool is_mx(const struct hf_packed *w)
{
    return w->scale.dtype == ST_U8 || w->scale.dtype == ST_F8_E8M0;
}

bool hf_packed_is_fp4(const struct hf_packed *w)
{
    return w->codes == CODES_FP4;
}

bool hf_packed_is_names(const struct hf_packed *w)
{
    return w->names_only;
}

bool hf_packed_block_type(const struct hf_packed *w, enum qtype *type)
{
    enum qtype t = is_mx(w) ? QTYPE_MXFP4 : QTYPE_NVFP4;
    if (w->codes != CODES_FP4 ||
        (!w->names_only && (w->n_dims < 2 || !w->part[PART_CODES]->data || !w->scale.data ||
                            w->n_cols % qtype_info(t)->block_elems != 0)))
        return false;
    *type = t;
    return true;
}

float hf_packed_block_factor(const struct hf_packed *w, uint64_t m)
{
    const struct st_tensor *t = w->part[PART_GLOBAL];
    if (!t)
        return 1;
    if (w->names_only)
        return NAN;
    float v = scale_at(t->data, t->dtype, t->n_elems == 1 ? 0 : m);
    return w->global_divides ? 1 / v : v;
}

/* 2 * `half` codes, pairs of neighbours, to pairs half a group apart. */
static void split_halves(uint8_t *dst, const uint8_t *pairs, unsigned half, uint8_t flip)
{
    for (unsigned j = 0; j < half; j++) {
        unsigned lo = pairs[j / 2] >> 4 * (j % 2) & 15, hi = pairs[(j + half) / 2] >> 4 * (j % 2) & 15;
        dst[j] = (uint8_t)((lo | hi << 4) ^ flip);
    }
}

static int bad_scale(const struct hf_packed *w, uint64_t row, uint64_t col, struct err *e)
{
    return err_set(
        e, ERR_FORMAT,
        "%s: tensor '%s': the scale of row %llu, column %llu is not a number; the weights are damaged",
        w->file, w->part[PART_SCALE]->name, (unsigned long long)row, (unsigned long long)col);
}

int hf_packed_read_blocks(const struct hf_packed *w, uint64_t row0, uint64_t n, uint8_t *dst, struct err *e)
{
    const uint64_t row_bytes = w->n_cols / 2;
    for (uint64_t row = row0; row < row0 + n; row++) {
        const uint8_t *codes = w->part[PART_CODES]->data + row * row_bytes;
        const uint8_t *scales =
            w->scale.data + row / w->n_rows * w->scale.stride_m + row % w->n_rows * w->scale.stride_o;
        if (is_mx(w)) {
            for (uint64_t g = 0; g < w->n_cols / 32; g++, dst += sizeof(struct mxfp4_block)) {
                struct mxfp4_block *b = (struct mxfp4_block *)dst;
                if (scales[g] == 255)
                    return bad_scale(w, row, 32 * g, e);
                b->e = scales[g];
                split_halves(b->q, codes + 16 * g, 16, 0);
            }
            continue;
        }
        for (uint64_t k = 0; k < w->n_cols / 64; k++, dst += sizeof(struct nvfp4_block)) {
            struct nvfp4_block *b = (struct nvfp4_block *)dst;
            for (unsigned g = 0; g < 4; g++) {
                uint8_t scale = scales[4 * k + g];
                if ((scale & 127) == 127)
                    return bad_scale(w, row, 64 * k + 16 * g, e);
                b->scales[g] = scale & 127;
                split_halves(b->q + 8 * g, codes + 32 * k + 8 * g, 8, scale & 128 ? 0x88 : 0);
            }
        }
    }
    return 0;
}
