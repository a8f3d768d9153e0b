/* profile.c - see profile.h: what is compared, on which text, and the figures of it. The runs themselves:
 * profile_walk.c. */
#include "profile.h"

#include "profile_walk.h"

#include "formats/model/tensor_name.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* --- both models, tensor by tensor --- */

static int check_layer(const struct profile_run *r, uint32_t layer, struct err *e)
{
    const struct net_layer *ref = &r->ref->net->layers[layer], *cand = &r->cand->net->layers[layer];
    for (size_t i = 0; i < cand->n_matrices; i++) {
        const struct model_tensor *c = cand->matrices[i], *t = net_layer_find(ref, c->name);
        if (!t || memcmp(t->ne, c->ne, sizeof t->ne) != 0)
            return err_set(e, ERR_ARG,
                           "%s: tensor '%s' is not in the reference, or has another shape there; a profile "
                           "wants the same tensors in both",
                           r->cand->name, c->name);
    }
    if (ref->n_matrices != cand->n_matrices || ref->n_steps != cand->n_steps ||
        memcmp(ref->steps, cand->steps, sizeof ref->steps) != 0)
        return err_set(e, ERR_ARG,
                       "%s: layer %u has other tensors than that of the reference, which a "
                       "profile cannot compare",
                       r->cand->name, layer);
    return 0;
}

static int check_models(const struct profile_run *r, struct err *e)
{
    const struct net *ref = r->ref->net, *cand = r->cand->net;
    if (ref->answer != cand->answer)
        return err_set(e, ERR_ARG,
                       "%s: answers with something else than the reference does (tokens, an embedding, a "
                       "score); a profile wants the same answer of both",
                       r->cand->name);
    if (ref->n_layers != cand->n_layers || ref->n_embd != cand->n_embd)
        return err_set(e, ERR_ARG,
                       "%s: has %u layers of %u channels, the reference %u of %u; a profile wants the same "
                       "layers in both",
                       r->cand->name, cand->n_layers, cand->n_embd, ref->n_layers, ref->n_embd);
    int rc = 0;
    for (uint32_t l = 0; rc == 0 && l < ref->n_layers; l++)
        rc = check_layer(r, l, e);
    return rc;
}

/* --- the list of tensors and kinds --- */

static size_t kind_of(struct profile *p, const char *name)
{
    for (size_t i = 0; i < p->n_kinds; i++)
        if (strcmp(p->kinds[i].name, name) == 0)
            return i;
    p->kinds[p->n_kinds] = (struct profile_kind){.name = name};
    return p->n_kinds++;
}

static void list_tensor(struct profile_run *r, const struct model_tensor *t, enum profile_role role)
{
    struct profile *p = r->out;
    const char *kind = NULL;
    if (!t)
        return;
    int64_t layer = tensor_layer(t->name, &kind);
    struct profile_tensor *to = &p->tensors[p->n_tensors++];
    *to = (struct profile_tensor){.name = t->name,
                                  .role = role,
                                  .layer = layer,
                                  .kind = kind_of(p, kind),
                                  .type = weights_type(r->cand->weights, t)};
    p->kinds[to->kind].n_tensors += role != PROFILE_HEAD || t != r->cand->net->embedding;
}

static void list_tensors(struct profile_run *r)
{
    const struct net *net = r->cand->net;
    list_tensor(r, net->embedding, PROFILE_EMBEDDING);
    for (uint32_t l = 0; l < net->n_layers; l++)
        for (size_t i = 0; i < net->layers[l].n_matrices; i++)
            list_tensor(r, net->layers[l].matrices[i], PROFILE_PRODUCT);
    list_tensor(r, net->head.tensor, PROFILE_HEAD);
    list_tensor(r, net->score.hidden.tensor, PROFILE_HEAD);
    list_tensor(r, net->score.output.tensor, PROFILE_HEAD);
}

static int allocate(struct profile_run *r, struct err *e)
{
    struct profile *p = r->out;
    size_t most = 5; /* embedding, heads, cache */
    p->n_layers = r->cand->net->n_layers;
    for (size_t l = 0; l < p->n_layers; l++)
        most += r->cand->net->layers[l].n_matrices;
    p->layers = calloc(p->n_layers + 1, sizeof *p->layers);
    p->tensors = calloc(most, sizeof *p->tensors);
    p->kinds = calloc(most, sizeof *p->kinds);
    r->kinds = calloc(most, sizeof *r->kinds);
    r->changes = calloc(most, sizeof *r->changes);
    bool ok = p->layers && p->tensors && p->kinds && r->kinds && r->changes;
    return ok ? 0 : err_set(e, ERR_NOMEM, "out of memory for a profile of %zu tensors", most);
}

