/* cmd_perplexity.c - kerf perplexity: how well a model predicts a text, with the uncertainty of the figure.
 */
#include "eval_command.h"

#include "calib/model/forward.h"
#include "formats/json.h"
#include "libquant/base/path.h"
#include "formats/output/output_file.h"
#include "formats/output/text_file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BLOCK_BYTES (64u << 20) /* of logits computed at once */

static int write_ids(const struct windows *w, const char *path, bool overwrite, struct err *e)
{
    struct text_file f;
    struct json_writer j;
    int rc = text_file_begin(&f, path, e);
    if (rc != 0)
        return rc;
    jw_begin(&j, f.out);
    jw_array(&j);
    for (size_t i = 0; i < w->ctx; i++)
        jw_int(&j, w->inputs[i]);
    jw_end(&j);
    return text_file_end(&f, 0, overwrite, e);
}

/* Logits of every position of the first window, in blocks of rows. */
static int write_logits(struct eval_run *r, const struct hidden_states *states, const char *path,
                        struct err *e)
{
    const struct net *net = &r->models[0].net;
    size_t n = r->windows.ctx, rows = BLOCK_BYTES / sizeof(float) / net->n_vocab;
    rows = rows == 0 ? 1 : rows < n ? rows : n;
    struct output_file_options opt = {.overwrite = r->shared->force,
                                      .size_bytes = (uint64_t)n * net->n_vocab * sizeof(float)};
    struct head_model head = {net, r->models[0].weights, states};
    struct head_options h = {.pool = r->session.pool, .memory_bytes = r->shared->memory_bytes};
    struct output_file *out = NULL;
    int rc = output_file_open(&out, path, &opt, e);
    if (rc != 0)
        return rc;
    float *logits = malloc(rows * net->n_vocab * sizeof *logits);
    if (!logits)
        rc = err_set(e, ERR_NOMEM, "out of memory for %zu rows of logits", rows);
    for (size_t i = 0; rc == 0 && i < n; i += rows) {
        size_t now = n - i < rows ? n - i : rows;
        rc = head_logits(&head, i, now, &h, logits, e);
        if (rc == 0)
            rc = output_file_write(out, logits, now * net->n_vocab * sizeof *logits, e);
    }
    free(logits);
    if (rc == 0)
        return output_file_commit(out, 0, e);
    output_file_abort(out);
    return rc;
}

static int save_logits(struct eval_run *r, const char *path, const char *ids, struct err *e)
{
    struct hidden_states *states = NULL;
    struct forward_options f = {.pool = r->session.pool,
                                .memory_bytes = r->shared->memory_bytes,
                                .cache = r->models[0].cache,
                                .memory_share = 1,
                                .keep_end = r->windows.ctx};
    int rc = forward_run(&states, &r->models[0].net, r->models[0].weights, r->windows.inputs, 1,
                         r->windows.ctx, &f, e);
    if (rc == 0)
        rc = write_logits(r, states, path, e);
    if (rc == 0)
        rc = write_ids(&r->windows, ids, r->shared->force, e);
    hidden_states_free(states);
    return rc;
}

/* `logits` and `ids` (may be NULL): the files to write of the first window. */
static int run(struct eval_run *r, const char *model, const char *logits, const char *ids, struct err *e)
{
    int rc = cmd_check_output(logits, r->shared->force, e);
    if (rc == 0)
        rc = cmd_check_output(ids, r->shared->force, e);
    if (rc == 0)
        rc = eval_open(r, model, 0, e);
    if (rc == 0)
        rc = net_need_tokens(&r->models[0].net, "perplexity", e);
    if (rc == 0 && !kv_cache_is_exact(&r->text->cache))
        rc = eval_set_cache(r, &r->models[0], &r->text->cache, false, e);
    if (rc == 0)
        rc = eval_check_inputs(r, logits, e);
    if (rc == 0)
        rc = eval_check_inputs(r, ids, e);
    if (rc == 0)
        rc = eval_open_text(r, e);
    if (rc == 0 && logits && !r->shared->dry_run)
        rc = save_logits(r, logits, ids, e);
    r->report.logits = logits;
    if (rc == 0)
        rc = eval_run_models(r, REPORT_PERPLEXITY, e);
    return rc == 0 ? eval_print(r, NULL, e) : rc;
}

int cmd_perplexity(int argc, char **argv)
{
    struct shared_options shared = SHARED_OPTIONS_INIT;
    struct text_options text = TEXT_OPTIONS_INIT;
    const char *logits = NULL;
    struct resume_options resume = RESUME_OPTIONS_INIT;
    const struct opt options[] = {
        TEXT_OPTIONS(text),
        SCORED_TEXT_OPTIONS(text),
        KV_OPTION(text.kv_type),
        RESUME_OPTIONS(resume),
        OPT_GROUP("Output:"),
        OPT(TEXT, "save-logits", &logits, "FILE",
            "write the logits of the first window (float32, positions x vocabulary) and its ids (FILE.json)"),
    };
    const struct opt_command cmd = {
        .name = "perplexity",
        .operands = "MODEL --text TEXT",
        .description =
            "Perplexity of a model on a text, with its standard error. The model is a checkpoint "
            "folder or a GGUF file of any type; it is streamed layer by layer, so it may be "
            "larger than memory. Windows and scored positions are those of llama.cpp." ADAPTERS_HELP,
        OPT_TABLE(options),
        .min_operands = 1,
        .max_operands = 1,
        .uses = USES_ALL,
        .examples = "kerf perplexity Qwen3-0.6B --text wiki.test.txt\n"
                    "kerf perplexity q3-Q4_K_M.gguf --text wiki.test.txt --chunks 20 --json",
    };
    struct opt_operands args;
    int status = opt_parse(&cmd, argc, argv, &shared, &args);
    if (status != OPT_CONTINUE)
        return status;
    struct err e = {0};
    struct eval_run r = {.shared = &shared, .text = &text, .resume = &resume};
    status = eval_check_options(&cmd, &text, false);
    if (status == 0) {
        char *ids = logits ? path_with(logits, ".json") : NULL; /* written with them */
        int rc = logits && !ids ? err_set(&e, ERR_NOMEM, "out of memory")
                                : run(&r, args.items[0], logits, ids, &e);
        status = eval_status(&r, rc, &e);
        free(ids);
    }
    eval_release(&r);
    return status;
}
