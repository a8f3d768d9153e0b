/* strmap.h - byte string to 64-bit number, for names, tokens and merges. Open addressing; single
 * keys are not removed.
 *
 * The hash is seeded per map, so a hostile file cannot prepare a list of names that all collide. */
#ifndef KERF_STRMAP_H
#define KERF_STRMAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct strmap_entry;

/* Caller-owned; a zeroed struct is an empty map. Keys are borrowed: they must outlive the map. */
struct strmap {
    struct strmap_entry *entries;
    size_t cap, n;
    uint64_t seed;
};

/* Make room for `n` keys. 0 or ERR_NOMEM. */
int strmap_reserve(struct strmap *m, size_t n);

/* Insert; *existing (may be NULL) tells whether the key was there, in which case the old value stays.
 * 0 or ERR_NOMEM. */
int strmap_put(struct strmap *m, const char *key, size_t len, uint64_t value, bool *existing);

/* True and *value (may be NULL) when the key is present. */
bool strmap_find(const struct strmap *m, const char *key, size_t len, uint64_t *value);

/* Forget all keys and keep the room they had: as many go in again without an allocation. */
void strmap_clear(struct strmap *m);

void strmap_release(struct strmap *m);

#endif
