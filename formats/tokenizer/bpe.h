/* bpe.h - byte-level BPE (specification, architectures 19.8, 3 to 6): words of a normalised text to token
 * ids. Internal. */
#ifndef KERF_BPE_H
#define KERF_BPE_H

#include "encode_work.h"
#include "libquant/base/arena.h"
#include "libquant/base/slice.h"
#include "libquant/base/strmap.h"
#include "pretokenize.h"
#include "vocabulary.h"

/* A symbol below n_tokens is that token; the others are texts that occur in merges but are no token.
 *
 * `plain`: the other kind of BPE, whose symbols begin as the characters of a text, with U+2581 in the place
 * of spaces where `escape`; what no token has the form of becomes the tokens of its bytes, "<0x0A>", and
 * vanishes where there are none, as in llama.cpp (Gemma 4, Sarvam, and the words of
 * jina-embeddings-v2-base-zh). */
struct bpe {
    enum pretokenizer kind;
    bool ignore_merges, plain, escape;
    uint32_t n_tokens;
    uint32_t byte_symbol[256]; /* n_tokens or more: none */
    struct strmap symbols;     /* bytes -> symbol */
    struct merge_table merges;
    struct slice *extra; /* bytes of symbol n_tokens + i; malloc'ed */
    size_t n_extra, cap_extra;
};

/* Token texts are kept in `arena` as bytes; `pieces` (may be NULL, n_tokens long) receives those of each
 * token. */
int bpe_init(struct bpe *b, const struct vocabulary *v, struct arena *arena, struct slice *pieces,
             struct err *e);
void bpe_release(struct bpe *b);

/* Encode valid UTF-8 without special tokens, appending to w. 0 or ERR_NOMEM, ERR_ARG (a word past 2 GiB). */
int bpe_encode(const struct bpe *b, struct encode_work *w, const char *text, size_t len);

#endif
