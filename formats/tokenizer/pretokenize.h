/* pretokenize.h - cuts text into the pieces that byte-level BPE works on, one after the other, in linear
 * time.
 *
 *     struct pretokenize p;
 *     pretokenize_begin(&p, PRE_QWEN2, text, len);
 *     while (pretokenize_next(&p, &piece, &n)) use(piece, n);
 *
 * The patterns are those of the tokenizers' own files (specification, architectures 19.3), matched by hand: a
 * regular expression engine would need back-tracking stack in proportion to the longest run of white space.
 * The pieces are views of the text, in order, without gap. */
#ifndef KERF_PRETOKENIZE_H
#define KERF_PRETOKENIZE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum pretokenizer {
    PRE_QWEN2,
    PRE_QWEN35,
    PRE_LLAMA3,
    PRE_GPT2,
    PRE_STARCODER,
    PRE_DEEPSEEK_LLM, /* from here on in steps, pretokenize_stages.c */
    PRE_DEEPSEEK_CODER,
    PRE_DEEPSEEK_V3,
    PRE_FALCON,
    PRE_DEFAULT,
    PRE_TEKKEN,
    PRE_GPT4O,
    PRE_KIMI_K2,
    PRE_BLOOM,
    PRE_VIKING,
    PRE_MINICPM5,
    PRE_SEED_CODER,
    PRE_LAGUNA,
    PRE_EXAONE_MOE,
    PRE_JAIS2,
    PRE_YOUTU,
    PRE_CHAMELEON,
    PRE_AFMOE,
    PRE_SUPERBPE,
    PRE_TINY_AYA,
    PRE_LINES, /* from here on for BPE on the characters of a text instead of its bytes, see bpe.h */
    PRE_WORDS,
    PRE_COUNT,
};

enum { PRE_MAX_STEPS = 6 };

/* What a `tokenizer.ggml.pre` name implies for programs that read the file. */
struct pretokenizer_info {
    const char *name;
    enum pretokenizer kind;
    bool ignore_merges, add_bos; /* defaults of the runtimes */
    bool nfc;                    /* what the models of that name do; see vocabulary_to_gguf */
};

/* Do the tokens of the kind hold text as it is, with U+2581 for a space or not, and not the byte alphabet? */
static inline bool pretokenizer_is_plain(enum pretokenizer kind)
{
    return kind == PRE_LINES || kind == PRE_WORDS;
}

/* NULL when the name is unknown here. */
const struct pretokenizer_info *pretokenizer_find(const char *name);

/* The steps of tokenizer.json, as patterns in order -> their kind; false when they are none of ours. Line
 * ends may stand in a pattern as they are or escaped. A step of digits or punctuation has the pattern that
 * says the same; the last step, of byte-level pieces, is PRETOKENIZE_GPT2 or not there. */
#define PRETOKENIZE_GPT2        "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"
#define PRETOKENIZE_PUNCTUATION "[\\p{P}\\$\\+<=>\\^~\\|`]+"
#define PRETOKENIZE_ONE_SIGN    "[\\p{P}!-/:-@\\[-`{-~]"
bool pretokenizer_from_patterns(const char *const *patterns, size_t n, enum pretokenizer *out);

/* What a file calls the kind; NULL for the five that the caller tells apart further. */
const char *pretokenizer_name(enum pretokenizer kind);

/* A stretch of one step, and the next match in it. */
struct pretokenize_level {
    const uint8_t *p, *end, *from, *to;
};

struct pretokenize {
    enum pretokenizer kind;
    const uint8_t *p, *end;
    const uint8_t *limit; /* starcoder: where the next digit stands */
    struct pretokenize_level level[PRE_MAX_STEPS];
};

/* `text` is valid UTF-8, borrowed while iterating. */
void pretokenize_begin(struct pretokenize *it, enum pretokenizer kind, const char *text, size_t len);

/* False at the end of the text. */
bool pretokenize_next(struct pretokenize *it, const char **piece, size_t *len);

#endif
