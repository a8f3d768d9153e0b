/* allocate.c - see allocate.h. Options that rules forbid are left out, tensors that share a type become one
 * item, the knapsack is solved, and the outcome is checked against the layout that the writer plans. */
#include "allocate.h"

#include "knapsack.h"

#include "formats/recipe/pattern.h"
#include "formats/recipe/plan.h"
#include "formats/rewrite/rewrite.h"
#include "libquant/base/string_list.h"
#include "libquant/base/printed.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct item { /* one tensor, or two of one type */
    size_t tensors[2], n_tensors;
    struct knapsack_option *options;
    size_t *picks[2]; /* option of each tensor */
    size_t n_options;
};

struct allocator {
    const struct loss_table *table;
    struct allocate_options opt;
    struct arena arena;
    bool *allowed; /* [n_tensors, QTYPE_COUNT] of options */
    struct item *items;
    size_t n_items;
    uint64_t alignment, overhead;       /* bytes of the file besides the data of the table's tensors */
    uint64_t fixed_bytes, n_parameters; /* data of the other tensors; all weights */
    uint64_t min_bytes, max_bytes;      /* of items */
    struct string_list warnings;        /* about the importance matrix; in `arena` */
};

static int no_memory(struct err *e)
{
    return err_set(e, ERR_NOMEM, "out of memory for the allocation");
}

static uint64_t padded(const struct allocator *a, uint64_t n)
{
    return (n + a->alignment - 1) / a->alignment * a->alignment;
}

/* A tensor with factors beside its blocks ("X.scale") keeps them while it keeps its type: another one takes
 * them in. NULL: there are none, or they go. */
static const struct model_tensor *kept_scale(const struct model_tensor *t, enum qtype type)
{
    return type == t->type ? t->scale : NULL;
}

/* Bytes of a GGUF tensor record: name, dimensions, type, offset. */
static uint64_t record_bytes(const struct model_tensor *t)
{
    return 8 + strlen(t->name) + 4 + 8 * (uint64_t)t->n_dims + 4 + 8;
}

/* What the choice of `type` adds to a file: the tensor, and with its factors their tensor and the record of
 * it.
 */
static uint64_t file_bytes(const struct allocator *a, const struct model_tensor *t,
                           const struct loss_option *o)
{
    const struct model_tensor *scale = kept_scale(t, o->type);
    return padded(a, o->n_bytes) + (scale ? padded(a, scale->n_bytes) + record_bytes(scale) : 0);
}

/* --- rules --- */

/* The type this tensor gets when asked for `type`: rows that do not divide have a fallback. */
static int stored_type(enum qtype *out, const struct allocator *a, const struct model_tensor *m,
                       enum qtype type, struct err *e)
{
    struct recipe_override all = {".", type};
    struct recipe_options recipe = {.recipe = "llama.cpp", .overrides = &all, .n_overrides = 1};
    struct recipe_tensor t = {.name = m->name,
                              .n_dims = m->n_dims,
                              .ne = {m->ne[0], m->ne[1], m->ne[2], m->ne[3]},
                              .source_type = m->type,
                              .always_f32 = m->always_f32};
    int rc = recipe_assign(&recipe, model_hparams(a->table->model), &t, 1, true, e);
    *out = t.type;
    return rc;
}

static double bits_of(enum qtype type)
{
    const struct qtype_info *info = qtype_info(type);
    return 8.0 * info->block_bytes / info->block_elems;
}

static bool obeys(enum qtype option, enum allocate_bound bound, enum qtype type)
{
    switch (bound) {
    case ALLOCATE_MIN: return bits_of(option) >= bits_of(type);
    case ALLOCATE_MAX: return bits_of(option) <= bits_of(type);
    case ALLOCATE_FIX: break;
    }
    return option == type;
}

