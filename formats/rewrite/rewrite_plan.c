/* rewrite_plan.c - what is decided before the first weight is read: types, order and layout of the output.
 *
 * Truth: specification, architectures 0.3 (plain types), quantization 6 (which tensors, sources, importance)
 * and 7.2 (order). The mixes themselves are recipe_rules.c. Metadata is rewrite_meta.c. */
#include "rewrite_internal.h"

#include "formats/model/model_identity.h"
#include "formats/model/model_check.h"
#include "formats/model/tensor_name.h"
#include "libquant/base/checked.h"
#include "libquant/quant.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Elements of one job: large enough that handing out a job costs nothing, small enough that many threads
 * finish together and that a killed run loses little. Part of the journal's identity. */
#define JOB_ELEMS ((uint64_t)1 << 19)

static int no_memory(struct err *e)
{
    return err_set(e, ERR_NOMEM, "out of memory while planning the output");
}

int rw_plan_warn(struct rw_plan *p, struct err *e, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    int rc = string_list_vadd(&p->warnings, &p->arena, fmt, args);
    va_end(args);
    return rc == 0 ? 0 : no_memory(e);
}

bool rw_is_plain(const struct rewrite_options *opt)
{
    const struct mix *mix = opt->recipe.mix;
    return !mix || !qtype_info(mix->base)->is_quantized;
}

/* --- order --- */

static int by_layer_and_name(const void *a, const void *b)
{
    const struct model_tensor *x = ((const struct rw_tensor *)a)->src,
                              *y = ((const struct rw_tensor *)b)->src;
    int64_t lx = tensor_layer(x->name, NULL), ly = tensor_layer(y->name, NULL);
    if (lx != ly)
        return lx < ly ? -1 : 1;
    return strcmp(x->name, y->name);
}

/* --- types --- */

/* "auto": the first matrix of BF16 or F16 decides, F16 when there is none. So does the reference converter,
 * which passes over F32 and packed weights. */
static enum qtype auto_type(const struct model *m)
{
    if (model_is_adapter(m))
        return QTYPE_F32; /* small, and the reference converter's default */
    for (size_t i = 0; i < model_n_tensors(m); i++) {
        const struct model_tensor *t = model_tensor(m, i);
        enum qtype type = model_source_type(t);
        if (t->n_dims >= 2 && !t->always_f32 && (type == QTYPE_BF16 || type == QTYPE_F16))
            return type;
    }
    return QTYPE_F16;
}

static bool is_float(enum qtype t)
{
    return t == QTYPE_F32 || t == QTYPE_F16 || t == QTYPE_BF16;
}

/* May a source be decoded to numbers at all? */
static bool is_weight(enum qtype t)
{
    return is_float(t) || qtype_info(t)->is_quantized;
}

static bool is_embedding_or_output(const char *name)
{
    return strcmp(name, "token_embd.weight") == 0 || strcmp(name, "per_layer_token_embd.weight") == 0 ||
           strcmp(name, "output.weight") == 0;
}

static const char *imatrix_name(const struct rewrite_options *opt)
{
    return opt->imatrix_shown  ? opt->imatrix_shown
           : opt->imatrix_path ? opt->imatrix_path
                               : "importance matrix";
}

/* The importance data of a tensor, its size checked. */
static int find_importance(struct rw_plan *p, struct rw_tensor *t, const struct rewrite_options *opt,
                           struct err *e)
{
    const struct imatrix_entry *entry = opt->imatrix ? imatrix_find_for(opt->imatrix, t->src->name) : NULL;
    if (!entry)
        return 0;
    uint64_t want = 0;
    if (!checked_mul(t->src->ne[0], t->n_mats, &want) || entry->n_values != want) {
        const char *file = imatrix_name(opt);
        if (strcmp(t->src->name, "output.weight") != 0 && is_embedding_or_output(t->src->name))
            return rw_plan_warn(p, e,
                                "[imatrix-size] %s: entry '%s' has %" PRIu64 " values, the tensor %" PRIu64
                                "; not used",
                                file, t->src->name, entry->n_values, want);
        return err_set(e, ERR_ARG,
                       "%s: entry '%s' has %" PRIu64 " values, but the tensor needs %" PRIu64
                       "; the file belongs to another model",
                       file, t->src->name, entry->n_values, want);
    }
    t->imat = entry;
    return 0;
}

