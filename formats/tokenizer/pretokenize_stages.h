/* pretokenize_stages.h - pre-tokenizers that cut in several steps: each step cuts every stretch that the step
 * before left, into its matches and what lies between them. Inside formats/tokenizer. */
#ifndef KERF_PRETOKENIZE_STAGES_H
#define KERF_PRETOKENIZE_STAGES_H

#include "pretokenize.h"

/* The end of the match that begins at `p`, or NULL. Sees nothing behind `end`, as if the text ended there. */
typedef const uint8_t *(*pretokenize_match)(const uint8_t *p, const uint8_t *end);

/* Are these the steps of DeepSeek LLM? Its pattern of letters is a long set, kept where it is matched. */
bool pretokenizer_is_deepseek_llm(const char *const *patterns, size_t n);

/* The steps of a kind; ended by NULL. NULL: a kind of one step, which pretokenize.c matches itself. */
const pretokenize_match *pretokenize_stages(enum pretokenizer kind);

/* The next piece of a kind with steps. False at the end of the text. */
bool pretokenize_next_stage(struct pretokenize *it, const uint8_t **piece, const uint8_t **stop);

/* --- matchers of pretokenize.c that steps are made of --- */

/* Class of the code point at `p` (0 at the end), and where the next one starts. */
int pretokenize_class(const uint8_t *p, const uint8_t *end, const uint8_t **next);
const uint8_t *pretokenize_contraction(const uint8_t *p, const uint8_t *end, bool fold);
/* \s*[\r\n]+ (with `newlines`) | \s+(?!\S) | \s+ at white space */
const uint8_t *pretokenize_space(const uint8_t *p, const uint8_t *end, bool newlines);
const uint8_t *pretokenize_gpt2(const uint8_t *p, const uint8_t *end);
const uint8_t *pretokenize_qwen2(const uint8_t *p, const uint8_t *end);
/* Llama 3's pattern with digits in runs of any length. */
const uint8_t *pretokenize_llama3_long(const uint8_t *p, const uint8_t *end);

#endif
