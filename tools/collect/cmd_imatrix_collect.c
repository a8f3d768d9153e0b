/* cmd_imatrix_collect.c - kerf imatrix MODEL --text TEXT -o OUT: collect an importance matrix. */
#include "collect_command.h"
#include "imatrix_command.h"

#include "calib/stats/imatrix_collect.h"
#include "calib/stats/imatrix_stats.h"
#include "formats/model/model_identity.h"
#include "formats/json.h"
#include "libquant/base/path.h"
#include "libquant/base/sha256.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct collect_args {
    const char *output;
    enum imatrix_format format;
    bool process_output, attention, no_perplexity, resume;
    bool all_experts;
    const char *expert_weights; /* with all_experts */
    uint64_t save_every, prior, from_chunk;
    struct opt_list include, exclude;
};

static bool by_router(const struct collect_args *a)
{
    return a->expert_weights && strcmp(a->expert_weights, "router") == 0;
}

/* What must be equal for the state of a stopped run to be continued: model, tokens, and the options that
 * change sums. */
static int identify(const struct eval_run *r, const struct collect_args *a, char out[65], struct err *e)
{
    const struct model *m = r->models[0].model;
    size_t n_tensors = model_n_tensors(m);
    const struct model_tensor **all = malloc((n_tensors + 1) * sizeof *all);
    struct sha256 h;
    char windows[65], line[256];
    if (!all)
        return err_set(e, ERR_NOMEM, "out of memory for the list of tensors");
    for (size_t i = 0; i < n_tensors; i++)
        all[i] = model_tensor(m, i);
    sha256_init(&h);
    int rc = model_identity_numbers(&h, m, e);
    if (rc == 0)
        rc = model_identity_sampled(&h, m, all, n_tensors, e);
    free(all);
    model_identity_adapters(&h, m);
    windows_hash(&r->windows, windows);
    int n = snprintf(line, sizeof line, "%s %d %d %s%s%s", windows, a->process_output, a->no_perplexity,
                     r->text->activations, a->attention ? " attention" : "",
                     a->all_experts ? " all-experts" : "");
    if (by_router(a))
        sha256_update_u64(&h, 1);
    if (a->from_chunk)
        sha256_update_u64(&h, a->from_chunk);
    sha256_update(&h, line, (size_t)n);
    sha256_final_hex(&h, out);
    return rc;
}

/* The run as a finished file of it says: that of the state, and what is done to its sums. */
static void run_word(char out[IMATRIX_RUN_BYTES], const char *identity, const struct collect_args *a)
{
    struct sha256 h;
    sha256_init(&h);
    sha256_update(&h, identity, strlen(identity));
    sha256_update_u64(&h, a->prior);
    for (size_t i = 0; i < a->include.n; i++)
        sha256_update(&h, a->include.items[i], strlen(a->include.items[i]) + 1);
    sha256_update_u64(&h, a->include.n);
    for (size_t i = 0; i < a->exclude.n; i++)
        sha256_update(&h, a->exclude.items[i], strlen(a->exclude.items[i]) + 1);
    sha256_final_hex(&h, out);
}

/* With --resume an output that is there is this run's, or in the way. */
static int find_finished(struct eval_run *r, const struct collect_args *a, struct imatrix_collected *c,
                         bool *finished, struct err *e)
{
    char identity[65], word[IMATRIX_RUN_BYTES];
    *finished = false;
    if (!a->resume || r->shared->force || access(a->output, F_OK) != 0)
        return 0;
    int rc = identify(r, a, identity, e);
    if (rc == 0)
        rc = imatrix_load(&c->imatrix, a->output, e);
    if (rc != 0)
        return rc;
    run_word(word, identity, a);
    if (strcmp(imatrix_run(c->imatrix), word) != 0)
        return collect_not_ours(a->output, e);
    c->n_windows = r->windows.n;
    c->n_tokens = r->windows.n * r->windows.ctx;
    c->perplexity = c->perplexity_stderr = NAN;
    *finished = true;
    return 0;
}

static struct imatrix_collect_options collect_options(struct eval_run *r, const struct collect_args *a,
                                                      const char *state, const char *identity)
{
    return (struct imatrix_collect_options){
        .pool = r->session.pool,
        .memory_bytes = r->shared->memory_bytes,
        .activations = eval_activations(r->text),
        .process_output = a->process_output,
        .attention = a->attention,
        .all_experts = a->all_experts,
        .by_router = by_router(a),
        .perplexity = !a->no_perplexity,
        .save_windows = a->save_every < SIZE_MAX ? (size_t)a->save_every : SIZE_MAX,
        .state_path = state,
        .resume = a->resume,
        .identity = identity,
        .progress = progress_on(&r->bar),
    };
}

