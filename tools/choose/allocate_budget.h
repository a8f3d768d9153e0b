/* allocate_budget.h - what allocate and best are asked to keep within: the size of a file, bits per weight,
 * or a device. */
#ifndef KERF_ALLOCATE_BUDGET_H
#define KERF_ALLOCATE_BUDGET_H

#include "tools/cmd.h"

#include "calib/solve/allocate.h"
#include "formats/model/kv_type.h"

struct budget_options {
    uint64_t target_size, memory, ctx; /* memory and ctx: 0 when not given */
    double target_bpw;
    const char *kv_type;
};

/* Rows of the option table. */
#define BUDGET_OPTIONS(b)                                                                                    \
    OPT_GROUP("Budget, one of:"),                                                                            \
        OPT(SIZE, "target-size", &(b).target_size, "SIZE",                                                   \
            "the whole output file, metadata and padding included, has at most this size"),                  \
        OPT(REAL, "target-bpw", &(b).target_bpw, "B", "bits per weight, over all tensors"),                  \
        OPT(SIZE, "memory", &(b).memory, "SIZE",                                                             \
            "together with --ctx the third kind of budget: the memory of the device that is to hold "        \
            "weights, cache and working space (see kerf fit). With --target-size or --target-bpw: bound on " \
            "working memory of this run",                                                                    \
            .fallback = "1GiB for this run", .range = OPT_RANGE(.min = 1)),                                  \
        OPT(UINT, "ctx", &(b).ctx, "N",                                                                      \
            "together with --memory: tokens of context that the device has room for; the text is then "      \
            "measured in windows of 512 tokens. With --target-size or --target-bpw: tokens per window",      \
            .fallback = "windows of 512", .range = OPT_RANGE(.min = 2, .max = 1 << 24)),                     \
        OPT(TEXT, "kv-type", &(b).kv_type, "K[,V]",                                                          \
            "types of keys and values in the device's cache: " KV_CACHE_TYPES, .fallback = "f16")

/* The target is a device: --memory and --ctx describe it. */
bool budget_is_device(const struct budget_options *b);

/* 0, or the status of a usage error. */
int budget_check(const struct opt_command *cmd, const struct budget_options *b);

/* Where memory and ctx are not a device's, they are the run's. */
void budget_take_shared(const struct budget_options *b, uint64_t *text_ctx, struct shared_options *shared);

/* Bytes of the file. ERR_ARG: a device that holds nothing beside its cache. */
int budget_bytes(uint64_t *out, const struct budget_options *b, const struct allocator *a,
                 const struct shared_options *shared, struct err *e);

#endif
