/* kept_losses.c - see kept_losses.h. */
#include "kept_losses.h"

/* What becomes of a file whose figures are not those of this run. */
static int give_up(enum loss_kept kept, const struct err *why, const struct shared_options *shared,
                   struct err *e)
{
    if (kept == LOSS_KEPT_STRANGE)
        return err_set(e, ERR_FORMAT, "%s; move it away", why->msg);
    if (!shared->force)
        return err_set(e, ERR_EXISTS, "%s (kept by a stopped run of this output); --force drops it",
                       why->msg);
    cmd_warn(shared, "[restarted] %s; %s from the start", why->msg,
             shared->dry_run ? "would begin" : "begun");
    return 0;
}

int kept_losses_take(struct kept_losses *out, struct loss_table *t, const struct windows *w,
                     const struct loss_measure *m, const struct shared_options *shared, struct err *e)
{
    enum loss_kept kept = LOSS_KEPT_NOTHING;
    struct err why = {0};
    int rc = m->state_path ? loss_table_continue(&kept, t, m->state_path, w, &why) : 0;
    if (rc != 0)
        return err_set(e, rc, "%s", why.msg);
    if (kept == LOSS_KEPT_STRANGE || kept == LOSS_KEPT_UNFIT)
        rc = give_up(kept, &why, shared, e);
    loss_table_count(t, m, &out->n_known, &out->n);
    if (rc == 0 && out->n_known > 0 && !shared->dry_run)
        cmd_note(shared, "continued after %zu of %zu measurements", out->n_known, out->n);
    return rc;
}
