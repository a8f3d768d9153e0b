/* cmd_compare.c - kerf compare: what candidates lose against a reference, in one pass over a text. */
#include "eval_command.h"
#include "tools/options/type_options.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

struct gates {
    double max_kld, max_ppl_ratio, min_top1;   /* NaN: not asked for */
    double max_cosine_distance, max_score_rms; /* of models that answer once for a text */
};
#define N_GATES 5
#define GATES_INIT                                                                                           \
    {                                                                                                        \
        NAN, NAN, NAN, NAN, NAN                                                                              \
    }

/* Rows of the option table. */
#define GATE_OPTIONS(g)                                                                                      \
    OPT_GROUP("Gates (exit code 3 when one is not met):"),                                                   \
        OPT(REAL, "max-kld", &(g).max_kld, "X", "largest mean KL divergence, nats per token",                \
            .fallback = "no limit", .range = OPT_RANGE(.min = 0)),                                           \
        OPT(REAL, "max-ppl-ratio", &(g).max_ppl_ratio, "X",                                                  \
            "largest ratio of perplexities, candidate over reference", .fallback = "no limit",               \
            .range = OPT_RANGE(.min = 0, .above = true)),                                                    \
        OPT(REAL, "min-top1", &(g).min_top1, "X",                                                            \
            "smallest share of tokens with the same first choice, 0 to 1", .fallback = "no limit",           \
            .range = OPT_RANGE(.min = 0, .max = 1)),                                                         \
        OPT(REAL, "max-cosine-distance", &(g).max_cosine_distance, "X",                                      \
            "largest mean cosine distance of embeddings", .fallback = "no limit",                            \
            .range = OPT_RANGE(.min = 0)),                                                                   \
        OPT(REAL, "max-score-rms", &(g).max_score_rms, "X",                                                  \
            "largest root mean square of the differences of scores", .fallback = "no limit",                 \
            .range = OPT_RANGE(.min = 0))

struct options {
    struct gates gates;
    const char *html, *imatrix, *recipe, *reference, *save_reference;
    struct resume_options resume;
    struct profile_settings profile;
    bool requantize, no_fallback;
};

/* A gate on a figure that this kind of model does not have can neither hold nor break. */
static int check_gates(const struct net *net, const struct gates *g, struct err *e)
{
    bool tokens = !isnan(g->max_kld) || !isnan(g->max_ppl_ratio) || !isnan(g->min_top1);
    if ((net->answer != NET_TOKENS && tokens) ||
        (net->answer != NET_EMBEDDING && !isnan(g->max_cosine_distance)) ||
        (net->answer != NET_SCORE && !isnan(g->max_score_rms)))
        return err_set(
            e, ERR_ARG,
            "%s: a gate asks for a figure that this model does not have: --max-kld, --max-ppl-ratio and "
            "--min-top1 are for language models, --max-cosine-distance is for embedding models, "
            "--max-score-rms for rerankers and reward models",
            model_path(net->model));
    return 0;
}

static double kld_of(const struct report_model *c)
{
    return c->d.kld.value;
}
static double ppl_ratio_of(const struct report_model *c)
{
    return c->d.ppl_ratio.value;
}
static double top1_of(const struct report_model *c)
{
    return c->d.top1.value;
}
static double distance_of(const struct report_model *c)
{
    return c->change.distance.value;
}
static double score_rms_of(const struct report_model *c)
{
    return c->change.delta_rms;
}

/* The gates that were asked for; returns how many. */
static size_t list_gates(struct report_gate list[N_GATES], const struct gates *g)
{
    const struct report_gate all[N_GATES] = {
        {"max-kld", "mean KLD", kld_of, g->max_kld, false},
        {"max-ppl-ratio", "PPL ratio", ppl_ratio_of, g->max_ppl_ratio, false},
        {"min-top1", "top-1 agreement", top1_of, g->min_top1, true},
        {"max-cosine-distance", "mean cosine distance", distance_of, g->max_cosine_distance, false},
        {"max-score-rms", "rms of the score differences", score_rms_of, g->max_score_rms, false}};
    size_t n = 0;
    for (size_t i = 0; i < N_GATES; i++)
        if (!isnan(all[i].limit))
            list[n++] = all[i];
    return n;
}

/* Say which gates are not met; false when all are. */
static bool gates_broken(const struct report *r)
{
    for (size_t i = 0; i < r->n_candidates; i++)
        for (size_t k = 0; k < r->n_gates; k++) {
            const struct report_model *c = &r->candidates[i];
            const struct report_gate *g = &r->gates[k];
            if (report_judge(r, g, c) == REPORT_MISSED)
                fprintf(stderr, "kerf: gate: %s: %s %.6g, %s %.6g is allowed\n", c->type ? c->type : c->path,
                        g->what, g->figure(c), g->at_least ? "no less than" : "no more than", g->limit);
        }
    enum report_verdict all = report_judge_all(r);
    if (all == REPORT_OPEN)
        fprintf(stderr, "kerf: gate: the run was stopped, so the gates are not met\n");
    return all != REPORT_MET;
}

