/* opt_internal.h - between the files of opt. */
#ifndef KERF_OPT_INTERNAL_H
#define KERF_OPT_INTERNAL_H

#include "opt.h"

#include <stdio.h>

#define OPT_N_SHARED 13

/* The table of shared options over `shared`; help and version end the parse. Those that the command has no
 * use for are marked hidden and are refused by the parser. */
void opt_shared_table(struct opt table[OPT_N_SHARED], const struct opt_command *cmd,
                      struct shared_options *shared, bool *help, bool *version);

/* 4GiB rather than 4294967296, when that is exact. */
void opt_size_text(char *out, size_t n, uint64_t v);

/* The default in words; "" when there is none worth telling. */
void opt_default_text(const struct opt *o, char *out, size_t n);

/* Row i of what --help lists: the command's rows and the shared ones, without hidden rows and without those
 * that an earlier row redefines; headings included. NULL: such a row; i < opt_n_rows. */
size_t opt_n_rows(const struct opt_command *cmd);
const struct opt *opt_row(const struct opt_command *cmd, const struct opt shared[OPT_N_SHARED], size_t i);

/* What an option of llama.cpp is called here ("--ctx N"), if one of the n options of the command, or a
 * command, does its job; else NULL. `word` has no dashes. */
const char *opt_name_of_peer(const char *word, const char *const *options, size_t n);

void opt_print_help(const struct opt_command *cmd, const struct opt shared[OPT_N_SHARED]);

/* The same table in another form on standard output: "man", "bash", "zsh", "fish" (opt_page.c,
 * opt_complete.c). False: no such form. */
bool opt_print_as(const char *form, const struct opt_command *cmd, const struct opt shared[OPT_N_SHARED]);
void opt_print_man(const struct opt_command *cmd, const struct opt shared[OPT_N_SHARED]);
void opt_complete_bash(const struct opt_command *cmd, const struct opt shared[OPT_N_SHARED]);
void opt_complete_zsh(const struct opt_command *cmd, const struct opt shared[OPT_N_SHARED]);
void opt_complete_fish(const struct opt_command *cmd, const struct opt shared[OPT_N_SHARED]);

/* Explain on stderr and return the exit status of wrong usage. */
int opt_usage(const struct opt_command *cmd, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
