/* encode_work.h - what one run of the encoder works with: the ids so far, scratch, and a cache of words.
 *
 * The cache is direct-mapped and bounded: a word's slot is overwritten by the next word with the same hash.
 * Most words of a text are repeats, so a small cache saves most of the merging. Internal. */
#ifndef KERF_ENCODE_WORK_H
#define KERF_ENCODE_WORK_H

#include "libquant/base/err.h"
#include "merge.h"

enum { CACHE_KEY = 34, CACHE_IDS = 7 };

struct cache_entry {
    uint8_t len, n_ids; /* len 0: empty */
    char key[CACHE_KEY];
    int32_t ids[CACHE_IDS];
};
_Static_assert(sizeof(struct cache_entry) == 64, "one cache line");

struct encode_work {
    int32_t *ids; /* malloc'ed */
    size_t n_ids, cap_ids;
    uint32_t *symbols;
    size_t cap_symbols;
    struct merge_scratch scratch;
    struct cache_entry *cache; /* NULL: none */
    size_t cache_mask;
};

/* A cache in proportion to the text; without memory for it there is none, which is no error. */
void work_begin(struct encode_work *w, size_t text_len);
void work_release(struct encode_work *w);

int work_push(struct encode_work *w, int32_t id);
int work_reserve_symbols(struct encode_work *w, size_t n);

/* Emit the cached ids of `key`; *hit tells whether there were any. 0 or ERR_NOMEM. */
int work_cached(struct encode_work *w, const char *key, size_t len, bool *hit);
/* Remember the ids from index `from` on as those of `key`, if they fit. */
void work_remember(struct encode_work *w, const char *key, size_t len, size_t from);

#endif
