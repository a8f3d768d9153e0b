/* pretokenize_stages.h - pre-tokenizers that cut in several steps: each step cuts every stretch that the step
 * before left, into its matches and what lies between them. Inside formats/tokenizer. */
#ifndef KERF_PRETOKENIZE_STAGES_H
#define KERF_PRETOKENIZE_STAGES_H

#include "pretokenize.h"

/* The scripts that AFMoE's vocabulary keeps apart, as a set for in_set. The third range is as runtimes have
 * it; U+F900 is what its author may have meant. */
#define PRETOKENIZE_EAST_ASIA                                                                                \
    "\u4e00-\u9fff\u3400-\u4dbf\u8c48-\ufaff\u3040-\u309f\u30a0-\u30ff\uff65-\uff9f\u2f00-\u2fdf"            \
    "\u0e40-\u0e7f\u0e80-\u0eff\u1780-\u17ff\u1000-\u109f\uaa60-\uaa7f\ua9e0-\ua9ff\uac00-\ud7af"            \
    "\u1100-\u11ff"

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
const uint8_t *pretokenize_llama3(const uint8_t *p, const uint8_t *end);
/* Llama 3's pattern with digits in runs of any length. */
const uint8_t *pretokenize_llama3_long(const uint8_t *p, const uint8_t *end);

#endif
