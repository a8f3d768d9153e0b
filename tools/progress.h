/* progress.h - how far a long run is, with its rate and the time left, on stderr; and the wish to stop, as
 * signals bring it.
 *
 * On a terminal a bar: one line, redrawn at most ten times a second and wiped at the end. Elsewhere, and
 * where NO_COLOR or TERM=dumb forbids that, a plain line every 30 seconds. --progress bar|lines|off chooses,
 * --quiet means off. */
#ifndef KERF_PROGRESS_BAR_H
#define KERF_PROGRESS_BAR_H

#include "tools/options/opt.h"

#include "libquant/base/progress.h"

struct progress_bar {
    bool shown, drawn;
    bool lines;         /* plain lines instead of a bar */
    const char *what;   /* "quantizing" */
    const char *unit;   /* "B", "tokens", "chunks" */
    double total;       /* in `unit`; 0: that of the steps */
    double from, share; /* the part of the bar that the steps at hand fill */
    double start, last;
    double start_done; /* a resumed run starts above zero; the rate counts from here */
    bool has_start;
};

/* `what` is a participle ("quantizing"), `unit` "B" for bytes (printed as MiB/s) or a plural noun ("tokens").
 * From here to progress_end a signal only asks the work to stop. */
void progress_begin(struct progress_bar *p, const struct shared_options *o, const char *what,
                    const char *unit, uint64_t total);

/* What the work is to tell its steps: they are shown on `p`, and a signal stops the work. */
struct progress progress_on(struct progress_bar *p);

/* The steps to come fill `share` of the bar, from `from` on; both 0..1. */
void progress_part(struct progress_bar *p, double from, double share);
void progress_end(struct progress_bar *p);

/* From the first line of main: SIGINT, SIGTERM and SIGHUP remove unfinished outputs and end the process by
 * that signal; SIGBUS (an input that shrank while mapped) explains itself and exits 1; SIGPIPE and SIGXFSZ
 * become write errors. */
void signals_install(void);

/* While `on`, SIGINT, SIGTERM and SIGHUP only set a flag, for runs that look at it and clean up themselves; a
 * second signal is not patient any more, nor is the first one after two seconds. */
void signals_cooperate(bool on);

/* The signal that asked a cooperating run to stop, or 0. */
int signals_pending(void);

/* Human sizes and times: "2.71 GiB", "1m 32s". Returns `out`. */
const char *format_bytes(char out[32], double n_bytes);
const char *format_seconds(char out[32], double seconds);

/* "" for one, else "s": "1 tensor", "2 tensors". */
const char *format_plural(uint64_t n);

/* 1234567 -> "1.23M" */
const char *format_count(char out[32], double n);

#endif