static const struct model_tensor *in_reference(const struct profile_run *r, const struct profile_tensor *t)
{
    const struct net *ref = r->ref->net;
    if (t->layer >= 0)
        return net_layer_find(&ref->layers[t->layer], t->name);
    const struct model_tensor *outside[] = {ref->embedding, ref->head.tensor, ref->score.hidden.tensor,
                                            ref->score.output.tensor};
    for (size_t i = 0; i < 4; i++)
        if (outside[i] && strcmp(outside[i]->name, t->name) == 0)
            return outside[i];
    return NULL;
}

static const struct model_tensor *in_candidate(const struct profile_run *r, const struct profile_tensor *t)
{
    return t->layer >= 0 ? net_layer_find(&r->cand->net->layers[t->layer], t->name)
                         : model_find(r->cand->net->model, t->name);
}

/* The candidate's weights with the tensors of one kind from the reference. A tensor outside of layers that
 * the reference has not (a head of its own, where the other is tied) stays. */
static int open_kind(struct profile_run *r, size_t kind, struct err *e)
{
    struct kind_run *k = &r->kinds[kind];
    k->cache = r->cand->cache;
    int rc = weights_new_view(&k->view, r->cand->weights, e);
    for (size_t i = 0; rc == 0 && i < r->out->n_tensors; i++) {
        const struct profile_tensor *t = &r->out->tensors[i];
        const struct model_tensor *ref = t->kind == kind ? in_reference(r, t) : NULL;
        if (!ref)
            continue;
        rc = weights_lend(k->view, in_candidate(r, t), r->ref->weights, ref, e);
    }
    return rc;
}

static int open_kinds(struct profile_run *r, struct err *e)
{
    struct profile *p = r->out;
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < p->n_kinds; i++)
        rc = open_kind(r, i, e);
    if (rc != 0 || (r->ref->cache.k == r->cand->cache.k && r->ref->cache.v == r->cand->cache.v))
        return rc;
    size_t cache = kind_of(p, PROFILE_CACHE);
    rc = open_kind(r, cache, e);
    r->kinds[cache].cache = r->ref->cache;
    return rc;
}

static int begin(struct profile_run *r, struct err *e)
{
    struct compute_setup setup = {r->opt->pool, weights_kern(r->cand->weights), r->opt->activations, 1};
    int rc = check_models(r, e);
    if (rc == 0)
        rc = allocate(r, e);
    if (rc == 0)
        rc = net_parts_init(&r->ref_parts, r->ref->net, e);
    if (rc == 0)
        rc = net_parts_init(&r->cand_parts, r->cand->net, e);
    if (rc == 0)
        rc = weights_new_view(&r->ref_view, r->ref->weights, e);
    if (rc == 0)
        rc = weights_new_view(&r->cand_view, r->cand->weights, e);
    if (rc == 0)
        rc = compute_open(&r->compute, r->opt->compute, &setup, e);
    if (rc != 0)
        return rc;
    list_tensors(r);
    r->out->answer = r->ref->net->answer;
    return open_kinds(r, e);
}

/* --- how much text --- */

/* What one token costs in products: through the layers, and in the head. */
struct unit_cost {
    double layers, head;
};

static struct unit_cost unit_cost(const struct profile_run *r)
{
    const struct net *net = r->cand->net;
    return (struct unit_cost){r->cand_parts.products,
                              net->answer == NET_TOKENS ? (double)net->n_vocab * net->n_embd : 0};
}

/* The work of the comparison, and of a profile: a fixed part and one for each window. */
struct work {
    double whole, fixed, each;
};

/* Windows of n tokens, n_scored of them scored; n_all in the comparison. */
static struct work work_of(const struct profile_run *r, double n_all, double n, double n_scored)
{
    const struct unit_cost u = unit_cost(r);
    const double n_models = 1.0 + (double)r->opt->n_candidates, n_layers = r->cand->net->n_layers,
                 n_kinds = (double)r->out->n_kinds;
    return (struct work){.whole = n_models * n_all * (n * u.layers + n_scored * u.head),
                         .fixed = 3.0 * PROFILE_INPUTS * (u.layers + u.head),
                         .each = n * u.layers * (3 + (n_layers - 1) / 2 + n_kinds) +
                                 n_scored * u.head * (2 + n_layers + n_kinds)};
}

