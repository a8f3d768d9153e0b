/* cmd_best.c - kerf best: the best file of a size, in one go. One text is divided: Hessians and sensitivities
 * see its first windows, the gate of the error feedback the next, and the report only what is left. */
#include "allocate_job.h"
#include "tools/measure/eval_command.h"
#include "tools/write/feedback_command.h"
#include "tools/write/feedback_finished.h"
#include "tools/options/type_options.h"

#include "calib/eval/statistics.h"
#include "calib/solve/allocate.h"
#include "calib/solve/loss_table.h"
#include "calib/stats/hessian_file.h"
#include "formats/gguf/gguf_read.h"
#include "formats/gguf/imatrix_file.h"
#include "formats/json.h"
#include "formats/output/output_file.h"
#include "formats/recipe/plan.h"
#include "libquant/base/path.h"
#include "libquant/base/sha256.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SENSITIVITY_WINDOWS 4
#define GATE_WINDOWS        8
#define REPORT_WINDOWS      16
#define STATE_SECONDS       60

struct options {
    const char *output, *html, *method;
    struct budget_options budget;
    bool requantize, resume;
};

#define IDENTITY_KEY FEEDBACK_KEY ".best_identity" /* in the file: the run that wrote it */

struct job {
    struct options *o;
    struct shared_options *shared;
    struct eval_run *r;
    struct windows all; /* of the text; r->windows is what the step at hand runs on */
    size_t n_calibration, n_gate, n_report;
    char *hessian, *hessian_state, *losses; /* beside the output; owned */
    uint64_t budget, least, most;           /* bytes of the file that is asked for, and of those possible */
    struct feedback_run feedback;
    char weights_sha256[65];
    char identity[65];   /* what decides about the file */
    bool finished;       /* it stands, and was this run's: nothing is left to do */
    bool continued;      /* something that a stopped run kept was taken up */
    bool written;        /* the file stands; what follows is its report */
    bool has_feedback;   /* some matrix was solved */
    char importance[80]; /* what the matrix is of, for the report */
    struct loss_table table;
    struct allocator *allocator;
    struct allocation allocation;
    const struct mix *mix; /* to compare with; NULL: none is so small */
};

/* --- the text --- */

/* Windows [first, first + n), n_kept of them evenly spread. Owned by the caller. */
static int part_of(struct windows *out, const struct windows *all, size_t first, size_t n, size_t n_kept,
                   struct err *e)
{
    size_t run = windows_n_scored(all);
    struct windows w = {.ctx = all->ctx, .n = n, .first = all->first, .end = all->end};
    w.inputs = malloc(n * all->ctx * sizeof *w.inputs + 1);
    w.targets = malloc(n * run * sizeof *w.targets + 1);
    if (!w.inputs || !w.targets) {
        windows_release(&w);
        return err_set(e, ERR_NOMEM, "out of memory for %zu windows", n);
    }
    memcpy(w.inputs, all->inputs + first * all->ctx, n * all->ctx * sizeof *w.inputs);
    memcpy(w.targets, all->targets + first * run, n * run * sizeof *w.targets);
    windows_thin(&w, n_kept);
    *out = w;
    return 0;
}

