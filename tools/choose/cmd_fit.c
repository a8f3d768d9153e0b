/* cmd_fit.c - kerf fit: which levels of a model fit into a memory, with the cache of a context and working
 * space. */
#include "tools/cmd.h"
#include "tools/progress.h"
#include "tools/options/type_options.h"

#include "formats/inspect/fit.h"
#include "formats/json.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DEFAULT_CTX 4096

struct options {
    uint64_t memory, ctx;
    struct kv_cache kv; /* what kv_type says */
    const char *kv_type, *types, *imatrix, *recipe;
};

struct job {
    struct options *o;
    const struct shared_options *s;
    const struct mix *const *mixes; /* borrowed */
    size_t n_mixes;
    const struct imatrix *imatrix; /* borrowed; NULL: none */
    bool one_of_several;           /* more models than this one were given: messages name it */
    /* while it is open */
    struct model *model;  /* as convert opens it: weights that can stay packed do */
    struct model *floats; /* NULL: nothing stays packed */
    struct footprint footprint;
    /* what is left of it */
    char *path;               /* owned */
    uint64_t trained_ctx;     /* 0: not known */
    uint64_t ctx;             /* tokens asked for, or the default for this model */
    struct fit_level *levels; /* owned */
    size_t n_levels;
    struct err e; /* why there is nothing to say of it */
};

static void close_models(struct job *j)
{
    footprint_release(&j->footprint);
    model_close(j->floats);
    model_close(j->model);
    j->floats = j->model = NULL;
}

static bool failed(const struct job *j)
{
    return j->e.code != ERR_OK;
}

/* Of those that can be made with what is at hand; NULL: none. */
static const struct fit_level *largest_that_fits(const struct job *j)
{
    const struct fit_level *largest = NULL;
    for (size_t i = 0; i < j->n_levels; i++) {
        const struct fit_level *l = &j->levels[i];
        if (l->fits && !l->lacks_importance && (!largest || l->total_bytes > largest->total_bytes))
            largest = l;
    }
    return largest;
}

/* The members of one model, in an object that is open. */
static void model_json(struct json_writer *w, const struct job *j)
{
    jw_key(w, "model"), jw_string(w, j->path);
    if (failed(j)) {
        cmd_json_error(w, &j->e);
        return;
    }
    jw_key(w, "memory_bytes"), jw_uint(w, j->o->memory);
    jw_key(w, "ctx"), jw_uint(w, j->ctx);
    jw_key(w, "kv_type"), jw_string(w, j->o->kv_type);
    const struct fit_level *largest = largest_that_fits(j);
    jw_key(w, "largest_type"), jw_string(w, largest ? largest->type : NULL);
    jw_key(w, "levels"), jw_array(w);
    for (size_t i = 0; i < j->n_levels; i++) {
        const struct fit_level *l = &j->levels[i];
        jw_object(w);
        jw_key(w, "type"), jw_string(w, l->type);
        jw_key(w, "n_bytes");
        l->file_bytes ? jw_uint(w, l->file_bytes) : jw_null(w);
        jw_key(w, "weights_bytes"), jw_uint(w, l->weights_bytes);
        jw_key(w, "kv_bytes"), jw_uint(w, l->cache_bytes);
        jw_key(w, "kv_bytes_saved"), jw_uint(w, l->cache_saved);
        jw_key(w, "overhead_bytes"), jw_uint(w, l->work_bytes);
        jw_key(w, "total_bytes"), jw_uint(w, l->total_bytes);
        jw_key(w, "needs_imatrix"), jw_bool(w, l->lacks_importance);
        jw_key(w, "fits"), jw_bool(w, l->fits);
        jw_key(w, "max_ctx"), jw_uint(w, l->max_ctx);
        jw_end(w);
    }
    jw_end(w);
}

/* One model is the object itself; several are a list in it. */
static void print_json(const struct job *jobs, size_t n)
{
    struct json_writer w;
    cmd_json_begin(&w);
    if (n == 1) {
        model_json(&w, &jobs[0]);
    } else {
        jw_key(&w, "models"), jw_array(&w);
        for (size_t i = 0; i < n; i++) {
            jw_object(&w);
            model_json(&w, &jobs[i]);
            jw_end(&w);
        }
        jw_end(&w);
    }
    cmd_json_end(&w);
}

/* The rows of one model under a line that names it; `columns`: with the heads of the columns. True when a row
 * has the mark of the whole context. */
