/* ref.c - the reference table: plain C, runs everywhere, defines the bytes of all levels. */
#include "kern_tables.h"

const struct kern kern_ref = {
    .isa = "ref",
    .decode = {KERN_COMMON_DECODERS, KERN_DECODERS()},
    .encode = {KERN_COMMON_ENCODERS, KERN_ENCODERS()},
    .product = &product_ref,
};
