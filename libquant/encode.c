/* encode.c - the writing side of quant.h: rows of float32 to rows of blocks.
 *
 * Arguments are checked here, once, so that the kernels need not. Values are not: a caller that cannot vouch
 * for them asks quant_find_bad first. */
#include "quant.h"

#include "base/checked.h"

int quant_encode_rows(const struct kern *k, enum qtype type, const float *src, void *dst, size_t dst_bytes,
                      size_t n_rows, size_t n_cols, const float *importance, struct err *e)
{
    const struct qtype_info *info = qtype_info((uint32_t)type);
    if (info == NULL)
        return err_set(e, ERR_ARG, "type id %u is unknown", (unsigned)type);
    if (!info->can_encode || k->encode[type] == NULL)
        return err_set(e, ERR_UNSUPPORTED, "%s cannot be encoded", info->name);
    if (info->importance == IMPORTANCE_REQUIRED && importance == NULL)
        return err_set(e, ERR_ARG, "%s needs importance weights and none are given", info->name);
    uint64_t row_bytes, n_bytes, n_elems;
    if (!qtype_row_bytes((uint32_t)type, n_cols, &row_bytes))
        return err_set(e, ERR_ARG, "%s: rows of %zu are not a multiple of the block of %u", info->name,
                       n_cols, (unsigned)info->block_elems);
    if (!checked_mul(row_bytes, n_rows, &n_bytes) || n_bytes != dst_bytes)
        return err_set(e, ERR_ARG, "%s: %zu rows of %zu do not take %zu bytes", info->name, n_rows, n_cols,
                       dst_bytes);
    if (!checked_mul(n_rows, n_cols, &n_elems) || n_elems > SIZE_MAX / sizeof(float))
        return err_set(e, ERR_ARG, "%s: %zu rows of %zu exceed the address space", info->name, n_rows,
                       n_cols);
    if (n_elems == 0)
        return 0;
    unsigned char *out = dst;
    for (size_t row = 0; row < n_rows; row++)
        k->encode[type](out + row * row_bytes, src + row * n_cols, n_cols, importance);
    return 0;
}