/* Where the embedding is the head, options about the head mostly speak of nothing. */
static int report_head(struct rw_plan *p, const struct recipe_options *o, const struct recipe_tensor *r,
                       struct err *e)
{
    bool has_output = false, decided = !o->has_output_type;
    for (size_t i = 0; i < p->n_tensors; i++) {
        bool head = strcmp(r[i].name, "output.weight") == 0;
        has_output |= head;
        decided |= r[i].why && (strcmp(r[i].why, "output type") == 0 ||
                                (head && r[i].forced && strncmp(r[i].why, "fallback", 8) == 0));
    }
    const char *idle = o->leave_output && !has_output ? "--leave-output" : !decided ? "--output-type" : NULL;
    if (!idle)
        return 0;
    return rw_plan_warn(p, e,
                        has_output
                            ? "[option-idle] %s decided nothing: another option leaves output.weight as it is"
                            : "[option-idle] %s: the model has no output.weight, its embedding is the "
                              "head; --embedding-type decides what becomes of that",
                        idle);
}

/* Options that decided nothing are most likely misspelt. */
static int report_hits(struct rw_plan *p, const struct recipe_options *r, const size_t *override_hits,
                       const size_t *plan_hits, struct err *e)
{
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < r->n_overrides; i++)
        if (override_hits[i] == 0)
            rc = rw_plan_warn(p, e, "[option-idle] --tensor-type %s=%s decided no tensor",
                              r->overrides[i].pattern, qtype_name(r->overrides[i].type));
    for (size_t i = 0; rc == 0 && r->plan && i < plan_n(r->plan); i++)
        if (plan_hits[i] == 0)
            rc = rw_plan_warn(p, e, "[plan-line-idle] %s: the line of '%s' decided no tensor",
                              plan_name(r->plan), plan_pattern(r->plan, i));
    if (rc == 0 && r->plan && plan_n(r->plan) == 0)
        rc = rw_plan_warn(p, e, "[plan-empty] %s: the plan has no lines", plan_name(r->plan));
    return rc;
}

/* A measured plan has a line for every matrix of its model. One written by hand speaks of what it likes. */
static int report_left(struct rw_plan *p, const struct recipe_options *o, const struct recipe_tensor *r,
                       struct err *e)
{
    size_t n = 0, n_matrices = 0, first = 0;
    for (size_t i = 0; i < p->n_tensors; i++) {
        first = r[i].left && n == 0 ? i : first;
        n += r[i].left;
        n_matrices += r[i].left || r[i].forced;
    }
    if (n == 0)
        return 0;
    return rw_plan_warn(
        p, e,
        "[plan-incomplete] %s: no line for %zu of the %zu matrices that can be quantized, '%s' among them; "
        "%s. Was it made for another model?",
        plan_name(o->plan), n, n_matrices, r[first].name,
        o->mix ? "--type decides" : "they keep the precision of the source");
}

/* A mix whose own type no tensor takes (MXFP4_MOE without experts) is not what its name says. */
static int report_absent_base(struct rw_plan *p, const struct recipe_options *r, struct err *e)
{
    if (!r->mix || !qtype_info((uint32_t)r->mix->base)->is_quantized || r->plan)
        return 0;
    for (size_t i = 0; i < p->n_tensors; i++)
        if (p->tensors[i].type == r->mix->base)
            return 0;
    return rw_plan_warn(p, e,
                        "[mix-base-absent] no tensor of this model becomes %s: the rules of %s give this "
                        "model other types, and the file is named %s all the same, as by llama.cpp",
                        qtype_name((uint32_t)r->mix->base), r->mix->name, r->mix->name);
}

