/* test_score_store.c - what is kept comes back to the bit, and nothing else does: another key, another
 * length, damage, a cut file. */
#include "calib/eval/score_store.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define N 20

static char folder[] = "/tmp/kerf-store-XXXXXX";

struct scores {
    double nll[N], kld[N];
    int32_t top[N];
};

static struct score_unit unit_of(struct scores *s, size_t n)
{
    return (struct score_unit){.n = n, .nll = s->nll, .kld = s->kld, .top = s->top};
}

static bool load(struct score_store *s, struct scores *into, size_t n, const char *key, double *seconds)
{
    struct score_unit u = unit_of(into, n);
    bool found = true;
    score_store_load(&found, &u, s, key);
    *seconds = u.seconds;
    return found;
}

static void change_byte(const char *key, const char *ending, long at)
{
    char path[200];
    snprintf(path, sizeof path, "%s/%.32s.%s", folder, key, ending);
    FILE *f = fopen(path, "r+b");
    assert_non_null(f);
    fseek(f, at, SEEK_SET);
    int c = fgetc(f);
    fseek(f, at, SEEK_SET);
    fputc(c ^ 1, f);
    fclose(f);
}

static void scores_come_back_to_the_bit_or_not_at_all(void **state)
{
    (void)state;
    struct score_store s = {.folder = folder};
    struct scores a, b = {0};
    struct err e = {0};
    char key[65], other[65];
    double seconds = 0;
    assert_int_equal(score_store_open(&s, &e), 0);
    for (int i = 0; i < N; i++) {
        a.nll[i] = 1.0 / (i + 3);
        a.kld[i] = -0.0 * i;
        a.top[i] = i * 1000003;
    }
    score_store_key(&s, "ref", "model", 0, 4, key);
    score_store_key(&s, "ref", "model", 4, 4, other);
    struct score_unit u = unit_of(&a, N);
    u.seconds = 2.5;
    assert_false(load(&s, &b, N, key, &seconds));
    assert_int_equal(score_store_save(&u, &s, key, &e), 0);
    assert_true(load(&s, &b, N, key, &seconds));
    assert_true(memcmp(&a, &b, sizeof a) == 0 && seconds == 2.5);
    assert_false(load(&s, &b, N, other, &seconds));
    assert_int_equal(s.n_damaged, 0);
    assert_false(load(&s, &b, N - 1, key, &seconds)); /* of another length */
    assert_int_equal(s.n_damaged, 1);
    for (long at = 0; at < 400; at += 37) {
        change_byte(key, "scores", at);
        assert_false(load(&s, &b, N, key, &seconds));
        change_byte(key, "scores", at);
    }
    assert_true(load(&s, &b, N, key, &seconds));
    char path[200];
    snprintf(path, sizeof path, "%s/%.32s.scores", folder, key);
    assert_int_equal(truncate(path, 100), 0);
    assert_false(load(&s, &b, N, key, &seconds));
    unlink(path);
}

static void keys_tell_everything_apart(void **state)
{
    (void)state;
    struct score_store s = {.folder = folder}, t = {.folder = folder, .about = "1"};
    char keys[6][65];
    score_store_key(&s, "ref", "model", 0, 4, keys[0]);
    score_store_key(&s, "ref", "", 0, 4, keys[1]);
    score_store_key(&s, "refm", "odel", 0, 4, keys[2]);
    score_store_key(&s, "ref", "model", 4, 0, keys[3]);
    score_store_key(&s, "ref", "model", 0, 5, keys[4]);
    score_store_key(&t, "ref", "model", 0, 4, keys[5]);
    for (size_t i = 0; i < 6; i++)
        for (size_t k = i + 1; k < 6; k++)
            assert_string_not_equal(keys[i], keys[k]);
}

static void states_come_back_from_memory_or_a_file(void **state)
{
    (void)state;
    enum { ROWS = 700, COLS = 24 };
    struct score_store s = {.folder = folder};
    struct hidden_states *h = NULL, *g = NULL;
    struct err e = {0};
    char key[65];
    float row[COLS], buffer[COLS], *got = NULL;
    score_store_key(&s, "ref", "", 0, 4, key);
    assert_int_equal(hidden_states_new(&h, ROWS, COLS, 1 << 20, &e), 0);
    for (size_t i = 0; i < ROWS; i++) {
        float *at = row;
        assert_int_equal(hidden_states_get(h, i, 1, buffer, &at, &e), 0);
        for (size_t k = 0; k < COLS; k++)
            at[k] = (float)(i * COLS + k) / 7;
        assert_int_equal(hidden_states_put(h, i, 1, at, &e), 0);
    }
    assert_false(score_store_has_states(&s, key, ROWS, COLS));
    assert_int_equal(score_store_save_states(h, &s, key, &e), 0);
    assert_true(score_store_has_states(&s, key, ROWS, COLS));
    for (uint64_t memory = 1 << 20; memory > 0; memory = memory == 1 ? 0 : 1) { /* 1: in a temporary file */
        assert_int_equal(score_store_load_states(&g, &s, key, ROWS, COLS, memory, &e), 0);
        assert_non_null(g);
        for (size_t i = 0; i < ROWS; i++) {
            assert_int_equal(hidden_states_get(g, i, 1, buffer, &got, &e), 0);
            for (size_t k = 0; k < COLS; k++)
                assert_true(got[k] == (float)(i * COLS + k) / 7);
        }
        hidden_states_free(g);
    }
    assert_int_equal(score_store_load_states(&g, &s, key, ROWS, COLS - 1, 1 << 20, &e), 0);
    assert_null(g);
    change_byte(key, "states", 5000);
    assert_false(score_store_has_states(&s, key, ROWS, COLS));
    assert_int_equal(score_store_load_states(&g, &s, key, ROWS, COLS, 1 << 20, &e), 0);
    assert_null(g);
    hidden_states_free(h);
    char path[200];
    snprintf(path, sizeof path, "%s/%.32s.states", folder, key);
    unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(scores_come_back_to_the_bit_or_not_at_all),
        cmocka_unit_test(keys_tell_everything_apart),
        cmocka_unit_test(states_come_back_from_memory_or_a_file),
    };
    if (!mkdtemp(folder))
        return 1;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    rmdir(folder);
    return failed;
}
