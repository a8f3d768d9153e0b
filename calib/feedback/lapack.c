/* lapack.c - see lapack.h. The only file that knows OpenBLAS. */
#include "lapack.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

/* As distributions install it; the last name comes with development files. */
static const char *const names[] = {"libopenblas.so.0", "libopenblas.so.3", "libopenblas.so"};

static pthread_once_t once = PTHREAD_ONCE_INIT;
static struct lapack loaded;
static struct err failure;

/* POSIX: a pointer from dlsym may be a function's, though ISO C has no conversion for it. */
static int find(void *library, const char *symbol, void *function, size_t size)
{
    void *found = dlsym(library, symbol);
    if (!found)
        return err_set(&failure, ERR_IO, "OpenBLAS has no function '%s'; install one with LAPACK in it",
                       symbol);
    memcpy(function, &found, size);
    return 0;
}

/* One of the names; or NULL with `failure`. A library that is there and does not load says more than names
 * that are not there. */
static void *open_any(void)
{
    static const char absent[] = "No such file";
    char reason[300] = "";
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        void *library = dlopen(names[i], RTLD_NOW | RTLD_LOCAL);
        if (library)
            return library;
        const char *why = dlerror();
        if (!why)
            why = "out of memory"; /* even for the reason */
        if (i == 0 || (strstr(reason, absent) && !strstr(why, absent)))
            snprintf(reason, sizeof reason, "%s", why);
    }
    err_set(&failure, ERR_IO,
            "error feedback needs OpenBLAS, which cannot be loaded: %s; install it (Debian: libopenblas0)",
            reason);
    return NULL;
}

static void load(void)
{
    void (*set_num_threads)(int n) = NULL;
    void *library = open_any();
    if (!library)
        return;
    if (find(library, "dpotrf_", &loaded.dpotrf, sizeof loaded.dpotrf) == 0 &&
        find(library, "dtrtri_", &loaded.dtrtri, sizeof loaded.dtrtri) == 0 &&
        find(library, "openblas_set_num_threads", &set_num_threads, sizeof set_num_threads) == 0)
        set_num_threads(1); /* our own pool has the threads */
}

int lapack_load(const struct lapack **out, struct err *e)
{
    pthread_once(&once, load);
    if (failure.code != ERR_OK)
        return err_set(e, failure.code, "%s", failure.msg);
    *out = &loaded;
    return 0;
}
