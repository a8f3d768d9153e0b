/* test_recipe_file.c - trial recipes: what is read, what is refused and how. */
#include "formats/recipe/recipe_file.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static int parse(struct recipe_file *out, const char *text, struct err *e)
{
    return recipe_file_parse(out, text, strlen(text), "trials/my.recipe", e);
}

static void every_word_means_the_option_of_its_name(void **state)
{
    (void)state;
    struct recipe_file f = {0};
    struct err e = {0};
    assert_int_equal(
        parse(&f,
              "# kerf recipe 1\r\n\n  type q4_k_m # the base\n tensor-type\tffn_down=Q6_K\n"
              "tensor-type a=b=Q5_K\noutput-type Q8_0\r\nembedding-type bf16\npure\nleave-output\n"
              "imatrix my matrix.gguf",
              &e),
        0);
    const struct recipe_options *o = &f.options;
    assert_string_equal(o->mix->name, "Q4_K_M");
    assert_int_equal(o->n_overrides, 2);
    assert_string_equal(o->overrides[0].pattern, "ffn_down");
    assert_int_equal(o->overrides[0].type, QTYPE_Q6_K);
    assert_string_equal(o->overrides[1].pattern, "a=b");
    assert_int_equal(o->overrides[1].type, QTYPE_Q5_K);
    assert_true(o->has_output_type && o->output_type == QTYPE_Q8_0);
    assert_true(o->has_embedding_type && o->embedding_type == QTYPE_BF16);
    assert_true(o->pure && o->leave_output);
    assert_string_equal(f.imatrix, "trials/my matrix.gguf");
    recipe_file_release(&f);
    assert_int_equal(parse(&f, "type Q8_0\nimatrix none\n", &e), 0);
    assert_true(f.no_imatrix && !f.imatrix);
    recipe_file_release(&f);
    assert_int_equal(parse(&f, "type Q8_0\nimatrix /a/b.dat\n", &e), 0);
    assert_string_equal(f.imatrix, "/a/b.dat");
    recipe_file_release(&f);
    recipe_file_release(NULL);
}

static void a_plan_is_found_beside_the_recipe(void **state)
{
    (void)state;
    char folder[] = "/tmp/kerf-recipe-XXXXXX", path[64], plan[64];
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/r", folder);
    snprintf(plan, sizeof plan, "%s/p", folder);
    FILE *f = fopen(path, "w"), *g = fopen(plan, "w");
    assert_true(f && g);
    fputs("plan p\n", f), fputs("output.weight Q6_K\n", g);
    fclose(f), fclose(g);
    struct recipe_file r = {0};
    struct err e = {0};
    assert_int_equal(recipe_file_load(&r, path, &e), 0);
    assert_string_equal(r.plan_path, plan);
    assert_int_equal(plan_n(r.options.plan), 1);
    recipe_file_release(&r);
    unlink(plan);
    assert_int_equal(recipe_file_load(&r, path, &e), ERR_IO);
    assert_non_null(strstr(e.msg, "line 1"));
    unlink(path);
    rmdir(folder);
}

static void what_is_wrong_is_named_with_its_line(void **state)
{
    (void)state;
    static const struct {
        const char *text, *says;
        int rc;
    } cases[] = {
        {"", "names no type", ERR_FORMAT},
        {"# nothing\npure\n", "names no type", ERR_FORMAT},
        {"# kerf recipe 2\ntype Q8_0\n", "version '2', expected 1", ERR_UNSUPPORTED},
        {"type Q9_X\n", "line 1: 'Q9_X' is not a type or mix", ERR_FORMAT},
        {"type\n", "line 1: 'type' needs a value", ERR_FORMAT},
        {"type Q8_0\npure yes\n", "line 2: 'pure' takes no value", ERR_FORMAT},
        {"type Q8_0\n\ntensor-types x=Q8_0\n", "line 3: 'tensor-types' is not a word of a recipe",
         ERR_FORMAT},
        {"tensor-type x\n", "expected REGEX=TYPE", ERR_FORMAT},
        {"tensor-type =Q8_0\n", "expected REGEX=TYPE", ERR_FORMAT},
        {"tensor-type x=Q8_1\n", "'Q8_1' is not a tensor type that can be written", ERR_FORMAT},
        {"tensor-type (=Q8_0\n", "line 1", ERR_FORMAT},
        {"output-type nothing\n", "'nothing' is not a tensor type", ERR_FORMAT},
        {"type Q8_0\nplan /none/at all\n", "line 2: /none/at all", ERR_IO},
        {"type Q8_0\ntype Q4_K_M\n", "line 2: a second 'type'; a recipe says it once", ERR_FORMAT},
        {"output-type Q8_0\n\noutput-type Q8_0\n", "line 3: a second 'output-type'", ERR_FORMAT},
        {"embedding-type Q8_0\nembedding-type Q6_K\n", "line 2: a second 'embedding-type'", ERR_FORMAT},
        {"type Q8_0\nimatrix a.gguf\nimatrix none\n", "line 3: a second 'imatrix'", ERR_FORMAT},
        {"type Q8_0\npure\npure\n", "line 3: a second 'pure'", ERR_FORMAT},
        {"type Q8_0\001\n", "control character 0x01", ERR_FORMAT},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct recipe_file f = {0};
        struct err e = {0};
        assert_int_equal(parse(&f, cases[i].text, &e), cases[i].rc);
        assert_non_null(strstr(e.msg, "my.recipe"));
        if (!strstr(e.msg, cases[i].says))
            fail_msg("'%s' does not say '%s'", e.msg, cases[i].says);
    }
    struct recipe_file f = {0};
    struct err e = {0};
    assert_int_equal(recipe_file_parse(&f, "type\0Q8_0", 9, "r", &e), ERR_FORMAT);
}

static void the_hash_sees_types_and_nothing_else(void **state)
{
    (void)state;
    static const char *const texts[] = {"type Q4_K_M\n",
                                        "# words\n type  q4_k\nimatrix none\n",
                                        "type Q4_K_S\n",
                                        "type Q4_K_M\ntensor-type a=Q8_0\n",
                                        "type Q4_K_M\ntensor-type a=Q6_K\n",
                                        "type Q4_K_M\npure\n"};
    char hash[6][65];
    for (size_t i = 0; i < 6; i++) {
        struct recipe_file f = {0};
        struct err e = {0};
        assert_int_equal(parse(&f, texts[i], &e), 0);
        recipe_file_hash(&f, hash[i]);
        recipe_file_release(&f);
    }
    assert_string_equal(hash[0], hash[1]);
    for (size_t i = 1; i < 6; i++)
        for (size_t k = i + 1; k < 6; k++)
            assert_string_not_equal(hash[i], hash[k]);
}

static void rules_are_bounded(void **state)
{
    (void)state;
    static const char line[] = "tensor-type x=Q8_0\n";
    const size_t len = sizeof line - 1, n = 10001;
    char *text = malloc(n * len);
    assert_non_null(text);
    for (size_t i = 0; i < n; i++)
        memcpy(text + i * len, line, len);
    struct recipe_file f = {0};
    struct err e = {0};
    assert_int_equal(recipe_file_parse(&f, text, n * len, "r", &e), ERR_FORMAT);
    assert_non_null(strstr(e.msg, "line 10001: more than 10000 rules"));
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_word_means_the_option_of_its_name),
        cmocka_unit_test(a_plan_is_found_beside_the_recipe),
        cmocka_unit_test(what_is_wrong_is_named_with_its_line),
        cmocka_unit_test(the_hash_sees_types_and_nothing_else),
        cmocka_unit_test(rules_are_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
