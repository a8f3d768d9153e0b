/* test_model_identity.c - the grades of a model's identity: what each of them sees, and what not. */
#include "formats/model/model_identity.h"

#include "open_model.h"
#include "toy_family.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

struct identities {
    char quick[65], sampled[65], full[65];
};

static struct identities identify(const char *folder)
{
    struct identities id;
    struct err e = {0};
    struct pool *pool = NULL;
    struct sha256 h;
    struct model *m = open_model(folder);
    size_t n = model_n_tensors(m);
    const struct model_tensor **all = calloc(n, sizeof *all);
    assert_non_null(all);
    for (size_t i = 0; i < n; i++)
        all[i] = model_tensor(m, i);
    assert_int_equal(pool_new(&pool, 2, &e), 0);
    sha256_init(&h);
    assert_int_equal(model_identity_quick(&h, folder, NULL, &e), 0);
    sha256_final_hex(&h, id.quick);
    sha256_init(&h);
    assert_int_equal(model_identity_numbers(&h, m, &e), 0);
    assert_int_equal(model_identity_sampled(&h, m, all, n, &e), 0);
    sha256_final_hex(&h, id.sampled);
    assert_int_equal(model_identity_full(id.full, m, pool, NULL, &e), 0);
    free(all);
    pool_free(pool);
    model_close(m);
    return id;
}

/* Change one byte of the file at its end, and keep its times. */
static void flip_last_byte(const char *path)
{
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    FILE *f = fopen(path, "r+b");
    assert_non_null(f);
    assert_int_equal(fseek(f, -1, SEEK_END), 0);
    int c = fgetc(f);
    assert_int_equal(fseek(f, -1, SEEK_END), 0);
    fputc(c ^ 1, f);
    assert_int_equal(fclose(f), 0);
    const struct timespec times[2] = {st.st_atim, st.st_mtim};
    assert_int_equal(utimensat(AT_FDCWD, path, times, 0), 0);
}

static void each_grade_sees_what_it_promises(void **state)
{
    (void)state;
    char a[] = "kerf-identity-XXXXXX", b[] = "kerf-identity-XXXXXX", path[64], command[128];
    struct err e = {0};
    assert_true(mkdtemp(a) && mkdtemp(b));
    assert_int_equal(toy_family_write(a, "qwen3moe", &e), 0);
    assert_int_equal(toy_family_write(b, "qwen3moe", &e), 0);
    struct identities one = identify(a), same = identify(a), twin = identify(b);
    assert_memory_equal(&one, &same, sizeof one);
    assert_string_equal(one.sampled, twin.sampled);
    assert_string_equal(one.full, twin.full);
    assert_string_not_equal(one.quick, twin.quick); /* other times */
    snprintf(path, sizeof path, "%s/model.safetensors", a);
    flip_last_byte(path);
    struct identities touched = identify(a);
    assert_string_equal(one.quick, touched.quick);
    assert_string_not_equal(one.full, touched.full);
    snprintf(path, sizeof path, "%s/config.json", b);
    snprintf(command, sizeof command, "sed -i 's/\"num_experts_per_tok\": 3/\"num_experts_per_tok\": 2/' %s",
             path);
    assert_int_equal(system(command), 0);
    struct identities edited = identify(b); /* the same tensors, computed in another way */
    assert_string_not_equal(one.sampled, edited.sampled);
    assert_string_not_equal(one.full, edited.full);
    snprintf(command, sizeof command, "rm -r %s %s", a, b);
    assert_int_equal(system(command), 0);
}

/* Mutation: the shape is left out of what is sampled. */
static void the_same_rows_in_another_shape_are_another_model(void **state)
{
    (void)state;
    char folder[] = "kerf-identity-XXXXXX", command[64], hex[2][65];
    struct err e = {0};
    assert_non_null(mkdtemp(folder));
    assert_int_equal(toy_family_write(folder, "qwen3moe", &e), 0);
    struct model *m = open_model(folder);
    struct model_tensor *t = (struct model_tensor *)model_find(m, "blk.0.ffn_up_exps.weight");
    assert_non_null(t);
    for (int i = 0; i < 2; i++) {
        const struct model_tensor *const list[] = {t};
        struct sha256 h;
        sha256_init(&h);
        assert_int_equal(model_identity_sampled(&h, m, list, 1, &e), 0);
        sha256_final_hex(&h, hex[i]);
        t->ne[1] *= t->ne[2]; /* one matrix of all rows instead of a stack */
        t->ne[2] = 1;
    }
    assert_string_not_equal(hex[0], hex[1]);
    model_close(m);
    snprintf(command, sizeof command, "rm -r %s", folder);
    assert_int_equal(system(command), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_grade_sees_what_it_promises),
        cmocka_unit_test(the_same_rows_in_another_shape_are_another_model),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
