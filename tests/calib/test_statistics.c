/* test_statistics.c - every figure of merit on series small enough to work out by hand. */
#include "calib/eval/kl_divergence.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static void near_to(double found, double want)
{
    if (!(fabs(found - want) <= 1e-12 * (1 + fabs(want))))
        fail_msg("expected %.15g, found %.15g", want, found);
}

static void means_carry_their_errors(void **state)
{
    (void)state;
    const double x[4] = {1, 2, 3, 6};
    struct estimate m = stat_mean(x, 4); /* mean 3, mean square 12.5, variance 3.5 */
    near_to(m.value, 3);
    near_to(m.error, sqrt(3.5 / 3));
    assert_true(isnan(stat_mean(x, 1).error)); /* one value says nothing about its error */
    const double y[4] = {1, 3, 3, 5};
    near_to(stat_covariance(x, y, 4), 10.0 / 4 / 3);   /* products of deviations: 4 0 0 6 */
    struct estimate d = stat_mean_difference(x, y, 4); /* 0 -1 0 1: mean 0, variance 1/2 */
    near_to(d.value, 0);
    near_to(d.error, sqrt(0.5 / 3));
    struct estimate runs = stat_mean_of_runs(x, 4, 2); /* run means 1.5 and 4.5 */
    near_to(runs.value, 3);
    near_to(runs.error, sqrt(2.25 / 1));
    assert_true(isnan(stat_mean_of_runs(x, 4, 4).error));
    struct estimate s = stat_share(3, 5);
    near_to(s.value, 0.6);
    near_to(s.error, sqrt(0.24 / 4));
    assert_true(isnan(stat_covariance(x, y, 1)) && isnan(stat_mean_difference(x, y, 1).error));
    assert_true(isnan(stat_share(1, 1).error));
}

static void related_values_count_as_groups(void **state)
{
    (void)state;
    const double x[6] = {1, 2, 3, 6, 4, 8}, zero[6] = {0};
    const size_t singles[6] = {1, 2, 3, 4, 5, 6}, pairs[3] = {2, 4, 6}, uneven[2] = {1, 6}, one[1] = {6};
    near_to(stat_mean_difference_of_groups(x, zero, singles, 6).error, stat_mean(x, 6).error);
    struct estimate d = stat_mean_difference_of_groups(x, zero, pairs, 3);
    near_to(d.value, 4);
    near_to(d.error, stat_mean_of_runs(x, 6, 2).error);
    assert_true(d.error > 1.2 * stat_mean(x, 6).error);
    /* sums of x - 4 are -3 and 3 */
    near_to(stat_mean_difference_of_groups(x, zero, uneven, 2).error, sqrt(2.0 / 1 * 18) / 6);
    assert_true(isnan(stat_mean_difference_of_groups(x, zero, one, 1).error));
}

static void one_token_has_no_errors(void **state)
{
    (void)state;
    const double ref[1] = {log(2)}, cand[1] = {log(4)}, kld[1] = {0.1};
    const bool same[1] = {true};
    double scratch[1];
    struct divergence_series s = {ref, cand, kld, same, 1, 1};
    struct divergence d;
    divergence_of(&d, &s, scratch);
    near_to(d.ppl_ratio.value, 2);
    assert_true(isnan(d.ppl_ratio.error) && isnan(d.ppl_difference.error) && isnan(d.kld.error) &&
                isnan(d.top1.error) && isnan(d.delta_p.error) && isnan(d.delta_p_rms.error) &&
                isnan(d.ppl.perplexity_stderr) && isnan(d.correlation));
}

static void quantiles_interpolate_between_neighbours(void **state)
{
    (void)state;
    double x[5] = {9, NAN, 1, 4, 0};
    stat_sort(x, 5);
    assert_true(x[0] == 0 && x[3] == 9 && isnan(x[4]));
    near_to(stat_quantile(x, 4, 0), 0);
    near_to(stat_quantile(x, 4, 0.5), 2.5);
    near_to(stat_quantile(x, 4, 0.9), 4 + 0.7 * 5);
    near_to(stat_quantile(x, 4, 1), 9);
    assert_true(isnan(stat_quantile(x, 0, 0.5)));
}

static void perplexity_is_the_exponential_of_the_mean(void **state)
{
    (void)state;
    const double nll[4] = {log(2), log(8), log(4), log(4)}; /* mean ln 4, variance (ln 2)^2 / 2 */
    struct perplexity p;
    perplexity_of(&p, nll, 4, 2);
    near_to(p.perplexity, 4);
    near_to(p.perplexity_stderr, 4 * log(2) * sqrt(0.5 / 3));
    near_to(p.window_stderr, 0); /* both windows have the mean ln 4 */
}

static void divergence_summary_follows_its_formulas(void **state)
{
    (void)state;
    const double ref[4] = {log(2), log(4), log(2), log(4)}, cand[4] = {log(2), log(8), log(4), log(4)};
    const double kld[4] = {0, 0.3, 0.1, 0.2};
    const bool same[4] = {true, false, true, true};
    double scratch[4];
    struct divergence_series s = {ref, cand, kld, same, 4, 2};
    struct divergence d;
    divergence_of(&d, &s, scratch);
    near_to(d.ppl.perplexity, 4);
    near_to(d.ln_ratio.value, log(2) / 2); /* differences 0 1 1 0 in ln 2 */
    near_to(d.ln_ratio.error, log(2) * sqrt(0.25 / 3));
    near_to(d.ppl_ratio.value, sqrt(2));
    near_to(d.ppl_ratio.error, sqrt(2) * log(2) * sqrt(0.25 / 3));
    near_to(d.ppl_difference.value, 4 - 2 * sqrt(2));
    near_to(d.correlation,
            0.5 * 0.5 / (sqrt(0.5) * 0.5)); /* cov 1/4, deviations sqrt(1/2) and 1/2, in ln 2 */
    near_to(d.kld.value, 0.15);
    near_to(d.kld.error, sqrt(0.0125 / 3));
    near_to(d.kld_window_stderr, 0);
    near_to(d.kld_at[0], 0);
    near_to(d.kld_at[6], 0.15); /* the median */
    near_to(d.kld_at[DIVERGENCE_N_PERCENTILES - 1], 0.3);
    near_to(d.delta_p.value, (0 - 0.125 - 0.25 + 0) / 4);
    near_to(d.delta_p_rms.value, sqrt((0.015625 + 0.0625) / 4));
    near_to(d.delta_p_at[0], -0.25);
    near_to(d.top1.value, 0.75);
    near_to(d.top1.error, sqrt(0.1875 / 3));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(means_carry_their_errors),
        cmocka_unit_test(related_values_count_as_groups),
        cmocka_unit_test(one_token_has_no_errors),
        cmocka_unit_test(quantiles_interpolate_between_neighbours),
        cmocka_unit_test(perplexity_is_the_exponential_of_the_mean),
        cmocka_unit_test(divergence_summary_follows_its_formulas),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
