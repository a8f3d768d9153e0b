/* hessian_plan.c - see hessian_plan.h. */
#include "hessian_plan.h"

#include "gram_sums.h"

#include <stdio.h>
#include <stdlib.h>

static int no_memory(struct err *e)
{
    return err_set(e, ERR_NOMEM, "out of memory for the list of Hessians");
}

uint64_t hessian_plan_bytes(const struct hessian_plan *p)
{
    uint64_t n = 0;
    for (size_t i = 0; i < p->n_grams; i++)
        n += gram_n_values(p->grams[i].n_cols) * p->grams[i].n_mats * sizeof(float);
    return n;
}

void hessian_plan_release(struct hessian_plan *p)
{
    arena_release(&p->arena);
    free(p->grams);
    free(p->uses);
    *p = (struct hessian_plan){0};
}

/* Room for one more element. */
static void *grow(void *items, size_t n, size_t *cap, size_t size)
{
    if (n < *cap)
        return items;
    size_t more = *cap ? 2 * *cap : 64;
    void *grown = realloc(items, more * size);
    if (grown)
        *cap = more;
    return grown;
}

int hessian_plan_add_gram(struct hessian_plan *p, const struct hessian_gram *g, size_t *index, struct err *e)
{
    struct hessian_gram *grown = grow(p->grams, p->n_grams, &p->grams_cap, sizeof *grown);
    if (!grown)
        return no_memory(e);
    p->grams = grown;
    struct hessian_gram x = *g;
    x.name = arena_strdup(&p->arena, g->name);
    x.owner = arena_strdup(&p->arena, g->owner);
    if (!x.name || !x.owner)
        return no_memory(e);
    *index = p->n_grams;
    p->grams[p->n_grams++] = x;
    return 0;
}

int hessian_plan_add_use(struct hessian_plan *p, const struct hessian_use *u, struct err *e)
{
    struct hessian_use *grown = grow(p->uses, p->n_uses, &p->uses_cap, sizeof *grown);
    if (!grown)
        return no_memory(e);
    p->uses = grown;
    struct hessian_use x = *u;
    x.tensor = arena_strdup(&p->arena, u->tensor);
    if (!x.tensor)
        return no_memory(e);
    p->uses[p->n_uses++] = x;
    return 0;
}

/* The layer that is being planned. */
struct planning {
    struct hessian_plan *plan;
    uint32_t layer;
    int rc;
    struct err *e;
};

static size_t gram(struct planning *p, const struct model_tensor *owner, enum hessian_weighting weighting,
                   uint64_t n_mats)
{
    static const char *const suffix[] = {".gram", ".gram_mass", ".gram_mixed"};
    char name[160];
    size_t index = 0;
    snprintf(name, sizeof name, "%s%s", owner->name, suffix[weighting]);
    struct hessian_gram g = {name, owner->name, owner->ne[0], n_mats, weighting, p->layer};
    if (p->rc == 0)
        p->rc = hessian_plan_add_gram(p->plan, &g, &index, p->e);
    return index;
}

static void use(struct planning *p, const struct matrix *m, size_t g)
{
    struct hessian_use u = {m->tensor ? m->tensor->name : NULL, m->row0, m->n_rows, g, -1};
    if (p->rc == 0 && m->tensor)
        p->rc = hessian_plan_add_use(p->plan, &u, p->e);
}

static void use_stack(struct planning *p, const struct model_tensor *t, size_t g, int64_t pool)
{
    struct hessian_use u = {t->name, 0, t->ne[1], g, pool};
    if (p->rc == 0)
        p->rc = hessian_plan_add_use(p->plan, &u, p->e);
}

static void plan_attention(struct planning *p, const struct attention *a)
{
    use(p, &a->q, gram(p, a->q.tensor, HESSIAN_PLAIN, 1));
    use(p, &a->k, gram(p, a->k.tensor, HESSIAN_MASS, 1));
    use(p, &a->v, gram(p, a->v.tensor, HESSIAN_MIXED, 1));
    use(p, &a->output, gram(p, a->output.tensor, HESSIAN_PLAIN, 1));
}

