/* cmd_score.c - kerf score: what models answer to the records of a task, and where they differ. */
#include "eval_command.h"
#include "tools/options/type_options.h"
#include "tools/outcome.h"

#include "calib/report/page.h"
#include "calib/report/score_page.h"
#include "formats/json.h"
#include "formats/output/text_file.h"
#include "libquant/base/clock.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct options {
    const char *task, *form, *metric, *records, *html, *activations, *imatrix, *recipe;
    uint64_t limit, ctx;
    bool chat, parse_special, requantize;
};

struct job {
    const struct options *o;
    const struct shared_options *s;
    struct eval_run run; /* the models */
    struct task task;
    struct score_model *models; /* [run.n_models], owned */
    struct score_result result;
};

static const char *const form_names[] = {"auto", "jsonl", "hellaswag", "winogrande", "multiple-choice"};

static size_t index_of(const char *const *names, size_t n, const char *word)
{
    for (size_t i = 0; i < n; i++)
        if (strcmp(names[i], word) == 0)
            return i;
    return n; /* not reached: the option is a choice of them */
}

static void job_release(struct job *j)
{
    for (size_t i = 0; j->models && i < j->run.n_models; i++) {
        verdict_release(&j->models[i].verdict);
        free(j->models[i].likelihoods);
        requests_release(&j->models[i].requests);
    }
    free(j->models);
    task_release(&j->task);
    eval_release(&j->run);
}

/* The records as this model reads them. */
static int make_requests(struct job *j, struct score_model *m, struct err *e)
{
    const struct candidate *c = m->candidate;
    struct model *model =
        c->model ? c->model : j->run.models[0].model; /* a mix reads as what it is made from */
    const struct vocabulary *v = NULL;
    size_t padded = 0;
    struct request_options opt = {.ctx = j->o->ctx ? (size_t)j->o->ctx : c->net.context_length,
                                  .parse_special = j->o->parse_special};
    int rc = net_need_tokens(&c->net, "scoring a task", e);
    if (rc == 0)
        rc = cmd_vocabulary(j->s, model, &v, e);
    if (rc == 0 && j->o->chat && !v->chat_template)
        rc = err_set(e, ERR_UNSUPPORTED, "%s: --chat: the model has no chat template", c->path);
    if (rc == 0) {
        opt.chat_template = j->o->chat ? v->chat_template : NULL;
        rc = requests_make(&m->requests, &j->task, v, &opt, e);
    }
    if (rc == 0 && m->requests.n_cut)
        cmd_warn(
            j->s,
            "[text-cut] %s: the contexts of %zu of %zu records are longer than %zu tokens and lost their "
            "beginning; see --ctx",
            score_name(m), m->requests.n_cut, j->task.n_records, opt.ctx);
    return rc == 0 ? score_count_tokens(&padded, &m->n_tokens, &m->requests, &c->net, c->weights,
                                        j->s->memory_bytes, e)
                   : rc;
}

static int open_all(struct job *j, const char *first, const struct candidate_arg *list, size_t n,
                    struct err *e)
{
    enum task_form form = (enum task_form)index_of(form_names, 5, j->o->form);
    int rc = task_read(&j->task, j->o->task, form, (size_t)j->o->limit, e);
    if (rc == 0)
        rc = eval_open(&j->run, first, n, e);
    for (size_t i = 0; rc == 0 && i < n; i++)
        rc = eval_add_candidate(&j->run, &list[i], j->o->requantize, e);
    if (rc == 0 && n == 0 && !kv_cache_is_exact(&j->run.text->cache))
        rc = eval_set_cache(&j->run, &j->run.models[0], &j->run.text->cache, false, e);
    if (rc == 0)
        rc = eval_check_inputs(&j->run, j->o->records, e);
    j->models = rc == 0 ? calloc(j->run.n_models, sizeof *j->models) : NULL;
    if (rc == 0 && !j->models)
        rc = err_set(e, ERR_NOMEM, "out of memory for %zu models", j->run.n_models);
    for (size_t i = 0; rc == 0 && i < j->run.n_models; i++) {
        j->models[i].candidate = &j->run.models[i];
        rc = make_requests(j, &j->models[i], e);
    }
    return rc;
}

static int run_model(struct job *j, struct score_model *m, struct err *e)
{
    bool q8 = strcmp(j->o->activations, "q8") == 0;
    struct score_options opt = {.name = score_name(m),
                                .pool = j->run.session.pool,
                                .memory_bytes = j->s->memory_bytes,
                                .cache = m->candidate->cache,
                                .activations = q8 ? ACTIVATIONS_Q8 : ACTIVATIONS_F32,
                                .progress = progress_on(&j->run.bar)};
    double start = clock_seconds();
    m->likelihoods = calloc(m->requests.n, sizeof *m->likelihoods);
    int rc = m->likelihoods ? 0 : err_set(e, ERR_NOMEM, "out of memory for %zu figures", m->requests.n);
    if (rc == 0)
        rc = score_requests(m->likelihoods, &m->requests, &m->candidate->net, m->candidate->weights, &opt, e);
    if (rc == 0)
        rc = verdict_of(&m->verdict, &j->task, &m->requests, m->likelihoods, e);
    const struct verdict *first = m == j->models ? NULL : &j->models[0].verdict;
    if (rc == 0)
        rc = task_score_of(&m->score, &j->task, &m->verdict, first, j->result.metric, e);
    m->seconds = clock_seconds() - start;
    return rc;
}

