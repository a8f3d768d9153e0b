/* err.h - how every module reports failure.
 *
 * One type carries everything: a code for programs, a sentence for people. It is an argument, neither
 * global nor thread-local, so it cannot go stale and workers do not share it. */
#ifndef KERF_ERR_H
#define KERF_ERR_H

#if defined(__GNUC__)
#define KERF_PRINTF(fmt_index, first) __attribute__((format(printf, fmt_index, first)))
#else
#define KERF_PRINTF(fmt_index, first)
#endif

enum err_code {
    ERR_OK = 0,
    ERR_IO = -1,          /* the system refused: open, read, map, write, rename */
    ERR_FORMAT = -2,      /* the bytes contradict the file format               */
    ERR_UNSUPPORTED = -3, /* valid, but not implemented here                    */
    ERR_ARG = -4,         /* the caller asked for something impossible          */
    ERR_NOMEM = -5,       /* an allocation was refused                          */
    ERR_CANCELLED = -6,   /* the user asked to stop                             */
    ERR_EXISTS = -7,      /* an output stands already, and was not to be replaced */
};

struct err {
    enum err_code code;
    char msg[512]; /* one sentence, no newline; grows leftwards with context; too long ones lose their middle
                    */
};

/* The message of ERR_CANCELLED, wherever it happens; what was kept may follow. */
#define ERR_STOPPED "stopped on request"

/* The same of a run whose command has --resume, and that was not given it. */
#define ERR_STOPPED_UNKEPT                                                                                   \
    ERR_STOPPED                                                                                              \
    ", nothing is kept; a run with --resume keeps what is done when it is stopped, and the next one with "   \
    "--resume continues from there"

/* Record a failure and return `code`, so a check is one line. `e` may be NULL.
 * Control characters that came in with a file's names are replaced by '?'. */
int err_set(struct err *e, enum err_code code, const char *fmt, ...) KERF_PRINTF(3, 4);

/* A file that cannot be opened, in the words of every command: "PATH: no such file or folder", or "cannot
 * open" and why, as errno `why` says. Returns ERR_IO. */
int err_set_open(struct err *e, const char *path, int why);

/* Put "context: " in front of the message while the failure travels up. Returns `code`. */
int err_context(struct err *e, int code, const char *fmt, ...) KERF_PRINTF(3, 4);

/* The same with a path, unless the message begins with it, or with that of a file in it, already. */
int err_context_path(struct err *e, int code, const char *path);

#endif
