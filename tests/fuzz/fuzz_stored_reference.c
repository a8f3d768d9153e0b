/* fuzz_stored_reference.c - any bytes as a stored reference: refused with a reason, or every position can be
 * read. The checksum stops nearly all; what is before it sees every byte. */
#include "calib/eval/row_sketch.h"
#include "calib/eval/stored_reference.h"

#include <math.h>
#include <stdint.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct stored_reference *r = NULL;
    struct err e = {0};
    double total = 0;
    if (row_sketch_check(data, size, 64, &e) == 0) {
        float logits[64] = {0};
        total += row_sketch_divergence(data, size, logits, 64, log(64));
    }
    if (stored_reference_open_memory(&r, data, size, &e) != 0) {
        if (e.code == ERR_OK || !e.msg[0])
            abort();
        return 0;
    }
    const struct windows *w = stored_reference_windows(r);
    for (size_t i = 0; i < w->n * windows_n_scored(w); i++) {
        size_t n = 0;
        const uint8_t *sketch = stored_reference_sketch(r, i, &n);
        total += stored_reference_nll(r, i) + stored_reference_top(r, i) + (n ? sketch[n - 1] : 0);
    }
    stored_reference_close(r);
    return isnan(total) ? -1 : 0;
}
