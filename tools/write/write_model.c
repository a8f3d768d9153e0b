/* write_model.c - see write_model.h. */
#include "write_model.h"

#include "tools/options/adapter_options.h"
#include "feedback_command.h"
#include "tools/progress.h"
#include "towers_command.h"
#include "tools/options/type_options.h"

#include "calib/solve/plan_origin.h"
#include "formats/inspect/model_verify.h"
#include "formats/rewrite/rewrite.h"
#include "formats/json.h"
#include "formats/output/output_file.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

struct options {
    const char *output, *base, *type, *plan, *output_type, *embedding_type, *imatrix, *recipe;
    struct opt_list imatrix_exclude, tensor_types, skip_tensors, adapters;
    struct feedback_options feedback;
    uint64_t split_max_bytes;
    struct towers_options towers;
    bool mmproj;
    bool pure, leave_output, imatrix_strict, resume, allow_requantize, keep_mtp, no_vocab, no_fallback;
};

/* What the options name, opened. */
struct inputs {
    struct session session;
    struct model *model;
    struct towers_run towers;
    struct plan *plan;
    struct imatrix *imatrix;
    struct adapter_list adapters;
    struct recipe_override *overrides;
    char **patterns; /* owns the texts */
    size_t n_overrides;
    struct plan_origin origin;
};

static void inputs_release(struct inputs *in)
{
    for (size_t i = 0; in->patterns && i < in->n_overrides; i++)
        free(in->patterns[i]);
    free(in->patterns);
    free(in->overrides);
    adapter_list_release(&in->adapters);
    towers_release(&in->towers);
    imatrix_free(in->imatrix);
    plan_free(in->plan);
    model_close(in->model);
    session_close(&in->session);
}

static int parse_overrides(const struct opt_command *cmd, const struct opt_list *l, struct inputs *in)
{
    in->overrides = calloc(l->n ? l->n : 1, sizeof *in->overrides);
    in->patterns = calloc(l->n ? l->n : 1, sizeof *in->patterns);
    if (!in->overrides || !in->patterns)
        return cmd_fail(&(struct err){ERR_NOMEM, "out of memory for the types"});
    for (size_t i = 0; i < l->n; i++) {
        int status =
            parse_type_rule(cmd, "--tensor-type", l->items[i], &in->patterns[i], &in->overrides[i].type);
        if (status)
            return status;
        in->overrides[i].pattern = in->patterns[i];
        in->n_overrides = i + 1;
    }
    return 0;
}

/* Everything about types; 0 or an exit status. */
static int parse_recipe(const struct opt_command *cmd, const struct options *o, struct inputs *in,
                        struct recipe_options *r)
{
    int status = 0;
    if (o->type && strcmp(o->type, "auto") != 0)
        status = parse_mix(cmd, "--type", o->type, &r->mix);
    if (status == 0 && o->output_type) {
        r->has_output_type = true;
        status = parse_tensor_type(cmd, "--output-type", o->output_type, &r->output_type);
    }
    if (status == 0 && o->embedding_type) {
        r->has_embedding_type = true;
        status = parse_tensor_type(cmd, "--embedding-type", o->embedding_type, &r->embedding_type);
    }
    if (status == 0)
        status = parse_overrides(cmd, &o->tensor_types, in);
    r->recipe = o->recipe;
    r->pure = o->pure;
    r->leave_output = o->leave_output;
    r->overrides = in->overrides;
    r->n_overrides = in->n_overrides;
    return status;
}

static void shape_text(const struct rewrite_tensor_report *t, char out[96])
{
    size_t n = 0;
    out[0] = 0;
    for (uint32_t d = t->n_dims; d > 0 && n < 96; d--)
        n += (size_t)snprintf(out + n, 96 - n, "%s%" PRIu64, n ? " x " : "", t->ne[d - 1]);
}

/* What --resume found; NULL: it was not asked, or found nothing. */
static const char *resumed_word(const struct rewrite_report *r, bool resume)
{
    return !resume ? NULL : r->finished ? "complete" : r->resumed ? "continued" : NULL;
}

