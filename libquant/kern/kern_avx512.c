/* kern_avx512.c - the kernel table for x86-64 with AVX-512 F, BW, DQ and VL; compiled with that instruction
 * set. */
#include "kern_tables.h"
#include "lanes_avx512.h"

#include "lanes_legacy.h"

const struct kern kern_avx512 = {
    .isa = "avx512",
    .decode = {KERN_REF_DECODERS},
    .encode = {KERN_REF_ENCODERS, KERN_LANES_ENCODERS},
};