static int fall_back(struct rw_plan *p, struct rw_tensor *t, const struct recipe_tensor *r, bool refuse,
                     struct err *e)
{
    t->fallback = true;
    if (refuse)
        return err_set(e, ERR_ARG,
                       "tensor '%s': %s, it would be %s; choose another type, or leave out --no-fallback",
                       r->name, r->why, qtype_name((uint32_t)r->type));
    return rw_plan_warn(p, e, "[type-fallback|%s] tensor '%s': %s, written as %s", r->name, r->name, r->why,
                        qtype_name((uint32_t)r->type));
}

/* The type of a tensor that does not go by the mix. */
static enum qtype fixed_type(enum fixed_type fixed, const struct mix *mix)
{
    bool f16 = fixed == FIXED_F16 || (mix && mix->base == QTYPE_F16);
    return f16 ? QTYPE_F16 : QTYPE_F32;
}

/* Let the recipe decide. `mix` NULL: types of the source, but for options. */
static int assign(struct rw_plan *p, const struct model *m, const struct rewrite_options *opt,
                  const struct mix *mix, struct err *e)
{
    struct recipe_options ro = opt->recipe;
    struct recipe_tensor *r = calloc(p->n_tensors ? p->n_tensors : 1, sizeof *r);
    size_t *override_hits = calloc(ro.n_overrides + 1, sizeof *override_hits);
    size_t *plan_hits = calloc((ro.plan ? plan_n(ro.plan) : 0) + 1, sizeof *plan_hits);
    int rc = r && override_hits && plan_hits ? 0 : no_memory(e);
    for (size_t i = 0; rc == 0 && i < p->n_tensors; i++) {
        const struct model_tensor *s = p->tensors[i].src;
        r[i] = (struct recipe_tensor){.name = s->name,
                                      .n_dims = s->n_dims,
                                      .source_type = model_source_type(s),
                                      .always_f32 = s->always_f32,
                                      .has_fixed = s->fixed != FIXED_NOT,
                                      .fixed = fixed_type(s->fixed, mix),
                                      .has_importance = p->tensors[i].imat != NULL};
        memcpy(r[i].ne, s->ne, sizeof r[i].ne);
    }
    ro.mix = mix;
    ro.from_checkpoint = !model_is_gguf(m);
    ro.has_imatrix = (opt->imatrix && imatrix_n(opt->imatrix) > 0) || opt->importance_to_come;
    ro.override_hits = override_hits;
    ro.plan_hits = plan_hits;
    /* A dry run says what would be done: refused for want of importance is refused in both, unless it is
     * asked what could be, or has none yet. */
    const bool unrefused = opt->dry_run && (opt->without_importance || opt->importance_to_come);
    if (rc == 0)
        rc = recipe_assign(&ro, model_hparams(m), r, p->n_tensors, unrefused, e);
    for (size_t i = 0; rc == 0 && i < p->n_tensors; i++) {
        if (!opt->recipe.mix && p->tensors[i].src->has_blocks && r[i].why && strcmp(r[i].why, "mix") == 0)
            r[i].type = r[i].source_type; /* "auto" is as the source has it */
        p->tensors[i].type = r[i].type;
        p->tensors[i].from_plan = r[i].why && strcmp(r[i].why, "plan") == 0;
        if (r[i].why && strncmp(r[i].why, "fallback", 8) == 0)
            rc = fall_back(p, &p->tensors[i], &r[i], opt->no_fallback, e);
    }
    if (rc == 0)
        rc = report_absent_base(p, &ro, e);
    if (rc == 0)
        rc = report_hits(p, &ro, override_hits, plan_hits, e);
    if (rc == 0)
        rc = report_head(p, &ro, r, e);
    if (rc == 0 && ro.plan && plan_weights(ro.plan)[0])
        rc = report_left(p, &opt->recipe, r, e);
    free(r);
    free(override_hits);
    free(plan_hits);
    return rc;
}

