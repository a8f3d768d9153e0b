/* step_mlp.c - the dense feed-forward step: down( silu(gate x) * (up x) ), or gelu. */
#include "layer_run.h"

int step_mlp(struct layer_run *r, struct err *e)
{
    const struct mlp *m = &r->layer->mlp;
    size_t n_embd = r->net->n_embd, width = m->width;
    int rc = 0;
    for (size_t t = 0; rc == 0 && t < r->n_tokens; t += r->block) {
        size_t n = r->n_tokens - t < r->block ? r->n_tokens - t : r->block;
        struct region h = region_at(r->h, t * n_embd), gate = r->wide, up = region_at(gate, n * width);
        const struct model_tensor *in[2] = {m->gate.tensor, m->up.tensor};
        size_t n_in = in[0] == in[1] ? 1 : 2; /* one, when fused */
        struct product p[2] = {layer_product(&m->gate, gate, width, false),
                               layer_product(&m->up, up, width, false)};
        struct region x;
        rc = layer_input(r, h, n, m->norm, &x, e);
        if (rc == 0)
            rc = layer_observe(r, in, n_in, x, n, n_embd, e);
        if (rc == 0)
            rc = r->ops->products(r->compute, r->weights, x, n, n_embd, p, 2, e);
        if (rc == 0)
            rc = (r->net->gelu ? r->ops->geglu : r->ops->swiglu)(r->compute, gate, up, n, width, e);
        if (rc == 0)
            rc = layer_observe(r, &m->down.tensor, 1, gate, n, width, e);
        if (rc == 0)
            rc = layer_add_output(r, &m->down, gate, width, n, m->post_norm, h, e);
    }
    return rc;
}