/* `feedback` NULL: the plain encoder. */
static void print_json(const struct rewrite_report *r, const struct inputs *in, const char *output,
                       const struct feedback_run *feedback, bool resume, double seconds)
{
    const struct model *m = in->model;
    struct json_writer w;
    cmd_json_begin(&w);
    jw_key(&w, "output"), jw_string(&w, output);
    jw_key(&w, "type"), jw_string(&w, r->type_name);
    jw_key(&w, "n_bytes"), jw_uint(&w, r->n_bytes);
    jw_key(&w, "n_parameters"), jw_uint(&w, r->n_parameters);
    jw_key(&w, "bits_per_weight"), jw_double(&w, r->bits_per_weight);
    jw_key(&w, "seconds"), jw_double(&w, seconds);
    jw_key(&w, "peak_rss_bytes"), jw_uint(&w, session_peak_rss());
    jw_key(&w, "n_tensors_resumed"), jw_uint(&w, r->n_resumed);
    jw_key(&w, "resumed"), jw_string(&w, resumed_word(r, resume));
    jw_key(&w, "n_fallbacks"), jw_uint(&w, r->n_fallbacks);
    adapters_json(in->model, &w);
    jw_key(&w, "files"), jw_array(&w);
    for (size_t i = 0; i < r->n_files; i++)
        jw_string(&w, r->files[i]);
    jw_end(&w);
    jw_key(&w, "skipped"), jw_array(&w);
    for (size_t i = 0; i < model_n_skipped(m); i++)
        jw_string(&w, model_skipped(m, i));
    jw_end(&w);
    jw_key(&w, "tensors"), jw_array(&w);
    for (size_t i = 0; i < r->n_tensors; i++) {
        const struct rewrite_tensor_report *t = &r->tensors[i];
        jw_object(&w);
        jw_key(&w, "name"), jw_string(&w, t->name);
        jw_key(&w, "source_type"), jw_string(&w, t->source_type);
        jw_key(&w, "type"), jw_string(&w, qtype_name(t->type));
        jw_key(&w, "shape"), jw_array(&w);
        for (uint32_t d = t->n_dims; d > 0; d--)
            jw_uint(&w, t->ne[d - 1]);
        jw_end(&w);
        jw_key(&w, "n_bytes"), jw_uint(&w, t->n_bytes);
        jw_key(&w, "rmse"), jw_double(&w, t->rmse);
        jw_key(&w, "n_flushed"), jw_uint(&w, t->n_flushed);
        jw_key(&w, "n_clipped"), jw_uint(&w, t->n_clipped);
        jw_key(&w, "no_importance"), jw_bool(&w, t->no_importance);
        jw_key(&w, "repacked"), jw_bool(&w, t->repacked);
        jw_key(&w, "fallback"), jw_bool(&w, t->fallback);
        jw_end(&w);
    }
    jw_end(&w);
    if (feedback)
        feedback_json(feedback, &w);
    towers_json(&in->towers, &w);
    cmd_json_end(&w);
}

static void print_tensors(const struct rewrite_report *r, FILE *out)
{
    for (size_t i = 0; i < r->n_tensors; i++) {
        const struct rewrite_tensor_report *t = &r->tensors[i];
        char shape[96], size[32], rmse[32] = "";
        shape_text(t, shape);
        if (!isnan(t->rmse))
            snprintf(rmse, sizeof rmse, "  rmse %.3g", t->rmse);
        fprintf(out, "%-40s %-18s %8s -> %-8s %12s%s\n", t->name, shape, t->source_type, qtype_name(t->type),
                format_bytes(size, (double)t->n_bytes), rmse);
    }
}

/* "Q4_K 24 tensors, 2.1 MiB" for each type in use; how many of them are the checkpoint's own packed weights.
 */
static void print_types(const struct rewrite_report *r)
{
    for (uint32_t type = 0; type < QTYPE_COUNT; type++) {
        uint64_t n_bytes = 0;
        size_t n = 0, n_repacked = 0;
        char size[32];
        for (size_t i = 0; i < r->n_tensors; i++)
            if (r->tensors[i].type == (enum qtype)type) {
                n++;
                n_repacked += r->tensors[i].repacked;
                n_bytes += r->tensors[i].n_bytes;
            }
        if (n)
            printf("  %-8s %4zu tensor%s %12s", qtype_name(type), n, n == 1 ? " " : "s",
                   format_bytes(size, (double)n_bytes));
        if (n_repacked)
            printf("  (%zu repacked without loss)", n_repacked);
        if (n)
            putchar('\n');
    }
}

