/* tokenizer.h - text to token ids and back, for the vocabularies of vocabulary.h. Linear time in the text;
 * NUL bytes and invalid UTF-8 are data, not errors. */
#ifndef KERF_TOKENIZER_H
#define KERF_TOKENIZER_H

#include "vocabulary.h"

struct tokenizer;

/* Borrows `v` until tokenizer_free. */
int tokenizer_new(struct tokenizer **out, const struct vocabulary *v, struct err *e);
void tokenizer_free(struct tokenizer *t);

struct tokenize_options {
    bool add_special;   /* BOS/EOS as the vocabulary says */
    bool parse_special; /* control-token text becomes control tokens; user-defined tokens are always
                           recognised */
};

/* *ids: malloc'ed, caller frees with free(); *n_ids its length. */
int tokenizer_encode(const struct tokenizer *t, const char *text, size_t len,
                     const struct tokenize_options *opt, int32_t **ids, size_t *n_ids, struct err *e);

/* The bytes a token stands for; *len its length. Borrowed until tokenizer_free. "" and 0 for ids out of
 * range. */
const char *tokenizer_piece(const struct tokenizer *t, int32_t id, size_t *len);

bool tokenizer_adds_bos(const struct tokenizer *t);
bool tokenizer_adds_eos(const struct tokenizer *t);

#endif
