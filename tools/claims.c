/* claims.c - the outputs that this run has claimed (cmd.h: cmd_claim_outputs). They are held until it ends,
 * by whatever way, so the list is the process's. */
#include "cmd.h"
#include "outcome.h"

#include "formats/output/output_lock.h"

#define MAX_CLAIMS 8 /* no command has more outputs */

static struct output_lock *claims[MAX_CLAIMS];
static size_t n_claims;

int cmd_claim_outputs(const struct shared_options *o, const char *const *outputs, size_t n_outputs,
                      const char *const *inputs, size_t n_inputs, struct err *e)
{
    int rc = output_check_names(outputs, n_outputs, inputs, n_inputs, e);
    for (size_t i = 0; rc == 0 && i < n_outputs; i++)
        rc = outputs[i] ? cmd_check_folder(outputs[i], e) : 0;
    for (size_t i = 0; rc == 0 && !o->dry_run && i < n_outputs; i++)
        if (outputs[i] && n_claims < MAX_CLAIMS) {
            rc = output_lock_take(&claims[n_claims], outputs[i], e);
            n_claims += rc == 0;
        }
    return rc;
}

void outcome_release_claims(void)
{
    while (n_claims > 0)
        output_lock_release(claims[--n_claims]);
}