static int apply_rule(struct allocator *a, size_t tensor, const struct allocate_rule *rule, struct err *e)
{
    const struct loss_tensor *t = &a->table->tensors[tensor];
    enum qtype type;
    int rc = stored_type(&type, a, t->tensor, rule->type, e);
    bool *allowed = a->allowed + tensor * QTYPE_COUNT, any = false;
    if (rc == 0 && rule->bound == ALLOCATE_FIX && loss_table_option(t, type)) /* the source's type, too */
        allowed[type] = allowed[type] || type == t->tensor->type;
    for (size_t i = 0; rc == 0 && i < t->n_options; i++) {
        allowed[t->options[i].type] &= obeys(t->options[i].type, rule->bound, type);
        any |= allowed[t->options[i].type];
    }
    if (rc == 0 && !any)
        rc = err_set(e, ERR_ARG, "'%s': no type is left for tensor '%s'; add one with --types", rule->pattern,
                     t->tensor->name);
    return rc;
}

static int apply_rules(struct allocator *a, struct err *e)
{
    int rc = 0;
    for (size_t r = 0; rc == 0 && r < a->opt.n_rules; r++) {
        const struct allocate_rule *rule = &a->opt.rules[r];
        struct pattern *p = NULL;
        size_t n_hits = 0;
        rc = pattern_new(&p, rule->pattern, strlen(rule->pattern), false, e);
        for (size_t i = 0; rc == 0 && i < a->table->n_tensors; i++) {
            bool matches = false;
            rc = pattern_test(&matches, p, a->table->tensors[i].tensor->name, e);
            if (rc == 0 && matches)
                rc = apply_rule(a, i, rule, e);
            n_hits += matches;
        }
        pattern_free(p);
        if (rc == 0 && n_hits == 0)
            rc = err_set(e, ERR_ARG, "'%s' finds no tensor that could be quantized", rule->pattern);
    }
    return rc;
}

static int init_allowed(struct allocator *a, struct err *e)
{
    a->allowed = arena_array(&a->arena, a->table->n_tensors, QTYPE_COUNT * sizeof *a->allowed);
    if (!a->allowed)
        return no_memory(e);
    for (size_t i = 0; i < a->table->n_tensors; i++) {
        const struct loss_tensor *t = &a->table->tensors[i];
        for (size_t o = 0; o < t->n_options; o++)
            a->allowed[i * QTYPE_COUNT + t->options[o].type] =
                !a->opt.without_source || t->options[o].type != t->tensor->type || t->n_options == 1;
    }
    return apply_rules(a, e);
}

/* --- items --- */

/* The up projection that runs together with this gate; n_tensors when there is none. */
static size_t partner(const struct loss_table *t, size_t i)
{
    const char *name = t->tensors[i].tensor->name, *at = strstr(name, "ffn_gate");
    char other[512];
    if (!at || strlen(name) >= sizeof other)
        return t->n_tensors;
    snprintf(other, sizeof other, "%.*sffn_up%s", (int)(at - name), name, at + strlen("ffn_gate"));
    size_t low = 0, high = t->n_tensors; /* sorted by name */
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        int c = strcmp(t->tensors[mid].tensor->name, other);
        if (c == 0)
            return mid;
        if (c < 0)
            low = mid + 1;
        else
            high = mid;
    }
    return t->n_tensors;
}

static bool is_allowed(const struct allocator *a, size_t tensor, enum qtype type)
{
    return a->allowed[tensor * QTYPE_COUNT + type];
}

static int make_item(struct allocator *a, struct item *it, struct err *e)
{
    const struct loss_tensor *t = &a->table->tensors[it->tensors[0]];
    it->options = arena_array(&a->arena, t->n_options, sizeof *it->options);
    it->picks[0] = arena_array(&a->arena, t->n_options, sizeof **it->picks);
    it->picks[1] = arena_array(&a->arena, t->n_options, sizeof **it->picks);
    if (!it->options || !it->picks[0] || !it->picks[1])
        return no_memory(e);
    for (size_t i = 0; i < t->n_options; i++) {
        const struct loss_option *o = &t->options[i], *p = NULL;
        if (!is_allowed(a, it->tensors[0], o->type))
            continue;
        struct knapsack_option k = {.n_bytes = file_bytes(a, t->tensor, o)};
        if (it->n_tensors == 2) {
            const struct loss_tensor *u = &a->table->tensors[it->tensors[1]];
            p = loss_table_option(u, o->type);
            if (!p || !is_allowed(a, it->tensors[1], o->type))
                continue;
            k.n_bytes += file_bytes(a, u->tensor, p);
            it->picks[1][it->n_options] = (size_t)(p - u->options);
        }
        it->picks[0][it->n_options] = i;
        it->options[it->n_options++] = k;
    }
    return 0;
}

