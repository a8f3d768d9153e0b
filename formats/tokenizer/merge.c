/* merge.c - see merge.h. Two ways to the same result, chosen by length.
 *
 * Short: keep the rank of each adjacent pair, scan for the lowest, join, repeat. Quadratic, and faster than
 * any structure for the lengths of words.
 *
 * Long: symbols live at the position of their first character. span[] holds a symbol's length at its first
 * and at its last position (boundary tags), so both neighbours are found without links. Pairs wait in one
 * queue per rank. Pairs enter a queue nearly always in ascending position, so a queue is a list and is sorted
 * only when it did not come out sorted: this makes the usual case linear in memory order, where a heap of all
 * pairs would miss the cache at each step. Entries are not removed when a neighbour changes; an entry counts
 * only if the pair at its position still has its rank. A rule may join a result of lower rank than its parts'
 * rules; such pairs, at or below the rank in progress, go through a small heap that is consulted first. */
#include "merge.h"

#include "libquant/base/err.h"

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

enum { SHORT = 48 };
#define NONE UINT32_MAX

/* --- table
 * --------------------------------------------------------------------------------------------------- */

static size_t slot_of(const struct merge_table *t, uint64_t pair)
{
    uint64_t h = (pair ^ t->seed) * 0x9E3779B97F4A7C15u;
    h ^= h >> 32;
    h *= 0xD6E8FEB86659FD93u;
    return (h ^ h >> 32) & (t->cap - 1);
}

static int grow_table(struct merge_table *t)
{
    struct merge_table bigger = *t;
    bigger.cap = t->cap ? t->cap * 2 : 64;
    if (bigger.cap > SIZE_MAX / sizeof *bigger.entries)
        return ERR_NOMEM;
    if (!t->cap && getrandom(&bigger.seed, sizeof bigger.seed, GRND_NONBLOCK) != sizeof bigger.seed)
        bigger.seed = (uint64_t)(uintptr_t)t; /* as in strmap.c: better than a constant, and never fatal */
    bigger.entries = malloc(bigger.cap * sizeof *bigger.entries);
    if (!bigger.entries)
        return ERR_NOMEM;
    for (size_t i = 0; i < bigger.cap; i++)
        bigger.entries[i].symbol = SYMBOL_DEAD;
    for (size_t i = 0; i < t->cap; i++) {
        if (t->entries[i].symbol == SYMBOL_DEAD)
            continue;
        size_t k = slot_of(&bigger, t->entries[i].pair);
        while (bigger.entries[k].symbol != SYMBOL_DEAD)
            k = (k + 1) & (bigger.cap - 1);
        bigger.entries[k] = t->entries[i];
    }
    free(t->entries);
    *t = bigger;
    return 0;
}

int merge_table_put(struct merge_table *t, uint32_t left, uint32_t right, uint32_t rank, uint32_t symbol)
{
    uint64_t pair = (uint64_t)left << 32 | right;
    if ((t->n + 1) * 2 > t->cap && grow_table(t) != 0)
        return ERR_NOMEM;
    size_t k = slot_of(t, pair);
    for (; t->entries[k].symbol != SYMBOL_DEAD; k = (k + 1) & (t->cap - 1))
        if (t->entries[k].pair == pair)
            return 0;
    t->entries[k] = (struct merge_entry){pair, rank, symbol};
    t->n++;
    if (rank >= t->n_ranks)
        t->n_ranks = rank + 1;
    return 0;
}

void merge_table_release(struct merge_table *t)
{
    free(t->entries);
    memset(t, 0, sizeof *t);
}

const struct merge_entry *merge_table_find(const struct merge_table *t, uint32_t left, uint32_t right)
{
    uint64_t pair = (uint64_t)left << 32 | right;
    if (!t->cap)
        return NULL;
    for (size_t k = slot_of(t, pair); t->entries[k].symbol != SYMBOL_DEAD; k = (k + 1) & (t->cap - 1))
        if (t->entries[k].pair == pair)
            return &t->entries[k];
    return NULL;
}

