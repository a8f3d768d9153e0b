/* feedback_command.c - see feedback_command.h. */
#include "feedback_command.h"

#include "feedback_finished.h"
#include "tools/progress.h"

#include "calib/feedback/feedback_correction.h"
#include "calib/feedback/feedback_sequence.h"
#include "calib/feedback/lapack.h"
#include "calib/solve/loss_table.h"
#include "calib/stats/hessian_collect.h"
#include "formats/gguf/gguf_read.h"
#include "formats/gguf/imatrix_file.h"
#include "formats/json.h"
#include "formats/output/output_file.h"
#include "formats/tokenizer/tokenizer.h"
#include "libquant/base/path.h"
#include "libquant/base/pool.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Fewer tell the noise of the inputs rather than their errors (calib/feedback/feedback.md). */
#define CORRECTION_TOKENS 50000

bool feedback_corrects(const struct feedback_options *f)
{
    return strcmp(f->method, "best") == 0;
}

bool feedback_is_asked(const struct feedback_options *f)
{
    return strcmp(f->method, "feedback") == 0 || feedback_corrects(f);
}

static struct given_text given_text(const struct feedback_options *f)
{
    return (struct given_text){
        .texts = &f->texts, .ids = f->ids, .jsonl = f->jsonl, .parse_special = f->parse_special};
}

static bool has_text(const struct feedback_options *f)
{
    const struct given_text given = given_text(f);
    return f->corpus || given_text_is_there(&given);
}

int feedback_check_options(const struct opt_command *cmd, const struct feedback_options *f)
{
    const struct given_text given = given_text(f);
    bool asked = feedback_is_asked(f), has_text = given_text_is_there(&given);
    if (asked && !has_text && !f->hessian)
        return cmd_usage(cmd, "--method %s: give a text to calibrate on with --text%s", f->method,
                         feedback_corrects(f) ? "" : ", or --hessian FILE");
    if (feedback_corrects(f) && !has_text)
        return cmd_usage(cmd, "--method best: give the text that the inputs are of with --text");
    if (feedback_corrects(f) && f->held_out == 0)
        return cmd_usage(cmd, "--method best: keeps its corrections where held-out windows gain; "
                              "--held-out 0 is for --method feedback");
    if (!asked && (has_text || f->jsonl || f->hessian))
        return cmd_usage(cmd, "%s: is for --method feedback and best",
                         f->hessian ? "--hessian"
                         : f->ids   ? "--ids"
                         : f->jsonl ? "--jsonl"
                                    : "--text");
    if (asked && f->hessian && f->chunks)
        return cmd_usage(cmd, "--chunks: how much was calibrated on stands in the --hessian file");
    if (f->jsonl && !has_text)
        return cmd_usage(cmd, "--jsonl says what is in a --text, and none is given");
    return given_text_check(cmd, &given);
}

/* --- text --- */

static int cut_text(struct feedback_run *run, struct model *m, const struct feedback_options *f,
                    const struct shared_options *shared, struct err *e)
{
    const struct given_text given = given_text(f);
    struct window_options opt = {.ctx = (size_t)f->ctx};
    if (f->corpus) {
        run->corpus = *f->corpus;
        run->all = *f->windows;
        run->borrows_text = true;
        return 0;
    }
    int rc = given_text_read(&run->corpus, &opt.bos, &given, m, shared, e);
    if (rc == 0)
        rc = corpus_check_ids(&run->corpus, run->net.n_vocab, e);
    return rc ? rc : windows_cut(&run->all, &run->corpus, &opt, e);
}

/* Windows [first, first + n) of all; borrowed. */
static struct windows part_of(const struct windows *all, size_t first, size_t n)
{
    struct windows w = *all;
    w.n = n;
    w.inputs += first * all->ctx;
    w.targets += first * windows_n_scored(all);
    return w;
}

/* A check on less text than was asked for is not the check that was asked for. */
static void warn_fewer_held_out(const struct feedback_run *run, const struct feedback_options *f,
                                const struct shared_options *shared)
{
    if (run->held_out.n < f->held_out)
        cmd_warn(
            shared,
            "[held-out-fewer] the text gives %zu windows of %zu tokens: %zu are held out, not the %" PRIu64
            " of --held-out; a longer --text gives them",
            run->all.n, run->all.ctx, run->held_out.n, (uint64_t)f->held_out);
}

/* --- the windows --- */

static int check_calibration(const struct feedback_run *run, const struct feedback_options *f, struct err *e)
{
    if (!feedback_corrects(f) || run->calibration.n >= 2)
        return 0;
    return err_set(e, ERR_ARG,
                   "the text gives %zu window%s of %zu tokens, %zu of them held out; --method best needs two "
                   "others at least, to correct by and to choose how far",
                   run->all.n, format_plural(run->all.n), run->all.ctx, run->held_out.n);
}