static size_t at_most(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* A fifth for the report, a tenth for the gate, within their bounds; the rest to calibrate on. */
static int divide(struct job *j, size_t chunks, struct err *e)
{
    size_t n = j->all.n, report = at_most(n / 5 ? n / 5 : 1, REPORT_WINDOWS),
           gate = at_most(n / 10 ? n / 10 : 1, GATE_WINDOWS);
    if (n < 3)
        return err_set(e, ERR_ARG,
                       "the text gives %zu window%s of %zu tokens; three are the least, to calibrate on, to "
                       "check with, and to report on",
                       n, n == 1 ? "" : "s", j->all.ctx);
    j->n_calibration = at_most(n - report - gate, chunks);
    j->n_gate = gate;
    j->n_report = n - j->n_calibration - gate;
    return 0;
}

static int open_text(struct job *j, struct err *e)
{
    struct eval_run *r = j->r;
    size_t chunks = (size_t)r->text->chunks;
    r->text->chunks = 0;
    int rc = eval_open_text(r, e);
    if (rc != 0)
        return rc;
    j->all = r->windows;
    r->windows = (struct windows){0};
    return divide(j, chunks, e);
}

/* --- a file that is there --- */

/* Everything that the file follows from: program, request, weights, tokens and their division. */
static int make_identity(struct job *j, struct err *e)
{
    struct sha256 h;
    char ids[65];
    int rc = loss_weights_hash(j->r->models[0].model, j->weights_sha256, e);
    if (rc != 0)
        return rc;
    corpus_hash(&j->r->corpus, ids);
    sha256_init(&h);
    sha256_update(&h, KERF_VERSION, strlen(KERF_VERSION) + 1);
    sha256_update(&h, j->o->method, strlen(j->o->method) + 1);
    sha256_update(&h, j->weights_sha256, sizeof j->weights_sha256);
    sha256_update(&h, ids, sizeof ids);
    sha256_update_u64(&h, j->o->requantize);
    sha256_update_u64(&h, j->budget);
    windows_add_to_hash(&h, &j->all);
    sha256_update_u64(&h, j->n_calibration);
    sha256_update_u64(&h, j->n_gate);
    sha256_final_hex(&h, j->identity);
    return 0;
}

/* With --resume an output that is there is this run's, or in the way. */
static int find_finished(struct job *j, struct err *e)
{
    struct gguf_reader *file = NULL;
    struct gguf_string s;
    const char *output = j->o->output;
    int rc = make_identity(j, e);
    if (rc != 0 || !j->o->resume || j->shared->force || access(output, F_OK) != 0)
        return rc;
    j->finished = gguf_reader_open(&file, output, NULL, NULL) == 0 &&
                  gguf_meta_get_string(gguf_reader_meta(file), IDENTITY_KEY, &s) &&
                  gguf_string_is(s, j->identity);
    if (j->finished)
        rc = feedback_check_blocks(file, output, &j->r->models[0].net, &j->r->corpus, e);
    gguf_reader_close(file);
    if (rc != 0)
        return rc;
    return j->finished ? 0
                       : err_set(e, ERR_EXISTS,
                                 "%s: exists already, and is not what this run would write: its text, size, "
                                 "method, weights or program differ; use --force to replace it",
                                 output);
}

/* --- Hessians --- */

/* Those of a run that was stopped later on, or new ones; others are dropped when that is asked for. */
static int take_hessians(struct job *j, struct err *e)
{
    const struct eval_run *r = j->r;
    struct windows w = j->all; /* borrowed */
    w.n = j->n_calibration;
    const struct feedback_collection c = {.path = j->hessian,
                                          .state_path = j->hessian_state,
                                          .corpus = &r->corpus,
                                          .windows = &w,
                                          .net = &r->models[0].net,
                                          .weights = r->models[0].weights,
                                          .weights_sha256 = j->weights_sha256,
                                          .resume = true,
                                          .replace = j->shared->force};
    return feedback_collect(&j->continued, &c, &r->session, r->shared, e);
}

/* --- sensitivities and plan --- */

static struct loss_measure how_to_measure(struct job *j)
{
    struct eval_run *r = j->r;
    j->table.probe = LOSS_PROBE_FAST;
    return (struct loss_measure){.pool = r->session.pool,
                                 .kern = r->session.kern,
                                 .memory_bytes = r->shared->memory_bytes,
                                 .requantize = j->o->requantize,
                                 .progress = progress_on(&r->bar),
                                 .state_path = j->losses,
                                 .state_seconds = STATE_SECONDS};
}

static int measure(struct job *j, struct err *e)
{
    struct eval_run *r = j->r;
    struct windows w = {0};
    const struct loss_measure m = how_to_measure(j);
    int rc = part_of(&w, &j->all, 0, j->n_calibration, SENSITIVITY_WINDOWS, e);
    if (rc != 0)
        return rc;
    corpus_hash(&r->corpus, j->table.ids_sha256);
    struct kept_losses kept = {0};
    rc = kept_losses_take(&kept, &j->table, &w, &m, j->shared, e);
    j->continued |= kept.n_known > 0;
    if (rc == 0) {
        progress_begin(&r->bar, r->shared, "measuring", "steps", 1000);
        rc = loss_table_measure(&j->table, &r->models[0].net, r->models[0].weights, &w, &m, e);
        progress_end(&r->bar);
    }
    windows_release(&w);
    return rc;
}

/* Table and allocator without losses; ERR_ARG when no plan is so small. */
static int begin_plan(struct job *j, const struct imatrix *importance, struct err *e)
{
    struct eval_run *r = j->r;
    enum qtype types[QTYPE_COUNT];
    size_t n = loss_table_all_types(types);
    int rc = loss_table_init(&j->table, r->models[0].model, importance, types, n, e);
    struct allocate_options ao = {.record_bytes = ALLOCATE_FEEDBACK_RECORD_BYTES,
                                  .requantize = j->o->requantize,
                                  .pool = r->session.pool,
                                  .kern = r->session.kern};
    if (rc == 0)
        rc = allocator_new(&j->allocator, &j->table, &ao, e);
    if (rc == 0 && j->budget == 0)
        rc = budget_bytes(&j->budget, &j->o->budget, j->allocator, r->shared, e);
    if (rc == 0) {
        j->least = allocator_min_bytes(j->allocator);
        j->most = allocator_max_bytes(j->allocator);
        rc = allocator_check(j->allocator, j->budget, e);
    }
    return rc;
}

static void end_plan(struct job *j)
{
    allocator_free(j->allocator);
    j->allocator = NULL;
    loss_table_release(&j->table);
}

/* What is not possible, before the work. */
static int check_budget(struct job *j, struct err *e)
{
    struct imatrix *m = NULL;
    int rc = feedback_stand_in(&m, &j->r->models[0].net, &j->r->corpus, e);
    if (rc == 0)
        rc = begin_plan(j, m, e);
    if (rc == 0) { /* of all steps, the sensitivities need the most memory for a window */
        const struct loss_measure how = how_to_measure(j);
        struct windows w = j->all; /* borrowed */
        w.n = at_most(j->n_calibration, SENSITIVITY_WINDOWS);
        rc = loss_table_check(&j->table, &j->r->models[0].net, j->r->models[0].weights, &w, &how, e);
    }
    end_plan(j);
    imatrix_free(m);
    return rc;
}

static int choose(struct job *j, struct err *e)
{
    struct hessian_file *hessian = NULL;
    int rc = begin_plan(j, j->r->imatrix, e);
    if (rc == 0)
        rc = measure(j, e);
    if (rc == 0)
        rc = hessian_file_open(&hessian, j->hessian, e);
    if (rc == 0)
        rc = allocate_take_gains(&j->table, hessian, j->r, e);
    hessian_file_close(hessian);
    if (rc == 0)
        rc = allocator_solve(j->allocator, j->budget, &j->allocation, e);
    if (rc == 0)
        rc = allocator_standard_mix(j->allocator, j->budget, &j->mix, e);
    return rc;
}

/* --- writing --- */

/* A plan of a large budget may have none of the types that error feedback is for. */
static bool any_takes_feedback(const struct net *net, const struct plan *plan)
{
    const struct model_tensor *head = net->head.tensor;
    enum qtype type;
    if (head && plan_find(plan, head->name, &type) && feedback_takes(head, type))
        return true;
    for (uint32_t l = 0; l < net->n_layers; l++)
        for (size_t i = 0; i < net->layers[l].n_matrices; i++) {
            const struct model_tensor *t = net->layers[l].matrices[i];
            if (t && plan_find(plan, t->name, &type) && feedback_takes(t, type))
                return true;
        }
    return false;
}

static int write_file(struct job *j, struct err *e)
{
    struct eval_run *r = j->r;
    struct plan *plan = NULL;
    char *text = NULL;
    struct feedback_options fo = {.corpus = &r->corpus,
                                  .windows = &j->all,
                                  .hessian = j->hessian,
                                  .method = j->o->method,
                                  .ctx = j->all.ctx,
                                  .held_out = j->n_gate};
    int rc = allocator_plan(j->allocator, &j->allocation, NULL, &text, e);
    if (rc == 0)
        rc = plan_parse(&plan, text, strlen(text), "the plan", e);
    struct rewrite_options ro = {.recipe = {.recipe = "llama.cpp", .plan = plan, .has_imatrix = true},
                                 .imatrix = r->imatrix,
                                 .allow_requantize = j->o->requantize,
                                 .overwrite = r->shared->force,
                                 .resume = true, /* solved layers, too, are kept when the run is stopped */
                                 .memory_bytes = r->shared->memory_bytes,
                                 .kern = r->session.kern,
                                 .pool = r->session.pool,
                                 .progress = progress_on(&r->bar)};
    j->has_feedback = rc == 0 && any_takes_feedback(&r->models[0].net, plan);
    if (rc == 0 && !j->has_feedback)
        cmd_warn(j->shared,
                 "[feedback-idle] no matrix of the layers has a type that error feedback is for; the file is "
                 "the plain encoder's");
    if (j->has_feedback)
        rc = feedback_prepare(&j->feedback, &ro, r->models[0].model, &r->session, &fo, r->shared,
                              j->o->output, e);
    j->continued |= j->feedback.continued;
    if (rc == 0 && !j->feedback.extra)
        rc = gguf_meta_new(&j->feedback.extra, e);
    if (rc == 0)
        rc = gguf_meta_set_string(j->feedback.extra, IDENTITY_KEY, j->identity, e);
    ro.extra = j->feedback.extra;
    if (rc == 0) {
        progress_begin(&r->bar, r->shared, "writing", "B", 0);
        rc = rewrite_model(NULL, r->models[0].model, j->o->output, &ro, e);
        progress_end(&r->bar);
    }
    if (rc == 0 && j->has_feedback)
        feedback_warn(&j->feedback, r->shared);
    plan_free(plan);
    free(text);
    return rc;
}

/* --- the report --- */

/* Is the file better than the mix on text that nothing has seen? */
static void judge(struct job *j)
{
    const struct evaluation *v = &j->r->evaluation;
    if (!j->mix || v->n_models < 3 || v->n_windows == 0)
        return;
    size_t *ends = calloc(v->n_windows, sizeof *ends);
    struct estimate d = stat_mean_difference(v->kld[1], v->kld[2], v->n);
    for (size_t i = 0; ends && i < v->n_windows; i++)
        ends[i] = (i + 1) * v->run;
    if (ends && v->n_windows > 1)
        d = stat_mean_difference_of_groups(v->kld[1], v->kld[2], ends, v->n_windows);
    free(ends);
    if (d.value >= 0)
        cmd_warn(
            j->shared,
            "[mix-is-better] %s does not lose less than %s on held-out text (difference %.3g ± %.1g nats)",
            j->o->output, j->mix->name, d.value, d.error);
    else if (!(-d.value > 2 * d.error))
        cmd_warn(
            j->shared,
            "[no-real-gain] what it gains over %s on held-out text is within the error: %.3g ± %.1g nats",
            j->mix->name, -d.value, d.error);
}

static void print_sizes(const struct job *j, uint64_t n_bytes, double bits_per_weight)
{
    printf("%s: %" PRIu64 " bytes (at most %" PRIu64 "), %.3f bits per weight\n", j->o->output, n_bytes,
           j->budget, bits_per_weight);
}

static void put_sizes(const struct job *j, struct json_writer *w, uint64_t n_bytes, double bits_per_weight)
{
    jw_key(w, "output"), jw_string(w, j->o->output);
    jw_key(w, "n_bytes"), jw_uint(w, n_bytes);
    jw_key(w, "bits_per_weight"), jw_double(w, bits_per_weight);
    jw_key(w, "budget_bytes"), jw_uint(w, j->budget);
}

/* Of the file itself; what it is worth follows. */
static void print_file(const struct job *j)
{
    const struct candidate *file = &j->r->models[1];
    print_sizes(j, file->n_bytes, file->bits_per_weight);
    allocate_print_types(&j->table, &j->allocation);
    if (j->has_feedback)
        feedback_tell(&j->feedback, j->shared);
    putchar('\n');
}

static void put_file(void *ctx, struct json_writer *w)
{
    const struct job *j = ctx;
    const struct candidate *file = &j->r->models[1];
    put_sizes(j, w, file->n_bytes, file->bits_per_weight);
    jw_key(w, "resumed"), jw_string(w, j->continued ? "continued" : NULL);
    jw_key(w, "mix"), jw_string(w, j->mix ? j->mix->name : NULL);
    jw_key(w, "expected_loss"), jw_double(w, j->allocation.loss);
    jw_key(w, "optimality_gap"), jw_double(w, j->allocation.loss - j->allocation.lower_bound);
    jw_key(w, "passes"), jw_double(w, j->table.passes);
    allocate_put_tensors(w, &j->table, &j->allocation);
    if (j->has_feedback)
        feedback_json(&j->feedback, w);
    else
        jw_key(w, "method"), jw_null(w);
}

static int report(struct job *j, struct err *e)
{
    struct eval_run *r = j->r;
    int rc = part_of(&r->windows, &j->all, j->n_calibration + j->n_gate, j->n_report, REPORT_WINDOWS, e);
    if (rc == 0)
        rc = eval_add_file(r, j->o->output, e);
    if (rc == 0 && j->mix)
        rc = eval_add_mix(r, j->mix, j->o->requantize, e);
    if (rc == 0)
        rc = eval_run_models(r, REPORT_COMPARE, e);
    if (rc != 0)
        return rc;
    judge(j);
    cmd_tell_warnings();
    snprintf(j->importance, sizeof j->importance, "of the first %zu windows of the text", j->n_calibration);
    r->report.imatrix = j->importance;
    r->members = put_file;
    r->members_ctx = j;
    if (!j->shared->json)
        print_file(j);
    return eval_print(r, j->o->html, e);
}

/* A file that an earlier run finished is left as it is. Its report would need the importance matrix that went
 * with the Hessians. */
static int tell_finished(struct job *j, struct err *e)
{
    int rc = eval_add_file(j->r, j->o->output, e);
    if (rc != 0)
        return rc;
    const struct candidate *file = &j->r->models[1];
    cmd_note(j->shared, "%s: is finished already; kerf compare measures it, --force writes it again",
             j->o->output);
    if (j->o->html)
        cmd_warn(
            j->shared,
            "[option-idle] --html %s: no page of a file that is finished; kerf compare --html writes one",
            j->o->html);
    if (j->shared->json) {
        struct json_writer w;
        cmd_json_begin(&w);
        put_sizes(j, &w, file->n_bytes, file->bits_per_weight);
        jw_key(&w, "resumed"), jw_string(&w, "complete");
        cmd_json_end(&w);
    } else {
        print_sizes(j, file->n_bytes, file->bits_per_weight);
    }
    return 0;
}

static void print_dry(const struct job *j)
{
    const struct options *o = j->o;
    if (j->shared->json) {
        struct json_writer w;
        cmd_json_begin(&w);
        jw_key(&w, "output"), jw_null(&w);
        jw_key(&w, "budget_bytes"), jw_uint(&w, j->budget);
        jw_key(&w, "min_bytes"), jw_uint(&w, j->least);
        jw_key(&w, "max_bytes"), jw_uint(&w, j->most);
        jw_key(&w, "ctx"), jw_uint(&w, j->all.ctx);
        jw_key(&w, "n_windows_calibration"), jw_uint(&w, j->n_calibration);
        jw_key(&w, "n_windows_gate"), jw_uint(&w, j->n_gate);
        jw_key(&w, "n_windows_report"), jw_uint(&w, at_most(j->n_report, REPORT_WINDOWS));
        cmd_json_end(&w);
        return;
    }
    printf("would calibrate on %zu windows of %zu tokens, measure sensitivities on %zu of them in at most %g "
           "passes, check the error feedback on %zu others, and report on %zu more\n",
           j->n_calibration, j->all.ctx, at_most(j->n_calibration, SENSITIVITY_WINDOWS), LOSS_MAX_PASSES,
           j->n_gate, at_most(j->n_report, REPORT_WINDOWS));
    printf("would write %s, at most %" PRIu64 " bytes (from %" PRIu64 " to %" PRIu64 " are possible)\n",
           o->output, j->budget, j->least, j->most);
    if (o->html)
        printf("would write %s\n", o->html);
}

/* --- the command --- */

/* A device's --memory says nothing of this run, which then takes what it needs. */
static int check_memory(struct job *j, struct err *e)
{
    const struct net *net = &j->r->models[0].net;
    uint64_t *bound = &j->shared->memory_bytes;
    const bool corrects = strcmp(j->o->method, "best") == 0;
    return budget_is_device(&j->o->budget)
               ? feedback_check_machine(net, &j->r->session, UINT64_MAX, corrects, bound, e)
               : feedback_check_machine(net, &j->r->session, *bound, corrects, NULL, e);
}

static int check_paths(struct job *j, struct err *e)
{
    const struct options *o = j->o;
    const char *paths[] = {o->output, o->html, j->hessian, j->hessian_state, j->losses};
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < sizeof paths / sizeof *paths; i++)
        rc = eval_check_inputs(j->r, paths[i], e);
    return rc;
}

