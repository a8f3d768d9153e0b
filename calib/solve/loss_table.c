/* loss_table.c - see loss_table.h: which tensors and types there are, and losses from figures. The file is
 * loss_file.c. */
#include "loss_table.h"

#include "formats/gguf/imatrix_file.h"
#include "formats/model/model_identity.h"
#include "formats/model/tensor_name.h"
#include "libquant/base/sha256.h"
#include "libquant/base/order.h"
#include "libquant/quant.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int no_memory(struct err *e)
{
    return err_set(e, ERR_NOMEM, "out of memory for the loss table");
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct loss_tensor *)a)->tensor->name,
                  ((const struct loss_tensor *)b)->tensor->name);
}

static int by_size(const void *a, const void *b)
{
    const struct loss_option *x = a, *y = b;
    if (x->n_bytes != y->n_bytes)
        return x->n_bytes < y->n_bytes ? -1 : 1;
    return (x->type > y->type) - (x->type < y->type);
}

/* Ask the recipe what "everything in this type" would give. list [model_n_tensors]. */
static int assign(struct recipe_tensor *list, const struct loss_table *t, enum qtype type, struct err *e)
{
    struct recipe_override all = {".", type};
    struct recipe_options recipe = {
        .recipe = "llama.cpp", .overrides = &all, .n_overrides = 1, .has_imatrix = t->imatrix != NULL};
    for (size_t i = 0; i < model_n_tensors(t->model); i++) {
        const struct model_tensor *m = model_tensor(t->model, i);
        list[i] = (struct recipe_tensor){.name = m->name,
                                         .n_dims = m->n_dims,
                                         .ne = {m->ne[0], m->ne[1], m->ne[2], m->ne[3]},
                                         .source_type = m->type,
                                         .always_f32 = m->always_f32};
    }
    return recipe_assign(&recipe, model_hparams(t->model), list, model_n_tensors(t->model), true, e);
}

static int add_option(struct loss_tensor *t, enum qtype type, struct err *e)
{
    uint64_t row_bytes = 0;
    for (size_t i = 0; i < t->n_options; i++)
        if (t->options[i].type == type)
            return 0;
    if (!qtype_row_bytes(type, t->tensor->ne[0], &row_bytes))
        return err_set(e, ERR_ARG, "tensor '%s': rows of %llu values do not divide into %s blocks",
                       t->tensor->name, (unsigned long long)t->tensor->ne[0], qtype_name(type));
    bool same = type == t->tensor->type;
    t->options[t->n_options++] = (struct loss_option){.type = type,
                                                      .n_bytes = row_bytes * t->tensor->n_rows,
                                                      .proxy = same ? 0 : NAN,
                                                      .local = NAN,
                                                      .kld = NAN,
                                                      .kld_stderr = NAN,
                                                      .loss = same ? 0 : NAN};
    return 0;
}

/* The importance entry of a tensor, if its size fits; an embedding may have a foreign one. */
static const struct imatrix_entry *importance_of(const struct imatrix *m, const struct model_tensor *t)
{
    const struct imatrix_entry *entry = m ? imatrix_find_for(m, t->name) : NULL;
    return entry && entry->n_values == t->ne[0] * t->ne[2] * t->ne[3] ? entry : NULL;
}

static int collect_tensors(struct loss_table *t, const struct recipe_tensor *list, size_t n_types,
                           struct err *e)
{
    size_t n = model_n_tensors(t->model);
    t->tensors = arena_array(&t->arena, n + 1, sizeof *t->tensors);
    if (!t->tensors)
        return no_memory(e);
    for (size_t i = 0; i < n; i++) {
        if (!list[i].forced || model_tensor(t->model, i)->n_rows == 0)
            continue;
        struct loss_tensor *l = &t->tensors[t->n_tensors++];
        l->tensor = model_tensor(t->model, i);
        l->importance = importance_of(t->imatrix, l->tensor);
        l->options = arena_array(&t->arena, n_types + 1, sizeof *l->options);
        if (!l->options)
            return no_memory(e);
    }
    if (t->n_tensors == 0)
        return err_set(e, ERR_ARG, "%s: no tensor that could be quantized", model_path(t->model));
    return 0;
}

static int add_type(struct loss_table *t, const struct recipe_tensor *list, struct err *e)
{
    int rc = 0;
    for (size_t i = 0, at = 0; rc == 0 && at < t->n_tensors; i++) {
        if (model_tensor(t->model, i) != t->tensors[at].tensor)
            continue;
        struct loss_tensor *l = &t->tensors[at++];
        if (l->importance || !recipe_needs_importance(list[i].type, l->tensor->name))
            rc = add_option(l, list[i].type, e);
    }
    return rc;
}

