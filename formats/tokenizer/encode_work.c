/* encode_work.c - see encode_work.h. */
#include "encode_work.h"

#include <stdlib.h>
#include <string.h>

void work_begin(struct encode_work *w, size_t text_len)
{
    size_t n = 64;
    while (n < text_len / 32 && n < 32768)
        n *= 2;
    memset(w, 0, sizeof *w);
    w->cache = calloc(n, sizeof *w->cache);
    w->cache_mask = n - 1;
}

void work_release(struct encode_work *w)
{
    free(w->ids);
    free(w->symbols);
    free(w->cache);
    merge_scratch_release(&w->scratch);
}

static int reserve_ids(struct encode_work *w, size_t more)
{
    if (w->cap_ids - w->n_ids >= more)
        return 0;
    size_t cap = w->cap_ids + w->cap_ids / 2 + more + 64;
    int32_t *grown = cap > SIZE_MAX / sizeof *grown ? NULL : realloc(w->ids, cap * sizeof *grown);
    if (!grown)
        return ERR_NOMEM;
    w->ids = grown;
    w->cap_ids = cap;
    return 0;
}

int work_push(struct encode_work *w, int32_t id)
{
    if (reserve_ids(w, 1) != 0)
        return ERR_NOMEM;
    w->ids[w->n_ids++] = id;
    return 0;
}

int work_reserve_symbols(struct encode_work *w, size_t n)
{
    if (n <= w->cap_symbols)
        return 0;
    uint32_t *grown = n > SIZE_MAX / sizeof *grown ? NULL : realloc(w->symbols, n * sizeof *grown);
    if (!grown)
        return ERR_NOMEM;
    w->symbols = grown;
    w->cap_symbols = n;
    return 0;
}

static struct cache_entry *entry_of(struct encode_work *w, const char *key, size_t len)
{
    uint64_t h = len, v;
    for (; len >= 8; len -= 8, key += 8) {
        memcpy(&v, key, 8);
        h = (h ^ v) * 0x9E3779B97F4A7C15u;
        h ^= h >> 29;
    }
    v = 0;
    memcpy(&v, key, len);
    h = (h ^ v) * 0x9E3779B97F4A7C15u;
    return &w->cache[(h ^ h >> 32) & w->cache_mask];
}

int work_cached(struct encode_work *w, const char *key, size_t len, bool *hit)
{
    *hit = false;
    if (!w->cache || len > CACHE_KEY || len == 0)
        return 0;
    const struct cache_entry *c = entry_of(w, key, len);
    if (c->len != len || memcmp(c->key, key, len) != 0)
        return 0;
    *hit = true;
    if (reserve_ids(w, CACHE_IDS) != 0)
        return ERR_NOMEM;
    memcpy(w->ids + w->n_ids, c->ids, sizeof c->ids);
    w->n_ids += c->n_ids;
    return 0;
}

void work_remember(struct encode_work *w, const char *key, size_t len, size_t from)
{
    size_t n = w->n_ids - from;
    if (!w->cache || len > CACHE_KEY || len == 0 || n > CACHE_IDS)
        return;
    struct cache_entry *c = entry_of(w, key, len);
    c->len = (uint8_t)len;
    c->n_ids = (uint8_t)n;
    memcpy(c->key, key, len);
    if (n)
        memcpy(c->ids, w->ids + from, n * sizeof *c->ids);
}
