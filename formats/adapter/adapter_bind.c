/* adapter_bind.c - from the modules of a PEFT folder to terms of the output's tensors, by the rows of the
 * family: a row that permutes, splits, stacks or swaps the axes of a weight does the same to the factors.
 *
 * A module is the path of a weight without ".weight", or (target_parameters) of what holds a parameter of
 * another name. Stacks of experts [experts, s1, s2] have A [experts * rank, s2] and B [s1, rank * experts],
 * the rank slower than the expert in B; PEFT before 0.18 has s1 and s2 the other way round. */
#include "adapter.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct binding {
    struct adapter_terms *out;
    struct adapter *adapter;
    const struct arch_model *arch;
    struct arena *arena;
    const struct adapter_module *module;
    const char *weight, *holder; /* names that rows may have: of a weight, and in front of a parameter's */
    size_t first;                /* terms of earlier modules */
    bool name_fits;
    const struct arch_row *near; /* whose name fits, for the message */
};

/* The last component of a name. */
static const char *last_part(const char *name)
{
    const char *dot = strrchr(name, '.');
    return dot ? dot + 1 : name;
}

static int row_fits(const struct binding *b, const struct arch_row *row, uint64_t *layer, uint64_t *expert,
                    bool *fits, struct err *e)
{
    const char *part = last_part(row->hf);
    *fits = arch_match(row->hf, b->weight, layer, expert);
    if (*fits || strcmp(part, "weight") == 0 || strcmp(part, "bias") == 0)
        return 0;
    char *name = arena_printf(b->arena, "%s.%s", b->holder, part);
    if (!name)
        return adapter_no_memory(e);
    *fits = arch_match(row->hf, name, layer, expert);
    return 0;
}

static enum qtype type_of(const struct st_tensor *t)
{
    return t->dtype == ST_F32 ? QTYPE_F32 : t->dtype == ST_BF16 ? QTYPE_BF16 : QTYPE_F16;
}

static struct adapter_factor factor_of(const struct st_tensor *t, uint64_t mat, uint64_t row, uint64_t col)
{
    return (struct adapter_factor){
        .data = t->data, .type = type_of(t), .step_mat = mat, .step_row = row, .step_col = col};
}

/* The factors over the stored weight [n_mats, s1, s2]; false: they do not fit it. */
static bool place_factors(struct adapter_term *t, const struct adapter_module *m, uint64_t n_mats,
                          uint64_t s1, uint64_t s2)
{
    const uint64_t ra = m->a->shape[0], ca = m->a->shape[1], rb = m->b->shape[0], r = ra / n_mats;
    if (ra % n_mats != 0)
        return false;
    t->rank = r;
    if (m->embedding) {
        t->a = factor_of(m->b, 0, 1, r);
        t->b = factor_of(m->a, 0, 1, s1);
        return n_mats == 1 && ca == s1 && rb == s2;
    }
    if (ca == s2 && rb == s1) {
        t->a = factor_of(m->a, r * s2, s2, 1);
        t->b = factor_of(m->b, 1, ra, n_mats);
        return true;
    }
    /* the older order of stacks: A runs over the rows of the weight, B over its columns */
    t->a = factor_of(m->b, 1, n_mats, ra);
    t->b = factor_of(m->a, r * s1, 1, s1);
    return n_mats > 1 && ca == s1 && rb == s2;
}

/* Axes of the weight swapped: (B A)' = A' B'. */
static void swap_axes(struct adapter_term *t)
{
    struct adapter_factor a = t->a, b = t->b;
    t->a = b;
    t->b = a;
    t->a.step_row = b.step_col;
    t->a.step_col = b.step_row;
    t->b.step_row = a.step_col;
    t->b.step_col = a.step_row;
}

/* Lengths are of the rows of one matrix; nothing says which rows of a stack they would be of. */
static int take_magnitude(struct adapter_term *t, const struct binding *b, bool stack, struct err *e)
{
    const struct st_tensor *m = b->module->magnitude;
    if (!m)
        return 0;
    if (stack)
        return err_set(
            e, ERR_UNSUPPORTED,
            "%s: tensor '%s': DoRA of '%s', a stack of matrices; it is supported for single matrices only",
            b->adapter->file, m->name, t->tensor);
    if (m->n_elems != t->src_rows)
        return err_set(e, ERR_FORMAT,
                       "%s: tensor '%s': %" PRIu64 " values, expected %" PRIu64 " (one for each row)",
                       b->adapter->file, m->name, m->n_elems, t->src_rows);
    t->magnitude = m->data;
    t->magnitude_type = type_of(m);
    return 0;
}