/* Of a token's row of keys the larger part is its value as well, and errors of both kinds come in where
 * attention looks at it. The matrices of heads multiply what is not weighed: queries, and what attention
 * found. */
static void plan_latent(struct planning *p, const struct attention *a)
{
    const struct latent *l = &a->latent;
    if (l->q_a.tensor)
        use(p, &l->q_a, gram(p, l->q_a.tensor, HESSIAN_PLAIN, 1));
    use(p, &a->q, gram(p, a->q.tensor, HESSIAN_PLAIN, 1));
    use(p, &a->k, gram(p, a->k.tensor, HESSIAN_MASS, 1));
    use_stack(p, l->k_b, gram(p, l->k_b, HESSIAN_PLAIN, a->n_heads), -1);
    use_stack(p, l->v_b, gram(p, l->v_b, HESSIAN_PLAIN, a->n_heads), -1);
    use(p, &a->output, gram(p, a->output.tensor, HESSIAN_PLAIN, 1));
}

static void plan_mlp(struct planning *p, const struct mlp *m)
{
    size_t in = gram(p, m->gate.tensor ? m->gate.tensor : m->up.tensor, HESSIAN_PLAIN, 1);
    use(p, &m->gate, in);
    use(p, &m->up, in);
    use(p, &m->down, gram(p, m->down.tensor, HESSIAN_PLAIN, 1));
}

/* Router and shared expert multiply what the experts see before it is routed, and that is what an expert with
 * few tokens is shrunk to. */
static void plan_moe(struct planning *p, const struct moe *m)
{
    size_t all = gram(p, m->router.tensor, HESSIAN_PLAIN, 1);
    size_t in = gram(p, m->gate_exps, HESSIAN_PLAIN, m->n_experts);
    size_t down = gram(p, m->down_exps, HESSIAN_PLAIN, m->n_experts);
    use(p, &m->router, all);
    use_stack(p, m->gate_exps, in, (int64_t)all);
    if (m->up_exps != m->gate_exps)
        use_stack(p, m->up_exps, in, (int64_t)all);
    use_stack(p, m->down_exps, down, -1);
    if (m->shared_width == 0)
        return;
    use(p, &m->shared_gate, all);
    use(p, &m->shared_up, all);
    use(p, &m->shared_router, all);
    use(p, &m->shared_down, gram(p, m->shared_down.tensor, HESSIAN_PLAIN, 1));
}

static void plan_delta_net(struct planning *p, const struct delta_net *d)
{
    size_t in = gram(p, d->qkv.tensor, HESSIAN_PLAIN, 1);
    use(p, &d->qkv, in);
    use(p, &d->gate, in);
    use(p, &d->ba, in);
    if (!d->ba.tensor) {
        use(p, &d->beta, in);
        use(p, &d->alpha, in);
    }
    use(p, &d->output, gram(p, d->output.tensor, HESSIAN_PLAIN, 1));
}

/* Also of a tied embedding: most of what its error does, it does in the head. */
static void plan_head(struct planning *p, const struct net *net)
{
    p->layer = HESSIAN_BEHIND;
    if (net->head.tensor)
        use(p, &net->head, gram(p, net->head.tensor, HESSIAN_PLAIN, 1));
}

int hessian_plan_make(struct hessian_plan *out, const struct net *net, struct err *e)
{
    struct planning p = {.plan = out, .e = e};
    for (uint32_t i = 0; p.rc == 0 && i < net->n_layers; i++) {
        const struct net_layer *l = &net->layers[i];
        p.layer = i;
        for (size_t k = 0; p.rc == 0 && k < l->n_steps; k++)
            switch (l->steps[k]) {
            case STEP_ATTENTION: plan_attention(&p, &l->attention); break;
            case STEP_MLP: plan_mlp(&p, &l->mlp); break;
            case STEP_MOE: plan_moe(&p, &l->moe); break;
            case STEP_DELTA_NET: plan_delta_net(&p, &l->delta_net); break;
            case STEP_LATENT: plan_latent(&p, &l->attention); break;
            }
    }
    if (p.rc == 0)
        plan_head(&p, net);
    return p.rc;
}
