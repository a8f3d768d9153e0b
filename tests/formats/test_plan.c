/* test_plan.c - plan files: what is read, what is refused and how. */
#include "formats/recipe/plan.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static int parse(struct plan **out, const char *text, struct err *e)
{
    return plan_parse(out, text, strlen(text), "my.plan", e);
}

static void lines_comments_and_line_ends_are_understood(void **state)
{
    (void)state;
    struct plan *p = NULL;
    struct err e = {0};
    assert_int_equal(
        parse(&p, "# kerf plan 1\r\n\n   # nothing\ntoken_embd.weight\t q6_k # why\r\na#b Q4_0\n x\\.y  BF16",
              &e),
        0);
    assert_int_equal(plan_n(p), 3);
    assert_string_equal(plan_pattern(p, 0), "token_embd.weight");
    assert_int_equal(plan_type(p, 0), QTYPE_Q6_K);
    assert_string_equal(plan_pattern(p, 1), "a#b");
    assert_string_equal(plan_pattern(p, 2), "x\\.y");
    assert_int_equal(plan_type(p, 2), QTYPE_BF16);
    plan_free(p);
    assert_int_equal(parse(&p, "", &e), 0);
    assert_int_equal(plan_n(p), 0);
    plan_free(p);
    plan_free(NULL);
}

static void the_first_line_that_matches_the_whole_name_wins(void **state)
{
    (void)state;
    struct plan *p = NULL;
    enum qtype t = QTYPE_F32;
    assert_int_equal(
        parse(&p, "ffn Q8_0\nblk\\.[0-3]\\.ffn_down\\.weight Q5_K\nblk\\..* Q4_K\nblk.1.attn_q.weight F16\n",
              NULL),
        0);
    assert_true(plan_find(p, "blk.3.ffn_down.weight", &t));
    assert_int_equal(t, QTYPE_Q5_K);
    assert_true(plan_find(p, "blk.1.attn_q.weight", &t));
    assert_int_equal(t, QTYPE_Q4_K);
    assert_false(plan_find(p, "output.weight", &t));
    assert_false(plan_find(p, "blk.4.ffn_down.weight.", &t) && t == QTYPE_Q5_K);
    assert_false(plan_find(p, "ffn.weight", &t));
    plan_free(p);
}

static void the_hash_sees_entries_and_nothing_else(void **state)
{
    (void)state;
    struct plan *a = NULL, *b = NULL, *c = NULL, *d = NULL;
    char ha[65], hb[65], hc[65], hd[65];
    assert_int_equal(parse(&a, "# kerf plan 1\nx Q4_K\ny Q8_0\n", NULL), 0);
    assert_int_equal(parse(&b, "x   q4_k # remark\n\n\ty\tq8_0", NULL), 0);
    assert_int_equal(parse(&c, "y Q8_0\nx Q4_K\n", NULL), 0);
    assert_int_equal(parse(&d, "x=Q4_K\ny=Q8_0\n", NULL), 0); /* matches a part of a name */
    plan_hash(a, ha);
    plan_hash(b, hb);
    plan_hash(c, hc);
    plan_hash(d, hd);
    /* printf 'x Q4_K\ny Q8_0\n' | sha256sum */
    assert_string_equal(ha, "973f6a634369a6703e30147d0f0d1c23643125282d295af7d32a60edf14a1e8f");
    assert_string_equal(ha, hb);
    assert_string_not_equal(ha, hc);
    assert_string_not_equal(ha, hd);
    assert_true(plan_is_whole(a, 0) && !plan_is_whole(d, 0));
    plan_free(a);
    plan_free(b);
    plan_free(c);
    plan_free(d);
}

