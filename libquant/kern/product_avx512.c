/* product_avx512.c - tiles of products for x86-64 with AVX-512 F; compiled with that instruction set, and
 * not with AddressSanitizer, which would look at every value of the hottest loop: gemm.c checks the bounds of
 * a tile instead. */
#include "lanes_avx512.h"

#include "lanes_product.h"

const struct kern_product product_avx512 = LANES_PRODUCT;