/* Windows that the share of a candidate in PROFILE_COST pays for. */
static size_t windows_paid(const struct profile_run *r, double n_all, double n, double n_scored)
{
    const struct work w = work_of(r, n_all, n, n_scored);
    double paid = PROFILE_COST * w.whole / (double)r->opt->n_candidates;
    double most = floor((paid - w.fixed) / w.each);
    return most < 1 ? 1 : most < n_all ? (size_t)most : (size_t)n_all;
}

static double cost_of(const struct profile_run *r, double n_all, double n, double n_scored)
{
    const struct work w = work_of(r, n_all, n, n_scored);
    return (w.fixed + (double)r->sample.n * w.each) / w.whole;
}

static int allocate_sample(struct profile_sample *s, struct err *e)
{
    s->ids = calloc(s->n * s->ctx, sizeof *s->ids);
    s->ends = calloc(s->n, sizeof *s->ends);
    return s->ids && s->ends ? 0 : err_set(e, ERR_NOMEM, "out of memory for the text of a profile");
}

/* n windows, evenly spread. */
static int sample_windows(struct profile_sample *s, const struct windows *w, size_t n, struct err *e)
{
    const size_t run = windows_n_scored(w);
    *s = (struct profile_sample){.n = n, .ctx = w->ctx, .first = w->first, .end = w->end};
    int rc = allocate_sample(s, e);
    s->targets = calloc(n * run, sizeof *s->targets);
    s->use = w->use ? calloc(n * run, sizeof *s->use) : NULL;
    if (rc == 0 && (!s->targets || (w->use && !s->use)))
        rc = err_set(e, ERR_NOMEM, "out of memory for the text of a profile");
    for (size_t i = 0; rc == 0 && i < n; i++) {
        size_t from = (2 * i + 1) * w->n / (2 * n);
        memcpy(s->ids + i * w->ctx, w->inputs + from * w->ctx, w->ctx * sizeof *s->ids);
        memcpy(s->targets + i * run, w->targets + from * run, run * sizeof *s->targets);
        for (size_t k = 0; k < run; k++) {
            if (s->use)
                s->use[i * run + k] = w->use[from * run + k] & WINDOW_SCORED;
            s->n_losses += !s->use || s->use[i * run + k];
        }
        s->ends[i] = s->n_losses;
    }
    return rc;
}

/* n texts, evenly spread over their lengths, padded to the longest of them. */
static int sample_texts(struct profile_sample *s, const struct passages *p, bool scored, size_t n,
                        struct err *e)
{
    const size_t longest = p->items[p->n / (2 * n)].len;
    *s = (struct profile_sample){.n = n, .ctx = longest, .end = longest};
    int rc = allocate_sample(s, e);
    s->lens = calloc(n, sizeof *s->lens);
    s->rows = calloc(p->n_points + 1, sizeof *s->rows);
    if (rc == 0 && (!s->lens || !s->rows))
        rc = err_set(e, ERR_NOMEM, "out of memory for the texts of a profile");
    for (size_t i = 0; rc == 0 && i < n; i++) {
        const struct passage *x = &p->items[(2 * i + 1) * p->n / (2 * n)];
        memcpy(s->ids + i * s->ctx, p->ids + x->begin, x->len * sizeof *s->ids);
        s->lens[i] = x->len;
        for (size_t k = 0; scored && k < x->n_points; k++)
            s->rows[s->n_losses++] = i * s->ctx + p->points[x->first_point + k];
        s->n_losses += !scored;
        s->ends[i] = s->n_losses;
    }
    return rc;
}

void profile_sample_release(struct profile_sample *s)
{
    free(s->ids);
    free(s->lens);
    free(s->targets);
    free(s->use);
    free(s->rows);
    free(s->ends);
}

/* The ids once for each model that may travel with the candidate, and which rows of inputs are kept. */
static int prepare_walk(struct profile_run *r, struct err *e)
{
    const struct profile_sample *s = &r->sample;
    const size_t n = s->n * s->ctx, n_copies = (size_t)r->cand->net->n_layers + 1;
    size_t step = n / PROFILE_INPUTS ? n / PROFILE_INPUTS : 1;
    r->ids = calloc(n * n_copies, sizeof *r->ids);
    if (!r->ids)
        return err_set(e, ERR_NOMEM, "out of memory for the text of a profile");
    for (size_t i = 0; i < n_copies; i++)
        memcpy(r->ids + i * n, s->ids, n * sizeof *r->ids);
    r->ref_inputs = (struct input_samples){.step = step, .n_tokens = n, .ctx = s->ctx, .lens = s->lens};
    r->own_inputs = r->ref_inputs;
    r->own_inputs.plain_only = true;
    return 0;
}

