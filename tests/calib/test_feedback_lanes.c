/* test_feedback_lanes.c - the vectors of the solver of error feedback, as the plain instruction set has them.
 */
#include "calib/feedback/feedback_rows.h"
#include "libquant/half.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

feedback_rows_fn feedback_rows_test;
#define ROWS_FN feedback_rows_test
#include "calib/feedback/lanes_feedback.h"

static void rounds_as(float x, float expected)
{
    const vf got = round_half(x - (vf){0}); /* splat adds to 0, which loses the sign of -0 */
    for (unsigned i = 0; i < FEEDBACK_LANES; i++)
        if (f32_bits(got[i]) != f32_bits(expected))
            fail_msg("%a becomes %a, expected %a", (double)x, (double)got[i], (double)expected);
}

/* Every float16, the middle to the next one, and the floats beside both; of both signs. */
static void rounding_to_float16_is_that_of_the_block_formats(void **state)
{
    (void)state;
    for (uint32_t h = 0; h < 0x7c00; h++) {
        const float value = f16_to_f32((uint16_t)h),
                    step = h < 0x400 ? 0x1p-24f : ldexpf(1, (int)(h >> 10) - 25);
        const float near[] = {value, value + step / 2};
        for (int i = 0; i < 2; i++)
            for (int by = -1; by <= 1; by++) {
                const float x = by == 0 ? near[i] : nextafterf(near[i], by * INFINITY);
                const float kept = x > 65504.0f ? 65504.0f : x; /* huge values stay finite */
                rounds_as(x, f16_round(kept));
                rounds_as(-x, f16_round(-kept));
            }
    }
    rounds_as(INFINITY, 65504.0f);
    rounds_as(-INFINITY, -65504.0f);
}

/* Codes of levels: the nearest one, the lower of two that are equally near. */
static void the_nearest_level_is_found(void **state)
{
    (void)state;
    const struct feedback_format *f = feedback_format(QTYPE_IQ4_XS);
    for (float x = -130; x <= 130; x += 0.25f) {
        float best = f->levels[0];
        for (unsigned i = 1; i < f->n_levels; i++)
            if (fabsf(x - f->levels[i]) < fabsf(x - best))
                best = f->levels[i];
        const vf got = nearest(f, splat(x));
        for (unsigned i = 0; i < FEEDBACK_LANES; i++)
            assert_true(got[i] == best);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rounding_to_float16_is_that_of_the_block_formats),
        cmocka_unit_test(the_nearest_level_is_found),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
