/* test_model_diff.c - two models compared: what is the same, and what differs though its values are equal. */
#include "formats/inspect/model_diff.h"
#include "open_model.h"
#include "toy_gguf.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static const char tensor[] = "blk.0.attn_norm.weight";

/* The toy with `value` as the third number of that tensor, as a file. */
static struct model *with_value(struct toy_gguf *g, const char *name, float value)
{
    char path[128];
    assert_true(toy_gguf_poke(g, tensor, 3, value));
    snprintf(path, sizeof path, "%s/%s", g->folder, name);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(g->bytes, 1, g->n_bytes, f), g->n_bytes);
    assert_int_equal(fclose(f), 0);
    return open_model(path);
}

static struct diff_tensor compare(const struct model *a, const struct model *b, size_t *n_same)
{
    struct model_diff d;
    struct pool *pool = NULL;
    struct err e = {0};
    struct diff_tensor found = {0};
    assert_int_equal(pool_new(&pool, 2, &e), 0);
    assert_int_equal(model_diff(&d, a, b, pool, NULL, &e), 0);
    assert_int_equal(d.n_keys, 0);
    for (size_t i = 0; i < d.n_tensors; i++)
        if (strcmp(d.tensors[i].name, tensor) == 0)
            found = d.tensors[i];
    *n_same = d.n_tensors - d.n_same;
    found.name = tensor;
    model_diff_release(&d);
    pool_free(pool);
    return found;
}

/* Mutation: bytes that differ do not count where all values are equal, as for the two zeros. */
static void bytes_count_where_values_are_equal(void **state)
{
    (void)state;
    struct toy_gguf g;
    struct err e = {0};
    size_t n_other;
    assert_int_equal(toy_gguf_make(&g, toy_gguf_names[0], &e), 0);
    struct model *zero = with_value(&g, "zero.gguf", 0.0f), *again = with_value(&g, "again.gguf", 0.0f),
                 *minus = with_value(&g, "minus.gguf", -0.0f), *far = with_value(&g, "far.gguf", 0.5f);
    assert_int_equal(compare(zero, again, &n_other).status, DIFF_SAME);
    assert_int_equal(n_other, 0);
    struct diff_tensor t = compare(zero, minus, &n_other);
    assert_int_equal(t.status, DIFF_VALUES);
    assert_true(t.max_abs == 0 && t.rmse == 0);
    assert_int_equal(n_other, 1);
    t = compare(zero, far, &n_other);
    assert_int_equal(t.status, DIFF_VALUES);
    assert_true(t.max_abs == 0.5 && fabs(t.rmse - 0.5 / sqrt((double)t.a->ne[0])) < 1e-12);
    model_close(zero);
    model_close(again);
    model_close(minus);
    model_close(far);
    toy_gguf_release(&g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(bytes_count_where_values_are_equal)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