/* Rank and factor, as adapter_config.json says. */
static int take_scale(struct adapter_term *t, const struct binding *b, struct err *e)
{
    const struct adapter_module *m = b->module;
    if (t->rank != m->rank)
        return err_set(e, ERR_FORMAT,
                       "%s: module '%s' has rank %" PRIu64 ", but adapter_config.json says %" PRIu64
                       " (r, rank_pattern)",
                       b->adapter->file, m->name, t->rank, m->rank);
    t->scale = m->alpha / (b->adapter->rslora ? sqrt((double)t->rank) : (double)t->rank);
    return 0;
}

static bool is_bound(const struct binding *b, const struct adapter_term *t)
{
    for (size_t i = b->first; i < b->out->n; i++)
        if (b->out->items[i].row0 == t->row0 && strcmp(b->out->items[i].tensor, t->tensor) == 0)
            return true;
    return false;
}

static int add_row(struct binding *b, const struct arch_row *row, uint64_t layer, uint64_t expert,
                   struct err *e)
{
    uint64_t src[4], out[4], n_rows = 1;
    uint32_t n_src, n_out;
    int rc = arch_shape(b->arch, row->shape, src, 4, &n_src, e);
    if (rc == 0)
        rc = arch_shape(b->arch, row->out ? row->out : row->shape, out, 4, &n_out, e);
    if (rc != 0 || n_src < 2 || n_src > 3 || n_out < 2)
        return rc;
    const uint64_t n_mats = n_src == 3 ? src[0] : 1, s1 = src[n_src - 2], s2 = src[n_src - 1];
    struct adapter_term t = {
        .module = b->module->name, .arch = b->arch, .rows = row->rows, .cols = row->cols};
    if (!place_factors(&t, b->module, n_mats, s1, s2))
        return 0;
    if (row->transpose)
        swap_axes(&t);
    for (uint32_t i = 0; i + 1 < n_out; i++)
        n_rows *= out[i];
    t.tensor = arch_name_of(row->gguf, layer, b->arena);
    t.n_cols = out[n_out - 1];
    t.mat_rows = row->transpose ? s2 : s1;
    t.src_rows = n_mats * t.mat_rows;
    t.n_rows = row->op == ARCH_PAD_ROWS ? t.mat_rows : n_rows;
    bool stacked = strstr(row->hf, ".J.") != NULL;
    t.row0 = stacked ? expert * n_rows : 0;
    t.out_rows = n_out == 3 ? n_rows / out[0] : n_rows;
    t.n_mats = stacked ? b->arch->value[ARCH_E] : n_out == 3 ? out[0] : 1;
    if (!t.tensor)
        return adapter_no_memory(e);
    if (is_bound(b, &t))
        return 0; /* both orders of a square stack fit: the row listed first counts */
    if ((row->op != ARCH_KEEP && row->op != ARCH_PAD_ROWS) || row->by_element)
        return err_set(
            e, ERR_UNSUPPORTED,
            "%s: module '%s': '%s' is computed from what is stored, so an adapter cannot be added to it",
            b->adapter->file, b->module->name, t.tensor);
    rc = take_magnitude(&t, b, n_src == 3, e);
    if (rc == 0)
        rc = take_scale(&t, b, e);
    return rc == 0 ? adapter_add_term(b->out, &t, b->arena, e) : rc;
}

static int try_row(struct binding *b, const struct arch_group *g, const struct arch_row *row, struct err *e)
{
    uint64_t layer = 0, expert = 0, n_layers = b->arch->value[ARCH_L] + b->arch->n_extra;
    bool fits;
    int rc = row_fits(b, row, &layer, &expert, &fits, e);
    if (rc != 0 || !fits || (strstr(row->hf, ".N.") && layer >= n_layers) ||
        (strstr(row->hf, ".J.") && expert >= b->arch->value[ARCH_E]) ||
        !arch_row_applies(b->arch, g, row, layer))
        return rc;
    b->name_fits = true;
    b->near = b->near ? b->near : row;
    return add_row(b, row, layer, expert, e);
}

