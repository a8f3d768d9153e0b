/* knapsack.c - see knapsack.h.
 *
 * The method, in four steps.
 *   1. For each item drop options that cost at least as much and lose at least as much as another one.
 *   2. Relax: on the lower convex hull of each item, take upgrades in order of loss saved per byte until the
 * budget is full. The slope mu of the upgrade that no longer fits gives the Lagrangian bound L = sum_i min_c
 * (loss + mu * bytes) - mu * budget, and the upgrades taken so far, filled up greedily, give a first feasible
 * choice of loss U >= optimum >= L.
 *   3. Reduce: the penalty of an option is loss + mu * bytes minus the least such value of its item. A choice
 * with penalties p_i loses at least L + sum p_i, so options with L + p >= U are out. With hundreds of items
 * only a few dozen stay open.
 *   4. Enumerate the open items by dynamic programming over the Pareto front of (bytes, penalty): of two
 * partial choices the one with more bytes and more penalty is dominated; one whose L + penalty reaches U is
 * cut. The exact loss of a complete choice is L + sum p + mu * (budget - bytes). Items enter in order of
 * their smallest non-zero penalty, so that U falls early and the front stays short. The front is capped at
 * MAX_STATES; if the cap ever cuts, the result keeps the bound L and the gap is visible. */
#include "knapsack.h"

#include "libquant/base/order.h"

#include <float.h>
#include <inttypes.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define MAX_STATES ((size_t)1 << 20)

struct opt {
    uint64_t bytes;
    double loss;
    double penalty;
    uint32_t index; /* in the caller's list */
};

struct item {
    struct opt *opts; /* by rising bytes, strictly falling loss */
    size_t n;
    size_t base; /* the option that minimises loss + mu * bytes */
    size_t pick; /* in the best choice so far */
    double key;  /* smallest non-zero penalty: order of enumeration */
};

struct edge {     /* an upgrade along the hull of an item */
    double slope; /* loss saved per byte */
    uint32_t item;
    uint32_t to; /* option reached */
    uint32_t from;
};

struct state {
    uint64_t bytes; /* of the open items processed so far */
    double loss;    /* of the same items */
    double penalty;
    uint32_t parent; /* state of the layer before */
    uint32_t option;
};

struct layer {
    struct state *states;
    size_t n;
};

struct open_item {
    double key;
    uint32_t item;
};

struct solver {
    struct item *items;
    size_t n_items;
    struct opt *all;
    struct edge *edges;
    size_t n_edges;
    uint64_t budget;
    double mu, bound, best; /* L, U */
    uint64_t best_bytes;
    struct open_item *open;
    size_t n_open;
    bool capped;
};

static int by_bytes(const void *pa, const void *pb)
{
    const struct opt *a = pa, *b = pb;
    if (a->bytes != b->bytes)
        return a->bytes < b->bytes ? -1 : 1;
    int order = order_doubles(a->loss, b->loss);
    if (order)
        return order;
    return a->index < b->index ? -1 : a->index > b->index;
}

static int by_slope(const void *pa, const void *pb)
{
    const struct edge *a = pa, *b = pb;
    int order = order_doubles(b->slope, a->slope);
    if (order)
        return order;
    if (a->item != b->item)
        return a->item < b->item ? -1 : 1;
    return a->to < b->to ? -1 : a->to > b->to;
}

/* Step 1, in place. */
static void drop_dominated(struct item *it)
{
    qsort(it->opts, it->n, sizeof *it->opts, by_bytes);
    size_t kept = 1;
    for (size_t i = 1; i < it->n; i++)
        if (it->opts[i].loss < it->opts[kept - 1].loss)
            it->opts[kept++] = it->opts[i];
    it->n = kept;
}

/* Upgrades along the lower convex hull, appended to s->edges. */
static void hull_edges(struct solver *s, uint32_t item, uint32_t *stack)
{
    const struct opt *o = s->items[item].opts;
    size_t n = 0;
    for (uint32_t i = 0; i < s->items[item].n; i++) {
        while (n >= 2) {
            const struct opt *a = &o[stack[n - 2]], *b = &o[stack[n - 1]], *c = &o[i];
            double ab = (a->loss - b->loss) / (double)(b->bytes - a->bytes);
            double bc = (b->loss - c->loss) / (double)(c->bytes - b->bytes);
            if (ab > bc)
                break;
            n--;
        }
        stack[n++] = i;
    }
    for (size_t k = 1; k < n; k++) {
        const struct opt *a = &o[stack[k - 1]], *b = &o[stack[k]];
        s->edges[s->n_edges++] =
            (struct edge){(a->loss - b->loss) / (double)(b->bytes - a->bytes), item, stack[k], stack[k - 1]};
    }
}

