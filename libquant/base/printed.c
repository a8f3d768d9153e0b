/* printed.c - see printed.h. A stream of our own over a buffer that grows: open_memstream of glibc forgets a
 * growth that it was refused, and ends with a text that has a hole. */
#define _GNU_SOURCE
#include "printed.h"

#include "checked.h"
#include "err.h"

#include <stdlib.h>
#include <string.h>

/* Room for n bytes more, and for the NUL behind them. */
static bool reserve(struct printed *p, size_t n)
{
    uint64_t need, cap;
    if (!checked_add(p->n, n, &need) || !checked_add(need, 1, &need))
        return false;
    if (need <= p->cap)
        return true;
    if (!checked_mul(p->cap, 2, &cap) || cap < need)
        cap = need;
    char *text = realloc(p->text, cap);
    if (!text)
        return false;
    p->text = text;
    p->cap = cap;
    return true;
}

/* fopencookie's call; 0 says that it failed. Once a part is lost, none behind it is kept either. */
static ssize_t append(void *cookie, const char *bytes, size_t n)
{
    struct printed *p = cookie;
    p->failed = p->failed || !reserve(p, n);
    if (p->failed)
        return 0;
    memcpy(p->text + p->n, bytes, n);
    p->n += n;
    return (ssize_t)n;
}

int printed_begin(struct printed *p)
{
    *p = (struct printed){0};
    if (reserve(p, 0))
        p->out = fopencookie(p, "w", (cookie_io_functions_t){.write = append});
    if (!p->out)
        printed_abort(p);
    return p->out ? 0 : ERR_NOMEM;
}

char *printed_end(struct printed *p)
{
    bool whole = !ferror(p->out);
    whole &= fclose(p->out) == 0;
    p->out = NULL;
    if (whole && !p->failed)
        p->text[p->n] = 0;
    else
        printed_abort(p);
    return p->text;
}

void printed_abort(struct printed *p)
{
    if (p->out)
        fclose(p->out);
    free(p->text);
    *p = (struct printed){0};
}
