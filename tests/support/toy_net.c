/* toy_net.c - see toy_net.h. */
#include "toy_net.h"

#include "calib/eval/evaluate.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

void check(int rc, const struct err *e)
{
    if (rc != 0)
        fail_msg("%s", e->msg);
}

void toy_net_open(struct toy_net *t, const struct toy_spec *spec, void (*change)(const char *folder))
{
    struct err e = {0};
    *t = (struct toy_net){.folder = "kerf-toy-XXXXXX"};
    assert_non_null(mkdtemp(t->folder));
    check(toy_checkpoint_write(t->folder, spec, &e), &e);
    if (change)
        change(t->folder);
    check(model_open(&t->model, t->folder, &(struct model_options){0}, &e), &e);
    check(net_init(&t->net, t->model, &e), &e);
    check(weights_new(&t->base, t->model, NULL, &e), &e);
}

void toy_net_close(struct toy_net *t)
{
    char command[96];
    weights_free(t->base);
    net_release(&t->net);
    model_close(t->model);
    snprintf(command, sizeof command, "rm -r '%s'", t->folder);
    assert_int_equal(system(command), 0);
}

struct windows toy_windows(size_t ctx, size_t n, int32_t *inputs, int32_t *targets)
{
    return (struct windows){
        .ctx = ctx, .n = n, .inputs = inputs, .first = ctx / 2, .end = ctx, .targets = targets};
}

double toy_divergence(const struct toy_net *t, struct weights *w, const struct windows *windows,
                      struct pool *pool)
{
    struct err e = {0};
    struct evaluation v = {0};
    struct evaluate_model list[2] = {{.name = "base", .net = &t->net, .weights = t->base},
                                     {.name = "other", .net = &t->net, .weights = w}};
    struct evaluate_options opt = {.pool = pool, .memory_bytes = 1 << 26};
    check(evaluate(&v, list, 2, windows, &opt, &e), &e);
    double sum = 0;
    for (size_t i = 0; i < v.n; i++)
        sum += v.kld[1][i] / (double)v.n;
    evaluation_release(&v);
    return sum;
}

int stop_after_steps(void *ctx, const struct progress_step *s)
{
    (void)s;
    return --*(int *)ctx < 0;
}
