/* allocate_job.h - what kerf allocate is asked and what comes of it; shared by the command and its output. */
#ifndef KERF_ALLOCATE_JOB_H
#define KERF_ALLOCATE_JOB_H

#include "allocate_budget.h"
#include "kept_losses.h"
#include "tools/measure/eval_command.h"

#include "calib/solve/confirm.h"
#include "calib/stats/hessian_file.h"

#define ALLOCATE_MAX_TYPES QTYPE_COUNT

struct allocate_asked {
    const char *output, *table, *imatrix, *hessian, *types, *probe, *probes, *html;
    struct budget_options budget;
    struct opt_list min, max, fix;
    bool requantize, free_pairs, no_confirm;
};

struct allocate_job {
    struct allocate_asked *o;
    struct shared_options *shared;
    struct eval_run *r;
    enum qtype types[ALLOCATE_MAX_TYPES], probes[ALLOCATE_MAX_TYPES];
    size_t n_types, n_probes;
    struct allocate_rule *rules;
    char **patterns; /* of the rules; owned */
    size_t n_rules;
    struct loss_table table;
    char *state; /* of a run that measures, beside the table; owned, NULL without --table */
    struct kept_losses kept;
    struct allocator *allocator;
    struct allocation allocation;
    bool planned; /* a dry run that would have to measure first: there are no losses to choose by */
    struct windows held_out; /* of the text, for the confirming measurement; n is 0 without one */
    bool is_unseen;          /* they did not serve the sensitivities */
    struct confirmation confirmation;
    bool took_mix; /* the plan did not beat the mix: the choice is the mix's */
    double passes; /* whole forward passes, over the windows of the sensitivities */
};

/* The losses of a table as error feedback under these Hessians will leave them (feedback_gain.h). */
int allocate_take_gains(struct loss_table *table, const struct hessian_file *hessian, struct eval_run *r,
                        struct err *e);

/* The result to stdout. */
void allocate_print_json(const struct allocate_job *j);
void allocate_print_text(const struct allocate_job *j);

/* Their parts that kerf best has, too: the list of tensors (`r` NULL: types are not known yet), and how many
 * there are of each type. */
void allocate_put_tensors(struct json_writer *w, const struct loss_table *table, const struct allocation *r);
void allocate_print_types(const struct loss_table *table, const struct allocation *r);

/* What a run would do that has to measure first. */
void allocate_print_dry(const struct allocate_job *j);

/* The page to --html. */
int allocate_write_page(const struct allocate_job *j, struct err *e);

#endif
