/* kern_neon.c - the kernel table for aarch64 with Advanced SIMD; compiled with that instruction set. */
#include "kern_tables.h"
#include "lanes_neon.h"

#include "lanes_decode.h"
#include "lanes_codebook.h"
#include "lanes_encode.h"
#include "lanes_iq1.h"
#include "lanes_legacy.h"
#include "lanes_plain.h"

const struct kern kern_neon = {
    .isa = "neon",
    .decode = {KERN_COMMON_DECODERS, KERN_DECODERS(lanes_)},
    .encode = {KERN_COMMON_ENCODERS, KERN_ENCODERS(lanes_)},
    .product = &product_neon,
};