/* Every operand that is a candidate; wrong usage is told before a model is opened. *out: caller frees. */
static int parse_candidates(const struct opt_command *cmd, const struct opt_operands *args, size_t first,
                            struct candidate_arg **out)
{
    struct candidate_arg *list = calloc(args->n, sizeof *list);
    int status = list ? 0 : cmd_fail(&(struct err){ERR_NOMEM, "out of memory for the candidates"});
    for (size_t i = first; i < args->n && status == 0; i++)
        status = candidate_arg_parse(cmd, &list[i - first], args->items[i]);
    if (status == 0)
        *out = list;
    else
        free(list);
    return status;
}

/* How many models are wanted depends on where the reference is. */
static int check_operands(const struct opt_command *cmd, const struct opt_operands *args,
                          const struct options *o)
{
    if (o->profile.n_windows && !o->profile.wanted)
        return cmd_usage(cmd, "--profile-windows: is of --profile, which is not asked for");
    if (o->reference && o->profile.wanted)
        return cmd_usage(cmd, "--profile: needs the weights of the reference, which a stored one has not");
    if (o->save_reference && args->n < 2 && o->profile.wanted)
        return cmd_usage(cmd, "--profile: there is no candidate to look into");
    if (o->reference && o->save_reference)
        return cmd_usage(cmd, "--reference and --save-reference exclude each other: it is stored already");
    if (args->n < 2 && !o->reference && !o->save_reference)
        return cmd_usage(cmd, "expected a reference and at least one candidate");
    struct stat st;
    if (!o->reference && mix_find(args->items[0]) && stat(args->items[0], &st) != 0)
        return cmd_usage(cmd,
                         "the first operand is the reference, a model, found the type '%s'; types are "
                         "candidates, behind it",
                         args->items[0]);
    return 0;
}

/* What is applied to the reference's weights needs them, and so does what says how. */
static int refuse_types(const struct opt_command *cmd, const struct options *o,
                        const struct candidate_arg *list, size_t n)
{
    const char *how = o->imatrix       ? "--imatrix"
                      : o->requantize  ? "--allow-requantize"
                      : o->no_fallback ? "--no-fallback"
                                       : NULL;
    if (how)
        return cmd_usage(cmd,
                         "%s: is for types and mixes, which are applied to the reference's weights; a stored "
                         "reference has none",
                         how);
    for (size_t i = 0; i < n; i++)
        if (list[i].kind != CANDIDATE_FILE)
            return cmd_usage(cmd,
                             "candidate '%s' is applied to the reference's weights, which a stored reference "
                             "does not have; give models",
                             list[i].text);
    return 0;
}

static int open_models(struct eval_run *r, const struct options *o, const char *reference,
                       const struct candidate_arg *list, size_t n, struct err *e)
{
    int rc = eval_open(r, reference, n, e);
    for (size_t i = 0; rc == 0 && i < n; i++)
        rc = eval_add_candidate(r, &list[i], o->requantize, e);
    if (rc == 0 && !r->reference_path)
        rc = eval_check_tokens(r, e);
    return rc == 0 ? check_gates(&r->models[0].net, &o->gates, e) : rc;
}

static int run(struct eval_run *r, const struct options *o, const char *reference,
               const struct candidate_arg *list, size_t n)
{
    struct err e = {0};
    const char *const outputs[] = {o->html, o->save_reference}, *const inputs[] = {o->imatrix, o->reference};
    int rc = cmd_check_output(o->html, r->shared->force, &e);
    if (rc == 0)
        rc = cmd_check_output(o->save_reference, r->shared->force, &e);
    if (rc == 0)
        rc = cmd_claim_outputs(r->shared, outputs, 2, inputs, 2, &e);
    if (rc == 0)
        rc = open_models(r, o, reference, list, n, &e);
    if (rc == 0)
        rc = eval_measure(r, REPORT_COMPARE, o->html, &e);
    if (rc == 0 && !r->shared->dry_run && gates_broken(&r->report))
        return CMD_GATE;
    return eval_status(r, rc, &e);
}

