/* cmd_allocate.c - kerf allocate: per-tensor types of least expected loss within a budget. */
#include "allocate_job.h"
#include "tools/write/feedback_command.h"
#include "tools/options/type_options.h"

#include "calib/feedback/feedback_gain.h"
#include "formats/output/output_file.h"
#include "libquant/base/path.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define DEFAULT_PROBES "Q2_K,Q4_K"
#define STATE_SECONDS  60 /* what a kill may cost */

/* --- options --- */

static void add_type(enum qtype *list, size_t *n, enum qtype type)
{
    for (size_t i = 0; i < *n; i++)
        if (list[i] == type)
            return;
    list[(*n)++] = type;
}

/* "Q2_K,Q4_K" */
static int parse_types(const struct opt_command *cmd, const char *option, const char *text, enum qtype *list,
                       size_t *n)
{
    while (*text) {
        size_t len = strcspn(text, ",");
        char word[32];
        enum qtype type;
        snprintf(word, sizeof word, "%.*s", (int)(len < 31 ? len : 31), text);
        int status = parse_tensor_type(cmd, option, word, &type);
        if (status)
            return status;
        add_type(list, n, type);
        text += len + (text[len] == ',');
    }
    return *n ? 0 : cmd_usage(cmd, "%s: expected types, separated by commas", option);
}

static bool is_fast(const struct allocate_asked *o)
{
    return o->probe ? strcmp(o->probe, "fast") == 0 : o->probes == NULL;
}

static int parse_rules(const struct opt_command *cmd, struct allocate_job *j, const char *option,
                       const struct opt_list *l, enum allocate_bound bound)
{
    for (size_t i = 0; i < l->n; i++) {
        struct allocate_rule *rule = &j->rules[j->n_rules];
        int status = parse_type_rule(cmd, option, l->items[i], &j->patterns[j->n_rules], &rule->type);
        if (status)
            return status;
        rule->pattern = j->patterns[j->n_rules++];
        rule->bound = bound;
        if (bound == ALLOCATE_FIX)
            add_type(j->types, &j->n_types, rule->type);
    }
    return 0;
}

static int check_options(const struct opt_command *cmd, struct allocate_job *j)
{
    struct allocate_asked *o = j->o;
    size_t n = o->min.n + o->max.n + o->fix.n;
    int status = 0;
    status = budget_check(cmd, &o->budget);
    if (status != 0)
        return status;
    if (!o->output && !j->shared->dry_run)
        return cmd_usage(cmd, "--output PLAN is required");
    j->rules = calloc(n + 1, sizeof *j->rules);
    j->patterns = calloc(n + 1, sizeof *j->patterns);
    if (!j->rules || !j->patterns)
        return cmd_fail(&(struct err){ERR_NOMEM, "out of memory for the rules"});
    if (o->probes && is_fast(o))
        return cmd_usage(cmd, "--probes names the types of --probe full; fast probes choose theirs");
    if (o->types)
        status = parse_types(cmd, "--types", o->types, j->types, &j->n_types);
    else
        j->n_types = loss_table_all_types(j->types);
    if (status == 0 && (!o->probes || strcmp(o->probes, "all") != 0))
        status =
            parse_types(cmd, "--probes", o->probes ? o->probes : DEFAULT_PROBES, j->probes, &j->n_probes);
    if (status == 0)
        status = parse_rules(cmd, j, "--min", &o->min, ALLOCATE_MIN);
    if (status == 0)
        status = parse_rules(cmd, j, "--max", &o->max, ALLOCATE_MAX);
    if (status == 0)
        status = parse_rules(cmd, j, "--fix", &o->fix, ALLOCATE_FIX);
    return status;
}

/* --- the loss table --- */

