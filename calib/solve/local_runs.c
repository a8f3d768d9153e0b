/* local_runs.c - see local_runs.h. */
#include "local_runs.h"

#include "probe_batch.h"

#include "calib/eval/state_change.h"
#include "calib/eval/statistics.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define ROWS           256  /* of states at a time */
#define MASSIVE_GROWTH 2.0  /* more than this across a layer */
#define MASSIVE_RATIO  10.0 /* and more than this behind it: below, tokens merely differ */
#define SNAPSHOT_SHARE 64   /* of the memory; more goes to a file */

/* States at the seams of the current layer: [0] enters it, [n_steps] leaves it. */
struct walk {
    struct local_runs *r;
    uint32_t layer;
    struct hidden_states *at[LAYER_MAX_STEPS + 1];
    size_t n_steps, n_tokens, n_embd;
    float *rows;            /* buffer of ROWS states */
    double *squares, *sort; /* [n_tokens] |h|^2 of the states that leave, and room to sort them */
    double ratio;           /* of the states that enter */
};

/* --- states --- */

static int squares_of(struct walk *k, const struct hidden_states *h, struct err *e)
{
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < k->n_tokens; i += ROWS) {
        size_t n = k->n_tokens - i < ROWS ? k->n_tokens - i : ROWS;
        float *x = NULL;
        rc = hidden_states_get(h, i, n, k->rows, &x, e);
        for (size_t t = 0; rc == 0 && t < n; t++) {
            double sum = 0;
            for (size_t c = 0; c < k->n_embd; c++)
                sum += (double)x[t * k->n_embd + c] * (double)x[t * k->n_embd + c];
            k->squares[i + t] = sum;
        }
    }
    return rc;
}

/* Largest over median norm of `squares`. */
static double spread(struct walk *k)
{
    memcpy(k->sort, k->squares, k->n_tokens * sizeof *k->sort);
    stat_sort(k->sort, k->n_tokens);
    double middle = k->sort[k->n_tokens / 2];
    return middle > 0 ? sqrt(k->sort[k->n_tokens - 1] / middle) : 1;
}

static int copy_states(struct hidden_states **out, struct walk *k, const struct hidden_states *h,
                       struct err *e)
{
    struct hidden_states *copy = NULL;
    int rc = hidden_states_new(&copy, k->n_tokens, k->n_embd, k->r->opt->memory_bytes / SNAPSHOT_SHARE, e);
    if (rc == 0)
        rc = hidden_states_copy(copy, 0, h, 0, k->n_tokens, e);
    if (rc == 0)
        *out = copy;
    else
        hidden_states_free(copy);
    return rc;
}

/* --- runs --- */

/* Parts [first, end) from these states, which are as they leave a part. */
static int run_parts(struct hidden_states **out, struct walk *k, struct weights *w,
                     const struct hidden_states *from, size_t first, size_t end, struct err *e)
{
    struct local_runs *r = k->r;
    struct forward_span span = {from, (uint32_t)first, (uint32_t)end};
    double cost = net_parts_cost(r->parts, first, end);
    r->advance(r->advance_ctx, cost);
    r->table->passes += cost;
    return forward_run_span(out, &r->parts->open, w, r->w->inputs, r->w->n, r->w->ctx, &span, &r->forward, e);
}

static int run_layer(struct walk *k, struct err *e)
{
    size_t first = k->r->parts->first[k->layer];
    int rc = 0;
    k->n_steps = k->r->parts->first[k->layer + 1] - first;
    for (size_t s = 0; rc == 0 && s < k->n_steps; s++)
        rc = run_parts(&k->at[s + 1], k, k->r->base, k->at[s], first + s, first + s + 1, e);
    return rc;
}

static int run_tensor(struct walk *k, const struct loss_tensor *t, struct loss_option *o, struct err *e)
{
    const struct net_parts *p = k->r->parts;
    const struct probe_target only = {t->tensor, o->type};
    const struct state_tokens counted = {k->n_tokens, k->r->w->ctx, NULL, true};
    size_t first = p->first[k->layer], part = net_parts_find(p, k->layer, t->tensor);
    struct weights *w = NULL;
    struct hidden_states *out = NULL;
    int rc = probe_weights(&w, k->r->table, k->r->opt, &only, 1, e);
    if (rc == 0)
        rc = run_parts(&out, k, w, k->at[part - first], part, p->first[k->layer + 1], e);
    if (rc == 0)
        rc = state_change(&o->local, k->at[k->n_steps], out, &counted, e);
    hidden_states_free(out);
    weights_free(w);
    return rc ? err_context(e, rc, "%s as %s", t->tensor->name, qtype_name(o->type))
              : loss_table_keep(k->r->table, k->r->w, k->r->opt, false, e);
}

static int run_tensors(struct walk *k, struct err *e)
{
    struct loss_table *table = k->r->table;
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < table->n_tensors; i++) {
        struct loss_option *o = loss_probe_option(&table->tensors[i]);
        if (o && isnan(o->local) &&
            net_parts_find(k->r->parts, k->layer, table->tensors[i].tensor) != SIZE_MAX)
            rc = run_tensor(k, &table->tensors[i], o, e);
    }
    return rc;
}

