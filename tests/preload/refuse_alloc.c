/* refuse_alloc.c - a library to preload: the allocation that REFUSE_AT numbers (from 1 on, counted from main)
 * is refused, with "N-" all from there on. What the program asked for in all is written into the file
 * REFUSE_COUNT.
 *
 * Every allocation counts: the program's, the C library's for it, and those of other libraries. With
 * AddressSanitizer the requests go on to its allocator (which then wants verify_asan_link_order=0). */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SEEN __attribute__((visibility("default")))

static atomic_long n_asked;
static long first = -1, last = -1;
static atomic_bool armed;

static int refuse(void)
{
    if (!armed)
        return 0;
    long n = atomic_fetch_add(&n_asked, 1) + 1;
    if (n < first || n > last)
        return 0;
    errno = ENOMEM;
    return 1;
}

/* The next definition of a function behind this one. */
#define NEXT(function)                                                                                       \
    static __typeof__(function) *next;                                                                       \
    if (!next)                                                                                               \
        *(void **)&next = dlsym(RTLD_NEXT, #function);

SEEN void *malloc(size_t n)
{
    NEXT(malloc)
    return refuse() ? NULL : next(n);
}

SEEN void *calloc(size_t n, size_t size)
{
    NEXT(calloc)
    return refuse() ? NULL : next(n, size);
}

SEEN void *realloc(void *p, size_t n)
{
    NEXT(realloc)
    return refuse() ? NULL : next(p, n);
}

SEEN void *aligned_alloc(size_t align, size_t n)
{
    NEXT(aligned_alloc)
    return refuse() ? NULL : next(align, n);
}

SEEN int posix_memalign(void **p, size_t align, size_t n)
{
    NEXT(posix_memalign)
    return refuse() ? ENOMEM : next(p, align, n);
}

/* What another library asks for while it is loaded is neither refused nor counted: how it begins without
 * memory is its own matter, and OpenBLAS does not begin at all. */
SEEN void *dlopen(const char *path, int mode)
{
    NEXT(dlopen)
    bool was_armed = atomic_exchange(&armed, false);
    void *library = next(path, mode);
    armed = was_armed;
    return library;
}

static void tell(void)
{
    armed = 0;
    const char *path = getenv("REFUSE_COUNT");
    char text[32];
    int n = snprintf(text, sizeof text, "%ld\n", (long)n_asked);
    int fd = path ? open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644) : -1;
    if (fd >= 0 && write(fd, text, (size_t)n) != n)
        abort();
    if (fd >= 0)
        close(fd);
}

typedef int program_fn(int argc, char **argv, char **env);
SEEN int __libc_start_main(program_fn *program, int argc, char **argv, void (*init)(void), void (*fini)(void),
                           void (*rtld_fini)(void), void *stack_end);

/* Called by the start-up code of the program, when libraries have set themselves up. */
int __libc_start_main(program_fn *program, int argc, char **argv, void (*init)(void), void (*fini)(void),
                      void (*rtld_fini)(void), void *stack_end)
{
    NEXT(__libc_start_main)
    const char *at = getenv("REFUSE_AT"), *dash = at ? strchr(at, '-') : NULL;
    if (at)
        first = last = atol(at);
    if (dash)
        last = __LONG_MAX__;
    atexit(tell);
    armed = 1;
    return next(program, argc, argv, init, fini, rtld_fini, stack_end);
}
