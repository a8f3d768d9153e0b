/* test_rewrite_losses.c - what a type cannot hold: factors beside NVFP4 blocks bring weights into the range
 * of their scales, and blocks that are out of it all the same are counted and told. */
#include "libquant/base/slice.h"
#include "libquant/quant.h"
#include "rewrite_run.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const struct recipe_override nvfp4 = {"attn_q|ffn_down_exps", QTYPE_NVFP4};

static struct model *open_model(const char *path)
{
    struct model *m = NULL;
    struct err e = {0};
    struct model_options opt = {.kern = kern_native()};
    if (model_open(&m, path, &opt, &e) != 0)
        fail_msg("%s", e.msg);
    return m;
}

static float *rows_of(const struct model *m, const struct model_tensor *t)
{
    struct err e = {0};
    float *x = malloc(t->ne[0] * t->n_rows * sizeof *x);
    assert_int_equal(model_read_rows(m, t, 0, t->n_rows, x, &e), 0);
    return x;
}

static float largest(const float *x, uint64_t n)
{
    float most = 0;
    for (uint64_t i = 0; i < n; i++)
        most = fmaxf(most, fabsf(x[i]));
    return most;
}

/* The factor of every matrix is its largest value over 6 * 448, and what is read with it is near the source.
 */
static void check_tensor(const struct model *source, const struct model *m, const char *name, double rmse)
{
    const struct model_tensor *a = model_find(source, name), *b = model_find(m, name);
    assert_non_null(b);
    assert_int_equal(b->type, QTYPE_NVFP4);
    assert_non_null(b->scale);
    assert_int_equal(b->scale->n_dims, 1);
    assert_int_equal(b->scale->ne[0], b->ne[2]);
    uint64_t per_mat = a->ne[0] * a->ne[1], n = a->ne[0] * a->n_rows;
    float *x = rows_of(source, a), *y = rows_of(m, b);
    double sum = 0, power = 0;
    for (uint64_t k = 0; k < b->ne[2]; k++)
        assert_true(load_f32(b->scale->raw + 4 * k) == largest(x + k * per_mat, per_mat) / 2688.0f);
    for (uint64_t i = 0; i < n; i++) {
        sum += ((double)x[i] - (double)y[i]) * ((double)x[i] - (double)y[i]);
        power += (double)x[i] * (double)x[i];
    }
    assert_true(sqrt(sum / power) < 0.12);
    assert_true(fabs(sqrt(sum / (double)n) / rmse - 1) < 1e-5);
    free(x);
    free(y);
}

static void check_size(float size)
{
    char src[256], out[256], again[256];
    struct err e = {0};
    struct rewrite_report r;
    struct setup s = {.type = "Q8_0", .overrides = &nvfp4, .n_overrides = 1, .report = &r};
    source_scale = size;
    write_source(in_folder(src, "src.gguf"), QTYPE_F32, -1, 0);
    if (rewrite(src, in_folder(out, "out.gguf"), &s, &e) != 0)
        fail_msg("%s", e.msg);
    struct model *source = open_model(src), *m = open_model(out);
    assert_int_equal(model_n_tensors(m), N_SPECS + 3);
    assert_int_equal(r.n_tensors, N_SPECS + 3);
    for (size_t i = 0; i < r.n_tensors; i++)
        if (r.tensors[i].type == QTYPE_NVFP4)
            check_tensor(source, m, r.tensors[i].name, r.tensors[i].rmse);
    rewrite_report_release(&r);
    model_close(source);
    model_close(m);
    struct setup other = s;
    other.threads = 7;
    other.memory = 1 << 20;
    other.isa = "ref";
    other.report = NULL;
    assert_int_equal(rewrite(src, in_folder(again, "first.gguf"), &other, &e), 0);
    assert_same_file(out, again);
    source_scale = 1;
}

static void nvfp4_has_a_factor_for_weights_of_any_size(void **state)
{
    (void)state;
    check_size(1);
    check_size(0x1p-12f);
    check_size(0x1p-60f);
    check_size(0x1p20f);
}

static void nvfp4_is_refused_where_the_runtime_multiplies_by_no_factor(void **state)
{
    (void)state;
    static const struct recipe_override router = {"token_embd", QTYPE_NVFP4};
    char src[256], out[256];
    struct err e = {0};
    struct setup s = {.type = "Q8_0", .overrides = &router, .n_overrides = 1};
    write_source(in_folder(src, "src.gguf"), QTYPE_F32, -1, 0);
    assert_int_equal(rewrite(src, in_folder(out, "mid.gguf"), &s, &e), ERR_ARG);
    assert_non_null(strstr(e.msg, "tensor 'token_embd.weight': NVFP4 needs a factor beside its blocks"));
    assert_nothing_left(out);
    s.dry_run = true; /* a plan says no more than a run does */
    assert_int_equal(rewrite(src, out, &s, &e), ERR_ARG);
}

/* --- told --- */

static const char *warning(const struct rewrite_report *r, const char *code)
{
    for (size_t i = 0; i < r->n_warnings; i++)
        if (strncmp(r->warnings[i], code, strlen(code)) == 0)
            return r->warnings[i];
    return NULL;
}

static void sum_up(const struct rewrite_report *r, struct quant_losses *sum)
{
    *sum = (struct quant_losses){0};
    for (size_t i = 0; i < r->n_tensors; i++) {
        sum->n_flushed += r->tensors[i].n_flushed;
        sum->n_clipped += r->tensors[i].n_clipped;
    }
}