/* --- figures --- */

static double larger(double a, double b)
{
    return isnan(b) || a > b ? a : b;
}

/* Mean of a - b (b NULL: of a), the error by token or by window, whichever is larger. */
static struct estimate mean_of(const struct profile_sample *s, const double *a, const double *b)
{
    struct estimate by_token = b ? stat_mean_difference(a, b, s->n_losses) : stat_mean(a, s->n_losses);
    struct estimate by_window =
        b ? stat_mean_difference_of_groups(a, b, s->ends, s->n) : stat_mean_of_groups(a, s->ends, s->n);
    return (struct estimate){by_token.value,
                             s->n > 1 ? larger(by_token.error, by_window.error) : by_token.error};
}

static struct profile_restored restored_of(const struct profile_sample *s, const double *candidate,
                                           const double *restored)
{
    return (struct profile_restored){mean_of(s, restored, NULL), mean_of(s, candidate, restored)};
}

static double root(double sum, size_t n)
{
    return n ? sqrt(sum / (double)n) : NAN;
}

/* Errors of tensors, and of kinds the root mean square over theirs. */
static void take_errors(struct profile_run *r)
{
    struct profile *p = r->out;
    for (size_t k = 0; k < p->n_kinds; k++) {
        double sum = 0, own = 0;
        size_t n = 0, n_own = 0;
        for (size_t i = 0; i < p->n_tensors; i++) {
            struct profile_tensor *t = &p->tensors[i];
            const struct output_change *c = &r->changes[i];
            if (t->kind != k)
                continue;
            t->error = root(c->sum, c->n);
            t->own_error = root(c->own_sum, c->n_own);
            sum += c->n ? c->sum / (double)c->n : 0;
            own += c->n_own ? c->own_sum / (double)c->n_own : 0;
            n += c->n > 0;
            n_own += c->n_own > 0;
        }
        p->kinds[k].error = root(sum, n);
        p->kinds[k].own_error = root(own, n_own);
    }
}

/* The states of the crowd's models, as states of their own. */
static int split_crowd(struct profile_run *r, struct profile_model *models, struct err *e)
{
    const size_t n = r->sample.n * (r->sample.end - r->sample.first);
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < r->n_crowd; i++) {
        models[i] = (struct profile_model){NULL, r->cand, r->cand->weights};
        rc = hidden_states_rows(&models[i].states, r->crowd, i * n, n, e);
    }
    for (size_t i = 0; rc == 0 && i < r->out->n_kinds; i++)
        models[r->n_crowd + i] = (struct profile_model){
            r->kinds[i].states ? r->kinds[i].states : models[0].states, r->cand, r->kinds[i].view};
    return rc;
}

/* A mix would encode its head for every model of a sweep: keep the blocks where there is room. */
static int load_head(struct profile_run *r, struct err *e)
{
    const struct model_tensor *t = r->cand->net->head.tensor;
    bool fits = t && t->n_rows * t->ne[0] <= r->opt->memory_bytes / 8; /* a byte for each weight is enough */
    return fits ? weights_load(r->cand->weights, &t, 1, r->opt->pool, e) : 0;
}

static int take_losses(struct profile_run *r, struct err *e)
{
    struct profile *p = r->out;
    const struct profile_sample *s = &r->sample;
    const size_t n_models = r->n_crowd + p->n_kinds;
    struct profile_model *models = calloc(n_models, sizeof *models);
    double *losses = calloc(n_models * s->n_losses + 1, sizeof *losses);
    int rc = models && losses ? split_crowd(r, models, e)
                              : err_set(e, ERR_NOMEM, "out of memory for %zu losses", n_models * s->n_losses);
    if (rc == 0)
        rc = load_head(r, e);
    if (rc == 0)
        rc = profile_losses(losses, r, models, n_models, e);
    weights_unload(r->cand->weights);
    if (rc == 0) {
        p->loss = mean_of(s, losses, NULL);
        for (size_t i = 0; i < p->n_layers; i++)
            p->layers[i].restored = restored_of(s, losses, losses + (i + 1) * s->n_losses);
        for (size_t i = 0; i < p->n_kinds; i++)
            p->kinds[i].restored = restored_of(s, losses, losses + (r->n_crowd + i) * s->n_losses);
    }
    for (size_t i = 0; models && i < r->n_crowd; i++)
        hidden_states_free(models[i].states);
    free(models);
    free(losses);
    return rc;
}

