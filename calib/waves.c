/* waves.c - see waves.h. */
#include "waves.h"

#include "calib/model/weights.h"

#include <unistd.h>

size_t wave_windows(const struct windows *w, size_t n_tokens)
{
    size_t n = n_tokens / w->ctx;
    return n ? n : 1;
}

bool wave_finds_weights(uint64_t n_bytes)
{
    uint64_t ram = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
    return n_bytes <= ram / 2;
}

bool wave_is_free(const struct weights *w)
{
    return !weights_encodes(w) && wave_finds_weights(weights_n_bytes(w));
}
