/* tokenizer.h - text to token ids and back, for the vocabularies of vocabulary.h.
 *
 *     struct tokenizer *t;
 *     if (tokenizer_new(&t, vocabulary, &e) != 0) return report(&e);
 *     tokenizer_encode(t, text, len, &(struct tokenize_options){.add_special = true}, &ids, &n, &e);
 *
 * Ids are those of the HuggingFace tokenizers (specification, architectures 19.7, 19.8). The text may be of
 * any length, with or without line ends, and is data in every byte: NUL is a character, and bytes that are
 * not UTF-8 count as U+FFFD, one for each maximal ill-formed part (what Python's errors="replace" makes of
 * them). Time is O(n log n) in the longest word, linear otherwise; memory beside the ids is a copy of the
 * text if it changes (repair, NFC) and about 20 bytes for each byte of the longest word. A tokenizer is
 * immutable, so threads may share it. */
#ifndef KERF_TOKENIZER_H
#define KERF_TOKENIZER_H

#include "vocabulary.h"

struct tokenizer;

/* Borrows `v` until tokenizer_free. ERR_UNSUPPORTED when the pre-tokenizer is unknown. */
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

/* Is this a control token, such as <|im_start|>? */
bool tokenizer_is_control(const struct tokenizer *t, int32_t id);

bool tokenizer_adds_bos(const struct tokenizer *t);
bool tokenizer_adds_eos(const struct tokenizer *t);

#endif