/* What a stop or a failure has cost, and how to go on. */
static int explain_end(const struct allocate_job *j, int rc, struct err *e)
{
    const struct loss_table *t = &j->table;
    if (rc == ERR_CANCELLED && t->is_kept)
        return err_set(e, rc,
                       ERR_STOPPED
                       ": %zu of %zu measurements are kept in %s; the same command continues from there",
                       t->n_kept, j->kept.n, j->state);
    if (rc == ERR_CANCELLED)
        return err_set(e, rc, ERR_STOPPED ": nothing is kept%s",
                       j->state
                           ? ", nothing was measured yet"
                           : "; with --table FILE it would be, and the same command would go on from there");
    if (t->is_kept)
        return err_context(e, rc, "%zu measurements are kept in %s, the same command continues from there",
                           t->n_kept, j->state);
    return rc;
}

static int open_text(struct allocate_job *j, struct err *e)
{
    j->r->text->chunks = 0;
    return eval_open_text(j->r, e);
}

/* Windows for the sensitivities, and half as many others for the confirmation. */
static int split_windows(struct allocate_job *j, size_t n, struct err *e)
{
    int rc = windows_split(&j->r->windows, n, &j->held_out, n > 1 ? n / 2 : 1, e);
    j->is_unseen = j->r->text->stride == 0; /* with a stride windows overlap */
    return rc;
}

static int measure(struct allocate_job *j, uint64_t chunks, struct err *e)
{
    struct eval_run *r = j->r;
    int rc = open_text(j, e);
    if (rc == 0)
        rc = split_windows(j, (size_t)chunks, e);
    if (rc != 0)
        return rc;
    j->planned = r->shared->dry_run;
    corpus_hash(&r->corpus, j->table.ids_sha256);
    j->table.activations = eval_activations(r->text);
    j->table.probe = is_fast(j->o) ? LOSS_PROBE_FAST : LOSS_PROBE_FULL;
    struct loss_measure m = {.pool = r->session.pool,
                             .kern = r->session.kern,
                             .memory_bytes = r->shared->memory_bytes,
                             .requantize = j->o->requantize,
                             .probes = j->probes,
                             .n_probes = j->n_probes,
                             .passes_kept_back = 3.0 * (double)j->held_out.n / (double)r->windows.n,
                             .progress = progress_on(&r->bar),
                             .state_path = j->state,
                             .state_seconds = STATE_SECONDS};
    rc = loss_table_check(&j->table, &r->models[0].net, r->models[0].weights, &r->windows, &m, e);
    if (rc == 0)
        rc = kept_losses_take(&j->kept, &j->table, &r->windows, &m, r->shared, e);
    if (rc != 0 || j->planned)
        return rc;
    progress_begin(&r->bar, r->shared, "measuring", "steps", 1000);
    rc = loss_table_measure(&j->table, &r->models[0].net, r->models[0].weights, &r->windows, &m, e);
    progress_end(&r->bar);
    j->passes = j->table.passes;
    if (rc == 0 && j->o->table)
        rc = loss_table_save(&j->table, j->o->table, r->shared->force, e);
    if (rc != 0)
        return explain_end(j, rc, e);
    if (j->state)
        unlink(j->state);
    return 0;
}

/* Windows for the confirmation of losses that were measured before. Of the same text, those are unseen that
 * the sensitivities left out. */
static int open_other_windows(struct allocate_job *j, uint64_t chunks, struct err *e)
{
    char ids[65];
    const struct loss_table *t = &j->table;
    int rc = open_text(j, e);
    if (rc != 0)
        return rc;
    corpus_hash(&j->r->corpus, ids);
    bool same_text = strcmp(ids, t->ids_sha256) == 0;
    rc = split_windows(j, same_text && t->n_windows ? t->n_windows : (size_t)chunks, e);
    if (same_text && (t->ctx != j->r->windows.ctx || t->n_windows != j->r->windows.n))
        j->is_unseen = false;
    return rc;
}

