/* opt_internal.h - between opt.c and opt_help.c. */
#ifndef KERF_OPT_INTERNAL_H
#define KERF_OPT_INTERNAL_H

#include "opt.h"

#define OPT_N_SHARED 12

/* The table of shared options over `shared`; help and version end the parse. */
void opt_shared_table(struct opt table[OPT_N_SHARED], struct shared_options *shared, bool *help,
                      bool *version);

/* 4GiB rather than 4294967296, when that is exact. */
void opt_size_text(char *out, size_t n, uint64_t v);

void opt_print_help(const struct opt_command *cmd, const struct opt shared[OPT_N_SHARED]);

/* Explain on stderr and return the exit status of wrong usage. */
int opt_usage(const struct opt_command *cmd, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