static int make_items(struct allocator *a, struct err *e)
{
    size_t n = a->table->n_tensors;
    bool *taken = arena_array(&a->arena, n, sizeof *taken);
    a->items = arena_array(&a->arena, n, sizeof *a->items);
    if (!taken || !a->items)
        return no_memory(e);
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < n; i++) {
        size_t other = a->opt.free_pairs ? n : partner(a->table, i);
        struct item *it = &a->items[a->n_items];
        if (taken[i])
            continue;
        if (other < n && !taken[other]) {
            *it = (struct item){.tensors = {i, other}, .n_tensors = 2};
            rc = make_item(a, it, e);
            if (rc == 0 && it->n_options > 0) {
                taken[other] = true;
                a->n_items++;
                continue;
            }
        }
        *it = (struct item){.tensors = {i}, .n_tensors = 1};
        if (rc == 0)
            rc = make_item(a, it, e);
        a->n_items++;
    }
    for (size_t i = 0; rc == 0 && i < a->n_items; i++) {
        uint64_t least = UINT64_MAX, most = 0;
        for (size_t o = 0; o < a->items[i].n_options; o++) {
            uint64_t b = a->items[i].options[o].n_bytes;
            least = b < least ? b : least;
            most = b > most ? b : most;
        }
        a->min_bytes += least;
        a->max_bytes += most;
    }
    return rc;
}

/* --- layout --- */

/* A tensor name as a pattern that matches nothing else. */
static void put_pattern(FILE *f, const char *name)
{
    for (; *name; name++) {
        bool plain = (*name >= 'a' && *name <= 'z') || (*name >= 'A' && *name <= 'Z') ||
                     (*name >= '0' && *name <= '9') || *name == '_' || *name == '-' ||
                     (unsigned char)*name > 127;
        fprintf(f, plain ? "%c" : "\\%c", *name);
    }
}

static char *lines_of(const struct allocator *a, const size_t *choice)
{
    struct printed p;
    if (printed_begin(&p) != 0)
        return NULL;
    FILE *f = p.out;
    for (size_t i = 0; i < a->table->n_tensors; i++) {
        put_pattern(f, a->table->tensors[i].tensor->name);
        fprintf(f, " %s\n", qtype_name(a->table->tensors[i].options[choice[i]].type));
    }
    return printed_end(&p);
}

/* The file that `kerf quantize --plan` would write. */
static int lay_out(const struct allocator *a, const size_t *choice, const struct mix *mix,
                   const char *imatrix_path, struct rewrite_report *out, struct err *e)
{
    struct plan *plan = NULL;
    char *text = mix ? NULL : lines_of(a, choice);
    struct rewrite_options r = {.recipe = {.recipe = "llama.cpp", .mix = mix},
                                .imatrix = a->table->imatrix,
                                .imatrix_path = imatrix_path,
                                .imatrix_shown = a->opt.imatrix_path,
                                .allow_requantize = a->opt.requantize,
                                .overwrite = true,
                                .dry_run = true,
                                .memory_bytes = (uint64_t)1 << 28,
                                .kern = a->opt.kern,
                                .pool = a->opt.pool};
    int rc = mix || text ? 0 : no_memory(e);
    if (rc == 0 && !mix)
        rc = plan_parse(&plan, text, strlen(text), "the plan", e);
    r.recipe.plan = plan;
    r.recipe.has_imatrix = a->table->imatrix != NULL;
    if (rc == 0)
        rc = rewrite_model(out, a->table->model, NULL, &r, e);
    plan_free(plan);
    free(text);
    return rc;
}

/* Of the tensors of the table: in a file, and their data alone, both with the factors that are kept. */
static void add_up(const struct allocator *a, const size_t *choice, uint64_t *in_file, uint64_t *data)
{
    *in_file = *data = 0;
    for (size_t i = 0; i < a->table->n_tensors; i++) {
        const struct loss_tensor *t = &a->table->tensors[i];
        const struct loss_option *o = &t->options[choice[i]];
        const struct model_tensor *scale = kept_scale(t->tensor, o->type);
        *in_file += file_bytes(a, t->tensor, o);
        *data += o->n_bytes + (scale ? scale->n_bytes : 0);
    }
}

