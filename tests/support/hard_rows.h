/* hard_rows.h - rows of weights and importance that are hard on encoders, the same bits on every machine.
 *
 * Drawn with integer generators and exact or correctly rounded float operations only (no libm), so that
 * golden vectors can be committed as hashes of the blocks while the inputs are drawn again from the seed. */
#ifndef KERF_HARD_ROWS_H
#define KERF_HARD_ROWS_H

#include <stddef.h>
#include <stdint.h>

enum { N_HARD_ROWS = 20, N_HARD_IMPORTANCE = 7 };

/* Rows below this number keep squares finite. The last kind overflows them: its blocks may hold NaN scales,
 * whose sign differs between processors, so it has no golden vector. */
enum { N_TAME_ROWS = N_HARD_ROWS - 1 };

/* What kind `kind` is, for messages. */
const char *hard_row_name(unsigned kind);
const char *hard_importance_name(unsigned kind);

/* Fill x[n] with a row of kind `kind` < N_HARD_ROWS. All values are finite. */
void hard_row(float *x, size_t n, unsigned kind, uint64_t seed);

/* Fill w[n] with non-negative weights of kind `kind` < N_HARD_IMPORTANCE. */
void hard_importance(float *w, size_t n, unsigned kind, uint64_t seed);

#endif
