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
    int32_t *place;
    uint16_t *list;
    uint32_t *code;
    uint8_t (*step)[8];
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
    static int32_t NAME##_place[POINTS];                                                                     \
    static uint16_t NAME##_list[ROOM + CODEBOOK_LIST_PADDING];                                               \
    static uint32_t NAME##_code_table[ENTRIES];                                                              \
    static uint8_t NAME##_step[ENTRIES][8]

BOOK_MEMORY(iq2_xxs, POINTS_3_8, 256, 6305 + 113157);
BOOK_MEMORY(iq2_xs, POINTS_3_8, 512, 6049 + 181721);
BOOK_MEMORY(iq2_s, POINTS_3_8, 1024, 5537 + 44716);
BOOK_MEMORY(iq3_xxs, POINTS_8_4, 256, 3840 + 18985);
BOOK_MEMORY(iq3_s, POINTS_8_4, 512, 3584 + 24733);
BOOK_MEMORY(iq1, POINTS_3_8, 2048, 4513 + 327721);

#define SOURCE(NAME, TUPLE, LEVELS, DISTANCES)                                                               \
    {                                                                                                        \
        TUPLE, LEVELS, NAME##_entries, DISTANCES, NAME##_room, NAME##_place, NAME##_list, NAME##_code_table, \
            NAME##_step, NAME##_code                                                                         \
    }

static const struct source sources[N_CODEBOOKS] = {
    [CODEBOOK_IQ2_XXS] = SOURCE(iq2_xxs, 8, 3, 2), [CODEBOOK_IQ2_XS] = SOURCE(iq2_xs, 8, 3, 2),
    [CODEBOOK_IQ2_S] = SOURCE(iq2_s, 8, 3, 1),     [CODEBOOK_IQ3_XXS] = SOURCE(iq3_xxs, 4, 8, 2),
    [CODEBOOK_IQ3_S] = SOURCE(iq3_s, 4, 8, 3),     [CODEBOOK_IQ1] = SOURCE(iq1, 8, 3, 3),
};

#define BOOK(NAME, TUPLE, LEVELS)                                                                            \
    {                                                                                                        \
        TUPLE, LEVELS, NAME##_entries, NAME##_place, NAME##_list, NAME##_code_table, NAME##_step             \
    }

static const struct codebook books[N_CODEBOOKS] = {
    [CODEBOOK_IQ2_XXS] = BOOK(iq2_xxs, 8, 3), [CODEBOOK_IQ2_XS] = BOOK(iq2_xs, 8, 3),
    [CODEBOOK_IQ2_S] = BOOK(iq2_s, 8, 3),     [CODEBOOK_IQ3_XXS] = BOOK(iq3_xxs, 4, 8),
    [CODEBOOK_IQ3_S] = BOOK(iq3_s, 4, 8),     [CODEBOOK_IQ1] = BOOK(iq1, 8, 3),
};

/* Squared distance in code i between entry e and a point whose code is c: [i][c][e]. The distance of two
 * tuples is a sum of a row for each i, at most 8 * 4 or 4 * 49, which fits a byte: eight entries are added up
 * in one word. */
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

/* Distances of all entries from a point, and a bit for each distance that occurs. */
static void measure(uint8_t *distance, uint64_t occurs[4], const struct planes *p, const struct source *s,
                    unsigned key)
{
    const uint8_t *square[CODEBOOK_MAX_TUPLE];
    for (int i = 0; i < s->tuple; i++, key /= (unsigned)s->levels)
        square[i] = p->square[i][key % (unsigned)s->levels];
    memset(occurs, 0, 4 * sizeof *occurs);
    for (int e = 0; e < s->n_entries; e += 8) {
        uint64_t sum = 0;
        for (int i = 0; i < s->tuple; i++) {
            uint64_t eight;
            memcpy(&eight, square[i] + e, sizeof eight);
            sum += eight;
        }
        memcpy(distance + e, &sum, sizeof sum);
        for (int j = 0; j < 8; j++, sum >>= 8)
            occurs[sum >> 6 & 3] |= (uint64_t)1 << (sum & 63);
    }
}

/* The smallest distance that occurs and is at least `from`; UINT8_MAX when there is none. */
static unsigned next_distance(const uint64_t occurs[4], unsigned from)
{
    while (from < UINT8_MAX && (occurs[from / 64] >> from % 64 & 1) == 0)
        from++;
    return from;
}

/* The list of one point to `out`, its length in front; returns the numbers written. */
static size_t put_list(uint16_t *out, const uint8_t *distance, const uint64_t occurs[4],
                       const struct source *s)
{
    uint16_t ring[MAX_DISTANCES][MAX_LIST];
    unsigned length[MAX_DISTANCES] = {0}, bound[MAX_DISTANCES] = {0};
    for (int r = 0; r < s->n_distances; r++)
        bound[r] = next_distance(occurs, r == 0 ? 0 : bound[r - 1] + 1);
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

static void build_steps(uint8_t step[8], const struct source *s, unsigned entry)
{
    if (s->tuple == 4) {
        for (int i = 0; i < 4; i++)
            step[i] = (uint8_t)(8 * (8 * i + s->code_of(entry, i)));
        return;
    }
    step[0] = (uint8_t)(8 * (s->code_of(entry, 0) + 3 * s->code_of(entry, 1) + 9 * s->code_of(entry, 2)));
    for (int i = 3; i < 8; i++)
        step[i - 2] = (uint8_t)(8 * (3 * (i - 3) + s->code_of(entry, i)));
}

static void build_codes(const struct source *s)
{
    for (unsigned e = 0; e < (unsigned)s->n_entries; e++) {
        uint32_t code = 0;
        for (int i = 0; i < s->tuple; i++)
            code |= (uint32_t)s->code_of(e, i) << 4 * i;
        s->code[e] = code;
        build_steps(s->step[e], s, e);
    }
}

static void build_lists(const struct source *s)
{
    struct planes planes;
    uint8_t distance[MAX_ENTRIES];
    uint64_t occurs[4];
    unsigned n_points = 1;
    size_t used = 0;
    for (int i = 0; i < s->tuple; i++)
        n_points *= (unsigned)s->levels;
    fill_planes(&planes, s);
    for (unsigned key = 0; key < n_points; key++) {
        int32_t *place = &s->place[key];
        measure(distance, occurs, &planes, s, key);
        if (occurs[0] & 1) {
            const uint8_t *entry = memchr(distance, 0, (size_t)s->n_entries);
            assert(entry != NULL);
            *place = (int32_t)(entry - distance);
            continue;
        }
        *place = -1 - (int32_t)used;
        const size_t n = put_list(s->list + used, distance, occurs, s);
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