/* Two runs that write one file would share what they keep beside it. */
static int claim_outputs(const struct job *j, struct err *e)
{
    const char *const outputs[] = {j->o->output, j->o->html};
    const struct opt_list *texts = &j->r->text->texts;
    const bool resume = j->o->resume, force = j->shared->force; /* with --resume it is looked at later */
    int rc = resume || force || access(j->o->output, F_OK) != 0
                 ? cmd_check_output(j->o->output, true, e)
                 : err_set(e, ERR_EXISTS,
                           "%s: exists already; use --force to replace it, or --resume to leave it as it "
                           "is if this command wrote it",
                           j->o->output);
    if (rc == 0)
        rc = cmd_check_output(j->o->html, force || resume, e);
    return rc == 0 ? cmd_claim_outputs(j->shared, outputs, 2, texts->items, texts->n, e) : rc;
}

/* Files beside the output that a stopped run leaves, as ", " lists them; "": there are none. */
static const char *list_kept(const struct job *j, char out[400])
{
    char *store = path_with(j->o->output, ".kerf-feedback");
    const char *const paths[] = {j->hessian, j->hessian_state, j->losses, store};
    size_t n = 0;
    out[0] = '\0';
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++)
        if (paths[i] && n < 400 && access(paths[i], F_OK) == 0)
            n += (size_t)snprintf(out + n, 400 - n, "%s%s", n ? ", " : "", paths[i]);
    free(store);
    return out;
}

