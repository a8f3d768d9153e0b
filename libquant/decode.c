/* decode.c - the reading side of quant.h: decode rows, check stored blocks, find values no type can hold.
 *
 * Arguments are checked here, once, so that the kernels need not. What counts as a bad block is a table: the
 * offsets of the scale fields of each type (specification, quantization 6.6). */
#include "quant.h"

#include "base/checked.h"
#include "base/slice.h"
#include "fp4.h"
#include "half.h"
#include "iquants.h"
#include "kquants.h"
#include "legacy.h"
#include "ternary.h"

#include <float.h>
#include <math.h>
#include <string.h>

int quant_decode_rows(const struct kern *k, enum qtype type, const void *src, size_t src_bytes, float *dst,
                      size_t n_rows, size_t n_cols, struct err *e)
{
    const struct qtype_info *info = qtype_info((uint32_t)type);
    if (info == NULL)
        return err_set(e, ERR_ARG, "type id %u is unknown", (unsigned)type);
    if (!info->can_decode || k->decode[type] == NULL)
        return err_set(e, ERR_UNSUPPORTED, "%s cannot be decoded", info->name);
    uint64_t row_bytes, n_bytes, n_elems;
    if (!qtype_row_bytes((uint32_t)type, n_cols, &row_bytes))
        return err_set(e, ERR_ARG, "%s: rows of %zu are not a multiple of the block of %u", info->name,
                       n_cols, (unsigned)info->block_elems);
    if (!checked_mul(row_bytes, n_rows, &n_bytes) || n_bytes != src_bytes)
        return err_set(e, ERR_ARG, "%s: %zu rows of %zu do not take %zu bytes", info->name, n_rows, n_cols,
                       src_bytes);
    if (!checked_mul(n_rows, n_cols, &n_elems) || n_elems > SIZE_MAX / sizeof(float))
        return err_set(e, ERR_ARG, "%s: %zu rows of %zu exceed the address space", info->name, n_rows,
                       n_cols);
    if (n_elems > 0) /* rows are whole blocks without gaps, so they are one long row */
        k->decode[type](dst, src, (size_t)n_elems);
    return 0;
}

/* Is one of 64 values beyond the limit, or no number? Without its sign a float is ordered as its bits are,
 * and NaN comes last. A loop of integers without a way out becomes vector code. */
static bool holds_bad(const float *x, float limit)
{
    int32_t most, bits, bad = 0;
    memcpy(&most, &limit, sizeof most);
    for (size_t i = 0; i < 64; i++) {
        memcpy(&bits, x + i, sizeof bits);
        bad |= (bits & INT32_MAX) > most;
    }
    return bad != 0;
}

size_t quant_find_bad(const float *x, size_t n, float limit)
{
    size_t i = 0;
    while (i + 64 <= n && !holds_bad(x + i, limit))
        i += 64;
    for (; i < n; i++)
        if (!(fabsf(x[i]) <= limit))
            return i;
    return n;
}

float quant_limit(enum qtype type)
{
    return type == QTYPE_F16 ? 65504.0f : FLT_MAX;
}

/* --- stored blocks ----------------------------------------------------------------------------- */

static bool f16_is_finite(uint16_t h)
{
    return (h & 0x7c00u) != 0x7c00u;
}

static bool f32_is_finite(uint32_t bits)
{
    return (bits & 0x7f800000u) != 0x7f800000u;
}

/* The binary16 fields of one block. */
struct scale_fields {
    uint8_t n;
    uint16_t at[2]; /* byte offsets */
};

#define ONE(block, field)                                                                                    \
    {                                                                                                        \
        1,                                                                                                   \
        {                                                                                                    \
            offsetof(struct block, field), 0                                                                 \
        }                                                                                                    \
    }
#define TWO(block, first, sec)                                                                               \
    {                                                                                                        \
        2,                                                                                                   \
        {                                                                                                    \
            offsetof(struct block, first), offsetof(struct block, sec)                                       \
        }                                                                                                    \
    }

