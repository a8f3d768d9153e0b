/* recipe.c - the type of every tensor: what stays, what options say, what the rules say, what rows allow.
 *
 * In this order: tensors that are never quantized keep their type; --embedding-type and --output-type;
 * overrides, then the plan; then the rules of the mix (recipe_rules.c). A type whose block does not divide
 * the rows gives way to one that does. Differences from the reference quantizer, all where it stops or
 * ignores: rows that fit nothing become F16 instead of an error; overrides and plans also work with the plain
 * mixes (F32, F16, BF16); forced output and embedding types are checked against the rows too. Specification:
 * quantization 6, 7. */
#include "recipe.h"

#include "pattern.h"
#include "plan.h"
#include "recipe_rules.h"

#include "formats/model/tensor_name.h"
#include "libquant/base/path.h"

#include <stdlib.h>
#include <string.h>

static const struct {
    const char *name, *version;
} recipes[] = {
    {"llama.cpp", "llama.cpp-2026-08"},
};

const char *recipe_version(const char *recipe)
{
    for (size_t i = 0; i < sizeof recipes / sizeof *recipes; i++)
        if (strcmp(recipe, recipes[i].name) == 0)
            return recipes[i].version;
    return NULL;
}

/* --- what is never quantized ------------------------------------------------------------------- */

static const struct {
    const char *text;
    const char *why;
    bool whole; /* the whole name, else anywhere in it */
} kept_names[] = {
    {"_norm.weight", "kept: norm", false},
    {"ffn_gate_inp.weight", "kept: router", false},
    {"ffn_gate_tid2eid.weight", "kept: routing table", false},
    {"altup", "kept: small", false},
    {"laurel", "kept: small", false},
    {"per_layer_model_proj", "kept: small", false},
    {"position_embd.weight", "kept: positions", true},
    {"token_types.weight", "kept: token types", true},
    {"ssm_conv1d", "kept: convolution", false},
    {"shortconv.conv.weight", "kept: convolution", false},
    {"indexer.k_proj.weight", "kept: indexer", false},
    {"indexer.q_proj.weight", "kept: indexer", false},
    {"time_mix_first.weight", "kept: small", false},
    {"time_mix_w0.weight", "kept: small", false},
    {"time_mix_w1.weight", "kept: small", false},
    {"time_mix_w2.weight", "kept: small", false},
    {"time_mix_v0.weight", "kept: small", false},
    {"time_mix_v1.weight", "kept: small", false},
    {"time_mix_v2.weight", "kept: small", false},
    {"time_mix_a0.weight", "kept: small", false},
    {"time_mix_a1.weight", "kept: small", false},
    {"time_mix_a2.weight", "kept: small", false},
    {"time_mix_g1.weight", "kept: small", false},
    {"time_mix_g2.weight", "kept: small", false},
    {"time_mix_decay_w1.weight", "kept: small", false},
    {"time_mix_decay_w2.weight", "kept: small", false},
    {"time_mix_lerp_fused.weight", "kept: small", false},
    {"attn_rel_b.weight", "kept: positions", false},
    {".position_embd", "kept: positions", false},
    {"sam.pos_embd", "kept: positions", false},
    {"sam.neck.", "kept: vision", false},
    {"sam.net_", "kept: vision", false},
    {".rel_pos", "kept: positions", false},
    {".patch_embd", "kept: vision", false},
    {".patch_merger", "kept: vision", false},
    {"a.rvq.codebook", "kept: audio code book", false},
    {"mm.a.code_embd", "kept: audio code book", false},
};

static bool is_matrix(const struct recipe_tensor *t)
{
    return t->ne[1] > 1 || t->ne[2] > 1 || t->ne[3] > 1;
}

static bool is_float(enum qtype type)
{
    return type != QTYPE_F64 && !(type >= QTYPE_I8 && type <= QTYPE_I64);
}