static void total_of_picks(struct solver *s, double *loss, uint64_t *bytes)
{
    *loss = 0;
    *bytes = 0;
    for (size_t i = 0; i < s->n_items; i++) {
        *loss += s->items[i].opts[s->items[i].pick].loss;
        *bytes += s->items[i].opts[s->items[i].pick].bytes;
    }
}

/* Step 2: mu, the base options, and a first feasible choice. Every item starts at its smallest option. */
static void relax(struct solver *s, uint64_t used)
{
    qsort(s->edges, s->n_edges, sizeof *s->edges, by_slope);
    bool broken = false;
    s->mu = 0; /* everything fits: bytes are free */
    for (size_t k = 0; k < s->n_edges; k++) {
        const struct edge *g = &s->edges[k];
        struct item *it = &s->items[g->item];
        uint64_t more = it->opts[g->to].bytes - it->opts[g->from].bytes;
        if (used + more > s->budget) {
            if (!broken)
                s->mu = g->slope;
            broken = true;
            continue; /* later, cheaper upgrades may still fit; only in order along one item's hull */
        }
        if (it->pick == g->from) {
            it->pick = g->to;
            used += more;
        }
    }
    s->bound = -s->mu * (double)s->budget;
    for (size_t i = 0; i < s->n_items; i++) {
        struct item *it = &s->items[i];
        double least = DBL_MAX;
        for (size_t c = 0; c < it->n; c++) {
            double v = it->opts[c].loss + s->mu * (double)it->opts[c].bytes;
            if (v < least) {
                least = v;
                it->base = c;
            }
        }
        s->bound += least;
        it->key = DBL_MAX;
        for (size_t c = 0; c < it->n; c++) {
            double p = it->opts[c].loss + s->mu * (double)it->opts[c].bytes - least;
            it->opts[c].penalty = p;
            if (c != it->base && p < it->key)
                it->key = p;
        }
    }
    total_of_picks(s, &s->best, &s->best_bytes);
}

/* Rounding of the sums above must not cut an optimum: bounds are compared with this slack. */
static double slack(const struct solver *s)
{
    return 1e-12 * (fabs(s->best) + fabs(s->mu) * (double)s->budget) + DBL_MIN;
}

static int by_key(const void *pa, const void *pb)
{
    const struct open_item *a = pa, *b = pb;
    int order = order_doubles(a->key, b->key);
    if (order)
        return order;
    return a->item < b->item ? -1 : a->item > b->item;
}

/* Step 3: items that keep more than one option under the bounds, in order of enumeration. */
static void reduce(struct solver *s)
{
    for (size_t i = 0; i < s->n_items; i++) {
        struct item *it = &s->items[i];
        size_t n_left = 0;
        for (size_t c = 0; c < it->n; c++)
            n_left += s->bound + it->opts[c].penalty < s->best + slack(s);
        if (n_left > 1)
            s->open[s->n_open++] = (struct open_item){it->key, (uint32_t)i};
    }
    qsort(s->open, s->n_open, sizeof *s->open, by_key);
}

static int by_state(const void *pa, const void *pb)
{
    const struct state *a = pa, *b = pb;
    if (a->bytes != b->bytes)
        return a->bytes < b->bytes ? -1 : 1;
    int order = order_doubles(a->loss, b->loss);
    if (order)
        return order;
    if (a->parent != b->parent)
        return a->parent < b->parent ? -1 : 1;
    return a->option < b->option ? -1 : a->option > b->option;
}

static int by_penalty(const void *pa, const void *pb)
{
    const struct state *a = pa, *b = pb;
    int order = order_doubles(a->penalty, b->penalty);
    return order ? order : by_state(pa, pb);
}

/* Keep the Pareto front of `n` states: rising bytes, falling loss. */
static size_t pareto(struct state *v, size_t n)
{
    qsort(v, n, sizeof *v, by_state);
    size_t kept = 0;
    for (size_t i = 0; i < n; i++)
        if (kept == 0 || v[i].loss < v[kept - 1].loss)
            v[kept++] = v[i];
    return kept;
}