static void run_release(struct profile_run *r)
{
    for (size_t i = 0; r->kinds && i < r->out->n_kinds; i++) {
        weights_free(r->kinds[i].view);
        hidden_states_free(r->kinds[i].states);
    }
    hidden_states_free(r->ref_states);
    hidden_states_free(r->crowd);
    input_samples_clear(&r->ref_inputs);
    input_samples_clear(&r->own_inputs);
    weights_free(r->ref_view);
    weights_free(r->cand_view);
    net_parts_release(&r->ref_parts);
    net_parts_release(&r->cand_parts);
    compute_close(r->compute);
    profile_sample_release(&r->sample);
    free(r->kinds);
    free(r->changes);
    free(r->ids);
}

/* No figure is known. */
static void leave_open(struct profile *p)
{
    const struct profile_restored unknown = {{NAN, NAN}, {NAN, NAN}};
    p->loss = unknown.loss;
    p->embedding_error = NAN;
    for (size_t i = 0; i < p->n_layers; i++)
        p->layers[i] = (struct profile_layer){NAN, unknown};
    for (size_t i = 0; i < p->n_kinds; i++) {
        p->kinds[i].error = p->kinds[i].own_error = NAN;
        p->kinds[i].restored = unknown;
    }
    for (size_t i = 0; i < p->n_tensors; i++)
        p->tensors[i].error = p->tensors[i].own_error = NAN;
}

static int walk(struct profile_run *r, struct err *e)
{
    int rc = prepare_walk(r, e);
    if (rc == 0)
        rc = profile_walk(r, e);
    if (rc == 0) {
        take_errors(r);
        rc = take_losses(r, e);
    }
    return rc;
}

/* What follows once the text is chosen; `rc` of that. */
static int measure(struct profile *out, struct profile_run *r, int rc, struct err *e)
{
    if (rc == 0 && r->opt->plan_only)
        leave_open(r->out);
    else if (rc == 0)
        rc = walk(r, e);
    r->out->n_windows = r->sample.n;
    r->out->n_tokens = r->sample.n * r->sample.ctx;
    r->out->n_losses = r->sample.n_losses;
    run_release(r);
    if (rc != 0)
        profile_release(r->out);
    else
        *out = *r->out;
    return rc;
}

static size_t n_asked(const struct profile_options *opt, size_t n_all)
{
    return opt->n_windows < n_all ? opt->n_windows : n_all;
}

int profile_windows(struct profile *out, const struct evaluate_model *ref, const struct evaluate_model *cand,
                    const struct windows *w, const struct profile_options *opt, struct err *e)
{
    struct profile p = {.n_windows_all = w->n};
    struct profile_run r = {.ref = ref, .cand = cand, .opt = opt, .out = &p};
    int rc = begin(&r, e);
    size_t n = n_asked(opt, w->n);
    if (rc == 0 && n == 0)
        n = windows_paid(&r, (double)w->n, (double)w->ctx, (double)windows_n_scored(w));
    if (rc == 0)
        rc = sample_windows(&r.sample, w, n, e);
    if (rc == 0)
        p.cost = cost_of(&r, (double)w->n, (double)w->ctx, (double)windows_n_scored(w));
    return measure(out, &r, rc, e);
}

int profile_texts(struct profile *out, const struct evaluate_model *ref, const struct evaluate_model *cand,
                  const struct passages *p, const struct profile_options *opt, struct err *e)
{
    struct profile figures = {.n_windows_all = p->n};
    struct profile_run r = {.ref = ref, .cand = cand, .opt = opt, .out = &figures};
    int rc = begin(&r, e);
    size_t n = n_asked(opt, p->n), n_tokens = 0;
    for (size_t i = 0; i < p->n; i++)
        n_tokens += p->items[i].len;
    if (rc == 0 && n == 0) {
        double mean = (double)n_tokens / (double)p->n;
        n = windows_paid(&r, (double)p->n, mean, 0);
        while (n > 1 && n * p->items[p->n / (2 * n)].len >
                            (size_t)(mean * (double)windows_paid(&r, (double)p->n, mean, 0)))
            n--; /* padding costs, too */
    }
    if (rc == 0)
        rc = sample_texts(&r.sample, p, ref->net->answer == NET_SCORE, n, e);
    if (rc == 0) { /* the texts of the comparison are as long as they are, those of the profile padded */
        double mean = (double)n_tokens / (double)p->n;
        figures.cost = cost_of(&r, (double)p->n, mean, 0) * (double)r.sample.ctx / mean;
    }
    return measure(out, &r, rc, e);
}

void profile_release(struct profile *p)
{
    if (!p)
        return;
    free(p->layers);
    free(p->kinds);
    free(p->tensors);
    *p = (struct profile){0};
}