/* NULL when the tensor may change its type, else why it may not. */
static const char *kept_because(const struct recipe_options *opt, const struct recipe_tensor *t)
{
    if (!is_matrix(t))
        return "kept: one dimension";
    if (!path_ends_with(t->name, "weight"))
        return "kept: not a weight";
    if (opt->leave_output && strcmp(t->name, "output.weight") == 0)
        return "kept: output left as it is";
    for (size_t i = 0; i < sizeof kept_names / sizeof *kept_names; i++)
        if (kept_names[i].whole ? strcmp(t->name, kept_names[i].text) == 0
                                : strstr(t->name, kept_names[i].text) != NULL)
            return kept_names[i].why;
    if (!is_float(t->source_type))
        return "kept: not a float type that can be converted";
    return NULL;
}

/* --- rows that do not divide ------------------------------------------------------------------- */

static const struct {
    enum qtype chosen, instead;
} fallbacks[] = {
    {QTYPE_IQ1_S, QTYPE_IQ4_NL},  {QTYPE_IQ1_M, QTYPE_IQ4_NL},  {QTYPE_IQ2_XXS, QTYPE_IQ4_NL},
    {QTYPE_IQ2_XS, QTYPE_IQ4_NL}, {QTYPE_IQ2_S, QTYPE_IQ4_NL},  {QTYPE_IQ3_XXS, QTYPE_IQ4_NL},
    {QTYPE_IQ3_S, QTYPE_IQ4_NL},  {QTYPE_IQ4_XS, QTYPE_IQ4_NL}, {QTYPE_Q2_0, QTYPE_Q4_0},
    {QTYPE_Q2_K, QTYPE_Q4_0},     {QTYPE_Q3_K, QTYPE_Q4_0},     {QTYPE_TQ1_0, QTYPE_Q4_0},
    {QTYPE_TQ2_0, QTYPE_Q4_0},    {QTYPE_Q4_K, QTYPE_Q5_0},     {QTYPE_Q5_K, QTYPE_Q5_1},
    {QTYPE_Q6_K, QTYPE_Q8_0},
};

static bool divides(enum qtype type, uint64_t n_cols)
{
    return n_cols % qtype_info((uint32_t)type)->block_elems == 0;
}

static void apply_fallback(struct recipe_tensor *t)
{
    if (divides(t->type, t->ne[0]))
        return;
    for (size_t i = 0; i < sizeof fallbacks / sizeof *fallbacks; i++) {
        if (fallbacks[i].chosen != t->type)
            continue;
        t->why = t->type == QTYPE_Q2_0 ? "fallback: rows are not a multiple of 64"
                                       : "fallback: rows are not a multiple of 256";
        t->type = fallbacks[i].instead;
        if (!divides(t->type, t->ne[0])) {
            t->type = QTYPE_F16;
            t->why = "fallback: rows are not a multiple of 32";
        }
        return;
    }
    t->type = QTYPE_F16; /* where the reference gives up */
    t->why = "fallback: no block fits these rows";
}

/* --- importance that must be there ------------------------------------------------------------- */

bool recipe_needs_importance(enum qtype type, const char *name)
{
    if (category_of(name) & (CAT_HEAD | CAT_EMBEDDING))
        return qtype_info((uint32_t)type)->importance == IMPORTANCE_REQUIRED;
    switch (type) {
    case QTYPE_IQ1_S:
    case QTYPE_IQ1_M:
    case QTYPE_IQ2_XXS:
    case QTYPE_IQ2_XS:
    case QTYPE_IQ2_S:
    case QTYPE_IQ3_XXS: return true;
    default: return false;
    }
}

/* The reference refuses these without importance: the result would be garbage. */
static bool wants_importance(const struct recipe_options *opt, const struct recipe_tensor *t)
{
    if (t->type == QTYPE_Q2_K && opt->mix != NULL && mix_index(opt->mix) == MIX_Q2_K_S)
        return !(category_of(t->name) & (CAT_HEAD | CAT_EMBEDDING));
    return recipe_needs_importance(t->type, t->name);
}