/* --- short
 * --------------------------------------------------------------------------------------------------- */

static void merge_short(const struct merge_table *t, uint32_t *symbols, size_t *n_symbols)
{
    const struct merge_entry *rule[SHORT];
    size_t n = *n_symbols;
    for (size_t i = 0; i + 1 < n; i++)
        rule[i] = merge_table_find(t, symbols[i], symbols[i + 1]);
    for (;;) {
        size_t best = n;
        for (size_t i = 0; i + 1 < n; i++)
            if (rule[i] && (best == n || rule[i]->rank < rule[best]->rank))
                best = i;
        if (best == n)
            break;
        symbols[best] = rule[best]->symbol;
        n--;
        memmove(symbols + best + 1, symbols + best + 2, (n - best - 1) * sizeof *symbols);
        if (best + 1 < n) {
            memmove(rule + best + 1, rule + best + 2, (n - best - 2) * sizeof *rule);
            rule[best] = merge_table_find(t, symbols[best], symbols[best + 1]);
        }
        if (best > 0)
            rule[best - 1] = merge_table_find(t, symbols[best - 1], symbols[best]);
    }
    *n_symbols = n;
}

/* --- long: queues and heaps
 * ---------------------------------------------------------------------------------- */

/* Grow *array to hold `need` elements of `size` bytes; 0 or ERR_NOMEM. */
static int ensure(void *array, size_t *cap, size_t need, size_t size)
{
    void *old, *grown;
    if (need <= *cap)
        return 0;
    size_t bigger = *cap ? *cap + *cap / 2 : 1024;
    if (bigger < need)
        bigger = need;
    memcpy(&old, array, sizeof old);
    grown = bigger > SIZE_MAX / size ? NULL : realloc(old, bigger * size);
    if (!grown)
        return ERR_NOMEM;
    memcpy(array, &grown, sizeof grown);
    *cap = bigger;
    return 0;
}

static int urgent_push(struct merge_scratch *s, uint64_t key)
{
    if (ensure(&s->urgent, &s->cap_urgent, s->n_urgent + 1, sizeof *s->urgent) != 0)
        return ERR_NOMEM;
    size_t i = s->n_urgent++;
    for (; i > 0 && s->urgent[(i - 1) / 2] > key; i = (i - 1) / 2)
        s->urgent[i] = s->urgent[(i - 1) / 2];
    s->urgent[i] = key;
    return 0;
}

static uint64_t urgent_pop(struct merge_scratch *s)
{
    uint64_t top = s->urgent[0], last = s->urgent[--s->n_urgent];
    size_t i = 0, child;
    for (; (child = 2 * i + 1) < s->n_urgent; i = child) {
        child += child + 1 < s->n_urgent && s->urgent[child + 1] < s->urgent[child];
        if (s->urgent[child] >= last)
            break;
        s->urgent[i] = s->urgent[child];
    }
    s->urgent[i] = last;
    return top;
}

static int rank_push(struct merge_scratch *s, uint32_t rank)
{
    if (ensure(&s->ranks, &s->cap_heap, s->n_heap + 1, sizeof *s->ranks) != 0)
        return ERR_NOMEM;
    size_t i = s->n_heap++;
    for (; i > 0 && s->ranks[(i - 1) / 2] > rank; i = (i - 1) / 2)
        s->ranks[i] = s->ranks[(i - 1) / 2];
    s->ranks[i] = rank;
    return 0;
}

static uint32_t rank_pop(struct merge_scratch *s)
{
    uint32_t top = s->ranks[0], last = s->ranks[--s->n_heap];
    size_t i = 0, child;
    for (; (child = 2 * i + 1) < s->n_heap; i = child) {
        child += child + 1 < s->n_heap && s->ranks[child + 1] < s->ranks[child];
        if (s->ranks[child] >= last)
            break;
        s->ranks[i] = s->ranks[child];
    }
    s->ranks[i] = last;
    return top;
}

