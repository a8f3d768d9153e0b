/* row_sketch.h - a distribution over the vocabulary in a few hundred entries, from which the divergence of
 * any other distribution can be told almost exactly: what a stored reference keeps of each position.
 *
 * Of p, given as logits, a threshold t is taken as small as a budget of entries allows. Tokens with p >= t
 * are kept with their probability. Of the others every one is kept with chance p / t (systematic sampling in
 * the order of ids, so the same row gives the same sketch) and stands for a mass of t. With q another
 * distribution, d = ln p - ln q and g(d) = d + exp(-d) - 1 >= 0, which is about d^2 / 2,
 *
 *     KL(p || q) = sum over all tokens of p g(d),    because p and q sum to 1,
 *
 * the first part is summed exactly and the second over the sample. g is small where q follows p, so that
 * part varies little: a plain sample of p d would need some ten thousand times as many entries. Only where q
 * rises far above p (q >= 16 t, which a sample by p does not see) the sum of q is taken from q itself, which
 * is all there when the comparison is made. */
#ifndef KERF_ROW_SKETCH_H
#define KERF_ROW_SKETCH_H

#include "libquant/base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Entries a sketch may have, and the bytes they take at most. */
#define ROW_SKETCH_ENTRIES 768
#define ROW_SKETCH_BYTES   (2 + 5 + (ROW_SKETCH_ENTRIES + 2) * 8)

/* Of a row of logits: ln sum exp, and the most probable token, the lowest among equals. The bits are those of
 * a candidate in head.h. */
struct row_sum {
    double lse;
    int32_t top;
};
void row_sum(struct row_sum *out, const float *logits, size_t n);

/* Sketch of a row: writes at most ROW_SKETCH_BYTES and returns their number. `share` in [0, 1) says where
 * sampling begins. `p` [n] is scratch. n is at most 2^31. */
size_t row_sketch_encode(uint8_t *out, const float *logits, size_t n, double lse, double share, float *p);

/* Are these bytes a sketch of a row of n tokens? ERR_FORMAT. Until then they are any bytes. */
int row_sketch_check(const uint8_t *sketch, size_t n_bytes, size_t n, struct err *e);

/* KL(p || q) of a checked sketch of p and the logits of q. */
double row_sketch_divergence(const uint8_t *sketch, size_t n_bytes, const float *logits, size_t n,
                             double lse);

#endif
