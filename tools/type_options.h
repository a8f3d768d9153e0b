/* type_options.h - options whose values are types: a tensor type, a mix, "REGEX=TYPE"; and the rows of option
 * tables that say how a mix is applied.
 *
 * Each function answers 0, or the exit status of an error that it has explained: CMD_USAGE, or CMD_FAILED
 * when memory is refused. */
#ifndef KERF_TYPE_OPTIONS_H
#define KERF_TYPE_OPTIONS_H

#include "cmd.h"

#include "formats/recipe/recipe.h"

#define IMATRIX_OPTION(imatrix)                                                                              \
    {                                                                                                        \
        .name = "imatrix", .kind = OPT_TEXT, .value = &(imatrix), .arg = "FILE",                             \
        .help = "importance matrix (.gguf or .dat)"                                                          \
    }

#define RECIPE_OPTION(recipe)                                                                                \
    {                                                                                                        \
        .name = "recipe", .kind = OPT_CHOICE, .value = &(recipe), .arg = "llama.cpp|kerf",                   \
        .help = "rules of the mixes; llama.cpp gives each tensor the type that llama.cpp gives it"           \
    }

#define REQUANTIZE_OPTION(requantize)                                                                        \
    {                                                                                                        \
        .name = "allow-requantize", .kind = OPT_FLAG, .value = &(requantize),                                \
        .help = "let tensors that are quantized already change type"                                         \
    }

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
