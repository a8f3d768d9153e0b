/* eval_profile.h - the profiles of the candidates of a run (--profile). */
#ifndef KERF_EVAL_PROFILE_H
#define KERF_EVAL_PROFILE_H

#include "eval_command.h"

/* What profiles would be, with --dry-run: their sizes and cost, no figures. Nothing where none is asked for.
 */
int eval_profiles_plan(struct eval_run *r, const struct evaluate_model *list, bool single_texts,
                       struct err *e);

/* Profiles of all candidates that were scored into r->profiles, when they are asked for. `list`: the models
 * of the run, the reference first. A stop leaves the profiles that are done (profiles_partial of the report);
 * what the comparison found stays whole. */
int eval_profiles(struct eval_run *r, const struct evaluate_model *list, bool single_texts, struct err *e);

/* After the report has its candidates. */
void eval_profiles_describe(struct eval_run *r);
void eval_profiles_release(struct eval_run *r);

#endif