static int new_entry(struct merge_scratch *s, uint32_t position, uint32_t *out)
{
    uint32_t i = s->free_entry;
    if (i != NONE) {
        s->free_entry = s->next[i];
    } else {
        size_t cap = s->cap_entries;
        if (s->n_entries >= NONE || ensure(&s->position, &cap, s->n_entries + 1, sizeof *s->position) != 0)
            return ERR_NOMEM;
        if (ensure(&s->next, &s->cap_entries, s->n_entries + 1, sizeof *s->next) != 0)
            return ERR_NOMEM;
        s->cap_entries = cap < s->cap_entries ? cap : s->cap_entries;
        i = (uint32_t)s->n_entries++;
    }
    s->position[i] = position;
    s->next[i] = NONE;
    *out = i;
    return 0;
}

static int enqueue(struct merge_scratch *s, uint32_t rank, uint32_t position)
{
    uint32_t i;
    if (new_entry(s, position, &i) != 0)
        return ERR_NOMEM;
    if (s->first[rank] == NONE) {
        s->first[rank] = s->last[rank] = i;
        s->sorted[rank] = true;
        return rank_push(s, rank);
    }
    if (s->position[s->last[rank]] > position)
        s->sorted[rank] = false;
    s->next[s->last[rank]] = i;
    s->last[rank] = i;
    return 0;
}

/* Merge sort of a list by position, bottom up: runs of 1, 2, 4, ... entries. */
static uint32_t sort_queue(struct merge_scratch *s, uint32_t list)
{
    for (size_t width = 1;; width *= 2) {
        uint32_t p = list, head = NONE, tail = NONE;
        size_t n_merges = 0;
        while (p != NONE) {
            n_merges++;
            uint32_t q = p;
            size_t n_p = 0, n_q = width;
            while (n_p < width && q != NONE) {
                q = s->next[q];
                n_p++;
            }
            while (n_p > 0 || (n_q > 0 && q != NONE)) {
                bool from_p = n_p > 0 && (n_q == 0 || q == NONE || s->position[p] <= s->position[q]);
                uint32_t taken = from_p ? p : q;
                if (from_p) {
                    p = s->next[p];
                    n_p--;
                } else {
                    q = s->next[q];
                    n_q--;
                }
                if (tail == NONE)
                    head = taken;
                else
                    s->next[tail] = taken;
                tail = taken;
            }
            p = q;
        }
        if (tail != NONE)
            s->next[tail] = NONE;
        list = head;
        if (n_merges <= 1)
            return list;
    }
}

/* --- long: the loop
 * ------------------------------------------------------------------------------------------ */

struct walk {
    const struct merge_table *t;
    struct merge_scratch *s;
    uint32_t *symbol; /* the caller's array: the symbol at its first position, SYMBOL_DEAD at joined ones */
    size_t n;
    bool running;  /* a rank is in progress */
    uint32_t rank; /* that rank */
};

static const struct merge_entry *rule_at(const struct walk *w, size_t p)
{
    if (w->symbol[p] == SYMBOL_DEAD)
        return NULL;
    size_t q = p + w->s->span[p];
    return q < w->n ? merge_table_find(w->t, w->symbol[p], w->symbol[q]) : NULL;
}

static int offer(struct walk *w, size_t p)
{
    const struct merge_entry *rule = rule_at(w, p);
    if (!rule)
        return 0;
    if (w->running && rule->rank <= w->rank)
        return urgent_push(w->s, (uint64_t)rule->rank << 32 | p);
    return enqueue(w->s, rule->rank, (uint32_t)p);
}

