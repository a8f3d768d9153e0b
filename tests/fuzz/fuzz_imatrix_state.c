/* fuzz_imatrix_state.c - any bytes as the state of a stopped collection: refused with a reason, or sums whose
 * every value can be read and exported. The checksum stops nearly all; what is before it sees every byte. */
#include "calib/stats/imatrix_sums.h"

#include <math.h>
#include <stdint.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    double nll[64];
    struct imatrix_sums s = {0};
    struct imatrix_state state = {.identity = "fuzz", .nll = nll};
    struct imatrix *m;
    struct err e = {0};
    double total = 0;
    if (imatrix_state_load_memory(data, size, &s, &state, 64, &e) != 0) {
        if (e.code == ERR_OK || !e.msg[0])
            abort();
    } else {
        if (state.n_nll > 64)
            abort();
        for (size_t i = 0; i < state.n_nll; i++)
            total += nll[i];
        for (size_t i = 0; i < s.n; i++)
            for (uint64_t k = 0; k < s.entries[i].n_cols * s.entries[i].n_mats; k++)
                total += s.entries[i].sums[k] + s.entries[i].counts[k / s.entries[i].n_cols];
        if (imatrix_sums_finish(&m, &s, &e) == 0)
            imatrix_free(m);
    }
    imatrix_sums_release(&s);
    return isnan(total) ? -1 : 0;
}
