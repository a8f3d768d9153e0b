/* quant_api.c - see include/kerf/quant.h: the coders behind names that an outside program may link.
 *
 * Unlike the rooms, which know their inputs, an outside program may pass any floats: they are looked at here.
 */
#include <kerf/quant.h>

#include "api_error.h"
#include "quant.h"

#include <math.h>

#define SAME(name) _Static_assert((int)KERF_TYPE_##name == (int)QTYPE_##name, "ids are those of types.h")
SAME(F32);
SAME(F16);
SAME(Q4_0);
SAME(Q4_1);
SAME(Q5_0);
SAME(Q5_1);
SAME(Q8_0);
SAME(Q2_K);
SAME(Q3_K);
SAME(Q4_K);
SAME(Q5_K);
SAME(Q6_K);
SAME(IQ2_XXS);
SAME(IQ2_XS);
SAME(IQ3_XXS);
SAME(IQ1_S);
SAME(IQ4_NL);
SAME(IQ3_S);
SAME(IQ2_S);
SAME(IQ4_XS);
SAME(I8);
SAME(I16);
SAME(I32);
SAME(I64);
SAME(F64);
SAME(IQ1_M);
SAME(BF16);
SAME(TQ1_0);
SAME(TQ2_0);
SAME(MXFP4);
SAME(NVFP4);
SAME(Q1_0);
SAME(Q2_0);

/* NULL for ids that are no type, or that never stand in files. */
static const struct qtype_info *info_of(enum kerf_type type)
{
    const struct qtype_info *info = qtype_info((uint32_t)type);
    return info && info->in_files ? info : NULL;
}

static const struct kern *kern_of(const struct kerf_isa *isa)
{
    return isa ? (const struct kern *)isa : kern_native();
}

bool kerf_type_find(enum kerf_type *out, const char *name)
{
    enum qtype type;
    if (!qtype_from_name(name, &type) || !info_of((enum kerf_type)type))
        return false;
    *out = (enum kerf_type)type;
    return true;
}

const char *kerf_type_name(enum kerf_type type)
{
    const struct qtype_info *info = info_of(type);
    return info ? info->name : "?";
}

uint32_t kerf_type_block_weights(enum kerf_type type)
{
    const struct qtype_info *info = info_of(type);
    return info ? info->block_elems : 0;
}

uint32_t kerf_type_block_bytes(enum kerf_type type)
{
    const struct qtype_info *info = info_of(type);
    return info ? info->block_bytes : 0;
}

bool kerf_type_can_quantize(enum kerf_type type)
{
    const struct qtype_info *info = info_of(type);
    return info && info->can_encode;
}

bool kerf_type_can_dequantize(enum kerf_type type)
{
    const struct qtype_info *info = info_of(type);
    return info && info->can_decode;
}

bool kerf_type_needs_importance(enum kerf_type type)
{
    const struct qtype_info *info = info_of(type);
    return info && info->importance == IMPORTANCE_REQUIRED;
}

/* 0, or ERR_ARG for an id that is no type. */
static int check_type(enum kerf_type type, struct err *e)
{
    return info_of(type) ? 0 : err_set(e, ERR_ARG, "type id %u is unknown", (unsigned)type);
}

int kerf_row_bytes(uint64_t *out, enum kerf_type type, uint64_t n_cols, struct kerf_error *error)
{
    struct err e = {0};
    int rc = check_type(type, &e);
    if (rc == 0 && !qtype_row_bytes((uint32_t)type, n_cols, out))
        rc = err_set(&e, ERR_ARG, "%s: rows of %llu are not a multiple of the block of %u, or too long",
                     kerf_type_name(type), (unsigned long long)n_cols, kerf_type_block_weights(type));
    return api_error(error, rc, &e);
}

const char *const *kerf_isa_names(void)
{
    return kern_names();
}

const struct kerf_isa *kerf_isa_find(const char *name)
{
    return (const struct kerf_isa *)kern_by_name(name);
}

static int check_importance(const float *importance, size_t n, struct err *e)
{
    for (size_t i = 0; importance && i < n; i++)
        if (!isfinite(importance[i]) || importance[i] < 0)
            return err_set(e, ERR_ARG, "importance of column %zu: expected a number of at least 0, found %g",
                           i, (double)importance[i]);
    return 0;
}

/* All values are finite and fit into the type. The lengths are known to be right. */
static int check_weights(enum kerf_type type, const float *src, size_t n_rows, size_t n_cols, struct err *e)
{
    float limit = quant_limit((enum qtype)type);
    for (size_t row = 0; row < n_rows; row++) {
        size_t col = quant_find_bad(src + row * n_cols, n_cols, limit);
        if (col < n_cols)
            return err_set(e, ERR_ARG,
                           "weight %zu of row %zu: expected a finite number up to %g for %s, found %g", col,
                           row, (double)limit, kerf_type_name(type), (double)src[row * n_cols + col]);
    }
    return 0;
}

int kerf_quantize_rows(const struct kerf_isa *isa, enum kerf_type type, const float *src, void *dst,
                       size_t dst_bytes, size_t n_rows, size_t n_cols, const float *importance,
                       struct kerf_error *error)
{
    struct err e = {0};
    int rc = check_type(type, &e);
    if (rc == 0)
        rc = quant_check_encode(kern_of(isa), (enum qtype)type, dst_bytes, n_rows, n_cols, importance, &e);
    if (rc == 0)
        rc = check_importance(importance, n_cols, &e);
    if (rc == 0)
        rc = check_weights(type, src, n_rows, n_cols, &e);
    if (rc == 0)
        rc = quant_encode_informed(kern_of(isa), (enum qtype)type, src, dst, dst_bytes, n_rows, n_cols,
                                   importance, &e);
    return api_error(error, rc, &e);
}

int kerf_dequantize_rows(const struct kerf_isa *isa, enum kerf_type type, const void *src, size_t src_bytes,
                         float *dst, size_t n_rows, size_t n_cols, struct kerf_error *error)
{
    struct err e = {0};
    int rc = check_type(type, &e);
    if (rc == 0)
        rc = quant_decode_rows(kern_of(isa), (enum qtype)type, src, src_bytes, dst, n_rows, n_cols, &e);
    return api_error(error, rc, &e);
}

int kerf_validate_blocks(enum kerf_type type, const void *src, size_t src_bytes, size_t *bad_byte,
                         struct kerf_error *error)
{
    struct err e = {0};
    size_t at = 0;
    int rc = check_type(type, &e);
    if (rc == 0)
        rc = quant_validate((enum qtype)type, src, src_bytes, &at, &e);
    if (rc == ERR_FORMAT && bad_byte)
        *bad_byte = at;
    return api_error(error, rc, &e);
}
