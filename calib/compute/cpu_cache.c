/* cpu_cache.c - heads as a cache of keys and values gives them back: turned, rounded in blocks, turned back.
 * What is turned, and why, stands in calib/model/kv_cache.h. */
#include "cpu.h"

#include "libquant/half.h"
#include "libquant/quant.h"

#include <math.h>

/* x = H x / sqrt(n) for each stretch of n entries (a power of two), H the Walsh-Hadamard matrix in natural
 * order: its own inverse. */
static void turn(float *x, size_t dim, size_t n)
{
    const float scale = n ? 1.0f / sqrtf((float)n) : 1;
    for (size_t first = 0; n > 0 && first < dim; first += n) {
        float *p = x + first;
        for (size_t i = 0; i < n; i += 4) { /* the first two steps at once */
            float a = p[i] + p[i + 1], b = p[i] - p[i + 1], c = p[i + 2] + p[i + 3], d = p[i + 2] - p[i + 3];
            p[i] = a + c;
            p[i + 1] = b + d;
            p[i + 2] = a - c;
            p[i + 3] = b - d;
        }
        for (size_t half = 4; half < n; half *= 2)
            for (size_t i = 0; i < n; i += 2 * half) {
                float *restrict low = p + i, *restrict high = p + i + half;
                for (size_t j = 0; j < half; j++) {
                    float a = low[j], b = high[j];
                    low[j] = a + b;
                    high[j] = a - b;
                }
            }
        for (size_t i = 0; i < n; i++)
            p[i] *= scale;
    }
}

/* A head that holds what is not a number stays as it is, and is found out by who looks at the result. */
int cpu_store_head(const struct kern *kern, const struct cpu_storage *s, float *head, size_t dim,
                   struct err *e)
{
    unsigned char blocks[CPU_MAX_HEAD * sizeof(float)];
    uint64_t n_bytes = 0;
    if (s->type == QTYPE_F32 || quant_find_bad(head, dim, quant_limit(s->type)) < dim)
        return 0;
    if (dim > CPU_MAX_HEAD || !qtype_row_bytes((uint32_t)s->type, dim, &n_bytes))
        return err_set(e, ERR_ARG, "heads of %zu entries cannot be stored as %s", dim,
                       qtype_name((uint32_t)s->type));
    turn(head, dim, s->turn);
    int rc = quant_encode_rows(kern, s->type, head, blocks, (size_t)n_bytes, 1, dim, NULL, e);
    if (rc == 0)
        rc = quant_decode_rows(kern, s->type, blocks, (size_t)n_bytes, head, 1, dim, e);
    turn(head, dim, s->turn);
    return rc;
}

/* Encoders work on many blocks at a time, so rows that lie side by side go together. */
int cpu_store_heads(const struct kern *kern, const struct cpu_storage *s, float *x, size_t n_rows, size_t dim,
                    struct err *e)
{
    size_t at_once = dim > 0 && dim <= CPU_MAX_HEAD ? CPU_MAX_HEAD / dim : 1;
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < n_rows; i += at_once) {
        size_t n = n_rows - i < at_once ? n_rows - i : at_once;
        float *rows = x + i * dim;
        bool single = quant_find_bad(rows, n * dim, quant_limit(s->type)) < n * dim;
        if (!single) {
            struct cpu_storage plain = {s->type, 0};
            for (size_t k = 0; k < n; k++)
                turn(rows + k * dim, dim, s->turn);
            rc = cpu_store_head(kern, &plain, rows, n * dim, e);
            for (size_t k = 0; k < n; k++)
                turn(rows + k * dim, dim, s->turn);
        }
        for (size_t k = 0; rc == 0 && single && k < n; k++)
            rc = cpu_store_head(kern, s, rows + k * dim, dim, e);
    }
    return rc;
}