static int refuse_module(const struct binding *b, struct err *e)
{
    const struct adapter_module *m = b->module;
    uint64_t shape[4] = {0};
    uint32_t n = 0;
    if (!b->name_fits)
        return err_set(e, ERR_FORMAT,
                       "%s: module '%s': the base has no such weight (architecture '%s'); is it the model "
                       "that the adapter was trained on?",
                       b->adapter->file, m->name, b->arch->arch->name);
    int rc = arch_shape(b->arch, b->near->shape, shape, 4, &n, e);
    return rc ? rc
              : err_set(e, ERR_FORMAT,
                        "%s: module '%s': A [%" PRIu64 ", %" PRIu64 "] and B [%" PRIu64 ", %" PRIu64
                        "] do not fit the weight, which is %" PRIu64 " x %" PRIu64
                        " by config.json of the base",
                        b->adapter->file, m->name, m->a->shape[0], m->a->shape[1], m->b->shape[0],
                        m->b->shape[1], n > 1 ? shape[n - 2] : 1, n ? shape[n - 1] : 1);
}

static int bind_module(struct binding *b, struct err *e)
{
    const char *weight = arena_printf(b->arena, "%s.weight", b->module->name);
    b->weight = weight ? arch_strip(b->arch, weight, b->arena) : NULL;
    b->holder = arch_strip(b->arch, b->module->name, b->arena);
    if (!b->weight || !b->holder)
        return adapter_no_memory(e);
    b->first = b->out->n;
    b->name_fits = false;
    b->near = NULL;
    int rc = 0;
    for (const struct arch_group *g = b->arch->arch->groups; g->rows; g++)
        for (size_t i = 0; rc == 0 && i < g->n; i++)
            rc = try_row(b, g, &g->rows[i], e);
    if (rc != 0 || b->out->n > b->first)
        return rc;
    const char *reason = arch_drop_reason(b->weight);
    return reason ? adapter_add_line(b->adapter, &b->adapter->skipped, e, "%s: %s", b->module->stored, reason)
                  : refuse_module(b, e);
}

static int by_rows(const void *pa, const void *pb)
{
    const struct adapter_term *a = *(const struct adapter_term *const *)pa;
    const struct adapter_term *b = *(const struct adapter_term *const *)pb;
    int order = strcmp(a->tensor, b->tensor);
    return order ? order : (a->row0 > b->row0) - (a->row0 < b->row0);
}

/* Two modules for the same rows: two names of one weight, of which only one can be meant. */
static int refuse_overlap(const struct adapter_terms *terms, const struct adapter *a, struct err *e)
{
    int rc = 0;
    const struct adapter_term **list = malloc((terms->n + 1) * sizeof *list);
    if (!list)
        return adapter_no_memory(e);
    for (size_t i = 0; i < terms->n; i++)
        list[i] = &terms->items[i];
    qsort(list, terms->n, sizeof *list, by_rows);
    for (size_t i = 1; rc == 0 && i < terms->n; i++) {
        const struct adapter_term *x = list[i - 1], *y = list[i];
        if (strcmp(x->tensor, y->tensor) == 0 && y->row0 - x->row0 < x->n_rows)
            rc = err_set(e, ERR_FORMAT,
                         "%s: modules '%s' and '%s' both change '%s', from row %" PRIu64
                         " on; expected one module for each weight",
                         a->file, x->module, y->module, y->tensor, y->row0);
    }
    free(list);
    return rc;
}

int adapter_bind(struct adapter_terms *out, struct adapter *a, const struct arch_model *arch,
                 struct arena *arena, struct err *e)
{
    struct binding b = {.out = out, .adapter = a, .arch = arch, .arena = arena};
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < a->n_modules; i++) {
        b.module = &a->modules[i];
        rc = bind_module(&b, e);
    }
    return rc == 0 ? refuse_overlap(out, a, e) : rc;
}
