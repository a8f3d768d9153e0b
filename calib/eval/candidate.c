/* candidate.c - see candidate.h. */
#include "candidate.h"

#include "calib/solve/loss_table.h"
#include "calib/solve/plan_origin.h"
#include "formats/gguf/gguf_read.h"
#include "formats/gguf/imatrix_file.h"
#include "formats/model/model_files.h"
#include "formats/model/model_identity.h"
#include "formats/model/model_sum.h"
#include "formats/recipe/plan.h"
#include "formats/recipe/recipe_file.h"
#include "formats/rewrite/rewrite.h"
#include "libquant/base/sha256.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static double bits(const struct weights *w)
{
    return weights_n_parameters(w) ? 8.0 * (double)weights_n_bytes(w) / (double)weights_n_parameters(w) : 0;
}

static int add_line(struct candidate *c, struct err *e, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    int rc = string_list_vadd(&c->warnings, &c->arena, fmt, args);
    va_end(args);
    return rc == 0 ? 0 : err_set(e, ERR_NOMEM, "out of memory for the warnings about %s", c->path);
}

/* The size and bits of the file that `kerf convert` or `kerf quantize` would write. */
static int plan_file(struct candidate *c, const struct model *m, const struct recipe_options *recipe,
                     const struct candidate_mix_options *opt, struct err *e)
{
    struct rewrite_report report = {0};
    struct rewrite_options r = {.recipe = *recipe,
                                .imatrix = opt->imatrix,
                                .imatrix_shown = opt->imatrix_path,
                                .no_fallback = opt->no_fallback,
                                .allow_requantize = opt->requantize,
                                .overwrite = true,
                                .dry_run = true,
                                .memory_bytes = 1u << 28,
                                .kern = opt->kern,
                                .pool = opt->pool};
    int rc = rewrite_model(&report, m, NULL, &r, e);
    for (size_t i = 0; rc == 0 && c->type && i < report.n_warnings; i++)
        rc = add_line(c, e, "%s", report.warnings[i]);
    if (rc == 0) {
        c->n_fallbacks = report.n_fallbacks;
        c->n_bytes = report.n_bytes;
        c->bits_per_weight = report.bits_per_weight;
    }
    rewrite_report_release(&report);
    return rc;
}

/* Are the weights of a checkpoint packed (GPTQ, FP8, ...)? Then its own size is what it costs. */
static bool is_packed(const struct model *m)
{
    for (size_t i = 0; i < model_n_tensors(m); i++) {
        enum qtype type;
        const struct model_tensor *t = model_tensor(m, i);
        bool plain = qtype_from_name(t->source_type, &type) && !qtype_info((uint32_t)type)->is_quantized;
        if (t->n_dims >= 2 && !plain && strcmp(t->source_type, "F64") != 0)
            return true;
    }
    return false;
}

static int size_of_packed(struct candidate *c, struct err *e)
{
    int rc = model_files_bytes(&c->n_bytes, model_path(c->model), e);
    uint64_t n_weights = weights_n_parameters(c->weights);
    c->bits_per_weight = n_weights ? 8.0 * (double)c->n_bytes / (double)n_weights : 0;
    return rc;
}

/* A runtime keeps adapter files beside the model. */
static uint64_t adapter_bytes(const struct model *m)
{
    uint64_t n = 0;
    struct stat st;
    for (size_t i = 0; i < model_n_adapters(m); i++)
        if (stat(model_adapter_report(m, i).path, &st) == 0 && S_ISREG(st.st_mode))
            n += (uint64_t)st.st_size;
    return n;
}

/* Bytes of a GGUF file (and of adapter files), all parts of a split set; of a folder those of the GGUF file
 * it converts to, so that sizes of a comparison mean the same; of packed weights their own. */
static int size_up(struct candidate *c, const struct kern *kern, struct err *e)
{
    const struct model *m = c->model;
    if (!model_is_gguf(m) && is_packed(m))
        return size_of_packed(c, e);
    if (!model_is_gguf(m)) {
        struct recipe_options recipe = {.recipe = "llama.cpp"};
        struct candidate_mix_options opt = {.kern = kern};
        return plan_file(c, m, &recipe, &opt, e);
    }
    int rc = model_files_bytes(&c->n_bytes, model_path(m), e);
    c->n_bytes += adapter_bytes(m);
    c->bits_per_weight = bits(c->weights);
    return rc;
}