/* Records of factors move the end of the header, whose padding is then another one. */
static uint64_t header_slack(const struct allocator *a)
{
    for (size_t i = 0; i < a->table->n_tensors; i++)
        if (a->table->tensors[i].tensor->scale)
            return a->alignment - 1;
    return 0;
}

static int add_warning(struct allocator *a, struct err *e, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    int rc = string_list_vadd(&a->warnings, &a->arena, fmt, args);
    va_end(args);
    return rc == 0 ? 0 : no_memory(e);
}

size_t allocator_n_warnings(const struct allocator *a)
{
    return a->warnings.n;
}

const char *allocator_warning(const struct allocator *a, size_t i)
{
    return a->warnings.items[i];
}

/* For each tensor a type whose encoder looks at importance, where it has one: then the warnings about what
 * the matrix lacks name every tensor that it may matter for. */
static void choose_weighed(const struct loss_table *t, size_t *choice)
{
    for (size_t i = 0; i < t->n_tensors; i++)
        for (size_t k = 0; k < t->tensors[i].n_options; k++)
            if (qtype_info(t->tensors[i].options[k].type)->importance != IMPORTANCE_IGNORED) {
                choice[i] = k;
                break;
            }
}

/* What the file holds besides the tensors of the table. The name of the importance matrix is part of the
 * metadata, and may be another one when the plan is used: room is left for the longest that is stored. */
static int measure_overhead(struct allocator *a, struct err *e)
{
    uint64_t alignment = 0;
    struct rewrite_report r = {0};
    char path[128];
    memset(path, 'x', 127);
    path[127] = 0;
    if (!gguf_meta_get_u64(model_meta(a->table->model), "general.alignment", &alignment) || alignment == 0)
        alignment = 32;
    a->alignment = alignment;
    size_t *choice = calloc(a->table->n_tensors, sizeof *choice);
    if (choice)
        choose_weighed(a->table, choice);
    int rc = choice ? lay_out(a, choice, NULL, a->table->imatrix ? path : NULL, &r, e) : no_memory(e);
    for (size_t i = 0; rc == 0 && i < r.n_warnings; i++)
        if (strncmp(r.warnings[i], "[imatrix-", 9) ==
            0) /* the rest is about types, which are not chosen yet */
            rc = add_warning(a, e, "%s", r.warnings[i]);
    if (rc == 0) {
        double tensor_bytes = r.bits_per_weight * (double)r.n_parameters / 8;
        uint64_t in_file, data;
        add_up(a, choice, &in_file, &data);
        a->overhead = r.n_bytes - in_file + header_slack(a) + a->opt.record_bytes;
        a->fixed_bytes = (uint64_t)llround(tensor_bytes) - data;
        a->n_parameters = r.n_parameters;
    }
    rewrite_report_release(&r);
    free(choice);
    return rc;
}

int allocator_new(struct allocator **out, const struct loss_table *table, const struct allocate_options *opt,
                  struct err *e)
{
    struct allocator *a = calloc(1, sizeof *a);
    if (!a)
        return no_memory(e);
    a->table = table;
    a->opt = *opt;
    int rc = measure_overhead(a, e);
    if (rc == 0)
        rc = init_allowed(a, e);
    if (rc == 0)
        rc = make_items(a, e);
    if (rc != 0) {
        allocator_free(a);
        return rc;
    }
    *out = a;
    return 0;
}

void allocator_free(struct allocator *a)
{
    if (!a)
        return;
    arena_release(&a->arena);
    free(a);
}

uint64_t allocator_min_bytes(const struct allocator *a)
{
    return a->overhead + a->min_bytes;
}

uint64_t allocator_max_bytes(const struct allocator *a)
{
    return a->overhead + a->max_bytes;
}

uint64_t allocator_budget_of_weights(const struct allocator *a, uint64_t n_bytes)
{
    return n_bytes > a->fixed_bytes ? n_bytes - a->fixed_bytes + a->overhead : 0;
}

