/* net_parts.h - a net whose layers are the single steps of another one's, so that a span of the forward pass
 * can begin between attention and feed-forward of a layer, or hand out the states behind the last layer
 * before the final norm.
 *
 *     net_parts_init(&p, &net, &e);
 *     span = {from, p.first[l] + 1, p.first[l + 1]};    // the feed-forward step of layer l
 *     forward_run_span(&states, &p.open, ...);          // as they are, also behind the last layer
 *     forward_run_span(&states, &p.whole, ...);         // normalised when the span ends at p.whole.n_layers
 *
 * Steps work on the states alone, so the parts of a layer one after the other give the layer's own bits. */
#ifndef KERF_NET_PARTS_H
#define KERF_NET_PARTS_H

#include "model_load.h"

struct net_parts {
    double products;        /* of one token through all layers */
    struct net whole, open; /* share everything with the net but their layers; never released on their own */
    size_t *first;          /* [n_layers + 1] the part that each layer begins with; owned */
    double *cost;           /* [n_parts] products per token, as a share of those of all layers; owned */
};

/* Borrows `net` until net_parts_release. ERR_NOMEM. */
int net_parts_init(struct net_parts *out, const struct net *net, struct err *e);
void net_parts_release(struct net_parts *p);

/* Sum of `cost` over the parts [first, end): whole forward passes that such a span is worth. */
double net_parts_cost(const struct net_parts *p, size_t first, size_t end);

/* The part of `layer` that multiplies by this tensor, or SIZE_MAX. */
size_t net_parts_find(const struct net_parts *p, uint32_t layer, const struct model_tensor *t);

#endif