static void print_text(const struct rewrite_report *r, const char *output, const struct shared_options *s,
                       double seconds)
{
    char size[32], params[32], time[32];
    if (s->dry_run) /* there they are the result; see tell_remarks */
        print_tensors(r, stdout);
    printf("%s: %s%s, %s, %.2f bits per weight (%s parameters in %zu tensor%s)", output,
           s->dry_run && !r->finished ? "would be " : "", r->type_name,
           format_bytes(size, (double)r->n_bytes), r->bits_per_weight,
           format_count(params, (double)r->n_parameters), r->n_tensors, format_plural(r->n_tensors));
    if (r->n_files > 1)
        printf(", %zu files", r->n_files);
    if (!s->dry_run)
        printf(", %s", format_seconds(time, seconds));
    putchar('\n');
    print_types(r);
}

/* A GGUF file that 'kerf verify' would not pass makes one that it will not pass either. */
static void tell_faults(const struct shared_options *s, const struct model *m, const struct rewrite_report *r)
{
    struct verify_report v = {0};
    if (!model_is_gguf(m) || model_verify(&v, m, NULL, NULL, NULL) != 0)
        return;
    const char *first = NULL;
    size_t n = 0;
    for (size_t i = 0; i < v.n_findings; i++) {
        bool told = false;
        for (size_t k = 0; k < r->n_warnings && !told; k++)
            told = strstr(r->warnings[k], v.findings[i]) != NULL;
        first = told || first ? first : v.findings[i];
        n += !told;
    }
    if (n > 1)
        cmd_warn(s,
                 "[invalid-model] %s: %s, and %zu other fault%s ('kerf verify' lists them); the output will "
                 "have them too",
                 model_path(m), first, n - 1, format_plural(n - 1));
    else if (n == 1)
        cmd_warn(s, "[invalid-model] %s: %s; the output will have this fault too", model_path(m), first);
    verify_report_release(&v);
}

static void tell_remarks(const struct shared_options *s, const struct inputs *in,
                         const struct rewrite_report *r)
{
    const struct model *m = in->model;
    for (size_t i = 0; i < model_n_warnings(m); i++)
        cmd_warn_of(s, NULL, model_warning(m, i));
    for (size_t i = 0; i < in->origin.n; i++)
        cmd_warn_of(s, NULL, in->origin.remarks[i]);
    for (size_t i = 0; i < r->n_warnings; i++)
        cmd_warn_of(s, NULL, r->warnings[i]);
    tell_faults(s, m, r);
    towers_warn(&in->towers, s);
    cmd_tell_warnings();
    size_t n = model_n_skipped(m);
    for (size_t i = 0; s->verbose && i < n; i++)
        cmd_note(s, "left out: %s", model_skipped(m, i));
    if (r->resumed)
        cmd_note(s, "continued after %zu of %zu tensors", r->n_resumed, r->n_tensors);
    if (s->verbose && (s->json || !s->dry_run))
        print_tensors(r, stderr);
    if (n && !s->verbose)
        cmd_note(s, "%zu source tensor%s left out by rule; --verbose names %s", n, n == 1 ? " was" : "s were",
                 n == 1 ? "it" : "them");
    if (model_has_towers(m) && !in->towers.model)
        cmd_note(s,
                 "the vision and audio towers are a second file: kerf convert %s --mmproj -o mmproj.gguf "
                 "writes it, --with-mmproj both",
                 model_path(m));
}

/* A plan may do without: what it is made of need not be complete. */
static enum model_vocabulary_wish vocabulary_wish(const struct options *o, const struct shared_options *s)
{
    return o->no_vocab  ? MODEL_VOCABULARY_NONE
           : s->dry_run ? MODEL_VOCABULARY_AS_FOUND
                        : MODEL_VOCABULARY_NEEDED;
}

