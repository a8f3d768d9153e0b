/* progress.h - how long work says how far it is, and hears that it should stop: one type for every library.
 *
 *     static int show(void *ctx, const struct progress_step *s) { ...; return stop_is_wanted; }
 *     opt.progress = (struct progress){show, &bar};
 *
 * A zeroed `struct progress` listens to nothing. Steps come from the thread that called the work. */
#ifndef KERF_PROGRESS_H
#define KERF_PROGRESS_H

#include "err.h"

#include <stddef.h>

struct progress_step {
    double done, total;  /* in the unit of the work (bytes, tokens); a share of it has the total 1 */
    const char *what;    /* the tensor, model or stage at hand, borrowed for the call; or NULL */
    const char *counted; /* what n_done counts: "windows"; NULL: nothing is counted */
    size_t n_done, n;    /* so many of these are finished */
    double perplexity;   /* over what is finished; 0 or NaN: not known */
};

struct progress {
    int (*tell)(void *ctx, const struct progress_step *s); /* nonzero: stop. NULL: nobody listens */
    void *ctx;
};

/* Tell `p` (may be NULL) of a step: does it want to stop? */
static inline int progress_stops(const struct progress *p, const struct progress_step *s)
{
    return p && p->tell ? p->tell(p->ctx, s) : 0;
}

/* The same, as an error: ERR_CANCELLED when the work is to stop. */
static inline int progress_tell(const struct progress *p, const struct progress_step *s, struct err *e)
{
    return progress_stops(p, s) ? err_set(e, ERR_CANCELLED, ERR_STOPPED) : 0;
}

/* 0..1; work of unknown size has done nothing. */
static inline double progress_share(const struct progress_step *s)
{
    return s->total > 0 ? s->done / s->total : 0;
}

#endif
