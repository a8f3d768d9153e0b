/* toy_gguf.h - a small model of every family as the bytes of a GGUF file, to damage and to run: what no
 * reader of files sees, because it needs the whole way from weights to figures.
 *
 *     toy_gguf_make(&g, toy_gguf_names[i], &e);
 *     toy_gguf_poke(&g, "blk.0.attn_norm.weight", 3, NAN);
 *     rc = toy_gguf_run(&g, &figures, &e);
 *     toy_gguf_release(&g); */
#ifndef KERF_TOY_GGUF_H
#define KERF_TOY_GGUF_H

#include "libquant/base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The dense toys, the families of toy_family.h, and models that answer once for a text; NULL at the end. */
extern const char *const toy_gguf_names[];

struct toy_gguf {
    char folder[64]; /* a new one of its own, with the checkpoint; removed by toy_gguf_release */
    uint8_t *bytes;  /* the GGUF file, float32 throughout; owned */
    size_t n_bytes;
};

int toy_gguf_make(struct toy_gguf *g, const char *name, struct err *e);
void toy_gguf_release(struct toy_gguf *g);

/* Convert the checkpoint in the folder again. */
int toy_gguf_convert(struct toy_gguf *g, struct err *e);

/* Set element `i` (modulo their number) of a float32 tensor; false: there is none of that name. */
bool toy_gguf_poke(struct toy_gguf *g, const char *tensor, uint64_t i, float value);

struct toy_figures {
    double perplexity; /* of models with a language head, else 0 */
    double imatrix_perplexity;
    size_t n_entries;     /* of the importance matrix */
    double sum;           /* of all its values */
    int quantized;        /* 0 or the code of what refused: to Q4_0 and Q8_0, with the importance */
    double quantized_ppl; /* of the Q8_0 file */
};

/* Through all that a user can do with the file: perplexity, imatrix, quantize with what it gave, and
 * perplexity of that. Stops at the first failure. Writes into the folder. */
int toy_gguf_run(const struct toy_gguf *g, struct toy_figures *out, struct err *e);

#endif