/* From the file if it exists, else from the model. */
static int take_losses(struct allocate_job *j, uint64_t chunks, struct err *e)
{
    struct eval_run *r = j->r;
    bool exists = j->o->table && access(j->o->table, F_OK) == 0, has_text = r->text->texts.n || r->text->ids;
    if (!exists || (r->shared->force && has_text))
        return measure(j, chunks, e);
    cmd_note(r->shared, "losses from %s", j->o->table);
    if (!has_text && !j->o->no_confirm)
        cmd_note(r->shared,
                 "no --text: the plan is not compared with the standard mix of its size; with one it is, and "
                 "--no-confirm goes without");
    int rc = loss_table_load(&j->table, j->o->table, e);
    if (rc == 0 && (j->o->probe || j->o->probes) && is_fast(j->o) != (j->table.probe == LOSS_PROBE_FAST))
        rc = err_set(e, ERR_ARG, "%s: measured with %s probes, not %s; name another file for --table",
                     j->o->table, is_fast(j->o) ? "full" : "fast", is_fast(j->o) ? "fast" : "full");
    return rc == 0 && has_text && !j->o->no_confirm && !r->shared->dry_run ? open_other_windows(j, chunks, e)
                                                                           : rc;
}

/* --- what error feedback will leave --- */

int allocate_take_gains(struct loss_table *table, const struct hessian_file *hessian, struct eval_run *r,
                        struct err *e)
{
    struct feedback_gain_options opt = {.pool = r->session.pool,
                                        .kern = r->session.kern,
                                        .hessian = hessian,
                                        .progress = progress_on(&r->bar)};
    progress_begin(&r->bar, r->shared, "estimating error feedback", "steps", 1000);
    signals_cooperate(true);
    int rc = feedback_gain_apply(table, &opt, e);
    signals_cooperate(false);
    progress_end(&r->bar);
    return rc;
}

static int open_hessians(struct allocate_job *j, struct hessian_file **out, struct err *e)
{
    const struct eval_run *r = j->r;
    int rc = hessian_file_open(out, j->o->hessian, e);
    return rc ? rc
              : feedback_check_machine(&r->models[0].net, &r->session, r->shared->memory_bytes, false, NULL,
                                       e);
}

static int check_hessians(const struct allocate_job *j, const struct hessian_file *h, struct err *e)
{
    char doubt[FEEDBACK_DOUBT_BYTES];
    feedback_doubt_weights(doubt, h, j->table.weights_sha256);
    return doubt[0] ? err_set(e, ERR_ARG, "%s: %s", j->o->hessian, doubt) : 0;
}

/* --- the confirming measurement --- */

/* The mix in place of a plan that loses to it. */
static int judge(struct allocate_job *j, struct err *e)
{
    const struct confirmation *c = &j->confirmation;
    if (c->plan_wins && c->is_certain)
        return 0;
    if (c->plan_wins) {
        cmd_warn(
            j->shared,
            "[no-real-gain] the plan beats %s by less than the error of the measurement: %.3g ± %.1g nats",
            c->mix->name, -c->difference.value, c->difference.error);
        return 0;
    }
    int rc =
        allocator_take_mix(j->allocator, c->mix, j->allocation.budget_bytes, &j->allocation, &j->took_mix, e);
    if (rc == 0 && j->took_mix)
        cmd_warn(j->shared,
                 "[mix-is-better] the plan does not beat %s (KLD %.4g against %.4g): the types are those of "
                 "the mix",
                 c->mix->name, c->plan_kld.value, c->mix_kld.value);
    else if (rc == 0)
        cmd_warn(j->shared,
                 "[mix-is-better] the plan does not beat %s (KLD %.4g against %.4g), which --types, the "
                 "rules or the size do not allow as a plan; quantize with --type %s instead",
                 c->mix->name, c->plan_kld.value, c->mix_kld.value, c->mix->name);
    return rc;
}

