/* cmd_ladder.c - kerf ladder: what each level of quantization costs this model, without writing files. */
#include "eval_command.h"
#include "type_options.h"

#include <stdlib.h>

int cmd_ladder(int argc, char **argv)
{
    struct shared_options shared = SHARED_OPTIONS_INIT;
    struct text_options text = TEXT_OPTIONS_INIT;
    const char *html = NULL, *imatrix = NULL, *recipe = "llama.cpp", *types = NULL;
    bool requantize = false;
    const struct opt options[] = {
        TEXT_OPTIONS(text),
        {.kind = OPT_HEADING, .help = "Levels:"},
        {.name = "types",
         .kind = OPT_TEXT,
         .value = &types,
         .arg = "LIST",
         .help = "types and mixes, separated by commas",
         .fallback = "Q8_0,Q6_K,Q5_K_M,Q4_K_M,Q3_K_M,Q2_K"},
        MIX_OPTIONS(imatrix, recipe, requantize),
        {.kind = OPT_HEADING, .help = "Output:"},
        HTML_OPTION(html),
    };
    const struct opt_command cmd = {
        "ladder",
        "MODEL --text TEXT",
        "Quantize a model to every level in memory and measure what each costs, against the model as it is: "
        "size, perplexity, KL divergence; for embedding models, rerankers and reward models what compare "
        "reports. "
        "No file is written; the levels are, to the bit, those of kerf quantize.",
        options,
        sizeof options / sizeof *options,
        1,
        1,
    };
    struct opt_operands args;
    int status = opt_parse(&cmd, argc, argv, &shared, &args);
    if (status != OPT_CONTINUE)
        return status;
    status = eval_check_options(&cmd, &text);
    if (status != 0)
        return status;
    struct err e = {0};
    const struct mix **levels = NULL;
    size_t n = 0;
    status = parse_mixes(&cmd, "--types", types, &levels, &n);
    if (status != 0) {
        opt_list_release(&text.texts);
        return status;
    }
    struct eval_run r = {
        .shared = &shared, .text = &text, .imatrix_path = imatrix, .recipe = recipe, .take_texts = true};
    int rc = eval_check_output(html, shared.force, &e);
    if (rc == 0)
        rc = eval_open(&r, args.items[0], n, &e);
    for (size_t i = 0; rc == 0 && i < n; i++)
        rc = eval_add_mix(&r, levels[i], requantize, &e);
    if (rc == 0)
        rc = eval_check_inputs(&r, html, &e);
    if (rc == 0)
        rc = eval_open_text(&r, &e);
    if (rc == 0)
        rc = eval_run_models(&r, REPORT_LADDER, &e);
    if (rc == 0)
        rc = eval_print(&r, html, &e);
    bool partial = r.report.partial; /* the figures are out, but not those that were asked for */
    eval_release(&r);
    free(levels);
    return rc ? cmd_fail(&e) : partial ? CMD_FAILED : CMD_DONE;
}