static const struct scale_fields f16_fields[QTYPE_COUNT] = {
    [QTYPE_F16] = {1, {0, 0}},
    [QTYPE_Q4_0] = ONE(q4_0_block, d),
    [QTYPE_Q4_1] = TWO(q4_1_block, d, m),
    [QTYPE_Q5_0] = ONE(q5_0_block, d),
    [QTYPE_Q5_1] = TWO(q5_1_block, d, m),
    [QTYPE_Q8_0] = ONE(q8_0_block, d),
    [QTYPE_Q8_1] = TWO(q8_1_block, d, s),
    [QTYPE_Q2_K] = TWO(q2_k_block, d, dmin),
    [QTYPE_Q3_K] = ONE(q3_k_block, d),
    [QTYPE_Q4_K] = TWO(q4_k_block, d, dmin),
    [QTYPE_Q5_K] = TWO(q5_k_block, d, dmin),
    [QTYPE_Q6_K] = ONE(q6_k_block, d),
    [QTYPE_IQ2_XXS] = ONE(iq2_xxs_block, d),
    [QTYPE_IQ2_XS] = ONE(iq2_xs_block, d),
    [QTYPE_IQ2_S] = ONE(iq2_s_block, d),
    [QTYPE_IQ3_XXS] = ONE(iq3_xxs_block, d),
    [QTYPE_IQ3_S] = ONE(iq3_s_block, d),
    [QTYPE_IQ1_S] = ONE(iq1_s_block, d),
    [QTYPE_IQ4_NL] = ONE(iq4_nl_block, d),
    [QTYPE_IQ4_XS] = ONE(iq4_xs_block, d),
    [QTYPE_TQ1_0] = ONE(tq1_0_block, d),
    [QTYPE_TQ2_0] = ONE(tq2_0_block, d),
    [QTYPE_Q1_0] = ONE(q1_0_block, d),
    [QTYPE_Q2_0] = ONE(q2_0_block, d),
};

/* NULL when the block at `p` is good, else what is wrong with it. */
static const char *block_fault(enum qtype type, const uint8_t *p)
{
    switch (type) {
    case QTYPE_F32:
    case QTYPE_Q8_K: /* its scale leads the block */ return f32_is_finite(load_u32(p)) ? NULL : "NaN or Inf";
    case QTYPE_BF16: return f32_is_finite((uint32_t)load_u16(p) << 16) ? NULL : "NaN or Inf";
    case QTYPE_F64: /* what does not fit a float32 becomes infinite in it */
        return f32_is_finite(f32_bits((float)load_f64(p))) ? NULL : "NaN, Inf or beyond float32";
    case QTYPE_IQ1_M:
        return f16_is_finite(iq1_m_scale_bits((const struct iq1_m_block *)p)) ? NULL : "NaN or Inf scale";
    case QTYPE_MXFP4: return p[0] != 255 ? NULL : "scale exponent 255";
    default: break;
    }
    const struct scale_fields *f = &f16_fields[type];
    for (int i = 0; i < f->n; i++)
        if (!f16_is_finite(load_u16(p + f->at[i])))
            return type == QTYPE_F16 ? "NaN or Inf" : "NaN or Inf scale";
    return NULL;
}

int quant_validate(enum qtype type, const void *src, size_t src_bytes, size_t *bad_byte, struct err *e)
{
    const struct qtype_info *info = qtype_info((uint32_t)type);
    if (info == NULL)
        return err_set(e, ERR_ARG, "type id %u is unknown", (unsigned)type);
    if (src_bytes % info->block_bytes != 0)
        return err_set(e, ERR_ARG, "%s: %zu bytes are not a multiple of the block of %u", info->name,
                       src_bytes, (unsigned)info->block_bytes);
    const uint8_t *p = src;
    for (size_t at = 0; at < src_bytes; at += info->block_bytes) {
        const char *fault = block_fault(type, p + at);
        if (fault == NULL)
            continue;
        if (bad_byte != NULL)
            *bad_byte = at;
        return err_set(e, ERR_FORMAT, "%s: %s in block %zu of %zu", info->name, fault, at / info->block_bytes,
                       src_bytes / info->block_bytes);
    }
    return 0;
}