static bool print_model(const struct job *j, bool columns)
{
    bool any_capped = false;
    char memory[32], size[4][32], most[32];
    printf("%s in %s, %" PRIu64 " tokens, cache %s", j->path, format_bytes(memory, (double)j->o->memory),
           j->ctx, j->o->kv_type);
    if (j->n_levels && j->levels[0].cache_saved)
        printf(" (%s less than f16; compare --kv-type measures what it loses)",
               format_bytes(memory, (double)j->levels[0].cache_saved));
    putchar('\n');
    if (columns)
        printf("%-10s %12s %12s %12s %12s  %-4s %9s\n", "type", "weights", "cache", "working", "total",
               "fits", "max ctx");
    for (size_t i = 0; i < j->n_levels; i++) {
        const struct fit_level *l = &j->levels[i];
        bool capped = l->max_ctx != 0 && l->max_ctx == j->trained_ctx;
        any_capped = any_capped || capped;
        snprintf(most, sizeof most, "%" PRIu64 "%s", l->max_ctx, capped ? "*" : " ");
        printf("%-10s %12s %12s %12s %12s  %-4s %9s\n", l->type,
               format_bytes(size[0], (double)l->weights_bytes), format_bytes(size[1], (double)l->cache_bytes),
               format_bytes(size[2], (double)l->work_bytes), format_bytes(size[3], (double)l->total_bytes),
               l->fits ? "yes" : "no", most);
    }
    return any_capped;
}

static void print_text(const struct job *jobs, size_t n)
{
    bool any_capped = false, first = true;
    for (size_t i = 0; i < n; i++) {
        if (failed(&jobs[i]))
            continue;
        any_capped = print_model(&jobs[i], first) || any_capped;
        first = false;
    }
    if (any_capped)
        puts("* all the context that the model was trained for");
}

/* The model that mixes are made from. */
static struct model *float_model(const struct job *j)
{
    return j->floats ? j->floats : j->model;
}

/* What a message begins with: the model, where several were given. Returns `out`. */
static const char *name_of_several(char out[512], const struct job *j)
{
    snprintf(out, 512, "%s%s", j->one_of_several ? j->path : "", j->one_of_several ? ": " : "");
    return out;
}

static void tell_remarks(const struct job *j)
{
    for (size_t i = 0; i < model_n_warnings(j->model); i++)
        cmd_warn_of(j->s, NULL, model_warning(j->model, i));
    char buffer[512];
    const char *name = name_of_several(buffer, j);
    if (j->footprint.is_guess)
        cmd_warn(j->s,
                 "[unknown-architecture] %sarchitecture '%s' is not known here; its cache is read off the "
                 "general keys of its metadata",
                 name, model_arch_name(j->model));
    if (j->trained_ctx && j->ctx > j->trained_ctx)
        cmd_warn(j->s,
                 "[ctx-beyond-training] %s%" PRIu64 " tokens are more than the %" PRIu64
                 " that the model was trained for",
                 name, j->ctx, j->trained_ctx);
    if (footprint_caches_keys_alone(&j->footprint))
        cmd_warn_idle_values(j->s, j->path, &j->o->kv);
    if (!j->o->types && !fit_has_levels(float_model(j)))
        cmd_note(
            j->s,
            "%slisted as it is: its weights have less than 8 bits each, and a smaller level made from them "
            "would be worse than one made from the original model (--types lists levels all the same)",
            name);
}

/* The model as it is, and the mixes that were asked for; unasked, those that are smaller. */
static int find_levels(struct job *j, struct err *e)
{
    struct fit_question q = {.footprint = &j->footprint,
                             .memory_bytes = j->o->memory,
                             .ctx = j->ctx,
                             .kv = j->o->kv,
                             .recipe = j->o->recipe,
                             .imatrix = j->imatrix,
                             .imatrix_path = j->o->imatrix,
                             .requantize = true};
    j->levels = calloc(j->n_mixes + 1, sizeof *j->levels);
    if (!j->levels)
        return err_set(e, ERR_NOMEM, "out of memory for the levels");
    struct model *m = float_model(j);
    int rc = fit_level(&j->levels[0], j->model, NULL, &q, e);
    j->n_levels = rc == 0;
    for (size_t i = 0; rc == 0 && i < j->n_mixes && (j->o->types || fit_has_levels(m)); i++) {
        struct fit_level l;
        char name[512];
        if (strcmp(j->mixes[i]->name, j->levels[0].type) == 0)
            continue;
        rc = fit_level(&l, m, j->mixes[i], &q, e);
        if (rc == 0 && l.lacks_importance)
            cmd_warn(j->s,
                     "[level-needs-imatrix] %s%s: needs an importance matrix, --imatrix ('kerf imatrix' "
                     "makes one)",
                     name_of_several(name, j), l.type);
        if (rc == 0 && (j->o->types || l.weights_bytes < j->levels[0].weights_bytes))
            j->levels[j->n_levels++] = l;
    }
    return rc;
}

