/* score_print.h - what kerf score found, as a table, as JSON, and record by record. */
#ifndef KERF_SCORE_PRINT_H
#define KERF_SCORE_PRINT_H

#include "calib/eval/candidate.h"
#include "calib/tasks/verdict.h"

#include <stdio.h>

struct score_model {
    const struct candidate *candidate;
    struct requests requests;
    struct likelihood *likelihoods; /* [requests.n] */
    struct verdict verdict;
    struct task_score score;
    size_t n_tokens; /* that went through the model, without padding */
    double seconds;
};

struct score_result {
    const struct task *task;
    enum task_metric metric;
    struct score_model *models; /* [0] is what the others are compared with */
    size_t n_models, n_asked;   /* measured; fewer than asked when the run was stopped */
    uint64_t ctx;
    bool chat, dry_run;
    const char *activations;
    double seconds;
};

/* The end of a path, or the name of a mix. */
const char *score_name(const struct score_model *m);

void score_text(const struct score_result *r, FILE *out);

struct json_writer;

/* The members of the object, which the caller opens and closes. */
void score_json(const struct score_result *r, struct json_writer *w);

/* JSON lines: for each record and model the choice, whether it is right, and the log-likelihoods. */
void score_records(const struct score_result *r, FILE *out);

#endif
