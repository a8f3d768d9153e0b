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
    const struct mix **mixes; /* owned */
    size_t n_mixes;
    struct model *model;  /* as convert opens it: weights that can stay packed do */
    struct model *floats; /* NULL: nothing stays packed */
    struct imatrix *imatrix;
    struct footprint footprint;
    struct fit_level *levels; /* owned */
    size_t n_levels;
};

static void job_release(struct job *j)
{
    free(j->levels);
    footprint_release(&j->footprint);
    imatrix_free(j->imatrix);
    model_close(j->floats);
    model_close(j->model);
    free(j->mixes);
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

static void print_json(const struct job *j)
{
    struct json_writer w;
    cmd_json_begin(&w);
    jw_key(&w, "memory_bytes"), jw_uint(&w, j->o->memory);
    jw_key(&w, "ctx"), jw_uint(&w, j->o->ctx);
    jw_key(&w, "kv_type"), jw_string(&w, j->o->kv_type);
    const struct fit_level *largest = largest_that_fits(j);
    jw_key(&w, "largest_type"), jw_string(&w, largest ? largest->type : NULL);
    jw_key(&w, "levels"), jw_array(&w);
    for (size_t i = 0; i < j->n_levels; i++) {
        const struct fit_level *l = &j->levels[i];
        jw_object(&w);
        jw_key(&w, "type"), jw_string(&w, l->type);
        jw_key(&w, "n_bytes");
        l->file_bytes ? jw_uint(&w, l->file_bytes) : jw_null(&w);
        jw_key(&w, "weights_bytes"), jw_uint(&w, l->weights_bytes);
        jw_key(&w, "kv_bytes"), jw_uint(&w, l->cache_bytes);
        jw_key(&w, "kv_bytes_saved"), jw_uint(&w, l->cache_saved);
        jw_key(&w, "overhead_bytes"), jw_uint(&w, l->work_bytes);
        jw_key(&w, "total_bytes"), jw_uint(&w, l->total_bytes);
        jw_key(&w, "needs_imatrix"), jw_bool(&w, l->lacks_importance);
        jw_key(&w, "fits"), jw_bool(&w, l->fits);
        jw_key(&w, "max_ctx"), jw_uint(&w, l->max_ctx);
        jw_end(&w);
    }
    jw_end(&w);
    cmd_json_end(&w);
}

static void print_text(const struct job *j)
{
    char memory[32], size[4][32], most[32];
    printf("%s in %s, %" PRIu64 " tokens, cache %s", model_path(j->model),
           format_bytes(memory, (double)j->o->memory), j->o->ctx, j->o->kv_type);
    if (j->n_levels && j->levels[0].cache_saved)
        printf(" (%s less than f16; compare --kv-type measures what it loses)",
               format_bytes(memory, (double)j->levels[0].cache_saved));
    putchar('\n');
    printf("%-10s %12s %12s %12s %12s  %-4s %9s\n", "type", "weights", "cache", "working", "total", "fits",
           "max ctx");
    for (size_t i = 0; i < j->n_levels; i++) {
        const struct fit_level *l = &j->levels[i];
        bool capped = l->max_ctx != 0 && l->max_ctx == j->footprint.trained_ctx;
        snprintf(most, sizeof most, "%" PRIu64 "%s", l->max_ctx, capped ? "*" : " ");
        printf("%-10s %12s %12s %12s %12s  %-4s %9s\n", l->type,
               format_bytes(size[0], (double)l->weights_bytes), format_bytes(size[1], (double)l->cache_bytes),
               format_bytes(size[2], (double)l->work_bytes), format_bytes(size[3], (double)l->total_bytes),
               l->fits ? "yes" : "no", most);
    }
    for (size_t i = 0; i < j->n_levels; i++) {
        if (j->levels[i].max_ctx != 0 && j->levels[i].max_ctx == j->footprint.trained_ctx) {
            puts("* all the context that the model was trained for");
            return;
        }
    }
}

/* The model that mixes are made from. */
static struct model *float_model(const struct job *j)
{
    return j->floats ? j->floats : j->model;
}

static void tell_remarks(const struct job *j)
{
    for (size_t i = 0; i < model_n_warnings(j->model); i++)
        cmd_warn_of(j->s, NULL, model_warning(j->model, i));
    if (j->footprint.is_guess)
        cmd_warn(j->s,
                 "[unknown-architecture] architecture '%s' is not known here; its cache is read off the "
                 "general keys of its metadata",
                 model_arch_name(j->model));
    if (j->footprint.trained_ctx && j->o->ctx > j->footprint.trained_ctx)
        cmd_warn(j->s,
                 "[ctx-beyond-training] %" PRIu64 " tokens are more than the %" PRIu64
                 " that the model was trained for",
                 j->o->ctx, j->footprint.trained_ctx);
    if (!j->o->types && !fit_has_levels(float_model(j)))
        cmd_note(j->s,
                 "the model is quantized below 8 bits already; --types asks for other levels all the same");
}

/* The model as it is, and the mixes that were asked for; unasked, those that are smaller. */
static int find_levels(struct job *j, struct err *e)
{
    struct fit_question q = {.footprint = &j->footprint,
                             .memory_bytes = j->o->memory,
                             .ctx = j->o->ctx,
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
        if (strcmp(j->mixes[i]->name, j->levels[0].type) == 0)
            continue;
        rc = fit_level(&l, m, j->mixes[i], &q, e);
        if (rc == 0 && l.lacks_importance)
            cmd_warn(j->s,
                     "[level-needs-imatrix] %s: can be made with an importance matrix alone ('kerf imatrix')",
                     l.type);
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
    char need[32], have[32];
    for (size_t i = 1; i < j->n_levels; i++)
        if (j->levels[i].total_bytes < least->total_bytes)
            least = &j->levels[i];
    format_bytes(need, (double)least->total_bytes);
    format_bytes(have, (double)j->o->memory);
    if (least->max_ctx)
        cmd_note(j->s,
                 "nothing fits into %s: the smallest level, %s, needs %s; with --ctx %" PRIu64 " it fits",
                 have, least->type, need, least->max_ctx);
    else
        cmd_note(j->s, "nothing fits into %s: the smallest level, %s, needs %s, and no shorter context helps",
                 have, least->type, need);
}

/* No more than the model was trained for: nobody has asked for it. */
static uint64_t default_ctx(const struct footprint *f)
{
    return f->trained_ctx && f->trained_ctx < DEFAULT_CTX ? f->trained_ctx : DEFAULT_CTX;
}

static int run(struct job *j, const char *path, struct err *e)
{
    int rc = j->o->imatrix ? imatrix_load(&j->imatrix, j->o->imatrix, e) : 0;
    if (rc == 0)
        rc = open_models(j, path, e);
    if (rc == 0)
        rc = footprint_init(&j->footprint, j->model, e);
    if (rc == 0 && j->o->ctx == 0)
        j->o->ctx = default_ctx(&j->footprint);
    if (rc == 0)
        rc = find_levels(j, e);
    if (rc != 0)
        return rc;
    tell_remarks(j);
    if (j->s->json)
        print_json(j);
    else
        print_text(j);
    if (!any_fits(j))
        tell_too_little(j);
    return 0;
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
            .fallback = "Q8_0,Q6_K,Q5_K_M,Q4_K_M,Q3_K_M,Q2_K, of a file with quantized weights only those "
                        "that are smaller, and none below 8 bits"),
        IMATRIX_OPTION(o.imatrix),
        RECIPE_OPTION(o.recipe),
    };
    const struct opt_command cmd = {
        .name = "fit",
        .operands = "MODEL --memory SIZE",
        .description =
            "Say which levels of a model fit into this much memory, and with how large a context (at most "
            "that of the training): the weights as kerf quantize would write them, the cache of keys and "
            "values of one sequence (with the states of recurrent layers), and working space. MODEL may also "
            "be a folder without weights, or only its config.json. The first level is the model as kerf "
            "convert writes it; --imatrix changes the types of some mixes. Cache and states are to the byte "
            "those of llama.cpp with flash attention and batches of 512. Working space is an estimate of its "
            "compute buffer, mostly above (see README). What a driver takes for itself is not counted: leave "
            "some room. Exit code 3 when no level fits.",
        OPT_TABLE(options),
        .min_operands = 1,
        .max_operands = 1,
        .uses = USES_NOTHING,
        .examples = "kerf fit Qwen3-8B --memory 8GiB\n"
                    "kerf fit Qwen3-8B/config.json --memory 24GiB --ctx 32768 --kv-type q8_0",
    };
    struct opt_operands args;
    struct err e = {0};
    struct job j = {.o = &o, .s = &shared};
    int status = opt_parse(&cmd, argc, argv, &shared, &args);
    if (status != OPT_CONTINUE)
        return status;
    if (o.memory == 0)
        return cmd_usage(&cmd, "--memory is missing: the memory of the device, such as 8GiB");
    if (!kv_cache_parse(&o.kv, o.kv_type))
        return cmd_usage(&cmd,
                         "--kv-type '%s': expected a type, or two with a comma between, of " KV_CACHE_TYPES,
                         o.kv_type);
    status = parse_mixes(&cmd, "--types", o.types, &j.mixes, &j.n_mixes);
    if (status == 0)
        status = run(&j, args.items[0], &e) ? cmd_fail(&e) : any_fits(&j) ? CMD_DONE : CMD_GATE;
    job_release(&j);
    return status;
}
