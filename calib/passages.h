/* passages.h - single texts of any length, for models that answer once for a text: embeddings and scores.
 *
 *     corpus_add_lines(&c, tokenizer, "queries.txt", false, &e);        // or JSON lines, each record a text
 *     passages_cut(&p, &c, &(struct passage_options){.ctx = 512, .eos = -1, .step = -1}, &e);
 *
 * Texts are sorted by length, the longest first, and go through the model in groups of about equal length:
 * each group is padded on the right to its longest text. All models here are causal, so what stands behind a
 * text does not touch its states. Which text is in which group depends on the lengths alone. */
#ifndef KERF_PASSAGES_H
#define KERF_PASSAGES_H

#include "corpus.h"

struct passage_options {
    size_t ctx;      /* longer texts are cut to so many tokens */
    size_t max;      /* the first so many texts; 0: all */
    int32_t eos;     /* what a text ends in, also when it is cut; -1: nothing */
    int32_t step;    /* the token whose positions are answers (a step of a solution); -1: none */
    size_t n_padded; /* tokens of a group after which it is complete; 0: 2048 */
};

struct passage {
    size_t begin, len;            /* ids, len > 0 */
    size_t first_point, n_points; /* positions at which the model answers; at least one, the last token */
};

struct passages {
    size_t n, n_cut; /* texts; those of them that were cut, here or in the corpus */
    struct passage *items;
    int32_t *ids;     /* owned */
    uint32_t *points; /* [n_points] positions inside their text, owned */
    size_t n_points;
    size_t n_padded;
};

/* ERR_ARG when there is no text. A corpus of ids from elsewhere is cut every ctx tokens. */
int passages_cut(struct passages *out, const struct corpus *c, const struct passage_options *opt,
                 struct err *e);
void passages_release(struct passages *p);

/* How many texts, from `first` on, make the next group; their padded length is that of the first. */
size_t passages_group(const struct passages *p, size_t first);

/* Texts [first, first + n) padded to rows of items[first].len ids; caller frees with free(). NULL when memory
 * is refused. */
int32_t *passages_rows(const struct passages *p, size_t first, size_t n);

#endif