uint64_t allocator_budget_of_bits(const struct allocator *a, double bits_per_weight)
{
    double n_bytes = floor(bits_per_weight * (double)a->n_parameters / 8);
    return n_bytes < 9e18 ? allocator_budget_of_weights(a, n_bytes > 0 ? (uint64_t)n_bytes : 0) : INT64_MAX;
}

const struct loss_table *allocator_table(const struct allocator *a)
{
    return a->table;
}

const struct allocate_options *allocator_options(const struct allocator *a)
{
    return &a->opt;
}

/* --- solving --- */

int allocator_check(const struct allocator *a, uint64_t budget_bytes, struct err *e)
{
    if (budget_bytes >= allocator_min_bytes(a))
        return 0;
    return err_set(e, ERR_ARG,
                   "a file of %" PRIu64 " bytes is not possible; the smallest with these types and rules has "
                   "%" PRIu64 " bytes (%.3f bits per weight)",
                   budget_bytes, allocator_min_bytes(a),
                   8.0 * (double)(a->fixed_bytes + a->min_bytes) /
                       (double)(a->n_parameters + !a->n_parameters));
}

/* The losses of the table as they are now. */
static void take_losses(const struct allocator *a)
{
    for (size_t i = 0; i < a->n_items; i++) {
        struct item *it = &a->items[i];
        for (size_t o = 0; o < it->n_options; o++) {
            it->options[o].loss = 0;
            for (size_t j = 0; j < it->n_tensors; j++)
                it->options[o].loss += a->table->tensors[it->tensors[j]].options[it->picks[j][o]].loss;
        }
    }
}

static int solve_items(const struct allocator *a, uint64_t data_budget, struct allocation *out, struct err *e)
{
    struct knapsack_item *list = calloc(a->n_items + 1, sizeof *list);
    size_t *choice = calloc(a->n_items + 1, sizeof *choice);
    struct knapsack_result result = {0};
    int rc = list && choice ? 0 : no_memory(e);
    take_losses(a);
    for (size_t i = 0; rc == 0 && i < a->n_items; i++)
        list[i] = (struct knapsack_item){a->items[i].options, a->items[i].n_options};
    if (rc == 0)
        rc = knapsack_solve(list, a->n_items, data_budget, choice, &result, e);
    for (size_t i = 0; rc == 0 && i < a->n_items; i++)
        for (size_t j = 0; j < a->items[i].n_tensors; j++)
            out->choice[a->items[i].tensors[j]] = a->items[i].picks[j][choice[i]];
    out->loss = result.loss;
    out->lower_bound = result.lower_bound;
    free(list);
    free(choice);
    return rc;
}

int allocator_solve(const struct allocator *a, uint64_t budget_bytes, struct allocation *out, struct err *e)
{
    struct allocation r = {.budget_bytes = budget_bytes};
    struct rewrite_report file = {0};
    int rc = allocator_check(a, budget_bytes, e);
    if (rc != 0)
        return rc;
    r.choice = calloc(a->table->n_tensors + 1, sizeof *r.choice);
    rc = r.choice ? solve_items(a, budget_bytes - a->overhead, &r, e) : no_memory(e);
    if (rc == 0)
        rc = lay_out(a, r.choice, NULL, a->opt.imatrix_path, &file, e);
    if (rc == 0 && file.n_bytes > budget_bytes) /* the layout knows something this file does not */
        rc = err_set(e, ERR_ARG, "the planned file has %" PRIu64 " bytes, more than the %" PRIu64 " allowed",
                     file.n_bytes, budget_bytes);
    r.n_bytes = file.n_bytes;
    r.bits_per_weight = file.bits_per_weight;
    rewrite_report_release(&file);
    if (rc != 0)
        allocation_release(&r);
    else
        *out = r;
    return rc;
}

void allocation_release(struct allocation *r)
{
    if (!r)
        return;
    free(r->choice);
    *r = (struct allocation){0};
}

