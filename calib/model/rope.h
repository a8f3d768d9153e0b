/* rope.h - rotary positions: the record a model's metadata describes, and its table of cosines and sines.
 *
 * Plain, linear, YaRN and per-frequency divisors (the Llama 3 form, tensor rope_freqs.weight; LongRoPE, one
 * set for texts within the original context and one for longer ones). Text uses one position axis, on which
 * the multi-axis forms of the vision models collapse to the plain one. The frequencies are F32, one power per
 * index, and the angle is an F32 product, as in the HuggingFace reference.
 * The first Qwen also changes the base and the scale of queries in texts longer than those it was trained on.
 * Truth: specification, architectures 0.5, 1.4 and 17.3; YaRN: Peng et al. 2023. */
#ifndef KERF_ROPE_H
#define KERF_ROPE_H

#include "libquant/base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct hparams;

struct rope {
    uint32_t n_rot;       /* rotated entries of a head, even; the rest passes through */
    bool neighbours;      /* pairs are (2i, 2i+1) instead of (i, i + n_rot/2) */
    float *inv_freq;      /* [n_rot/2], owned */
    float *long_inv_freq; /* the same for texts of more than long_from tokens, owned; NULL: no other */
    uint64_t long_from;
    float magnitude; /* factor of cosine and sine (YaRN) */
    /* Qwen 1.0, keys `<arch>.ext.*`: what changes when a text has more tokens than this; 0: nothing does. */
    uint64_t train_length;
    bool dynamic_ntk; /* a larger base, for the whole text */
    bool logn; /* queries at positions behind train_length are scaled by log_train_length(position + 1) */
    double theta;
};

/* Tensors of a file by which frequencies are divided; NULL: none. */
struct rope_divisors {
    const float *usual;   /* [n] rope_freqs or rope_factors_short */
    const float *in_long; /* [n] rope_factors_long: in texts longer than the original context */
    size_t n;
};

/* From the rotary numbers of a model; `divisors` may be NULL, of it `n` must be n_rot/2. ERR_FORMAT names the
 * key; ERR_UNSUPPORTED: a scaling type that is none of the above. Caller releases with rope_release. */
int rope_init(struct rope *out, const struct hparams *h, uint32_t head_dim,
              const struct rope_divisors *divisors, struct err *e);
void rope_release(struct rope *r);

struct rope_table {
    size_t n_positions, n_pairs;
    bool neighbours;
    float *cosine, *sine; /* [n_positions, n_pairs], owned */
    float *query_scale;   /* [n_positions], owned; NULL: 1 everywhere */
};

/* What the table of so many positions takes. */
uint64_t rope_table_bytes(const struct rope *r, size_t n_positions);

/* For a text of n_positions tokens. */
int rope_table_init(struct rope_table *out, const struct rope *r, size_t n_positions, struct err *e);
void rope_table_release(struct rope_table *t);

/* Rotate the first n_rot entries of a head vector at `position` < n_positions. */
void rope_apply(const struct rope_table *t, size_t position, float *head);

#endif
