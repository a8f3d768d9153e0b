/* toy_net.h - a toy checkpoint in a folder of its own, opened up to its weights, or the test fails. */
#ifndef KERF_TEST_TOY_NET_H
#define KERF_TEST_TOY_NET_H

#include "toy_checkpoint.h"

#include "calib/corpus.h"
#include "calib/model/model_load.h"
#include "calib/model/weights.h"
#include "libquant/base/progress.h"

struct toy_net {
    char folder[64];
    struct model *model;
    struct net net;
    struct weights *base;
};

/* Fails the test with the message of `e` unless rc is 0. */
void check(int rc, const struct err *e);

/* `change` (may be NULL) is given the folder between writing and opening. */
void toy_net_open(struct toy_net *t, const struct toy_spec *spec, void (*change)(const char *folder));
void toy_net_close(struct toy_net *t); /* the folder goes, too */

/* Windows over `inputs` [n * ctx], whose second half is scored; borrows both arrays. */
struct windows toy_windows(size_t ctx, size_t n, int32_t *inputs, int32_t *targets);

/* Mean divergence of the net with weights `w` from the net as it is, by evaluate(). */
double toy_divergence(const struct toy_net *t, struct weights *w, const struct windows *windows,
                      struct pool *pool);

/* A listener that stops the work after so many steps; `ctx` is an int that counts down. */
int stop_after_steps(void *ctx, const struct progress_step *s);

#endif
