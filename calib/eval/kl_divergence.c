/* kl_divergence.c - see kl_divergence.h. */
#include "kl_divergence.h"

#include <math.h>
#include <string.h>

const double divergence_percentiles[DIVERGENCE_N_PERCENTILES] = {0,    0.001, 0.01, 0.05, 0.10,  0.25, 0.50,
                                                                 0.75, 0.90,  0.95, 0.99, 0.999, 1};

static void percentiles(double *out, double *x, size_t n)
{
    stat_sort(x, n);
    for (size_t i = 0; i < DIVERGENCE_N_PERCENTILES; i++)
        out[i] = stat_quantile(x, n, divergence_percentiles[i]);
}

/* RMS and its error: half the error of the mean square, over the RMS. */
static struct estimate root_mean_square(const double *x, double *scratch, size_t n)
{
    for (size_t i = 0; i < n; i++)
        scratch[i] = x[i] * x[i];
    struct estimate square = stat_mean(scratch, n), r = {sqrt(square.value), square.error};
    if (r.value > 0)
        r.error = 0.5 * square.error / r.value;
    return r;
}

static void ratios(struct divergence *d, const struct divergence_series *s)
{
    struct perplexity ref;
    perplexity_of(&ref, s->nll_ref, s->n, s->run);
    perplexity_of(&d->ppl, s->nll, s->n, s->run);
    double cov = stat_covariance(s->nll, s->nll_ref, s->n);
    d->ln_ratio = stat_mean_difference(s->nll, s->nll_ref, s->n);
    d->ppl_ratio.value = exp(d->ln_ratio.value);
    d->ppl_ratio.error = d->ppl_ratio.value * d->ln_ratio.error;
    d->correlation = cov / (d->ppl.nll.error * ref.nll.error);
    if (!(d->ppl.nll.error > 0) || !(ref.nll.error > 0))
        d->correlation = NAN;
    double u = d->ppl.perplexity_stderr, v = ref.perplexity_stderr;
    double square = u * u + v * v - 2 * d->ppl.perplexity * ref.perplexity * cov;
    d->ppl_difference = (struct estimate){d->ppl.perplexity - ref.perplexity, square <= 0 ? 0 : sqrt(square)};
}

void divergence_of(struct divergence *out, const struct divergence_series *s, double *scratch)
{
    struct divergence d = {.kld = stat_mean(s->kld, s->n)};
    size_t same = 0;
    ratios(&d, s);
    d.kld_window_stderr = stat_mean_of_runs(s->kld, s->n, s->run).error;
    memcpy(scratch, s->kld, s->n * sizeof *scratch);
    percentiles(d.kld_at, scratch, s->n);
    for (size_t i = 0; i < s->n; i++) {
        scratch[i] = exp(-s->nll[i]) - exp(-s->nll_ref[i]);
        same += s->same_top[i];
    }
    d.delta_p = stat_mean(scratch, s->n);
    d.top1 = stat_share(same, s->n);
    percentiles(d.delta_p_at, scratch, s->n); /* sorts, which a mean square does not mind */
    d.delta_p_rms = root_mean_square(scratch, scratch, s->n);
    *out = d;
}

double divergence_kept(const struct divergence *d)
{
    return 100 / d->ppl_ratio.value;
}
