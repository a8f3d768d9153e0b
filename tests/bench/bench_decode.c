/* bench_decode.c - speed of all decoders on one core: gigabytes of float32 written per second, by type and
 * level.
 *
 *     bench_decode [TYPE]      only types whose name contains TYPE
 *
 * Blocks are random bytes with finite scales, so the types that have no encoder are here too. The levels take
 * turns on the same rows, which stay in the second-level cache; the best of five turns counts. */
#include "libquant/quant.h"

#include "libquant/base/clock.h"
#include "libquant/base/rng.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { N_ELEMS = 32 * 1024, MAX_LEVELS = 8, TURNS = 5 };
static const double seconds_per_turn = 0.01;

/* Random blocks that pass quant_validate: a refused one is drawn again. */
static void fill(enum qtype type, uint8_t *blocks, size_t n_bytes)
{
    struct rng r = {(uint64_t)type};
    const size_t step = qtype_info((uint32_t)type)->block_bytes;
    for (size_t at = 0; at < n_bytes; at += step)
        do
            for (size_t i = 0; i < step; i++)
                blocks[at + i] = (uint8_t)rng_u64(&r);
        while (quant_validate(type, blocks + at, step, NULL, NULL) != 0);
}

static double turn(const struct kern *k, enum qtype type, const uint8_t *blocks, size_t n_bytes, float *x)
{
    const double start = clock_seconds();
    double seconds;
    size_t passes = 0;
    do {
        struct err e;
        if (quant_decode_rows(k, type, blocks, n_bytes, x, 1, N_ELEMS, &e) != 0) {
            fprintf(stderr, "%s\n", e.msg);
            exit(1);
        }
        passes++;
        seconds = clock_seconds() - start;
    } while (seconds < seconds_per_turn);
    return 4e-9 * (double)(passes * N_ELEMS) / seconds;
}

int main(int argc, char **argv)
{
    static uint8_t blocks[N_ELEMS * 8];
    static float x[N_ELEMS];
    const char *const *levels = kern_names();
    printf("%-8s", "GB/s");
    for (size_t l = 0; levels[l] != NULL; l++)
        printf(" %8s", levels[l]);
    printf("\n");
    for (uint32_t type = 0; type < QTYPE_COUNT; type++) {
        const struct qtype_info *info = qtype_info(type);
        uint64_t n_bytes;
        if (info == NULL || !info->can_decode || (argc > 1 && strstr(info->name, argv[1]) == NULL) ||
            !qtype_row_bytes(type, N_ELEMS, &n_bytes))
            continue;
        fill((enum qtype)type, blocks, n_bytes);
        double best[MAX_LEVELS] = {0};
        for (int t = 0; t < TURNS; t++) {
            for (size_t l = 0; levels[l] != NULL && l < MAX_LEVELS; l++) {
                const double speed = turn(kern_by_name(levels[l]), (enum qtype)type, blocks, n_bytes, x);
                best[l] = speed > best[l] ? speed : best[l];
            }
        }
        printf("%-8s", info->name);
        for (size_t l = 0; levels[l] != NULL && l < MAX_LEVELS; l++)
            printf(" %8.2f", best[l]);
        printf("\n");
    }
    return 0;
}
