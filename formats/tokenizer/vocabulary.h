/* vocabulary.h - tokens, merges and special ids as data, whatever they were read from.
 *
 *     struct vocabulary *v;
 *     if (vocabulary_load_hf(&v, folder, config, n_rows, &e) != 0) return report(&e);
 *     vocabulary_to_gguf(v, meta, &e);
 *     vocabulary_free(v);
 *
 * Sources: tokenizer.json, vocab.json + merges.txt, SentencePiece tokenizer.model, tiktoken rank files, GGUF
 * metadata. What the files say that could not be honoured is listed in `warnings`, which the caller shows.
 * Truth: specification, architectures 19. */
#ifndef KERF_VOCABULARY_H
#define KERF_VOCABULARY_H

#include "formats/gguf/gguf_meta.h"
#include "formats/hf/hf_config.h"

enum vocab_model { VOCAB_BPE, VOCAB_SPM }; /* GGUF "gpt2" and "llama" */

enum token_type { /* ids fixed by GGUF */
                  TOKEN_NORMAL = 1,
                  TOKEN_UNKNOWN = 2,
                  TOKEN_CONTROL = 3,
                  TOKEN_USER_DEFINED = 4,
                  TOKEN_UNUSED = 5,
                  TOKEN_BYTE = 6,
};

struct vocab_token {
    const char
        *text; /* NUL-terminated; byte-level alphabet for normal BPE tokens, plain UTF-8 for types 3 and 4 */
    uint32_t len;
    enum token_type type;
    float score; /* SentencePiece only */
    /* Of added tokens (types 3 and 4) read from HuggingFace files; GGUF cannot say them. `normalized`: looked
     * for in the normalised text instead of the raw one; l/rstrip: white space beside it belongs to it. */
    bool lstrip, rstrip, single_word, normalized;
};

struct vocab_merge {
    const char *text; /* "left right" */
    uint32_t len;
};

enum vocab_flag { VOCAB_FLAG_UNSET = -1, VOCAB_FLAG_FALSE = 0, VOCAB_FLAG_TRUE = 1 };

struct vocabulary {
    enum vocab_model model;
    const char *pre; /* "qwen2", "qwen35", "llama-bpe", "gpt-2", "default", ... */
    size_t n_tokens;
    struct vocab_token *tokens;
    size_t n_merges;
    struct vocab_merge *merges;
    int64_t bos, eos, unk, sep, pad, mask, eot, eom; /* -1: none */
    enum vocab_flag add_bos, add_eos, add_sep, add_space_prefix;
    bool nfc;                  /* normalise text to NFC before splitting */
    bool ignore_merges;        /* a pre-token that is a vocabulary entry is emitted whole */
    const char *chat_template; /* NULL: none */
    size_t n_named_templates;
    struct vocab_template {
        const char *name, *text;
    } * named_templates;
    size_t n_warnings;
    const char **warnings;
    void *owner; /* internal: arena and buffers */
};

/* From a HuggingFace folder; `config` (may be NULL) supplies vocab_size, special ids and the architecture.
 * Decides pre-tokenizer and model from the content. `n_rows`: rows of the embedding matrix (0: take the
 * config's vocab_size, and without one as many as there are tokens). Ids nobody assigned become `[PAD<id>]`,
 * type unused. ERR_IO: no tokenizer files; ERR_UNSUPPORTED: a tokenizer that this project cannot reproduce.
 * *out: caller frees with vocabulary_free. */
int vocabulary_load_hf(struct vocabulary **out, const char *folder, const struct hf_config *config,
                       uint64_t n_rows, struct err *e);

/* Put tokens of one type behind all others; the texts are copied, none may be there already. */
int vocabulary_append(struct vocabulary *v, const char *const *texts, size_t n, enum token_type type,
                      struct err *e);

/* From the tokenizer.* keys; copies what it needs, so `meta` may go first. */
int vocabulary_from_gguf(struct vocabulary **out, const struct gguf_meta *meta, struct err *e);

/* Write the tokenizer.* keys in the order and with the types of specification, architectures 19.1. Refuses
 * empty or repeated token texts (runtimes abort on them). Two private keys, tokenizer.kerf.normalizer ("NFC"
 * or "none") and tokenizer.kerf.ignore_merges, are written only where the pre-tokenizer's name implies
 * another value. */
int vocabulary_to_gguf(const struct vocabulary *v, struct gguf_meta *meta, struct err *e);
void vocabulary_free(struct vocabulary *v);

#endif
