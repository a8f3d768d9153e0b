/* test_imatrix_prior.c - what experts without much data borrow from their layer, worked by hand; the key in
 * the file, merging, refusals. */
#include "formats/gguf/imatrix_file.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

/* Two columns, three experts: 3 tokens, none, 1 token; and a plain matrix. */
static struct imatrix *make(void)
{
    static const double sums[6] = {6, 12, 0, 0, 2, 8}, counts[3] = {3, 0, 1};
    struct imatrix *m;
    struct imatrix_entry *x;
    struct err e = {0};
    assert_int_equal(imatrix_new(&m, &e), 0);
    assert_int_equal(imatrix_add(m, "blk.0.ffn_up_exps.weight", 6, 3, &x, &e), 0);
    memcpy(x->sums, sums, sizeof sums);
    memcpy(x->counts, counts, sizeof counts);
    assert_int_equal(imatrix_add(m, "blk.0.attn_q.weight", 2, 1, &x, &e), 0);
    x->sums[0] = 5;
    x->counts[0] = 4;
    assert_int_equal(imatrix_add(m, "blk.1.ffn_up_exps.weight", 6, 3, &x, &e), 0); /* no data at all */
    imatrix_set_chunks(m, 4, 1);
    return m;
}

static void experts_take_the_mean_of_their_layer(void **state)
{
    (void)state;
    struct imatrix *m = make();
    struct err e = {0};
    size_t n = 99;
    assert_int_equal(imatrix_expert_prior(m), 0);
    assert_int_equal(imatrix_apply_expert_prior(m, 8, &n, &e), 0);
    assert_int_equal(n, 1);
    assert_int_equal(imatrix_expert_prior(m), 8);
    /* pool: sums 8 and 20 over 4 tokens, a mean of 2 and 5; 8 tokens of it are 16 and 40 */
    static const double sums[6] = {6 + 16, 12 + 40, 16, 40, 2 + 16, 8 + 40}, counts[3] = {11, 8, 9};
    const struct imatrix_entry *x = imatrix_find(m, "blk.0.ffn_up_exps.weight");
    assert_memory_equal(x->sums, sums, sizeof sums);
    assert_memory_equal(x->counts, counts, sizeof counts);
    float w[2];
    assert_int_equal(imatrix_weights(x, 1, 3, 2, w, &e), 0);
    assert_true(w[0] == 2 && w[1] == 5);
    x = imatrix_find(m, "blk.0.attn_q.weight");
    assert_true(x->sums[0] == 5 && x->counts[0] == 4);
    x = imatrix_find(m, "blk.1.ffn_up_exps.weight"); /* nothing to borrow */
    assert_true(x->sums[0] == 0 && x->counts[0] == 0);
    assert_int_equal(imatrix_apply_expert_prior(m, 8, &n, &e), ERR_ARG);
    assert_non_null(strstr(e.msg, "already"));
    imatrix_free(m);
}

static void the_file_says_so_and_merging_adds_priors(void **state)
{
    (void)state;
    struct imatrix *m = make(), *again, *plain = make();
    struct err e = {0};
    size_t n;
    char path[] = "/tmp/kerf-test-XXXXXX";
    close(mkstemp(path));
    assert_int_equal(imatrix_apply_expert_prior(m, 32, &n, &e), 0);
    assert_int_equal(imatrix_save(m, path, IMATRIX_GGUF, true, &e), 0);
    assert_int_equal(imatrix_load(&again, path, &e), 0);
    assert_int_equal(imatrix_expert_prior(again), 32);
    assert_int_equal(imatrix_merge(again, plain, &e), 0);
    assert_int_equal(imatrix_expert_prior(again), 32);
    assert_int_equal(imatrix_merge(again, m, &e), 0);
    assert_int_equal(imatrix_expert_prior(again), 64);
    assert_int_equal(imatrix_merge(plain, m, &e), 0);
    assert_int_equal(imatrix_expert_prior(plain), 32);
    imatrix_free(m);
    imatrix_free(again);
    imatrix_free(plain);
    unlink(path);
}

static void a_prior_that_does_nothing_is_not_claimed(void **state)
{
    (void)state;
    struct imatrix *m;
    struct imatrix_entry *x;
    struct err e = {0};
    size_t n = 99;
    assert_int_equal(imatrix_new(&m, &e), 0);
    assert_int_equal(imatrix_add(m, "blk.0.attn_q.weight", 2, 1, &x, &e), 0);
    assert_int_equal(imatrix_apply_expert_prior(m, 0, &n, &e), ERR_ARG);
    assert_int_equal(imatrix_apply_expert_prior(m, 16, &n, &e), 0);
    assert_int_equal(n, 0);
    assert_int_equal(imatrix_expert_prior(m), 0);
    imatrix_free(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(experts_take_the_mean_of_their_layer),
        cmocka_unit_test(the_file_says_so_and_merging_adds_priors),
        cmocka_unit_test(a_prior_that_does_nothing_is_not_claimed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
