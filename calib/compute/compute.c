/* compute.c - see compute.h: which back end runs. */
#include "compute.h"

int compute_open(struct compute **out, const struct compute_ops *ops, const struct compute_setup *s,
                 struct err *e)
{
    return (ops ? ops : &compute_cpu)->open(out, s, e);
}

void compute_close(struct compute *c)
{
    if (c)
        c->ops->close(c);
}
