/* rewrite.c - one rewrite from plan to finished files; see rewrite.h.
 *
 * Plan (rewrite_plan.c, rewrite_meta.c), open the outputs, run the jobs (rewrite_pipeline.c), commit. All
 * parts of a split set stay temporary until all are complete. */
#include "formats/model/model_files.h"
#include "formats/model/model_identity.h"
#include "rewrite_internal.h"

#include "libquant/base/path.h"
#include "formats/output/output_file.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* --- report --- */

struct report_owner {
    struct arena arena;
};

void rewrite_report_release(struct rewrite_report *r)
{
    if (!r)
        return;
    struct report_owner *o = r->owner;
    if (o)
        arena_release(&o->arena);
    free(o);
    *r = (struct rewrite_report){0};
}

static size_t end_of_jobs(const struct rw_plan *p, size_t i)
{
    return i + 1 < p->n_tensors ? p->tensors[i + 1].first_job : p->n_jobs;
}

static struct quant_losses tensor_losses(const struct rw_plan *p, size_t i, const struct rw_run *run)
{
    struct quant_losses sum = {0};
    for (size_t job = p->tensors[i].first_job; run && job < end_of_jobs(p, i); job++) {
        sum.n_flushed += run->errors[job].losses.n_flushed;
        sum.n_clipped += run->errors[job].losses.n_clipped;
    }
    return sum;
}

static double tensor_rmse(const struct rw_plan *p, size_t i, const struct rw_run *run)
{
    const struct rw_tensor *t = &p->tensors[i];
    uint64_t n = t->src->ne[0] * t->src->n_rows;
    if (!run || !run->opt->measure)
        return NAN;
    if (t->copy || n == 0)
        return 0;
    size_t end = end_of_jobs(p, i);
    double sum = 0;
    for (size_t job = t->first_job; job < end; job++)
        sum += run->errors[job].sse;
    return sqrt(sum / (double)n);
}

static int copy_texts(const char ***out, struct arena *a, const char *const *texts, size_t n)
{
    *out = arena_array(a, n ? n : 1, sizeof **out);
    if (!*out)
        return -1;
    for (size_t i = 0; i < n; i++)
        if (!((*out)[i] = arena_strdup(a, texts[i])))
            return -1;
    return 0;
}

/* `run` NULL: a dry run. */
static int make_report(struct rewrite_report *out, const struct rw_plan *p, const struct rw_run *run,
                       struct err *e)
{
    struct report_owner *o = calloc(1, sizeof *o);
    if (!o)
        return err_set(e, ERR_NOMEM, "out of memory for the report");
    struct rewrite_report r = {.owner = o,
                               .n_parameters = p->n_parameters,
                               .n_tensors = p->n_tensors,
                               .resumed = run && run->resumed,
                               .n_resumed = run ? run->n_resumed : 0};
    r.type_name = arena_strdup(&o->arena, p->type_name);
    r.tensors = arena_array(&o->arena, p->n_tensors ? p->n_tensors : 1, sizeof *r.tensors);
    r.n_warnings = p->warnings.n;
    r.n_files = gguf_parts_n(p->parts);
    r.n_bytes = gguf_parts_total_bytes(p->parts);
    r.files = arena_array(&o->arena, r.n_files, sizeof *r.files);
    bool ok = r.type_name && r.tensors && r.files &&
              copy_texts(&r.warnings, &o->arena, p->warnings.items, p->warnings.n) == 0;
    for (uint32_t i = 0; ok && i < r.n_files; i++)
        ok = (r.files[i] = arena_strdup(&o->arena, gguf_parts_path(p->parts, i))) != NULL;
    for (size_t i = 0; ok && i < p->n_tensors; i++) {
        const struct rw_tensor *t = &p->tensors[i];
        struct rewrite_tensor_report *tr = &r.tensors[i];
        *tr = (struct rewrite_tensor_report){.name = arena_strdup(&o->arena, t->src->name),
                                             .source_type = arena_strdup(&o->arena, t->src->source_type),
                                             .type = t->type,
                                             .n_dims = t->src->n_dims,
                                             .n_bytes = t->n_bytes,
                                             .rmse = tensor_rmse(p, i, run),
                                             .fallback = t->fallback,
                                             .repacked = t->repack,
                                             .no_importance = t->no_importance};
        const struct quant_losses losses = tensor_losses(p, i, run);
        tr->n_flushed = losses.n_flushed;
        tr->n_clipped = losses.n_clipped;
        memcpy(tr->ne, t->src->ne, sizeof tr->ne);
        ok = tr->name && tr->source_type;
        r.n_fallbacks += t->fallback;
    }
    if (!ok) {
        rewrite_report_release(&r);
        return err_set(e, ERR_NOMEM, "out of memory for the report");
    }
    if (p->n_parameters)
        r.bits_per_weight = 8.0 * (double)p->tensor_bytes / (double)p->n_parameters;
    *out = r;
    return 0;
}