static int open_inputs(struct inputs *in, const char *path, const struct options *o,
                       const struct shared_options *s, struct err *e)
{
    int rc = o->output ? cmd_check_folder(o->output, e) : 0;
    if (rc == 0)
        rc = session_open(&in->session, s, e);
    if (rc == 0)
        rc = adapter_list_parse(&in->adapters, &o->adapters, o->output, e);
    if (rc == 0 && o->plan && o->output)
        rc = output_file_check_input(o->output, o->plan, e);
    if (rc == 0 && o->plan)
        rc = plan_load(&in->plan, o->plan, e);
    size_t n_left = 1;
    if (rc == 0 && o->imatrix)
        rc = imatrix_load(&in->imatrix, o->imatrix, e);
    if (rc == 0 && in->imatrix && o->imatrix_exclude.n)
        rc = imatrix_select(in->imatrix, NULL, 0, o->imatrix_exclude.items, o->imatrix_exclude.n, &n_left, e);
    if (rc == 0 && n_left == 0)
        rc = err_set(e, ERR_ARG, "%s: --imatrix-exclude leaves no entry of it", o->imatrix);
    struct model_options mo = {.allow_missing_weights = s->dry_run,
                               .keep_mtp = o->keep_mtp,
                               .vocabulary = vocabulary_wish(o, s),
                               .towers = o->mmproj,
                               .skip_tensors = o->skip_tensors.items,
                               .n_skip_tensors = o->skip_tensors.n,
                               .base = o->base,
                               .adapters = in->adapters.items,
                               .n_adapters = in->adapters.n,
                               .keep_packed = !o->mmproj && (!o->type || strcmp(o->type, "auto") == 0),
                               .kern = in->session.kern};
    if (rc == 0)
        rc = model_open(&in->model, path, &mo, e);
    if (rc == 0 && o->towers.wanted)
        rc = towers_open(&in->towers, path, o->output, &mo, e);
    return rc;
}

/* The towers first: they are small, and a fault in them shows before the long work. */
static int write_all(struct rewrite_report *report, struct inputs *in, const struct mix *towers_mix,
                     const char *output, const struct shared_options *s, const struct rewrite_options *ro,
                     struct progress_bar *bar, struct err *e)
{
    progress_begin(bar, s, "writing", "B", 0);
    int rc = in->towers.model ? towers_write(&in->towers, towers_mix, ro, e) : 0;
    if (rc == 0)
        rc = rewrite_model(report, in->model, output, ro, e);
    progress_end(bar);
    return rc;
}

/* Error feedback takes the importance of its Hessians where no matrix is given; of a text it is the run's. */
static struct plan_origin origin_of(const struct inputs *in, const struct options *o,
                                    const struct feedback_run *feedback)
{
    const bool borrowed = !in->imatrix && feedback_is_asked(&o->feedback);
    unsigned parts = o->keep_mtp ? 0 : PLAN_ORIGIN_WEIGHTS;
    if (!borrowed || (o->feedback.hessian && feedback->planned))
        parts |= PLAN_ORIGIN_IMPORTANCE;
    return plan_origin_compare(in->plan, in->model, borrowed ? feedback->planned : in->imatrix, parts);
}

static void tell(struct inputs *in, const struct options *o, const struct shared_options *s,
                 const struct feedback_run *feedback, const struct rewrite_report *report, const char *name,
                 double seconds)
{
    const bool by_feedback = feedback_is_asked(&o->feedback), solving = by_feedback && !s->dry_run;
    tell_remarks(s, in, report);
    if (report->finished)
        cmd_note(s, "%s: is finished already; --force writes it again", o->output);
    else if (o->resume && !report->resumed && !feedback->continued && !s->dry_run)
        cmd_note(s, "%s: nothing to resume; started from the beginning", o->output);
    if (solving)
        feedback_warn(feedback, s);
    if (s->json) {
        print_json(report, in, o->output, solving ? feedback : NULL, o->resume, seconds);
    } else {
        print_text(report, name, s, seconds);
        towers_print(&in->towers, s->dry_run);
    }
    if (solving)
        feedback_tell(feedback, s);
    else if (by_feedback && !s->json)
        feedback_tell_dry(feedback, &o->feedback);
}

