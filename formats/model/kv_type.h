/* kv_type.h - the types of a runtime's cache of keys and values, and how people name them. */
#ifndef KERF_KV_TYPE_H
#define KERF_KV_TYPE_H

#include "libquant/types.h"

#include <stdbool.h>

struct kv_cache {
    enum qtype k, v; /* F32, which a zeroed struct has: exact */
};

/* The types that a cache may have, separated by bars. */
#define KV_CACHE_TYPES "f32|f16|bf16|q8_0|q5_1|q5_0|q4_1|q4_0"
#define KV_CACHE_NAME  16 /* bytes of "BF16,Q4_0" and the like */

/* "TYPE" or "KEYS,VALUES" (a slash divides, too), in any case; false: not so. *out is untouched then. */
bool kv_cache_parse(struct kv_cache *out, const char *text);

bool kv_cache_is_exact(const struct kv_cache *c);
bool kv_cache_is_equal(const struct kv_cache *a, const struct kv_cache *b);

/* "q8_0" or "q8_0,q4_0". */
const char *kv_cache_name(const struct kv_cache *c, char out[KV_CACHE_NAME]);

#endif
