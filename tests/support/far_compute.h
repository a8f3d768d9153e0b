/* far_compute.h - a computing back end whose memory is not the host's: pages that nobody can read or write
 * while no function of the table runs, so that a layer which looks into a buffer crashes. Proves that the
 * walk over layers and the heads speak to the table alone, and is an example of how a second back end is
 * made. */
#ifndef KERF_FAR_COMPUTE_H
#define KERF_FAR_COMPUTE_H

#include "calib/compute/compute.h"

/* Blocks are cut at 32 tokens; products and moves of rows are written out plainly, the rest is compute_cpu's
 * on opened pages. */
extern const struct compute_ops compute_far;

/* Where the pages of a buffer are, for the test that touches them. */
const volatile float *far_pages(const struct buffer *b);

/* Floats copied between far memory and the host since the start. */
size_t far_n_copied(void);

#endif