/* Everything behind the options; the exit status. */
static int measure(const struct opt_command *cmd, struct options *o, struct text_options *text,
                   struct shared_options *shared, const struct opt_operands *args)
{
    struct eval_run r = {.shared = shared,
                         .text = text,
                         .imatrix_path = o->imatrix,
                         .recipe = o->recipe,
                         .no_fallback = o->no_fallback,
                         .resume = &o->resume,
                         .profile = &o->profile,
                         .reference_path = o->reference,
                         .save_reference = o->save_reference,
                         .take_texts = true};
    struct report_gate gates[N_GATES];
    r.report.gates = gates;
    r.report.n_gates = list_gates(gates, &o->gates);
    const size_t first = o->reference ? 0 : 1;
    struct candidate_arg *candidates = NULL;
    int status = check_operands(cmd, args, o);
    if (status == 0)
        status = eval_check_options(cmd, text, o->reference != NULL);
    if (status == 0)
        status = parse_candidates(cmd, args, first, &candidates);
    if (status == 0 && o->reference)
        status = refuse_types(cmd, o, candidates, args->n);
    if (status == 0)
        status = run(&r, o, args->items[0], candidates, args->n - first);
    free(candidates);
    eval_release(&r);
    return status;
}

/* What --help says above the options. */
static const char description[] =
    "Run a reference and its candidates over the same text and compare their predictions token by token: "
    "perplexity ratio, KL divergence with percentiles, agreement of the first choice, change of the right "
    "token's probability. A candidate is a model, a model with LoRA adapters (MODEL+ADAPTER or "
    "MODEL+ADAPTER=SCALE: PEFT folders onto checkpoints, adapter files onto any model), or what is applied "
    "to the reference's weights on the fly: a type or mix (Q4_K_M), plan:FILE (a plan of kerf allocate), or "
    "recipe:FILE (lines such as 'type Q4_K_M', 'tensor-type ffn_down=Q6_K', 'imatrix FILE'). Embedding "
    "models, rerankers and reward models answer once for a text: each line of the text, or each record of "
    "--jsonl, is then a text of its own, cut to --ctx tokens, --chunks counts texts, and what is compared "
    "are cosine distances of embeddings, or scores and the order they give. For rerankers a record may be "
    "{\"query\", \"document\"}; process reward models score every <extra_0>.";

int cmd_compare(int argc, char **argv)
{
    struct shared_options shared = SHARED_OPTIONS_INIT;
    struct text_options text = TEXT_OPTIONS_INIT;
    struct options o = {.gates = GATES_INIT, .recipe = "llama.cpp", .resume = RESUME_OPTIONS_INIT};
    const struct opt options[] = {
        TEXT_OPTIONS(text),
        SCORED_TEXT_OPTIONS(text),
        KV_OPTION(text.kv_type),
        OPT_GROUP("Candidates that are types, mixes, plans or recipes:"),
        IMATRIX_OPTION(o.imatrix),
        RECIPE_OPTION(o.recipe),
        REQUANTIZE_OPTION(o.requantize),
        NO_FALLBACK_OPTION(o.no_fallback),
        GATE_OPTIONS(o.gates),
        OPT_GROUP("A reference in a file:"),
        OPT(TEXT, "save-reference", &o.save_reference, "FILE",
            "store what later comparisons need of the reference; candidates may then be left out"),
        OPT(TEXT, "reference", &o.reference, "FILE",
            "compare with a stored reference: every operand is a candidate, and the text is the one that is "
            "stored (a --text is checked to be it)"),
        PROFILE_OPTIONS(o.profile),
        RESUME_OPTIONS(o.resume),
        OPT_GROUP("Output:"),
        HTML_OPTION(o.html),
    };
    const struct opt_command cmd = {
        .name = "compare",
        .operands = "REF CAND... --text TEXT",
        .description = description,
        OPT_TABLE(options),
        .min_operands = 1,
        .max_operands = SIZE_MAX,
        .uses = USES_ALL,
        .examples = "kerf compare Qwen3-0.6B q3-Q4_K_M.gguf Q3_K_M plan:q3.plan --text wiki.test.txt\n"
                    "kerf compare Qwen3-0.6B q3-Q4_K_M.gguf --text wiki.test.txt --max-kld 0.05\n"
                    "kerf compare Qwen3-0.6B Q3_K_M --text wiki.test.txt --profile --html loss.html\n"
                    "kerf compare Qwen3-0.6B --text wiki.test.txt --save-reference q3.kerf-ref\n"
                    "kerf compare --reference q3.kerf-ref q3-Q4_K_M.gguf q3-Q3_K_M.gguf",
    };
    struct opt_operands args;
    int status = opt_parse(&cmd, argc, argv, &shared, &args);
    if (status != OPT_CONTINUE)
        return status;
    return measure(&cmd, &o, &text, &shared, &args);
}