/* What a request to stop has left, and how to go on. */
static int explain_stop(const struct job *j, struct err *e)
{
    char kept[400];
    if (!list_kept(j, kept)[0])
        return err_set(e, ERR_CANCELLED, ERR_STOPPED ": nothing was finished yet, and nothing is kept");
    return err_set(e, ERR_CANCELLED,
                   ERR_STOPPED ": what is done is kept in %s; the same command goes on from there", kept);
}

static int open_inputs(struct job *j, const char *model, struct err *e)
{
    int rc = eval_open(j->r, model, 2, e);
    if (rc == 0)
        rc = net_need_tokens(&j->r->models[0].net, "allocation by measured loss", e);
    if (rc == 0)
        rc = check_paths(j, e);
    if (rc == 0)
        rc = check_memory(j, e);
    if (rc == 0)
        rc = open_text(j, e);
    if (rc == 0)
        rc = check_budget(j, e);
    return rc;
}

static int make_file(struct job *j, struct err *e)
{
    int rc = take_hessians(j, e);
    if (rc == 0)
        rc = imatrix_load(&j->r->imatrix, j->hessian, e);
    if (rc == 0)
        rc = choose(j, e);
    if (rc == 0)
        rc = write_file(j, e);
    if (rc != 0)
        return rc == ERR_CANCELLED ? explain_stop(j, e) : rc;
    if (j->o->resume && !j->continued)
        cmd_note(j->shared, "%s: nothing to resume; started from the beginning", j->o->output);
    unlink(j->hessian);
    unlink(j->losses);
    j->written = true;
    return 0;
}

