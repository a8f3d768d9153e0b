/* profile_walk.c - see profile_walk.h. */
#include "profile_walk.h"

#include "state_change.h"

#include <math.h>
#include <string.h>

/* Parts of the working memory: each run's buffers and states, the crowd between layers, one kind. */
#define RUN_SHARE   4
#define CROWD_SHARE 8
#define KIND_SHARE  32

static size_t n_tokens(const struct profile_run *r)
{
    return r->sample.n * r->sample.ctx;
}

static int show(void *ctx, const struct progress_step *s)
{
    const struct profile_run *r = ctx;
    (void)s;
    return progress_stops(&r->opt->progress, &(struct progress_step){.done = r->layer,
                                                                     .total = r->cand->net->n_layers + 1.0,
                                                                     .what = r->cand->name,
                                                                     .counted = "layers",
                                                                     .n_done = r->layer,
                                                                     .n = r->cand->net->n_layers});
}

/* One run of some parts of a net. */
struct leg {
    const struct net *net; /* `open` or `whole` of parts */
    struct weights *view;
    const struct kv_cache *cache;
    const struct hidden_states *from;
    size_t first, end;
    size_t n_copies;               /* of the sample, in `from` */
    struct input_samples *samples; /* keep inputs there, or NULL */
};

static int run_leg(struct hidden_states **out, struct profile_run *r, const struct leg *l, struct err *e)
{
    struct forward_options f = {.compute = r->opt->compute,
                                .pool = r->opt->pool,
                                .memory_bytes = r->opt->memory_bytes / RUN_SHARE,
                                .memory_share = RUN_SHARE,
                                .activations = r->opt->activations,
                                .cache = *l->cache,
                                .keep_first = r->sample.first,
                                .keep_end = r->sample.end,
                                .observe = l->samples ? input_samples_take : NULL,
                                .observe_ctx = l->samples,
                                .progress = {show, r}};
    struct forward_span span = {l->from, (uint32_t)l->first, (uint32_t)l->end};
    return forward_run_span(out, l->net, l->view, r->ids, l->n_copies * r->sample.n, r->sample.ctx, &span, &f,
                            e);
}

/* Let `next` take the place of *states. */
static void replace(struct hidden_states **states, struct hidden_states *next)
{
    hidden_states_free(*states);
    *states = next;
}

static struct leg ref_leg(const struct profile_run *r, const struct hidden_states *from, size_t first,
                          size_t end)
{
    return (struct leg){&r->ref_parts.open, r->ref_view, &r->ref->cache, from, first, end, 1, NULL};
}

static struct leg cand_leg(const struct profile_run *r, const struct hidden_states *from, size_t first,
                           size_t end)
{
    return (struct leg){&r->cand_parts.open, r->cand_view, &r->cand->cache, from, first, end, 1, NULL};
}

/* --- embeddings --- */

static int change_of_states(double *error, const struct profile_run *r, struct err *e)
{
    const struct state_tokens tokens = {n_tokens(r), r->sample.ctx, r->sample.lens, false};
    double change = 0;
    int rc = state_change(&change, r->ref_states, r->crowd, &tokens, e);
    if (rc == 0)
        *error = sqrt(change);
    return rc;
}

/* The candidate with the reference's embedding begins where the reference does. */
static int embed(struct profile_run *r, struct err *e)
{
    const struct leg ref = ref_leg(r, NULL, 0, 0), cand = cand_leg(r, NULL, 0, 0);
    struct profile *p = r->out;
    int rc = run_leg(&r->ref_states, r, &ref, e);
    if (rc == 0)
        rc = run_leg(&r->crowd, r, &cand, e);
    r->n_crowd = 1;
    if (rc == 0)
        rc = change_of_states(&p->embedding_error, r, e);
    for (size_t i = 0; rc == 0 && i < p->n_tensors; i++) {
        struct profile_tensor *t = &p->tensors[i];
        if (t->role != PROFILE_EMBEDDING)
            continue;
        r->changes[i].n = t->n_inputs = n_tokens(r);
        r->changes[i].sum = p->embedding_error * p->embedding_error * (double)t->n_inputs;
        if (p->embedding_error > 0)
            rc = run_leg(&r->kinds[t->kind].states, r, &ref, e);
    }
    return rc;
}

/* --- products --- */

