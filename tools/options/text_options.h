/* text_options.h - rows of option tables about texts and how they are run, for commands that do not take all
 * of TEXT_OPTIONS (measure/eval_command.h). */
#ifndef KERF_TEXT_OPTIONS_H
#define KERF_TEXT_OPTIONS_H

#include "opt.h"

#define PARSE_SPECIAL_OPTION(v)                                                                              \
    OPT(FLAG, "parse-special", &(v), NULL,                                                                   \
        "read the text of control tokens, such as <|im_end|>, as control tokens")

#define ACTIVATIONS_OPTION(v, ...)                                                                           \
    OPT(CHOICE, "activations", &(v), "f32|q8",                                                               \
        "precision of the inputs of products: exact, or rounded as the llama.cpp CPU runtime does",          \
        __VA_ARGS__)

#endif
