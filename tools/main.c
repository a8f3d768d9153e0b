/* main.c - from the arguments of the process to a command, and from its result to the exit status. */
#include "cmd.h"
#include "commands.h"
#include "outcome.h"
#include "plain_output.h"
#include "progress.h"

#include "libquant/base/printable.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#ifdef __GLIBC__
#include <malloc.h>
#endif

static int unknown_command(const char *name)
{
    const char *near = command_nearest(name);
    char text[300];
    snprintf(text, sizeof text, "unknown command '%.100s'%s%s%s", name, near ? "; did you mean '" : "",
             near ? near : "", near ? "'?" : "");
    printable(text);
    fprintf(stderr, "kerf: %s\nTry 'kerf --help'.\n", text);
    outcome_error("usage", text);
    return CMD_USAGE;
}

/* `kerf --json inspect FILE`: options are those of a command, and stand behind it. */
static int option_in_front(int argc, char **argv)
{
    const char *name = NULL;
    char text[300];
    for (int i = 2; i < argc && !name; i++)
        name = command_find(argv[i]) ? argv[i] : NULL;
    snprintf(text, sizeof text, "%.100s: options stand behind the command: kerf %s %.100s ...", argv[1],
             name ? name : "COMMAND", argv[1]);
    printable(text);
    fprintf(stderr, "kerf: %s\nTry 'kerf --help'.\n", text);
    outcome_error("usage", text);
    return CMD_USAGE;
}

static int dispatch(int argc, char **argv)
{
    if (argc < 2) {
        command_print_overview(stderr);
        return CMD_USAGE;
    }
    const char *name = argv[1];
    bool help = strcmp(name, "help") == 0;
    if (strcmp(name, "--version") == 0) {
        printf("kerf %s\n", KERF_VERSION);
        return CMD_DONE;
    }
    if (strncmp(name, "--help=", 7) == 0 && command_print_as(name + 7))
        return CMD_DONE;
    if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0 || (help && argc < 3)) {
        command_print_overview(stdout);
        return CMD_DONE;
    }
    if (name[0] == '-')
        return option_in_front(argc, argv);
    const struct command *c = command_find(help ? argv[2] : name);
    if (!c)
        return unknown_command(help ? argv[2] : name);
    if (help) { /* "help imatrix merge", too */
        char *args[] = {argv[2], argc > 3 ? argv[3] : "--help", "--help", NULL};
        return c->run(argc > 3 ? 3 : 2, args);
    }
    return c->run(argc - 1, argv + 1);
}

/* A result that did not reach its reader is a failure, whatever the command thought. A reader that has gone
 * (`| head`) knows it: nothing is said, and the run ends by SIGPIPE, as that of any tool would have. */
static int finish_stdout(int status)
{
    errno = 0;
    bool lost = fflush(stdout) != 0 || ferror(stdout);
    int why = errno;
    if (lost && why == 0) { /* lost in an earlier flush: ask the pipe */
        struct pollfd p = {.fd = STDOUT_FILENO};
        if (poll(&p, 1, 0) > 0 && (p.revents & POLLERR))
            why = EPIPE;
    }
    if (fclose(stdout) != 0 && !lost) {
        lost = true;
        why = errno;
    }
    const bool done = status == CMD_DONE || status == CMD_GATE;
    if (lost && why == EPIPE && done) {
        signal(SIGPIPE, SIG_DFL);
        raise(SIGPIPE);
    }
    if (lost && why != EPIPE)
        fprintf(stderr, "kerf: error: cannot write standard output%s%s\n", why ? ": " : "",
                why ? strerror(why) : "");
    return lost && done ? CMD_FAILED : status;
}

/* Buffers that are freed go back to the system: left to itself the allocator learns to keep them. */
static void keep_no_buffers(void)
{
#ifdef __GLIBC__
    mallopt(M_MMAP_THRESHOLD, 1 << 20);
    mallopt(M_TRIM_THRESHOLD, 1 << 20);
#endif
}

int main(int argc, char **argv)
{
    keep_no_buffers();
    signals_install();
    outcome_begin(argc, argv);
    if (!outcome_owes_json())
        plain_output_begin();
    int status = finish_stdout(outcome_end(dispatch(argc, argv)));
    int sig = signals_pending();
    if (sig && status != CMD_DONE) {
        signal(sig, SIG_DFL);
        raise(sig);
    }
    return status;
}
