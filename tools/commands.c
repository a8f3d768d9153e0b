/* commands.c - see commands.h. */
#include "commands.h"

#include "cmd.h"
#include "tools/options/opt_page.h"

#include <stdio.h>
#include <string.h>

static const struct command commands[] = {
    {"inspect", cmd_inspect, "metadata, tensors and sizes of a model or importance file", false},
    {"convert", cmd_convert, "checkpoint to GGUF, at source precision or straight to any type", false},
    {"quantize", cmd_quantize, "model to GGUF with new tensor types", false},
    {"tokenize", cmd_tokenize, "text to token ids, as the model's tokenizer gives them", false},
    {"imatrix", cmd_imatrix, "collect, merge, show or convert importance matrices", false},
    {"imatrix merge", NULL, "add importance matrices", true},
    {"imatrix convert", NULL, "write an importance matrix in the other form", true},
    {"imatrix show", NULL, "statistics of an importance matrix", true},
    {"hessian", cmd_hessian, "collect or merge Hessians, for quantizing with error feedback", false},
    {"hessian merge", NULL, "add Hessians of the same model", true},
    {"perplexity", cmd_perplexity, "perplexity of a model on a text", false},
    {"compare", cmd_compare, "what candidates lose against a reference, in one pass over a text", false},
    {"ladder", cmd_ladder, "quality of every level from Q8_0 to Q2_K, without writing files", false},
    {"score", cmd_score, "multiple choice, short answers and texts: accuracy, paired difference, flips",
     false},
    {"allocate", cmd_allocate, "per-tensor types of least expected loss within a budget", false},
    {"best", cmd_best, "the best file of a size: plan, error feedback and a held-out report in one go",
     false},
    {"fit", cmd_fit, "which levels of a model fit into a memory, with the cache of a context", false},
    {"diff", cmd_diff, "tensors and metadata that differ between two models", false},
    {"hash", cmd_hash, "SHA-256 per tensor and of the whole model content", false},
    {"edit", cmd_edit, "change metadata, or leave out layers and experts", false},
    {"split", cmd_split, "split a GGUF file into parts", false},
    {"merge", cmd_merge, "merge the parts of a split GGUF file", false},
    {"verify", cmd_verify, "structure, shapes, finite values, block validity", false},
};
#define N_COMMANDS (sizeof commands / sizeof *commands)

#define PURPOSE                                                                                              \
    "Quantize and convert language models: a HuggingFace checkpoint goes in, a GGUF\n"                       \
    "file of any precision comes out, with the measured loss beside it.\n"

size_t command_count(void)
{
    return N_COMMANDS;
}

const struct command *command_at(size_t i)
{
    return &commands[i];
}

const struct command *command_find(const char *name)
{
    for (size_t i = 0; i < N_COMMANDS; i++)
        if (!commands[i].is_part && strcmp(commands[i].name, name) == 0)
            return &commands[i];
    return NULL;
}

const char *command_nearest(const char *name)
{
    const char *names[N_COMMANDS];
    size_t n = 0;
    for (size_t i = 0; i < N_COMMANDS; i++)
        if (!commands[i].is_part)
            names[n++] = commands[i].name;
    return opt_nearest(name, names, n);
}

const char *command_summary(const char *name)
{
    for (size_t i = 0; i < N_COMMANDS; i++)
        if (strcmp(commands[i].name, name) == 0)
            return commands[i].summary;
    return "";
}

void command_print_overview(FILE *out)
{
    fputs("usage: kerf COMMAND [options]\n\n" PURPOSE "\nCommands:\n", out);
    for (size_t i = 0; i < N_COMMANDS; i++)
        if (!commands[i].is_part)
            opt_print_wrapped(out, commands[i].summary, (size_t)fprintf(out, "  %-12s ", commands[i].name),
                              15);
    fputs("\n'kerf COMMAND --help' describes a command. Exit codes: 0 done, 1 failed, 2 wrong\n"
          "usage, 3 a check was not met, or --strict and there were warnings.\n",
          out);
}

/* --- other forms --- */

/* "imatrix merge" as "imatrix-merge", the name of its page. */
static void print_page_name(const char *name)
{
    for (; *name; name++)
        fputs(*name == ' ' ? "\\-" : (const char[]){*name, 0}, stdout);
}

static void print_page(void)
{
    opt_page_head("kerf", "quantize and convert language models");
    printf(".SH SYNOPSIS\n.B kerf\n\\fICOMMAND\\fR [options]\n.SH DESCRIPTION\n");
    opt_roff(PURPOSE, strlen(PURPOSE));
    printf("Each command has a page of its own, and \\fBkerf\\fR \\fICOMMAND\\fR \\fB\\-\\-help\\fR says the "
           "same.\n"
           ".SH COMMANDS\n");
    for (size_t i = 0; i < N_COMMANDS; i++) {
        printf(".TP\n.BR kerf\\-");
        print_page_name(commands[i].name);
        printf(" (1)\n");
        opt_roff(commands[i].summary, strlen(commands[i].summary));
        putchar('\n');
    }
    opt_page_tail();
}

static void print_names(void)
{
    for (size_t i = 0; i < N_COMMANDS; i++)
        printf("%s\n", commands[i].name);
}

