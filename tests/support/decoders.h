/* decoders.h - for tests: the reference coders by type, as a kernel table of its own, so that they can be
 * tested apart from the choice of an instruction set. */
#ifndef KERF_TEST_DECODERS_H
#define KERF_TEST_DECODERS_H

#include "libquant/kern/kern.h"

/* All reference decoders; encoders only of the types without a search (plain, ternary, fp4). */
extern const struct kern reference_decoders;

#endif
