/* merge.h - the one loop behind BPE and SentencePiece: join the best adjacent pair of symbols until none is
 * left.
 *
 * A table says which pairs of symbols join, into what, and with which rank (lower joins first, leftmost among
 * equals). n symbols take O(n log n) time and, past a few dozen, 12 to 20 bytes each; so a text that is one
 * single word of 100 MB takes seconds and about 1.5 GB, and ordinary words take neither. */
#ifndef KERF_MERGE_H
#define KERF_MERGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SYMBOL_DEAD UINT32_MAX /* no symbol has this number */

struct merge_entry {
    uint64_t pair; /* left << 32 | right */
    uint32_t rank, symbol;
};

/* Caller-owned; a zeroed struct is an empty table. */
struct merge_table {
    struct merge_entry *entries; /* symbol == SYMBOL_DEAD: free slot */
    size_t cap, n;
    uint32_t n_ranks; /* one past the highest rank */
    uint64_t seed;
};

/* Add a rule; one that is already there for this pair keeps its rank. 0 or ERR_NOMEM. */
int merge_table_put(struct merge_table *t, uint32_t left, uint32_t right, uint32_t rank, uint32_t symbol);
void merge_table_release(struct merge_table *t);

/* NULL when the pair does not join. */
const struct merge_entry *merge_table_find(const struct merge_table *t, uint32_t left, uint32_t right);

/* Working memory of one thread, grown as needed; a zeroed struct is ready. */
struct merge_scratch {
    uint32_t *span; /* one per position, see merge.c */
    size_t cap;
    uint32_t *first, *last; /* per rank: queue of positions; entries are linked by `next` */
    bool *sorted;
    uint32_t n_ranks;
    uint32_t *position, *next;
    size_t n_entries, cap_entries;
    uint32_t free_entry;
    uint32_t *ranks; /* binary heap of ranks with a queue that is not empty */
    size_t n_heap, cap_heap;
    uint64_t *urgent; /* binary heap of rank << 32 | position */
    size_t n_urgent, cap_urgent;
};

/* Join in place: symbols[0..*n) in, the result out. 0, ERR_NOMEM, or ERR_ARG past 2^31 symbols. */
int merge_symbols(const struct merge_table *t, struct merge_scratch *s, uint32_t *symbols, size_t *n);
void merge_scratch_release(struct merge_scratch *s);

#endif