static int run(struct job *j, const char *model, struct err *e)
{
    j->hessian = path_with(j->o->output, ".kerf-hessian");
    j->losses = path_with(j->o->output, ".kerf-losses");
    j->hessian_state = j->hessian ? path_with(j->hessian, ".kerf-state") : NULL;
    if (!j->hessian || !j->losses || !j->hessian_state)
        return err_set(e, ERR_NOMEM, "out of memory");
    int rc = claim_outputs(j, e);
    if (rc == 0)
        rc = open_inputs(j, model, e);
    if (rc == 0)
        rc = find_finished(j, e);
    if (rc == 0 && j->finished)
        return tell_finished(j, e);
    if (rc == 0)
        rc = cmd_check_output(j->o->html, j->shared->force, e);
    if (rc == 0 && j->shared->dry_run) {
        print_dry(j);
        return 0;
    }
    if (rc == 0)
        rc = make_file(j, e);
    if (rc != 0)
        return rc;
    rc = report(j, e);
    return rc ? err_context(e, rc, "%s is written, but not measured, which kerf compare does", j->o->output)
              : 0;
}

static void release(struct job *j)
{
    feedback_release(&j->feedback, j->written);
    allocation_release(&j->allocation);
    allocator_free(j->allocator);
    loss_table_release(&j->table);
    windows_release(&j->all);
    free(j->hessian);
    free(j->hessian_state);
    free(j->losses);
    eval_release(j->r);
}

