/* test_merge.c - the joining loop against a version without any cleverness, on rules drawn at random. */
#include "formats/tokenizer/merge.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { MAX = 3000 };

static uint64_t next_random;

static uint32_t draw(uint32_t below)
{
    next_random = next_random * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(next_random >> 33) % below;
}

/* Lowest rank first, leftmost among equals, one join at a time. */
static size_t merge_plainly(const struct merge_table *t, uint32_t *s, size_t n)
{
    for (;;) {
        const struct merge_entry *best = NULL;
        size_t at = 0;
        for (size_t i = 0; i + 1 < n; i++) {
            const struct merge_entry *m = merge_table_find(t, s[i], s[i + 1]);
            if (m && (!best || m->rank < best->rank)) {
                best = m;
                at = i;
            }
        }
        if (!best)
            return n;
        s[at] = best->symbol;
        n--;
        memmove(s + at + 1, s + at + 2, (n - at - 1) * sizeof *s);
    }
}

/* Rules over `n_start` letters. In order: as training leaves them, each joining earlier results; otherwise
 * ranks at random, so that a join may make a pair of lower rank, and shared, as equal scores are. */
static void random_rules(struct merge_table *t, uint32_t n_start, uint32_t n_rules, bool in_order)
{
    for (uint32_t i = 0; i < n_rules; i++) {
        uint32_t known = n_start + i, rank = in_order ? i : draw(n_rules / 2 + 1);
        assert_int_equal(merge_table_put(t, draw(known), draw(known), rank, n_start + i), 0);
    }
}

static void result_is_that_of_the_plain_loop(void **state)
{
    (void)state;
    static uint32_t text[MAX], plain[MAX];
    struct merge_scratch scratch = {0};
    next_random = 1;
    for (int round = 0; round < 300; round++) {
        struct merge_table t = {0};
        uint32_t n_start = 1 + draw(4);
        random_rules(&t, n_start, 1 + draw(60), round % 3 == 0);
        for (int k = 0; k < 6; k++) {
            size_t n = k < 3 ? draw(49) : 40 + draw(400), m;
            for (size_t i = 0; i < n; i++)
                text[i] = plain[i] = draw(n_start);
            m = merge_plainly(&t, plain, n);
            assert_int_equal(merge_symbols(&t, &scratch, text, &n), 0);
            assert_int_equal(n, m);
            if (n)
                assert_memory_equal(text, plain, n * sizeof *text);
        }
        merge_table_release(&t);
    }
    merge_scratch_release(&scratch);
}

static void first_rule_for_a_pair_stays(void **state)
{
    (void)state;
    struct merge_table t = {0};
    assert_null(merge_table_find(&t, 0, 0));
    for (uint32_t i = 0; i < 1000; i++)
        assert_int_equal(merge_table_put(&t, i, i + 1, i, 5000 + i), 0);
    assert_int_equal(merge_table_put(&t, 7, 8, 99999, 1), 0);
    assert_int_equal(t.n, 1000);
    assert_int_equal(t.n_ranks, 1000);
    assert_int_equal(merge_table_find(&t, 7, 8)->symbol, 5007);
    assert_null(merge_table_find(&t, 8, 7));
    merge_table_release(&t);
}

/* One word of a million equal letters: rules that double. */
static void a_million_letters_are_joined(void **state)
{
    (void)state;
    enum { N = 1000003 };
    struct merge_table t = {0};
    struct merge_scratch scratch = {0};
    uint32_t *text = calloc(N, sizeof *text);
    assert_non_null(text);
    for (uint32_t i = 0; i < 10; i++)
        assert_int_equal(merge_table_put(&t, i, i, i, i + 1), 0);
    size_t n = N;
    assert_int_equal(merge_symbols(&t, &scratch, text, &n), 0);
    assert_int_equal(n, N / 1024 + 4); /* 1000003 mod 1024 = 579 = 512 + 64 + 2 + 1 */
    free(text);
    merge_table_release(&t);
    merge_scratch_release(&scratch);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(result_is_that_of_the_plain_loop),
        cmocka_unit_test(first_rule_for_a_pair_stays),
        cmocka_unit_test(a_million_letters_are_joined),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
