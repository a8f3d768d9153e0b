/* commands.h - the table of commands: what main dispatches to, what the overview, kerf(1) and the completion
 * of shells list. */
#ifndef KERF_COMMANDS_H
#define KERF_COMMANDS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

struct command {
    const char *name;                  /* "convert"; "imatrix merge" */
    int (*run)(int argc, char **argv); /* NULL: a part */
    const char *summary;
    bool is_part; /* of the command that its first word names, which finds it itself; not in the overview */
};

size_t command_count(void);
const struct command *command_at(size_t i);

/* The command that main runs for a name; NULL: none. */
const struct command *command_find(const char *name);

/* Of those main runs, the one whose name is near; NULL: none. */
const char *command_nearest(const char *name);

/* What kerf --help prints. */
void command_print_overview(FILE *out);

/* kerf --help=FORM: "man" is kerf(1); "bash", "zsh" and "fish" the completion of all commands; "commands"
 * their names, one a line. False: no such form. */
bool command_print_as(const char *form);

#endif
