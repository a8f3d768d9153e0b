/* kern_avx2.c - the kernel table for x86-64 with AVX2, FMA and F16C; compiled with that instruction set. */
#include "kern_tables.h"
#include "lanes_avx2.h"

#include "lanes_decode.h"
#include "lanes_codebook.h"
#include "lanes_encode.h"
#include "lanes_iq1.h"
#include "lanes_legacy.h"
#include "lanes_plain.h"

const struct kern kern_avx2 = {
    .isa = "avx2",
    .decode = {KERN_COMMON_DECODERS, KERN_DECODERS(lanes_)},
    .encode = {KERN_COMMON_ENCODERS, KERN_ENCODERS(lanes_)},
    .product = &product_avx2,
};