/* The factors of an adapter have no roles that a mix could tell apart: all matrices take its base type. B has
 * rows of the rank, which is often less than a block; those stay F16, as the reference converter has them. */
static int assign_factors(struct rw_plan *p, const struct rewrite_options *opt, const struct mix *mix,
                          struct err *e)
{
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < p->n_tensors; i++) {
        struct rw_tensor *t = &p->tensors[i];
        const struct recipe_tensor r = {
            .name = t->src->name, .type = QTYPE_F16, .why = "fallback: rows are not a multiple of 32"};
        t->type = t->src->always_f32 ? QTYPE_F32 : mix->base;
        if (t->src->ne[0] % qtype_info((uint32_t)t->type)->block_elems == 0)
            continue;
        t->type = r.type;
        rc = fall_back(p, t, &r, opt->no_fallback, e);
    }
    return rc;
}

/* Rules about sources, and what a job needs to know. A checkpoint has no other weights than its packed ones.
 */
static int finish_tensor(struct rw_plan *p, struct rw_tensor *t, const struct model *m,
                         const struct rewrite_options *opt, struct err *e)
{
    const bool from_checkpoint = !model_is_gguf(m);
    const struct model_tensor *s = t->src;
    const struct qtype_info *to = qtype_info(t->type);
    if (t->type != s->type && !is_weight(s->type))
        return err_set(e, ERR_UNSUPPORTED, "tensor '%s': %s cannot be converted to %s", s->name,
                       qtype_name(s->type), to->name);
    const enum qtype source = model_source_type(s);
    if (t->type != s->type && qtype_info(source)->is_quantized && !from_checkpoint && !opt->allow_requantize)
        return err_set(e, ERR_ARG,
                       "tensor '%s' is already quantized (%s); start from the original weights, or add "
                       "--allow-requantize to go on to %s with the losses of both",
                       s->name, qtype_name(source), to->name);
    t->repack = t->type == s->type && s->has_blocks;
    t->copy = t->type == s->type && !t->repack && (s->raw || !model_has_weights(m));
    if (!t->copy && !t->repack && !to->can_encode)
        return err_set(e, ERR_UNSUPPORTED, "tensor '%s': %s cannot be written", s->name, to->name);
    if (!qtype_row_bytes(t->type, s->ne[0], &t->row_bytes) ||
        !checked_mul(t->row_bytes, s->n_rows, &t->n_bytes))
        return err_set(e, ERR_ARG,
                       "tensor '%s': rows of %" PRIu64 " do not divide into the %u-element blocks of %s; "
                       "choose another type for it with --tensor-type",
                       s->name, s->ne[0], to->block_elems, to->name);
    if (t->copy || t->repack || to->importance == IMPORTANCE_IGNORED)
        t->imat = NULL;
    else
        t->no_importance = opt->imatrix && !t->imat;
    t->rows_per_job = s->ne[0] && s->ne[0] < JOB_ELEMS ? JOB_ELEMS / s->ne[0] : 1;
    t->first_job = p->n_jobs;
    if (t->n_bytes)
        p->n_jobs += (size_t)((s->n_rows + t->rows_per_job - 1) / t->rows_per_job);
    p->tensor_bytes += t->n_bytes;
    p->source_bytes += s->n_bytes;
    p->n_parameters += s->ne[0] * s->n_rows;
    return 0;
}

