/* waves.h - how a text is cut into waves: groups of windows that pass through all layers before the next
 * group begins. After a wave there is something to show or to save; but each wave reads the weights anew,
 * which is free only while they stay in the page cache. Figures do not depend on the cut. */
#ifndef KERF_WAVES_H
#define KERF_WAVES_H

#include "corpus.h"

/* Windows of a wave of about n_tokens, at least 1. */
size_t wave_windows(const struct windows *w, size_t n_tokens);

/* True when n_bytes of weights are expected in the page cache still when the next wave wants them: no more
 * than half of this machine's memory. */
bool wave_finds_weights(uint64_t n_bytes);

/* May a model be run in waves for nothing? Its weights are found again, and need not be encoded anew. */
struct weights;
bool wave_is_free(const struct weights *w);

#endif
