/* kern.h - the table of compute kernels, one per instruction-set level.
 *
 * Tables are const and complete; entries a level does not improve point to the reference, so no caller tests
 * for NULL. All entries that touch file bytes are EXACT: for any input they give the bytes (or float bits) of
 * the plain reference, on every level; tests/diff holds them to it. They get there by working on several
 * independent blocks or candidates at once, never by reordering a sum. */
#ifndef KERF_KERN_H
#define KERF_KERN_H

#include "../types.h"

#include <stddef.h>

/* Decode `n_cols` elements (a multiple of the block) from `src`. */
typedef void (*kern_decode_row)(float *dst, const void *src, size_t n_cols);

/* Encode one row. `importance`: n_cols non-negative weights or NULL. `src` finite. */
typedef void (*kern_encode_row)(void *dst, const float *src, size_t n_cols, const float *importance);

struct kern {
    const char *isa;                     /* "ref", "avx2", "avx512", "neon" */
    kern_decode_row decode[QTYPE_COUNT]; /* EXACT; NULL only where qtype_info says can_decode is false */
    kern_encode_row encode[QTYPE_COUNT]; /* EXACT; NULL only where can_encode is false */
};

/* The best table for this CPU. Never NULL. */
const struct kern *kern_native(void);

/* Table of a level by name ("ref", "avx2", ..., "native"); NULL when unknown or not supported by this CPU. */
const struct kern *kern_by_name(const char *isa);

/* NULL-terminated list of the level names this CPU supports, for messages. */
const char *const *kern_names(void);

#endif