static int run(struct inputs *in, const struct recipe_options *recipe, const struct mix *towers_mix,
               const char *path, const struct options *o, const struct shared_options *s)
{
    struct err e = {0};
    double begin = clock_seconds();
    struct rewrite_report report = {0};
    struct progress_bar bar;
    struct feedback_run feedback = {0};
    const bool by_feedback = feedback_is_asked(&o->feedback);
    int rc = open_inputs(in, path, o, s, &e);
    struct rewrite_options ro = {.recipe = *recipe,
                                 .imatrix = in->imatrix,
                                 .imatrix_path = o->imatrix,
                                 .imatrix_strict = o->imatrix_strict,
                                 .allow_requantize = o->allow_requantize,
                                 .no_fallback = o->no_fallback,
                                 .overwrite = s->force,
                                 .resume = o->resume,
                                 .dry_run = s->dry_run,
                                 .measure = true,
                                 .split_max_bytes = o->split_max_bytes,
                                 .kern = in->session.kern,
                                 .pool = in->session.pool,
                                 .progress = progress_on(&bar)};
    ro.recipe.plan = in->plan;
    ro.memory_bytes = session_memory_left(s->memory_bytes);
    if (rc == 0 && by_feedback && o->output)
        rc = feedback_check_output(&o->feedback, &ro, o->output, s, &e);
    if (rc == 0 && by_feedback && s->dry_run)
        rc = feedback_check_dry(&feedback, &ro, in->model, &in->session, &o->feedback, s, o->output, &e);
    if (rc == 0 && by_feedback && !s->dry_run)
        rc = feedback_prepare(&feedback, &ro, in->model, &in->session, &o->feedback, s, o->output, &e);
    if (rc == 0 && in->plan)
        in->origin = origin_of(in, o, &feedback);
    if (rc == 0)
        rc = write_all(&report, in, towers_mix, o->output, s, &ro, &bar, &e);
    if (rc == 0)
        tell(in, o, s, &feedback, &report, o->output ? o->output : path, clock_seconds() - begin);
    feedback_release(&feedback, rc == 0 && !s->dry_run);
    rewrite_report_release(&report);
    return rc ? cmd_fail(&e) : CMD_DONE;
}

/* The types that an adapter file may have are those of the reference converter; no mix is made for factors.
 */
static int check_adapter_options(const struct opt_command *cmd, const struct options *o)
{
    static const char *const types[] = {"auto", "F32", "F16", "BF16", "Q8_0"};
    bool known = !o->type;
    for (size_t i = 0; !known && i < sizeof types / sizeof *types; i++)
        known = strcasecmp(o->type, types[i]) == 0;
    if (!known)
        return cmd_usage(cmd, "--type %s: an adapter file is written in F32, F16, BF16 or Q8_0", o->type);
    if (o->adapters.n || o->plan || o->imatrix || feedback_is_asked(&o->feedback))
        return cmd_usage(cmd,
                         "--base writes an adapter file, which takes neither --lora nor --plan, --imatrix "
                         "or --method");
    const char *of_mixes = o->tensor_types.n   ? "--tensor-type"
                           : o->output_type    ? "--output-type"
                           : o->embedding_type ? "--embedding-type"
                           : o->pure           ? "--pure"
                           : o->leave_output   ? "--leave-output"
                                               : NULL;
    return of_mixes ? cmd_usage(cmd,
                                "%s: is about the tensors of a model; --base writes an adapter file, whose "
                                "factors all have the one --type",
                                of_mixes)
                    : 0;
}

static int check_towers(const struct opt_command *cmd, const struct options *o, const struct mix **mix)
{
    if (o->mmproj && o->towers.wanted)
        return cmd_usage(cmd, "--mmproj writes the towers alone, --with-mmproj both files: give one of them");
    if ((o->mmproj || o->towers.wanted) && o->base)
        return cmd_usage(cmd, "--base writes an adapter file, which has no towers");
    if (o->mmproj && o->adapters.n)
        return cmd_usage(cmd, "--lora merges into the text model; --mmproj writes towers");
    if (o->mmproj && feedback_is_asked(&o->feedback))
        return cmd_usage(cmd, "--method %s needs a text model; --mmproj writes towers", o->feedback.method);
    if (!o->towers.wanted && strcmp(o->towers.type, "auto") != 0)
        return cmd_usage(cmd, "--mmproj-type is for --with-mmproj; with --mmproj give --type");
    return strcmp(o->towers.type, "auto") == 0 ? 0 : parse_mix(cmd, "--mmproj-type", o->towers.type, mix);
}

