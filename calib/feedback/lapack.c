/* lapack.c - see lapack.h. The only file that knows OpenBLAS. */
#include "lapack.h"

#include <dlfcn.h>
#include <pthread.h>
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

static void load(void)
{
    void (*set_num_threads)(int n) = NULL;
    void *library = NULL;
    for (size_t i = 0; !library && i < sizeof names / sizeof *names; i++)
        library = dlopen(names[i], RTLD_NOW | RTLD_LOCAL);
    if (!library) {
        err_set(
            &failure, ERR_IO,
            "error feedback needs OpenBLAS, which cannot be loaded: %s; install it (Debian: libopenblas0)",
            dlerror());
        return;
    }
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