/* The options that a mix chooses, into choice [n_tensors]. False: one of them is not in the table. */
static bool choose_as(const struct allocator *a, const struct rewrite_report *r, size_t *choice)
{
    for (size_t i = 0; i < a->table->n_tensors; i++) {
        const struct loss_tensor *t = &a->table->tensors[i];
        const struct loss_option *o = NULL;
        for (size_t j = 0; !o && j < r->n_tensors; j++)
            if (strcmp(r->tensors[j].name, t->tensor->name) == 0)
                o = loss_table_option(t, r->tensors[j].type);
        if (!o)
            return false;
        choice[i] = (size_t)(o - t->options);
    }
    return true;
}

static double loss_of(const struct allocator *a, const size_t *choice)
{
    double sum = 0;
    for (size_t i = 0; i < a->table->n_tensors; i++)
        sum += a->table->tensors[i].options[choice[i]].loss;
    return sum;
}

/* lay_out of a mix; *ok false: the rules refuse it. 0 or ERR_NOMEM. */
static int try_mix(const struct allocator *a, const size_t *choice, const struct mix *mix,
                   struct rewrite_report *out, bool *ok, struct err *e)
{
    struct err why = {0};
    int rc = lay_out(a, choice, mix, a->opt.imatrix_path, out, &why);
    *ok = rc == 0;
    return rc == ERR_NOMEM ? err_set(e, rc, "%s", why.msg) : 0;
}

static size_t *new_choice(const struct allocator *a, struct err *e)
{
    size_t *choice = calloc(a->table->n_tensors + 1, sizeof *choice);
    if (!choice)
        err_set(e, ERR_NOMEM, "out of memory for the types of %zu tensors", a->table->n_tensors);
    return choice;
}

int allocator_price_mix(const struct allocator *a, const struct mix *mix, struct mix_price *out,
                        struct err *e)
{
    struct rewrite_report r = {0};
    bool ok = false;
    size_t *choice = new_choice(a, e);
    int rc = choice ? try_mix(a, NULL, mix, &r, &ok, e) : ERR_NOMEM;
    if (rc == 0) {
        bool known = ok && choose_as(a, &r, choice);
        *out = (struct mix_price){known, known ? loss_of(a, choice) : 0, r.bits_per_weight, r.n_bytes};
    }
    rewrite_report_release(&r);
    free(choice);
    return rc;
}

/* Levels: Q4_K_M, IQ4_XS, Q8_0; not the older and the special types, which nobody takes for their loss. */
static bool is_level(const struct mix *mix)
{
    const struct qtype_info *info = qtype_info(mix->base);
    bool known = strncmp(mix->name, "IQ", 2) == 0 || mix->base == QTYPE_Q8_0 ||
                 (mix->name[0] == 'Q' && mix->name[1] && strncmp(mix->name + 2, "_K", 2) == 0);
    return known && info && info->can_encode && info->is_quantized;
}

/* Whoever asks for the bytes of a mix's file has it without the keys of this importance matrix, as often as
 * not. */
#define MIX_SLACK 1024

int allocator_standard_mix(const struct allocator *a, uint64_t budget_bytes, const struct mix **out,
                           struct err *e)
{
    double least = INFINITY;
    uint64_t most = 0;
    int rc = 0;
    *out = NULL;
    for (size_t i = 0; rc == 0 && i < mix_count(); i++) {
        const struct mix *mix = mix_at(i);
        struct mix_price p = {0};
        if (!is_level(mix) || (rc = allocator_price_mix(a, mix, &p, e)) != 0)
            continue;
        double loss = p.known ? p.loss : INFINITY;
        if (p.n_bytes == 0 || p.n_bytes > budget_bytes + MIX_SLACK || p.n_bytes < most ||
            (p.n_bytes == most && !(loss < least)))
            continue;
        *out = mix;
        least = loss;
        most = p.n_bytes;
    }
    return rc;
}

