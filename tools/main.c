/* main.c - the table of commands; everything else is in cmd_<command>.c. */
#include "cmd.h"
#include "outcome.h"
#include "progress.h"

#include <errno.h>
#include <poll.h>
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

struct cmd {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *summary;
};

static const struct cmd cmds[] = {
    {"inspect", cmd_inspect, "metadata, tensors and sizes of a model or importance file"},
    {"convert", cmd_convert, "checkpoint to GGUF, at source precision or straight to any type"},
    {"quantize", cmd_quantize, "model to GGUF with new tensor types"},
    {"tokenize", cmd_tokenize, "text to token ids, as the model's tokenizer gives them"},
    {"imatrix", cmd_imatrix, "collect, merge, show or convert importance matrices"},
    {"hessian", cmd_hessian, "collect or merge Hessians, for quantizing with error feedback"},
    {"perplexity", cmd_perplexity, "perplexity of a model on a text"},
    {"compare", cmd_compare, "what candidates lost against a reference, in one pass over a text"},
    {"ladder", cmd_ladder, "quality of every level from Q8_0 to Q2_K, without writing files"},
    {"allocate", cmd_allocate, "per-tensor types of least expected loss within a budget"},
    {"best", cmd_best, "the best file of a size: plan, error feedback and a held-out report in one go"},
    {"fit", cmd_fit, "which levels of a model fit into a memory, with the cache of a context"},
    {"diff", cmd_diff, "tensors and metadata that differ between two models"},
    {"hash", cmd_hash, "SHA-256 per tensor and of the whole model content"},
    {"edit", cmd_edit, "set or remove metadata"},
    {"split", cmd_split, "split a GGUF file into parts"},
    {"merge", cmd_merge, "merge the parts of a split GGUF file"},
    {"verify", cmd_verify, "structure, shapes, finite values, block validity"},
};
#define N_CMDS (sizeof cmds / sizeof *cmds)

int cmd_fail(const struct err *e)
{
    cmd_tell_warnings();
    if (e->code == ERR_CANCELLED)
        fprintf(stderr, "kerf: %s\n", e->msg); /* begins with what happened */
    else
        fprintf(stderr, "kerf: error: %s\n", e->msg[0] ? e->msg : "unknown failure");
    outcome_error(outcome_code(e->code), e->msg);
    return CMD_FAILED;
}

static void say(const char *head, const char *fmt, va_list ap)
{
    fputs(head, stderr);
    vfprintf(stderr, fmt, ap);
    fputc('\n', stderr);
}

void cmd_warn_text(const struct shared_options *o, const char *path, const char *doubt, uint64_t n,
                   uint64_t first)
{
    if (doubt[0])
        cmd_warn(o,
                 "[not-a-text] %s: this does not look like a text: it %s; its bytes are read as a text all "
                 "the same",
                 strcmp(path, "-") == 0 ? "standard input" : path, doubt);
    else if (n > 0)
        cmd_warn(o,
                 "[not-utf8] %s: %" PRIu64 " byte%s not UTF-8 (the first at offset %" PRIu64
                 "): read as U+FFFD, the replacement character",
                 path, n, n == 1 ? " is" : "s are", first);
}

void cmd_note(const struct shared_options *o, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    if (!o->quiet)
        say("kerf: ", fmt, ap);
    va_end(ap);
}

int cmd_usage(const struct opt_command *cmd, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    opt_vusage(cmd, fmt, ap);
    va_end(ap);
    return CMD_USAGE;
}

static void print_overview(FILE *f)
{
    fputs("usage: kerf COMMAND [options]\n\n"
          "Quantize and convert language models: a HuggingFace checkpoint goes in, a GGUF file of any\n"
          "precision comes out, with the measured loss beside it.\n\nCommands:\n",
          f);
    for (size_t i = 0; i < N_CMDS; i++)
        fprintf(f, "  %-12s %s\n", cmds[i].name, cmds[i].summary);
    fputs("\n'kerf COMMAND --help' describes a command. Exit codes: 0 done, 1 failed, 2 wrong usage,\n"
          "3 a check was not met, or --strict and there were warnings.\n",
          f);
}

static const struct cmd *find(const char *name)
{
    for (size_t i = 0; i < N_CMDS; i++)
        if (strcmp(cmds[i].name, name) == 0)
            return &cmds[i];
    return NULL;
}

static int unknown_command(const char *name)
{
    const char *names[N_CMDS];
    for (size_t i = 0; i < N_CMDS; i++)
        names[i] = cmds[i].name;
    const char *near = opt_nearest(name, names, N_CMDS);
    char text[300];
    snprintf(text, sizeof text, "unknown command '%.100s'%s%s%s", name, near ? "; did you mean '" : "",
             near ? near : "", near ? "'?" : "");
    fprintf(stderr, "kerf: %s\nTry 'kerf --help'.\n", text);
    outcome_error("usage", text);
    return CMD_USAGE;
}

static int dispatch(int argc, char **argv)
{
    if (argc < 2) {
        print_overview(stderr);
        return CMD_USAGE;
    }
    const char *name = argv[1];
    bool help = strcmp(name, "help") == 0;
    if (strcmp(name, "--version") == 0) {
        printf("kerf %s\n", KERF_VERSION);
        return CMD_DONE;
    }
    if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0 || (help && argc < 3)) {
        print_overview(stdout);
        return CMD_DONE;
    }
    const struct cmd *c = find(help ? argv[2] : name);
    if (!c)
        return unknown_command(help ? argv[2] : name);
    if (help) { /* "help imatrix merge", too */
        char *args[] = {argv[2], argc > 3 ? argv[3] : "--help", "--help", NULL};
        return c->run(argc > 3 ? 3 : 2, args);
    }
    return c->run(argc - 1, argv + 1);
}

/* A result that did not reach its reader is a failure, whatever the command thought. */
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
    if (lost && why != EPIPE) /* a reader that has gone knows it */
        fprintf(stderr, "kerf: error: cannot write standard output%s%s\n", why ? ": " : "",
                why ? strerror(why) : "");
    return lost && (status == CMD_DONE || status == CMD_GATE) ? CMD_FAILED : status;
}

int main(int argc, char **argv)
{
    signals_install();
    outcome_begin(argc, argv);
    int status = finish_stdout(outcome_end(dispatch(argc, argv)));
    int sig = signals_pending();
    if (sig && status != CMD_DONE) {
        signal(sig, SIG_DFL);
        raise(sig);
    }
    return status;
}
