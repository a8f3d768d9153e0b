/* text_options.h - rows of option tables about texts and how they are run, for commands that do not take all
 * of TEXT_OPTIONS (measure/eval_command.h), and the reading of what they give. */
#ifndef KERF_TEXT_OPTIONS_H
#define KERF_TEXT_OPTIONS_H

#include "opt.h"

#include "libquant/base/err.h"

#define IDS_OPTION(v)                                                                                        \
    OPT(TEXT, "ids", &(v), "FILE",                                                                           \
        "token ids in place of a text: a JSON array, or what kerf tokenize prints, with or without --json")

#define JSONL_OPTION(v)                                                                                      \
    OPT(TEXT, "jsonl", &(v), "FIELD",                                                                        \
        "the texts are JSON lines; FIELD of each is used: a string, or a list of {role, content} messages "  \
        "for the chat template")

#define PARSE_SPECIAL_OPTION(v)                                                                              \
    OPT(FLAG, "parse-special", &(v), NULL,                                                                   \
        "read the text of control tokens, such as <|im_end|>, as control tokens")

#define ACTIVATIONS_OPTION(v, ...)                                                                           \
    OPT(CHOICE, "activations", &(v), "f32|q8",                                                               \
        "precision of the inputs of products: exact, or rounded as the llama.cpp CPU runtime does",          \
        __VA_ARGS__)

/* What --text, --ids and --jsonl say; all borrowed. */
struct given_text {
    const struct opt_list *texts;
    const char *ids, *jsonl; /* NULL: not given */
    bool parse_special;
    bool answers; /* of chats: note what the assistant wrote (corpus.h) */
};

struct corpus;
struct model;
struct shared_options;

bool given_text_is_there(const struct given_text *g);

/* What excludes what; 0, or the status of a usage error. */
int given_text_check(const struct opt_command *cmd, const struct given_text *g);

/* ERR_ARG when the output `path` is one of the files. */
int given_text_check_output(const struct given_text *g, const char *path, struct err *e);

/* Read it as running text into *c, with the vocabulary of `m`, which ids do without; what is doubtful about
 * it is warned of. *bos: the token that begins each window, -1: none. */
int given_text_read(struct corpus *c, int32_t *bos, const struct given_text *g, struct model *m,
                    const struct shared_options *s, struct err *e);

/* Vocabulary and tokenizer of the model that texts are read with; a model without is told of --ids. *t:
 * caller frees with tokenizer_free. */
struct tokenizer;
struct vocabulary;
int given_text_tokenizer(struct tokenizer **t, const struct vocabulary **v, struct model *m,
                         const struct shared_options *s, struct err *e);

/* What of the texts of a corpus is read as it stands, and perhaps was not meant to be. */
void given_text_warn(const struct corpus *c, const struct shared_options *s);

#endif
