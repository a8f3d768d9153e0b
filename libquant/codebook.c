/* codebook.c - computes the lists of codebook.h from the code books of the file format. */
#include "codebook.h"

#include "iquants_grid.h"

#include <assert.h>
#include <pthread.h>
#include <stddef.h>
#include <string.h>

enum {
    POINTS_3_8 = 6561,
    POINTS_8_4 = 4096,
    MAX_ENTRIES = 2048,
    MAX_LEVELS = 8,
    MAX_DISTANCES = 3,
    MAX_LIST = 512
};

/* What a book is made of. `room` numbers hold its lists: a length and the entries for each point that is
 * none. */
struct source {
    int tuple, levels, n_entries;
    int n_distances;
    size_t room;
    struct codebook_point *point;
    uint16_t *list;
    uint32_t *code;
    uint8_t (*code_of)(unsigned entry, int i); /* the code of weight i of an entry, from its magnitude */
};

static uint8_t iq2_code(uint64_t entry, int i) /* magnitudes 8, 25, 43 */
{
    return (uint8_t)((entry >> 8 * i & 0xff) / 17);
}

static uint8_t iq2_xxs_code(unsigned entry, int i)
{
    return iq2_code(iq2xxs_grid[entry], i);
}
static uint8_t iq2_xs_code(unsigned entry, int i)
{
    return iq2_code(iq2xs_grid[entry], i);
}
static uint8_t iq2_s_code(unsigned entry, int i)
{
    return iq2_code(iq2s_grid[entry], i);
}
static uint8_t iq3_xxs_code(unsigned entry, int i) /* 4, 12, 20 ... 52, 62 */
{
    return (uint8_t)((iq3xxs_grid[entry] >> 8 * i & 0xff) / 8);
}
static uint8_t iq3_s_code(unsigned entry, int i) /* 1, 3 ... 15 */
{
    return (uint8_t)((iq3s_grid[entry] >> 8 * i & 0xff) / 2);
}
static uint8_t iq1_code(unsigned entry, int i) /* -1, 0, 1 */
{
    return (uint8_t)((iq1s_grid[entry] >> 8 * i & 0xff) + 1);
}

