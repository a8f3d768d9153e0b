/* footprint.h - the memory a model takes in a runtime besides its weights: the cache of keys and values, the
 * states of recurrent layers, and working space.
 *
 *     footprint_init(&f, model, &e);
 *     total = weights + footprint_cache_bytes(&f, ctx, QTYPE_F16) + footprint_work_bytes(&f, ctx);
 *     most = footprint_max_ctx(&f, weights, memory, QTYPE_F16);
 *     footprint_release(&f);
 *
 * One sequence, the defaults of llama.cpp: batches of T = min(ctx, 512) tokens, flash attention, every token
 * of a batch may ask for logits.
 *
 * Cache. Per attention layer a row of keys and a row of values for each of the cells: ctx rounded up to 256;
 * with a sliding window at most window + T, rounded up likewise. Families of formats/arch have full attention
 * in every layer, since llama.cpp computes it so even where a configuration names a window; prediction layers
 * of hybrids (--keep-mtp) have no cache. A gated delta net
 * holds, in F32 and whatever ctx, its state (d_state * d_inner) and kernel - 1 columns of its convolution
 * (d_inner + 2 * groups * d_state). These numbers are llama.cpp's to the byte ("KV buffer size", "RS buffer
 * size").
 *
 * Working space. llama.cpp's "compute buffer" holds what is alive at once in its graph, 4 bytes for each
 * number:
 *
 *     head    T * (V + 2 D)                               logits and the last hidden states; 3 D with delta
 * nets layer   T * (3 D + max(Q + 3 F, 2 K D + K Fe))      residual, queries and the feed-forward; K experts
 * per token
 *             + 2 bytes * T * cells                       mask of attention, F16
 *
 * and, since blocks are placed as they come, more than the larger of the two: half of the smaller, or with
 * delta nets and shared experts all of it, as if both sets lay side by side. 4 * V bytes of output are added.
 *
 * This is an estimate, not a bound. The fractions were chosen on 665 figures that llama.cpp (August 2026,
 * CPU) printed for 33 shapes, none of which it then falls below, which proves little. On 360 further figures
 * of 30 random shapes that had no part in the choice it is below in 5, by at most 1.7 % (one dense shape),
 * and else above: in the median by 13 % for dense models, 23 % with experts, 24 % with shared experts, 42 to
 * 52 % with delta nets, at most 2.2 times. Not in it: what a driver takes for itself, and the scores of
 * attention (4 * heads * T * cells) of a runtime without flash attention. */
#ifndef KERF_FOOTPRINT_H
#define KERF_FOOTPRINT_H

#include "formats/model/kv_type.h"
#include "formats/model/model.h"

struct footprint_layer {
    uint64_t k_width, v_width; /* numbers per cell; 0: no cache */
    uint64_t window;           /* tokens; 0: the whole context */
    uint64_t state_bytes;      /* of a recurrent layer */
};

struct footprint {
    struct footprint_layer *layers; /* owned */
    size_t n_layers;
    uint64_t trained_ctx; /* <arch>.context_length; 0: not stated */
    uint64_t n_vocab, width, q_width;
    uint64_t ffn_width; /* widest of the feed-forward's rows that are alive together: dense, K * Fe, shared */
    uint64_t expert_width; /* 2 K D + K Fe; 0 without experts */
    bool is_scattered;     /* delta nets or shared experts */
    bool has_delta_net;
    bool is_guess; /* an architecture without a descriptor: read off its general keys */
};

#define FOOTPRINT_BATCH   512
#define FOOTPRINT_MAX_CTX ((uint64_t)1 << 24)

/* Needs metadata and shapes, no weights. ERR_FORMAT names a key that is missing or absurd. */
int footprint_init(struct footprint *out, const struct model *m, struct err *e);
void footprint_release(struct footprint *f);

/* Bytes; UINT64_MAX when they do not fit 64 bits. `kv` are the types of keys and values
 * (rows are padded to whole blocks). Neither ever shrinks as ctx grows. */
uint64_t footprint_cache_bytes(const struct footprint *f, uint64_t ctx, struct kv_cache kv);
uint64_t footprint_work_bytes(const struct footprint *f, uint64_t ctx);

/* Does the cache hold keys alone (latents), so that the type of values says nothing? */
bool footprint_caches_keys_alone(const struct footprint *f);

/* Weights, cache and working space together. */
uint64_t footprint_total_bytes(const struct footprint *f, uint64_t weights_bytes, uint64_t ctx,
                               struct kv_cache kv);

/* The largest context with a total of at most memory_bytes, capped by the trained context (FOOTPRINT_MAX_CTX
 * when that is not stated); 0: none. */
uint64_t footprint_max_ctx(const struct footprint *f, uint64_t weights_bytes, uint64_t memory_bytes,
                           struct kv_cache kv);

#endif