int allocator_take_mix(const struct allocator *a, const struct mix *mix, uint64_t budget_bytes,
                       struct allocation *out, bool *took, struct err *e)
{
    struct rewrite_report file = {0};
    struct allocation r = {.budget_bytes = budget_bytes, .choice = new_choice(a, e)};
    bool fits = false;
    int rc = r.choice ? try_mix(a, NULL, mix, &file, &fits, e) : ERR_NOMEM;
    fits = fits && file.n_bytes <= budget_bytes && choose_as(a, &file, r.choice);
    for (size_t i = 0; fits && i < a->table->n_tensors; i++)
        fits = is_allowed(a, i, a->table->tensors[i].options[r.choice[i]].type);
    rewrite_report_release(&file);
    if (fits) /* as a plan, whose metadata differ a little from the mix's */
        rc = try_mix(a, r.choice, NULL, &file, &fits, e);
    fits = fits && file.n_bytes <= budget_bytes;
    if (fits) {
        r.loss = loss_of(a, r.choice);
        r.lower_bound = fmin(out->lower_bound, r.loss);
        r.n_bytes = file.n_bytes;
        r.bits_per_weight = file.bits_per_weight;
        allocation_release(out);
        *out = r;
    } else {
        free(r.choice);
    }
    rewrite_report_release(&file);
    *took = fits;
    return rc;
}

int allocator_weights(const struct allocator *a, const struct allocation *r, struct weights **out,
                      struct err *e)
{
    struct plan *plan = NULL;
    char *text = lines_of(a, r->choice);
    int rc = text ? plan_parse(&plan, text, strlen(text), "the plan", e) : no_memory(e);
    struct recipe_options recipe = {
        .recipe = "llama.cpp", .plan = plan, .has_imatrix = a->table->imatrix != NULL};
    if (rc == 0)
        rc = weights_new_mix(out, a->table->model, &recipe, a->table->imatrix, a->opt.requantize, a->opt.kern,
                             e);
    plan_free(plan);
    free(text);
    return rc;
}

/* --- the plan --- */

static void put_rules(const struct allocator *a, FILE *f)
{
    static const char *const names[] = {"min", "max", "fix"};
    for (size_t i = 0; i < a->opt.n_rules; i++) {
        fprintf(f, "#   --%s ", names[a->opt.rules[i].bound]);
        for (const char *s = a->opt.rules[i].pattern; *s; s++)
            fputc((unsigned char)*s < 0x20 || *s == 0x7f ? '?' : *s, f);
        fprintf(f, "=%s\n", qtype_name(a->opt.rules[i].type));
    }
}

/* How the losses came about. */
static void put_source(const struct loss_table *t, FILE *f)
{
    fprintf(f, "# losses     measured on %zu tokens of ids %s", t->n_scored, t->ids_sha256);
    if (t->probe == LOSS_PROBE_FAST)
        fprintf(f, ", by fast probes");
    fputc('\n', f);
}

int allocator_plan(const struct allocator *a, const struct allocation *r, const char *remark, char **text,
                   struct err *e)
{
    const struct loss_table *t = a->table;
    struct printed p;
    if (printed_begin(&p) != 0)
        return no_memory(e);
    FILE *f = p.out;
    fprintf(f,
            "# kerf plan 1\n#\n# %s, a file of %" PRIu64 " bytes (at most %" PRIu64
            " were asked for), %.3f bits per "
            "weight\n# expected loss %.3g nats per token, no choice of these types has less than %.3g\n",
            model_arch_name(t->model), r->n_bytes, r->budget_bytes, r->bits_per_weight, r->loss,
            r->lower_bound);
    fprintf(f, "# weights    %s\n# importance %s\n", t->weights_sha256,
            t->imatrix_sha256[0] ? t->imatrix_sha256 : "none");
    put_source(t, f);
    if (remark)
        fprintf(f, "# confirmed  %s\n", remark);
    if (a->opt.n_rules)
        fputs("# rules\n", f);
    put_rules(a, f);
    fputs("#\n# tensor, type, bytes and expected loss; lines may be edited, the first that matches counts\n",
          f);
    for (size_t i = 0; i < t->n_tensors; i++) {
        const struct loss_option *o = &t->tensors[i].options[r->choice[i]];
        put_pattern(f, t->tensors[i].tensor->name);
        fprintf(f, "  %s  # %" PRIu64 "  %.3g\n", qtype_name(o->type), o->n_bytes, o->loss);
    }
    char *printed = printed_end(&p);
    if (!printed)
        return no_memory(e);
    *text = printed;
    return 0;
}