static int collect(struct eval_run *r, const struct collect_args *a, const char *state,
                   struct imatrix_collected *c, struct err *e)
{
    char identity[65];
    int rc = identify(r, a, identity, e);
    if (rc != 0)
        return rc;
    struct imatrix_collect_options opt = collect_options(r, a, state, identity);
    progress_begin(&r->bar, r->shared, "collecting", "tokens", (uint64_t)r->windows.n * r->windows.ctx);
    rc = imatrix_collect(c, &r->models[0].net, r->models[0].weights, &r->windows, &opt, e);
    progress_end(&r->bar);
    if (rc == 0)
        collect_tell_resumed(r, a->output, a->resume, c->n_resumed, c->n_windows, "windows");
    return rc;
}

static int save(struct eval_run *r, const struct collect_args *a, struct imatrix_collected *c, struct err *e)
{
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < r->corpus.n_texts; i++)
        if (windows_use_text(&r->windows, i))
            rc = imatrix_add_dataset(c->imatrix, r->corpus.texts[i].path, e);
    size_t n_left = 0;
    if (rc == 0)
        rc = imatrix_select(c->imatrix, a->include.items, a->include.n, a->exclude.items, a->exclude.n,
                            &n_left, e);
    if (rc == 0 && n_left == 0)
        rc = err_set(e, ERR_ARG, "--include and --exclude leave no entry of the importance matrix");
    if (a->all_experts)
        imatrix_set_all_experts(c->imatrix);
    if (by_router(a))
        imatrix_set_by_router(c->imatrix);
    char identity[MODEL_IDENTITY_BYTES];
    if (rc == 0)
        rc = model_identity(identity, r->models[0].model, e);
    char run_identity[65], word[IMATRIX_RUN_BYTES];
    if (rc == 0)
        rc = identify(r, a, run_identity, e);
    if (rc == 0) {
        run_word(word, run_identity, a);
        imatrix_set_model(c->imatrix, identity);
    }
    if (rc == 0 && a->prior)
        rc = imatrix_prior_command(c->imatrix, a->prior, r->shared, e);
    if (rc == 0)
        imatrix_set_run(c->imatrix, word);
    return rc == 0 ? imatrix_save(c->imatrix, a->output, a->format, r->shared->force, e) : rc;
}

static void entry_json(struct json_writer *w, const struct imatrix_entry *x)
{
    jw_object(w);
    jw_key(w, "name"), jw_string(w, x->name);
    jw_key(w, "n_values"), jw_uint(w, x->n_values);
    jw_key(w, "n_experts"), jw_uint(w, x->n_mats);
    jw_key(w, "starved_experts"), jw_uint(w, imatrix_entry_starved(x));
    jw_end(w);
}

/* `c` without a matrix: what would be collected. */
static void print_json(const struct imatrix_collected *c, const struct collect_args *a, size_t ctx,
                       const char *resumed, double seconds)
{
    struct json_writer w;
    size_t n = c->imatrix ? imatrix_n(c->imatrix) : 0;
    cmd_json_begin(&w);
    jw_key(&w, "output"), jw_string(&w, a->output);
    jw_key(&w, "n_entries");
    c->imatrix ? jw_uint(&w, n) : jw_null(&w);
    jw_key(&w, "n_chunks"), jw_uint(&w, c->n_windows);
    jw_key(&w, "n_chunks_resumed"), jw_uint(&w, c->n_resumed);
    jw_key(&w, "resumed"), jw_string(&w, resumed);
    jw_key(&w, "n_tokens"), jw_uint(&w, c->n_tokens);
    jw_key(&w, "ctx"), jw_uint(&w, ctx);
    jw_key(&w, "perplexity"), jw_double(&w, c->perplexity);
    jw_key(&w, "perplexity_stderr"), jw_double(&w, c->perplexity_stderr);
    jw_key(&w, "entries"), jw_array(&w);
    for (size_t i = 0; i < n; i++)
        entry_json(&w, imatrix_entry_at(c->imatrix, i));
    jw_end(&w);
    jw_key(&w, "seconds"), jw_double(&w, seconds);
    cmd_json_end(&w);
}

