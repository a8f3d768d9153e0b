/* answer_change.h - how far a candidate's embeddings or scores are from the reference's, over many texts. */
#ifndef KERF_ANSWER_CHANGE_H
#define KERF_ANSWER_CHANGE_H

#include "evaluate_texts.h"
#include "statistics.h"

struct answer_change { /* NaN: does not apply */
    /* Embeddings: cosine distance to the reference's embedding of the same text. */
    struct estimate distance; /* mean */
    double distance_median, distance_p95, distance_p99, distance_max;
    /* Scores; delta = candidate - reference, of the same text (or step). */
    double score_mean;           /* of the model itself */
    struct estimate delta;       /* mean */
    double delta_rms, delta_max; /* max: of the absolute value */
    /* The same of the probabilities 1 / (1 + exp(-score)), where scores are log-odds. */
    double probability_rms, probability_max;
    double kendall, spearman; /* agreement in the order of the texts (rank.h) */
};

/* All figures NaN. */
void answer_change_unknown(struct answer_change *c);

/* Model `m` of an evaluation against model 0; for m = 0 only score_mean has a meaning. */
int answer_change_of(struct answer_change *out, const struct text_evaluation *v, size_t m, struct err *e);

#endif
