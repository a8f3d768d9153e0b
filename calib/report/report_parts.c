/* report_parts.c - see report_parts.h. */
#include "report_parts.h"

#include "formats/json.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* The values of one part, packed; window by window, so that errors see that tokens of a window are related.
 */
struct gathering {
    const struct evaluation *v;
    const struct windows *w;
    double *values;
    size_t *ends; /* [windows] of those that hold any */
    size_t n, n_groups;
};

typedef bool (*in_part)(const struct report_part *p, const struct windows *w, size_t window, size_t position);

static bool in_text(const struct report_part *p, const struct windows *w, size_t window, size_t position)
{
    size_t i = window * windows_n_scored(w) + position - w->first;
    return w->text[window] == p->first && (!w->use || (w->use[i] & WINDOW_SCORED));
}

static bool in_depth(const struct report_part *p, const struct windows *w, size_t window, size_t position)
{
    size_t i = window * windows_n_scored(w) + position - w->first;
    return position >= p->first && position < p->end && (w->use[i] & WINDOW_DEPTH);
}

/* `scores` [n]; NULL: only count. */
static void gather(struct gathering *g, const struct report_part *p, in_part belongs, const double *scores)
{
    g->n = g->n_groups = 0;
    for (size_t i = 0; i < g->v->n_windows; i++) {
        size_t before = g->n;
        for (size_t k = g->w->first; k < g->w->end; k++)
            if (belongs(p, g->w, i, k))
                g->values[g->n++] = scores[i * g->v->run + k - g->w->first];
        if (g->n > before)
            g->ends[g->n_groups++] = g->n;
    }
}

static double share_same(struct gathering *g, const struct report_part *p, in_part belongs, const bool *same)
{
    size_t n = 0, n_same = 0;
    for (size_t i = 0; i < g->v->n_windows; i++)
        for (size_t k = g->w->first; k < g->w->end; k++)
            if (belongs(p, g->w, i, k)) {
                n++;
                n_same += same[i * g->v->run + k - g->w->first];
            }
    return n ? (double)n_same / (double)n : NAN;
}

static int measure_part(struct report_part *p, struct gathering *g, in_part belongs, struct err *e)
{
    const struct estimate none = {NAN, NAN};
    p->models = calloc(g->v->n_models, sizeof *p->models);
    if (!p->models)
        return err_set(e, ERR_NOMEM, "out of memory for figures of parts");
    for (size_t m = 0; m < g->v->n_models; m++) {
        struct part_figures *f = &p->models[m];
        gather(g, p, belongs, g->v->nll[m]);
        f->nll = stat_mean_of_groups(g->values, g->ends, g->n_groups);
        p->n_scored = g->n;
        f->kld = none;
        f->top1 = NAN;
        if (m == 0)
            continue;
        gather(g, p, belongs, g->v->kld[m]);
        f->kld = stat_mean_of_groups(g->values, g->ends, g->n_groups);
        f->top1 = share_same(g, p, belongs, g->v->same_top[m]);
    }
    return 0;
}

static int take_texts(struct report_parts *out, struct gathering *g, const struct corpus *c,
                      const double *weights, struct err *e)
{
    int rc = 0;
    out->texts = calloc(c->n_texts, sizeof *out->texts);
    if (!out->texts)
        return err_set(e, ERR_NOMEM, "out of memory for figures of parts");
    for (size_t i = 0; rc == 0 && i < c->n_texts; i++) {
        struct report_part *p = &out->texts[out->n_texts++];
        p->text = c->texts[i].path;
        p->first = i; /* which one it is */
        p->weight = weights ? weights[i] : NAN;
        rc = measure_part(p, g, in_text, e);
    }
    return rc;
}

static int take_depths(struct report_parts *out, struct gathering *g, struct err *e)
{
    size_t end = g->w->ctx, n = 0;
    int rc = 0;
    out->depths = calloc(REPORT_MAX_DEPTHS, sizeof *out->depths);
    if (!out->depths)
        return err_set(e, ERR_NOMEM, "out of memory for figures of parts");
    while (n + 1 < REPORT_MAX_DEPTHS && end >> (n + 1) > 0)
        n++;
    for (size_t i = 0; rc == 0 && i < n + 1; i++) {
        struct report_part *p = &out->depths[out->n_depths++];
        p->first = i ? end >> (n + 1 - i) : 0;
        p->end = end >> (n - i);
        p->weight = NAN;
        rc = measure_part(p, g, in_depth, e);
    }
    return rc;
}

static struct estimate weigh(const struct report_parts *p, size_t model, bool kld)
{
    struct estimate sum = {0, 0};
    for (size_t i = 0; i < p->n_texts; i++) {
        const struct part_figures *f = &p->texts[i].models[model];
        struct estimate x = kld ? f->kld : f->nll;
        sum.value += p->texts[i].weight * x.value;
        sum.error += p->texts[i].weight * p->texts[i].weight * x.error * x.error;
    }
    sum.error = sqrt(sum.error);
    return sum;
}

static int take_mean(struct report_parts *p, size_t n_models, struct err *e)
{
    p->mean = calloc(n_models, sizeof *p->mean);
    if (!p->mean)
        return err_set(e, ERR_NOMEM, "out of memory for figures of parts");
    for (size_t m = 0; m < n_models; m++) {
        p->mean[m].nll = weigh(p, m, false);
        p->mean[m].kld = weigh(p, m, true);
        for (size_t i = 0; i < p->n_texts; i++)
            p->mean[m].top1 += p->texts[i].weight * p->texts[i].models[m].top1;
    }
    return 0;
}