/* --- losses --- */

/* What tensors of one type lost, in one line for each kind of loss. */
static int warn_of_losses(struct rw_plan *p, const struct rw_run *run, enum qtype type, bool clipped,
                          struct err *e)
{
    uint64_t n_lost = 0, n_weights = 0;
    size_t n_tensors = 0, first = 0;
    const struct qtype_info *info = qtype_info((uint32_t)type);
    for (size_t i = 0; i < p->n_tensors; i++) {
        const struct quant_losses losses = tensor_losses(p, i, run);
        const uint64_t n = clipped ? losses.n_clipped : losses.n_flushed;
        if (p->tensors[i].type != type || n == 0)
            continue;
        first = n_tensors++ == 0 ? i : first;
        n_lost += n;
        n_weights += p->tensors[i].src->ne[0] * p->tensors[i].src->n_rows;
    }
    if (n_tensors == 0)
        return 0;
    const unsigned per_block = type == QTYPE_NVFP4 ? 16 : info->block_elems; /* as quant_count_losses */
    const char *s = n_tensors == 1 ? "" : "s", *what = info->is_quantized ? "blocks" : "values";
    const char *one = n_tensors == 1 ? "s" : "", *name = p->tensors[first].src->name;
    if (clipped)
        return rw_plan_warn(
            p, e,
            "[values-clipped] %" PRIu64 " of %" PRIu64 " %s in %zu tensor%s that become%s %s "
            "hold weights beyond the largest level of their scale, which stay at it; the first "
            "is '%s'",
            n_lost, n_weights / per_block, what, n_tensors, s, one, info->name, name);
    return rw_plan_warn(p, e,
                        "[values-flushed] %" PRIu64 " of %" PRIu64 " %s in %zu tensor%s that become%s %s are "
                        "too small for it, and become zero or lose most of their digits; the first is '%s'",
                        n_lost, n_weights / per_block, what, n_tensors, s, one, info->name, name);
}

static int report_losses(struct rw_plan *p, const struct rw_run *run, struct err *e)
{
    int rc = 0;
    for (uint32_t type = 0; rc == 0 && type < QTYPE_COUNT; type++) {
        if (!qtype_info(type))
            continue;
        rc = warn_of_losses(p, run, (enum qtype)type, false, e);
        if (rc == 0)
            rc = warn_of_losses(p, run, (enum qtype)type, true, e);
    }
    return rc;
}

/* --- the run --- */

/* Tensors whose every job is done. */
static size_t n_complete(const struct rw_run *run)
{
    const struct rw_plan *p = run->plan;
    size_t n = 0;
    for (size_t i = 0; i < p->n_tensors; i++) {
        size_t job = p->tensors[i].first_job, end = end_of_jobs(p, i);
        while (job < end && atomic_load(&run->done[job]))
            job++;
        n += job == end;
    }
    return n;
}

/* What a run that was asked to stop leaves, and how to go on. */
static int say_what_is_kept(const struct rw_run *run, struct err *e)
{
    const struct rw_plan *p = run->plan;
    if (!run->opt->resume)
        return err_set(e, ERR_CANCELLED, ERR_STOPPED_UNKEPT);
    return err_set(e, ERR_CANCELLED,
                   ERR_STOPPED ": %zu of %zu tensors are done and kept in %s" PATH_PART
                               "; --resume continues from there",
                   n_complete(run), p->n_tensors, gguf_parts_path(p->parts, 0));
}

