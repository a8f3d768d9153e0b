/* compute.c - see compute.h: which back end runs, and where branches lie. */
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

size_t row_tree_row(size_t *n, const struct row_branch *branches, size_t branch, size_t position)
{
    const struct row_branch *b = &branches[branch];
    size_t end = b->n_before + b->n;
    for (; position < b->n_before; b = &branches[b->parent])
        end = b->n_before;
    *n = end - position;
    return b->row + (position - b->n_before);
}