/* Take over the choice that ends in state `k` of layer `depth`; the items after it stay at their base. */
static void adopt(struct solver *s, const struct layer *layers, size_t depth, size_t k)
{
    for (size_t i = 0; i < s->n_items; i++)
        s->items[i].pick = s->items[i].base;
    for (; depth > 0; depth--) {
        const struct state *st = &layers[depth].states[k];
        s->items[s->open[depth - 1].item].pick = st->option;
        k = st->parent;
    }
    total_of_picks(s, &s->best, &s->best_bytes);
}

/* Grow one layer from the one before. 0 or ERR_NOMEM. */
static int grow(struct solver *s, const struct layer *from, struct layer *to, const struct item *it,
                uint64_t fixed_min)
{
    struct state *v = malloc((from->n * it->n + 1) * sizeof *v);
    if (!v)
        return ERR_NOMEM;
    size_t n = 0;
    for (size_t k = 0; k < from->n; k++)
        for (size_t c = 0; c < it->n; c++) {
            double p = from->states[k].penalty + it->opts[c].penalty;
            uint64_t b = from->states[k].bytes + it->opts[c].bytes;
            if (b + fixed_min <= s->budget && s->bound + p < s->best + slack(s))
                v[n++] =
                    (struct state){b, from->states[k].loss + it->opts[c].loss, p, (uint32_t)k, (uint32_t)c};
        }
    n = pareto(v, n);
    if (n > MAX_STATES) { /* keep those that promise most */
        qsort(v, n, sizeof *v, by_penalty);
        n = MAX_STATES;
        s->capped = true;
    }
    struct state *fit = realloc(v, (n ? n : 1) * sizeof *v);
    to->states = fit ? fit : v;
    to->n = n;
    return 0;
}

/* The items that step 4 goes through, one layer of states for each, and the bytes of what lies behind it. */
struct enumeration {
    struct layer *layers; /* n_open + 1 */
    uint64_t *min_rest;   /* n_open + 1: what is not enumerated yet, open items at their smallest option */
    uint64_t *base_rest;  /* the same with open items at their base; closed ones are at theirs in both */
};

static void enumeration_release(struct enumeration *n, size_t n_open)
{
    for (size_t d = 0; n->layers && d <= n_open; d++)
        free(n->layers[d].states);
    free(n->layers);
    free(n->min_rest);
    free(n->base_rest);
}

static int enumeration_begin(struct enumeration *n, const struct solver *s)
{
    struct state *root = calloc(1, sizeof *root);
    n->layers = calloc(s->n_open + 1, sizeof *n->layers);
    n->min_rest = calloc(s->n_open + 1, sizeof *n->min_rest);
    n->base_rest = calloc(s->n_open + 1, sizeof *n->base_rest);
    if (!root || !n->layers || !n->min_rest || !n->base_rest) {
        free(root);
        return ERR_NOMEM;
    }
    n->layers[0] = (struct layer){root, 1};
    uint64_t closed = 0;
    for (size_t i = 0; i < s->n_items; i++)
        closed += s->items[i].opts[s->items[i].base].bytes;
    for (size_t d = 0; d < s->n_open; d++)
        closed -= s->items[s->open[d].item].opts[s->items[s->open[d].item].base].bytes;
    n->min_rest[s->n_open] = n->base_rest[s->n_open] = closed;
    for (size_t d = s->n_open; d-- > 0;) {
        const struct item *it = &s->items[s->open[d].item];
        n->min_rest[d] = n->min_rest[d + 1] + it->opts[0].bytes;
        n->base_rest[d] = n->base_rest[d + 1] + it->opts[it->base].bytes;
    }
    return 0;
}

/* The state of a layer that is the best choice so far when `rest` bytes of base options complete it; SIZE_MAX
 * when none is. */
static size_t best_completed(const struct solver *s, const struct layer *l, uint64_t rest)
{
    size_t winner = SIZE_MAX;
    double least = s->best;
    uint64_t least_bytes = s->best_bytes;
    for (size_t k = 0; k < l->n; k++) {
        uint64_t b = l->states[k].bytes + rest;
        if (b > s->budget)
            continue;
        double loss = s->bound + l->states[k].penalty + s->mu * (double)(s->budget - b);
        if (loss < least || (loss == least && b < least_bytes)) {
            least = loss;
            least_bytes = b;
            winner = k;
        }
    }
    return winner;
}