/* What goes together, before anything is opened. */
static int check_usage(const struct opt_command *cmd, const struct write_command *wc, const struct options *o,
                       const struct shared_options *s)
{
    if (!o->output && !s->dry_run)
        return cmd_usage(cmd, "--output FILE is required");
    if (o->imatrix_exclude.n && !o->imatrix)
        return cmd_usage(cmd, "--imatrix-exclude: there is no --imatrix to exclude tensors from");
    if (wc->needs_type && !o->type && !o->plan)
        return cmd_usage(cmd, "--type is missing: Q4_K_M, IQ4_XS, Q8_0, ...; or give a --plan");
    return o->base ? check_adapter_options(cmd, o) : feedback_check_options(cmd, &o->feedback);
}

/* Everything behind the options; the exit status. */
static int write_operand(const struct opt_command *cmd, const struct write_command *wc, const char *model,
                         struct options *o, struct shared_options *s)
{
    struct inputs in = {0};
    struct recipe_options recipe = {0};
    const struct mix *towers_mix = NULL;
    if (o->type && strcasecmp(o->type, "auto") == 0)
        o->type = "auto";
    int status = check_usage(cmd, wc, o, s);
    if (status == 0)
        status = parse_recipe(cmd, o, &in, &recipe);
    if (status == 0)
        status = check_towers(cmd, o, &towers_mix);
    if (status == 0)
        status = run(&in, &recipe, towers_mix, model, o, s);
    inputs_release(&in);
    return status;
}

static void options_release(struct options *o)
{
    opt_list_release(&o->tensor_types);
    opt_list_release(&o->imatrix_exclude);
    opt_list_release(&o->skip_tensors);
    opt_list_release(&o->adapters);
    opt_list_release(&o->feedback.texts);
}

/* Rows of the option table: which type a tensor gets, and how it is encoded. */
#define TYPE_OPTIONS(o, needs_type)                                                                          \
    OPT_GROUP("Types:"),                                                                                     \
        OPT(TEXT, "type", &(o).type, "T",                                                                    \
            (needs_type) ? "type or mix: Q4_K_M, IQ4_XS, Q8_0, BF16, ..."                                    \
                         : "type or mix: Q4_K_M, IQ4_XS, Q8_0, BF16, ...; auto keeps the source's "          \
                           "precision, and NVFP4 and MXFP4 weights of a checkpoint as they are"),            \
        OPT(LIST, "tensor-type", &(o).tensor_types, "REGEX=TYPE",                                            \
            "type of the tensors whose GGUF name matches REGEX anywhere; the first match wins"),             \
        OPT(TEXT, "plan", &(o).plan, "FILE",                                                                 \
            "types of single tensors, as kerf allocate writes them. --type is for tensors without a line; "  \
            "--tensor-type, --output-type and --embedding-type override lines. A file whose types the plan " \
            "decides is called 'plan'; its general.file_type is the type of most weights"),                  \
        OPT(TEXT, "output-type", &(o).output_type, "T", "type of output.weight"),                            \
        OPT(TEXT, "embedding-type", &(o).embedding_type, "T", "type of token_embd.weight"),                  \
        OPT(FLAG, "pure", &(o).pure, NULL, "one type for all matrices, without the rules of the mix"),       \
        OPT(FLAG, "leave-output", &(o).leave_output, NULL, "copy output.weight as it is"),                   \
        OPT(FLAG, "no-fallback", &(o).no_fallback, NULL,                                                     \
            "refuse a tensor whose shape does not take the type that the mix gives it, instead of another "  \
            "type"),                                                                                         \
        RECIPE_OPTION((o).recipe), REQUANTIZE_OPTION((o).allow_requantize),                                  \
        OPT(CHOICE, "method", &(o).feedback.method, "fast|feedback|best",                                    \
            "fast quantizes each block by itself, as llama-quantize does; feedback (of the GPTQ kind) "      \
            "makes up for the rounding errors of a row in its later weights, by Hessians of a text; for "    \
            "Q2_K to Q6_K, Q4_0 to Q5_1, IQ2, IQ3 and IQ4; best then solves each layer once more behind "    \
            "quantized ones, for the inputs that it will have, where held-out text gains")