int report_parts_take(struct report_parts *out, const struct evaluation *v, const struct windows *w,
                      const struct corpus *corpus, const double *weights, struct err *e)
{
    struct report_parts p = {0};
    struct gathering g = {.v = v, .w = w};
    int rc = 0;
    g.values = malloc(v->n * sizeof *g.values + 1);
    g.ends = malloc(v->n_windows * sizeof *g.ends + 1);
    if (!g.values || !g.ends)
        rc = err_set(e, ERR_NOMEM, "out of memory for figures of parts");
    if (rc == 0 && w->text && corpus->n_texts > 1)
        rc = take_texts(&p, &g, corpus, weights, e);
    if (rc == 0 && p.n_texts > 0 && weights)
        rc = take_mean(&p, v->n_models, e);
    if (rc == 0 && w->use && w->first == 0)
        rc = take_depths(&p, &g, e);
    free(g.values);
    free(g.ends);
    if (rc != 0)
        report_parts_release(&p);
    else
        *out = p;
    return rc;
}

void report_parts_release(struct report_parts *p)
{
    if (!p)
        return;
    for (size_t i = 0; i < p->n_texts; i++)
        free(p->texts[i].models);
    for (size_t i = 0; i < p->n_depths; i++)
        free(p->depths[i].models);
    free(p->texts);
    free(p->depths);
    free(p->mean);
    *p = (struct report_parts){0};
}

/* --- text --- */

/* "  name   PPL   KLD ±error   top %": a line for each model. */
static void models_text(const struct report *r, const struct part_figures *models, FILE *out)
{
    for (size_t m = 0; m < r->n_candidates + 1; m++) {
        const struct part_figures *f = &models[m];
        const char *name = m ? report_name(&r->candidates[m - 1]) : "reference";
        if (r->n_candidates > 0)
            fprintf(out, "  %-28.28s %11.4f", name, exp(f->nll.value));
        else
            fprintf(out, "  %-28s %11.4f ± %.4f", "", exp(f->nll.value), exp(f->nll.value) * f->nll.error);
        if (m > 0)
            fprintf(out, " %11.6f ± %.6f %7.2f", f->kld.value, f->kld.error, 100 * f->top1);
        fputc('\n', out);
    }
}

static void heading(const struct report *r, const char *what, FILE *out)
{
    fprintf(out, "\n%-30s %11s", what, "PPL");
    if (r->n_candidates > 0)
        fprintf(out, " %22s %7s", "mean KLD", "top %");
    fputc('\n', out);
}

void report_parts_text(const struct report *r, FILE *out)
{
    const struct report_parts *p = r->parts;
    if (!p)
        return;
    for (size_t i = 0; i < p->n_texts; i++) {
        if (i == 0)
            heading(r, "by text", out);
        fprintf(out, "%s: %zu tokens scored", p->texts[i].text, p->texts[i].n_scored);
        if (!isnan(p->texts[i].weight))
            fprintf(out, ", weight %.4g", p->texts[i].weight);
        fputc('\n', out);
        if (p->texts[i].n_scored > 0)
            models_text(r, p->texts[i].models, out);
    }
    if (p->mean) {
        fputs("weighted mean of the texts\n", out);
        models_text(r, p->mean, out);
    }
    for (size_t i = 0; i < p->n_depths; i++) {
        if (i == 0)
            heading(r, "by position in the window", out);
        fprintf(out, "%zu to %zu: %zu tokens\n", p->depths[i].first, p->depths[i].end - 1,
                p->depths[i].n_scored);
        if (p->depths[i].n_scored > 0)
            models_text(r, p->depths[i].models, out);
    }
}

/* --- JSON --- */

static void models_json(struct json_writer *w, const struct part_figures *models, size_t n)
{
    jw_key(w, "models");
    jw_array(w);
    for (size_t m = 0; m < n; m++) {
        jw_object(w);
        jw_key_double(w, "perplexity", exp(models[m].nll.value));
        jw_key_double(w, "nll_mean", models[m].nll.value);
        jw_key_double(w, "nll_stderr", models[m].nll.error);
        jw_key_double(w, "kld_mean", models[m].kld.value);
        jw_key_double(w, "kld_stderr", models[m].kld.error);
        jw_key_double(w, "top1_agreement", models[m].top1);
        jw_end(w);
    }
    jw_end(w);
}

void report_parts_json(const struct report *r, struct json_writer *w)
{
    static const struct report_parts none;
    const struct report_parts *p = r->parts ? r->parts : &none;
    size_t n = r->n_candidates + 1;
    jw_key(w, "by_text");
    jw_array(w);
    for (size_t i = 0; i < p->n_texts; i++) {
        jw_object(w);
        jw_key(w, "text"), jw_string(w, p->texts[i].text);
        jw_key_double(w, "weight", p->texts[i].weight);
        jw_key(w, "n_tokens_scored"), jw_uint(w, p->texts[i].n_scored);
        models_json(w, p->texts[i].models, n);
        jw_end(w);
    }
    jw_end(w);
    jw_key(w, "weighted_mean");
    if (p->mean) {
        jw_object(w);
        models_json(w, p->mean, n);
        jw_end(w);
    } else {
        jw_null(w);
    }
    jw_key(w, "by_position");
    jw_array(w);
    for (size_t i = 0; i < p->n_depths; i++) {
        jw_object(w);
        jw_key(w, "first"), jw_uint(w, p->depths[i].first);
        jw_key(w, "end"), jw_uint(w, p->depths[i].end);
        jw_key(w, "n_tokens_scored"), jw_uint(w, p->depths[i].n_scored);
        models_json(w, p->depths[i].models, n);
        jw_end(w);
    }
    jw_end(w);
}
