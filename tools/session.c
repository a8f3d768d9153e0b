/* session.c - threads, kernels, clocks: what the shared options mean for a run. */
#include "cmd.h"

#include "libquant/base/pool.h"
#include "libquant/kern/kern.h"

#include <malloc.h>
#include <stdio.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

int session_open(struct session *s, const struct shared_options *o, struct err *e)
{
    *s = (struct session){0};
    if (o->threads > 1024)
        return err_set(e, ERR_ARG, "--threads %llu: expected at most 1024", (unsigned long long)o->threads);
    s->kern = o->isa ? kern_by_name(o->isa) : kern_native();
    if (!s->kern) {
        char known[200] = "";
        size_t n = 0;
        for (const char *const *k = kern_names(); *k && n < sizeof known; k++)
            n += (size_t)snprintf(known + n, sizeof known - n, "%s%s", n ? ", " : "", *k);
        return err_set(e, ERR_ARG, "--isa %s: unknown, or not supported by this CPU; it has %s", o->isa,
                       known);
    }
    return pool_new(&s->pool, (unsigned)o->threads, e);
}

void session_close(struct session *s)
{
    if (!s)
        return;
    pool_free(s->pool);
    *s = (struct session){0};
}

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

uint64_t session_memory_left(uint64_t bound_bytes)
{
    unsigned long long resident = 0, shared = 0;
#ifdef __GLIBC__
    malloc_trim(0); /* reading a vocabulary leaves a large free heap behind */
#endif
    FILE *f = fopen("/proc/self/statm", "r");
    if (f) {
        if (fscanf(f, "%*u %llu %llu", &resident, &shared) != 2)
            resident = shared = 0;
        fclose(f);
    }
    uint64_t used = resident > shared ? (resident - shared) * (uint64_t)sysconf(_SC_PAGESIZE) : 0;
    return used < bound_bytes - bound_bytes / 4 ? bound_bytes - used : bound_bytes / 4;
}
