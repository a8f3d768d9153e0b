/* kern_sse2.c - the kernel table for any x86-64. */
#include "kern_tables.h"
#include "lanes_sse2.h"

#include "lanes_decode.h"
#include "lanes_codebook.h"
#include "lanes_encode.h"
#include "lanes_iq1.h"
#include "lanes_legacy.h"
#include "lanes_plain.h"

const struct kern kern_sse2 = {
    .isa = "sse2",
    .decode = {KERN_COMMON_DECODERS, KERN_DECODERS(lanes_)},
    .encode = {KERN_COMMON_ENCODERS, KERN_ENCODERS(lanes_)},
    .product = &product_sse2,
};
