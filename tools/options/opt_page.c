/* opt_page.c - a command's table as a man page, in the man macros of roff.
 *
 * The pages are made while building, by the program itself (`kerf COMMAND --help=man`), so they say what the
 * program does. commands.c makes the one of kerf(1). */
#include "opt_internal.h"
#include "opt_page.h"

#include "tools/cmd.h"

#include <ctype.h>
#include <string.h>

/* Text as roff reads it: no escapes, no requests at the start of a line, hyphens that can be copied. */
void opt_roff(const char *text, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        bool starts = i == 0 || text[i - 1] == '\n';
        if (starts && (text[i] == '.' || text[i] == '\''))
            fputs("\\&", stdout);
        if (text[i] == '\\')
            fputs("\\e", stdout);
        else if (text[i] == '-')
            fputs("\\-", stdout);
        else
            putchar(text[i]);
    }
}

static void roff_text(const char *text)
{
    opt_roff(text, strlen(text));
}

void opt_page_head(const char *name, const char *summary)
{
    printf(".TH \"");
    for (const char *c = name; *c; c++)
        putchar(*c == ' ' ? '-' : toupper((unsigned char)*c));
    printf("\" \"1\" \"%s\" \"kerf %s\" \"User Commands\"\n.SH NAME\n", KERF_RELEASE, KERF_VERSION);
    for (const char *c = name; *c; c++)
        fputs(*c == ' ' || *c == '-' ? "\\-" : (const char[]){*c, 0}, stdout);
    printf(" \\- ");
    roff_text(summary);
    putchar('\n');
}

/* "Metadata:" of a heading, without its colon. */
static void section(const char *heading)
{
    size_t n = strlen(heading);
    printf(".SS ");
    opt_roff(heading, n && heading[n - 1] == ':' ? n - 1 : n);
    putchar('\n');
}

static void option(const struct opt *o)
{
    char dflt[200];
    printf(".TP\n");
    if (o->letter)
        printf("\\fB\\-%c\\fR, ", o->letter);
    printf("\\fB\\-\\-");
    roff_text(o->name);
    printf("\\fR");
    if (o->arg) {
        printf(" \\fI");
        roff_text(o->arg);
        printf("\\fR");
    }
    putchar('\n');
    roff_text(o->help);
    opt_default_text(o, dflt, sizeof dflt);
    if (o->kind == OPT_LIST)
        printf("; may be repeated");
    if (dflt[0]) {
        printf(" (default: ");
        roff_text(dflt);
        putchar(')');
    }
    putchar('\n');
}

static void examples(const char *text)
{
    printf(".SH EXAMPLES\n.nf\n");
    roff_text(text);
    printf("\n.fi\n");
}

void opt_page_tail(void)
{
    printf(
        ".SH EXIT STATUS\n"
        "0 done; 1 failed; 2 wrong usage; 3 a check was not met, or \\-\\-strict and there were warnings.\n"
        ".SH SEE ALSO\n.BR kerf (1)\n");
}

void opt_print_man(const struct opt_command *cmd, const struct opt shared[OPT_N_SHARED])
{
    char name[80];
    snprintf(name, sizeof name, "kerf %s", cmd->name);
    opt_page_head(name, command_summary(cmd->name));
    printf(".SH SYNOPSIS\n.B kerf ");
    roff_text(cmd->name);
    printf("\n");
    roff_text(cmd->operands);
    printf(" [options]\n.SH DESCRIPTION\n");
    roff_text(cmd->description);
    printf("\n.SH OPTIONS\n");
    for (size_t i = 0; i < opt_n_rows(cmd); i++) {
        const struct opt *o = opt_row(cmd, shared, i);
        if (o && o->kind == OPT_HEADING)
            section(o->help);
        else if (o)
            option(o);
    }
    if (cmd->examples)
        examples(cmd->examples);
    opt_page_tail();
}

bool opt_print_as(const char *form, const struct opt_command *cmd, const struct opt shared[OPT_N_SHARED])
{
    static const struct {
        const char *form;
        void (*print)(const struct opt_command *cmd, const struct opt shared[OPT_N_SHARED]);
    } forms[] = {{"man", opt_print_man},
                 {"bash", opt_complete_bash},
                 {"zsh", opt_complete_zsh},
                 {"fish", opt_complete_fish}};
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        if (strcmp(forms[i].form, form) == 0) {
            forms[i].print(cmd, shared);
            return true;
        }
    }
    return false;
}