/* Plan and standard mix on other text: the better one stays. */
static int confirm(struct allocate_job *j, struct err *e)
{
    struct eval_run *r = j->r;
    const struct windows *w = j->held_out.n ? &j->held_out : &r->windows;
    const struct mix *mix = NULL;
    int rc = allocator_standard_mix(j->allocator, j->allocation.budget_bytes, &mix, e);
    if (rc != 0)
        return rc;
    if (!mix) {
        cmd_note(r->shared, "no standard mix is as small as this plan: nothing to compare it with");
        return 0;
    }
    struct evaluate_options opt = {.pool = r->session.pool,
                                   .memory_bytes = r->shared->memory_bytes,
                                   .activations = eval_activations(r->text),
                                   .progress = progress_on(&r->bar)};
    progress_begin(&r->bar, r->shared, "comparing with the mix", "steps", 1000);
    rc = confirm_plan(&j->confirmation, j->allocator, &j->allocation, mix, &r->models[0].net,
                      r->models[0].weights, w, &opt, e);
    progress_end(&r->bar);
    if (rc != 0)
        return rc;
    j->confirmation.held_out = j->held_out.n > 0 && j->is_unseen;
    j->passes += j->confirmation.passes;
    return judge(j, e);
}

/* --- output --- */

static int write_plan(const struct allocate_job *j, struct err *e)
{
    char *text = NULL, remark[400] = "";
    if (j->confirmation.mix)
        confirm_sentence(remark, sizeof remark, &j->confirmation);
    if (j->took_mix) {
        size_t n = strlen(remark);
        snprintf(remark + n, sizeof remark - n, "; the types are those of %s", j->confirmation.mix->name);
    }
    int rc = allocator_plan(j->allocator, &j->allocation, remark[0] ? remark : NULL, &text, e);
    if (rc == 0)
        rc = output_file_write_all(j->o->output, text, strlen(text), j->shared->force, e);
    free(text);
    return rc;
}

/* Plan and page, and the result to standard output. */
static int tell(const struct allocate_job *j, struct err *e)
{
    const bool dry = j->shared->dry_run;
    int rc = dry ? 0 : write_plan(j, e);
    if (rc == 0 && j->o->html && !dry)
        rc = allocate_write_page(j, e);
    if (rc == 0 && j->shared->json)
        allocate_print_json(j);
    else if (rc == 0 && j->planned)
        allocate_print_dry(j);
    else if (rc == 0)
        allocate_print_text(j);
    return rc;
}

/* The choice, and how it stands beside the standard mix. */
static int choose(struct allocate_job *j, uint64_t budget, struct err *e)
{
    int rc = allocator_solve(j->allocator, budget, &j->allocation, e);
    if (rc == 0 && j->o->hessian)
        cmd_note(
            j->shared,
            "the plan is for error feedback and is not compared with the standard mix of its size, which "
            "'kerf compare' does with the files; 'kerf best' makes and compares both");
    else if (rc == 0 && !j->o->no_confirm && j->r->windows.n > 0)
        rc = confirm(j, e);
    return rc;
}