/* How many windows are calibrated on; those behind are held out. */
static int divide(struct feedback_run *run, const struct feedback_options *f,
                  const struct shared_options *shared, struct err *e)
{
    size_t n = run->all.n, n_calibration, held = f->held_out < n / 2 ? (size_t)f->held_out : n / 2;
    if (f->held_out && n < 2)
        return err_set(
            e, ERR_ARG,
            "the text gives %zu window of %zu tokens; one to calibrate on and one to check with are the "
            "least (--held-out 0 goes without the check)",
            n, run->all.ctx);
    if (f->chunks && f->chunks < n - held)
        n_calibration = (size_t)f->chunks;
    else
        n_calibration = n - held;
    run->calibration = part_of(&run->all, 0, n_calibration);
    run->held_out = part_of(&run->all, n_calibration, held);
    warn_fewer_held_out(run, f, shared);
    return check_calibration(run, f, e);
}

/* Windows that hold tokens of the first n windows of ctx tokens of the same texts. */
static size_t count_seen(const struct feedback_run *run, uint64_t n, uint64_t ctx)
{
    size_t seen = 0;
    for (size_t i = 0; n > 0 && i < run->corpus.n_texts; i++) {
        size_t n_tokens = run->corpus.texts[i].end - run->corpus.texts[i].begin,
               all = n_tokens / run->all.ctx;
        uint64_t here = ctx ? n_tokens / ctx : 0;
        size_t some = n < here ? (size_t)((n * ctx + run->all.ctx - 1) / run->all.ctx) : all;
        seen += some < all ? some : all;
        n -= n < here ? n : here;
    }
    return seen;
}

/* The same where the Hessians come from a file: of their own text, what they have not seen. */
static int choose_held_out(struct feedback_run *run, const struct feedback_options *f,
                           const struct shared_options *shared, struct err *e)
{
    const struct hessian_source *s = hessian_file_source(run->hessian);
    char ids[65];
    corpus_hash(&run->corpus, ids);
    bool same = !s->merged && strcmp(ids, s->ids_sha256) == 0, doubt = s->merged;
    size_t seen = same ? count_seen(run, s->n_windows, s->ctx) : 0;
    for (size_t i = 0; !same && i < run->corpus.n_texts; i++)
        doubt |= hessian_file_has_dataset(run->hessian, run->corpus.texts[i].path);
    if (doubt)
        cmd_warn(shared, "[maybe-seen] %s: %s; the held-out text is not known to be unseen by the Hessians",
                 hessian_file_path(run->hessian),
                 s->merged ? "was merged from several" : "was collected from a text of the same name");
    if (seen >= run->all.n)
        return err_set(
            e, ERR_ARG,
            "%s: the Hessians have seen all %zu windows of the text; give another --text to check the result "
            "with, or collect with fewer --chunks",
            hessian_file_path(run->hessian), run->all.n);
    size_t left = run->all.n - seen;
    run->held_out = part_of(&run->all, seen, f->held_out < left ? (size_t)f->held_out : left);
    warn_fewer_held_out(run, f, shared);
    if (seen) /* the rest of a text that the Hessians know may be somebody's to report on */
        run->calibration = part_of(&run->all, 0, seen);
    else
        run->calibration = part_of(&run->all, run->held_out.n, left - run->held_out.n);
    return check_calibration(run, f, e);
}

/* --- Hessians --- */

/* Are there finished Hessians at `path`, kept by a stopped run? *why: NULL: no; "": those that `want` asks
 * for; else what they are instead. ERR_IO: a file that is none of ours. */
static int look_at_hessians(const char **why, const char *path, const struct hessian_source *want,
                            struct err *e)
{
    struct hessian_file *h = NULL;
    struct err ignored = {0};
    struct stat st;
    *why = NULL;
    if (lstat(path, &st) != 0 || (S_ISREG(st.st_mode) && st.st_size == 0))
        return 0;
    if (!S_ISREG(st.st_mode) || hessian_file_open(&h, path, &ignored) != 0)
        return err_set(e, ERR_IO, "%s: exists and was not written by kerf; move it away", path);
    const struct hessian_source *s = hessian_file_source(h);
    *why = strcmp(s->model_sha256, want->model_sha256) != 0            ? "is of another model"
           : s->merged || strcmp(s->ids_sha256, want->ids_sha256) != 0 ? "is of another text"
           : !s->windows_sha256[0] ? "does not say which windows it is of, as files of older versions"
           : strcmp(s->windows_sha256, want->windows_sha256) != 0 ? "is of other windows of the text"
                                                                  : "";
    hessian_file_close(h);
    return 0;
}

