/* verdict.h - from log-likelihoods to what people compare: accuracies with their errors, and how a model's
 * answers differ from those of the first, record by record.
 *
 *     acc        the choice of largest log-likelihood is the right one, or an answer is the greedy
 *                continuation
 *     acc_norm   the same of log-likelihood / characters of the choice
 *     acc_bytes                               / bytes of the choice
 *     acc_token  the same of the mean over tokens, as llama-perplexity takes it (requests.h)
 *
 * Two models are compared on the same records: the difference of accuracies has the error of the paired
 * differences; `flips` are records that one has right and the other not, which may be many although
 * accuracies are equal (Dutta et al. 2024, "Accuracy is not all you need"); p is that of McNemar's exact
 * test: were gains and losses equally likely, how often would they differ by so much? */
#ifndef KERF_VERDICT_H
#define KERF_VERDICT_H

#include "score.h"

#include "calib/eval/statistics.h"

enum task_metric { TASK_ACC, TASK_ACC_NORM, TASK_ACC_BYTES, TASK_ACC_TOKEN, TASK_N_METRICS };
extern const char *const task_metric_names[TASK_N_METRICS];

/* What one model answered. */
struct verdict {
    size_t n;                     /* records */
    size_t *pick[TASK_N_METRICS]; /* [n] the choice of TASK_CHOICE */
    bool *right[TASK_N_METRICS];  /* [n] of TASK_CHOICE and TASK_ANSWER */
    double *nll;                  /* [n] of TASK_TEXT, nats */
    size_t *n_tokens;             /* [n] of TASK_TEXT */
};

/* *out: caller releases with verdict_release. ERR_NOMEM. */
int verdict_of(struct verdict *out, const struct task *t, const struct requests *r,
               const struct likelihood *l, struct err *e);
void verdict_release(struct verdict *v);

/* The metric by which a task is known: acc_norm where all its records are of HellaSwag, ARC or PIQA, else
 * acc. */
enum task_metric task_usual_metric(const struct task *t);

struct task_score {                           /* NaN: does not apply */
    struct estimate accuracy[TASK_N_METRICS]; /* of choices and short answers */
    /* Of texts: */
    size_t n_tokens, n_bytes;
    struct estimate nll;           /* nats a token; error from texts */
    struct estimate bits_per_byte; /* so that models of different vocabularies compare */
    /* Against the first model, by the metric that was asked for: */
    struct estimate difference;
    size_t gained, lost; /* records that it alone has right; that it alone has not */
    size_t changed;      /* records of multiple choice with another choice */
    double p_value;
    struct estimate bits_difference; /* bits per byte, its own minus the first's */
};

/* `first` NULL: this is the first model. ERR_NOMEM. */
int task_score_of(struct task_score *out, const struct task *t, const struct verdict *v,
                  const struct verdict *first, enum task_metric metric, struct err *e);

/* Two-sided exact binomial test of a : b against 1 : 1. */
double mcnemar(size_t a, size_t b);

#endif
