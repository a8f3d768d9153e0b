/* test_vecmath.c - the vector loops against the C library, at every length around the lane count. */
#include "calib/compute/vecmath.h"
#include "libquant/base/rng.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#define N 1000

static void fill(float *x, size_t n, double scale, uint64_t seed)
{
    struct rng r = {seed};
    for (size_t i = 0; i < n; i++)
        x[i] = (float)(scale * rng_normal(&r));
}

static void exponentials_are_accurate_over_the_whole_range(void **state)
{
    (void)state;
    double worst = 0;
    for (int k = -8690; k <= 8800; k++) {
        float x = (float)k / 100.0f, e;
        vec_exp_sum(&e, &x, 1.0f, 0.0f, 1);
        worst = fmax(worst, fabs((double)e / exp((double)x) - 1));
    }
    assert_true(worst < 3e-7);
    float edge[3] = {-88.0f, -INFINITY, NAN}, e[3];
    vec_exp_sum(e, edge, 1.0f, 0.0f, 3);
    assert_true(e[0] == 0.0f && e[1] == 0.0f && isnan(e[2]));
}

static void sums_agree_with_double_at_every_length(void **state)
{
    (void)state;
    float x[N], y[N], p[N];
    fill(x, N, 3, 1);
    fill(y, N, 3, 2);
    for (size_t n = 0; n <= 70; n++) {
        double squares = 0, exps = 0, diff = 0;
        float largest = -INFINITY;
        for (size_t i = 0; i < n; i++) {
            squares += (double)x[i] * (double)x[i];
            exps += exp((double)(x[i] * 0.5f - 1.0f));
            largest = fmaxf(largest, x[i]);
        }
        assert_true(vec_max(x, n) == largest);
        assert_true(fabs(vec_sum_squares(x, n) - squares) <= 1e-6 * squares);
        assert_true(fabs(vec_exp_sum(p, x, 0.5f, 1.0f, n) - exps) <= 1e-6 * exps);
        for (size_t i = 0; i < n; i++)
            diff += (double)p[i] * ((double)x[i] - (double)y[i]);
        assert_true(fabs(vec_dot_difference(p, x, y, n) - diff) <= 1e-5 * (exps * 20 + 1e-30));
    }
}

static void gates_and_scalings_do_what_they_say(void **state)
{
    (void)state;
    float gate[N], up[N], want[N];
    fill(gate, N, 4, 3);
    fill(up, N, 1, 4);
    for (size_t i = 0; i < N; i++)
        want[i] = (float)((double)gate[i] / (1 + exp(-(double)gate[i])) * (double)up[i]);
    vec_swiglu(gate, up, N);
    for (size_t i = 0; i < N; i++)
        assert_true(fabsf(gate[i] - want[i]) <= 1e-6f * (1 + fabsf(want[i])));
    fill(gate, N, 4, 5);
    for (size_t i = 0; i < N; i++) {
        double g = (double)gate[i], t = tanh(0.79788456080286536 * (g + 0.044715 * g * g * g));
        want[i] = (float)(g / 2 * (1 + t) * (double)up[i]);
    }
    vec_geglu(gate, up, N);
    for (size_t i = 0; i < N; i++)
        assert_true(fabsf(gate[i] - want[i]) <= 1e-6f * (1 + fabsf(want[i])));
    for (size_t i = 0; i < N; i++) {
        gate[i] = (i % 2 ? 40.0f : 0.01f) * up[i]; /* both ways to a tanh, and its ends */
        want[i] = (float)(30 * tanh(0.5 * (double)gate[i] / 30));
    }
    vec_cap(gate, 0.5f, 30, N);
    for (size_t i = 0; i < N; i++)
        assert_true(fabsf(gate[i] - want[i]) <= 2e-6f * fabsf(want[i]) + 1e-6f);
    float x[3] = {1, 2, 3}, w[3] = {2, 2, 0.5f}, out[3];
    vec_scale_mul(out, x, 3.0f, w, 3);
    assert_true(out[0] == 6 && out[1] == 12 && out[2] == 4.5f);
    vec_add_scaled(out, x, 2.0f, 3);
    assert_true(out[0] == 8 && out[1] == 16 && out[2] == 10.5f);
}

static void rotations_turn_pairs_by_their_angle(void **state)
{
    (void)state;
    float halves[4] = {1, 0, 0, 2}, pairs[4] = {1, 0, 0, 2};
    const float c[2] = {0, 0.6f}, s[2] = {1, 0.8f};
    vec_rotate_halves(halves, c, s, 2); /* (1,0) by 90 degrees; (0,2) by acos 0.6 */
    assert_true(halves[0] == 0 && halves[2] == 1);
    assert_true(fabsf(halves[1] + 1.6f) < 1e-6f && fabsf(halves[3] - 1.2f) < 1e-6f);
    vec_rotate_neighbours(pairs, c, s, 2);
    assert_true(pairs[0] == 0 && pairs[1] == 1);
    assert_true(fabsf(pairs[2] + 1.6f) < 1e-6f && fabsf(pairs[3] - 1.2f) < 1e-6f);
}

static void delta_rule_reads_what_it_wrote(void **state)
{
    (void)state;
    /* One write of v under a unit key returns v for a query equal to the key; the next read sees it decayed.
     */
    float s[6] = {0}, k[2] = {0, 1}, v[3] = {3, -1, 2}, out[3], m[3];
    vec_delta_read(m, s, k, 0.5f, 2, 3);
    assert_true(m[0] == 0 && m[1] == 0 && m[2] == 0);
    vec_delta_write(out, s, k, k, v, 2, 3);
    assert_memory_equal(out, v, sizeof v);
    vec_delta_read(m, s, k, 0.5f, 2, 3);
    assert_true(m[0] == 1.5f && m[1] == -0.5f && m[2] == 1.0f);
}

static void squares_are_added_row_by_row(void **state)
{
    (void)state;
    float x[11 * 50];
    double want[50], found[50];
    fill(x, 11 * 50, 3, 5);
    for (size_t n = 1; n <= 50; n += 7)
        for (size_t n_rows = 0; n_rows <= 11; n_rows++) {
            for (size_t i = 0; i < n; i++) {
                want[i] = found[i] = 0.1 * (double)i;
                for (size_t r = 0; r < n_rows; r++)
                    want[i] += (double)x[r * 50 + i] * (double)x[r * 50 + i];
            }
            vec_add_squares(found, x, n_rows, 50, n);
            assert_memory_equal(found, want, n * sizeof *want);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(exponentials_are_accurate_over_the_whole_range),
        cmocka_unit_test(sums_agree_with_double_at_every_length),
        cmocka_unit_test(gates_and_scalings_do_what_they_say),
        cmocka_unit_test(rotations_turn_pairs_by_their_angle),
        cmocka_unit_test(squares_are_added_row_by_row),
        cmocka_unit_test(delta_rule_reads_what_it_wrote),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