static int check_importance(const struct recipe_options *opt, const struct recipe_tensor *t, struct err *e)
{
    if (t->type == t->source_type || !wants_importance(opt, t) || (opt->has_imatrix && t->has_importance))
        return 0;
    if (!opt->has_imatrix)
        return err_set(e, ERR_ARG, "tensor '%s' becomes %s, which needs an importance matrix (--imatrix)",
                       t->name, qtype_name((uint32_t)t->type));
    return err_set(e, ERR_ARG, "tensor '%s' becomes %s, and the importance matrix has nothing for it",
                   t->name, qtype_name((uint32_t)t->type));
}

/* --- options ----------------------------------------------------------------------------------- */

static int check_target(enum qtype type, const char *option, struct err *e)
{
    const struct qtype_info *info = qtype_info((uint32_t)type);
    if (info == NULL || !info->in_files)
        return err_set(e, ERR_ARG, "%s: type id %u is not a tensor type of files", option, (unsigned)type);
    if (!info->is_quantized && type != QTYPE_F32 && type != QTYPE_F16 && type != QTYPE_BF16)
        return err_set(e, ERR_ARG, "%s: %s is not a type for weights", option, info->name);
    return 0;
}

static int check_options(const struct recipe_options *opt, struct err *e)
{
    int rc = 0;
    if (opt->recipe != NULL && recipe_version(opt->recipe) == NULL)
        return err_set(e, ERR_ARG, "recipe '%s' is unknown; expected llama.cpp", opt->recipe);
    if (opt->has_output_type && (rc = check_target(opt->output_type, "output type", e)) != 0)
        return rc;
    if (opt->has_embedding_type && (rc = check_target(opt->embedding_type, "embedding type", e)) != 0)
        return rc;
    for (size_t i = 0; i < opt->n_overrides && rc == 0; i++)
        rc = check_target(opt->overrides[i].type, opt->overrides[i].pattern, e);
    for (size_t i = 0; opt->plan != NULL && i < plan_n(opt->plan) && rc == 0; i++)
        rc = check_target(plan_type(opt->plan, i), plan_pattern(opt->plan, i), e);
    return rc;
}

struct assignment {
    const struct recipe_options *opt;
    struct pattern **patterns; /* of the overrides */
    struct rule_state state;
};

/* An override or a line of the plan: true in *found, and type and why set. */
static int find_manual(bool *found, struct assignment *a, struct recipe_tensor *t, struct err *e)
{
    const struct recipe_options *opt = a->opt;
    *found = false;
    for (size_t i = 0; i < opt->n_overrides; i++) {
        int rc = pattern_test(found, a->patterns[i], t->name, e);
        if (rc != 0)
            return rc;
        if (*found) {
            t->type = opt->overrides[i].type;
            t->why = "override";
            if (opt->override_hits != NULL)
                opt->override_hits[i]++;
            return 0;
        }
    }
    if (opt->plan == NULL)
        return 0;
    size_t line;
    int rc = plan_match(&line, opt->plan, t->name, e);
    if (rc != 0)
        return rc;
    if (line < plan_n(opt->plan)) {
        t->type = plan_type(opt->plan, line);
        t->why = "plan";
        *found = true;
        if (opt->plan_hits != NULL)
            opt->plan_hits[line]++;
    }
    return 0;
}

/* The plain mixes are those whose base is a number per element; NULL is "as the source". */
static bool is_plain(const struct mix *mix)
{
    return mix == NULL || !qtype_info((uint32_t)mix->base)->is_quantized;
}

/* A matrix that no quantizer touches, on its way out of a checkpoint into F32, F16 or BF16. */
static bool follows_plain_mix(const struct recipe_options *opt, const struct recipe_tensor *t)
{
    if (!opt->from_checkpoint || opt->mix == NULL || !is_plain(opt->mix) || !is_matrix(t) ||
        !is_float(t->source_type))
        return false;
    return !opt->leave_output || strcmp(t->name, "output.weight") != 0;
}

