/* clock.h - the time that passes, for rates and pauses; never for results. */
#ifndef KERF_CLOCK_H
#define KERF_CLOCK_H

#include <time.h>

static inline double clock_read(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Seconds since some moment; never set back. */
static inline double clock_seconds(void)
{
    return clock_read(CLOCK_MONOTONIC);
}

#endif
