/* test_kern_decode.c - every kernel level against the reference decoder: the same float bits for any block.
 *
 * Blocks of random bytes reach every code, scales that are NaN, infinite, negative and subnormal, and
 * forbidden scale bytes. A NaN counts as equal to any NaN: its sign and payload depend on the order in which
 * a compiler names the factors of a product. */
#include "libquant/base/rng.h"
#include "libquant/half.h"
#include "libquant/quant.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { MAX_COLS = 37 * 256 };

static uint32_t comparable_bits(float v)
{
    return v != v ? 0x7fc00000u : f32_bits(v);
}

static void compare_levels(enum qtype type, const uint8_t *blocks, size_t n_cols)
{
    static float expected[MAX_COLS], found[MAX_COLS];
    kern_by_name("ref")->decode[type](expected, blocks, n_cols);
    for (const char *const *name = kern_names(); *name != NULL; name++) {
        memset(found, 0x55, sizeof found);
        kern_by_name(*name)->decode[type](found, blocks, n_cols);
        for (size_t i = 0; i < n_cols; i++) {
            if (comparable_bits(found[i]) != comparable_bits(expected[i]))
                fail_msg("%s, %s: weight %zu of %zu: %a, reference %a", qtype_name((uint32_t)type), *name, i,
                         n_cols, (double)found[i], (double)expected[i]);
        }
        if (n_cols < MAX_COLS)
            assert_int_equal(f32_bits(found[n_cols]), 0x55555555u);
    }
}

static void all_levels_give_the_floats_of_the_reference(void **state)
{
    (void)state;
    static uint8_t bytes[MAX_COLS * 8 + 1];
    static const size_t n_units[] = {1, 2, 5, 37};
    struct rng r = {2026};
    for (uint32_t type = 0; type < QTYPE_COUNT; type++) {
        const struct qtype_info *info = qtype_info(type);
        if (info == NULL || !info->can_decode)
            continue;
        for (int round = 0; round < 40; round++) {
            for (size_t i = 0; i < sizeof bytes; i++)
                bytes[i] = (uint8_t)rng_u64(&r);
            /* whole blocks, at odd addresses in every second round; plain types also in odd lengths */
            const size_t unit = round % 3 == 2 ? info->block_elems : 256;
            const size_t n_cols = n_units[round / 2 % 4] * unit;
            compare_levels((enum qtype)type, bytes + round % 2, n_cols);
        }
    }
}

/* All 65536 patterns of the 16-bit floats. */
static void every_half_is_widened_exactly(void **state)
{
    (void)state;
    static uint16_t codes[4096];
    for (uint32_t base = 0; base < 65536; base += 4096) {
        for (uint32_t i = 0; i < 4096; i++)
            codes[i] = (uint16_t)(base + i);
        compare_levels(QTYPE_F16, (const uint8_t *)codes, 4096);
        compare_levels(QTYPE_BF16, (const uint8_t *)codes, 4096);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_levels_give_the_floats_of_the_reference),
        cmocka_unit_test(every_half_is_widened_exactly),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
