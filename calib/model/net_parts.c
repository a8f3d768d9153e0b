/* net_parts.c - see net_parts.h. */
#include "net_parts.h"

#include <stdlib.h>

/* What one token multiplies by: of a stack of experts those it is sent to. */
static double products(const struct net_layer *l, const struct model_tensor *t)
{
    double n = (double)t->n_rows * (double)t->ne[0];
    const struct moe *m = &l->moe;
    bool stacked = t == m->gate_exps || t == m->up_exps || t == m->down_exps;
    return stacked && m->n_experts ? n * m->n_used / m->n_experts : n;
}

static bool is_feed_forward(const struct net_layer *l, const struct model_tensor *t)
{
    const struct mlp *f = &l->mlp;
    const struct moe *m = &l->moe;
    return t == f->gate.tensor || t == f->up.tensor || t == f->down.tensor || t == m->router.tensor ||
           t == m->gate_exps || t == m->up_exps || t == m->down_exps || t == m->shared_gate.tensor ||
           t == m->shared_up.tensor || t == m->shared_down.tensor || t == m->shared_router.tensor;
}

/* The layer with one of its steps and the matrices of that. */
static void take_step(struct net_layer *part, const struct net_layer *l, size_t step)
{
    bool forward = l->steps[step] == STEP_MLP || l->steps[step] == STEP_MOE;
    *part = *l;
    part->steps[0] = l->steps[step];
    part->n_steps = 1;
    part->n_matrices = 0;
    for (size_t i = 0; i < l->n_matrices; i++)
        if (l->matrices[i] && is_feed_forward(l, l->matrices[i]) == forward)
            part->matrices[part->n_matrices++] = l->matrices[i];
}

int net_parts_init(struct net_parts *out, const struct net *net, struct err *e)
{
    struct net_parts p = {.whole = *net};
    size_t most = (size_t)net->n_layers * LAYER_MAX_STEPS, n = 0;
    /* One more than there are parts: `open` ends in it, so that no span of the model's own is its last. */
    struct net_layer *layers = calloc(most + 1, sizeof *layers);
    double sum = 0;
    p.first = calloc((size_t)net->n_layers + 1, sizeof *p.first);
    p.cost = calloc(most + 1, sizeof *p.cost);
    if (!layers || !p.first || !p.cost) {
        free(layers);
        free(p.first);
        free(p.cost);
        return err_set(e, ERR_NOMEM, "out of memory for the steps of %u layers", net->n_layers);
    }
    for (uint32_t l = 0; l < net->n_layers; l++) {
        p.first[l] = n;
        for (size_t s = 0; s < net->layers[l].n_steps; s++, n++) {
            take_step(&layers[n], &net->layers[l], s);
            for (size_t i = 0; i < layers[n].n_matrices; i++)
                p.cost[n] += products(&layers[n], layers[n].matrices[i]);
            sum += p.cost[n];
        }
    }
    p.first[net->n_layers] = n;
    p.products = sum;
    for (size_t i = 0; i < n; i++)
        p.cost[i] /= sum;
    p.whole.layers = layers;
    p.whole.n_layers = (uint32_t)n;
    p.open = p.whole;
    p.open.n_layers++;
    *out = p;
    return 0;
}

void net_parts_release(struct net_parts *p)
{
    free(p->whole.layers);
    free(p->first);
    free(p->cost);
    *p = (struct net_parts){0};
}

double net_parts_cost(const struct net_parts *p, size_t first, size_t end)
{
    double sum = 0;
    for (size_t i = first; i < end; i++)
        sum += p->cost[i];
    return sum;
}

size_t net_parts_find(const struct net_parts *p, uint32_t layer, const struct model_tensor *t)
{
    for (size_t i = p->first[layer]; i < p->first[layer + 1]; i++)
        for (size_t k = 0; k < p->whole.layers[i].n_matrices; k++)
            if (p->whole.layers[i].matrices[k] == t)
                return i;
    return SIZE_MAX;
}
