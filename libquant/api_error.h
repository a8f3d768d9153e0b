/* api_error.h - for the public faces: an error of the rooms as one of the public headers. */
#ifndef KERF_API_ERROR_H
#define KERF_API_ERROR_H

#include "libquant/base/err.h"
#include <kerf/base.h>

#include <string.h>

_Static_assert(sizeof(((struct kerf_error *)0)->message) == sizeof(((struct err *)0)->msg),
               "public messages hold what the rooms say");

/* Returns `rc`; a failure is copied to `out`, which may be NULL. */
static inline int api_error(struct kerf_error *out, int rc, const struct err *e)
{
    if (rc != 0 && out) {
        out->code = rc;
        memcpy(out->message, e->msg, sizeof out->message);
    }
    return rc;
}

#endif