static int run(struct allocate_job *j, const char *model, uint64_t chunks, struct err *e)
{
    struct allocate_asked *o = j->o;
    uint64_t budget = 0;
    bool force = j->shared->force;
    struct hessian_file *hessian = NULL;
    if (o->table && !(j->state = path_with(o->table, ".kerf-state")))
        return err_set(e, ERR_NOMEM, "out of memory");
    const char *const written[] = {o->output, o->table, o->html}, *const read[] = {o->imatrix, o->hessian};
    int rc = cmd_check_output(o->output, force, e);
    if (rc == 0)
        rc = cmd_check_output(o->html, force, e);
    if (rc == 0)
        rc = cmd_claim_outputs(j->shared, written, 3, read, 2, e);
    if (rc == 0 && o->table)
        rc = cmd_check_folder(o->table, e);
    if (rc == 0)
        rc = eval_open(j->r, model, 0, e);
    if (rc == 0)
        rc = net_need_tokens(&j->r->models[0].net, "allocation by measured loss", e);
    if (rc == 0 && o->hessian)
        rc = open_hessians(j, &hessian, e);
    const char *outputs[] = {o->output, o->html, o->table, j->state};
    for (size_t i = 0; rc == 0 && i < sizeof outputs / sizeof *outputs; i++)
        rc = eval_check_inputs(j->r, outputs[i], e);
    for (size_t i = 0; rc == 0 && o->table && i < 2; i++) /* read when it exists */
        rc = outputs[i] ? output_file_check_input(outputs[i], o->table, e) : 0;
    if (rc == 0)
        rc = loss_table_init(&j->table, j->r->models[0].model, j->r->imatrix, j->types, j->n_types, e);
    if (rc == 0 && hessian)
        rc = check_hessians(j, hessian, e);
    struct allocate_options ao = {.rules = j->rules,
                                  .n_rules = j->n_rules,
                                  .without_source = o->types != NULL,
                                  .free_pairs = o->free_pairs,
                                  .imatrix_path = o->imatrix,
                                  .record_bytes = hessian ? ALLOCATE_FEEDBACK_RECORD_BYTES : 0,
                                  .requantize = o->requantize,
                                  .pool = j->r->session.pool,
                                  .kern = j->r->session.kern};
    if (rc == 0)
        rc = allocator_new(&j->allocator, &j->table, &ao, e);
    for (size_t i = 0; rc == 0 && i < allocator_n_warnings(j->allocator); i++)
        cmd_warn_of(j->shared, NULL, allocator_warning(j->allocator, i));
    if (rc == 0)
        rc = budget_bytes(&budget, &o->budget, j->allocator, j->shared, e);
    if (rc == 0) /* before the work, which may take hours */
        rc = allocator_check(j->allocator, budget, e);
    if (rc == 0)
        rc = take_losses(j, chunks, e);
    if (rc == 0 && j->planned)
        j->allocation.budget_bytes = budget;
    else if (rc == 0 && hessian)
        rc = allocate_take_gains(&j->table, hessian, j->r, e);
    hessian_file_close(hessian);
    if (rc == 0 && !j->planned)
        rc = choose(j, budget, e);
    return rc ? rc : tell(j, e);
}

/* Everything behind the options; the exit status. */
static int allocate_operand(const struct opt_command *cmd, struct allocate_job *j, const char *model)
{
    struct allocate_asked *o = j->o;
    struct text_options *text = j->r->text;
    struct err e = {0};
    const bool has_table = o->table && access(o->table, F_OK) == 0, has_text = text->texts.n || text->ids;
    budget_take_shared(&o->budget, &text->ctx, j->shared);
    int status = has_table && !has_text ? 0 : eval_check_options(cmd, text, false);
    if (status == 0)
        status = check_options(cmd, j);
    if (status != 0)
        return status;
    if (!o->imatrix)
        o->imatrix = o->hessian;
    j->r->imatrix_path = o->imatrix;
    o->no_confirm |= o->hessian != NULL;
    return run(j, model, text->chunks, &e) == 0 ? CMD_DONE : cmd_fail(&e);
}

static void job_release(struct allocate_job *j)
{
    windows_release(&j->held_out);
    allocation_release(&j->allocation);
    allocator_free(j->allocator);
    loss_table_release(&j->table);
    free(j->state);
    eval_release(j->r);
    for (size_t i = 0; i < j->n_rules; i++)
        free(j->patterns[i]);
    free(j->patterns);
    free(j->rules);
}

/* Rows of the option table. */
#define LOSS_OPTIONS(o)                                                                                      \
    OPT_GROUP("Losses:"),                                                                                    \
        OPT(TEXT, "table", &(o).table, "FILE",                                                               \
            "measured losses: read if the file exists (no text is needed then), else written. What a "       \
            "stopped run has measured is kept in FILE.kerf-state, and the same command continues from "      \
            "there"),                                                                                        \
        OPT(CHOICE, "probe", &(o).probe, "fast|full",                                                        \
            "where the loss of a tensor is measured. fast: at the output of its layer, scaled by a curve "   \
            "over depth (embedding, head and layers of massive activations: at the model's output); at "     \
            "most 20 passes over the text. full: at the model's output, a pass for each tensor and probed "  \
            "type",                                                                                          \
            .fallback = "fast, full with --probes"),                                                         \
        OPT(TEXT, "probes", &(o).probes, "LIST|all",                                                         \
            "of full probes: types whose loss is measured for each tensor; the others follow from their "    \
            "error",                                                                                         \
            .fallback = DEFAULT_PROBES),                                                                     \
        OPT(FLAG, "no-confirm", &(o).no_confirm, NULL,                                                       \
            "leave out the measurement of plan and standard mix on text that the losses were not measured "  \
            "on; without it a plan that does not beat the mix gives way to it"),                             \
        IMATRIX_OPTION((o).imatrix),                                                                         \
        OPT(TEXT, "hessian", &(o).hessian, "FILE",                                                           \
            "a plan for --method feedback: the losses are those that error feedback under these Hessians "   \
            "is expected to leave, by a sample of rows of each matrix, which each run solves (--table "      \
            "keeps the losses without feedback, which serve any Hessians); also the importance matrix, "     \
            "unless --imatrix names another. The plan is not compared with the mix, which no feedback was "  \
            "used on"),                                                                                      \
        REQUANTIZE_OPTION((o).requantize)