int candidate_open_file(struct candidate *out, const char *path, const struct kern *kern, struct err *e)
{
    struct candidate c = {.path = path};
    struct model_sum sum = {.n = 0};
    int rc = model_sum_parse(&sum, path, &c.arena, e);
    struct model_options opt = {.kern = kern, .adapters = sum.adapters, .n_adapters = sum.n};
    if (rc == 0)
        rc = model_open(&c.model, sum.model, &opt, e);
    if (rc == 0 && !model_has_weights(c.model))
        rc = err_set(e, ERR_ARG, "%s: holds no weights", path);
    if (rc == 0)
        rc = net_init(&c.net, c.model, e);
    if (rc == 0)
        rc = weights_new(&c.weights, c.model, kern, e);
    if (rc == 0)
        rc = size_up(&c, kern, e);
    if (rc != 0) {
        candidate_close(&c);
        return rc;
    }
    *out = c;
    return 0;
}

/* SHA-256 of the type of every tensor, and of the importance they were given. */
static void identify(struct candidate *c, const struct model *m, const struct imatrix *imatrix)
{
    struct sha256 h;
    sha256_init(&h);
    for (size_t i = 0; i < model_n_tensors(m); i++) {
        const struct model_tensor *t = model_tensor(m, i);
        sha256_update(&h, t->name, strlen(t->name) + 1);
        sha256_update_u64(&h, (uint64_t)weights_type(c->weights, t));
    }
    char importance[65] = "none";
    if (imatrix)
        loss_imatrix_hash(imatrix, importance);
    sha256_update(&h, importance, strlen(importance));
    sha256_final_hex(&h, c->identity);
}

static int keep_names(struct candidate *c, const char *name, const struct candidate_mix_options *opt,
                      struct err *e)
{
    c->type = arena_strndup(&c->arena, name, strlen(name));
    if (opt->imatrix && opt->imatrix_path)
        c->imatrix = arena_strndup(&c->arena, opt->imatrix_path, strlen(opt->imatrix_path));
    bool ok = c->type && (c->imatrix || !opt->imatrix || !opt->imatrix_path);
    return ok ? 0 : err_set(e, ERR_NOMEM, "out of memory for the name of %s", name);
}

/* On top of what `c` holds already; releases it on failure. */
static int open_recipe(struct candidate *out, struct candidate *c, const struct candidate *base,
                       const char *name, const struct recipe_options *options,
                       const struct candidate_mix_options *opt, struct err *e)
{
    struct recipe_options recipe = *options;
    recipe.recipe = opt->recipe;
    recipe.has_imatrix = opt->imatrix != NULL;
    c->path = base->path;
    int rc = keep_names(c, name, opt, e);
    if (rc == 0)
        rc = net_init(&c->net, base->model, e);
    if (rc == 0)
        rc = weights_new_mix(&c->weights, base->model, &recipe, opt->imatrix, opt->requantize, opt->kern, e);
    if (rc == 0)
        rc = plan_file(c, base->model, &recipe, opt, e);
    if (rc != 0) {
        candidate_close(c);
        return err_context(e, rc, "%s", name);
    }
    identify(c, base->model, opt->imatrix);
    *out = *c;
    return 0;
}

int candidate_open_recipe(struct candidate *out, const struct candidate *base, const char *name,
                          const struct recipe_options *recipe, const struct candidate_mix_options *opt,
                          struct err *e)
{
    struct candidate c = {0};
    return open_recipe(out, &c, base, name, recipe, opt, e);
}

int candidate_open_mix(struct candidate *out, const struct candidate *base, const struct mix *mix,
                       const struct candidate_mix_options *opt, struct err *e)
{
    return candidate_open_recipe(out, base, mix->name, &(struct recipe_options){.mix = mix}, opt, e);
}

static int add_input(struct candidate *c, struct err *e, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    int rc = string_list_vadd(&c->inputs, &c->arena, fmt, args);
    va_end(args);
    return rc == 0 ? 0 : err_set(e, ERR_NOMEM, "out of memory for the inputs of a candidate");
}

