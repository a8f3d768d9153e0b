/* test_not_a_number.c - models of every family whose weights are not numbers, or so large that their
 * arithmetic overflows: each figure is an error that says so, never a NaN, and no buffer is overrun. In
 * models with experts such a token used to be sent to the first expert again and again. */
#include "toy_gguf.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

static void sound_models_give_figures(void **state)
{
    (void)state;
    for (size_t i = 0; toy_gguf_names[i]; i++) {
        struct toy_gguf g;
        struct toy_figures f;
        struct err e = {0};
        if (toy_gguf_make(&g, toy_gguf_names[i], &e) != 0 || toy_gguf_run(&g, &f, &e) != 0)
            fail_msg("%s: %s", toy_gguf_names[i], e.msg);
        assert_true(isfinite(f.perplexity) && isfinite(f.sum) && f.sum > 0);
        assert_true(f.n_entries >= 7);
        if (f.perplexity > 0) { /* two roads to one figure, and eight bits lose little */
            assert_true(fabs(f.imatrix_perplexity - f.perplexity) <= 1e-12 * f.perplexity);
            assert_true(fabs(log(f.quantized_ppl / f.perplexity)) < 0.3);
        }
        toy_gguf_release(&g);
    }
}

static void a_weight_that_is_no_number_is_an_error_in_every_family(void **state)
{
    (void)state;
    static const char *const tensors[] = {"blk.0.attn_norm.weight",           "blk.1.ffn_norm.weight",
                                          "blk.1.post_attention_norm.weight", "blk.0.ffn_gate_inp.weight",
                                          "blk.1.ffn_down_exps.weight",       "output_norm.weight"};
    const float values[] = {NAN, INFINITY, 3e38f};
    size_t n_refused = 0;
    for (size_t i = 0; toy_gguf_names[i]; i++) {
        struct toy_gguf g;
        struct err e = {0};
        if (toy_gguf_make(&g, toy_gguf_names[i], &e) != 0)
            fail_msg("%s: %s", toy_gguf_names[i], e.msg);
        for (size_t t = 0; t < sizeof tensors / sizeof *tensors; t++)
            for (size_t v = 0; v < sizeof values / sizeof *values; v++) {
                struct toy_figures f;
                struct toy_gguf bad = g;
                bad.bytes = test_malloc(g.n_bytes);
                memcpy(bad.bytes, g.bytes, g.n_bytes);
                if (toy_gguf_poke(&bad, tensors[t], 3, values[v])) {
                    e = (struct err){0};
                    int rc = toy_gguf_run(&bad, &f, &e);
                    if (v < 2 && rc == 0)
                        fail_msg("%s: %s = %g gave figures", toy_gguf_names[i], tensors[t],
                                 (double)values[v]);
                    if (rc != 0 && (rc != ERR_FORMAT || !(strstr(e.msg, "not ") || strstr(e.msg, "finite"))))
                        fail_msg("%s: %s = %g: %s", toy_gguf_names[i], tensors[t], (double)values[v], e.msg);
                    if (rc == 0)
                        assert_true(isfinite(f.perplexity) && isfinite(f.imatrix_perplexity) &&
                                    isfinite(f.sum));
                    n_refused += rc != 0;
                }
                test_free(bad.bytes);
            }
        toy_gguf_release(&g);
    }
    assert_true(n_refused > 100);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sound_models_give_figures),
        cmocka_unit_test(a_weight_that_is_no_number_is_an_error_in_every_family),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