int feedback_collect(bool *continued, const struct feedback_collection *c, const struct session *session,
                     const struct shared_options *shared, struct err *e)
{
    struct progress_bar bar;
    const struct windows *w = c->windows;
    const char **datasets = calloc(c->corpus->n_texts + 1, sizeof *datasets), *other = NULL;
    struct hessian_collect_options opt = {.pool = session->pool,
                                          .memory_bytes = shared->memory_bytes,
                                          .source = {.n_windows = w->n, .ctx = w->ctx},
                                          .file = {true, c->resume, datasets, c->corpus->n_texts, NULL},
                                          .state_path = c->state_path,
                                          .progress = progress_on(&bar)};
    size_t n_resumed = 0;
    int rc = datasets ? 0 : err_set(e, ERR_NOMEM, "out of memory for %zu texts", c->corpus->n_texts);
    for (size_t i = 0; rc == 0 && i < c->corpus->n_texts; i++)
        datasets[i] = c->corpus->texts[i].path;
    corpus_hash(c->corpus, opt.source.ids_sha256);
    windows_hash(w, opt.source.windows_sha256);
    memcpy(opt.source.model_sha256, c->weights_sha256, sizeof opt.source.model_sha256);
    if (rc == 0)
        rc = look_at_hessians(&other, c->path, &opt.source, e);
    const bool kept = rc == 0 && c->resume && other, taken = kept && !other[0];
    if (taken)
        cmd_note(shared, "%s: the Hessians of a stopped run are reused", c->path);
    else if (kept && !c->replace)
        rc = err_set(e, ERR_EXISTS, "%s: was kept by a stopped run of this output, but %s; --force drops it",
                     c->path, other);
    else if (kept)
        cmd_warn(shared, "[restarted] %s: %s; collected again", c->path, other);
    if (rc == 0 && !taken) {
        progress_begin(&bar, shared, "collecting", "tokens", (uint64_t)w->n * w->ctx * c->net->n_layers);
        rc = hessian_collect(c->path, c->net, c->weights, w, &opt, &n_resumed, e);
        progress_end(&bar);
    }
    if (rc == 0 && n_resumed)
        cmd_note(shared, "Hessians: continued after %zu layer%s", n_resumed, format_plural(n_resumed));
    *continued = taken || n_resumed > 0;
    free(datasets);
    return rc;
}

static int collect(struct feedback_run *run, const struct session *session, const struct windows *w,
                   const struct shared_options *shared, bool resume, struct err *e)
{
    struct weights *weights = NULL;
    int rc = weights_new(&weights, run->net.model, session->kern, e);
    const struct feedback_collection c = {.path = run->hessian_path,
                                          .state_path = run->state_path,
                                          .corpus = &run->corpus,
                                          .windows = w,
                                          .net = &run->net,
                                          .weights = weights,
                                          .weights_sha256 = run->weights_sha256,
                                          .resume = resume,
                                          .replace = true};
    if (rc == 0)
        rc = feedback_collect(&run->continued, &c, session, shared, e);
    weights_free(weights);
    return rc;
}

/* --- solving --- */

static bool type_in_report(void *ctx, const struct model_tensor *t, enum qtype *out)
{
    const struct rewrite_report *r = ctx;
    for (size_t i = 0; i < r->n_tensors; i++)
        if (strcmp(r->tensors[i].name, t->name) == 0) {
            *out = r->tensors[i].type;
            return true;
        }
    return false;
}

static const uint8_t *blocks_of(void *ctx, const struct model_tensor *t, enum qtype type)
{
    return feedback_model_blocks(ctx, t, type);
}

/* Windows to correct by. The last of those to calibrate on, at most a quarter, choose strengths instead, so
 * that the held-out ones have no part in what they judge. */
static size_t n_to_learn(const struct feedback_run *run)
{
    const size_t n = run->calibration.n, quarter = (n + 3) / 4;
    return n - (run->held_out.n < quarter ? run->held_out.n : quarter);
}

/* What the second half of --method best does. */
static int correct(struct feedback_run *run, struct progress_bar *bar, const struct shared_options *shared,
                   struct err *e)
{
    const size_t n = n_to_learn(run);
    const uint64_t n_tokens = (uint64_t)n * run->calibration.ctx;
    if (n_tokens < CORRECTION_TOKENS)
        cmd_warn(shared,
                 "[few-tokens] corrections for the inputs of quantized layers are learned from %" PRIu64
                 " tokens; %d and more are recommended",
                 n_tokens, CORRECTION_TOKENS);
    const struct windows first = part_of(&run->calibration, 0, n),
                         last = part_of(&run->calibration, n, run->calibration.n - n);
    progress_part(bar, 0.25, 0.55);
    int rc = feedback_model_correct(run->solved, &first, &last, e);
    progress_part(bar, 0.8, 0.2);
    return rc ? rc : feedback_model_gate_corrections(run->solved, &run->held_out, e);
}

