/* evaluate_texts.h - run models that answer once for a text over many texts: the engine behind compare and
 * ladder for embedding models, rerankers and reward models.
 *
 * Texts go in groups of about equal length (passages.h); after each the answers of all models are there, so
 * a run that is stopped keeps what was finished. */
#ifndef KERF_EVALUATE_TEXTS_H
#define KERF_EVALUATE_TEXTS_H

#include "calib/passages.h"
#include "evaluate.h"

/* The answers that were finished, in the order of the passages. */
struct text_evaluation {
    enum net_answer answer;
    bool has_probability; /* scores are log-odds */
    size_t n_models;      /* fewer than asked when the run was stopped between candidates */
    size_t n_texts, n_tokens;
    size_t *ends;    /* [n_texts] ends of the answers of each text */
    size_t n;        /* answers: texts, or scored positions */
    double **value;  /* [n_models][n] NET_EMBEDDING: cosine distance to the reference; NET_SCORE: the score */
    double *seconds; /* [n_models] */
    bool partial;
};

/* 1 - cos of two vectors of length 1 as half the square of their difference: exact for small angles, and
 * never below 0. */
double cosine_distance(const float *a, const float *b, size_t n);

/* models[0] is the reference. ERR_ARG: models whose answers cannot be compared; ERR_FORMAT: an answer that is
 * no number; ERR_CANCELLED: stopped before anything was finished. Progress counts texts. *out: caller
 * releases with text_evaluation_release. */
int evaluate_texts(struct text_evaluation *out, const struct evaluate_model *models, size_t n_models,
                   const struct passages *p, const struct evaluate_options *opt, struct err *e);
void text_evaluation_release(struct text_evaluation *v);

#endif