/* Twice when weights stay packed: quantize makes its mixes from floats. */
static int open_models(struct job *j, const char *path, struct err *e)
{
    struct model_options mo = {.allow_missing_weights = true, .keep_packed = true};
    int rc = model_open(&j->model, path, &mo, e);
    for (size_t i = 0; rc == 0 && i < model_n_tensors(j->model); i++) {
        if (!model_tensor(j->model, i)->has_blocks)
            continue;
        mo.keep_packed = false;
        return model_open(&j->floats, path, &mo, e);
    }
    return rc;
}

static bool any_fits(const struct job *j)
{
    for (size_t i = 0; i < j->n_levels; i++)
        if (j->levels[i].fits)
            return true;
    return false;
}

/* What it would take, where no level fits: more memory, or a shorter context. */
static void tell_too_little(const struct job *j)
{
    const struct fit_level *least = &j->levels[0];
    char need[32], have[32], buffer[512];
    const char *name = name_of_several(buffer, j);
    for (size_t i = 1; i < j->n_levels; i++)
        if (j->levels[i].total_bytes < least->total_bytes)
            least = &j->levels[i];
    format_bytes(need, (double)least->total_bytes);
    format_bytes(have, (double)j->o->memory);
    if (least->max_ctx)
        cmd_note(j->s,
                 "%snothing fits into %s: the smallest level, %s, needs %s; with --ctx %" PRIu64 " it fits",
                 name, have, least->type, need, least->max_ctx);
    else
        cmd_note(j->s,
                 "%snothing fits into %s: the smallest level, %s, needs %s, and no shorter context helps",
                 name, have, least->type, need);
}

/* No more than the model was trained for: nobody has asked for it. */
static uint64_t default_ctx(const struct footprint *f)
{
    return f->trained_ctx && f->trained_ctx < DEFAULT_CTX ? f->trained_ctx : DEFAULT_CTX;
}

static int run(struct job *j, const char *path, struct err *e)
{
    int rc = open_models(j, path, e);
    free(j->path);
    j->path = strdup(rc == 0 ? model_path(j->model) : path);
    if (rc == 0 && !j->path)
        rc = err_set(e, ERR_NOMEM, "out of memory for the name of a model");
    if (rc == 0)
        rc = footprint_init(&j->footprint, j->model, e);
    if (rc == 0) {
        j->trained_ctx = j->footprint.trained_ctx;
        j->ctx = j->o->ctx ? j->o->ctx : default_ctx(&j->footprint);
        rc = find_levels(j, e);
    }
    if (rc == 0)
        tell_remarks(j);
    close_models(j);
    return rc;
}

/* What the results come to; a model of which nothing is known counts before one that does not fit. */
static int judge(const struct job *jobs, size_t n)
{
    int status = CMD_DONE;
    for (size_t i = 0; i < n; i++) {
        if (failed(&jobs[i]))
            status = CMD_FAILED;
        else if (!any_fits(&jobs[i])) {
            tell_too_little(&jobs[i]);
            status = status == CMD_FAILED ? status : CMD_GATE;
        }
    }
    return status;
}

/* Every model, then one result. A model that cannot be read does not keep the others from theirs. With
 * several, each has to have a level that fits. */
static int run_models(struct job *jobs, const struct job *common, const struct opt_operands *args)
{
    const bool json = common->s->json;
    for (size_t i = 0; i < args->n; i++) {
        jobs[i] = *common;
        (void)run(&jobs[i], args->items[i], &jobs[i].e);
        if (failed(&jobs[i]) && (!json || args->n == 1)) /* of a single model it is the object */
            cmd_fail(&jobs[i].e);
    }
    if (json && !(args->n == 1 && failed(jobs)))
        print_json(jobs, args->n);
    else if (!json)
        print_text(jobs, args->n);
    for (size_t i = 0; json && args->n > 1 && i < args->n; i++)
        if (failed(&jobs[i]))
            cmd_fail(&jobs[i].e);
    return judge(jobs, args->n);
}

