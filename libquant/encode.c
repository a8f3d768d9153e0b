/* encode.c - the writing side of quant.h: rows of float32 to rows of blocks.
 *
 * Arguments are checked here, once, so that the kernels need not. Values are not: a caller that cannot vouch
 * for them asks quant_find_bad first. */
#include "quant.h"

#include "base/checked.h"

#include <float.h>
#include <stdlib.h>
#include <string.h>

/* Below this, products of weights with squares of ordinary values leave the range of float32. */
#define LEAST_IMPORTANCE 1e-32f

/* Columns that share a scale of their own within a block, in encoders whose search for it gives 0 when the
 * weights are; other encoders fall back to the span of the values by themselves. */
static size_t scale_group(enum qtype type)
{
    switch (type) {
    case QTYPE_Q3_K:
    case QTYPE_Q6_K:
    case QTYPE_IQ1_M:
    case QTYPE_IQ2_XS:
    case QTYPE_IQ2_S: return 16;
    case QTYPE_IQ1_S:
    case QTYPE_IQ2_XXS:
    case QTYPE_IQ3_XXS:
    case QTYPE_IQ3_S:
    case QTYPE_IQ4_XS: return 32;
    default: return qtype_info((uint32_t)type)->block_elems;
    }
}

static float largest(const float *x, size_t n)
{
    float m = 0;
    for (size_t i = 0; i < n; i++)
        m = x[i] > m ? x[i] : m;
    return m;
}

static bool is_unweighted(const float *importance, size_t n)
{
    return largest(importance, n) < LEAST_IMPORTANCE;
}

static bool has_unweighted_group(const float *importance, size_t n, size_t group)
{
    for (size_t i = 0; i < n; i += group)
        if (is_unweighted(importance + i, group))
            return true;
    return false;
}

size_t quant_n_unweighted_blocks(enum qtype type, const float *importance, size_t n_cols)
{
    size_t n = qtype_info((uint32_t)type)->block_elems, group = scale_group(type), found = 0;
    for (size_t i = 0; i + n <= n_cols; i += n)
        found += has_unweighted_group(importance + i, n, group);
    return found;
}

static bool is_zero(const float *x, size_t n)
{
    size_t i = 0;
    while (i < n && x[i] == 0)
        i++;
    return i == n;
}

/* Even weights for the groups of a block that have none: the smallest that counts in it, so that what is
 * known to matter keeps its say. A block without any is encoded again. Zeros, such as those of padding, need
 * no say: no code is nearer to them, and where codes have no zero they would move the scale of the block. */
static void fill_groups(float *importance, const float *x, size_t n, size_t group)
{
    float least = FLT_MAX;
    for (size_t i = 0; i < n; i++)
        if (importance[i] >= LEAST_IMPORTANCE && importance[i] < least)
            least = importance[i];
    for (size_t i = 0; i < n; i += group)
        if (is_unweighted(importance + i, group) && !is_zero(x + i, group))
            for (size_t j = i; j < i + group; j++)
                importance[j] = least < FLT_MAX ? least : 1;
}

int quant_check_encode(const struct kern *k, enum qtype type, size_t dst_bytes, size_t n_rows, size_t n_cols,
                       const float *importance, struct err *e)
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
    return 0;
}

int quant_encode_rows(const struct kern *k, enum qtype type, const float *src, void *dst, size_t dst_bytes,
                      size_t n_rows, size_t n_cols, const float *importance, struct err *e)
{
    int rc = quant_check_encode(k, type, dst_bytes, n_rows, n_cols, importance, e);
    if (rc != 0 || n_rows == 0 || n_cols == 0)
        return rc;
    unsigned char *out = dst;
    size_t row_bytes = dst_bytes / n_rows;
    for (size_t row = 0; row < n_rows; row++)
        k->encode[type](out + row * row_bytes, src + row * n_cols, n_cols, importance);
    return 0;
}

/* The whole row goes first, since some types take a mean over it; then the blocks without importance are
 * encoded once more. A type that cannot do without gets even weights. */
int quant_encode_informed(const struct kern *k, enum qtype type, const float *src, void *dst,
                          size_t dst_bytes, size_t n_rows, size_t n_cols, const float *importance,
                          struct err *e)
{
    const struct qtype_info *info = qtype_info((uint32_t)type);
    if (!importance || !info || info->importance == IMPORTANCE_IGNORED ||
        quant_n_unweighted_blocks(type, importance, n_cols) == 0)
        return quant_encode_rows(k, type, src, dst, dst_bytes, n_rows, n_cols, importance, e);
    size_t n = info->block_elems, group = scale_group(type), n_blocks = n_cols / n;
    bool required = info->importance == IMPORTANCE_REQUIRED;
    float *filled = malloc(n_cols * sizeof *filled);
    if (!filled)
        return err_set(e, ERR_NOMEM, "out of memory for the importance of %zu columns", n_cols);
    int rc = quant_check_encode(k, type, dst_bytes, n_rows, n_cols, importance, e);
    for (size_t row = 0; rc == 0 && row < n_rows; row++) {
        unsigned char *out = (unsigned char *)dst + row * n_blocks * info->block_bytes;
        const float *x = src + row * n_cols;
        memcpy(filled, importance, n_cols * sizeof *filled);
        for (size_t i = 0; i < n_cols; i += n)
            fill_groups(filled + i, x + i, n, group);
        k->encode[type](out, x, n_cols, filled);
        for (size_t i = 0; i < n_blocks; i++)
            if (is_unweighted(importance + i * n, n) && !is_zero(x + i * n, n))
                k->encode[type](out + i * info->block_bytes, x + i * n, n, required ? filled + i * n : NULL);
    }
    free(filled);
    return rc;
}
