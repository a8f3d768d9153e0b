/* rng.h - small reproducible random numbers (splitmix64), for synthetic weights and tests; not for secrets.
 */
#ifndef KERF_RNG_H
#define KERF_RNG_H

#include <stdint.h>

struct rng {
    uint64_t state; /* any value is a good seed */
};

uint64_t rng_u64(struct rng *r);
uint64_t rng_below(struct rng *r, uint64_t n); /* uniform in [0, n), n > 0 */
double rng_uniform(struct rng *r);             /* [0, 1) with 53 bits */
double rng_normal(struct rng *r);              /* mean 0, variance 1 */

#endif