/* A stop leaves the models that are done. */
static int run_all(struct job *j, struct err *e)
{
    size_t n = j->run.n_models;
    double total = 0, done = 0;
    int rc = 0;
    for (size_t i = 0; i < n; i++)
        total += (double)j->models[i].n_tokens;
    progress_begin(&j->run.bar, j->s, "scoring", "tokens", (uint64_t)total);
    for (size_t i = 0; rc == 0 && i < n; i++) {
        double mine = (double)j->models[i].n_tokens;
        progress_part(&j->run.bar, done / total, mine / total);
        rc = run_model(j, &j->models[i], e);
        j->result.n_models += rc == 0;
        done += mine;
    }
    progress_end(&j->run.bar);
    return rc == ERR_CANCELLED && j->result.n_models > 0 ? 0 : rc;
}

static int write_records(const struct job *j, struct err *e)
{
    struct text_file f;
    int rc = text_file_begin(&f, j->o->records, e);
    if (rc != 0)
        return rc;
    score_records(&j->result, f.out);
    return text_file_end(&f, 0, j->s->force, e);
}

/* What went wrong behind the measurement does not lose it. */
static void print(struct job *j, const struct err *failure)
{
    struct json_writer w;
    j->result.seconds = clock_seconds() - j->run.start;
    cmd_tell_warnings();
    if (!j->s->json) {
        score_text(&j->result, stdout);
        return;
    }
    cmd_json_begin(&w);
    score_json(&j->result, &w);
    if (failure->code != ERR_OK)
        cmd_json_error(&w, failure);
    cmd_json_end(&w);
}

/* With the hashes of models that are files of their own. */
static int write_page(struct job *j, struct err *e)
{
    struct text_file f;
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < j->result.n_models; i++)
        rc = eval_hash_model(&j->run, &j->run.models[i], e);
    if (rc == 0)
        rc = text_file_begin(&f, j->o->html, e);
    if (rc != 0)
        return rc;
    char *command = outcome_command(), run[160];
    snprintf(run, sizeof run, "%u threads, %s, %.1f seconds", pool_n_threads(j->run.session.pool),
             j->run.session.kern->isa, j->result.seconds);
    const struct page_about about = {KERF_VERSION, command, run};
    if (!command || score_page(&j->result, &about, f.out) != 0)
        rc = err_set(e, ERR_NOMEM, "%s: out of memory for the page", j->o->html);
    free(command);
    return text_file_end(&f, rc, j->s->force, e);
}

static int check_outputs(const struct job *j, struct err *e)
{
    const char *const outputs[] = {j->o->records, j->o->html}, *const inputs[] = {j->o->task, j->o->imatrix};
    int rc = cmd_check_output(j->o->records, j->s->force, e);
    if (rc == 0)
        rc = cmd_check_output(j->o->html, j->s->force, e);
    return rc == 0 ? cmd_claim_outputs(j->s, outputs, 2, inputs, 2, e) : rc;
}

static int measure(struct job *j, struct err *e)
{
    bool plan = j->s->dry_run;
    uint64_t trained = j->run.models[0].net.context_length;
    j->result = (struct score_result){.task = &j->task,
                                      .metric = task_usual_metric(&j->task),
                                      .models = j->models,
                                      .n_models = plan ? j->run.n_models : 0,
                                      .n_asked = j->run.n_models,
                                      .ctx = j->o->ctx ? j->o->ctx : trained,
                                      .chat = j->o->chat,
                                      .dry_run = plan,
                                      .activations = j->o->activations};
    if (strcmp(j->o->metric, "auto") != 0)
        j->result.metric = (enum task_metric)index_of(task_metric_names, TASK_N_METRICS, j->o->metric);
    return plan ? 0 : run_all(j, e);
}

static int run(struct job *j, const char *first, const struct candidate_arg *list, size_t n)
{
    struct err e = {0}, none = {0};
    int rc = check_outputs(j, &e);
    if (rc == 0)
        rc = open_all(j, first, list, n, &e);
    if (rc == 0)
        rc = measure(j, &e);
    if (rc != 0)
        return cmd_fail(&e);
    if (j->o->records && !j->s->dry_run)
        rc = write_records(j, &e);
    if (rc == 0 && j->o->html && !j->s->dry_run)
        rc = write_page(j, &e);
    if (rc == 0 && j->result.n_models < j->result.n_asked)
        rc = err_set(&e, ERR_CANCELLED, ERR_STOPPED);
    print(j, rc == 0 ? &none : &e);
    return rc == 0 ? CMD_DONE : j->s->json ? CMD_FAILED : cmd_fail(&e);
}