/* Packed weights that are packed again lose twice. */
static int report_repacked(struct rw_plan *p, const struct rewrite_options *opt, struct err *e)
{
    size_t n = 0;
    const struct rw_tensor *first = NULL;
    for (size_t i = 0; i < p->n_tensors; i++) {
        const struct rw_tensor *t = &p->tensors[i];
        enum qtype plain;
        bool packed =
            !qtype_from_name(t->src->source_type, &plain) || qtype_info((uint32_t)plain)->is_quantized;
        packed = packed && t->src->n_dims >= 2 && strcmp(t->src->source_type, "F64") != 0;
        if (!packed || t->repack || t->copy || !qtype_info((uint32_t)t->type)->is_quantized)
            continue;
        first = first ? first : t;
        n++;
    }
    if (n == 0 || opt->allow_requantize)
        return 0;
    return rw_plan_warn(
        p, e,
        "[requantized] %zu tensor%s already packed (the first is '%s': %s) and become%s quantized "
        "again, with the losses of both; start from the original weights, or say "
        "--allow-requantize",
        n, n == 1 ? " is" : "s are", first->src->name, first->src->source_type, n == 1 ? "s" : "");
}

/* Are most values of a row 0 or plus or minus the largest of their block? */
static bool is_ternary(const float *x, size_t n, size_t block)
{
    size_t n_odd = 0;
    for (size_t i = 0; i < n; i += block) {
        float most = 0;
        for (size_t j = i; j < i + block; j++)
            most = fabsf(x[j]) > most ? fabsf(x[j]) : most;
        for (size_t j = i; j < i + block; j++)
            n_odd += fabsf(x[j]) > most / 16 && fabsf(x[j]) < most * 15 / 16;
    }
    return n_odd * 16 <= n;
}

/* Types of three values on weights of many give a file that says nothing. */
static int report_not_ternary(struct rw_plan *p, const struct model *m, struct err *e)
{
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < p->n_tensors && model_has_weights(m); i++) {
        const struct rw_tensor *t = &p->tensors[i];
        size_t n = (size_t)t->src->ne[0];
        if ((t->type != QTYPE_TQ1_0 && t->type != QTYPE_TQ2_0) || t->copy || t->repack || t->src->n_rows == 0)
            continue;
        float *row = malloc(n * sizeof *row);
        if (!row)
            return no_memory(e);
        rc = model_read_rows(m, t->src, t->src->n_rows / 2, 1, row, e);
        if (rc == 0 && !is_ternary(row, n, qtype_info((uint32_t)t->type)->block_elems))
            rc = rw_plan_warn(
                p, e,
                "[not-ternary|%s] tensor '%s': its weights have more than the three values of %s, which "
                "is for models that were trained with three",
                t->src->name, t->src->name, qtype_name((uint32_t)t->type));
        free(row);
    }
    return rc;
}

static int by_address(const void *a, const void *b)
{
    uintptr_t x = (uintptr_t) * (const struct model_tensor *const *)a;
    uintptr_t y = (uintptr_t) * (const struct model_tensor *const *)b;
    return (x > y) - (x < y);
}

/* Weights that change type are read with their factors in them: the tensors of these go. */
static int drop_scales(struct rw_plan *p, struct err *e)
{
    size_t n = 0, n_folded = 0;
    const struct model_tensor **folded = calloc(p->n_tensors + 1, sizeof *folded);
    if (!folded)
        return no_memory(e);
    for (size_t i = 0; i < p->n_tensors; i++)
        if (p->tensors[i].src->scale &&
            (p->tensors[i].type != p->tensors[i].src->type || p->tensors[i].src->merge))
            folded[n_folded++] = p->tensors[i].src->scale;
    qsort(folded, n_folded, sizeof *folded, by_address);
    for (size_t i = 0; i < p->n_tensors; i++)
        if (!bsearch(&p->tensors[i].src, folded, n_folded, sizeof *folded, by_address))
            p->tensors[n++] = p->tensors[i];
    p->n_tensors = n;
    free(folded);
    return 0;
}

static uint64_t n_without_data(const struct imatrix_entry *x)
{
    uint64_t n = 0;
    for (uint64_t k = 0; x && k < x->n_mats; k++)
        n += x->counts[k] <= 0;
    return n;
}