/* All experts of a stack, or the one matrix. */
static int compare_tensor(struct profile_run *r, size_t index, const struct model_tensor *ref,
                          const struct model_tensor *cand, struct err *e)
{
    struct profile_tensor *t = &r->out->tensors[index];
    struct output_change *sum = &r->changes[index];
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < r->ref_inputs.n; i++) {
        const struct input_sample *x = &r->ref_inputs.items[i];
        bool takes = false;
        for (size_t k = 0; k < x->n_takers; k++)
            takes |= x->takers[k] == ref;
        if (!takes || x->n == 0)
            continue;
        struct output_side of_ref = {r->ref->weights, ref, x};
        struct output_side of_cand = {r->cand->weights, cand,
                                      input_samples_find(&r->own_inputs, cand->name, x->expert)};
        uint64_t row0 = x->expert < 0 ? 0 : (uint64_t)x->expert * ref->ne[1];
        rc = output_change_add(sum, &of_ref, &of_cand, row0, x->expert < 0 ? ref->n_rows : ref->ne[1],
                               r->compute, e);
    }
    t->n_inputs = sum->n;
    return rc;
}

/* A kind that makes a difference from here on begins with the candidate's states. */
static int begin_kind(struct profile_run *r, struct kind_run *k, struct err *e)
{
    int rc = hidden_states_new(&k->states, n_tokens(r), r->cand->net->n_embd,
                               r->opt->memory_bytes / KIND_SHARE, e);
    return rc == 0 ? hidden_states_copy(k->states, 0, r->crowd, 0, n_tokens(r), e) : rc;
}

/* Every matrix of the layer at work. */
static int compare_layer(struct profile_run *r, struct err *e)
{
    const struct net_layer *ref = &r->ref->net->layers[r->layer], *cand = &r->cand->net->layers[r->layer];
    struct profile *p = r->out;
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < p->n_tensors; i++) {
        struct profile_tensor *t = &p->tensors[i];
        if (t->layer != (int64_t)r->layer)
            continue;
        rc = compare_tensor(r, i, net_layer_find(ref, t->name), net_layer_find(cand, t->name), e);
        bool same = r->changes[i].n > 0 && r->changes[i].sum == 0;
        if (rc == 0 && !same && !r->kinds[t->kind].states)
            rc = begin_kind(r, &r->kinds[t->kind], e);
    }
    return rc;
}

/* --- layers --- */

/* Those of the candidate, then one more: the candidate up to here with this layer restored. */
static int join_crowd(struct profile_run *r, struct hidden_states *crowd, const struct hidden_states *fresh,
                      struct err *e)
{
    struct hidden_states *all = NULL;
    const size_t n = n_tokens(r), n_before = hidden_states_n_rows(crowd);
    int rc = hidden_states_new(&all, n_before + n, hidden_states_n_cols(crowd),
                               r->opt->memory_bytes / CROWD_SHARE, e);
    if (rc == 0)
        rc = hidden_states_copy(all, 0, crowd, 0, n_before, e);
    if (rc == 0)
        rc = hidden_states_copy(all, n_before, fresh, 0, n, e);
    if (rc != 0) {
        hidden_states_free(all);
        return rc;
    }
    replace(&r->crowd, all);
    r->n_crowd++;
    return 0;
}

static bool caches_differ(const struct profile_run *r, const struct kind_run *k)
{
    return k->cache.k != r->cand->cache.k || k->cache.v != r->cand->cache.v;
}

/* The kind of the cache makes a difference from the first attention on. */
static int run_kinds(struct profile_run *r, size_t first, size_t end, struct err *e)
{
    const bool attends = r->cand->net->layers[r->layer].steps[0] == STEP_ATTENTION;
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < r->out->n_kinds; i++) {
        struct kind_run *k = &r->kinds[i];
        struct hidden_states *next = NULL, *own = NULL;
        bool begins = !k->states && attends && caches_differ(r, k);
        if (!k->states && !begins)
            continue;
        if (begins)
            rc = hidden_states_rows(&own, r->crowd, 0, n_tokens(r), e);
        struct leg leg = cand_leg(r, begins ? own : k->states, first, end);
        leg.view = k->view;
        leg.cache = &k->cache;
        if (rc == 0)
            rc = run_leg(&next, r, &leg, e);
        hidden_states_free(own);
        if (rc == 0)
            replace(&k->states, next);
    }
    return rc;
}

