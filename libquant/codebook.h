/* codebook.h - where to look in a code book: the entry at a point, or the entries around it.
 *
 * An encoder of iq1, iq2 or iq3 rounds a tuple of 8 or 4 weights to a point of the whole lattice, one code
 * 0..levels-1 per weight. Few of these points are entries of the code book. For each other point there is a
 * list of the entries near it, and the encoder takes the best of that list. Which entries the lists hold, and
 * in which order, decides bytes of files: all entries at the n smallest distinct distances (2, 2, 1, 2, 3 and
 * 3 of them, in the order of enum codebook_id), by distance, then by number. Specification:
 * quantization 4.11.
 *
 * The lists are computed from iquants_grid.h at the first use of a book (some milliseconds, at most thirty
 * for iq1), once, under a guard, into static memory of the size that they are known to need: nothing can
 * fail, and there is nothing to free. After that a book is read only. */
#ifndef KERF_CODEBOOK_H
#define KERF_CODEBOOK_H

#include <stdint.h>

enum codebook_id {
    CODEBOOK_IQ2_XXS,
    CODEBOOK_IQ2_XS,
    CODEBOOK_IQ2_S,
    CODEBOOK_IQ3_XXS,
    CODEBOOK_IQ3_S,
    CODEBOOK_IQ1, /* iq1_s and iq1_m */
    N_CODEBOOKS
};

enum { CODEBOOK_MAX_TUPLE = 8, CODEBOOK_LIST_PADDING = 16 };

struct codebook {
    int tuple;  /* weights of an entry: 8, or 4 */
    int levels; /* codes of a weight: 3, or 8   */
    int n_entries;
    const int32_t
        *place; /* [levels ^ tuple], see codebook_key: the entry at a point, else -1 - (start of its list) */
    const uint16_t *list; /* at the start of a list its length, then its entries; any CODEBOOK_LIST_PADDING
                             numbers after that may be read, and are below n_entries */
    const uint32_t *code; /* by entry: nibble i is the code of weight i */
    /* By entry: 8 times where its terms stand in the tables of a kernel. Of a tuple of 8 the first three
     * codes have one term, code 0 + 3 * code 1 + 9 * code 2 in a table of 27, and code i >= 3 the term 3 * (i
     * - 3) + code of another; of a tuple of 4 code i has the term 8 * i + code. */
    const uint8_t (*step)[8];
};

/* Never NULL. Safe from any thread. */
const struct codebook *codebook_get(enum codebook_id id);

/* The point of a tuple of codes: its digits are the codes, that of weight 0 the lowest. */
static inline unsigned codebook_key(const struct codebook *b, const uint8_t *codes)
{
    unsigned key = 0;
    for (int i = b->tuple; i-- > 0;)
        key = key * (unsigned)b->levels + codes[i];
    return key;
}

/* The code of weight i of an entry. */
static inline unsigned codebook_code(const struct codebook *b, unsigned entry, int i)
{
    return b->code[entry] >> 4 * i & 7;
}

#endif