/* What is to be known of the solving, once it is done. */
static void tell_of_solving(struct feedback_run *run, const struct shared_options *shared)
{
    if (feedback_model_n_resumed(run->solved)) {
        cmd_note(shared, "continued after %" PRIu64 " of %u layer%s", feedback_model_n_resumed(run->solved),
                 run->net.n_layers, format_plural(run->net.n_layers));
        run->continued = true;
    }
    if (feedback_model_n_unsolved(run->solved))
        cmd_warn(shared,
                 "[no-data] %" PRIu64
                 " matrices saw no token in the calibration text and keep the plain encoder's bytes",
                 feedback_model_n_unsolved(run->solved));
    const char *unfactored = NULL;
    uint64_t n_unfactored = feedback_model_n_unfactored(run->solved, &unfactored);
    if (n_unfactored)
        cmd_warn(shared,
                 "[not-factored] %s: Gram matrix '%s'%s cannot be factored; its matrices keep the plain "
                 "encoder's bytes",
                 hessian_file_path(run->hessian), unfactored, n_unfactored > 1 ? " and others" : "");
}

/* What is solved and kept follows from, beyond types and Hessians; corrections also from the windows. */
static void make_store_identity(char out[320], const struct feedback_run *run, const char *importance,
                                bool corrects)
{
    char calibration[65], held_out[65];
    windows_hash(&run->calibration, calibration);
    windows_hash(&run->held_out, held_out);
    if (corrects)
        snprintf(out, 320, "%s %s best %s %s", KERF_VERSION, importance, calibration, held_out);
    else
        snprintf(out, 320, "%s %s", KERF_VERSION, importance);
}

static int solve(struct feedback_run *run, struct rewrite_options *ro, const struct session *session,
                 const struct feedback_options *fo, const struct shared_options *shared, struct err *e)
{
    struct rewrite_report report = {0};
    struct rewrite_options dry = *ro;
    struct progress_bar bar;
    const bool corrects = feedback_corrects(fo);
    const double solving = corrects          ? 0.1
                           : run->held_out.n ? 0.4
                                             : 1, /* of the bar */
        gating = corrects ? 0.15 : 1 - solving;
    char importance[65] = "none", identity[320];
    dry.dry_run = true;
    int rc = rewrite_model(&report, run->net.model, NULL, &dry, e);
    if (rc == 0 && ro->imatrix)
        loss_imatrix_hash(ro->imatrix, importance);
    make_store_identity(identity, run, importance, corrects);
    struct feedback_model_options opt = {.pool = session->pool,
                                         .kern = session->kern,
                                         .memory_bytes = ro->memory_bytes,
                                         .hessian = run->hessian,
                                         .imatrix = ro->imatrix,
                                         .stages = {true, FEEDBACK_SWEEPS},
                                         .store_path = run->store_path,
                                         .resume = ro->resume,
                                         .identity = identity,
                                         .corrects = corrects,
                                         .progress = progress_on(&bar)};
    if (rc == 0)
        rc = feedback_model_new(&run->solved, &run->net, type_in_report, &report, &opt, e);
    if (rc == 0 && feedback_model_restarted(run->solved))
        cmd_warn(
            shared,
            "[restarted] %s: was solved by a run with other types, Hessians, importance matrix or version; "
            "solved again",
            run->store_path);
    if (rc == 0) {
        progress_begin(&bar, shared, "error feedback", "", 1000);
        progress_part(&bar, 0, solving);
        rc = feedback_model_solve(run->solved, e);
        progress_part(&bar, solving, gating);
        if (rc == 0 && run->held_out.n)
            rc = feedback_model_gate(run->solved, &run->held_out, e);
        if (rc == 0 && corrects)
            rc = correct(run, &bar, shared, e);
        progress_end(&bar);
    }
    if (rc == 0)
        tell_of_solving(run, shared);
    rewrite_report_release(&report);
    return rc;
}

/* --- what the file says of it --- */

static const char *group_name(char out[32], int third, int role)
{
    const char *name = feedback_role_name((enum feedback_role)role);
    if (role == FEEDBACK_HEAD)
        return name;
    snprintf(out, 32, "third %d, %s", third + 1, name);
    return out;
}

/* What the file says of a group that the gate left at its lesser blocks. */
typedef const struct feedback_group_result (*group_results)[FEEDBACK_N_ROLES];

static int add_group_lines(struct gguf_meta *m, const char *key, group_results groups, const char *lesser,
                           struct err *e)
{
    char lines[FEEDBACK_N_THIRDS * FEEDBACK_N_ROLES][96];
    struct gguf_string texts[FEEDBACK_N_THIRDS * FEEDBACK_N_ROLES];
    size_t n = 0;
    for (int t = 0; t < FEEDBACK_N_THIRDS; t++)
        for (int k = 0; k < FEEDBACK_N_ROLES; k++) {
            const struct feedback_group_result *g = &groups[t][k];
            if (g->n_tensors == 0)
                continue;
            char name[32];
            snprintf(lines[n], sizeof lines[n], "%s: kld %.5f, %+.5f ± %.5f%s", group_name(name, t, k),
                     g->kld, g->difference, g->error, g->is_lesser ? lesser : "");
            texts[n] = (struct gguf_string){lines[n], strlen(lines[n])};
            n++;
        }
    return gguf_meta_set_strings(m, key, texts, n, e);
}

