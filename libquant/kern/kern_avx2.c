/* kern_avx2.c - the kernel table for x86-64 with AVX2, FMA and F16C; compiled with that instruction set. */
#include "kern_tables.h"
#include "lanes_avx2.h"

#include "lanes_legacy.h"

const struct kern kern_avx2 = {
    .isa = "avx2",
    .decode = {KERN_REF_DECODERS},
    .encode = {KERN_REF_ENCODERS, KERN_LANES_ENCODERS},
};
