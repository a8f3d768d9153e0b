/* test_weights.c - rows of a mix are the rows that a quantized file would give: encoded once or on the spot,
 * with and without importance; what is refused. */
#include "calib/model/weights.h"
#include "formats/gguf/imatrix_file.h"
#include "libquant/quant.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define DEMO KERF_TEST_DATA "/demo-qwen3"

static struct model *model;
static struct pool *pool;

static int open_demo(void **state)
{
    (void)state;
    struct err e = {0};
    return model_open(&model, DEMO, &(struct model_options){0}, &e) || pool_new(&pool, 2, &e);
}

static int close_demo(void **state)
{
    (void)state;
    model_close(model);
    pool_free(pool);
    return 0;
}

static struct imatrix *importance_of(const struct model_tensor *t)
{
    struct imatrix *m = NULL;
    struct imatrix_entry *entry = NULL;
    assert_int_equal(imatrix_new(&m, NULL), 0);
    assert_int_equal(imatrix_add(m, t->name, t->ne[0], 1, &entry, NULL), 0);
    for (uint64_t i = 0; i < t->ne[0]; i++)
        entry->sums[i] = (double)(i % 17 + 1);
    entry->counts[0] = 4;
    return m;
}

static void check_rows(const struct weights *w, const struct model_tensor *t, const float *importance)
{
    size_t n = (size_t)(t->n_rows * t->ne[0]);
    uint64_t row_bytes = 0;
    enum qtype type = weights_type(w, t);
    assert_true(qtype_row_bytes(type, t->ne[0], &row_bytes));
    float *source = malloc(n * sizeof *source), *want = malloc(n * sizeof *want),
          *found = malloc(n * sizeof *found);
    uint8_t *blocks = malloc((size_t)(t->n_rows * row_bytes));
    assert_int_equal(model_read_rows(model, t, 0, t->n_rows, source, NULL), 0);
    assert_int_equal(quant_encode_rows(kern_native(), type, source, blocks, t->n_rows * row_bytes, t->n_rows,
                                       t->ne[0], importance, NULL),
                     0);
    assert_int_equal(quant_decode_rows(kern_native(), type, blocks, t->n_rows * row_bytes, want, t->n_rows,
                                       t->ne[0], NULL),
                     0);
    assert_int_equal(weights_read(w, t, 0, t->n_rows, found, NULL), 0);
    assert_memory_equal(found, want, n * sizeof *want);
    assert_int_equal(weights_read(w, t, 5, 3, found, NULL), 0);
    assert_memory_equal(found, want + 5 * t->ne[0], 3 * t->ne[0] * sizeof *want);
    free(source);
    free(want);
    free(found);
    free(blocks);
}

static void rows_of_a_mix_are_encoded_and_decoded_rows(void **state)
{
    (void)state;
    struct err e = {0};
    const struct model_tensor *t = model_find(model, "blk.1.ffn_up.weight");
    struct imatrix *m = importance_of(t);
    for (int with = 0; with < 2; with++) {
        struct recipe_options recipe = {
            .recipe = "llama.cpp", .mix = mix_find("Q4_K_M"), .has_imatrix = with};
        struct weights *w = NULL;
        if (weights_new_mix(&w, model, &recipe, with ? m : NULL, false, NULL, &e))
            fail_msg("%s", e.msg);
        float *importance = malloc(t->ne[0] * sizeof *importance);
        assert_int_equal(imatrix_weights(imatrix_find(m, t->name), 0, 1, t->ne[0], importance, &e), 0);
        assert_int_equal(weights_type(w, t), QTYPE_Q4_K);
        assert_true(weights_encodes(w));
        check_rows(w, t, with ? importance : NULL); /* on the spot */
        assert_int_equal(weights_load(w, &t, 1, pool, &e), 0);
        check_rows(w, t, with ? importance : NULL); /* from kept blocks */
        weights_unload(w);
        check_rows(w, t, with ? importance : NULL);
        free(importance);
        weights_free(w);
    }
    imatrix_free(m);
}

static void plain_weights_are_the_stored_rows(void **state)
{
    (void)state;
    const struct model_tensor *t = model_find(model, "blk.1.attn_q.weight");
    struct weights *w = NULL;
    float a[2 * 256], b[2 * 256];
    assert_int_equal(weights_new(&w, model, NULL, NULL), 0);
    assert_int_equal(weights_type(w, t), QTYPE_BF16);
    assert_false(weights_encodes(w));
    assert_int_equal(weights_n_parameters(w), 4197120);
    assert_int_equal(weights_read(w, t, 7, 2, a, NULL), 0);
    assert_int_equal(model_read_rows(model, t, 7, 2, b, NULL), 0);
    assert_memory_equal(a, b, sizeof a);
    weights_free(w);
}

static void importance_that_is_needed_and_missing_is_an_error(void **state)
{
    (void)state;
    struct err e = {0};
    struct weights *w = NULL;
    struct recipe_options recipe = {.recipe = "llama.cpp", .mix = mix_find("IQ2_XXS")};
    assert_int_not_equal(weights_new_mix(&w, model, &recipe, NULL, false, NULL, &e), 0);
    assert_null(w);
    assert_true(e.msg[0] != 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_of_a_mix_are_encoded_and_decoded_rows),
        cmocka_unit_test(plain_weights_are_the_stored_rows),
        cmocka_unit_test(importance_that_is_needed_and_missing_is_an_error),
    };
    return cmocka_run_group_tests(tests, open_demo, close_demo);
}