/* What was corrected, and what that changed. */
static int describe_corrections(struct feedback_run *run, struct err *e)
{
    const struct feedback_result *r = feedback_model_result(run->solved);
    uint64_t n = 0;
    for (size_t i = 0; i < feedback_model_n(run->solved); i++)
        n += feedback_model_tensor(run->solved, i)->chosen == FEEDBACK_CORRECTED;
    int rc = gguf_meta_set_u64(run->extra, FEEDBACK_KEY ".corrected.n_tensors", n, e);
    if (rc == 0)
        rc = gguf_meta_set_u64(run->extra, FEEDBACK_KEY ".corrected.n_windows", n_to_learn(run), e);
    if (rc == 0)
        rc = gguf_meta_set_f32(run->extra, FEEDBACK_KEY ".held_out.kld_feedback", (float)r->solved_kld, e);
    if (rc == 0)
        rc =
            gguf_meta_set_f32(run->extra, FEEDBACK_KEY ".held_out.kld_corrected", (float)r->corrected_kld, e);
    return rc ? rc
              : add_group_lines(run->extra, FEEDBACK_KEY ".corrected.gate", r->corrections, ", not corrected",
                                e);
}

static int describe(struct feedback_run *run, const struct feedback_options *f, struct err *e)
{
    const struct hessian_source *s = hessian_file_source(run->hessian);
    const struct feedback_result *r = feedback_model_result(run->solved);
    char blocks[65];
    int rc = gguf_meta_new(&run->extra, e);
    if (rc == 0)
        rc = gguf_meta_set_string(run->extra, FEEDBACK_KEY, f->method, e);
    if (rc == 0)
        rc = gguf_meta_set_string(run->extra, FEEDBACK_KEY ".version", "1", e);
    if (rc == 0)
        rc = gguf_meta_set_string(run->extra, FEEDBACK_KEY ".identity", run->identity, e);
    if (rc == 0)
        rc = feedback_hash_blocks(run, blocks, e);
    if (rc == 0)
        rc = gguf_meta_set_string(run->extra, FEEDBACK_KEY ".blocks_sha256", blocks, e);
    if (rc == 0)
        rc = gguf_meta_set_u32(run->extra, FEEDBACK_KEY ".sweeps", FEEDBACK_SWEEPS, e);
    if (rc == 0)
        rc = gguf_meta_set_string(run->extra, FEEDBACK_KEY ".text.ids_sha256", s->ids_sha256, e);
    if (rc == 0)
        rc = gguf_meta_set_u64(run->extra, FEEDBACK_KEY ".text.n_windows", s->n_windows, e);
    if (rc == 0)
        rc = gguf_meta_set_u64(run->extra, FEEDBACK_KEY ".text.ctx", s->ctx, e);
    if (rc == 0)
        rc = gguf_meta_set_f32(run->extra, FEEDBACK_KEY ".layer_loss_ratio",
                               (float)feedback_model_loss_ratio(run->solved), e);
    if (rc == 0)
        rc = gguf_meta_set_u64(run->extra, FEEDBACK_KEY ".held_out.n_windows", r->n_windows, e);
    if (rc != 0 || r->n_windows == 0)
        return rc;
    rc = gguf_meta_set_f32(run->extra, FEEDBACK_KEY ".held_out.kld_plain", (float)r->plain_kld, e);
    if (rc == 0)
        rc = gguf_meta_set_f32(run->extra, FEEDBACK_KEY ".held_out.kld", (float)r->kld, e);
    if (rc == 0)
        rc = add_group_lines(run->extra, FEEDBACK_KEY ".gate", r->groups, ", kept plain", e);
    return rc || !feedback_corrects(f) ? rc : describe_corrections(run, e);
}

/* --- all of it --- */

int feedback_check_machine(const struct net *net, const struct session *session, uint64_t memory,
                           bool corrects, uint64_t *most, struct err *e)
{
    struct hessian_plan plan = {0};
    const struct lapack *lapack;
    int rc = lapack_load(&lapack, e);
    if (rc == 0)
        rc = hessian_plan_make(&plan, net, e);
    for (size_t i = 0; rc == 0 && i < plan.n_grams; i++) {
        size_t n = (size_t)plan.grams[i].n_cols;
        uint64_t need = feedback_hessian_bytes(n, plan.grams[i].n_mats > 1) +
                        pool_n_threads(session->pool) * feedback_chunk_bytes(n) +
                        (corrects ? feedback_correction_bytes(n) : 0);
        if (most && need > *most)
            *most = need;
        if (need > memory)
            rc = err_set(e, ERR_ARG,
                         "error feedback for '%s' (%zu columns) needs %" PRIu64
                         " MiB of working memory, there are %" PRIu64 "; raise --memory, or lower --threads",
                         plan.grams[i].owner, n, (need >> 20) + 1, memory >> 20);
    }
    hessian_plan_release(&plan);
    return rc;
}