static int check_options(const struct opt_command *cmd, const struct options *o, struct text_options *text)
{
    int status = eval_check_options(cmd, text, false);
    if (status == 0)
        status = budget_check(cmd, &o->budget);
    if (status == 0 && !o->output)
        status = cmd_usage(cmd, "--output FILE is required");
    return status;
}

int cmd_best(int argc, char **argv)
{
    struct shared_options shared = SHARED_OPTIONS_INIT;
    struct text_options text = TEXT_OPTIONS_INIT;
    struct options o = {.method = "feedback"};
    text.chunks = 100;
    const struct opt options[] = {
        OPT(TEXT, "output", &o.output, "FILE", "the GGUF file to write", .letter = 'o'),
        BUDGET_OPTIONS(o.budget),
        OPT_GROUP("Text:"),
        OPT(LIST, "text", &text.texts, "FILE",
            "UTF-8 text, gzip if it ends in .gz, - for standard input. The program divides it: the report "
            "is on windows that nothing else has seen"),
        IDS_OPTION(text.ids),
        JSONL_OPTION(text.jsonl),
        OPT(UINT, "chunks", &text.chunks, "N", "calibrate on at most this many windows", .fallback = "100",
            .range = OPT_RANGE(.min = 1)),
        PARSE_SPECIAL_OPTION(text.parse_special),
        OPT_GROUP("Encoding:"),
        REQUANTIZE_OPTION(o.requantize),
        OPT(CHOICE, "method", &o.method, "feedback|best", "encoder, as kerf quantize has it"),
        OPT_GROUP("Output:"),
        HTML_OPTION(o.html),
        OPT(FLAG, "resume", &o.resume, NULL,
            "leave an output that this command has finished as it is; a run that was stopped goes on with "
            "and without it"),
    };
    const struct opt_command cmd = {
        .name = "best",
        .operands =
            "MODEL --text TEXT (--target-size SIZE | --target-bpw B | --memory SIZE --ctx N) -o OUT.gguf",
        .description =
            "Write the best file of a size: Hessians and importance of the text, the loss of every tensor, "
            "types by least expected loss after error feedback, that feedback, and a report beside the "
            "standard mix of that size. A stopped run goes on when the same command is given again. For a "
            "device the run itself works in 1GiB, or in as much as error feedback needs for the widest "
            "matrix." ADAPTERS_HELP " The file then has them merged.",
        OPT_TABLE(options),
        .min_operands = 1,
        .max_operands = 1,
        .uses = USES_ALL,
        .examples = "kerf best Qwen3-0.6B --text calibration.txt --target-size 400MB -o q3-best.gguf",
    };
    struct opt_operands args;
    struct err e = {0};
    struct eval_run r = {.shared = &shared, .text = &text, .recipe = "llama.cpp"};
    struct job j = {.o = &o, .shared = &shared, .r = &r};
    int status = opt_parse(&cmd, argc, argv, &shared, &args), rc = 0;
    if (status == OPT_CONTINUE) {
        budget_take_shared(&o.budget, &text.ctx, &shared);
        status = check_options(&cmd, &o, &text);
        if (status == 0) {
            rc = run(&j, args.items[0], &e);
            status = rc ? cmd_fail(&e) : r.report.partial ? CMD_FAILED : CMD_DONE;
        }
    }
    release(&j);
    return status;
}
