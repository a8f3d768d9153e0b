/* opt_help.c - the shared options, and --help made from the tables. */
#include "opt_internal.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

void opt_shared_table(struct opt table[OPT_N_SHARED], const struct opt_command *cmd, struct shared_options *s,
                      bool *help, bool *version)
{
    static const struct opt_range threads = {.min = 1, .max = 1024}, memory = {.min = 1 << 20};
    const unsigned no = ~cmd->uses;
    const struct opt t[OPT_N_SHARED] = {
        OPT_GROUP("Shared options:"),
        OPT(UINT, "threads", &s->threads, "N", "worker threads", .fallback = "all cores", .range = &threads,
            .hidden = no & USES_THREADS),
        OPT(SIZE, "memory", &s->memory_bytes, "SIZE", "bound on working memory", .range = &memory,
            .hidden = no & USES_MEMORY),
        OPT(TEXT, "isa", &s->isa, "NAME",
            "instruction-set level to use: avx512, avx2, sse2, neon, or ref for plain C",
            .fallback = "the best here", .hidden = no & USES_ISA),
        OPT(FLAG, "force", &s->force, NULL, "replace an existing output file", .hidden = no & USES_FORCE),
        OPT(FLAG, "dry-run", &s->dry_run, NULL, "show what would be done, with sizes; write nothing",
            .hidden = no & USES_DRY_RUN),
        OPT(FLAG, "json", &s->json, NULL, "print one JSON object on standard output"),
        OPT(FLAG, "quiet", &s->quiet, NULL, "no progress, notes or warnings", .letter = 'q'),
        OPT(CHOICE, "progress", &s->progress, "auto|bar|lines|off",
            "how progress is shown: a bar on a terminal, else a line every 30 seconds", .fallback = "auto",
            .hidden = (no & USES_THREADS) && (no & USES_FORCE)),
        OPT(FLAG, "verbose", &s->verbose, NULL, "say more: every warning of a kind, every tensor left out",
            .letter = 'v'),
        OPT(FLAG, "strict", &s->strict, NULL,
            "exit with 3 if there were warnings; outputs are still written"),
        OPT(FLAG, "help", help, NULL, "print this text", .letter = 'h'),
        OPT(FLAG, "version", version, NULL, "print the version"),
    };
    memcpy(table, t, sizeof t);
}

void opt_size_text(char *out, size_t n, uint64_t v)
{
    static const char *const units[] = {"", "KiB", "MiB", "GiB", "TiB"};
    unsigned u = 0;
    while (v && v % 1024 == 0 && u < 4) {
        v /= 1024;
        u++;
    }
    snprintf(out, n, "%" PRIu64 "%s", v, units[u]);
}

void opt_default_text(const struct opt *o, char *out, size_t n)
{
    out[0] = 0;
    if (o->fallback)
        snprintf(out, n, "%s", o->fallback);
    else if (o->kind == OPT_UINT && *(const uint64_t *)o->value)
        snprintf(out, n, "%" PRIu64, *(const uint64_t *)o->value);
    else if (o->kind == OPT_SIZE && *(const uint64_t *)o->value)
        opt_size_text(out, n, *(const uint64_t *)o->value);
    else if (o->kind == OPT_REAL && *(const double *)o->value != 0)
        snprintf(out, n, "%g", *(const double *)o->value);
    else if ((o->kind == OPT_TEXT || o->kind == OPT_CHOICE) && *(const char *const *)o->value)
        snprintf(out, n, "%s", *(const char *const *)o->value);
}

#define HELP_COLUMN 27
#define HELP_WIDTH  80

void opt_print_wrapped(FILE *out, const char *text, size_t at, size_t column)
{
    while (*text) {
        size_t room = HELP_WIDTH - column, len = strlen(text), cut = len;
        if (len > room) {
            cut = room;
            while (cut && text[cut] != ' ')
                cut--;
            if (cut == 0)
                cut = strcspn(text, " ");
        }
        fprintf(out, "%*s%.*s\n", (int)(column - at), "", (int)cut, text);
        at = 0;
        text += cut;
        while (*text == ' ')
            text++;
    }
}

static void print_option(const struct opt *o)
{
    if (o->kind == OPT_HEADING) {
        printf("\n%s\n", o->help);
        return;
    }
    char left[120], line[600], dflt[200];
    size_t at =
        (size_t)snprintf(left, sizeof left, o->letter ? "  -%c, --%s%s%s" : "  %c   --%s%s%s",
                         o->letter ? o->letter : ' ', o->name, o->arg ? " " : "", o->arg ? o->arg : "");
    opt_default_text(o, dflt, sizeof dflt);
    snprintf(line, sizeof line, dflt[0] ? "%s%s (default: %s)" : "%s%s%s", o->help,
             o->kind == OPT_LIST ? "; may be repeated" : "", dflt);
    printf("%s", left);
    if (at + 2 > HELP_COLUMN) {
        putchar('\n');
        at = 0;
    }
    opt_print_wrapped(stdout, line, at, HELP_COLUMN);
}

/* The first row of a name counts: a command may give a shared option another meaning. */
static bool is_redefined(const struct opt_command *cmd, size_t n_before, const char *name)
{
    for (size_t i = 0; name && i < n_before; i++)
        if (cmd->options[i].name && strcmp(cmd->options[i].name, name) == 0)
            return true;
    return false;
}

size_t opt_n_rows(const struct opt_command *cmd)
{
    return cmd->n_options + OPT_N_SHARED;
}

const struct opt *opt_row(const struct opt_command *cmd, const struct opt shared[OPT_N_SHARED], size_t i)
{
    bool own = i < cmd->n_options;
    const struct opt *o = own ? &cmd->options[i] : &shared[i - cmd->n_options];
    return o->hidden || is_redefined(cmd, own ? i : cmd->n_options, o->name) ? NULL : o;
}

/* A command line as one can type it: long ones go on in the next line, before an option. */
static void print_command(const char *line, size_t n)
{
    const char *indent = "  ";
    while (n + strlen(indent) > HELP_WIDTH) {
        size_t cut = HELP_WIDTH - strlen(indent) - 2;
        while (cut && strncmp(line + cut, " -", 2) != 0)
            cut--;
        if (cut == 0)
            break;
        printf("%s%.*s \\\n", indent, (int)cut, line);
        line += cut + 1;
        n -= cut + 1;
        indent = "        ";
    }
    printf("%s%.*s\n", indent, (int)n, line);
}

static void print_examples(const char *examples)
{
    printf("\nExamples:\n");
    for (const char *line = examples; *line; line += strspn(line, "\n")) {
        size_t n = strcspn(line, "\n");
        print_command(line, n);
        line += n;
    }
}

void opt_print_help(const struct opt_command *cmd, const struct opt shared[OPT_N_SHARED])
{
    char usage[600];
    snprintf(usage, sizeof usage, "kerf %s %s [options]", cmd->name, cmd->operands);
    fputs("usage: ", stdout);
    opt_print_wrapped(stdout, usage, strlen("usage: "), strlen("usage: "));
    putchar('\n');
    opt_print_wrapped(stdout, cmd->description, 0, 0);
    if (cmd->n_options && cmd->options[0].kind != OPT_HEADING)
        printf("\nOptions:\n");
    for (size_t i = 0; i < opt_n_rows(cmd); i++)
        if (opt_row(cmd, shared, i))
            print_option(opt_row(cmd, shared, i));
    if (cmd->examples)
        print_examples(cmd->examples);
}