static int run_all(struct options *o, const struct shared_options *s, const struct mix *const *mixes,
                   size_t n_mixes, const struct opt_operands *args)
{
    struct err e = {0};
    struct imatrix *imatrix = NULL;
    struct job *jobs = calloc(args->n, sizeof *jobs);
    int status = CMD_FAILED;
    int rc = jobs ? 0 : err_set(&e, ERR_NOMEM, "out of memory for %zu models", args->n);
    if (rc == 0 && o->imatrix)
        rc = imatrix_load(&imatrix, o->imatrix, &e);
    const struct job common = {.o = o,
                               .s = s,
                               .mixes = mixes,
                               .n_mixes = n_mixes,
                               .imatrix = imatrix,
                               .one_of_several = args->n > 1};
    if (rc != 0)
        cmd_fail(&e);
    else
        status = run_models(jobs, &common, args);
    for (size_t i = 0; jobs && i < args->n; i++) {
        free(jobs[i].levels);
        free(jobs[i].path);
    }
    free(jobs);
    imatrix_free(imatrix);
    return status;
}

int cmd_fit(int argc, char **argv)
{
    struct shared_options shared = SHARED_OPTIONS_INIT;
    struct options o = {.kv_type = "f16", .recipe = "llama.cpp"};
    const struct opt options[] = {
        OPT(SIZE, "memory", &o.memory, "SIZE", "memory of the device, for weights, cache and working space",
            .range = OPT_RANGE(.min = 1 << 20)),
        OPT(UINT, "ctx", &o.ctx, "N", "tokens of the context",
            .fallback = "4096, or what the model was trained for if that is less",
            .range = OPT_RANGE(.min = 1, .max = FOOTPRINT_MAX_CTX)),
        OPT(TEXT, "kv-type", &o.kv_type, "K[,V]", "types of keys and values in the cache: " KV_CACHE_TYPES),
        OPT(TEXT, "types", &o.types, "LIST", "levels: types and mixes, separated by commas",
            .fallback =
                "Q8_0,Q6_K,Q5_K_M,Q4_K_M,Q3_K_M,Q2_K; of a GGUF at Q8_0 the smaller ones, of one below "
                "that its own alone"),
        IMATRIX_OPTION(o.imatrix),
        RECIPE_OPTION(o.recipe),
    };
    const struct opt_command cmd = {
        .name = "fit",
        .operands = "MODEL... --memory SIZE",
        .description =
            "Say which levels of each model fit into this much memory, and with how large a context (at most "
            "that of the training): the weights as kerf quantize would write them, the cache of keys and "
            "values of one sequence (with the states of recurrent layers), and working space. MODEL may also "
            "be a folder without weights, or only its config.json. The first level is the model as kerf "
            "convert writes it; --imatrix changes the types of some mixes. Cache and states are to the byte "
            "those of llama.cpp with flash attention and batches of 512. Working space is an estimate of its "
            "compute buffer, mostly above (see README). What a driver takes for itself is not counted: leave "
            "some room. Exit code 3 when no level of a model fits, 1 when a model could not be read.",
        OPT_TABLE(options),
        .min_operands = 1,
        .max_operands = SIZE_MAX,
        .uses = USES_NOTHING,
        .examples = "kerf fit Qwen3-8B --memory 8GiB\n"
                    "kerf fit q4.gguf q5.gguf --memory 8GiB --ctx 16384\n"
                    "kerf fit Qwen3-8B/config.json --memory 24GiB --ctx 32768 --kv-type q8_0",
    };
    struct opt_operands args;
    const struct mix **mixes = NULL;
    size_t n_mixes = 0;
    int status = opt_parse(&cmd, argc, argv, &shared, &args);
    if (status != OPT_CONTINUE)
        return status;
    if (o.memory == 0)
        return cmd_usage(&cmd, "--memory is missing: the memory of the device, such as 8GiB");
    if (!kv_cache_parse(&o.kv, o.kv_type))
        return cmd_usage(&cmd,
                         "--kv-type '%s': expected a type, or two with a comma between, of " KV_CACHE_TYPES,
                         o.kv_type);
    status = parse_mixes(&cmd, "--types", o.types, &mixes, &n_mixes);
    if (status == 0)
        status = run_all(&o, &shared, mixes, n_mixes, &args);
    free(mixes);
    return status;
}