int candidate_open_plan(struct candidate *out, const struct candidate *base, const char *name,
                        const char *path, const struct candidate_mix_options *opt, struct err *e)
{
    struct candidate c = {0};
    struct plan *plan = NULL;
    struct plan_origin origin = {.n = 0};
    int rc = plan_load(&plan, path, e);
    if (rc == 0)
        rc = add_input(&c, e, "%s", path);
    if (rc == 0)
        origin = plan_origin_compare(plan, base->model, opt->imatrix,
                                     PLAN_ORIGIN_WEIGHTS | PLAN_ORIGIN_IMPORTANCE);
    for (size_t i = 0; rc == 0 && i < origin.n; i++)
        rc = add_line(&c, e, "%s", origin.remarks[i]);
    if (rc == 0)
        rc = open_recipe(out, &c, base, name, &(struct recipe_options){.plan = plan}, opt, e);
    else
        candidate_close(&c);
    plan_free(plan);
    return rc;
}

int candidate_open_recipe_file(struct candidate *out, const struct candidate *base, const char *name,
                               const char *path, const struct candidate_mix_options *opt, struct err *e)
{
    struct candidate c = {0};
    struct recipe_file file = {0};
    struct candidate_mix_options own = *opt;
    int rc = recipe_file_load(&file, path, e);
    if (rc == 0)
        rc = add_input(&c, e, "%s", path);
    if (rc == 0 && file.plan_path)
        rc = add_input(&c, e, "%s", file.plan_path);
    if (rc == 0 && file.imatrix)
        rc = add_input(&c, e, "%s", file.imatrix);
    if (rc == 0 && file.imatrix)
        rc = imatrix_load(&c.own_imatrix, file.imatrix, e);
    if (file.imatrix || file.no_imatrix) {
        own.imatrix = c.own_imatrix;
        own.imatrix_path = file.imatrix;
    }
    if (rc == 0)
        rc = open_recipe(out, &c, base, name, &file.options, &own, e);
    else
        candidate_close(&c);
    recipe_file_release(&file);
    return rc;
}

int candidate_open_same(struct candidate *out, const struct candidate *base, const char *name,
                        const struct kern *kern, struct err *e)
{
    struct candidate c = {
        .path = base->path, .n_bytes = base->n_bytes, .bits_per_weight = base->bits_per_weight};
    struct candidate_mix_options opt = {.kern = kern};
    int rc = keep_names(&c, name, &opt, e);
    if (rc == 0)
        rc = net_init(&c.net, base->model, e);
    if (rc == 0)
        rc = weights_new(&c.weights, base->model, kern, e);
    if (rc != 0) {
        candidate_close(&c);
        return rc;
    }
    identify(&c, base->model, NULL);
    *out = c;
    return 0;
}

int candidate_set_cache(struct candidate *c, const struct kv_cache *cache, bool named, struct err *e)
{
    const char *name = kv_cache_name(cache, c->cache_name), *shown = NULL;
    struct sha256 h;
    int rc = kv_cache_check(cache, &c->net, e);
    if (rc != 0)
        return rc;
    c->cache = *cache;
    sha256_init(&h);
    sha256_update(&h, c->identity, strlen(c->identity));
    sha256_update(&h, name, strlen(name));
    if (!kv_cache_is_exact(cache))
        sha256_final_hex(&h, c->identity);
    if (!named)
        return 0;
    shown = arena_printf(&c->arena, "%s+kv:%s", c->type ? c->type : model_sum_label(c->path), name);
    if (c->type)
        c->type = shown;
    else
        c->shown = shown;
    return shown ? 0 : err_set(e, ERR_NOMEM, "out of memory for the name of a candidate");
}

void candidate_close(struct candidate *c)
{
    if (!c)
        return;
    weights_free(c->weights);
    net_release(&c->net);
    model_close(c->model);
    imatrix_free(c->own_imatrix);
    arena_release(&c->arena);
    *c = (struct candidate){0};
}

int candidate_hash(struct candidate *c, struct pool *pool, const struct progress *progress, struct err *e)
{
    return model_identity_full(c->sha256, c->model, pool, progress, e);
}
