/* session.c - threads, kernels, clocks: what the shared options mean for a run. */
#include "cmd.h"

#include <sys/resource.h>
#include <time.h>

double session_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

uint64_t session_peak_rss(void)
{
    struct rusage r;
    if (getrusage(RUSAGE_SELF, &r) != 0 || r.ru_maxrss < 0)
        return 0;
    return (uint64_t)r.ru_maxrss * 1024;
}
