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
    float scale = 1.0f / sqrtf((float)n);
    for (size_t first = 0; n > 0 && first < dim; first += n) {
        float *p = x + first;
        for (size_t half = 1; half < n; half *= 2)
            for (size_t i = 0; i < n; i += 2 * half)
                for (size_t j = i; j < i + half; j++) {
                    float a = p[j], b = p[j + half];
                    p[j] = a + b;
                    p[j + half] = a - b;
                }
        for (size_t i = 0; i < n; i++)
            p[i] *= scale;
    }
}

/* A head that holds what is no number stays as it is, and is found out by who looks at the result. */
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