/* Adopt state k of a layer unless it was better only by rounding. 0 or ERR_NOMEM. */
static int try_state(struct solver *s, const struct layer *layers, size_t depth, size_t k)
{
    size_t *keep = malloc(s->n_items * sizeof *keep);
    const double old = s->best;
    const uint64_t old_bytes = s->best_bytes;
    if (!keep)
        return ERR_NOMEM;
    for (size_t i = 0; i < s->n_items; i++)
        keep[i] = s->items[i].pick;
    adopt(s, layers, depth, k);
    if (s->best > old || (s->best == old && s->best_bytes >= old_bytes)) {
        for (size_t i = 0; i < s->n_items; i++)
            s->items[i].pick = keep[i];
        s->best = old;
        s->best_bytes = old_bytes;
    }
    free(keep);
    return 0;
}

/* Step 4. Each layer is completed at once: a better choice lowers U for the layers behind it. */
static int enumerate(struct solver *s)
{
    struct enumeration n = {0};
    int rc = enumeration_begin(&n, s);
    for (size_t d = 0; d < s->n_open && rc == 0; d++) {
        rc = grow(s, &n.layers[d], &n.layers[d + 1], &s->items[s->open[d].item], n.min_rest[d + 1]);
        size_t winner = rc == 0 ? best_completed(s, &n.layers[d + 1], n.base_rest[d + 1]) : SIZE_MAX;
        if (winner != SIZE_MAX)
            rc = try_state(s, n.layers, d + 1, winner);
    }
    enumeration_release(&n, s->n_open);
    return rc;
}

/* Copy the options and check them; on success every item stands at its smallest option. */
static int load(struct solver *s, const struct knapsack_item *items, uint64_t *min_bytes, struct err *e)
{
    size_t n_all = 0, at = 0;
    for (size_t i = 0; i < s->n_items; i++) {
        if (items[i].n_options == 0 || items[i].n_options > UINT32_MAX)
            return err_set(e, ERR_ARG, "knapsack: item %zu has no options", i);
        for (size_t c = 0; c < items[i].n_options; c++)
            if (!isfinite(items[i].options[c].loss) || items[i].options[c].n_bytes > (uint64_t)1 << 52)
                return err_set(e, ERR_ARG, "knapsack: option %zu of item %zu is not a finite loss and size",
                               c, i);
        n_all += items[i].n_options;
    }
    s->items = calloc(s->n_items + 1, sizeof *s->items);
    s->open = calloc(s->n_items + 1, sizeof *s->open);
    s->all = calloc(n_all + 1, sizeof *s->all);
    s->edges = calloc(n_all + 1, sizeof *s->edges);
    uint32_t *stack = calloc(n_all + 1, sizeof *stack);
    int rc = 0;
    if (!s->items || !s->open || !s->all || !s->edges || !stack) {
        rc = err_set(e, ERR_NOMEM, "knapsack: out of memory");
    } else {
        *min_bytes = 0;
        for (size_t i = 0; i < s->n_items; i++) {
            struct item *it = &s->items[i];
            it->opts = s->all + at;
            it->n = items[i].n_options;
            at += it->n;
            for (size_t c = 0; c < it->n; c++)
                it->opts[c] =
                    (struct opt){items[i].options[c].n_bytes, items[i].options[c].loss, 0, (uint32_t)c};
            drop_dominated(it);
            hull_edges(s, (uint32_t)i, stack);
            *min_bytes += it->opts[0].bytes;
        }
    }
    free(stack);
    return rc;
}

int knapsack_solve(const struct knapsack_item *items, size_t n_items, uint64_t budget_bytes, size_t *choice,
                   struct knapsack_result *result, struct err *e)
{
    struct solver s = {.n_items = n_items, .budget = budget_bytes};
    uint64_t min_bytes = 0;
    int rc = load(&s, items, &min_bytes, e);
    if (rc == 0) {
        result->min_bytes = min_bytes;
        if (min_bytes > budget_bytes)
            rc = err_set(e, ERR_ARG,
                         "the budget of %" PRIu64 " bytes is too small: the smallest choice takes %" PRIu64
                         " bytes",
                         budget_bytes, min_bytes);
    }
    if (rc == 0) {
        relax(&s, min_bytes);
        reduce(&s);
        rc = enumerate(&s);
        if (rc)
            rc = err_set(e, rc, "knapsack: out of memory");
    }
    if (rc == 0) {
        for (size_t i = 0; i < n_items; i++)
            choice[i] = s.items[i].opts[s.items[i].pick].index;
        result->loss = s.best;
        result->n_bytes = s.best_bytes;
        result->lower_bound = s.capped && s.bound < s.best ? s.bound : s.best;
    }
    free(s.items);
    free(s.open);
    free(s.all);
    free(s.edges);
    return rc;
}
