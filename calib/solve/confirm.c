/* confirm.c - see confirm.h. */
#include "confirm.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static int mix_weights(struct weights **out, const struct loss_table *t, const struct mix *mix,
                       const struct allocator *a, struct err *e)
{
    const struct allocate_options *o = allocator_options(a);
    struct recipe_options recipe = {.recipe = "llama.cpp", .mix = mix, .has_imatrix = t->imatrix != NULL};
    return weights_new_mix(out, t->model, &recipe, t->imatrix, o->requantize, o->kern, e);
}

static void take(struct confirmation *c, const struct evaluation *v)
{
    const double *plan = v->kld[1], *mix = v->kld[2];
    size_t *ends = calloc(v->n_windows + 1, sizeof *ends);
    for (size_t i = 0; ends && i < v->n_windows; i++)
        ends[i] = (i + 1) * v->run;
    c->plan_kld = stat_mean(plan, v->n); /* a single window tells nothing about others */
    c->mix_kld = stat_mean(mix, v->n);
    c->difference = stat_mean_difference(plan, mix, v->n);
    if (v->n_windows > 1) {
        c->plan_kld = stat_mean_of_runs(plan, v->n, v->run);
        c->mix_kld = stat_mean_of_runs(mix, v->n, v->run);
    }
    if (ends && v->n_windows > 1)
        c->difference = stat_mean_difference_of_groups(plan, mix, ends, v->n_windows);
    c->n_tokens = v->n;
    c->n_windows = v->n_windows;
    c->plan_wins = c->plan_kld.value < c->mix_kld.value;
    c->is_certain = fabs(c->difference.value) > 2 * c->difference.error;
    free(ends);
}

int confirm_plan(struct confirmation *out, const struct allocator *a, const struct allocation *r,
                 const struct mix *mix, const struct net *net, struct weights *base, const struct windows *w,
                 const struct evaluate_options *opt, struct err *e)
{
    const struct loss_table *t = allocator_table(a);
    struct confirmation c = {.mix = mix};
    struct weights *plan_w = NULL, *mix_w = NULL;
    struct evaluation v = {0};
    struct mix_price price = {0};
    int rc = allocator_weights(a, r, &plan_w, e);
    if (rc == 0)
        rc = mix_weights(&mix_w, t, mix, a, e);
    const struct evaluate_model models[] = {{.name = "unquantized", .net = net, .weights = base},
                                            {.name = "plan", .net = net, .weights = plan_w},
                                            {.name = mix->name, .net = net, .weights = mix_w}};
    if (rc == 0)
        rc = evaluate(&v, models, 3, w, opt, e);
    if (rc == 0 && v.partial)
        rc = err_set(e, ERR_CANCELLED, ERR_STOPPED);
    if (rc == 0)
        rc = allocator_price_mix(a, mix, &price, e);
    if (rc == 0) {
        take(&c, &v);
        c.mix_bytes = price.n_bytes;
        c.mix_bits = price.bits_per_weight;
        double n_tokens = (double)t->n_windows * (double)t->ctx;
        c.passes = n_tokens > 0 ? 3 * (double)w->n * (double)w->ctx / n_tokens : 3;
        *out = c;
    }
    evaluation_release(&v);
    weights_free(plan_w);
    weights_free(mix_w);
    return rc;
}

void confirm_sentence(char *out, size_t size, const struct confirmation *c)
{
    double ratio = c->mix_kld.value > 0 ? c->plan_kld.value / c->mix_kld.value : NAN;
    snprintf(out, size,
             "KLD %.4g, %s of %llu bytes %.4g, ratio %.3f, difference %.2g ± %.1g, on %zu %stokens",
             c->plan_kld.value, c->mix->name, (unsigned long long)c->mix_bytes, c->mix_kld.value, ratio,
             c->difference.value, c->difference.error, c->n_tokens, c->held_out ? "held-out " : "");
}
