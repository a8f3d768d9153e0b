/* product_avx2.c - tiles of products for x86-64 with AVX2 and FMA; compiled with that instruction set, and
 * not with AddressSanitizer, which would look at every value of the hottest loop: gemm.c checks the bounds of
 * a tile instead. */
#include "lanes_avx2.h"

#include "lanes_product.h"

const struct kern_product product_avx2 = LANES_PRODUCT;
