/* type_options.h - options whose values are types: a tensor type, a mix, "REGEX=TYPE"; and the rows of option
 * tables that say how a mix is applied.
 *
 * Each function answers 0, or the exit status of an error that it has explained: CMD_USAGE, or CMD_FAILED
 * when memory is refused. */
#ifndef KERF_TYPE_OPTIONS_H
#define KERF_TYPE_OPTIONS_H

#include "tools/cmd.h"

#include "formats/recipe/recipe.h"

#define IMATRIX_OPTION(imatrix) OPT(TEXT, "imatrix", &(imatrix), "FILE", "importance matrix (.gguf or .dat)")

/* There are no other rules yet, so --help does not list it. */
#define RECIPE_OPTION(recipe)                                                                                \
    OPT(CHOICE, "recipe", &(recipe), "llama.cpp", "rules of the mixes", .hidden = true)

#define REQUANTIZE_OPTION(requantize)                                                                        \
    OPT(FLAG, "allow-requantize", &(requantize), NULL, "requantize tensors that are quantized already")

/* The names of all mixes, or of all tensor types, that can be written, separated by spaces, on standard
 * output.
 */
void print_type_names(bool mixes);

/* A tensor type that can be written; `option` opens the message. */
int parse_tensor_type(const struct opt_command *cmd, const char *option, const char *text, enum qtype *out);

/* A mix. */
int parse_mix(const struct opt_command *cmd, const char *option, const char *text, const struct mix **out);

/* The mix whose name is closest to the word, or NULL when none is near. Borrowed. */
const char *nearest_mix(const char *text);

/* A list of them, separated by commas; NULL: the levels of a ladder. 0, or the exit status after the message.
 * *out: caller frees with free(). */
int parse_mixes(const struct opt_command *cmd, const char *option, const char *text, const struct mix ***out,
                size_t *n);

/* "REGEX=TYPE": the last '=' divides, since a pattern may hold one. The pattern compiles. *pattern: caller
 * frees. */
int parse_type_rule(const struct opt_command *cmd, const char *option, const char *text, char **pattern,
                    enum qtype *type);

#endif
