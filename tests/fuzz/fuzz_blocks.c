/* fuzz_blocks.c - any bytes as blocks of any type: the first byte chooses the type, the rest is checked and
 * decoded on every level of this CPU; all levels agree to the bit. */
#include "libquant/quant.h"

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Equal bits; the sign and payload of a NaN are the processor's choice. */
static bool same(const float *a, const float *b, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (memcmp(&a[i], &b[i], sizeof *a) != 0 && !(isnan(a[i]) && isnan(b[i])))
            return false;
    return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1)
        return 0;
    const enum qtype type = (enum qtype)(data[0] % (QTYPE_COUNT + 2));
    const struct qtype_info *info = qtype_info((uint32_t)type);
    size_t bad;
    if (info == NULL || !info->can_decode) {
        const int rc = quant_validate(type, data + 1, size - 1, &bad, NULL);
        if (info == NULL && rc != ERR_ARG)
            abort();
        return 0;
    }
    const size_t n_blocks = (size - 1) / info->block_bytes, n_bytes = n_blocks * info->block_bytes;
    const size_t n = n_blocks * info->block_elems;
    float *x = malloc((n + 1) * sizeof *x), *y = malloc((n + 1) * sizeof *y);
    if (x != NULL && y != NULL) {
        if (quant_validate(type, data + 1, n_bytes, &bad, NULL) == ERR_FORMAT && bad >= n_bytes)
            abort();
        for (const char *const *isa = kern_names(); *isa != NULL; isa++) {
            float *to = isa == kern_names() ? x : y;
            if (quant_decode_rows(kern_by_name(*isa), type, data + 1, n_bytes, to, 1, n, NULL) != 0)
                abort();
            if (to == y && !same(x, y, n))
                abort();
        }
    }
    free(x);
    free(y);
    return 0;
}
