/* test_confirm.c - a plan beside the standard mix of its size: the figures are those of an evaluation, the
 * mix is the right one, a bad plan gives way to it and keeps what rules demand; windows set apart are others.
 */
#include "calib/solve/confirm.h"
#include "toy_net.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define CTX       16
#define N_WINDOWS 3

static struct toy_net toy;
static struct pool *pool;
static struct windows windows;
static struct loss_table table;
static int32_t inputs[CTX * N_WINDOWS], targets[CTX * N_WINDOWS / 2];
static const enum qtype types[] = {QTYPE_Q2_K, QTYPE_Q3_K, QTYPE_Q4_K, QTYPE_Q5_K, QTYPE_Q6_K, QTYPE_Q8_0};

static int setup(void **state)
{
    (void)state;
    struct err e = {0};
    struct toy_spec spec = toy_spec_tiny(TOY_LLAMA);
    toy_net_open(&toy, &spec, NULL);
    check(pool_new(&pool, 2, &e), &e);
    for (size_t i = 0; i < CTX * N_WINDOWS; i++)
        inputs[i] = (int32_t)((i * i * 31 + 7 * i) % toy.net.n_vocab);
    windows = toy_windows(CTX, N_WINDOWS, inputs, targets);
    struct loss_measure opt = {.pool = pool, .memory_bytes = 1 << 26};
    check(loss_table_init(&table, toy.model, NULL, types, sizeof types / sizeof *types, &e), &e);
    table.probe = LOSS_PROBE_FAST;
    check(loss_table_measure(&table, &toy.net, toy.base, &windows, &opt, &e), &e);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    loss_table_release(&table);
    toy_net_close(&toy);
    pool_free(pool);
    return 0;
}

static struct allocator *allocator(const struct allocate_rule *rules, size_t n)
{
    struct err e = {0};
    struct allocator *a = NULL;
    struct allocate_options opt = {.rules = rules, .n_rules = n, .pool = pool};
    check(allocator_new(&a, &table, &opt, &e), &e);
    return a;
}

static uint64_t bytes_of(const struct allocator *a, const char *mix)
{
    struct mix_price p = {0};
    assert_int_equal(allocator_price_mix(a, mix_find(mix), &p, NULL), 0);
    assert_true(p.known);
    return p.n_bytes;
}

static const struct mix *standard_mix(const struct allocator *a, uint64_t budget)
{
    const struct mix *mix = NULL;
    assert_int_equal(allocator_standard_mix(a, budget, &mix, NULL), 0);
    return mix;
}

static bool take_mix(const struct allocator *a, const struct mix *mix, uint64_t budget, struct allocation *r)
{
    bool took = false;
    assert_int_equal(allocator_take_mix(a, mix, budget, r, &took, NULL), 0);
    return took;
}

/* Mean divergence of the model as a mix, by evaluate(). */
static double divergence(const struct mix *mix)
{
    struct err e = {0};
    struct recipe_options recipe = {.recipe = "llama.cpp", .mix = mix};
    struct weights *w = NULL;
    check(weights_new_mix(&w, toy.model, &recipe, NULL, false, NULL, &e), &e);
    double sum = toy_divergence(&toy, w, &windows, pool);
    weights_free(w);
    return sum;
}

