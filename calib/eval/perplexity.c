/* perplexity.c - see perplexity.h. */
#include "perplexity.h"

#include <math.h>

void perplexity_of(struct perplexity *out, const double *nll, size_t n, size_t run)
{
    struct perplexity p = {.n_scored = n, .nll = stat_mean(nll, n)};
    p.perplexity = exp(p.nll.value);
    p.perplexity_stderr = p.perplexity * p.nll.error;
    p.window_stderr = p.perplexity * stat_mean_of_runs(nll, n, run).error;
    *out = p;
}