void feedback_tell_dry(const struct feedback_run *run, const struct feedback_options *f)
{
    char disk[32], memory[32];
    if (!run->has_net || run->finished)
        return;
    if (f->hessian) {
        printf("would solve under the Hessians of %s%s\n", f->hessian,
               feedback_corrects(f) ? ", and again behind quantized layers" : "");
        return;
    }
    printf("would collect Hessians over %zu windows of %zu tokens, %s on the disk,\n", run->calibration.n,
           run->all.ctx, format_bytes(disk, (double)run->hess_bytes));
    printf("solve%s, with %s for the widest matrix",
           feedback_corrects(f) ? " twice, the second time behind quantized layers" : "",
           format_bytes(memory, (double)run->memory_most));
    if (run->held_out.n)
        printf(", and check on %zu other windows", run->held_out.n);
    putchar('\n');
}

void feedback_doubt_weights(char doubt[FEEDBACK_DOUBT_BYTES], const struct hessian_file *h,
                            const char *weights_sha256)
{
    const char *of = hessian_file_source(h)->model_sha256;
    doubt[0] = '\0';
    if (strcmp(weights_sha256, of) != 0)
        snprintf(doubt, FEEDBACK_DOUBT_BYTES,
                 "was collected with other weights or metadata (%.12s..., at hand %.12s...)", of,
                 weights_sha256);
}

/* Which windows are calibrated on and which held out, under the Hessians that are given; and with `output`
 * (or NULL) whether it is there, see feedback_find_finished. */
static int know_windows(struct feedback_run *run, struct rewrite_options *ro,
                        const struct feedback_options *f, const struct shared_options *shared,
                        const char *output, struct err *e)
{
    char doubt[FEEDBACK_DOUBT_BYTES];
    struct hessian_source text = {.ctx = run->all.ctx};
    const struct hessian_source *source = &text;
    int rc = f->hessian || output ? loss_weights_hash(run->net.model, run->weights_sha256, e) : 0;
    if (rc == 0 && f->hessian)
        rc = hessian_file_open(&run->hessian, f->hessian, e);
    if (rc == 0 && f->hessian) {
        source = hessian_file_source(run->hessian);
        feedback_doubt_weights(doubt, run->hessian, run->weights_sha256);
        if (doubt[0])
            cmd_warn(shared, "[other-weights] %s: %s", f->hessian, doubt);
    }
    if (rc == 0 && !f->hessian) {
        rc = divide(run, f, shared, e);
        text.n_windows = run->calibration.n;
    } else if (rc == 0 && has_text(f) && f->held_out) {
        rc = choose_held_out(run, f, shared, e);
    } else if (rc == 0) {
        cmd_warn(
            shared,
            "[no-gate] %s, so it is not known whether error feedback lowers the KLD: nothing of it can be "
            "undone",
            has_text(f) ? "--held-out 0: no text is held out" : "no --text: there is none to measure on");
    }
    if (rc == 0 && output)
        rc = feedback_find_finished(run, ro, source, f, output, e);
    else if (rc == 0)
        rc = feedback_plan_importance(run, source, f, e);
    return rc;
}

static int open_hessians(struct feedback_run *run, struct rewrite_options *ro, const struct session *session,
                         const struct feedback_options *f, const struct shared_options *shared,
                         const char *output, struct err *e)
{
    int rc = know_windows(run, ro, f, shared, output, e);
    if (rc != 0 || run->finished || f->hessian)
        return rc;
    rc = feedback_check_machine(&run->net, session, ro->memory_bytes, feedback_corrects(f), NULL, e);
    if (rc == 0)
        rc = collect(run, session, &run->calibration, shared, ro->resume, e);
    run->collected = rc == 0;
    return rc ? rc : hessian_file_open(&run->hessian, run->hessian_path, e);
}

/* The model as a net, the names of what is kept beside the output, the tokens of the text. */
static int begin(struct feedback_run *run, const struct rewrite_options *ro, struct model *m,
                 const struct feedback_options *f, const struct shared_options *shared, const char *output,
                 struct err *e)
{
    int rc = net_init(&run->net, m, e);
    run->has_net = rc == 0;
    run->resume = ro->resume;
    if (rc == 0)
        rc = net_need_tokens(&run->net, "error feedback", e);
    if (rc == 0 && output) {
        run->hessian_path = path_with(output, ".kerf-hessian");
        run->store_path = path_with(output, ".kerf-feedback");
        run->state_path = run->hessian_path ? path_with(run->hessian_path, ".kerf-state") : NULL;
        rc = run->store_path && run->state_path ? feedback_store_check(run->store_path, e)
                                                : err_set(e, ERR_NOMEM, "out of memory");
    }
    return rc == 0 && has_text(f) ? cut_text(run, m, f, shared, e) : rc;
}

