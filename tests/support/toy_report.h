/* toy_report.h - results as a measurement of so many candidates and layers would have them, made from
 * formulas, for tests of what is written from them. Loss grows as bits get fewer, with waves in it, so that
 * some candidates are beaten by others. */
#ifndef KERF_TOY_REPORT_H
#define KERF_TOY_REPORT_H

#include "calib/eval/profile.h"
#include "calib/report/report.h"
#include "calib/report/report_parts.h"
#include "calib/report/score_print.h"

#define TOY_MOST_CANDIDATES 20
#define TOY_MOST_LAYERS     94
#define TOY_N_KINDS         7
#define TOY_N_TEXTS         3

struct toy_report {
    struct corpus_text texts[TOY_N_TEXTS];
    struct corpus corpus;
    struct report_model candidates[TOY_MOST_CANDIDATES];
    struct profile profile;
    struct profile_layer layers[TOY_MOST_LAYERS];
    struct profile_kind kinds[TOY_N_KINDS];
    struct profile_tensor tensors[TOY_N_KINDS * TOY_MOST_LAYERS];
    char names[TOY_N_KINDS * TOY_MOST_LAYERS][64];
    struct report_parts parts;
    struct report_part text_parts[TOY_N_TEXTS], depths[REPORT_MAX_DEPTHS];
    struct part_figures figures[TOY_N_TEXTS + REPORT_MAX_DEPTHS + 1][TOY_MOST_CANDIDATES + 1];
    struct report report; /* borrows from all above: never copy it, never release it */
};

/* Of one text; add what else the test wants. */
void toy_report_make(struct toy_report *t, enum report_kind kind, size_t n_candidates);
void toy_report_add_parts(struct toy_report *t);                    /* three texts with weights, six depths */
void toy_report_add_profile(struct toy_report *t, size_t n_layers); /* of the last candidate */

struct toy_score {
    struct task task;
    struct candidate candidates[TOY_MOST_CANDIDATES];
    struct score_model models[TOY_MOST_CANDIDATES];
    struct score_result result; /* borrows likewise */
};

void toy_score_make(struct toy_score *t, size_t n_models);

#endif
