/* progress.h - how far a long run is, with its rate and the time left, on stderr; and the wish to stop, as
 * signals bring it.
 *
 * On a terminal a bar: one line, redrawn at most ten times a second and wiped at the end. Elsewhere, and
 * where NO_COLOR or TERM=dumb forbids that, a plain line every 30 seconds. --progress bar|lines|off chooses,
 * --quiet means off. */
#ifndef KERF_PROGRESS_H
#define KERF_PROGRESS_H

#include "opt.h"

struct progress {
    bool shown, drawn;
    bool lines;       /* plain lines instead of a bar */
    const char *what; /* "quantizing" */
    const char *unit; /* "B", "tokens", "chunks" */
    uint64_t total;   /* 0: unknown */
    double start, last;
    uint64_t start_done; /* a resumed run starts above zero; the rate counts from here */
    bool has_start;
};

/* `what` is a participle ("quantizing"), `unit` "B" for bytes (printed as MiB/s) or a plural noun ("tokens").
 */
void progress_begin(struct progress *p, const struct shared_options *o, const char *what, const char *unit,
                    uint64_t total);

/* `detail` (a tensor's name; may be NULL) closes the line. Call as often as convenient. */
void progress_update(struct progress *p, uint64_t done, const char *detail);
void progress_end(struct progress *p);

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
