/* collect_command.c - see collect_command.h. */
#include "collect_command.h"

#include "libquant/base/path.h"

#include <stdlib.h>

int collect_open(struct eval_run *r, const char *model, const char *output, const char *state, bool resume,
                 struct err *e)
{
    int rc = cmd_check_output(output, r->shared->force || resume, e);
    if (rc == 0)
        rc = cmd_claim_outputs(r->shared, &output, 1, NULL, 0, e);
    if (rc == 0)
        rc = eval_open(r, model, 0, e);
    if (rc == 0)
        rc = eval_check_inputs(r, output, e);
    if (rc == 0)
        rc = eval_check_inputs(r, state, e);
    return rc == 0 ? eval_open_text(r, e) : rc;
}

const char *collect_resumed_word(bool finished, size_t n_resumed)
{
    return finished ? "complete" : n_resumed ? "continued" : NULL;
}

void collect_tell_resumed(const struct eval_run *r, const char *output, bool resume, size_t n_resumed,
                          size_t n, const char *what)
{
    if (n_resumed)
        cmd_note(r->shared, "continued after %zu of %zu %s", n_resumed, n, what);
    else if (resume)
        cmd_note(r->shared, "%s: nothing to resume; started from the beginning", output);
}

void collect_tell_finished(const struct eval_run *r, const char *output)
{
    cmd_note(r->shared, "%s: is finished already; --force writes it again", output);
}

int collect_not_ours(const char *output, struct err *e)
{
    return err_set(e, ERR_EXISTS,
                   "%s: exists already, and is not what this run would write; nothing to resume, use --force "
                   "to replace it",
                   output);
}

int collect_command(struct eval_run *r, const char *model, const char *output, collect_fn run,
                    const void *args)
{
    struct err e = {0};
    char *state = path_with(output, ".kerf-state");
    int rc = state ? run(r, model, args, state, &e) : err_set(&e, ERR_NOMEM, "out of memory");
    free(state);
    return rc ? cmd_fail(&e) : CMD_DONE;
}
