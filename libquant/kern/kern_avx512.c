/* kern_avx512.c - the kernel table for x86-64 with AVX-512 F, BW, DQ and VL; compiled with that instruction
 * set. */
#include "kern_tables.h"
#include "lanes_avx512.h"

#include "lanes_decode.h"
#include "lanes_codebook.h"
#include "lanes_encode.h"
#include "lanes_iq1.h"
#include "lanes_legacy.h"
#include "lanes_plain.h"

const struct kern kern_avx512 = {
    .isa = "avx512",
    .decode = {KERN_COMMON_DECODERS, KERN_DECODERS(lanes_)},
    .encode = {KERN_COMMON_ENCODERS, KERN_ENCODERS(lanes_)},
    .product = &product_avx512,
};