/* Join the pair at `p` if it still has this rank, and offer the pairs that the result makes. */
static int apply(struct walk *w, uint32_t rank, size_t p)
{
    struct merge_scratch *s = w->s;
    const struct merge_entry *rule = rule_at(w, p);
    if (!rule || rule->rank != rank)
        return 0;
    size_t q = p + s->span[p], length = (size_t)s->span[p] + s->span[q];
    w->symbol[p] = rule->symbol;
    w->symbol[q] = SYMBOL_DEAD;
    s->span[p] = s->span[p + length - 1] = (uint32_t)length;
    int rc = p > 0 ? offer(w, p - s->span[p - 1]) : 0;
    return rc == 0 ? offer(w, p) : rc;
}

static int run_queue(struct walk *w, uint32_t list)
{
    struct merge_scratch *s = w->s;
    int rc = 0;
    while (rc == 0 && (list != NONE || s->n_urgent > 0)) {
        uint64_t key = list != NONE ? (uint64_t)w->rank << 32 | s->position[list] : UINT64_MAX;
        if (s->n_urgent > 0 && s->urgent[0] <= key) {
            key = urgent_pop(s);
        } else {
            uint32_t done = list;
            list = s->next[list];
            s->next[done] = s->free_entry;
            s->free_entry = done;
        }
        rc = apply(w, (uint32_t)(key >> 32), (size_t)(uint32_t)key);
    }
    return rc;
}

static int prepare(const struct merge_table *t, struct merge_scratch *s, size_t n)
{
    if (ensure(&s->span, &s->cap, n, sizeof *s->span) != 0)
        return ERR_NOMEM;
    s->n_entries = s->n_heap = s->n_urgent = 0;
    s->free_entry = NONE;
    if (s->n_ranks < t->n_ranks) {
        uint32_t *first = realloc(s->first, t->n_ranks * sizeof *first);
        s->first = first ? first : s->first;
        uint32_t *last = realloc(s->last, t->n_ranks * sizeof *last);
        s->last = last ? last : s->last;
        bool *sorted = realloc(s->sorted, t->n_ranks * sizeof *sorted);
        s->sorted = sorted ? sorted : s->sorted;
        if (!first || !last || !sorted)
            return ERR_NOMEM;
        memset(first, 0xFF, t->n_ranks * sizeof *first); /* NONE */
        s->n_ranks = t->n_ranks;
    }
    return 0;
}

static int merge_long(const struct merge_table *t, struct merge_scratch *s, uint32_t *symbols, size_t *n)
{
    struct walk w = {.t = t, .s = s, .symbol = symbols, .n = *n};
    if (*n > (size_t)1 << 31)
        return ERR_ARG;
    int rc = prepare(t, s, *n);
    if (rc != 0)
        return rc;
    for (size_t i = 0; i < *n; i++)
        s->span[i] = 1;
    for (size_t i = 0; i + 1 < *n && rc == 0; i++)
        rc = offer(&w, i);
    w.running = true;
    while (rc == 0 && s->n_heap > 0) {
        w.rank = rank_pop(s);
        uint32_t list = s->first[w.rank];
        s->first[w.rank] = NONE;
        rc = run_queue(&w, s->sorted[w.rank] ? list : sort_queue(s, list));
    }
    if (rc != 0) { /* leave no queue behind for the next call */
        memset(s->first, 0xFF, s->n_ranks * sizeof *s->first);
        return rc;
    }
    size_t k = 0;
    for (size_t p = 0; p < *n; p += s->span[p])
        symbols[k++] = symbols[p];
    *n = k;
    return 0;
}

int merge_symbols(const struct merge_table *t, struct merge_scratch *s, uint32_t *symbols, size_t *n)
{
    if (*n > SHORT)
        return merge_long(t, s, symbols, n);
    merge_short(t, symbols, n);
    return 0;
}

void merge_scratch_release(struct merge_scratch *s)
{
    free(s->span);
    free(s->first);
    free(s->last);
    free(s->sorted);
    free(s->position);
    free(s->next);
    free(s->ranks);
    free(s->urgent);
    memset(s, 0, sizeof *s);
}