/* --- what is kept --- */

static int keep_massive(struct walk *k, double growth, struct err *e)
{
    struct local_runs *r = k->r;
    struct kept_layer *to = &r->massive[r->n_massive];
    if (r->n_massive == LOSS_MAX_MASSIVE) { /* the least of them makes room */
        to = &r->massive[0];
        for (size_t i = 1; i < r->n_massive; i++)
            to = r->massive[i].growth < to->growth ? &r->massive[i] : to;
        if (to->growth >= growth)
            return 0;
        hidden_states_free(to->states);
    } else {
        r->n_massive++;
    }
    *to = (struct kept_layer){.layer = k->layer, .growth = growth};
    return copy_states(&to->states, k, k->at[k->n_steps - 1], e);
}

/* Depths are spread evenly from the first to the last layer; a massive layer leaves its place to the next. */
static int keep_depth(struct walk *k, struct err *e)
{
    struct local_runs *r = k->r;
    size_t n = r->n_layers < LOSS_MAX_DEPTHS ? r->n_layers : LOSS_MAX_DEPTHS;
    if (r->n_depths == n || k->layer < (n > 1 ? r->n_depths * (r->n_layers - 1) / (n - 1) : 0))
        return 0;
    struct kept_layer *to = &r->depths[r->n_depths++];
    *to = (struct kept_layer){.layer = k->layer};
    return copy_states(&to->states, k, k->at[0], e);
}

static int walk_layer(struct walk *k, struct err *e)
{
    int rc = run_layer(k, e);
    if (rc == 0)
        rc = squares_of(k, k->at[k->n_steps], e);
    if (rc != 0)
        return rc;
    double ratio = spread(k), growth = ratio / k->ratio;
    k->ratio = ratio;
    rc = growth > MASSIVE_GROWTH && ratio > MASSIVE_RATIO ? keep_massive(k, growth, e) : keep_depth(k, e);
    if (rc == 0)
        rc = run_tensors(k, e);
    for (size_t s = 0; s < k->n_steps; s++) {
        hidden_states_free(k->at[s]);
        k->at[s] = NULL;
    }
    k->at[0] = k->at[k->n_steps];
    k->at[k->n_steps] = NULL;
    return rc;
}

static int walk_all(struct walk *k, struct err *e)
{
    struct local_runs *r = k->r;
    size_t n_parts = r->parts->first[r->n_layers];
    struct forward_span last = {NULL, (uint32_t)n_parts, (uint32_t)n_parts};
    int rc = run_parts(&k->at[0], k, r->base, NULL, 0, 0, e);
    if (rc == 0)
        rc = squares_of(k, k->at[0], e);
    if (rc == 0)
        k->ratio = spread(k);
    for (; rc == 0 && k->layer < r->n_layers; k->layer++)
        rc = walk_layer(k, e);
    last.from = k->at[0];
    return rc ? rc
              : forward_run_span(&r->reference, &r->parts->whole, r->base, r->w->inputs, r->w->n, r->w->ctx,
                                 &last, &r->forward, e);
}

int local_runs_walk(struct local_runs *r, struct err *e)
{
    struct walk k = {.r = r, .n_tokens = r->w->n * r->w->ctx, .n_embd = r->parts->whole.n_embd};
    k.rows = malloc(ROWS * k.n_embd * sizeof *k.rows);
    k.squares = malloc(k.n_tokens * sizeof *k.squares + 1);
    k.sort = malloc(k.n_tokens * sizeof *k.sort + 1);
    int rc = k.rows && k.squares && k.sort
                 ? walk_all(&k, e)
                 : err_set(e, ERR_NOMEM, "out of memory for states of %zu tokens", k.n_tokens);
    for (size_t i = 0; i <= LAYER_MAX_STEPS; i++)
        hidden_states_free(k.at[i]);
    free(k.rows);
    free(k.squares);
    free(k.sort);
    return rc;
}

void local_runs_release(struct local_runs *r)
{
    hidden_states_free(r->reference);
    for (size_t i = 0; i < r->n_depths; i++)
        hidden_states_free(r->depths[i].states);
    for (size_t i = 0; i < r->n_massive; i++)
        hidden_states_free(r->massive[i].states);
    r->reference = NULL;
    r->n_depths = r->n_massive = 0;
}

double local_runs_cost(const struct loss_table *t, const struct net_parts *parts, uint32_t n_layers)
{
    double sum = 1;
    for (size_t i = 0; i < t->n_tensors; i++) {
        int layer = loss_layer(&t->tensors[i]);
        if (layer < 0 || (uint32_t)layer >= n_layers || !loss_probe_option(&t->tensors[i]))
            continue;
        size_t part = net_parts_find(parts, (uint32_t)layer, t->tensors[i].tensor);
        if (part != SIZE_MAX)
            sum += net_parts_cost(parts, part, parts->first[layer + 1]);
    }
    return sum;
}
