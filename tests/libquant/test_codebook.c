/* test_codebook.c - the lists of codebook.h by their definition: every point of every book, every entry. */
#include "libquant/codebook.h"
#include "libquant/iquants_grid.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

static const struct {
    int tuple, levels, n_entries, n_distances;
} defined[N_CODEBOOKS] = {
    [CODEBOOK_IQ2_XXS] = {8, 3, 256, 2}, [CODEBOOK_IQ2_XS] = {8, 3, 512, 2},
    [CODEBOOK_IQ2_S] = {8, 3, 1024, 1},  [CODEBOOK_IQ3_XXS] = {4, 8, 256, 2},
    [CODEBOOK_IQ3_S] = {4, 8, 512, 3},   [CODEBOOK_IQ1] = {8, 3, 2048, 3},
};

/* The code of a weight from the magnitude in the file. */
static int code_of(enum codebook_id id, unsigned entry, int i)
{
    switch (id) {
    case CODEBOOK_IQ2_XXS: return (int)(iq2xxs_grid[entry] >> 8 * i & 255) / 16;
    case CODEBOOK_IQ2_XS: return (int)(iq2xs_grid[entry] >> 8 * i & 255) / 16;
    case CODEBOOK_IQ2_S: return (int)(iq2s_grid[entry] >> 8 * i & 255) / 16;
    case CODEBOOK_IQ3_XXS: return (int)(iq3xxs_grid[entry] >> 8 * i & 255) / 8;
    case CODEBOOK_IQ3_S: return (int)(iq3s_grid[entry] >> 8 * i & 255) / 2;
    default: return (int)(int8_t)(iq1s_grid[entry] >> 8 * i & 255) + 1;
    }
}

static void codes_are_those_of_the_file_format(void **state)
{
    (void)state;
    for (int id = 0; id < N_CODEBOOKS; id++) {
        const struct codebook *b = codebook_get((enum codebook_id)id);
        assert_int_equal(b->tuple, defined[id].tuple);
        assert_int_equal(b->levels, defined[id].levels);
        assert_int_equal(b->n_entries, defined[id].n_entries);
        for (unsigned e = 0; e < (unsigned)b->n_entries; e++) {
            uint8_t codes[8];
            for (int i = 0; i < b->tuple; i++) {
                codes[i] = (uint8_t)codebook_code(b, e, i);
                assert_int_equal(codes[i], code_of((enum codebook_id)id, e, i));
                assert_true(codes[i] < b->levels);
            }
            assert_int_equal(b->place[codebook_key(b, codes)], e);
        }
    }
}

struct key {
    int distance;
    unsigned entry;
};

static int by_distance(const void *a, const void *b)
{
    const struct key *x = a, *y = b;
    return x->distance != y->distance ? (x->distance > y->distance) - (x->distance < y->distance)
                                      : (x->entry > y->entry) - (x->entry < y->entry);
}

/* The whole order by distance, then by number, cut after the last distance that counts. */
static void check_list(const struct codebook *b, int n_distances, unsigned point, const uint16_t *list)
{
    static struct key keys[2048];
    int digit[8], n_seen = 1;
    for (int i = 0; i < b->tuple; i++, point /= (unsigned)b->levels)
        digit[i] = (int)(point % (unsigned)b->levels);
    for (unsigned e = 0; e < (unsigned)b->n_entries; e++) {
        keys[e] = (struct key){0, e};
        for (int i = 0; i < b->tuple; i++) {
            const int d = (int)codebook_code(b, e, i) - digit[i];
            keys[e].distance += d * d;
        }
    }
    qsort(keys, (size_t)b->n_entries, sizeof *keys, by_distance);
    unsigned n = 0;
    while (n < (unsigned)b->n_entries) {
        n_seen += n > 0 && keys[n].distance != keys[n - 1].distance;
        if (n_seen > n_distances)
            break;
        assert_true(n < list[0]);
        assert_int_equal(list[1 + n], keys[n].entry);
        n++;
    }
    assert_int_equal(list[0], n);
}

static void lists_hold_the_nearest_entries_in_order(void **state)
{
    (void)state;
    for (int id = 0; id < N_CODEBOOKS; id++) {
        const struct codebook *b = codebook_get((enum codebook_id)id);
        const unsigned n_points = b->levels == 3 ? 6561 : 4096;
        for (unsigned point = 0; point<n_points; point += b->n_entries> 600 ? 37 : 11) {
            if (b->place[point] < 0)
                check_list(b, defined[id].n_distances, point, b->list + (-1 - b->place[point]));
        }
    }
}

/* Where a kernel finds what an entry costs. */
static void steps_lead_to_the_terms_of_an_entry(void **state)
{
    (void)state;
    for (int id = 0; id < N_CODEBOOKS; id++) {
        const struct codebook *b = codebook_get((enum codebook_id)id);
        for (unsigned e = 0; e < (unsigned)b->n_entries; e++) {
            unsigned c[8];
            for (int i = 0; i < b->tuple; i++)
                c[i] = codebook_code(b, e, i);
            if (b->tuple == 8)
                assert_int_equal(b->step[e][0], 8 * (c[0] + 3 * c[1] + 9 * c[2]));
            for (unsigned i = 3; b->tuple == 8 && i < 8; i++)
                assert_int_equal(b->step[e][i - 2], 8 * (3 * (i - 3) + c[i]));
            for (unsigned i = 0; b->tuple == 4 && i < 4; i++)
                assert_int_equal(b->step[e][i], 8 * (8 * i + c[i]));
        }
    }
}

static void *get_all(void *sum)
{
    for (int id = N_CODEBOOKS; id-- > 0;) {
        const struct codebook *b = codebook_get((enum codebook_id)id);
        for (unsigned point = 0; point < 4096; point++)
            *(uint64_t *)sum = *(uint64_t *)sum * 31 + (uint32_t)b->place[point];
    }
    return NULL;
}

/* Comes first, so that the threads meet books that no one has opened. */
static void threads_may_open_the_books_together(void **state)
{
    (void)state;
    enum { N = 8 };
    pthread_t thread[N];
    uint64_t sum[N] = {0};
    for (int i = 0; i < N; i++)
        assert_int_equal(pthread_create(&thread[i], NULL, get_all, &sum[i]), 0);
    for (int i = 0; i < N; i++)
        assert_int_equal(pthread_join(thread[i], NULL), 0);
    for (int i = 1; i < N; i++)
        assert_true(sum[i] == sum[0]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(threads_may_open_the_books_together),
        cmocka_unit_test(codes_are_those_of_the_file_format),
        cmocka_unit_test(lists_hold_the_nearest_entries_in_order),
        cmocka_unit_test(steps_lead_to_the_terms_of_an_entry),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
