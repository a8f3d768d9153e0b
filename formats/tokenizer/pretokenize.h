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

enum pretokenizer { PRE_QWEN2, PRE_QWEN35, PRE_LLAMA3, PRE_GPT2, PRE_STARCODER };

/* What a `tokenizer.ggml.pre` name implies for programs that read the file. */
struct pretokenizer_info {
    const char *name;
    enum pretokenizer kind;
    bool ignore_merges, add_bos; /* defaults of the runtimes */
    bool nfc;                    /* what the models of that name do; see vocabulary_to_gguf */
};

/* NULL when the name is unknown here. */
const struct pretokenizer_info *pretokenizer_find(const char *name);

/* The pattern of tokenizer.json's Split -> its kind; false when it is none of ours. */
bool pretokenizer_from_pattern(const char *pattern, enum pretokenizer *out);

struct pretokenize {
    enum pretokenizer kind;
    const uint8_t *p, *end;
    const uint8_t *limit; /* starcoder: where the next digit stands */
};

/* `text` is valid UTF-8, borrowed while iterating. */
void pretokenize_begin(struct pretokenize *it, enum pretokenizer kind, const char *text, size_t len);

/* False at the end of the text. */
bool pretokenize_next(struct pretokenize *it, const char **piece, size_t *len);

#endif