/* Continue what the journal knows, or start from nothing. */
static int prepare(struct rw_run *run, struct rw_plan *p, const char *path, const char identity[65],
                   struct rw_journal **journal, struct err *e)
{
    bool kept = false, matches = false;
    int rc = rw_journal_discard_orphan(p, e);
    if (rc == 0)
        rc = gguf_parts_open(p->parts, e); /* takes their locks */
    if (rc == 0)
        kept = gguf_parts_resumed(p->parts);
    if (rc == 0 && run->opt->resume && kept)
        rc = rw_journal_load(identity, run, &matches, e);
    if (rc == 0 && run->opt->resume && kept && !matches)
        rc =
            rw_plan_warn(p, e,
                         "[restarted] %s: the unfinished output belongs to another version, other sources or "
                         "other options; started again",
                         path);
    if (rc == 0 && !matches) {
        rc = rw_journal_discard(p, e);
        if (rc == 0)
            rc = gguf_parts_restart(p->parts, e);
    } else if (rc == 0) {
        rc = gguf_parts_write_headers(p->parts, e);
        run->resumed = true;
        run->n_resumed = n_complete(run);
    }
    if (rc == 0)
        rc = rw_journal_open(journal, identity, matches, run, e);
    return rc;
}

static int say_remark(void *ctx, const char *text, struct err *e)
{
    return rw_plan_warn(ctx, e, "%s", text);
}

/* All there is to say about an output, before it appears: nothing behind its appearance may fail. */
static int report(struct rewrite_report *out, struct rw_plan *p, const struct rw_run *run, struct err *e)
{
    int rc = gguf_parts_remarks(p->parts, say_remark, p, e);
    if (rc == 0)
        rc = report_losses(p, run, e);
    return rc == 0 ? make_report(out, p, run, e) : rc;
}

static int write_model(struct rewrite_report *out, const struct model *m, struct rw_plan *p, const char *path,
                       const struct rewrite_options *opt, struct err *e)
{
    struct rw_run run = {.model = m, .plan = p, .opt = opt};
    struct rw_journal *journal = NULL;
    struct rewrite_report made = {0};
    char identity[65];
    run.done = calloc(p->n_jobs ? p->n_jobs : 1, sizeof *run.done);
    run.errors = calloc(p->n_jobs ? p->n_jobs : 1, sizeof *run.errors);
    int rc = run.done && run.errors ? rw_journal_identity(identity, KERF_VERSION, m, p, opt, e)
                                    : err_set(e, ERR_NOMEM, "out of memory for the job list");
    if (rc == 0)
        rc = prepare(&run, p, path, identity, &journal, e);
    if (rc == 0)
        rc = rw_pipeline_run(&run, e);
    if (journal) { /* complete before the commit, which may fail or be killed */
        int stopped = rw_journal_stop(journal, rc == 0 || opt->resume, rc == 0 ? e : NULL);
        rc = rc ? rc : stopped;
    }
    if (rc == ERR_CANCELLED)
        rc = say_what_is_kept(&run, e);
    if (rc == 0)
        rc = report(&made, p, &run, e);
    if (rc == 0) {
        rc = gguf_parts_commit(p->parts, e);
        if (rc && opt->resume)
            err_context(e, rc, "what is done is kept, --resume continues from there");
    }
    rw_journal_free(journal, rc == 0 || !opt->resume);
    if (rc == 0 && out)
        *out = made;
    else
        rewrite_report_release(&made);
    free((void *)run.done);
    free(run.errors);
    return rc;
}

static int not_ours(const char *path, struct err *e)
{
    return err_set(
        e, ERR_EXISTS,
        "%s: exists already, and is not what this run would write; nothing to resume, use --force to "
        "replace it",
        path);
}

/* With `resume`, an output that a run with these options has finished: of this header, younger than what it
 * was made from, and with the bytes that these weights, importance and encoders give, in some rows of every
 * tensor. The way to tell a run that was killed after its last step from one that never began. */