/* Entries that are there, but saw no token: experts the router never chose. */
static int report_starved(struct rw_plan *p, const struct rewrite_options *opt, const char *file,
                          struct err *e)
{
    uint64_t n_starved = 0, n_stacks = 0;
    char names[600] = "";
    size_t len = 0;
    for (size_t i = 0; i < p->n_tensors; i++) {
        const struct rw_tensor *t = &p->tensors[i];
        uint64_t n = n_without_data(t->imat);
        if (n == 0)
            continue;
        if (opt->imatrix_strict && !is_embedding_or_output(t->src->name))
            return err_set(e, ERR_ARG,
                           "%s: %" PRIu64 " of %" PRIu64
                           " matrices of tensor '%s', which becomes %s, saw no token; collect more text, or "
                           "give them the mean of their layer with 'kerf imatrix merge --expert-prior'",
                           file, n, t->imat->n_mats, t->src->name, qtype_name(t->type));
        n_starved += n;
        n_stacks++;
        if (len < sizeof names)
            len += (size_t)snprintf(names + len, sizeof names - len, "%s%s (%" PRIu64 " of %" PRIu64 ")",
                                    len ? ", " : "", t->src->name, n, t->imat->n_mats);
    }
    if (n_starved == 0)
        return 0;
    return rw_plan_warn(p, e,
                        "[imatrix-starved] %s: %" PRIu64 " matrices in %" PRIu64
                        " tensors saw no token and are quantized without importance: %s%s",
                        file, n_starved, n_stacks, names, len >= sizeof names ? "..." : "");
}

/* Entries that a tensor makes use of: the one of its name; of gate and up in one tensor both; and one for
 * both is the gate's. */
static size_t n_entries_of(const struct imatrix *m, const char *tensor)
{
    const struct imatrix_entry *x = imatrix_find_for(m, tensor);
    if (!x || strcmp(x->name, tensor) == 0)
        return x != NULL;
    return strstr(tensor, ".ffn_gate_up_exps.") ? 2 : strstr(tensor, ".ffn_gate_exps.") != NULL;
}

/* Blocks of all matrices of a tensor whose importance is zero, though its matrix has data. */
static int count_unweighted(const struct rw_tensor *t, float *weights, uint64_t *n, struct err *e)
{
    *n = 0;
    for (uint64_t k = 0; k < t->n_mats; k++) {
        int rc = imatrix_weights(t->imat, k, t->n_mats, t->src->ne[0], weights, e);
        if (rc)
            return err_context(e, rc, "importance of tensor '%s'", t->src->name);
        *n += quant_n_unweighted_blocks(t->type, weights, (size_t)t->src->ne[0]);
    }
    return 0;
}

/* Columns that never held anything but zero while collecting. They may hold something else later. */
static int report_unweighted(struct rw_plan *p, const struct rewrite_options *opt, const char *file,
                             struct err *e)
{
    uint64_t widest = 0;
    int rc = 0;
    for (size_t i = 0; i < p->n_tensors; i++)
        if (p->tensors[i].imat && p->tensors[i].src->ne[0] > widest)
            widest = p->tensors[i].src->ne[0];
    float *weights = malloc((size_t)(widest * sizeof *weights) + 1);
    if (!weights)
        return no_memory(e);
    for (size_t i = 0; rc == 0 && i < p->n_tensors; i++) {
        const struct rw_tensor *t = &p->tensors[i];
        const char *name = t->src->name;
        uint64_t n = 0, all = t->src->ne[0] / qtype_info((uint32_t)t->type)->block_elems * t->n_mats;
        if (t->imat)
            rc = count_unweighted(t, weights, &n, e);
        if (rc == 0 && n > 0 && opt->imatrix_strict)
            rc = err_set(
                e, ERR_ARG,
                "%s: the importance of %" PRIu64 " of the %" PRIu64
                " blocks in a row of tensor '%s', which becomes %s, is zero; collect more text, or leave "
                "out --imatrix-strict to encode them without importance",
                file, n, all, name, qtype_name(t->type));
        else if (rc == 0 && n > 0)
            rc = rw_plan_warn(p, e,
                              "[imatrix-zero-blocks|%s] %s: tensor '%s': the importance of %" PRIu64
                              " of the %" PRIu64 " blocks in a row is zero; they are encoded without",
                              name, file, name, n, all);
    }
    free(weights);
    return rc;
}