static void print_text(const struct imatrix_collected *c, const struct collect_args *a, size_t ctx,
                       double seconds)
{
    size_t n_starved = imatrix_starved_experts(c->imatrix);
    printf("%s: %zu entries from %zu windows of %zu tokens, %.1fs\n", a->output, imatrix_n(c->imatrix),
           c->n_windows, ctx, seconds);
    if (c->n_scored)
        printf("perplexity %.4f ± %.4f over %zu tokens\n", c->perplexity, c->perplexity_stderr, c->n_scored);
    if (n_starved == 1)
        printf("1 expert saw no token; see 'kerf imatrix show %s'\n", a->output);
    else if (n_starved)
        printf("%zu experts saw no token; see 'kerf imatrix show %s'\n", n_starved, a->output);
}

/* What would be run, and with --resume from where; fails as the run would. */
static int print_plan(struct eval_run *r, const char *model, const struct collect_args *a, const char *state,
                      struct err *e)
{
    struct imatrix_collected c = {.n_windows = r->windows.n,
                                  .n_tokens = r->windows.n * r->windows.ctx,
                                  .perplexity = NAN,
                                  .perplexity_stderr = NAN};
    char identity[65];
    int rc = a->resume ? identify(r, a, identity, e) : 0;
    if (rc == 0 && a->resume) {
        struct imatrix_collect_options opt = collect_options(r, a, state, identity);
        rc = imatrix_collect_look(&c.n_resumed, &r->models[0].net, &r->windows, &opt, e);
    }
    if (rc != 0)
        return rc;
    if (r->shared->json) {
        print_json(&c, a, r->windows.ctx, collect_resumed_word(false, c.n_resumed),
                   clock_seconds() - r->start);
        return 0;
    }
    printf("%s: would be collected from %zu windows of %zu tokens (%zu tokens) through %s\n", a->output,
           c.n_windows, r->windows.ctx, c.n_tokens, model);
    if (c.n_resumed)
        printf("%zu of %zu windows are done and kept in %s; the run would continue from there\n", c.n_resumed,
               c.n_windows, state);
    else if (a->resume)
        printf("nothing to resume; the run would start from the beginning\n");
    return 0;
}

/* Before hours of work: do they compile? */
static int check_expressions(const struct collect_args *a, struct err *e)
{
    struct imatrix *none = NULL;
    size_t n_left = 0;
    int rc = imatrix_new(&none, e);
    if (rc == 0)
        rc = imatrix_select(none, a->include.items, a->include.n, a->exclude.items, a->exclude.n, &n_left, e);
    imatrix_free(none);
    return rc;
}

static int skip_windows(struct eval_run *r, const struct collect_args *a, struct err *e)
{
    size_t n = r->windows.n;
    if (a->from_chunk >= n)
        return err_set(e, ERR_ARG,
                       "--from-chunk %" PRIu64 ": the text has %zu windows of %zu tokens, from 0 on",
                       a->from_chunk, n, r->windows.ctx);
    windows_skip(&r->windows, (size_t)a->from_chunk);
    return 0;
}

static int run(struct eval_run *r, const char *model, const void *args, const char *state, struct err *e)
{
    const struct collect_args *a = args;
    struct imatrix_collected c = {0};
    bool finished = false;
    if (r->text->chunks) /* counted from there on */
        r->text->chunks += a->from_chunk;
    int rc = check_expressions(a, e);
    if (rc == 0)
        rc = collect_open(r, model, a->output, state, a->resume, e);
    if (rc == 0)
        rc = skip_windows(r, a, e);
    if (rc == 0)
        rc = find_finished(r, a, &c, &finished, e);
    if (rc == 0 && !a->resume && access(state, F_OK) == 0)
        cmd_warn(r->shared,
                 "[restarted] %s: the sums of a stopped run %s dropped; --resume continues from them", state,
                 r->shared->dry_run ? "would be" : "are");
    if (rc == 0 && r->shared->dry_run && !finished)
        return print_plan(r, model, a, state, e);
    if (rc == 0 && finished)
        collect_tell_finished(r, a->output);
    else if (rc == 0)
        rc = collect(r, a, state, &c, e);
    if (rc == 0 && !finished) {
        rc = save(r, a, &c, e);
        if (rc == 0)
            unlink(state);
        else
            err_context(e, rc, "the sums are kept in %s, --resume continues from there", state);
    }
    double seconds = clock_seconds() - r->start;
    if (rc == 0 && r->shared->json)
        print_json(&c, a, r->windows.ctx, collect_resumed_word(finished, c.n_resumed), seconds);
    else if (rc == 0)
        print_text(&c, a, r->windows.ctx, seconds);
    imatrix_collected_release(&c);
    return rc;
}

