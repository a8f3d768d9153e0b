/* test_mlx.c - hybrids as MLX stores them: the convolution with its channel last, and norms around one, to
 * which nothing is added. */
#include "formats/model/model.h"
#include "libquant/base/filemap.h"

#include "open_model.h"
#include "scratch.h"
#include "toy_family.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* In the header of the weights, every "[n,1,4]" becomes "[n,4,1]". */
static void turn_convolutions(const char *path)
{
    struct filemap f = {0};
    struct err e = {0};
    assert_int_equal(filemap_open(&f, path, &e), 0);
    char *copy = malloc(f.size + 1);
    assert_non_null(copy);
    memcpy(copy, f.data, f.size);
    copy[f.size] = '\0';
    size_t size = f.size, n = 0;
    filemap_close(&f);
    for (char *at = copy + 8; (at = strstr(at, ",1,4]")) != NULL; at += 5, n++)
        memcpy(at, ",4,1]", 5);
    assert_true(n > 1);
    FILE *out = fopen(path, "w");
    assert_non_null(out);
    assert_int_equal(fwrite(copy, 1, size, out), size);
    assert_int_equal(fclose(out), 0);
    free(copy);
}

static void expect_mlx(const char *family)
{
    const char *folder = in_scratch(family);
    char path[600];
    struct err e = {0};
    if (toy_family_write(folder, family, &e) != 0)
        fail_msg("%s", e.msg);
    struct model *hf = open_model(folder);
    size_t n = model_n_tensors(hf), n_norms = 0, n_convolutions = 0;
    float **values = calloc(n, sizeof *values);
    assert_non_null(values);
    for (size_t i = 0; i < n; i++)
        values[i] = read_all(hf, model_tensor(hf, i));
    snprintf(path, sizeof path, "%s/model.safetensors", folder);
    turn_convolutions(path);
    struct model *mlx = open_model(folder);
    assert_int_equal(model_n_tensors(mlx), n);
    for (size_t i = 0; i < n; i++) {
        const struct model_tensor *a = model_tensor(hf, i), *b = model_tensor(mlx, i);
        bool norm = strstr(a->name, "_norm.weight") && !strstr(a->name, "ssm_norm");
        float *have = read_all(mlx, b);
        assert_string_equal(a->name, b->name);
        assert_memory_equal(a->ne, b->ne, sizeof a->ne);
        for (uint64_t k = 0; k < a->n_rows * a->ne[0]; k++)
            assert_true(values[i][k] == (norm ? have[k] + 1.0f : have[k]));
        n_norms += norm;
        n_convolutions += strstr(a->name, "ssm_conv1d") != NULL;
        free(have);
        free(values[i]);
    }
    assert_true(n_norms > 4 && n_convolutions > 1);
    free(values);
    model_close(hf);
    model_close(mlx);
}

static void hybrids_of_mlx_have_their_ones_already(void **state)
{
    (void)state;
    expect_mlx("qwen35");
    expect_mlx("qwen35moe");
    expect_mlx("qwen3next");
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(hybrids_of_mlx_have_their_ones_already)};
    return cmocka_run_group_tests(tests, scratch_begin, scratch_end);
}