/* --- what the figures belong to --- */

static int hash_weights(struct loss_table *t, struct err *e)
{
    const struct model_tensor **list = malloc((t->n_tensors + 1) * sizeof *list);
    struct sha256 s;
    if (!list)
        return no_memory(e);
    for (size_t i = 0; i < t->n_tensors; i++)
        list[i] = t->tensors[i].tensor;
    sha256_init(&s);
    int rc = model_identity_numbers(&s, t->model, e);
    if (rc == 0)
        rc = model_identity_sampled(&s, t->model, list, t->n_tensors, e);
    model_identity_adapters(&s, t->model);
    sha256_final_hex(&s, t->weights_sha256);
    free(list);
    return rc;
}

void loss_imatrix_hash(const struct imatrix *imatrix, char out[65])
{
    struct sha256 s;
    sha256_init(&s);
    for (size_t i = 0; i < imatrix_n(imatrix); i++) {
        const struct imatrix_entry *m = imatrix_entry_at(imatrix, i);
        sha256_update(&s, m->name, strlen(m->name) + 1);
        sha256_update(&s, m->sums, (size_t)m->n_values * sizeof *m->sums);
        sha256_update(&s, m->counts, (size_t)m->n_mats * sizeof *m->counts);
    }
    sha256_final_hex(&s, out);
}

int loss_weights_hash(const struct model *m, char out[65], struct err *e)
{
    const enum qtype any = QTYPE_Q8_0; /* which tensors there are does not depend on the type */
    struct loss_table t;
    int rc = loss_table_init(&t, m, NULL, &any, 1, e);
    if (rc != 0)
        return rc;
    memcpy(out, t.weights_sha256, sizeof t.weights_sha256);
    loss_table_release(&t);
    return 0;
}

int loss_table_init(struct loss_table *out, const struct model *m, const struct imatrix *imatrix,
                    const enum qtype *types, size_t n_types, struct err *e)
{
    struct loss_table t = {.model = m, .imatrix = imatrix};
    struct recipe_tensor *list = calloc(model_n_tensors(m) + 1, sizeof *list);
    int rc = list ? 0 : no_memory(e);
    if (rc == 0 && n_types == 0)
        rc = err_set(e, ERR_ARG, "no types to choose from");
    for (size_t i = 0; rc == 0 && i < n_types; i++) {
        const struct qtype_info *info = qtype_info(types[i]);
        if (!info || !info->can_encode)
            rc = err_set(e, ERR_ARG, "%s cannot be written", qtype_name(types[i]));
        else if (quant_has_factor(types[i]))
            rc = err_set(e, ERR_UNSUPPORTED,
                         "%s needs a factor beside its blocks, which is not measured here; leave it out, and "
                         "ask for it with 'kerf quantize --tensor-type'",
                         info->name);
        if (rc == 0)
            rc = assign(list, &t, types[i], e);
        if (rc == 0 && i == 0)
            rc = collect_tensors(&t, list, n_types, e);
        if (rc == 0)
            rc = add_type(&t, list, e);
    }
    for (size_t i = 0; rc == 0 && i < t.n_tensors; i++) {
        rc = add_option(&t.tensors[i], t.tensors[i].tensor->type, e);
        qsort(t.tensors[i].options, t.tensors[i].n_options, sizeof *t.tensors[i].options, by_size);
    }
    free(list);
    if (rc == 0) {
        qsort(t.tensors, t.n_tensors, sizeof *t.tensors, by_name);
        rc = hash_weights(&t, e);
    }
    if (rc != 0) {
        loss_table_release(&t);
        return rc;
    }
    if (imatrix)
        loss_imatrix_hash(imatrix, t.imatrix_sha256);
    *out = t;
    return 0;
}

size_t loss_table_all_types(enum qtype *types)
{
    size_t n = 0;
    for (uint32_t id = 0; id < QTYPE_COUNT; id++) {
        const struct qtype_info *info = qtype_info(id);
        if (info && info->is_quantized && info->can_encode && info->in_files &&
            !quant_has_factor((enum qtype)id))
            types[n++] = (enum qtype)id;
    }
    return n;
}

void loss_table_release(struct loss_table *t)
{
    if (!t)
        return;
    arena_release(&t->arena);
    *t = (struct loss_table){0};
}

const struct loss_option *loss_table_option(const struct loss_tensor *t, enum qtype type)
{
    for (size_t i = 0; i < t->n_options; i++)
        if (t->options[i].type == type)
            return &t->options[i];
    return NULL;
}

/* --- what fast probes look at --- */

int loss_layer(const struct loss_tensor *t)
{
    return (int)tensor_layer(t->tensor->name, NULL);
}