/* Everything behind the options; the exit status. */
static int score_operands(const struct opt_command *cmd, struct job *j, const struct opt_operands *args)
{
    struct text_options *t = j->run.text;
    struct candidate_arg *list = calloc(args->n, sizeof *list);
    int status = list ? eval_parse_cache(cmd, &t->cache, t->kv_type)
                      : cmd_fail(&(struct err){ERR_NOMEM, "out of memory for the models"});
    for (size_t i = 1; status == 0 && i < args->n; i++)
        status = candidate_arg_parse(cmd, &list[i - 1], args->items[i]);
    if (status == 0)
        status = run(j, args->items[0], list, args->n - 1);
    free(list);
    return status;
}

/* What --help says above the options. */
static const char description[] =
    "Put the records of a task to one model or several, and compare them with the first: multiple choice by "
    "the log-likelihood of each continuation, short answers by whether they are the greedy continuation "
    "token for token, texts by how well they are predicted. A record is a line {\"context\", \"choices\", "
    "\"answer\"}, {\"context\", \"answer\", \"until\"}, {\"text\"}, or one of HellaSwag, WinoGrande, ARC, "
    "MMLU or PIQA as the data sets have it; prompts, tokens and accuracies are then those of "
    "lm-evaluation-harness. A model behind the first may be the name of a type or mix (Q4_K_M), which is "
    "applied to the first on the fly. Differences are paired: flips are records that one model has right and "
    "the other not, p is McNemar's." ADAPTERS_HELP;

int cmd_score(int argc, char **argv)
{
    struct shared_options shared = SHARED_OPTIONS_INIT;
    struct text_options no_text = TEXT_OPTIONS_INIT; /* of which the cache is used */
    struct options o = {.form = "auto", .metric = "auto", .activations = "f32", .recipe = "llama.cpp"};
    const struct opt options[] = {
        OPT_GROUP("Task:"),
        OPT(TEXT, "task", &o.task, "FILE", "the records: JSON lines, or a task file of llama-perplexity"),
        OPT(CHOICE, "form", &o.form, "auto|jsonl|hellaswag|winogrande|multiple-choice",
            "form of the file; auto recognises it"),
        OPT(UINT, "limit", &o.limit, "N", "use only the first N records", .fallback = "all",
            .range = OPT_RANGE(.min = 1)),
        OPT(CHOICE, "metric", &o.metric, "auto|acc|acc_norm|acc_bytes|acc_token",
            "which accuracy models are compared by; auto: acc_norm for HellaSwag, ARC and PIQA, else acc"),
        OPT(FLAG, "chat", &o.chat, NULL,
            "contexts are a user's message in the model's chat template, and choices open the answer"),
        PARSE_SPECIAL_OPTION(o.parse_special),
        OPT(UINT, "ctx", &o.ctx, "N", "most tokens of a record; longer contexts lose their beginning",
            .fallback = "what the model was trained for", .range = OPT_RANGE(.min = 2, .max = 1 << 24)),
        ACTIVATIONS_OPTION(o.activations),
        KV_OPTION(no_text.kv_type),
        OPT_GROUP("Models that are types, mixes, plans or recipes:"),
        IMATRIX_OPTION(o.imatrix),
        RECIPE_OPTION(o.recipe),
        REQUANTIZE_OPTION(o.requantize),
        OPT_GROUP("Output:"),
        OPT(TEXT, "records", &o.records, "FILE",
            "write what each model answered to each record, with log-likelihoods, as JSON lines"),
        HTML_OPTION(o.html),
    };
    const struct opt_command cmd = {
        .name = "score",
        .operands = "MODEL... --task FILE",
        .description = description,
        OPT_TABLE(options),
        .min_operands = 1,
        .max_operands = SIZE_MAX,
        .uses = USES_ALL,
        .examples = "kerf score Qwen3-0.6B q3-Q4_K_M.gguf Q3_K_M --task arc_easy.jsonl\n"
                    "kerf score q3-Q4_K_M.gguf --task hellaswag_val_full.txt --limit 400 --metric acc_token",
    };
    struct opt_operands args;
    int status = opt_parse(&cmd, argc, argv, &shared, &args);
    if (status != OPT_CONTINUE)
        return status;
    if (!o.task)
        return cmd_usage(&cmd, "--task is missing: the file with the records");
    struct job j = {
        .o = &o,
        .s = &shared,
        .run = {.shared = &shared, .text = &no_text, .imatrix_path = o.imatrix, .recipe = o.recipe}};
    status = score_operands(&cmd, &j, &args);
    job_release(&j);
    return status;
}
