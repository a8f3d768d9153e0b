/* kept_losses.h - figures of sensitivities that a stopped run of allocate or best has kept, and what becomes
 * of them: taken up, dropped with --force, or left alone. */
#ifndef KERF_KEPT_LOSSES_H
#define KERF_KEPT_LOSSES_H

#include "tools/cmd.h"

#include "calib/solve/loss_table.h"

/* Of the measurements that are asked for, so many are known. */
struct kept_losses {
    size_t n_known, n;
};

/* Take up what stands at m->state_path (NULL: nothing does), and say so. What this run cannot use is
 * ERR_EXISTS, or with --force given up with a warning; a file that is none of kerf's is ERR_FORMAT in any
 * case. */
int kept_losses_take(struct kept_losses *out, struct loss_table *t, const struct windows *w,
                     const struct loss_measure *m, const struct shared_options *shared, struct err *e);

#endif
