/* cmd_hessian.c - kerf hessian MODEL --text TEXT -o OUT.gguf: collect Hessians; kerf hessian merge A B... -o
 * C. */
#include "collect_command.h"

#include "calib/solve/loss_table.h"
#include "calib/stats/hessian_collect.h"
#include "formats/model/model_identity.h"
#include "formats/json.h"
#include "formats/output/output_file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct hessian_args {
    const char *output;
    bool resume;
};

static void print_result(const struct eval_run *r, const struct hessian_plan *p, const struct hessian_args *a,
                         uint64_t n_bytes, size_t n_resumed, bool finished)
{
    double seconds = clock_seconds() - r->start;
    if (r->shared->json) {
        struct json_writer w;
        cmd_json_begin(&w);
        jw_key(&w, "output"), jw_string(&w, a->output);
        jw_key(&w, "n_grams"), jw_uint(&w, p->n_grams);
        jw_key(&w, "n_bytes"), jw_uint(&w, n_bytes);
        jw_key(&w, "n_chunks"), jw_uint(&w, r->windows.n);
        jw_key(&w, "n_tokens"), jw_uint(&w, (uint64_t)r->windows.n * r->windows.ctx);
        jw_key(&w, "ctx"), jw_uint(&w, r->windows.ctx);
        jw_key(&w, "n_layers_resumed"), jw_uint(&w, n_resumed);
        jw_key(&w, "resumed"), jw_string(&w, collect_resumed_word(finished, n_resumed));
        jw_key(&w, "seconds"), jw_double(&w, seconds);
        cmd_json_end(&w);
        return;
    }
    char size[32];
    printf("%s: %s%zu Gram matrices, %s%s, from %zu windows of %zu tokens", a->output,
           r->shared->dry_run ? "would be " : "", p->n_grams, r->shared->dry_run ? "about " : "",
           format_bytes(size, (double)n_bytes), r->windows.n, r->windows.ctx);
    if (!r->shared->dry_run)
        printf(", %.1fs", seconds);
    putchar('\n');
}

/* Of the file that was written; of one that would be, the matrices, which are nearly all of it. */
static uint64_t file_bytes(const struct hessian_plan *p, const char *written)
{
    struct stat st;
    if (written && stat(written, &st) == 0)
        return (uint64_t)st.st_size;
    return hessian_plan_bytes(p);
}

/* With --resume an output that is there is this run's, or in the way. */
static int find_finished(struct eval_run *r, const struct hessian_args *a, bool *finished, struct err *e)
{
    struct hessian_file *h = NULL;
    char model[65], ids[65], windows[65];
    *finished = false;
    if (!a->resume || r->shared->force || access(a->output, F_OK) != 0)
        return 0;
    int rc = loss_weights_hash(r->models[0].model, model, e);
    if (rc == 0)
        rc = hessian_file_open(&h, a->output, e);
    if (rc != 0)
        return rc;
    const struct hessian_source *s = hessian_file_source(h);
    corpus_hash(&r->corpus, ids);
    windows_hash(&r->windows, windows);
    *finished = !s->merged && strcmp(s->model_sha256, model) == 0 && strcmp(s->ids_sha256, ids) == 0 &&
                strcmp(s->windows_sha256, windows) == 0 &&
                eval_activations(r->text) == ACTIVATIONS_F32; /* of others the file says nothing */
    hessian_file_close(h);
    return *finished ? 0 : collect_not_ours(a->output, e);
}

static int collect(struct eval_run *r, const struct hessian_args *a, const char *state, size_t *n_resumed,
                   struct err *e)
{
    const char **datasets = calloc(r->corpus.n_texts + 1, sizeof *datasets);
    struct hessian_collect_options opt = {
        .pool = r->session.pool,
        .memory_bytes = r->shared->memory_bytes,
        .activations = eval_activations(r->text),
        .file = {r->shared->force, a->resume, datasets, r->corpus.n_texts, NULL},
        .state_path = state,
        .progress = progress_on(&r->bar)};
    if (!datasets)
        return err_set(e, ERR_NOMEM, "out of memory for %zu texts", r->corpus.n_texts);
    opt.file.n_datasets = 0;
    for (size_t i = 0; i < r->corpus.n_texts; i++)
        if (windows_use_text(&r->windows, i))
            datasets[opt.file.n_datasets++] = r->corpus.texts[i].path;
    corpus_hash(&r->corpus, opt.source.ids_sha256);
    char identity[MODEL_IDENTITY_BYTES] = "";
    opt.file.model = identity;
    int rc = model_identity(identity, r->models[0].model, e);
    if (rc == 0)
        rc = loss_weights_hash(r->models[0].model, opt.source.model_sha256, e);
    if (rc == 0) {
        progress_begin(&r->bar, r->shared, "collecting", "tokens",
                       (uint64_t)r->windows.n * r->windows.ctx * r->models[0].net.n_layers);
        rc = hessian_collect(a->output, &r->models[0].net, r->models[0].weights, &r->windows, &opt, n_resumed,
                             e);
        progress_end(&r->bar);
    }
    free(datasets);
    return rc;
}

