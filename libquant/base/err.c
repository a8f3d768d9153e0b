/* err.c - see err.h. */
#include "err.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* Names inside a message come from hostile files: keep terminals and log parsers safe. */
static void scrub(char *s)
{
    for (; *s; s++)
        if ((unsigned char)*s < 0x20 || *s == 0x7f)
            *s = '?';
}

int err_set(struct err *e, enum err_code code, const char *fmt, ...)
{
    if (!e)
        return code;
    va_list ap;
    va_start(ap, fmt);
    e->code = code;
    vsnprintf(e->msg, sizeof e->msg, fmt, ap);
    va_end(ap);
    scrub(e->msg);
    return code;
}

int err_context(struct err *e, int code, const char *fmt, ...)
{
    if (!e)
        return code;
    char head[sizeof e->msg];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(head, sizeof head, fmt, ap);
    va_end(ap);
    scrub(head);
    char old[sizeof e->msg];
    memcpy(old, e->msg, sizeof old);
    size_t n = strlen(head);
    if (n > sizeof head - 3)
        n = sizeof head - 3;
    memcpy(e->msg, head, n);
    e->msg[n] = ':';
    e->msg[n + 1] = ' ';
    size_t room = sizeof e->msg - n - 2, m = strlen(old);
    if (m >= room)
        m = room - 1;
    memcpy(e->msg + n + 2, old, m);
    e->msg[n + 2 + m] = 0;
    return code;
}
