/* ladder_feedback.c - see ladder_feedback.h. */
#include "ladder_feedback.h"

#include "tools/write/feedback_command.h"

#include "calib/feedback/feedback_model.h"
#include "calib/solve/loss_table.h"
#include "calib/stats/hessian_file.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct ladder_feedback {
    struct hessian_file *hessian;
    struct feedback_model **levels; /* [n] */
    size_t n;
};

void ladder_feedback_free(struct ladder_feedback *f)
{
    if (!f)
        return;
    for (size_t i = 0; i < f->n; i++)
        feedback_model_free(f->levels[i], true);
    free(f->levels);
    hessian_file_close(f->hessian);
    free(f);
}

int ladder_feedback_open(struct ladder_feedback **out, const char *path, struct eval_run *r, struct err *e)
{
    struct ladder_feedback *f = calloc(1, sizeof *f);
    char doubt[FEEDBACK_DOUBT_BYTES], hash[65];
    if (!f)
        return err_set(e, ERR_NOMEM, "out of memory for the levels");
    f->levels = calloc(r->n_models + 1, sizeof *f->levels);
    int rc = f->levels ? net_need_tokens(&r->models[0].net, "error feedback", e)
                       : err_set(e, ERR_NOMEM, "out of memory for the levels");
    if (rc == 0)
        rc = hessian_file_open(&f->hessian, path, e);
    if (rc == 0)
        rc = loss_weights_hash(r->models[0].model, hash, e);
    if (rc == 0)
        feedback_doubt_weights(doubt, f->hessian, hash);
    if (rc == 0 && doubt[0])
        cmd_warn(r->shared, "[other-weights] %s: %s", path, doubt);
    if (rc != 0)
        ladder_feedback_free(f);
    else
        *out = f;
    return rc;
}

static bool type_in_level(void *ctx, const struct model_tensor *t, enum qtype *out)
{
    *out = weights_type(ctx, t);
    return true;
}

static bool any_takes(const struct ladder_feedback *f, const struct eval_run *r, const struct candidate *c)
{
    const struct hessian_plan *p = hessian_file_plan(f->hessian);
    for (size_t i = 0; i < p->n_uses; i++) {
        const struct model_tensor *t = model_find(r->models[0].model, p->uses[i].tensor);
        if (t && feedback_takes(t, weights_type(c->weights, t)))
            return true;
    }
    return false;
}

/* A path for the store, in a folder of its own, which the caller removes. */
static int temporary(char *folder, size_t size, struct err *e)
{
    const char *where = getenv("TMPDIR");
    if (!where || !where[0])
        where = "/var/tmp";
    if (snprintf(folder, size, "%s/kerf-ladder-XXXXXX", where) >= (int)size || !mkdtemp(folder))
        return err_set(e, ERR_IO, "%s: cannot create a folder for the solved blocks there: %s", where,
                       strerror(errno));
    return 0;
}

static int solve_level(struct ladder_feedback *f, struct eval_run *r, struct candidate *c, struct err *e)
{
    char folder[512], path[540];
    struct feedback_model **level = &f->levels[f->n++];
    int rc = temporary(folder, sizeof folder, e);
    if (rc != 0)
        return rc;
    snprintf(path, sizeof path, "%s/blocks", folder);
    struct feedback_model_options opt = {.pool = r->session.pool,
                                         .kern = r->session.kern,
                                         .memory_bytes = r->shared->memory_bytes,
                                         .hessian = f->hessian,
                                         .imatrix = c->own_imatrix ? c->own_imatrix : r->imatrix,
                                         .stages = {true, FEEDBACK_SWEEPS},
                                         .store_path = path,
                                         .identity = "",
                                         .progress = progress_on(&r->bar)};
    rc = feedback_model_new(level, &r->models[0].net, type_in_level, c->weights, &opt, e);
    unlink(path); /* it lives on until the level is freed */
    rmdir(folder);
    if (rc == 0) {
        progress_begin(&r->bar, r->shared, "error feedback", "", 1000);
        rc = feedback_model_solve(*level, e);
        progress_end(&r->bar);
    }
    for (size_t i = 0; rc == 0 && i < feedback_model_n(*level); i++) {
        const struct feedback_tensor *t = feedback_model_tensor(*level, i);
        rc = weights_set_blocks(c->weights, t->tensor, t->type,
                                feedback_model_blocks(*level, t->tensor, t->type), e);
    }
    return rc ? err_context(e, rc, "%s", c->type) : 0;
}

int ladder_feedback_solve(struct ladder_feedback *f, struct eval_run *r, struct err *e)
{
    int rc = 0;
    for (size_t i = 0; i < r->corpus.n_texts; i++)
        if (hessian_file_has_dataset(f->hessian, r->corpus.texts[i].path))
            cmd_warn(r->shared,
                     "[maybe-seen] %s: was collected from a text of the name of %s; levels are to be "
                     "measured on text that the Hessians have not seen",
                     hessian_file_path(f->hessian), r->corpus.texts[i].path);
    for (size_t i = 1; rc == 0 && i < r->n_models; i++)
        if (any_takes(f, r, &r->models[i]))
            rc = solve_level(f, r, &r->models[i], e);
    return rc;
}
