/* bench_encode.c - speed of encoders and decoders: million weights per second on one core, by type and level.
 *
 *     bench_encode [encode|decode] [TYPE]      only types whose name contains TYPE
 *
 * The levels take turns on the same 16 rows of 4096 and the best of five turns counts, so that a busy machine
 * disturbs all alike. What was measured and tried: NOTES.md. */
#include "libquant/quant.h"
#include "libquant/base/clock.h"

#include "hard_rows.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { N_COLS = 4096, N_ROWS = 16, MAX_LEVELS = 8, TURNS = 5 };
static const double seconds_per_turn = 0.02;

static float x[N_COLS * N_ROWS], importance[N_COLS];
static unsigned char blocks[N_COLS * N_ROWS * 8];

struct job {
    enum qtype type;
    bool decode;
    const float *weights; /* importance of the encoder, or NULL */
};

/* CPU time of this thread, so that other programs disturb little. */
static double now(void)
{
    return clock_read(CLOCK_THREAD_CPUTIME_ID);
}

static void one_pass(const struct kern *k, const struct job *job)
{
    static float decoded[N_COLS * N_ROWS];
    uint64_t row_bytes;
    struct err e;
    int rc = -1;
    if (qtype_row_bytes((uint32_t)job->type, N_COLS, &row_bytes)) {
        if (job->decode)
            rc = quant_decode_rows(k, job->type, blocks, row_bytes * N_ROWS, decoded, N_ROWS, N_COLS, &e);
        else
            rc = quant_encode_rows(k, job->type, x, blocks, row_bytes * N_ROWS, N_ROWS, N_COLS, job->weights,
                                   &e);
    }
    if (rc != 0) {
        fprintf(stderr, "%s\n", e.msg);
        exit(1);
    }
}

/* Million weights per second over at least one pass. */
static double speed(const struct kern *k, const struct job *job)
{
    const double start = now();
    double seconds;
    size_t passes = 0;
    do {
        one_pass(k, job);
        passes++;
        seconds = now() - start;
    } while (seconds < seconds_per_turn);
    return (double)(passes * N_COLS * N_ROWS) / seconds / 1e6;
}

static void measure(const struct job *job, const char *const *levels, size_t n_levels)
{
    double best[MAX_LEVELS] = {0};
    for (int turn = 0; turn < TURNS; turn++) {
        for (size_t i = 0; i < n_levels; i++) {
            const double s = speed(kern_by_name(levels[i]), job);
            best[i] = s > best[i] ? s : best[i];
        }
    }
    printf("| %s | %s |", qtype_name((uint32_t)job->type),
           job->decode    ? "decode"
           : job->weights ? "encode, importance"
                          : "encode");
    for (size_t i = 0; i < n_levels; i++)
        printf(" %.1f (%.1fx) |", best[i], best[i] / best[n_levels - 1]);
    printf("\n");
    fflush(stdout);
}

int main(int argc, char **argv)
{
    const char *const *levels = kern_names(); /* the reference comes last */
    size_t n_levels = 0;
    while (levels[n_levels] != NULL && n_levels < MAX_LEVELS)
        n_levels++;
    const bool only_encode = argc > 1 && strcmp(argv[1], "encode") == 0;
    const bool only_decode = argc > 1 && strcmp(argv[1], "decode") == 0;
    const char *pattern = argc > 1 + (only_encode || only_decode) ? argv[argc - 1] : "";
    for (unsigned i = 0; i < N_ROWS; i++)
        hard_row(x + i * N_COLS, N_COLS, i % 4 == 3 ? 1 : 0, i + 1);
    hard_importance(importance, N_COLS, 0, 1);
    printf("| type | work |");
    for (size_t i = 0; i < n_levels; i++)
        printf(" %s |", levels[i]);
    printf("\n|---|---|");
    for (size_t i = 0; i < n_levels; i++)
        printf("---:|");
    printf("\n");
    for (uint32_t type = 0; type < QTYPE_COUNT; type++) {
        const struct qtype_info *info = qtype_info(type);
        if (info == NULL || strstr(info->name, pattern) == NULL)
            continue;
        struct job job = {(enum qtype)type, false, NULL};
        if (info->can_encode && !only_decode) {
            if (info->importance != IMPORTANCE_REQUIRED)
                measure(&job, levels, n_levels);
            job.weights = importance;
            if (info->importance != IMPORTANCE_IGNORED)
                measure(&job, levels, n_levels);
        }
        job = (struct job){(enum qtype)type, true, NULL};
        if (info->can_decode && !only_encode)
            measure(&job, levels, n_levels);
    }
    return 0;
}