/* Collected on these weights? */
static int check_imatrix_model(struct rw_plan *p, const struct model *m, const struct rewrite_options *opt,
                               struct err *e)
{
    char own[MODEL_IDENTITY_BYTES];
    if (!opt->imatrix || !imatrix_model(opt->imatrix)[0])
        return 0;
    int rc = model_identity(own, m, e);
    if (rc == 0 && strcmp(imatrix_model(opt->imatrix), IMATRIX_SEVERAL_MODELS) == 0)
        return rw_plan_warn(p, e, "[imatrix-other-model] %s: was merged from matrices of different models",
                            imatrix_name(opt));
    if (rc == 0 && model_identity_differs(imatrix_model(opt->imatrix), own))
        return rw_plan_warn(p, e, "[imatrix-other-model] %s: was collected on another model than %s",
                            imatrix_name(opt), model_path(m));
    return rc;
}

/* Name what the importance matrix lacks, and refuse one that fits nothing. */
static int report_importance(struct rw_plan *p, const struct rewrite_options *opt, struct err *e)
{
    if (!opt->imatrix || (rw_is_plain(opt) && !opt->recipe.plan))
        return 0;
    size_t n_missing = 0, n_expected = 0, n_used = 0, len = 0;
    char names[600] = "";
    for (size_t i = 0; i < p->n_tensors; i++) {
        const struct rw_tensor *t = &p->tensors[i];
        n_used += n_entries_of(opt->imatrix, t->src->name);
        if (!t->no_importance)
            continue;
        if (opt->imatrix_strict && !is_embedding_or_output(t->src->name))
            return err_set(e, ERR_ARG, "%s: no entry for tensor '%s', which becomes %s", imatrix_name(opt),
                           t->src->name, qtype_name(t->type));
        n_missing++;
        n_expected += is_embedding_or_output(t->src->name); /* for which hardly any matrix has data */
        if (len < sizeof names)
            len += (size_t)snprintf(names + len, sizeof names - len, "%s%s", len ? ", " : "", t->src->name);
    }
    const char *file = imatrix_name(opt);
    if (n_used == 0)
        return err_set(e, ERR_ARG, "%s: none of its %zu entries names a tensor of this model", file,
                       imatrix_n(opt->imatrix));
    int rc = 0;
    if (n_missing > n_expected)
        rc =
            rw_plan_warn(p, e, "[imatrix-incomplete] %s: no entry for %zu tensor%s, quantized without: %s%s",
                         file, n_missing, n_missing == 1 ? "" : "s", names, len >= sizeof names ? "..." : "");
    if (rc == 0)
        rc = report_starved(p, opt, file, e);
    if (rc == 0)
        rc = report_unweighted(p, opt, file, e);
    if (rc == 0 && n_used < imatrix_n(opt->imatrix))
        rc = rw_plan_warn(p, e, "[imatrix-foreign] %s: %zu of its %zu entries name no tensor of this model",
                          file, imatrix_n(opt->imatrix) - n_used, imatrix_n(opt->imatrix));
    return rc;
}