int feedback_check_dry(struct feedback_run *run, struct rewrite_options *ro, struct model *m,
                       const struct session *session, const struct feedback_options *f,
                       const struct shared_options *shared, const char *output, struct err *e)
{
    struct hessian_plan plan = {0};
    if (!model_has_weights(m)) {
        ro->importance_to_come = !ro->imatrix;
        return 0;
    }
    int rc = begin(run, ro, m, f, shared, output, e);
    if (rc == 0)
        rc = know_windows(run, ro, f, shared, ro->resume ? output : NULL, e);
    if (rc == 0 && !ro->imatrix) {
        ro->imatrix = run->planned;
        ro->imatrix_path = f->hessian;
    }
    if (rc != 0 || run->finished || f->hessian)
        return rc;
    rc = feedback_check_machine(&run->net, session, ro->memory_bytes, feedback_corrects(f), &run->memory_most,
                                e);
    if (rc == 0)
        rc = hessian_plan_make(&plan, &run->net, e);
    run->hess_bytes = rc == 0 ? hessian_plan_bytes(&plan) : 0;
    hessian_plan_release(&plan);
    return rc;
}

int feedback_prepare(struct feedback_run *run, struct rewrite_options *ro, struct model *m,
                     const struct session *session, const struct feedback_options *f,
                     const struct shared_options *shared, const char *output, struct err *e)
{
    int rc = begin(run, ro, m, f, shared, output, e);
    if (rc == 0)
        rc = open_hessians(run, ro, session, f, shared, output, e);
    if (rc != 0 || run->finished)
        return rc;
    if (!ro->imatrix) {
        rc = imatrix_load(&run->imatrix, hessian_file_path(run->hessian), e);
        ro->imatrix = run->imatrix;
        ro->imatrix_path = f->hessian; /* what was collected on the way has no name */
    }
    if (rc == 0)
        rc = solve(run, ro, session, f, shared, e);
    if (rc == 0)
        rc = describe(run, f, e);
    ro->extra = run->extra;
    ro->blocks = blocks_of;
    ro->blocks_ctx = run->solved;
    return rc == ERR_CANCELLED && !ro->resume ? err_set(e, rc, ERR_STOPPED_UNKEPT) : rc;
}

/* Hours of a stopped run are not dropped unasked. */
static int refuse_kept(const char *output, struct err *e)
{
    static const char *const endings[] = {".kerf-feedback", ".kerf-hessian", ".kerf-hessian.kerf-state"};
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < sizeof endings / sizeof *endings; i++) {
        char *path = path_with(output, endings[i]);
        if (!path)
            return err_set(e, ERR_NOMEM, "out of memory");
        if (i == 0)
            rc = feedback_store_check(path, e);
        if (rc == 0 && access(path, F_OK) == 0)
            rc = err_set(e, ERR_EXISTS,
                         "%s: was kept by a stopped run of this output; --resume goes on from there, --force "
                         "drops it and starts from the beginning",
                         path);
        free(path);
    }
    return rc;
}

int feedback_check_output(const struct feedback_options *f, const struct rewrite_options *ro,
                          const char *output, const struct shared_options *shared, struct err *e)
{
    int rc = f->hessian ? output_file_check_input(output, f->hessian, e) : 0;
    const struct given_text given = given_text(f);
    if (rc == 0)
        rc = given_text_check_output(&given, output, e);
    if (rc == 0) /* another run would share what this one keeps beside the output */
        rc = cmd_claim_outputs(shared, &output, 1, NULL, 0, e);
    /* the parts of a split set have names of their own; a resumed run may find its output finished */
    if (rc == 0 && !ro->split_max_bytes && !ro->resume)
        rc = output_file_check_target(output, ro->overwrite, e);
    return rc || ro->resume || ro->overwrite ? rc : refuse_kept(output, e);
}

static void group_json(struct json_writer *w, int third, int role, const struct feedback_group_result *g)
{
    jw_object(w);
    jw_key(w, "third");
    if (role == FEEDBACK_HEAD)
        jw_null(w);
    else
        jw_uint(w, (uint64_t)third + 1);
    jw_key(w, "role"), jw_string(w, feedback_role_name((enum feedback_role)role));
    jw_key(w, "n_tensors"), jw_uint(w, g->n_tensors);
    jw_key(w, "kld"), jw_double(w, g->kld);
    jw_key(w, "difference"), jw_double(w, g->difference);
    jw_key(w, "difference_stderr"), jw_double(w, g->error);
    jw_key(w, "kept_plain"), jw_bool(w, g->is_lesser);
    jw_end(w);
}

static void corrections_json(const struct feedback_result *r, struct json_writer *w)
{
    jw_key(w, "corrections"), jw_object(w);
    jw_key(w, "taken"), jw_bool(w, r->corrected_difference < 0);
    jw_key(w, "kld_without"), jw_double(w, r->solved_kld);
    jw_key(w, "kld_with"), jw_double(w, r->corrected_kld);
    jw_key(w, "difference"), jw_double(w, r->corrected_difference);
    jw_key(w, "difference_stderr"), jw_double(w, r->corrected_error);
    jw_end(w);
}