/* IN OUT TYPE, the order of llama-quantize, or IN TYPE. */
static int explain_operands(const struct opt_command *cmd, const struct opt_operands *operands)
{
    char *const *items = operands->items;
    for (size_t i = 1; i < operands->n && i < 3; i++)
        if (mix_find(items[i]))
            return cmd_usage(cmd,
                             "the type behind the files, as llama-quantize takes it; here: kerf %s %s -o %s "
                             "--type %s",
                             cmd->name, items[0], i == 2 ? items[1] : "OUT.gguf", items[i]);
    return 0;
}

int write_model_command(const struct write_command *wc, int argc, char **argv)
{
    struct shared_options s = SHARED_OPTIONS_INIT;
    struct options o = {.type = wc->needs_type ? NULL : "auto",
                        .recipe = "llama.cpp",
                        .towers = {.type = "auto"},
                        .feedback = FEEDBACK_OPTIONS_INIT};
    const struct opt options[] = {
        OPT(TEXT, "output", &o.output, "FILE", "the GGUF file to write", .letter = 'o'),
        TYPE_OPTIONS(o, wc->needs_type),
        OPT_GROUP("Importance:"),
        IMATRIX_OPTION(o.imatrix),
        OPT(LIST, "imatrix-exclude", &o.imatrix_exclude, "REGEX",
            "ignore the importance matrix for tensors whose name matches REGEX anywhere"),
        OPT(FLAG, "imatrix-strict", &o.imatrix_strict, NULL,
            "fail when the matrix has no data for a tensor, or an expert, that would use it "
            "(token_embd, per_layer_token_embd and output do not count)"),
        OPT_GROUP("Input and output:"),
        OPT(FLAG, "mmproj", &o.mmproj, NULL,
            "write the vision and audio towers of a checkpoint instead of its text model: the second file of "
            "a multimodal model"),
        TOWERS_OPTIONS(o.towers),
        OPT(FLAG, "keep-mtp", &o.keep_mtp, NULL, "keep multi-token-prediction blocks of a checkpoint"),
        OPT(FLAG, "no-vocab", &o.no_vocab, NULL,
            "write no vocabulary: a file that takes and gives token ids alone. For checkpoints that have "
            "none, or one that cannot be read; without it they are refused"),
        OPT(LIST, "lora", &o.adapters, "ADAPTER[=SCALE]",
            "merge a LoRA adapter (a PEFT folder, or a GGUF file of one) into the weights while they are "
            "read, SCALE times its own strength; several are added in their order"),
        OPT(TEXT, "base", &o.base, "CHECKPOINT",
            "MODEL is a PEFT folder that was trained on this checkpoint (its config.json is enough): write "
            "the adapter file that llama.cpp takes with --lora, in F32, F16, BF16 or Q8_0"),
        OPT(LIST, "skip-tensor", &o.skip_tensors, "REGEX",
            "leave out the tensors of a checkpoint whose stored name matches REGEX anywhere"),
        OPT(SIZE, "split-max-size", &o.split_max_bytes, "SIZE", "write parts of at most this size",
            .range = OPT_RANGE(.min = 1)),
        OPT(FLAG, "resume", &o.resume, NULL,
            "continue a run that was stopped, and keep what is done when this one stops; an output that is "
            "finished is left as it is"),
        FEEDBACK_OPTIONS(o.feedback),
    };
    const struct opt_command cmd = {
        .name = wc->name,
        .operands = "MODEL -o OUT.gguf",
        .description = wc->description,
        OPT_TABLE(options),
        .min_operands = 1,
        .max_operands = 1,
        .uses = USES_ALL,
        .examples = wc->examples,
        .explain_operands = explain_operands,
    };
    struct opt_operands args;
    int status = opt_parse(&cmd, argc, argv, &s, &args);
    if (status == OPT_CONTINUE)
        status = write_operand(&cmd, wc, args.items[0], &o, &s);
    options_release(&o);
    return status;
}
