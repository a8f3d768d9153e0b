/* kv_cache.h - keys and values as a runtime's cache gives them back: rounded to a block type, head by head.
 *
 *     kv_cache_parse(&cache, "q8_0,q4_0");        // keys, values; one type: both
 *     forward_options.cache = cache;
 *
 * What llama.cpp does with a quantized cache (since April 2026): a head whose length is a multiple of 64 is
 * turned by a Walsh-Hadamard matrix first, which spreads outliers over the block: keys by the largest power
 * of two that divides the head, values by 64; queries are turned with the keys, and outputs back. A turn is
 * its own inverse, so turning the rounded keys and values back gives the same scores and outputs, and queries
 * stay as they are.
 *
 * Attention over latents caches keys alone, [latent, rotated part], and takes their latents for the values:
 * both are rounded to the type of keys, that of values says nothing, and nothing is turned. Facts:
 * src/llama-kv-cache.cpp and src/llama-graph.cpp of llama.cpp, November 2026. */
#ifndef KERF_KV_CACHE_H
#define KERF_KV_CACHE_H

#include "formats/model/kv_type.h"
#include "libquant/base/err.h"

#include <stddef.h>

struct net;

/* Can this model's heads be stored so? ERR_ARG: their length is no multiple of the type's block; or the model
 * has no attention. */
int kv_cache_check(const struct kv_cache *c, const struct net *net, struct err *e);

/* Does it cache latents alone, so that the type of values says nothing? */
bool kv_cache_is_of_keys_alone(const struct net *net);

/* Entries that the Hadamard matrix turns of keys, of values; 0: they are not turned. */
size_t kv_cache_turn_keys(enum qtype type, size_t head_dim);
size_t kv_cache_turn_values(enum qtype type, size_t head_dim);

#endif
