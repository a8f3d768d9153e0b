/* spm.h - SentencePiece BPE (specification, architectures 19.7): text to token ids by joining the best-scored
 * pair. Internal. */
#ifndef KERF_SPM_H
#define KERF_SPM_H

#include "encode_work.h"
#include "libquant/base/strmap.h"
#include "vocabulary.h"

struct spm {
    struct strmap pieces;      /* normal pieces: text -> id */
    uint32_t *bmp;             /* code point below 0x10000 -> symbol; malloc'ed */
    struct merge_table astral; /* (0, code point) -> symbol of the others */
    struct merge_table merges;
    struct merge_table adjacent;     /* pairs of code points that stand side by side inside some piece */
    uint8_t ascii_adjacent[128][16]; /* the same for ASCII, one bit each; the space stands for U+2581 */
    int32_t byte_id[256];            /* -1: none */
    int32_t unk;                     /* -1: none */
};

/* Refuses pieces of more than 1024 bytes with ERR_UNSUPPORTED. */
int spm_init(struct spm *s, const struct vocabulary *v, struct err *e);
void spm_release(struct spm *s);

/* Encode valid UTF-8 without special tokens, appending to w; `prefix`: as if a space stood before it. */
int spm_encode(const struct spm *s, struct encode_work *w, const char *text, size_t len, bool prefix);

#endif