int rw_plan_types(struct rw_plan *p, const struct model *m, const struct rewrite_options *opt, struct err *e)
{
    p->n_tensors = model_n_tensors(m);
    p->tensors = arena_array(&p->arena, p->n_tensors ? p->n_tensors : 1, sizeof *p->tensors);
    if (!p->tensors)
        return no_memory(e);
    for (size_t i = 0; i < p->n_tensors; i++) {
        struct rw_tensor *t = &p->tensors[i];
        t->src = model_tensor(m, i);
        t->type = t->src->type;
        if (!checked_mul(t->src->ne[2], t->src->ne[3], &t->n_mats))
            return err_set(e, ERR_FORMAT, "tensor '%s': its shape overflows", t->src->name);
        int rc = find_importance(p, t, opt, e);
        if (rc)
            return rc;
    }
    bool gguf = model_is_gguf(m);
    const struct mix *mix = opt->recipe.mix;
    bool factors = model_is_adapter(m);
    p->quantizing = !factors && (opt->recipe.plan || (mix && (gguf || !rw_is_plain(opt))));
    if (p->quantizing)
        qsort(p->tensors, p->n_tensors, sizeof *p->tensors, by_layer_and_name);
    if (!mix && !gguf)
        mix = mix_find(qtype_name(auto_type(m)));
    int rc = factors ? assign_factors(p, opt, mix, e) : assign(p, m, opt, mix, e);
    p->type_name = mix ? mix->name : NULL;
    if (rc == 0)
        rc = drop_scales(p, e);
    if (rc == 0)
        rc = rw_factors_plan(p, m, e);
    if (p->quantizing)
        qsort(p->tensors, p->n_tensors, sizeof *p->tensors, by_layer_and_name);
    for (size_t i = 0; rc == 0 && i < p->n_tensors; i++)
        rc = finish_tensor(p, &p->tensors[i], m, opt, e);
    if (rc == 0)
        rc = report_importance(p, opt, e);
    if (rc == 0)
        rc = report_repacked(p, opt, e);
    if (rc == 0)
        rc = report_not_ternary(p, m, e);
    return rc ? rc : check_imatrix_model(p, m, opt, e);
}

/* --- layout --- */

static int lay_out(struct rw_plan *p, const char *path, const struct rewrite_options *opt, struct err *e)
{
    /* An earlier partial output is kept until the journal has been asked about it. */
    struct gguf_parts_options po = {.overwrite = opt->overwrite,
                                    .keep_partial = opt->resume,
                                    .resume = true,
                                    .max_bytes = opt->split_max_bytes};
    p->out = arena_array(&p->arena, p->n_tensors ? p->n_tensors : 1, sizeof *p->out);
    if (!p->out)
        return no_memory(e);
    for (size_t i = 0; i < p->n_tensors; i++) {
        const struct rw_tensor *t = &p->tensors[i];
        p->out[i] = (struct gguf_out_tensor){.name = t->src->name, .type = t->type, .n_dims = t->src->n_dims};
        memcpy(p->out[i].ne, t->src->ne, sizeof p->out[i].ne);
    }
    return gguf_parts_plan(&p->parts, p->meta, p->out, p->n_tensors, path, &po, e);
}

/* The output will say of itself what the input does. */
static int warn_faults(struct rw_plan *p, const struct model *m, struct err *e)
{
    struct string_list faults = {0};
    int rc = model_is_adapter(m) ? 0 : model_check(m, &faults, &p->arena, e);
    for (size_t i = 0; rc == 0 && i < faults.n; i++)
        rc = rw_plan_warn(p, e, "[invalid-model] %s: %s; the output will have this fault too", model_path(m),
                          faults.items[i]);
    return rc;
}

int rw_plan_make(struct rw_plan *p, const struct model *m, const char *path,
                 const struct rewrite_options *opt, struct err *e)
{
    int rc = warn_faults(p, m, e);
    if (rc == 0)
        rc = rw_plan_types(p, m, opt, e);
    if (rc == 0)
        rc = rw_plan_meta(p, m, opt, e);
    if (rc == 0)
        rc = lay_out(p, path, opt, e);
    return rc;
}

void rw_plan_release(struct rw_plan *p)
{
    gguf_parts_free(p->parts);
    gguf_meta_free(p->meta);
    arena_release(&p->arena);
    *p = (struct rw_plan){0};
}