static int run(struct eval_run *r, const char *model, const void *args, const char *state, struct err *e)
{
    const struct hessian_args *a = args;
    struct hessian_plan plan = {0};
    size_t n_resumed = 0;
    bool finished = false;
    int rc = collect_open(r, model, a->output, state, a->resume, e);
    if (rc == 0)
        rc = hessian_plan_make(&plan, &r->models[0].net, e);
    if (rc == 0)
        rc = find_finished(r, a, &finished, e);
    if (rc == 0 && finished)
        collect_tell_finished(r, a->output);
    else if (rc == 0 && !r->shared->dry_run)
        rc = collect(r, a, state, &n_resumed, e);
    if (rc == 0 && !finished && !r->shared->dry_run)
        collect_tell_resumed(r, a->output, a->resume, n_resumed, r->models[0].net.n_layers, "layers");
    if (rc == 0)
        print_result(r, &plan, a, file_bytes(&plan, r->shared->dry_run ? NULL : a->output), n_resumed,
                     finished);
    hessian_plan_release(&plan);
    return rc;
}

static int cmd_hessian_merge(int argc, char **argv)
{
    struct shared_options shared = SHARED_OPTIONS_INIT;
    const char *output = NULL;
    const struct opt options[] = {
        OPT(TEXT, "output", &output, "FILE", "the Hessian file to write", .letter = 'o'),
    };
    const struct opt_command cmd = {
        .name = "hessian merge",
        .operands = "A B... -o C.gguf",
        .description = "Add Hessians of the same model: sums, token counts and importance add up.",
        OPT_TABLE(options),
        .min_operands = 1,
        .max_operands = SIZE_MAX,
        .uses = USES_FORCE | USES_DRY_RUN,
        .examples = "kerf hessian merge prose.gguf code.gguf -o both.gguf",
    };
    struct opt_operands args;
    int status = opt_parse(&cmd, argc, argv, &shared, &args);
    if (status != OPT_CONTINUE)
        return status;
    if (!output)
        return cmd_usage(&cmd, "--output FILE is required");
    struct err e = {0};
    int rc = cmd_check_output(output, shared.force, &e);
    for (size_t i = 0; rc == 0 && i < args.n; i++)
        rc = output_file_check_input(output, args.items[i], &e);
    if (rc == 0 && !shared.dry_run)
        rc = hessian_merge((const char *const *)args.items, args.n, output, shared.force, &e);
    if (rc == 0 && shared.json) {
        struct json_writer w;
        cmd_json_begin(&w);
        jw_key(&w, "output"), jw_string(&w, output);
        jw_key(&w, "n_inputs"), jw_uint(&w, args.n);
        cmd_json_end(&w);
    } else if (rc == 0)
        printf("%s: %s of %zu files\n", output, shared.dry_run ? "would be the sums" : "the sums", args.n);
    return rc ? cmd_fail(&e) : CMD_DONE;
}

int cmd_hessian(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "merge") == 0)
        return cmd_hessian_merge(argc - 1, argv + 1);
    struct shared_options shared = SHARED_OPTIONS_INIT;
    struct text_options text = TEXT_OPTIONS_INIT;
    struct hessian_args a = {0};
    const struct opt options[] = {
        OPT(TEXT, "output", &a.output, "FILE",
            "the Hessian file to write; it serves as an importance matrix, too", .letter = 'o'),
        TEXT_OPTIONS(text),
        OPT_GROUP("Collection:"),
        OPT(FLAG, "resume", &a.resume, NULL,
            "continue a stopped run after its last complete layer, and keep what is done when "
            "this one stops"),
    };
    const struct opt_command cmd = {
        .name = "hessian",
        .operands = "MODEL --text TEXT -o OUT.gguf",
        .description =
            "Collect Hessians over a calibration text, for --method feedback: of the inputs of "
            "every matrix the sum of X X^T, as GPTQ uses it; for keys and values tokens count by the "
            "attention they get. The file holds the importance matrix of the same text as well. "
            "'hessian merge A B... -o C' adds files up." ADAPTERS_HELP,
        OPT_TABLE(options),
        .min_operands = 1,
        .max_operands = 1,
        .uses = USES_ALL,
        .examples = "kerf hessian Qwen3-0.6B --text calibration.txt -o q3.hessian.gguf",
    };
    struct opt_operands args;
    int status = opt_parse(&cmd, argc, argv, &shared, &args);
    if (status != OPT_CONTINUE)
        return status;
    status = eval_check_options(&cmd, &text, false);
    if (status == 0 && !a.output)
        status = cmd_usage(&cmd, "--output FILE is required");
    struct eval_run r = {.shared = &shared, .text = &text};
    if (status == 0)
        status = collect_command(&r, args.items[0], a.output, run, &a);
    eval_release(&r);
    return status;
}
