/* test_kern_encode.c - every kernel level against the reference encoder: the same bytes for any row.
 *
 * All encodable types, rows of several lengths (so that lanes stay partly empty), every kind of hard row,
 * every kind of importance and none. */
#include "libquant/quant.h"

#include "hard_rows.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { MAX_COLS = 19 * 256, MAX_BYTES = MAX_COLS * 4, GUARD = 64 };

static float x[MAX_COLS], w[MAX_COLS];

/* Encode into a buffer with guards on both sides; nothing but the row may change. */
static void encode_guarded(uint8_t *buffer, const struct kern *k, enum qtype type, size_t n_bytes,
                           size_t n_cols, const float *importance)
{
    memset(buffer, 0xa5, n_bytes + 2 * GUARD);
    k->encode[type](buffer + GUARD, x, n_cols, importance);
    for (size_t i = 0; i < GUARD; i++) {
        assert_int_equal(buffer[i], 0xa5);
        assert_int_equal(buffer[GUARD + n_bytes + i], 0xa5);
    }
}

static void compare_levels(enum qtype type, size_t n_cols, unsigned kind, int weights)
{
    static uint8_t expected[MAX_BYTES + 2 * GUARD], found[MAX_BYTES + 2 * GUARD];
    const float *importance = weights >= 0 ? w : NULL;
    uint64_t n_bytes;
    assert_true(qtype_row_bytes((uint32_t)type, n_cols, &n_bytes));
    encode_guarded(expected, kern_by_name("ref"), type, n_bytes, n_cols, importance);
    for (const char *const *name = kern_names(); strcmp(*name, "ref") != 0; name++) {
        encode_guarded(found, kern_by_name(*name), type, n_bytes, n_cols, importance);
        if (memcmp(found, expected, n_bytes + 2 * GUARD) != 0)
            fail_msg("%s, %s: row '%s' of %zu, importance %s: bytes differ from the reference",
                     qtype_name((uint32_t)type), *name, hard_row_name(kind), n_cols,
                     weights >= 0 ? hard_importance_name((unsigned)weights) : "none");
    }
}

static void compare_length(enum qtype type, size_t n_cols, uint64_t seed)
{
    for (unsigned kind = 0; kind < N_HARD_ROWS; kind++) {
        hard_row(x, n_cols, kind, seed);
        compare_levels(type, n_cols, kind, -1);
        if (qtype_info((uint32_t)type)->importance == IMPORTANCE_IGNORED)
            continue;
        for (int weights = 0; weights < N_HARD_IMPORTANCE; weights++) {
            hard_importance(w, n_cols, (unsigned)weights, seed);
            compare_levels(type, n_cols, kind, weights);
        }
    }
}

static void all_levels_give_the_bytes_of_the_reference(void **state)
{
    (void)state;
    static const size_t n_units[] = {3, 1, 8, 19}; /* of 256, and of the block where that is smaller */
    for (uint32_t type = 0; type < QTYPE_COUNT; type++) {
        const struct qtype_info *info = qtype_info(type);
        if (info == NULL || !info->can_encode)
            continue;
        /* Code books are searched a super-block at a time, and their reference is slow: one length will do.
         */
        const bool book = info->name[0] == 'I' && info->name[1] == 'Q' && info->name[2] < '4';
        for (size_t u = 0; u < (book ? 1 : sizeof n_units / sizeof n_units[0]); u++) {
            compare_length((enum qtype)type, n_units[u] * 256, 11 + u);
            if (info->block_elems < 256)
                compare_length((enum qtype)type, n_units[u] * info->block_elems, 31 + u);
        }
    }
}

static void tables_are_complete(void **state)
{
    (void)state;
    for (const char *const *name = kern_names(); *name != NULL; name++) {
        const struct kern *k = kern_by_name(*name);
        assert_non_null(k);
        assert_string_equal(k->isa, *name);
        for (uint32_t type = 0; type < QTYPE_COUNT; type++) {
            const struct qtype_info *info = qtype_info(type);
            assert_int_equal(k->encode[type] != NULL, info != NULL && info->can_encode);
            assert_int_equal(k->decode[type] != NULL, info != NULL && info->can_decode);
        }
    }
    assert_ptr_equal(kern_by_name("native"), kern_native());
    assert_ptr_equal(kern_by_name(kern_names()[0]), kern_native());
    assert_null(kern_by_name("no such level"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tables_are_complete),
        cmocka_unit_test(all_levels_give_the_bytes_of_the_reference),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