static double bits_of(enum qtype type)
{
    const struct qtype_info *info = qtype_info(type);
    return 8.0 * info->block_bytes / info->block_elems;
}

struct loss_option *loss_probe_option(const struct loss_tensor *t)
{
    struct loss_option *best = NULL;
    double want = bits_of(QTYPE_Q3_K), nearest = INFINITY;
    for (size_t i = 0; i < t->n_options; i++) {
        struct loss_option *o = &t->options[i];
        double far = o->type == QTYPE_Q3_K ? -1 : fabs(bits_of(o->type) - want);
        if (o->type == t->tensor->type || o->proxy == 0 || !(far < nearest))
            continue;
        nearest = far;
        best = o;
    }
    return best;
}

bool loss_is_dominated(const struct loss_tensor *t, const struct loss_option *o)
{
    for (size_t i = 0; i < t->n_options; i++) {
        const struct loss_option *p = &t->options[i];
        bool no_worse = p->n_bytes <= o->n_bytes && p->proxy <= o->proxy;
        bool better = p->n_bytes < o->n_bytes || p->proxy < o->proxy || p < o;
        if (p != o && no_worse && better)
            return true;
    }
    return false;
}

static bool tells(const struct loss_depth *d)
{
    return d->local > 0 && isfinite(d->kld) && d->kld > 2 * d->kld_stderr && d->kld > 0;
}

double loss_beta(const struct loss_table *t, double layer)
{
    const struct loss_depth *below = NULL, *above = NULL;
    for (size_t i = 0; i < t->n_depths; i++) {
        const struct loss_depth *d = &t->depths[i];
        if (!tells(d))
            continue;
        if (d->layer <= layer)
            below = d;
        if (d->layer >= layer && !above)
            above = d;
    }
    if (!below && !above)
        return 1;
    below = below ? below : above;
    above = above ? above : below;
    double x = log(below->kld / below->local), y = log(above->kld / above->local);
    double part = above->layer > below->layer
                      ? (layer - below->layer) / ((double)above->layer - (double)below->layer)
                      : 0;
    return exp(x + part * (y - x));
}

/* --- losses from figures --- */

/* Three digits, two for an uncertainty: more than a measurement over some thousand tokens is good for, few
 * enough that the last bits of another processor's arithmetic hardly ever show in a table. */
static double rounded(double v, int digits)
{
    if (!(v > 0) || !isfinite(v))
        return v;
    double scale = pow(10, digits - 1 - floor(log10(v)));
    return scale > 1e300 ? 0 : rint(v * scale) / scale;
}

struct point {
    double x, y; /* ln proxy, ln kld */
};

static int by_x(const void *a, const void *b)
{
    const struct point *p = a, *q = b;
    int order = order_doubles(p->x, q->x);
    return order ? order : order_doubles(p->y, q->y);
}

static bool is_clear(const struct loss_option *o)
{
    return isfinite(o->kld) && o->kld > 2 * o->kld_stderr && o->kld > 1e-9;
}

/* Measurements that stand out from their noise, by rising proxy. Where there is none, the local changes. */
static size_t take_points(const struct loss_tensor *t, double beta, struct point *points)
{
    size_t n = 0;
    for (size_t i = 0; i < t->n_options; i++) {
        const struct loss_option *o = &t->options[i];
        if (o->proxy > 0 && is_clear(o))
            points[n++] = (struct point){log(o->proxy), log(o->kld)};
    }
    for (size_t i = 0; n == 0 && i < t->n_options; i++) {
        const struct loss_option *o = &t->options[i];
        if (o->proxy > 0 && o->local > 0)
            points[n++] = (struct point){log(o->proxy), log(beta * o->local)};
    }
    qsort(points, n, sizeof *points, by_x);
    return n;
}

/* ln loss at ln proxy = x: linear between points. Beyond them, and where two points would give something no
 * error propagates like, the loss goes with a power near 1 of the error: that is what small perturbations do.
 */
static double interpolate(const struct point *p, size_t n, double x)
{
    size_t i = 0;
    while (i + 2 < n && x > p[i + 1].x)
        i++;
    const struct point *a = &p[i], *b = n > 1 ? &p[i + 1] : a;
    double slope = b->x - a->x > 0.05 ? (b->y - a->y) / (b->x - a->x) : 1;
    bool inside = x >= a->x && x <= b->x;
    if (inside && b->x - a->x > 0.05)
        return a->y + slope * (x - a->x);
    slope = slope < 0.8 ? 0.8 : slope > 1.25 ? 1.25 : slope;
    return x < a->x ? a->y + slope * (x - a->x) : b->y + slope * (x - b->x);
}

