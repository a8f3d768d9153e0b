/* kern_select.c - which kernel tables this CPU can run.
 *
 * Asked of the CPU each time (a few flag reads, at most once per tensor), so there is no state to guard. All
 * levels give the same bytes: choosing one is a matter of speed only. */
#include "kern_tables.h"

#include <stdbool.h>
#include <string.h>

struct level {
    const struct kern *kern;
    bool (*supported)(void);
};

static bool always(void)
{
    return true;
}

#if defined(__x86_64__)
#include <cpuid.h>

/* clang 14 does not know this name in __builtin_cpu_supports. */
static bool has_f16c(void)
{
    unsigned a, b, c, d;
    return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C) != 0;
}

static bool has_avx2(void)
{
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c() &&
           __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2");
}

static bool has_avx512(void)
{
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}

/* Best first. SSE2 is part of the architecture. */
static const struct level levels[] = {
    {&kern_avx512, has_avx512}, {&kern_avx2, has_avx2}, {&kern_sse2, always}, {&kern_ref, always}};

#elif defined(__aarch64__)

/* Advanced SIMD is part of the architecture; there is nothing to ask. */
static const struct level levels[] = {{&kern_neon, always}, {&kern_ref, always}};

#else

static const struct level levels[] = {{&kern_ref, always}};

#endif

enum { N_LEVELS = sizeof levels / sizeof levels[0] };

const struct kern *kern_native(void)
{
    size_t i = 0;
    while (!levels[i].supported()) /* the last one always is */
        i++;
    return levels[i].kern;
}

const struct kern *kern_by_name(const char *isa)
{
    if (strcmp(isa, "native") == 0)
        return kern_native();
    for (size_t i = 0; i < N_LEVELS; i++) {
        if (strcmp(isa, levels[i].kern->isa) == 0)
            return levels[i].supported() ? levels[i].kern : NULL;
    }
    return NULL;
}

/* A level that is supported implies those below it, so the names are a tail of one constant list. */
const char *const *kern_names(void)
{
#if defined(__x86_64__)
    static const char *const names[] = {"avx512", "avx2", "sse2", "ref", NULL};
#elif defined(__aarch64__)
    static const char *const names[] = {"neon", "ref", NULL};
#else
    static const char *const names[] = {"ref", NULL};
#endif
    size_t i = 0;
    while (!levels[i].supported())
        i++;
    return names + i;
}
