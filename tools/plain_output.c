/* plain_output.c - see plain_output.h. A stream of our own over descriptor 1: names and texts reach a result
 * in some hundred places, and one that was forgotten would do as well as all of them. */
#define _GNU_SOURCE /* fopencookie */
#include "plain_output.h"

#include "libquant/base/printable.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static bool as_is;
static bool held; /* the last byte so far may be the first half of a control character of two */

static int write_all(const char *p, size_t n)
{
    while (n > 0) {
        ssize_t k = write(STDOUT_FILENO, p, n);
        if (k < 0 && errno == EINTR)
            continue;
        if (k < 0)
            return -1;
        p += k;
        n -= (size_t)k;
    }
    return 0;
}

/* Lines and columns stay; a byte of zero would end the string that is looked at. */
static void clean(char *s, size_t n)
{
    for (size_t i = 0, from = 0; i <= n; i++) {
        if (i < n && s[i] && s[i] != '\n' && s[i] != '\t')
            continue;
        char end = s[i];
        s[i] = '\0';
        printable(s + from);
        s[i] = end || i == n ? end : '?';
        from = i + 1;
    }
}

static ssize_t put(void *ctx, const char *p, size_t n)
{
    (void)ctx;
    if (as_is)
        return write_all(p, n) == 0 ? (ssize_t)n : 0;
    for (size_t done = 0; done < n;) {
        char part[4096];
        size_t k = 0, more = n - done;
        if (held)
            part[k++] = '\xC2';
        if (more > sizeof part - 2)
            more = sizeof part - 2;
        memcpy(part + k, p + done, more);
        k += more;
        held = part[k - 1] == '\xC2';
        k -= held;
        part[k] = '\0';
        clean(part, k);
        if (write_all(part, k) != 0)
            return 0;
        done += more;
    }
    return (ssize_t)n;
}

static int end(void *ctx)
{
    (void)ctx;
    int lost = held ? write_all("?", 1) : 0;
    held = false;
    return close(STDOUT_FILENO) != 0 || lost ? -1 : 0;
}

void plain_output_begin(void)
{
    FILE *f = fopencookie(NULL, "w", (cookie_io_functions_t){.write = put, .close = end});
    if (!f)
        return; /* the next allocation will say so */
    if (isatty(STDOUT_FILENO))
        setvbuf(f, NULL, _IOLBF, BUFSIZ);
    stdout = f;
}

void plain_output_as_is(void)
{
    fflush(stdout);
    as_is = true;
}

const char *plain_line(char out[PLAIN_LINE], const char *name)
{
    snprintf(out, PLAIN_LINE, "%s", name);
    printable(out);
    return out;
}