static int find_finished(bool *found, const struct model *m, const struct rw_plan *p, const char *path,
                         const struct rewrite_options *opt, struct err *e)
{
    struct rw_run run = {.model = m, .plan = p, .opt = opt};
    struct sha256 ignored;
    struct timespec newest = {0};
    struct stat st;
    bool any = false, older = false, same = false;
    *found = false;
    sha256_init(&ignored);
    int rc = opt->dry_run ? 0 : gguf_parts_recover(p->parts, e);
    if (rc == 0)
        rc = model_identity_quick(&ignored, model_path(m), &newest, e);
    if (rc)
        return rc;
    if (opt->imatrix_path && stat(opt->imatrix_path, &st) == 0)
        model_files_later(&newest, &st);
    for (uint32_t i = 0; i < gguf_parts_n(p->parts); i++)
        if (gguf_parts_stands(p->parts, i)) {
            any = true;
            older =
                older || (stat(gguf_parts_path(p->parts, i), &st) == 0 && model_files_is_older(&st, &newest));
        }
    if (!any)
        return 0;
    if (!gguf_parts_finished(p->parts))
        return not_ours(path, e);
    if (older)
        return err_set(
            e, ERR_EXISTS,
            "%s: is finished, but a file of its source has a later time of change; use --force to write it "
            "again",
            path);
    rc = rw_pipeline_check(&run, &same, e);
    if (rc)
        return rc;
    if (!same)
        return not_ours(path, e);
    *found = true;
    return opt->dry_run ? 0 : rw_journal_discard_orphan(p, e); /* killed before it could do so itself */
}

/* What a dry run says of the files that stand, changing none: what gguf_parts_open would refuse, and what
 * would be warned of. Which of them a run without weights would take up is not known. */
static int look_at_outputs(struct rw_plan *p, const struct model *m, const struct rewrite_options *opt,
                           struct err *e)
{
    const bool unknown = opt->resume && !opt->overwrite && !model_has_weights(m);
    int rc = unknown ? 0 : gguf_parts_check(p->parts, e);
    return rc == 0 ? gguf_parts_remarks(p->parts, say_remark, p, e) : rc;
}

static int check_inputs(const struct model *m, const struct rw_plan *p, const struct rewrite_options *opt,
                        struct err *e)
{
    int rc = 0;
    for (uint32_t i = 0; i < gguf_parts_n(p->parts) && rc == 0; i++) {
        const char *path = gguf_parts_path(p->parts, i);
        rc = model_files_refuse(model_path(m), path, e);
        if (rc == 0 && opt->imatrix_path)
            rc = output_file_check_input(path, opt->imatrix_path, e);
    }
    return rc;
}

int rewrite_model(struct rewrite_report *out, const struct model *m, const char *path,
                  const struct rewrite_options *opt, struct err *e)
{
    struct rw_plan plan = {0};
    bool finished = false;
    if (!path && !opt->dry_run)
        return err_set(e, ERR_ARG, "a run that writes needs the name of its output");
    int rc = rw_plan_make(&plan, m, path ? path : "(dry run)", opt, e);
    if (rc == 0 && path)
        rc = check_inputs(m, &plan, opt, e);
    if (rc == 0 && !opt->dry_run && !model_has_weights(m))
        rc = err_set(e, ERR_IO, "%s: the weights are not there; only --dry-run works without them",
                     model_path(m));
    const bool takes_up = opt->resume && !opt->overwrite && path && model_has_weights(m);
    if (rc == 0 && (takes_up || !opt->dry_run))
        rc = rw_factors_fill(&plan, m, opt, e);
    if (rc == 0 && takes_up)
        rc = find_finished(&finished, m, &plan, path, opt, e);
    if (rc == 0 && opt->dry_run && path && !finished)
        rc = look_at_outputs(&plan, m, opt, e);
    if (rc == 0 && (opt->dry_run || finished))
        rc = out ? make_report(out, &plan, NULL, e) : 0;
    else if (rc == 0)
        rc = write_model(out, m, &plan, path, opt, e);
    if (rc == 0 && out)
        out->finished = finished;
    rw_plan_release(&plan);
    return rc;
}

bool rewrite_lacks_importance(const struct model *m, const struct rewrite_options *opt)
{
    struct rewrite_options dry = *opt;
    dry.dry_run = true;
    dry.without_importance = false;
    if (rewrite_model(NULL, m, NULL, &dry, NULL) != ERR_ARG)
        return false;
    dry.without_importance = true;
    return rewrite_model(NULL, m, NULL, &dry, NULL) == 0;
}