/* Nothing stands out: an upper bound from what was measured at all. NaN: nothing was. */
static double noise_bound(const struct loss_tensor *t, double proxy)
{
    double bound = NAN;
    for (size_t i = 0; i < t->n_options; i++) {
        const struct loss_option *o = &t->options[i];
        if (!(o->proxy > 0) || !isfinite(o->kld))
            continue;
        double v = (fmax(o->kld, 0) + fmax(o->kld_stderr, 1e-12)) / o->proxy * proxy;
        bound = isnan(bound) ? v : fmin(bound, v);
    }
    return bound;
}

static int by_value(const void *a, const void *b)
{
    return order_doubles(*(const double *)a, *(const double *)b);
}

/* Middle of loss / proxy over all that is known, for tensors the forward pass does not use. */
static double middle_sensitivity(const struct loss_table *t)
{
    size_t n = 0, cap = 0;
    for (size_t i = 0; i < t->n_tensors; i++)
        cap += t->tensors[i].n_options;
    double *list = malloc(cap * sizeof *list + 1), middle = 1;
    for (size_t i = 0; list && i < t->n_tensors; i++)
        for (size_t j = 0; j < t->tensors[i].n_options; j++) {
            const struct loss_option *o = &t->tensors[i].options[j];
            if (o->proxy > 0 && isfinite(o->loss))
                list[n++] = o->loss / o->proxy;
        }
    if (n > 0) {
        qsort(list, n, sizeof *list, by_value);
        middle = list[n / 2];
    }
    free(list);
    return middle;
}

static void fit_tensor(struct loss_tensor *t, double beta, struct point *points)
{
    size_t n = take_points(t, beta, points);
    for (size_t i = 0; i < t->n_options; i++) {
        struct loss_option *o = &t->options[i];
        if (o->proxy == 0)
            o->loss = 0;
        else if (is_clear(o))
            o->loss = o->kld;
        else if (n > 0)
            o->loss = exp(interpolate(points, n, log(o->proxy)));
        else
            o->loss = noise_bound(t, o->proxy);
    }
}

void loss_table_fit(struct loss_table *t)
{
    struct point points[QTYPE_COUNT];
    for (size_t i = 0; i < t->n_tensors; i++)
        fit_tensor(&t->tensors[i], loss_beta(t, loss_layer(&t->tensors[i])), points);
    double s = middle_sensitivity(t);
    for (size_t i = 0; i < t->n_tensors; i++)
        for (size_t j = 0; j < t->tensors[i].n_options; j++) {
            struct loss_option *o = &t->tensors[i].options[j];
            if (isnan(o->loss))
                o->loss = o->proxy * s;
            o->loss = rounded(o->loss, 3);
            o->local = rounded(o->local, 3);
            o->kld = rounded(o->kld, 3);
            o->kld_stderr = rounded(o->kld_stderr, 2);
        }
}

struct forward_options loss_forward(const struct loss_table *t, const struct windows *w,
                                    const struct loss_measure *opt)
{
    const unsigned share = t->probe == LOSS_PROBE_FAST ? 8 : 4;
    return (struct forward_options){.pool = opt->pool,
                                    .memory_bytes = opt->memory_bytes / share,
                                    .memory_share = share,
                                    .keep_first = w->first,
                                    .keep_end = w->end,
                                    .activations = t->activations,
                                    .compute = opt->compute};
}

int loss_table_check(const struct loss_table *t, const struct net *net, struct weights *base,
                     const struct windows *w, const struct loss_measure *opt, struct err *e)
{
    const struct forward_options f = loss_forward(t, w, opt);
    return forward_check(net, base, w->n, w->ctx, &f, e);
}

int loss_table_measure(struct loss_table *t, const struct net *net, struct weights *base,
                       const struct windows *w, const struct loss_measure *opt, struct err *e)
{
    const double share = 0.05; /* of the progress bar that the proxies take */
    t->ctx = w->ctx;
    t->n_windows = w->n;
    t->n_scored = w->n * windows_n_scored(w);
    int rc = loss_table_check(t, net, base, w, opt, e); /* proxies may take minutes */
    if (rc == 0)
        rc = loss_table_proxies(t, w, opt, share, e);
    if (rc == 0)
        rc = (t->probe == LOSS_PROBE_FAST ? loss_table_probe_fast : loss_table_probe)(t, net, base, w, opt,
                                                                                      share, e);
    if (rc != 0) {
        loss_table_keep(t, w, opt, true, NULL); /* is_kept and n_kept say what came of it */
        return rc;
    }
    loss_table_keep(t, w, opt, true, NULL); /* should the table not get its file; fitting rounds */
    loss_table_fit(t);
    return 0;
}
