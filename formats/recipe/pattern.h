/* pattern.h - a guard over PCRE2: patterns of users against tensor names, with bounded work.
 *
 * Patterns are case-sensitive and see names as bytes. PCRE2 is visible in pattern.c only. */
#ifndef KERF_PATTERN_H
#define KERF_PATTERN_H

#include "libquant/base/err.h"

#include <stdbool.h>
#include <stddef.h>

struct pattern;

/* Compile `text` (`len` bytes, at most 4096). `whole`: must match the whole name, else anywhere in it.
 * *out: caller frees with pattern_free. ERR_ARG quotes the pattern and says what is wrong where. */
int pattern_new(struct pattern **out, const char *text, size_t len, bool whole, struct err *e);
void pattern_free(struct pattern *p);

/* *matches: whether `name` matches. ERR_ARG when finding out takes more than a fixed number of steps
 * (catastrophic backtracking). Not for several threads at once. */
int pattern_test(bool *matches, const struct pattern *p, const char *name, struct err *e);

#endif