/* The reference; the candidate with this layer restored; the candidate and all that follow it. */
static int run_layer(struct profile_run *r, struct hidden_states **fresh, struct hidden_states **crowd,
                     struct err *e)
{
    const size_t first = r->ref_parts.first[r->layer], end = r->ref_parts.first[r->layer + 1];
    struct hidden_states *next = NULL, *own = NULL;
    struct leg ref = ref_leg(r, r->ref_states, first, end), cand = cand_leg(r, r->crowd, first, end);
    ref.samples = &r->ref_inputs;
    cand.samples = &r->own_inputs;
    cand.n_copies = r->n_crowd;
    int rc = run_leg(&next, r, &ref, e);
    if (rc == 0) {
        replace(&r->ref_states, next);
        rc = hidden_states_rows(&own, r->crowd, 0, n_tokens(r), e);
    }
    if (rc == 0) {
        struct leg restored = ref_leg(r, own, first, end);
        rc = run_leg(fresh, r, &restored, e);
    }
    if (rc == 0)
        rc = run_leg(crowd, r, &cand, e);
    hidden_states_free(own);
    return rc;
}

static int walk_layer(struct profile_run *r, struct err *e)
{
    const struct net_layer *ref = &r->ref->net->layers[r->layer], *cand = &r->cand->net->layers[r->layer];
    const size_t first = r->cand_parts.first[r->layer], end = r->cand_parts.first[r->layer + 1];
    struct hidden_states *fresh = NULL, *crowd = NULL;
    int rc = weights_load(r->ref->weights, ref->matrices, ref->n_matrices, r->opt->pool, e);
    if (rc == 0)
        rc = weights_load(r->cand->weights, cand->matrices, cand->n_matrices, r->opt->pool, e);
    if (rc == 0)
        rc = run_layer(r, &fresh, &crowd, e);
    if (rc == 0)
        rc = compare_layer(r, e);
    if (rc == 0)
        rc = run_kinds(r, first, end, e);
    if (rc == 0)
        rc = join_crowd(r, crowd, fresh, e);
    if (rc == 0)
        rc = change_of_states(&r->out->layers[r->layer].error, r, e);
    weights_unload(r->cand->weights);
    weights_unload(r->ref->weights);
    input_samples_clear(&r->ref_inputs);
    input_samples_clear(&r->own_inputs);
    hidden_states_free(fresh);
    hidden_states_free(crowd);
    return rc;
}

/* --- the end --- */

/* Final norm of what is kept. */
static int finish(struct hidden_states **states, struct profile_run *r, struct leg leg, bool of_ref,
                  struct err *e)
{
    struct hidden_states *next = NULL;
    leg.net = of_ref ? &r->ref_parts.whole : &r->cand_parts.whole;
    int rc = run_leg(&next, r, &leg, e);
    if (rc == 0)
        replace(states, next);
    return rc;
}

static int compare_head(struct profile_run *r, struct err *e)
{
    const struct net *ref = r->ref->net, *cand = r->cand->net;
    struct hidden_states *own = NULL;
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < r->out->n_tensors; i++) {
        struct profile_tensor *t = &r->out->tensors[i];
        if (t->role != PROFILE_HEAD || !ref->head.tensor)
            continue;
        const size_t n = hidden_states_n_rows(r->ref_states);
        rc = input_samples_take_states(&r->ref_inputs, ref->head.tensor, r->ref_states, e);
        if (rc == 0)
            rc = hidden_states_rows(&own, r->crowd, 0, n, e);
        if (rc == 0)
            rc = input_samples_take_states(&r->own_inputs, cand->head.tensor, own, e);
        if (rc == 0)
            rc = compare_tensor(r, i, ref->head.tensor, cand->head.tensor, e);
        hidden_states_free(own);
        input_samples_clear(&r->ref_inputs);
        input_samples_clear(&r->own_inputs);
    }
    return rc;
}

static int finish_all(struct profile_run *r, struct err *e)
{
    const size_t end = r->cand_parts.first[r->cand->net->n_layers];
    struct leg cand = cand_leg(r, r->crowd, end, end);
    cand.n_copies = r->n_crowd;
    int rc = finish(&r->ref_states, r, ref_leg(r, r->ref_states, end, end), true, e);
    if (rc == 0)
        rc = finish(&r->crowd, r, cand, false, e);
    for (size_t i = 0; rc == 0 && i < r->out->n_kinds; i++)
        if (r->kinds[i].states)
            rc = finish(&r->kinds[i].states, r, cand_leg(r, r->kinds[i].states, end, end), false, e);
    return rc == 0 ? compare_head(r, e) : rc;
}

int profile_walk(struct profile_run *r, struct err *e)
{
    int rc = embed(r, e);
    for (r->layer = 0; rc == 0 && r->layer < r->cand->net->n_layers; r->layer++)
        rc = walk_layer(r, e);
    return rc == 0 ? finish_all(r, e) : rc;
}
