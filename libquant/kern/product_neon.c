/* product_neon.c - tiles of products for aarch64 with Advanced SIMD; compiled with that instruction set, and
 * not with AddressSanitizer, which would look at every value of the hottest loop: gemm.c checks the bounds of
 * a tile instead. */
#include "lanes_neon.h"

#include "lanes_product.h"

const struct kern_product product_neon = LANES_PRODUCT;
