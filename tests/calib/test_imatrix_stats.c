/* test_imatrix_stats.c - the statistics on entries small enough to work out by hand. */
#include "calib/stats/imatrix_stats.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <math.h>

#include <cmocka.h>

static void check_close(double found, double expected)
{
    assert_true(fabs(found - expected) < 1e-12 * (1 + fabs(expected)));
}

static void figures_agree_with_hand_work(void **state)
{
    (void)state;
    struct imatrix *m;
    struct imatrix_entry *x;
    assert_int_equal(imatrix_new(&m, NULL), 0);
    assert_int_equal(imatrix_add(m, "blk.0.attn_q.weight", 4, 1, &x, NULL), 0);
    x->counts[0] = 2;
    x->sums[0] = 2, x->sums[1] = 2, x->sums[2] = 2, x->sums[3] = 10; /* a = 1 1 1 5 */
    assert_int_equal(imatrix_add(m, "blk.1.attn_q.weight", 4, 1, &x, NULL), 0);
    x->counts[0] = 1;
    x->sums[0] = 0, x->sums[1] = 0, x->sums[2] = 3, x->sums[3] = 4;
    assert_int_equal(imatrix_add(m, "blk.1.ffn_up_exps.weight", 6, 3, &x, NULL), 0);
    x->counts[0] = 4, x->counts[1] = 0, x->counts[2] = 2; /* the middle expert saw nothing */
    x->sums[0] = 4, x->sums[1] = 8, x->sums[2] = 99, x->sums[3] = 99, x->sums[4] = 6, x->sums[5] = 8;

    struct imatrix_stats s;
    assert_int_equal(imatrix_stats_compute(&s, m, NULL), 0);
    assert_int_equal(s.n_tensors, 3);
    const struct imatrix_tensor_stats *q0 = &s.tensors[0], *q1 = &s.tensors[1], *up = &s.tensors[2];
    assert_string_equal(q0->name, "blk.0.attn_q.weight"); /* the sum 8 comes before the sum 7 */
    check_close(q0->sum, 8);
    check_close(q0->mean, 2);
    check_close(q0->std_dev, sqrt(3));
    check_close(q0->min, 1);
    check_close(q0->max, 5);
    check_close(q0->active, 100);
    check_close(q0->entropy, 3 * (1.0 / 8) * 3 + (5.0 / 8) * log2(8.0 / 5));
    check_close(q0->entropy_norm, 50 * q0->entropy);
    check_close(q0->z_density, 25);
    assert_true(isnan(q0->cos_sim)); /* no layer below */
    check_close(q1->active, 50);
    check_close(q1->cos_sim, (2 * 3 + 10 * 4) / (sqrt(4 + 4 + 4 + 100) * 5));
    assert_int_equal(up->n_experts, 3);
    assert_int_equal(up->n_starved, 1);
    assert_int_equal(up->n_values, 4);
    check_close(up->sum, 1 + 2 + 3 + 4);
    check_close(up->tokens_min, 0);
    check_close(up->tokens_mean, 2);
    check_close(up->tokens_max, 4);
    assert_int_equal(s.n_starved_experts, 1);
    assert_int_equal(s.n_without_data, 0);
    assert_int_equal(s.n_layers, 2);
    assert_int_equal(s.layers[1].layer, 1);
    check_close(s.layers[1].sum, (4 * 7 + 4 * 10) / 8.0);
    imatrix_stats_release(&s);
    imatrix_free(m);
}

static void an_entry_without_data_is_counted_not_divided(void **state)
{
    (void)state;
    struct imatrix *m;
    struct imatrix_entry *x;
    assert_int_equal(imatrix_new(&m, NULL), 0);
    assert_int_equal(imatrix_add(m, "output.weight", 8, 1, &x, NULL), 0);
    struct imatrix_stats s;
    assert_int_equal(imatrix_stats_compute(&s, m, NULL), 0);
    assert_int_equal(s.n_without_data, 1);
    assert_int_equal(s.tensors[0].layer, -1);
    check_close(s.tensors[0].sum, 0);
    assert_int_equal(s.n_layers, 0);
    imatrix_stats_release(&s);
    imatrix_free(m);
}

/* Gate, up and down of a layer have an entry each, and an expert that saw nothing saw nothing in all three.
 */
static void an_expert_without_tokens_counts_once(void **state)
{
    (void)state;
    static const char *const kinds[] = {"down", "gate", "up"};
    struct imatrix *m;
    assert_int_equal(imatrix_new(&m, NULL), 0);
    for (int layer = 1; layer <= 10; layer += 9)
        for (size_t i = 0; i < 3; i++) {
            struct imatrix_entry *x;
            char name[64];
            snprintf(name, sizeof name, "blk.%d.ffn_%s_exps.weight", layer, kinds[i]);
            assert_int_equal(imatrix_add(m, name, 6, 3, &x, NULL), 0);
            x->counts[0] = layer, x->counts[1] = 0, x->counts[2] = layer == 1 ? 5 : 0;
        }
    struct imatrix_stats s;
    assert_int_equal(imatrix_stats_compute(&s, m, NULL), 0);
    assert_int_equal(s.n_starved_experts, 1 + 2);
    assert_int_equal(imatrix_starved_experts(m), 3);
    imatrix_stats_release(&s);
    imatrix_free(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_expert_without_tokens_counts_once),
        cmocka_unit_test(figures_agree_with_hand_work),
        cmocka_unit_test(an_entry_without_data_is_counted_not_divided),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