void feedback_json(const struct feedback_run *run, struct json_writer *w)
{
    jw_key(w, "method");
    if (run->finished) { /* nothing was measured */
        jw_null(w);
        return;
    }
    const struct hessian_source *s = hessian_file_source(run->hessian);
    const struct feedback_result *r = feedback_model_result(run->solved);
    jw_object(w);
    jw_key(w, "name"), jw_string(w, r->has_corrections ? "best" : "feedback");
    jw_key(w, "ids_sha256"), jw_string(w, s->ids_sha256);
    jw_key(w, "n_windows"), jw_uint(w, s->n_windows);
    jw_key(w, "ctx"), jw_uint(w, s->ctx);
    jw_key(w, "n_tensors"), jw_uint(w, feedback_model_n(run->solved));
    jw_key(w, "layer_loss_ratio"), jw_double(w, feedback_model_loss_ratio(run->solved));
    jw_key(w, "n_held_out"), jw_uint(w, r->n_windows);
    jw_key(w, "kld_plain"), jw_double(w, r->n_windows ? r->plain_kld : NAN);
    jw_key(w, "kld"), jw_double(w, r->n_windows ? r->kld : NAN);
    jw_key(w, "difference"), jw_double(w, r->n_windows ? r->difference : NAN);
    jw_key(w, "difference_stderr"), jw_double(w, r->n_windows ? r->error : NAN);
    jw_key(w, "groups"), jw_array(w);
    for (int t = 0; t < FEEDBACK_N_THIRDS; t++)
        for (int k = 0; k < FEEDBACK_N_ROLES; k++)
            if (r->groups[t][k].n_tensors)
                group_json(w, t, k, &r->groups[t][k]);
    jw_end(w);
    if (r->has_corrections)
        corrections_json(r, w);
    jw_end(w);
}

void feedback_warn(const struct feedback_run *run, const struct shared_options *shared)
{
    size_t n_plain = 0;
    if (run->finished)
        return;
    for (size_t i = 0; i < feedback_model_n(run->solved); i++)
        n_plain += feedback_model_tensor(run->solved, i)->chosen == FEEDBACK_PLAIN;
    if (n_plain == feedback_model_n(run->solved))
        cmd_warn(shared, "[no-gain] error feedback does not lower the KLD on held-out text; nothing of it "
                         "was kept, and the file is what --method fast makes");
}

/* A difference with its error, which one window does not give. */
static const char *with_error(char out[64], double difference, double error)
{
    if (isfinite(error))
        snprintf(out, 64, "%+.5f ± %.5f", difference, error);
    else
        snprintf(out, 64, "%+.5f", difference);
    return out;
}

void feedback_tell(const struct feedback_run *run, const struct shared_options *shared)
{
    static const char *const thirds[FEEDBACK_N_THIRDS] = {" matrices, first third of the layers",
                                                          " matrices, second third of the layers",
                                                          " matrices, last third of the layers"};
    const struct feedback_result *r = run->finished ? NULL : feedback_model_result(run->solved);
    char text[64];
    if (shared->json || !r || r->n_windows == 0)
        return;
    printf("KLD on held-out text: %.5f with error feedback, %.5f without (ratio %.3f)\n", r->kld,
           r->plain_kld, r->kld / r->plain_kld);
    printf("  difference %s over %zu window%s\n", with_error(text, r->difference, r->error), r->n_windows,
           r->n_windows == 1 ? ", which gives it no error" : "s");
    for (int t = 0; t < FEEDBACK_N_THIRDS; t++)
        for (int k = 0; k < FEEDBACK_N_ROLES; k++) {
            const struct feedback_group_result *g = &r->groups[t][k];
            if (g->n_tensors && (shared->verbose || g->is_lesser))
                printf("  %s%s: %.5f with feedback in them alone (%s)%s\n",
                       feedback_role_name((enum feedback_role)k), k == FEEDBACK_HEAD ? "" : thirds[t], g->kld,
                       with_error(text, g->difference, g->error), g->is_lesser ? ": no gain, undone" : "");
        }
    if (r->has_corrections)
        printf("  corrected for the inputs of quantized layers: %.5f instead of %.5f (%s)%s\n",
               r->corrected_kld, r->solved_kld, with_error(text, r->corrected_difference, r->corrected_error),
               r->corrected_difference < 0 ? "" : ": no gain, undone");
}

void feedback_release(struct feedback_run *run, bool done)
{
    feedback_model_free(run->solved, done);
    hessian_file_close(run->hessian);
    if (run->collected && (done || !run->resume))
        unlink(run->hessian_path);
    feedback_finished_release(run, done);
    imatrix_free(run->imatrix);
    gguf_meta_free(run->extra);
    if (!run->borrows_text) {
        windows_release(&run->all);
        corpus_release(&run->corpus);
    }
    if (run->has_net)
        net_release(&run->net);
    free(run->hessian_path);
    free(run->state_path);
    free(run->store_path);
}
