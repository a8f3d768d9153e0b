/* step_delta_net.c - the gated delta net: projections, a linear attention with a recurrent state per head,
 * and the output. What happens between the matrices is one step of the back end (compute.h, struct
 * delta_block). Truth: specification, architectures 13.4 and 16.4 (HuggingFace order of operations). */
#include "layer_run.h"

struct sizes {
    size_t value, conv; /* columns of the values, and of queries, keys and values together */
};

static struct sizes sizes_of(const struct delta_net *d)
{
    size_t key = (size_t)d->n_k_heads * d->k_dim, value = (size_t)d->n_v_heads * d->v_dim;
    return (struct sizes){value, 2 * key + value};
}

/* Columns of the projection that holds beta and alpha interleaved; 0: they are apart. */
static size_t both_cols(const struct delta_net *d)
{
    return d->ba.tensor ? 2 * (size_t)d->n_v_heads : 0;
}

/* The interleaved projection stands in the place of the outputs, which are not there yet, if it fits. */
size_t delta_net_wide_cols(const struct delta_net *d)
{
    struct sizes s = sizes_of(d);
    size_t both = both_cols(d) > s.value ? both_cols(d) : 0;
    return s.conv + 2 * s.value + 2 * (size_t)d->n_v_heads + both;
}

static int project(struct layer_run *r, const struct delta_block *b, struct region h, struct err *e)
{
    const struct delta_net *d = &r->layer->delta_net;
    struct sizes s = sizes_of(d);
    size_t n_embd = r->net->n_embd, n_v = d->n_v_heads, k = 0;
    struct product p[4];
    const struct model_tensor *seen[4];
    struct region both = both_cols(d) > s.value ? region_at(b->decay, b->n * n_v) : b->out;
    p[k] = layer_product(&d->qkv, b->u, s.conv, false);
    seen[k++] = d->qkv.tensor;
    p[k] = layer_product(&d->gate, b->z, s.value, false);
    seen[k++] = d->gate.tensor;
    p[k] = d->ba.tensor ? layer_product(&d->ba, both, 2 * n_v, false)
                        : layer_product(&d->beta, b->beta, n_v, false);
    seen[k++] = d->ba.tensor ? d->ba.tensor : d->beta.tensor;
    if (!d->ba.tensor) {
        p[k] = layer_product(&d->alpha, b->decay, n_v, false);
        seen[k++] = d->alpha.tensor;
    }
    int rc = r->ops->rms_norm(r->compute, r->norm, h, b->n, n_embd, d->norm, r->net->eps, e);
    if (rc == 0)
        rc = layer_observe(r, seen, k, r->norm, b->n, n_embd, e);
    if (rc == 0)
        rc = r->ops->products(r->compute, r->weights, r->norm, b->n, n_embd, p, k, e);
    return rc == 0 && d->ba.tensor ? r->ops->split_pairs(r->compute, b, both, e) : rc;
}

static int run_block(struct layer_run *r, const struct delta_block *b, struct region h, struct err *e)
{
    const struct delta_net *d = &r->layer->delta_net;
    size_t value = sizes_of(d).value;
    struct product out = layer_product(&d->output, h, r->net->n_embd, true);
    int rc = project(r, b, h, e);
    if (rc == 0)
        rc = r->ops->delta_net(r->compute, b, e);
    if (rc == 0)
        rc = layer_observe(r, &d->output.tensor, 1, b->out, b->n, value, e);
    return rc == 0 ? r->ops->products(r->compute, r->weights, b->out, b->n, value, &out, 1, e) : rc;
}

int step_delta_net(struct layer_run *r, struct err *e)
{
    const struct delta_net *d = &r->layer->delta_net;
    struct sizes s = sizes_of(d);
    struct delta_block b = {.n_k_heads = d->n_k_heads,
                            .n_v_heads = d->n_v_heads,
                            .k_dim = d->k_dim,
                            .v_dim = d->v_dim,
                            .kernel = d->kernel,
                            .tiled = d->tiled,
                            .conv = d->conv,
                            .dt_bias = d->dt_bias,
                            .a = d->a,
                            .norm = d->head_norm,
                            .eps = r->net->eps,
                            .tail = r->state,
                            .carried = region_at(r->state, (size_t)d->kernel * s.conv)};
    int rc = 0;
    for (size_t t = 0; rc == 0 && t < r->n_tokens; t += r->block) {
        b.n = r->n_tokens - t < r->block ? r->n_tokens - t : r->block;
        b.continues = t % r->ctx != 0;
        b.span = b.n < r->ctx ? b.n : r->ctx;
        b.n_windows = b.n / b.span;
        b.u = r->wide;
        b.z = region_at(b.u, b.n * s.conv);
        b.out = region_at(b.z, b.n * s.value);
        b.beta = region_at(b.out, b.n * s.value);
        b.decay = region_at(b.beta, b.n * d->n_v_heads);
        rc = run_block(r, &b, region_at(r->h, t * r->net->n_embd), e);
    }
    return rc;
}
