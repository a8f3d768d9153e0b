/* cmd_ladder.c - kerf ladder: what each level of quantization costs this model, without writing files. */
#include "eval_command.h"
#include "ladder_feedback.h"
#include "tools/options/type_options.h"

#include "formats/rewrite/rewrite.h"

#include <stdlib.h>
#include <string.h>

struct options {
    const char *html, *imatrix, *recipe, *types, *method, *hessian;
    bool requantize, no_fallback;
    struct resume_options resume;
};

static int check_method(const struct opt_command *cmd, const struct options *o)
{
    const bool feedback = strcmp(o->method, "feedback") == 0;
    if (feedback && !o->hessian)
        return cmd_usage(cmd, "--method feedback: give the Hessians with --hessian FILE (kerf hessian)");
    if (feedback && o->resume.resume)
        return cmd_usage(cmd, "--resume: levels of --method feedback are not kept");
    if (!feedback && o->hessian)
        return cmd_usage(cmd, "--hessian: is for --method feedback");
    return 0;
}

/* As eval_measure, with levels that are solved before they run. */
static int measure_solved(struct eval_run *r, const struct options *o, struct ladder_feedback **f,
                          struct err *e)
{
    int rc = eval_check_inputs(r, o->html, e);
    if (rc == 0)
        rc = ladder_feedback_open(f, o->hessian, r, e);
    if (rc == 0)
        rc = eval_open_text(r, e);
    if (rc == 0 && !r->shared->dry_run)
        rc = ladder_feedback_solve(*f, r, e);
    if (rc == 0)
        rc = eval_run_models(r, REPORT_LADDER, e);
    r->report.hessian = o->hessian;
    return rc == 0 ? eval_print(r, o->html, e) : rc;
}

/* A level that only an importance matrix makes possible is left out, unless it is the only one: that is
 * refused with the tensor that asks for the matrix. */
static int add_level(struct eval_run *r, const struct candidate_arg *level, const struct options *o, size_t n,
                     struct err *e)
{
    const struct rewrite_options ro = {.recipe = {.recipe = r->recipe, .mix = level->mix},
                                       .allow_requantize = o->requantize};
    int rc = eval_add_candidate(r, level, o->requantize, e);
    if (rc != ERR_ARG || n == 1 || r->imatrix || level->kind != CANDIDATE_MIX ||
        !rewrite_lacks_importance(r->models[0].model, &ro))
        return rc;
    cmd_warn(r->shared,
             "[level-left-out] %s: left out, since it needs an importance matrix; give one with --imatrix",
             level->text);
    return 0;
}

/* The text is not run for a ladder without a level. */
static int add_levels(struct eval_run *r, const struct candidate_arg *levels, size_t n,
                      const struct options *o, struct err *e)
{
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < n; i++)
        rc = add_level(r, &levels[i], o, n, e);
    if (rc == 0 && r->n_models == 1)
        rc = err_set(e, ERR_ARG,
                     "--types %s: every level needs an importance matrix, so none is left to measure; give "
                     "one with --imatrix",
                     o->types);
    return rc;
}

static int run(struct eval_run *r, const struct options *o, const char *model,
               const struct candidate_arg *levels, size_t n, struct ladder_feedback **f, struct err *e)
{
    const char *const read[] = {o->imatrix, o->hessian};
    int rc = cmd_check_output(o->html, r->shared->force, e);
    if (rc == 0)
        rc = cmd_claim_outputs(r->shared, &o->html, 1, read, 2, e);
    if (rc == 0)
        rc = eval_open(r, model, n, e);
    if (rc == 0)
        rc = add_levels(r, levels, n, o, e);
    if (rc == 0 && o->hessian)
        return measure_solved(r, o, f, e);
    return rc == 0 ? eval_measure(r, REPORT_LADDER, o->html, e) : rc;
}

/* Everything behind the options; the exit status. */
static int measure(const struct opt_command *cmd, struct options *o, struct text_options *text,
                   struct shared_options *shared, const char *model)
{
    struct err e = {0};
    struct eval_run r = {.shared = shared,
                         .text = text,
                         .imatrix_path = o->imatrix ? o->imatrix : o->hessian,
                         .recipe = o->recipe,
                         .no_fallback = o->no_fallback,
                         .resume = &o->resume,
                         .take_texts = true};
    struct candidate_arg *levels = NULL;
    char *words = NULL;
    size_t n = 0;
    struct ladder_feedback *solved = NULL;
    int status = check_method(cmd, o);
    if (status == 0)
        status = eval_check_options(cmd, text, false);
    if (status == 0)
        status = candidate_args_parse_levels(cmd, &levels, &n, &words, o->types);
    if (status == 0)
        status = eval_status(&r, run(&r, o, model, levels, n, &solved, &e), &e);
    eval_release(&r);
    ladder_feedback_free(solved);
    free(levels);
    free(words);
    return status;
}

int cmd_ladder(int argc, char **argv)
{
    struct shared_options shared = SHARED_OPTIONS_INIT;
    struct text_options text = TEXT_OPTIONS_INIT;
    struct options o = {.recipe = "llama.cpp", .method = "fast", .resume = RESUME_OPTIONS_INIT};
    const struct opt options[] = {
        TEXT_OPTIONS(text),
        SCORED_TEXT_OPTIONS(text),
        KV_OPTION(text.kv_type),
        OPT_GROUP("Levels:"),
        OPT(TEXT, "types", &o.types, "LIST", "types, mixes, plan:FILE and recipe:FILE, separated by commas",
            .fallback = "Q8_0,Q6_K,Q5_K_M,Q4_K_M,Q3_K_M,Q2_K"),
        IMATRIX_OPTION(o.imatrix),
        RECIPE_OPTION(o.recipe),
        REQUANTIZE_OPTION(o.requantize),
        NO_FALLBACK_OPTION(o.no_fallback),
        OPT(CHOICE, "method", &o.method, "fast|feedback",
            "how levels are encoded: as kerf quantize does it, or with its --method feedback (without "
            "held-out windows) under --hessian"),
        OPT(TEXT, "hessian", &o.hessian, "FILE",
            "Hessians of this model, collected from another text than --text; also its importance matrix, "
            "unless --imatrix names another"),
        RESUME_OPTIONS(o.resume),
        OPT_GROUP("Output:"),
        HTML_OPTION(o.html),
    };
    const struct opt_command cmd = {
        .name = "ladder",
        .operands = "MODEL --text TEXT",
        .description =
            "Quantize a model to every level in memory and measure what each costs, against the model as it "
            "is: size, perplexity, KL divergence; for embedding models, rerankers and reward models what "
            "compare reports. No file is written; the levels are, to the bit, those of kerf "
            "quantize." ADAPTERS_HELP,
        OPT_TABLE(options),
        .min_operands = 1,
        .max_operands = 1,
        .uses = USES_ALL,
        .examples = "kerf ladder Qwen3-0.6B --text wiki.test.txt\n"
                    "kerf ladder Qwen3-0.6B --text wiki.test.txt --imatrix q3.imatrix.gguf --types "
                    "Q4_K_M,IQ4_XS --html q3.html",
    };
    struct opt_operands args;
    int status = opt_parse(&cmd, argc, argv, &shared, &args);
    if (status != OPT_CONTINUE)
        return status;
    return measure(&cmd, &o, &text, &shared, args.items[0]);
}