static void expect(float size, const char *type, const char *flushed, const char *clipped)
{
    char src[256], out[256];
    struct err e = {0};
    struct rewrite_report r;
    struct quant_losses sum;
    struct setup s = {.type = type, .report = &r};
    source_scale = size;
    write_source(in_folder(src, "src.gguf"), QTYPE_F32, -1, 0);
    if (rewrite(src, in_folder(out, "out.gguf"), &s, &e) != 0)
        fail_msg("%s", e.msg);
    sum_up(&r, &sum);
    const char *f = warning(&r, "[values-flushed]"), *c = warning(&r, "[values-clipped]");
    if ((f != NULL) != (flushed != NULL) || (f && !strstr(f, flushed)) || (f != NULL) != (sum.n_flushed > 0))
        fail_msg("%s, %g: %s", type, (double)size, f ? f : "no word of flushed values");
    if ((c != NULL) != (clipped != NULL) || (c && !strstr(c, clipped)) || (c != NULL) != (sum.n_clipped > 0))
        fail_msg("%s, %g: %s", type, (double)size, c ? c : "no word of clipped values");
    rewrite_report_release(&r);
    source_scale = 1;
}

static void values_that_a_type_cannot_hold_are_counted_and_told(void **state)
{
    (void)state;
    static const char *const types[] = {"F16", "BF16", "Q8_0", "Q4_0", "Q4_K_M", "Q6_K", "Q2_K", "IQ4_XS"};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        char all[64];
        bool values = types[i][1] == '1' || types[i][0] == 'B', bf16 = types[i][0] == 'B';
        snprintf(all, sizeof all, "%s", values ? "values in 7 tensors that become F16" : "blocks in ");
        expect(1, types[i], NULL, NULL);
        expect(0x1p-40f, types[i], bf16 ? NULL : all, NULL);
    }
    expect(1, "MXFP4_MOE", NULL, "blocks in 1 tensor that becomes MXFP4");
}

/* What an earlier run counted is told by the one that ends it. */
static void counts_outlive_a_stopped_run(void **state)
{
    (void)state;
    char src[256], out[256];
    struct err e = {0};
    struct rewrite_report r;
    struct quant_losses whole, continued;
    struct setup s = {.type = "Q8_0", .report = &r, .resume = true, .threads = 1};
    source_scale = 0x1p-40f;
    write_source(in_folder(src, "src.gguf"), QTYPE_F32, -1, 0);
    s.cancel_after = 6;
    assert_int_equal(rewrite(src, in_folder(out, "mid.gguf"), &s, &e), ERR_CANCELLED);
    s.cancel_after = 0;
    s.keep_old = true;
    assert_int_equal(rewrite(src, out, &s, &e), 0);
    assert_true(r.resumed && r.n_resumed > 0);
    sum_up(&r, &continued);
    rewrite_report_release(&r);
    struct setup anew = {.type = "Q8_0", .report = &r};
    assert_int_equal(rewrite(src, in_folder(out, "whole.gguf"), &anew, &e), 0);
    sum_up(&r, &whole);
    rewrite_report_release(&r);
    assert_true(whole.n_flushed > 0);
    assert_int_equal(continued.n_flushed, whole.n_flushed);
    source_scale = 1;
}

/* --- the counts themselves --- */

static void rows_are_judged_by_what_is_read_back(void **state)
{
    (void)state;
    float x[64] = {0}, y[64] = {0};
    struct quant_losses n = {0};
    quant_count_losses(&n, QTYPE_Q8_0, x, y, 64); /* zeros that stay */
    assert_int_equal(n.n_flushed, 0);
    x[40] = 1e-9f;
    quant_count_losses(&n, QTYPE_Q8_0, x, y, 64); /* one of two blocks */
    assert_int_equal(n.n_flushed, 1);
    x[0] = 1e-7f; /* F16 has a step of 6e-8 here */
    y[0] = 0x2p-24f;
    n = (struct quant_losses){0};
    quant_count_losses(&n, QTYPE_F16, x, y, 64); /* 1e-9 is above the rounding of 1e-7, and both are wrong */
    assert_int_equal(n.n_flushed, 2);
    x[1] = y[1] = 1; /* beside which neither counts */
    n = (struct quant_losses){0};
    quant_count_losses(&n, QTYPE_F16, x, y, 64);
    assert_int_equal(n.n_flushed, 0);
    x[1] = 7.5f;
    y[1] = 6;
    quant_count_losses(&n, QTYPE_Q4_0, x, y, 64); /* its levels end elsewhere */
    assert_int_equal(n.n_clipped, 0);
    quant_count_losses(&n, QTYPE_MXFP4, x, y, 64);
    assert_int_equal(n.n_clipped, 1);
    x[1] = 6.9f;
    quant_count_losses(&n, QTYPE_NVFP4, x, y, 64); /* the nearest level is 6 */
    assert_int_equal(n.n_clipped, 1);
    assert_true(quant_factor(QTYPE_NVFP4, 2688) == 1);
    assert_true(quant_factor(QTYPE_NVFP4, 0) == 1);
    assert_true(quant_factor(QTYPE_Q8_0, 2688) == 1);
    assert_true(quant_factor(QTYPE_NVFP4, 1e-42f) > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nvfp4_has_a_factor_for_weights_of_any_size),
        cmocka_unit_test(nvfp4_is_refused_where_the_runtime_multiplies_by_no_factor),
        cmocka_unit_test(values_that_a_type_cannot_hold_are_counted_and_told),
        cmocka_unit_test(counts_outlive_a_stopped_run),
        cmocka_unit_test(rows_are_judged_by_what_is_read_back),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
