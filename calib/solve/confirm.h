/* confirm.h - one measurement of a plan beside the standard mix of its size, on text that the sensitivities
 * have not seen: losses that were added up are an expectation, and a plan that does not beat the mix is not
 * worth to be used.
 *
 *     confirm_plan(&c, allocator, &allocation, mix, &net, base, &windows, &opt, &e);
 *     if (!c.plan_wins && allocator_take_mix(allocator, mix, budget, &allocation)) ... */
#ifndef KERF_CONFIRM_H
#define KERF_CONFIRM_H

#include "allocate.h"

#include "calib/eval/evaluate.h"
#include "calib/eval/statistics.h"

struct confirmation {
    const struct mix *mix; /* NULL: nothing was measured */
    uint64_t mix_bytes;    /* of its file */
    double mix_bits;
    struct estimate plan_kld, mix_kld; /* mean divergence from the unquantized model, nats per token */
    struct estimate difference;        /* plan - mix, of the same tokens; its error that of windows */
    size_t n_tokens, n_windows;        /* scored, of which windows */
    bool held_out;                     /* no window served the sensitivities */
    bool plan_wins;                    /* plan_kld is below mix_kld; `difference` tells how certainly */
    bool is_certain;                   /* by more than two standard errors */
    double passes;                     /* in passes over the table's windows */
};

/* Runs the unquantized model, the plan and the mix over `w`. */
int confirm_plan(struct confirmation *out, const struct allocator *a, const struct allocation *r,
                 const struct mix *mix, const struct net *net, struct weights *base, const struct windows *w,
                 const struct evaluate_options *opt, struct err *e);

/* One line: both divergences, their ratio, and on what; for a plan's remark. */
void confirm_sentence(char *out, size_t size, const struct confirmation *c);

#endif
