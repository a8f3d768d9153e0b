/* fuzz_imatrix.c - any bytes as an importance matrix of either form: refused with a reason, or every weight
 * can be asked for and merging with itself succeeds. */
#include "formats/gguf/imatrix_file.h"

#include <math.h>
#include <stdint.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void weigh(const struct imatrix_entry *x)
{
    uint64_t n_cols = x->n_values / x->n_mats;
    float *w = malloc(n_cols * sizeof *w);
    struct err e;
    if (!w)
        return;
    for (uint64_t mat = 0; mat < x->n_mats; mat++)
        if (imatrix_weights(x, mat, x->n_mats, n_cols, w, &e) == 0)
            for (uint64_t k = 0; k < n_cols; k++)
                if (!isfinite(w[k]) || w[k] < 0)
                    abort();
    free(w);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct imatrix *m, *sum;
    struct err e = {0};
    if (imatrix_load_memory(&m, data, size, "fuzz", &e) != 0) {
        if (e.code == ERR_OK || !e.msg[0])
            abort();
        return 0;
    }
    if (imatrix_n(m) == 0)
        abort();
    for (size_t i = 0; i < imatrix_n(m); i++) {
        const struct imatrix_entry *x = imatrix_entry_at(m, i);
        if (imatrix_find(m, x->name) != x)
            abort();
        weigh(x);
    }
    if (imatrix_new(&sum, &e) == 0) {
        if (imatrix_merge(sum, m, &e) != 0 || imatrix_merge(sum, m, &e) != 0 ||
            imatrix_n(sum) != imatrix_n(m))
            abort();
        imatrix_set_chunks(sum, 512, 1);
        imatrix_free(sum);
    }
    imatrix_free(m);
    return 0;
}