/* Sizes follow from the books, which never change; build_lists holds them to it. */
#define BOOK_MEMORY(NAME, POINTS, ENTRIES, ROOM)                                                             \
    enum { NAME##_room = ROOM, NAME##_entries = ENTRIES };                                                   \
    static struct codebook_point NAME##_point[POINTS];                                                       \
    static uint16_t NAME##_list[ROOM + CODEBOOK_LIST_PADDING];                                               \
    static uint32_t NAME##_code_table[ENTRIES]

BOOK_MEMORY(iq2_xxs, POINTS_3_8, 256, 6305 + 113157);
BOOK_MEMORY(iq2_xs, POINTS_3_8, 512, 6049 + 181721);
BOOK_MEMORY(iq2_s, POINTS_3_8, 1024, 5537 + 44716);
BOOK_MEMORY(iq3_xxs, POINTS_8_4, 256, 3840 + 18985);
BOOK_MEMORY(iq3_s, POINTS_8_4, 512, 3584 + 24733);
BOOK_MEMORY(iq1, POINTS_3_8, 2048, 4513 + 327721);

#define SOURCE(NAME, TUPLE, LEVELS, DISTANCES)                                                               \
    {                                                                                                        \
        TUPLE, LEVELS, NAME##_entries, DISTANCES, NAME##_room, NAME##_point, NAME##_list, NAME##_code_table, \
            NAME##_code                                                                                      \
    }

static const struct source sources[N_CODEBOOKS] = {
    [CODEBOOK_IQ2_XXS] = SOURCE(iq2_xxs, 8, 3, 2), [CODEBOOK_IQ2_XS] = SOURCE(iq2_xs, 8, 3, 2),
    [CODEBOOK_IQ2_S] = SOURCE(iq2_s, 8, 3, 1),     [CODEBOOK_IQ3_XXS] = SOURCE(iq3_xxs, 4, 8, 2),
    [CODEBOOK_IQ3_S] = SOURCE(iq3_s, 4, 8, 3),     [CODEBOOK_IQ1] = SOURCE(iq1, 8, 3, 3),
};

#define BOOK(NAME, TUPLE, LEVELS)                                                                            \
    {                                                                                                        \
        TUPLE, LEVELS, NAME##_entries, NAME##_point, NAME##_list, NAME##_code_table                          \
    }

static const struct codebook books[N_CODEBOOKS] = {
    [CODEBOOK_IQ2_XXS] = BOOK(iq2_xxs, 8, 3), [CODEBOOK_IQ2_XS] = BOOK(iq2_xs, 8, 3),
    [CODEBOOK_IQ2_S] = BOOK(iq2_s, 8, 3),     [CODEBOOK_IQ3_XXS] = BOOK(iq3_xxs, 4, 8),
    [CODEBOOK_IQ3_S] = BOOK(iq3_s, 4, 8),     [CODEBOOK_IQ1] = BOOK(iq1, 8, 3),
};

/* Squared distance in code i between entry e and a point whose code is c: [i][c][e]. The distance of two
 * tuples is a sum of a row for each i, at most 8 * 4 or 4 * 49, which fits a byte. */
struct planes {
    uint8_t square[CODEBOOK_MAX_TUPLE][MAX_LEVELS][MAX_ENTRIES];
};

static void fill_planes(struct planes *p, const struct source *s)
{
    for (int i = 0; i < s->tuple; i++) {
        for (int c = 0; c < s->levels; c++) {
            for (int e = 0; e < s->n_entries; e++) {
                const int difference = s->code_of((unsigned)e, i) - c;
                p->square[i][c][e] = (uint8_t)(difference * difference);
            }
        }
    }
}

/* Distances of all entries from a point, and the smallest of them. */
static unsigned measure(uint8_t *distance, const struct planes *p, const struct source *s, unsigned key)
{
    const int n = s->n_entries;
    memset(distance, 0, (size_t)n);
    for (int i = 0; i < s->tuple; i++) {
        const uint8_t *square = p->square[i][key % (unsigned)s->levels];
        key /= (unsigned)s->levels;
        for (int e = 0; e < n; e++)
            distance[e] = (uint8_t)(distance[e] + square[e]);
    }
    uint8_t smallest = UINT8_MAX;
    for (int e = 0; e < n; e++)
        smallest = distance[e] < smallest ? distance[e] : smallest;
    return smallest;
}

/* The smallest distance above `last`; UINT8_MAX when there is none. */
static unsigned next_distance(const uint8_t *distance, int n, unsigned last)
{
    uint8_t next = UINT8_MAX;
    for (int e = 0; e < n; e++)
        next = distance[e] > last && distance[e] < next ? distance[e] : next;
    return next;
}

/* The list of one point to `out`, its length in front; returns the numbers written. */
static size_t put_list(uint16_t *out, const uint8_t *distance, const struct source *s, unsigned nearest)
{
    uint16_t ring[MAX_DISTANCES][MAX_LIST];
    unsigned length[MAX_DISTANCES] = {0}, bound[MAX_DISTANCES];
    bound[0] = nearest;
    for (int r = 1; r < s->n_distances; r++)
        bound[r] = next_distance(distance, s->n_entries, bound[r - 1]);
    const unsigned last = bound[s->n_distances - 1];
    for (int e = 0; e < s->n_entries; e++) {
        if (distance[e] > last)
            continue;
        int r = 0;
        while (distance[e] > bound[r])
            r++;
        assert(length[r] < MAX_LIST);
        ring[r][length[r]++] = (uint16_t)e;
    }
    size_t n = 1;
    for (int r = 0; r < s->n_distances; r++) {
        memcpy(out + n, ring[r], length[r] * sizeof *out);
        n += length[r];
    }
    out[0] = (uint16_t)(n - 1);
    return n;
}

static uint32_t levels_of_list(const struct source *s, const uint16_t *list)
{
    uint32_t levels = 0;
    for (unsigned j = 1; j <= list[0]; j++) {
        for (int i = 0; i < s->tuple; i++)
            levels |= (uint32_t)1 << (i * s->levels + (int)(s->code[list[j]] >> 4 * i & 7));
    }
    return levels;
}

static void build_codes(const struct source *s)
{
    for (int e = 0; e < s->n_entries; e++) {
        uint32_t code = 0;
        for (int i = 0; i < s->tuple; i++)
            code |= (uint32_t)s->code_of((unsigned)e, i) << 4 * i;
        s->code[e] = code;
    }
}

static void build_lists(const struct source *s)
{
    struct planes planes;
    uint8_t distance[MAX_ENTRIES];
    unsigned n_points = 1;
    size_t used = 0;
    for (int i = 0; i < s->tuple; i++)
        n_points *= (unsigned)s->levels;
    fill_planes(&planes, s);
    for (unsigned key = 0; key < n_points; key++) {
        const unsigned nearest = measure(distance, &planes, s, key);
        struct codebook_point *p = &s->point[key];
        if (nearest == 0) {
            const uint8_t *entry = memchr(distance, 0, (size_t)s->n_entries);
            assert(entry != NULL);
            p->place = (int32_t)(entry - distance);
            continue;
        }
        p->place = -1 - (int32_t)used;
        const size_t n = put_list(s->list + used, distance, s, nearest);
        p->levels = levels_of_list(s, s->list + used);
        used += n;
        assert(used <= s->room);
    }
    assert(used == s->room);
}

static void build(enum codebook_id id)
{
    build_codes(&sources[id]);
    build_lists(&sources[id]);
}

/* pthread_once hands over no argument. */
static void build_iq2_xxs(void)
{
    build(CODEBOOK_IQ2_XXS);
}
static void build_iq2_xs(void)
{
    build(CODEBOOK_IQ2_XS);
}
static void build_iq2_s(void)
{
    build(CODEBOOK_IQ2_S);
}
static void build_iq3_xxs(void)
{
    build(CODEBOOK_IQ3_XXS);
}
static void build_iq3_s(void)
{
    build(CODEBOOK_IQ3_S);
}
static void build_iq1(void)
{
    build(CODEBOOK_IQ1);
}

const struct codebook *codebook_get(enum codebook_id id)
{
    static pthread_once_t once[N_CODEBOOKS] = {PTHREAD_ONCE_INIT, PTHREAD_ONCE_INIT, PTHREAD_ONCE_INIT,
                                               PTHREAD_ONCE_INIT, PTHREAD_ONCE_INIT, PTHREAD_ONCE_INIT};
    static void (*const builders[N_CODEBOOKS])(void) = {
        [CODEBOOK_IQ2_XXS] = build_iq2_xxs, [CODEBOOK_IQ2_XS] = build_iq2_xs, [CODEBOOK_IQ2_S] = build_iq2_s,
        [CODEBOOK_IQ3_XXS] = build_iq3_xxs, [CODEBOOK_IQ3_S] = build_iq3_s,   [CODEBOOK_IQ1] = build_iq1,
    };
    pthread_once(&once[id], builders[id]);
    return &books[id];
}
