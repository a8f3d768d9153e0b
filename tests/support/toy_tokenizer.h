/* toy_tokenizer.h - a small but valid byte-level BPE tokenizer of any vocabulary size, in HuggingFace form.
 *
 * 256 byte tokens, merges of letters that fill the vocabulary, and three special tokens at its end, with the
 * pre-tokenizer of Qwen2. Every merge joins two tokens of the vocabulary into a third, all texts differ. */
#ifndef KERF_TOY_TOKENIZER_H
#define KERF_TOY_TOKENIZER_H

#include "libquant/base/err.h"

#include <stdint.h>

#define TOY_N_SPECIAL 3 /* <|endoftext|>, <|im_start|>, <|im_end|>: the last ids */

/* Write tokenizer.json and tokenizer_config.json into `folder`. n_vocab is at least 256 + TOY_N_SPECIAL. */
int toy_tokenizer_write(const char *folder, uint32_t n_vocab, uint64_t seed, struct err *e);

#endif