/* What --help says above the options. */
static const char description[] =
    "Choose a type for every tensor so that the expected loss is least within a budget. Losses are "
    "measured on the text (--chunks windows, evenly spread) in at most 20 forward passes over those "
    "windows, or with --probe full in about (tensors x probes / 2); with --table it is done once for "
    "any number of budgets. In the end the plan is measured beside the standard mix of that size, on "
    "windows that were not used so far, and the better one stays." ADAPTERS_HELP;

int cmd_allocate(int argc, char **argv)
{
    struct shared_options shared = SHARED_OPTIONS_INIT;
    struct text_options text = TEXT_OPTIONS_INIT;
    struct allocate_asked o = {.output = NULL};
    text.chunks = 4;
    const struct opt options[] = {
        OPT(TEXT, "output", &o.output, "PLAN", "the plan to write, for kerf quantize --plan", .letter = 'o'),
        BUDGET_OPTIONS(o.budget),
        OPT_GROUP("Choice:"),
        OPT(TEXT, "types", &o.types, "LIST", "types to choose from, separated by commas",
            .fallback = "every type that can be written, and the one a tensor has"),
        OPT(LIST, "min", &o.min, "REGEX=TYPE",
            "tensors whose GGUF name matches REGEX anywhere get at least the bits of this type"),
        OPT(LIST, "max", &o.max, "REGEX=TYPE", "at most the bits of this type"),
        OPT(LIST, "fix", &o.fix, "REGEX=TYPE", "exactly this type"),
        OPT(FLAG, "free-pairs", &o.free_pairs, NULL,
            "gate and up projections of a layer may differ in type, which runtimes run slower"),
        LOSS_OPTIONS(o),
        TEXT_OPTIONS(text),
        STRIDE_OPTION(text),
        OPT_GROUP("Output:"),
        OPT(TEXT, "html", &o.html, "FILE", "write a page with the choice and the frontier, too"),
    };
    const struct opt_command cmd = {
        .name = "allocate",
        .operands = "MODEL --text TEXT (--target-size SIZE | --target-bpw B | --memory SIZE --ctx N) -o PLAN",
        .description = description,
        OPT_TABLE(options),
        .min_operands = 1,
        .max_operands = 1,
        .uses = USES_ALL,
        .examples = "kerf allocate Qwen3-0.6B --text calibration.txt --target-size 400MB -o q3.plan\n"
                    "kerf allocate Qwen3-0.6B --text calibration.txt --memory 2GiB --ctx 8192 -o q3.plan",
    };
    struct opt_operands args;
    struct eval_run r = {.shared = &shared, .text = &text, .recipe = "llama.cpp"};
    struct allocate_job j = {.o = &o, .shared = &shared, .r = &r};
    int status = opt_parse(&cmd, argc, argv, &shared, &args);
    if (status == OPT_CONTINUE)
        status = allocate_operand(&cmd, &j, args.items[0]);
    job_release(&j);
    opt_list_release(&o.min);
    opt_list_release(&o.max);
    opt_list_release(&o.fix);
    return status;
}