/* Rows of the option table. */
#define COLLECTION_OPTIONS(a)                                                                                \
    OPT_GROUP("Collection:"),                                                                                \
        OPT(FLAG, "process-output", &(a).process_output, NULL,                                               \
            "collect for the language head too (under the embedding's name when it is tied)"),               \
        OPT(FLAG, "attention", &(a).attention, NULL,                                                         \
            "weigh the inputs of keys by the attention that each token receives, and those of values as "    \
            "attention mixes them"),                                                                         \
        OPT(FLAG, "all-experts", &(a).all_experts, NULL,                                                     \
            "show every expert every token, whatever the router chooses; the model computes what it would "  \
            "without, and the file says so (kerf.imatrix.all_experts)"),                                     \
        OPT(CHOICE, "expert-weights", &(a).expert_weights, "plain|router",                                   \
            "with --all-experts: what a token counts for each expert: one, or the router's weight "          \
            "(kerf.imatrix.by_router)",                                                                      \
            .fallback = "plain"),                                                                            \
        OPT(LIST, "include", &(a).include, "REGEX",                                                          \
            "keep only entries of tensors whose name matches REGEX anywhere"),                               \
        OPT(LIST, "exclude", &(a).exclude, "REGEX",                                                          \
            "leave out entries of tensors whose name matches REGEX anywhere"),                               \
        OPT(UINT, "from-chunk", &(a).from_chunk, "N", "leave out the first N windows"),                      \
        OPT(UINT, "expert-prior", &(a).prior, "N", IMATRIX_PRIOR_HELP, .fallback = IMATRIX_PRIOR_FALLBACK,   \
            .range = OPT_RANGE(.max = UINT32_MAX)),                                                          \
        OPT(FLAG, "no-perplexity", &(a).no_perplexity, NULL, "do not score the text on the way"),            \
        OPT(UINT, "save-every", &(a).save_every, "N",                                                        \
            "keep the state in OUT.kerf-state about every N windows; the weights are read once for each",    \
            .fallback = "32768 tokens; the whole text for models larger than half of the memory",            \
            .range = OPT_RANGE(.min = 1)),                                                                   \
        OPT(FLAG, "resume", &(a).resume, NULL, "continue from the saved state of a run that was stopped")

int cmd_imatrix_collect(int argc, char **argv)
{
    struct shared_options shared = SHARED_OPTIONS_INIT;
    struct text_options text = TEXT_OPTIONS_INIT;
    struct collect_args a = {0};
    const struct opt options[] = {
        OPT(TEXT, "output", &a.output, "FILE", "the importance matrix to write, .gguf or .dat",
            .letter = 'o'),
        TEXT_OPTIONS(text),
        COLLECTION_OPTIONS(a),
    };
    const struct opt_command cmd = {
        .name = "imatrix",
        .operands = "MODEL --text TEXT -o OUT.{gguf,dat}",
        .description =
            "Collect an importance matrix: for every matrix of the model the mean square of each input "
            "column over a calibration text, per expert where there are experts. Sub-commands: 'imatrix "
            "merge A B... -o C', 'imatrix convert A -o B' and 'imatrix show F', each with its own "
            "--help." ADAPTERS_HELP,
        OPT_TABLE(options),
        .min_operands = 1,
        .max_operands = 1,
        .uses = USES_ALL,
        .examples = "kerf imatrix Qwen3-0.6B --text calibration.txt -o q3.imatrix.gguf\n"
                    "kerf imatrix Qwen3-0.6B --text big.txt.gz --chunks 200 -o q3.imatrix.gguf --resume",
    };
    struct opt_operands args;
    int status = opt_parse(&cmd, argc, argv, &shared, &args);
    if (status != OPT_CONTINUE)
        return status;
    status = a.expert_weights && !a.all_experts
                 ? cmd_usage(&cmd, "--expert-weights: says how tokens count with --all-experts")
                 : 0;
    if (status == 0)
        status = eval_check_options(&cmd, &text, false);
    if (status == 0)
        status = imatrix_check_output(&cmd, a.output, &a.format);
    struct eval_run r = {.shared = &shared, .text = &text};
    if (status == 0)
        status = collect_command(&r, args.items[0], a.output, run, &a);
    eval_release(&r);
    opt_list_release(&a.include);
    opt_list_release(&a.exclude);
    return status;
}
