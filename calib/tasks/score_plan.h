/* score_plan.h - which inputs of requests share a run, and how runs go through the model together.
 *
 * A run is an input; requests whose input begins it need no run of their own. Runs are sorted by what they
 * say, and each goes on behind the longest beginning that it shares with the one before it, as a branch
 * (struct row_tree): the choices of a question cost the question once, and nothing is padded. A model that
 * cannot run branches gets windows of one run each, the longest first, padded on the right, which causal
 * models do not see. */
#ifndef KERF_SCORE_PLAN_H
#define KERF_SCORE_PLAN_H

#include "requests.h"

#include "calib/model/forward.h"

struct run {
    size_t begin, len;              /* the input, in the ids of the requests */
    size_t first_member, n_members; /* requests that it serves, in `members` */
};

struct score_plan {
    const struct requests *r;
    struct run *runs; /* owned */
    size_t n_runs;
    size_t *members; /* [r->n], owned */
    bool branches;
    size_t most;         /* tokens of a group */
    size_t window_rows;  /* with branches: rows of a window, about */
    uint64_t only_alike; /* longer runs are grouped with those of equal length, since texts of more tokens
                            have other rotary factors; 0: none */
};

/* Runs [first, first + n), as a forward pass takes them. */
struct score_group {
    size_t first, n;
    size_t n_windows, ctx;
    size_t n_rows;               /* that hold tokens: without padding */
    struct row_branch *branches; /* [n_branches], of run i the one branch_of[i]; owned, or NULL */
    size_t n_branches;
    size_t *branch_of; /* [n], owned, or NULL */
};

/* Caller releases with score_plan_release, also after an error. `memory_bytes` bounds what the pass may use.
 * ERR_NOMEM. */
int score_plan_make(struct score_plan *p, const struct requests *r, const struct net *net,
                    const struct weights *w, uint64_t memory_bytes, struct err *e);
void score_plan_release(struct score_plan *p);

/* The group that begins with run `first`. Caller releases with score_group_release, also after an error. */
int score_group_make(struct score_group *g, const struct score_plan *p, size_t first, struct err *e);
void score_group_release(struct score_group *g);

/* The tokens of all rows, [n_windows * ctx]. */
void score_group_ids(const struct score_group *g, const struct score_plan *p, int32_t *ids);

/* The row, of all windows, of the token at `position` of a run of the group. */
size_t score_group_row(const struct score_group *g, size_t run, size_t position);

#endif
