/* product.h - the reference of the tiles that matrix products are made of; see kern/kern.h for the contract.
 */
#ifndef KERF_PRODUCT_H
#define KERF_PRODUCT_H

#include "kern/kern.h"

extern const struct kern_product product_ref;

#endif
