/* signals.c - what a signal does to a run; see progress.h. Handlers use async-signal-safe calls only. */
#include "progress.h"

#include "outcome.h"

#include "formats/output/output_file.h"

#include <signal.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

/* The one place with state: a handler has no argument of its own. */
static volatile sig_atomic_t cooperative, pending;

static void say(const char *text)
{
    ssize_t ignored = write(STDERR_FILENO, text, strlen(text));
    (void)ignored;
}

/* A run that cooperates is at its end within this time, or is ended. */
#define PATIENCE_MICROSECONDS 1600000

static void on_stop(int sig)
{
    if (cooperative && !pending) {
        /* A plain system call here, though POSIX does not list it as safe in handlers. */
        const struct itimerval patience = {
            .it_value = {PATIENCE_MICROSECONDS / 1000000, PATIENCE_MICROSECONDS % 1000000}};
        pending = sig;
        setitimer(ITIMER_REAL, &patience, NULL);
        return;
    }
    output_file_abort_all_from_signal();
    signal(sig, SIG_DFL);
    raise(sig); /* taken when this handler returns: the parent sees the true cause */
}

/* The step it is in takes longer than that. What was saved before is as good as after a kill. */
static void on_alarm(int sig)
{
    int cause = pending;
    (void)sig;
    if (!cause)
        return;
    output_file_abort_all_from_signal();
    say("kerf: stopped on request, in the middle of a long step: what was not saved by then is lost\n");
    signal(cause, SIG_DFL);
    raise(cause);
}

static void on_bus(int sig)
{
    (void)sig;
    output_file_abort_all_from_signal();
    say("kerf: error: an input file became shorter, or unreadable, while it was being read; "
        "run again when nothing else writes to it\n");
    if (outcome_owes_json()) {
        static const char object[] = "{\"error\": {\"code\": \"io\", \"message\": \"an input file became "
                                     "shorter, or unreadable, while it was "
                                     "being read\", \"file\": null, \"tensor\": null}, \"warnings\": []}\n";
        ssize_t ignored = write(STDOUT_FILENO, object, sizeof object - 1);
        (void)ignored;
    }
    _exit(1);
}

void signals_install(void)
{
    struct sigaction a;
    memset(&a, 0, sizeof a);
    sigemptyset(&a.sa_mask);
    a.sa_flags = SA_RESTART;
    a.sa_handler = on_stop;
    static const int stops[] = {SIGINT, SIGTERM, SIGHUP};
    for (size_t i = 0; i < sizeof stops / sizeof *stops; i++) {
        struct sigaction old;
        /* A shell that started us with the signal ignored (nohup, background jobs) means it. */
        if (sigaction(stops[i], NULL, &old) == 0 && old.sa_handler != SIG_IGN)
            sigaction(stops[i], &a, NULL);
    }
    a.sa_handler = on_alarm;
    sigaction(SIGALRM, &a, NULL);
    a.sa_handler = on_bus;
    sigaction(SIGBUS, &a, NULL);
    a.sa_handler = SIG_IGN;
    sigaction(SIGPIPE, &a, NULL);
    sigaction(SIGXFSZ, &a, NULL);
}

void signals_cooperate(bool on)
{
    cooperative = on;
}

int signals_pending(void)
{
    return pending;
}