static void what_is_wrong_is_named_with_its_line(void **state)
{
    (void)state;
    static const struct {
        const char *text, *expected;
        int code;
    } cases[] = {
        {"x Q4_K\ny\n", "my.plan: line 2: 'y' has no type", ERR_FORMAT},
        {"x Q4_K\ny Q4_K_M\n", "my.plan: line 2: 'Q4_K_M' is not a tensor type", ERR_FORMAT},
        {"x Q4_K Q8_0\n", "line 1: more than", ERR_FORMAT},
        {"\n\nx(  Q4_K\n", "line 3: pattern 'x('", ERR_FORMAT},
        {"x\001 Q4_K\n", "control character 0x01", ERR_FORMAT},
        {"# kerf plan 2\nx Q4_K\n", "plan version '2', expected 1", ERR_UNSUPPORTED},
        {"(*UTF)x Q4_K\n", "pattern", ERR_FORMAT},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct plan *p = NULL;
        struct err e = {0};
        assert_int_equal(parse(&p, cases[i].text, &e), cases[i].code);
        assert_null(p);
        if (strstr(e.msg, cases[i].expected) == NULL)
            fail_msg("'%s' does not say '%s'", e.msg, cases[i].expected);
    }
    struct plan *p = NULL;
    struct err e = {0};
    assert_int_equal(plan_parse(&p, "x\0 Q4_K", 7, "my.plan", &e), ERR_FORMAT);
    assert_int_equal(plan_load(&p, KERF_TEST_DATA "/no-such.plan", &e), ERR_IO);
}

#define HASH "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

/* Only hashes of the head count; anything else is a comment like any other. */
static void the_head_says_what_was_measured(void **state)
{
    (void)state;
    static const struct {
        const char *text, *weights, *importance;
    } cases[] = {
        {"# kerf plan 1\n#\n# weights    " HASH "\n# importance " HASH "\nx Q4_K\n", HASH, HASH},
        {"# weights " HASH "\r\n# importance none\nx Q4_K\n", HASH, "none"},
        {"x Q4_K\n# weights " HASH "\n# importance none\n", "", ""},
        {"# weights are large\n# importance of being\nx Q4_K\n", "", ""},
        {"# weights " HASH "0\n# weights 0x" HASH "\n# importance " HASH HASH HASH "\n", "", ""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct plan *p = NULL;
        struct err e = {0};
        assert_int_equal(parse(&p, cases[i].text, &e), 0);
        assert_string_equal(plan_weights(p), cases[i].weights);
        assert_string_equal(plan_importance(p), cases[i].importance);
        plan_free(p);
    }
}

static void runaway_patterns_end(void **state)
{
    (void)state;
    struct plan *p = NULL;
    struct err e = {0};
    size_t line;
    enum qtype t;
    assert_int_equal(parse(&p, "((a+)+)+[bd] Q4_K\n", &e), 0);
    const char *name = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaac";
    assert_int_equal(plan_match(&line, p, name, &e), ERR_ARG);
    assert_non_null(strstr(e.msg, "plan entry 1"));
    assert_false(plan_find(p, name, &t));
    plan_free(p);
}

static void sizes_are_bounded(void **state)
{
    (void)state;
    const size_t n = 100001 * 7;
    char *text = malloc(n + 1);
    assert_non_null(text);
    for (size_t i = 0; i < n; i += 7)
        memcpy(text + i, "x Q4_K\n", 7);
    struct plan *p = NULL;
    struct err e = {0};
    assert_int_equal(plan_parse(&p, text, n, "my.plan", &e), ERR_FORMAT);
    assert_non_null(strstr(e.msg, "line 100001"));
    memset(text, 'x', 5000);
    memcpy(text + 5000, " Q4_K\n", 6);
    assert_int_equal(plan_parse(&p, text, 5006, "my.plan", &e), ERR_FORMAT);
    assert_non_null(strstr(e.msg, "too long"));
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lines_comments_and_line_ends_are_understood),
        cmocka_unit_test(the_first_line_that_matches_the_whole_name_wins),
        cmocka_unit_test(the_hash_sees_entries_and_nothing_else),
        cmocka_unit_test(what_is_wrong_is_named_with_its_line),
        cmocka_unit_test(the_head_says_what_was_measured),
        cmocka_unit_test(runaway_patterns_end),
        cmocka_unit_test(sizes_are_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