static int assign_one(struct assignment *a, struct recipe_tensor *t, struct err *e)
{
    const struct recipe_options *opt = a->opt;
    enum category category = category_of(t->name);
    t->forced = t->left = false;
    t->type = t->source_type;
    if (t->always_f32) {
        t->type = QTYPE_F32;
        t->why = "kept: F32 by rule";
        return 0;
    }
    if (t->has_fixed) {
        t->type = t->fixed;
        t->why = "kept: type by rule";
        return 0;
    }
    t->why = kept_because(opt, t);
    if (t->why != NULL) {
        if (follows_plain_mix(opt, t)) {
            t->type = opt->mix->base;
            t->why = "mix";
        }
        return 0;
    }
    const bool tied_head = a->state.is_tied && category == CAT_EMBEDDING;
    t->forced = true;
    if (category == CAT_EMBEDDING && opt->has_embedding_type) {
        t->type = opt->embedding_type;
        t->why = "embedding type";
    } else if (category == CAT_HEAD && opt->has_output_type) {
        t->type = opt->output_type;
        t->why = "output type";
    } else {
        int rc = find_manual(&t->forced, a, t, e);
        if (rc != 0)
            return rc;
        if (!t->forced && is_plain(opt->mix)) {
            t->type = opt->mix != NULL ? opt->mix->base : t->source_type;
            t->why = "mix";
        } else if (!t->forced && opt->pure) {
            t->type = opt->mix->base;
            t->why = "pure";
        } else if (!t->forced && tied_head && opt->has_output_type) {
            t->type = opt->output_type; /* the embedding is the output matrix */
            t->why = "output type";
            t->forced = true;
        } else if (!t->forced) {
            t->type = rule_type(&a->state, opt->mix, tied_head ? CAT_HEAD : category, t->name, t->ne);
            t->why = "mix";
        }
    }
    t->left = !t->forced;
    apply_fallback(t);
    return 0;
}

/* --- all tensors ------------------------------------------------------------------------------- */

struct place {
    int64_t layer;
    const char *name;
    size_t index;
};

static int by_layer_and_name(const void *a, const void *b)
{
    const struct place *x = a, *y = b;
    if (x->layer != y->layer)
        return x->layer < y->layer ? -1 : 1;
    return strcmp(x->name, y->name);
}

static int assign_all(struct assignment *a, struct recipe_tensor *tensors, size_t n, bool dry_run,
                      struct err *e)
{
    struct place *order = calloc(n + 1, sizeof *order);
    if (order == NULL)
        return err_set(e, ERR_NOMEM, "out of memory for %zu tensors", n);
    a->state.is_tied = true;
    for (size_t i = 0; i < n; i++) {
        const enum category category = category_of(tensors[i].name);
        order[i] = (struct place){tensor_layer(tensors[i].name, NULL), tensors[i].name, i};
        a->state.n_v += category == CAT_V;
        a->state.is_tied = a->state.is_tied && category != CAT_HEAD;
    }
    qsort(order, n, sizeof *order, by_layer_and_name);
    int rc = 0;
    for (size_t i = 0; i < n && rc == 0; i++) {
        struct recipe_tensor *t = &tensors[order[i].index];
        rc = assign_one(a, t, e);
        if (rc == 0 && !dry_run)
            rc = check_importance(a->opt, t, e);
    }
    free(order);
    return rc;
}

int recipe_assign(const struct recipe_options *opt, const struct hparams *h, struct recipe_tensor *tensors,
                  size_t n, bool dry_run, struct err *e)
{
    struct assignment a = {.opt = opt};
    size_t n_patterns = 0;
    int rc = check_options(opt, e);
    if (rc != 0)
        return rc;
    a.patterns = calloc(opt->n_overrides + 1, sizeof *a.patterns);
    if (a.patterns == NULL)
        return err_set(e, ERR_NOMEM, "out of memory for %zu overrides", opt->n_overrides);
    for (; n_patterns < opt->n_overrides && rc == 0; n_patterns++) {
        const char *text = opt->overrides[n_patterns].pattern;
        rc = pattern_new(&a.patterns[n_patterns], text, strlen(text), false, e);
    }
    if (rc == 0) {
        rule_state_init(&a.state, h);
        a.state.has_imatrix = opt->has_imatrix;
        rc = assign_all(&a, tensors, n, dry_run, e);
    }
    for (size_t i = 0; i < n_patterns; i++)
        pattern_free(a.patterns[i]);
    free(a.patterns);
    return rc;
}