/* The part of every command, from its own table. */
static void print_parts(const char *form)
{
    char option[32], name[32];
    snprintf(option, sizeof option, "--help=%s", form);
    for (size_t i = 0; i < N_COMMANDS; i++) {
        snprintf(name, sizeof name, "%s", commands[i].name);
        char *space = strchr(name, ' ');
        if (space)
            *space = 0;
        char *argv[] = {name, space ? space + 1 : option, option, NULL};
        const struct command *c = command_find(name);
        c->run(space ? 3 : 2, argv);
    }
}

/* " inspect convert ...": what may follow "kerf". */
static void print_command_words(void)
{
    for (size_t i = 0; i < N_COMMANDS; i++)
        if (!commands[i].is_part)
            printf(" %s", commands[i].name);
}

/* Branches of a shell's `case $command`: what may follow "kerf imatrix", into the variable `parts`. */
static void print_part_words(void)
{
    for (size_t i = 0; i < N_COMMANDS; i++) {
        size_t n = strlen(commands[i].name);
        if (i + 1 == N_COMMANDS || commands[i].is_part || !commands[i + 1].is_part)
            continue;
        printf("    %s) parts='", commands[i].name);
        for (size_t part = i + 1; part < N_COMMANDS && commands[part].is_part; part++)
            printf("%s ", commands[part].name + n + 1);
        printf("' ;;\n");
    }
}

static void print_bash(void)
{
    printf("# Completion of kerf for bash, made from its option tables.\n"
           "_kerf()\n{\n"
           "    local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD-1]}\n"
           "    local command=${COMP_WORDS[1]} options='' value='' words='' parts=''\n"
           "    if [ \"$COMP_CWORD\" -eq 1 ]; then\n        words='");
    print_command_words();
    printf(
        " help'\n        mapfile -t COMPREPLY < <(compgen -W \"$words --help --version\" -- \"$current\")\n"
        "        return\n    fi\n    case $command in\n");
    print_part_words();
    printf("    esac\n"
           "    if [ \"$COMP_CWORD\" -gt 2 ] && [[ \" $parts\" == *\" ${COMP_WORDS[2]} \"* ]]; then\n"
           "        command=\"$command ${COMP_WORDS[2]}\"\n"
           "    elif [ \"$COMP_CWORD\" -eq 2 ]; then\n        words=$parts\n    fi\n"
           "    case $command in\n");
    print_parts("bash");
    printf("    esac\n"
           "    if [ \"$value\" = other ]; then\n        COMPREPLY=()\n"
           "    elif [ \"$value\" = words ]; then\n"
           "        mapfile -t COMPREPLY < <(compgen -W \"$words\" -- \"$current\")\n"
           "    elif [ \"$value\" = '' ] && [[ $current == -* ]]; then\n"
           "        mapfile -t COMPREPLY < <(compgen -W \"$options\" -- \"$current\")\n"
           "    else\n"
           "        mapfile -t COMPREPLY < <(compgen -W \"$words\" -- \"$current\"; compgen -f -- "
           "\"$current\")\n"
           "        compopt -o filenames 2>/dev/null\n"
           "    fi\n}\ncomplete -F _kerf kerf\n");
}

static void print_zsh(void)
{
    printf("#compdef kerf\n# Completion of kerf for zsh, made from its option tables.\n"
           "_kerf()\n{\n    local command=$words[2] parts=''\n"
           "    if (( CURRENT == 2 )); then\n        compadd --");
    print_command_words();
    printf(" help\n        return\n    fi\n    case $command in\n");
    print_part_words();
    printf(
        "    esac\n"
        "    (( CURRENT == 3 )) && compadd -- ${=parts}\n"
        "    (( CURRENT > 3 )) && [[ \" $parts\" == *\" $words[3] \"* ]] && command=\"$command $words[3]\"\n"
        "    shift words; (( CURRENT-- ))\n"
        "    case $command in\n");
    print_parts("zsh");
    printf("    esac\n}\n_kerf \"$@\"\n");
}

static void print_fish(void)
{
    printf("# Completion of kerf for fish, made from its option tables.\n");
    for (size_t i = 0; i < N_COMMANDS; i++) {
        const char *space = strchr(commands[i].name, ' ');
        if (space)
            printf("complete -c kerf -n '__fish_seen_subcommand_from %.*s' -a '%s' -d '",
                   (int)(space - commands[i].name), commands[i].name, space + 1);
        else
            printf("complete -c kerf -n __fish_use_subcommand -f -a '%s' -d '", commands[i].name);
        for (const char *c = commands[i].summary; *c; c++)
            fputs(*c == '\'' ? "\\'" : (const char[]){*c, 0}, stdout);
        printf("'\n");
    }
    print_parts("fish");
}

bool command_print_as(const char *form)
{
    static const struct {
        const char *form;
        void (*print)(void);
    } forms[] = {{"man", print_page},
                 {"bash", print_bash},
                 {"zsh", print_zsh},
                 {"fish", print_fish},
                 {"commands", print_names}};
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        if (strcmp(forms[i].form, form) == 0) {
            forms[i].print();
            return true;
        }
    }
    return false;
}
