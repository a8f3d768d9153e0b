/* cmd_ladder.c - kerf ladder: what each level of quantization costs this model, without writing files. */
#include "eval_command.h"
#include "type_options.h"

#include <stdlib.h>

struct options {
    const char *html, *imatrix, *recipe, *types;
    bool requantize, no_fallback;
};

static int run(struct eval_run *r, const struct options *o, const char *model,
               const struct candidate_arg *levels, size_t n, struct err *e)
{
    int rc = eval_check_output(o->html, r->shared->force, e);
    if (rc == 0)
        rc = cmd_claim_outputs(r->shared, &o->html, 1, &o->imatrix, 1, e);
    if (rc == 0)
        rc = eval_open(r, model, n, e);
    for (size_t i = 0; rc == 0 && i < n; i++)
        rc = eval_add_candidate(r, &levels[i], o->requantize, e);
    return rc == 0 ? eval_measure(r, REPORT_LADDER, o->html, e) : rc;
}

int cmd_ladder(int argc, char **argv)
{
    struct shared_options shared = SHARED_OPTIONS_INIT;
    struct text_options text = TEXT_OPTIONS_INIT;
    struct options o = {.recipe = "llama.cpp"};
    const struct opt options[] = {
        TEXT_OPTIONS(text),
        OPT_GROUP("Levels:"),
        OPT(TEXT, "types", &o.types, "LIST", "types, mixes, plan:FILE and recipe:FILE, separated by commas",
            .fallback = "Q8_0,Q6_K,Q5_K_M,Q4_K_M,Q3_K_M,Q2_K"),
        IMATRIX_OPTION(o.imatrix),
        RECIPE_OPTION(o.recipe),
        REQUANTIZE_OPTION(o.requantize),
        NO_FALLBACK_OPTION(o.no_fallback),
        OPT_GROUP("Output:"),
        HTML_OPTION(o.html),
    };
    const struct opt_command cmd = {
        .name = "ladder",
        .operands = "MODEL --text TEXT",
        .description =
            "Quantize a model to every level in memory and measure what each costs, against the model as it "
            "is: size, perplexity, KL divergence; for embedding models, rerankers and reward models what "
            "compare reports. No file is written; the levels are, to the bit, those of kerf quantize.",
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
    struct err e = {0};
    struct eval_run r = {.shared = &shared,
                         .text = &text,
                         .imatrix_path = o.imatrix,
                         .recipe = o.recipe,
                         .no_fallback = o.no_fallback,
                         .take_texts = true};
    struct candidate_arg *levels = NULL;
    char *words = NULL;
    size_t n = 0;
    status = eval_check_options(&cmd, &text);
    if (status == 0)
        status = candidate_args_parse_levels(&cmd, &levels, &n, &words, o.types);
    if (status == 0)
        status = eval_status(&r, run(&r, &o, args.items[0], levels, n, &e), &e);
    eval_release(&r);
    free(levels);
    free(words);
    return status;
}
