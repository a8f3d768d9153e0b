/* err.c - see err.h. */
#include "err.h"

#include "printable.h"

#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

/* Room for a message around the longest path a system takes, before it is cut. */
#define LONGEST 6000

static bool is_continuation(char c)
{
    return ((unsigned char)c & 0xc0) == 0x80;
}

/* Take `text` as the message. What is too long loses its middle: the place stands in front, what was found
 * and what to do about it at the end. */
static void take(struct err *e, const char *text)
{
    enum { ROOM = sizeof e->msg - 1, HEAD = 160 };
    size_t n = strlen(text);
    if (n <= ROOM) {
        memcpy(e->msg, text, n + 1);
    } else {
        size_t head = HEAD, tail = n - (ROOM - HEAD - strlen(" ... "));
        while (head > 0 && is_continuation(text[head]))
            head--;
        while (is_continuation(text[tail]))
            tail++;
        snprintf(e->msg, sizeof e->msg, "%.*s ... %s", (int)head, text, text + tail);
    }
    printable(e->msg); /* names inside it come from hostile files */
}

int err_set(struct err *e, enum err_code code, const char *fmt, ...)
{
    char text[LONGEST];
    if (!e)
        return code;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    e->code = code;
    take(e, text);
    return code;
}

int err_set_open(struct err *e, const char *path, int why)
{
    return why == ENOENT ? err_set(e, ERR_IO, "%s: no such file or folder", path)
                         : err_set(e, ERR_IO, "%s: cannot open: %s", path, strerror(why));
}

int err_context(struct err *e, int code, const char *fmt, ...)
{
    char head[LONGEST], text[LONGEST + sizeof e->msg + 2];
    if (!e)
        return code;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(head, sizeof head, fmt, ap);
    va_end(ap);
    snprintf(text, sizeof text, "%s: %s", head, e->msg);
    take(e, text);
    return code;
}

int err_context_path(struct err *e, int code, const char *path)
{
    size_t n = strlen(path);
    if (e && n > 0 && strncmp(e->msg, path, n) == 0 &&
        (path[n - 1] == '/' || e->msg[n] == '/' || e->msg[n] == ':'))
        return code;
    return err_context(e, code, "%s", path);
}
