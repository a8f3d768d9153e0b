/* strmap.c - see strmap.h. Linear probing at a load of at most three quarters (a vocabulary is the largest
 * map, and memory counts); a slot with key NULL is free. */
#include "strmap.h"

#include "err.h"

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

struct strmap_entry {
    const char *key; /* borrowed */
    uint32_t len, hash;
    uint64_t value;
};

static uint64_t mix(uint64_t h)
{
    h ^= h >> 32;
    h *= 0xd6e8feb86659fd93u;
    h ^= h >> 32;
    h *= 0xd6e8feb86659fd93u;
    return h ^ h >> 32;
}

static uint64_t hash_bytes(const char *s, size_t n, uint64_t seed)
{
    uint64_t h = seed ^ n;
    while (n >= 8) {
        uint64_t v;
        memcpy(&v, s, 8);
        h = mix(h ^ v);
        s += 8;
        n -= 8;
    }
    if (n) {
        uint64_t v = 0;
        memcpy(&v, s, n);
        h = mix(h ^ v);
    }
    return mix(h);
}

static void place(struct strmap_entry *table, size_t cap, struct strmap_entry e)
{
    size_t i = e.hash & (cap - 1);
    while (table[i].key)
        i = (i + 1) & (cap - 1);
    table[i] = e;
}

int strmap_reserve(struct strmap *m, size_t n)
{
    if (m->cap && n <= m->cap / 4 * 3)
        return 0;
    size_t cap = m->cap ? m->cap : 16;
    while (cap / 4 * 3 < n) {
        if (cap > SIZE_MAX / 2 / sizeof(struct strmap_entry))
            return ERR_NOMEM;
        cap *= 2;
    }
    if (!m->cap && getrandom(&m->seed, sizeof m->seed, GRND_NONBLOCK) != sizeof m->seed)
        m->seed = (uint64_t)(uintptr_t)m; /* better than a constant, and never fatal */
    struct strmap_entry *t = calloc(cap, sizeof *t);
    if (!t)
        return ERR_NOMEM;
    for (size_t i = 0; i < m->cap; i++)
        if (m->entries[i].key)
            place(t, cap, m->entries[i]);
    free(m->entries);
    m->entries = t;
    m->cap = cap;
    return 0;
}

static const struct strmap_entry *lookup(const struct strmap *m, const char *key, size_t len, uint32_t hash)
{
    if (!m->cap)
        return NULL;
    for (size_t i = hash & (m->cap - 1); m->entries[i].key; i = (i + 1) & (m->cap - 1)) {
        const struct strmap_entry *e = &m->entries[i];
        if (e->hash == hash && e->len == len && memcmp(e->key, key, len) == 0)
            return e;
    }
    return NULL;
}

int strmap_put(struct strmap *m, const char *key, size_t len, uint64_t value, bool *existing)
{
    if (len > UINT32_MAX || strmap_reserve(m, m->n + 1) != 0)
        return ERR_NOMEM;
    uint32_t hash = (uint32_t)hash_bytes(key, len, m->seed);
    bool found = lookup(m, key, len, hash) != NULL;
    if (existing)
        *existing = found;
    if (!found) {
        place(m->entries, m->cap, (struct strmap_entry){key, (uint32_t)len, hash, value});
        m->n++;
    }
    return 0;
}

bool strmap_find(const struct strmap *m, const char *key, size_t len, uint64_t *value)
{
    if (!m->cap)
        return false;
    const struct strmap_entry *e = lookup(m, key, len, (uint32_t)hash_bytes(key, len, m->seed));
    if (e && value)
        *value = e->value;
    return e != NULL;
}

void strmap_clear(struct strmap *m)
{
    if (m->cap)
        memset(m->entries, 0, m->cap * sizeof *m->entries);
    m->n = 0;
}

void strmap_release(struct strmap *m)
{
    free(m->entries);
    memset(m, 0, sizeof *m);
}