static void the_standard_mix_is_the_largest_that_fits(void **state)
{
    (void)state;
    struct allocator *a = allocator(NULL, 0);
    static const char *const names[] = {"Q2_K", "Q3_K_M", "Q4_K_M", "Q6_K"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        assert_string_equal(standard_mix(a, bytes_of(a, names[i]))->name, names[i]);
    assert_null(standard_mix(a, bytes_of(a, "Q2_K") / 2));
    allocator_free(a);
}

static void confirm(struct confirmation *c, const struct allocator *a, const struct allocation *r)
{
    struct err e = {0};
    struct evaluate_options opt = {.pool = pool, .memory_bytes = 1 << 26};
    check(confirm_plan(c, a, r, standard_mix(a, r->budget_bytes), &toy.net, toy.base, &windows, &opt, &e),
          &e);
}

static void a_good_plan_is_confirmed(void **state)
{
    (void)state;
    struct err e = {0};
    struct confirmation c = {0};
    struct allocation r = {0};
    struct allocator *a = allocator(NULL, 0);
    char text[400];
    check(allocator_solve(a, bytes_of(a, "Q3_K_M"), &r, &e), &e);
    confirm(&c, a, &r);
    assert_string_equal(c.mix->name, "Q3_K_M");
    assert_true(c.mix_bytes == bytes_of(a, "Q3_K_M"));
    assert_true(fabs(c.mix_kld.value / divergence(c.mix) - 1) < 1e-9);
    assert_true(fabs(c.difference.value - (c.plan_kld.value - c.mix_kld.value)) < 1e-12);
    assert_true(c.plan_wins && c.plan_kld.value < c.mix_kld.value);
    assert_int_equal(c.n_tokens, N_WINDOWS * CTX / 2);
    assert_true(c.passes == 3);
    c.held_out = true;
    confirm_sentence(text, sizeof text, &c);
    assert_non_null(strstr(text, "Q3_K_M of "));
    assert_non_null(strstr(text, "24 held-out tokens"));
    allocation_release(&r);
    allocator_free(a);
}

static double sum_of(const struct allocation *r)
{
    double sum = 0;
    for (size_t i = 0; i < table.n_tensors; i++)
        sum += table.tensors[i].options[r->choice[i]].loss;
    return sum;
}

/* Losses turned upside down: the plan spends its bytes where they matter least. */
static void a_bad_plan_gives_way_to_the_mix(void **state)
{
    (void)state;
    struct err e = {0};
    struct confirmation c = {0};
    struct allocation r = {0};
    struct allocator *a = allocator(NULL, 0);
    uint64_t budget = bytes_of(a, "Q4_K_M") + 256; /* a plan's metadata are longer than a mix's */
    double kept[64][8];
    for (size_t i = 0; i < table.n_tensors; i++)
        for (size_t o = 0; o < table.tensors[i].n_options; o++) {
            kept[i][o] = table.tensors[i].options[o].loss;
            table.tensors[i].options[o].loss = o < 1 ? 0 : 1;
        }
    check(allocator_solve(a, budget, &r, &e), &e);
    for (size_t i = 0; i < table.n_tensors; i++)
        for (size_t o = 0; o < table.tensors[i].n_options; o++)
            table.tensors[i].options[o].loss = kept[i][o];
    confirm(&c, a, &r);
    assert_string_equal(c.mix->name, "Q4_K_M");
    assert_false(c.plan_wins);

    /* Not where the mix breaks a rule or does not fit, and then nothing changes. */
    const struct allocate_rule narrow = {"ffn_up", ALLOCATE_MAX, QTYPE_Q3_K};
    struct allocator *b = allocator(&narrow, 1);
    uint64_t before = r.n_bytes;
    assert_false(take_mix(b, c.mix, budget, &r));
    assert_false(take_mix(a, c.mix, budget / 2, &r));
    assert_true(r.n_bytes == before);
    allocator_free(b);

    assert_true(take_mix(a, c.mix, budget, &r));
    assert_true(r.n_bytes <= budget && fabs(r.loss - sum_of(&r)) < 1e-12 && r.lower_bound <= r.loss);
    struct weights *w = NULL;
    check(allocator_weights(a, &r, &w, &e), &e);
    struct recipe_options recipe = {.recipe = "llama.cpp", .mix = c.mix};
    struct weights *want = NULL;
    check(weights_new_mix(&want, toy.model, &recipe, NULL, false, NULL, &e), &e);
    for (size_t i = 0; i < model_n_tensors(toy.model); i++)
        assert_int_equal(weights_type(w, model_tensor(toy.model, i)),
                         weights_type(want, model_tensor(toy.model, i)));
    weights_free(w);
    weights_free(want);
    allocation_release(&r);
    allocator_free(a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_standard_mix_is_the_largest_that_fits),
        cmocka_unit_test(a_good_plan_is_confirmed),
        cmocka_unit_test(a_bad_plan_gives_way_to_the_mix),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
