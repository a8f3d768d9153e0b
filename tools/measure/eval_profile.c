/* eval_profile.c - see eval_profile.h. */
#include "eval_profile.h"

#include <stdlib.h>

static int profile_of(struct eval_run *r, const struct evaluate_model *list, size_t candidate,
                      bool single_texts, const struct profile_options *opt, struct err *e)
{
    struct profile *to = &r->profiles[candidate];
    const struct evaluate_model *c = &list[candidate + 1];
    return single_texts ? profile_texts(to, list, c, &r->passages, opt, e)
                        : profile_windows(to, list, c, &r->windows, opt, e);
}

static struct profile_options options_of(const struct eval_run *r)
{
    return (struct profile_options){.pool = r->session.pool,
                                    .memory_bytes = r->shared->memory_bytes,
                                    .activations = eval_activations(r->text),
                                    .n_windows = (size_t)r->profile->n_windows,
                                    .n_candidates = r->n_models - 1};
}

static int make_room(struct eval_run *r, struct err *e)
{
    r->profiles = calloc(r->n_models, sizeof *r->profiles);
    return r->profiles ? 0 : err_set(e, ERR_NOMEM, "out of memory for %zu profiles", r->n_models - 1);
}

int eval_profiles_plan(struct eval_run *r, const struct evaluate_model *list, bool single_texts,
                       struct err *e)
{
    if (!r->profile || !r->profile->wanted || r->n_models < 2)
        return 0;
    struct profile_options opt = options_of(r);
    opt.plan_only = true;
    int rc = make_room(r, e);
    for (size_t i = 0; rc == 0 && i + 1 < r->n_models; i++)
        rc = profile_of(r, list, i, single_texts, &opt, e);
    return rc;
}

int eval_profiles(struct eval_run *r, const struct evaluate_model *list, bool single_texts, struct err *e)
{
    const size_t n_scored = single_texts ? r->text_evaluation.n_models : r->evaluation.n_models;
    if (!r->profile || !r->profile->wanted || r->n_models < 2)
        return 0;
    r->report.profiles_partial = r->evaluation.partial || r->text_evaluation.partial;
    if (r->report.profiles_partial)
        return 0;
    struct profile_options opt = options_of(r);
    int rc = make_room(r, e);
    progress_begin(&r->bar, r->shared, "profiling", "steps", 1000);
    opt.progress = progress_on(&r->bar);
    for (size_t i = 0; rc == 0 && i + 1 < n_scored; i++)
        rc = profile_of(r, list, i, single_texts, &opt, e);
    progress_end(&r->bar);
    if (rc != ERR_CANCELLED)
        return rc;
    r->report.profiles_partial = true;
    return 0;
}

void eval_profiles_describe(struct eval_run *r)
{
    for (size_t i = 0; r->profiles && i < r->report.n_candidates; i++)
        r->report.candidates[i].profile = r->profiles[i].layers ? &r->profiles[i] : NULL;
}

void eval_profiles_release(struct eval_run *r)
{
    for (size_t i = 0; r->profiles && i + 1 < r->n_models; i++)
        profile_release(&r->profiles[i]);
    free(r->profiles);
    r->profiles = NULL;
}
