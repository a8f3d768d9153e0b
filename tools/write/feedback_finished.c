/* feedback_finished.c - see feedback_finished.h. */
#include "feedback_finished.h"

#include "calib/feedback/feedback_store.h"
#include "calib/solve/loss_table.h"
#include "calib/stats/hessian_collect.h"
#include "calib/stats/hessian_file.h"
#include "formats/gguf/gguf_read.h"
#include "formats/gguf/imatrix_file.h"
#include "libquant/base/sha256.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* As if every column had been seen once, alike: types depend on what has importance alone, and nothing is to
 * be warned of. */
static void fill(struct imatrix_entry *entry)
{
    for (uint64_t i = 0; i < entry->n_values; i++)
        entry->sums[i] = 1;
    for (uint64_t i = 0; i < entry->n_mats; i++)
        entry->counts[i] = 1;
}

int feedback_stand_in(struct imatrix **out, const struct net *net, const struct corpus *corpus, struct err *e)
{
    struct hessian_plan plan = {0};
    struct imatrix_entry *entry;
    int rc = imatrix_new(out, e);
    if (rc == 0)
        rc = hessian_plan_make(&plan, net, e);
    for (size_t i = 0; rc == 0 && i < plan.n_uses; i++) {
        const struct hessian_gram *g = &plan.grams[plan.uses[i].gram];
        if (g->layer == HESSIAN_BEHIND) /* the head has Hessians, but no importance */
            continue;
        rc = imatrix_add(*out, plan.uses[i].tensor, g->n_cols * g->n_mats, g->n_mats, &entry, e);
        if (rc == 0)
            fill(entry);
    }
    for (size_t i = 0; rc == 0 && i < corpus->n_texts; i++)
        rc = imatrix_add_dataset(*out, corpus->texts[i].path, e);
    hessian_plan_release(&plan);
    return rc;
}

/* --- the identity --- */

static void hash_text(struct sha256 *h, const char *text)
{
    sha256_update(h, text, strlen(text) + 1);
}

/* Of a file of Hessians: what it was collected from, and its diagonals. Those that the run collects itself
 * follow from weights and windows. */
static void hash_hessians(struct sha256 *h, const struct hessian_source *s, const struct imatrix *diagonals)
{
    char hash[65];
    loss_imatrix_hash(diagonals, hash);
    hash_text(h, hash);
    hash_text(h, s->model_sha256);
    hash_text(h, s->ids_sha256);
    sha256_update_u64(h, s->n_windows);
    sha256_update_u64(h, s->ctx);
    sha256_update_u64(h, s->merged);
}

static void make_identity(struct feedback_run *run, const struct rewrite_options *ro,
                          const struct hessian_source *s, const struct feedback_options *f,
                          const struct rewrite_report *planned)
{
    struct sha256 h;
    char hash[65];
    sha256_init(&h);
    hash_text(&h, KERF_VERSION);
    hash_text(&h, f->method);
    sha256_update_u64(&h, FEEDBACK_SWEEPS);
    hash_text(&h, run->weights_sha256);
    if (f->hessian)
        hash_hessians(&h, s, run->planned);
    snprintf(hash, sizeof hash, "of the Hessians");
    if (ro->imatrix)
        loss_imatrix_hash(ro->imatrix, hash);
    hash_text(&h, hash);
    windows_add_to_hash(&h, &run->calibration);
    windows_add_to_hash(&h, &run->held_out);
    for (size_t i = 0; i < planned->n_tensors; i++) {
        hash_text(&h, planned->tensors[i].name);
        sha256_update_u64(&h, (uint64_t)planned->tensors[i].type);
    }
    sha256_final_hex(&h, run->identity);
}

/* --- the solved blocks --- */

struct solved {
    const char *name;
    const uint8_t *blocks;
    uint64_t n_bytes;
};

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct solved *)a)->name, ((const struct solved *)b)->name);
}

static void hash_solved(struct solved *list, size_t n, char out[65])
{
    struct sha256 h;
    sha256_init(&h);
    qsort(list, n, sizeof *list, by_name);
    for (size_t i = 0; i < n; i++) {
        hash_text(&h, list[i].name);
        sha256_update(&h, list[i].blocks, list[i].n_bytes);
    }
    sha256_final_hex(&h, out);
}

int feedback_hash_blocks(const struct feedback_run *run, char out[65], struct err *e)
{
    size_t n = feedback_model_n(run->solved);
    struct solved *list = malloc((n + 1) * sizeof *list);
    if (!list)
        return err_set(e, ERR_NOMEM, "out of memory for a list of %zu tensors", n);
    for (size_t i = 0; i < n; i++) {
        const struct feedback_tensor *t = feedback_model_tensor(run->solved, i);
        uint64_t row_bytes = 0;
        qtype_row_bytes((uint32_t)t->type, t->tensor->ne[0], &row_bytes);
        list[i] = (struct solved){t->tensor->name, feedback_model_blocks(run->solved, t->tensor, t->type),
                                  row_bytes * t->tensor->n_rows};
    }
    hash_solved(list, n, out);
    free(list);
    return 0;
}

/* Is it one of those that feedback_hash_blocks has hashed? */
static bool is_solved(const struct feedback_run *run, const struct model_tensor *t, enum qtype type)
{
    return (imatrix_find(run->planned, t->name) || t == run->net.head.tensor) && feedback_takes(t, type);
}

/* The same of the output that is there. */
static int hash_output(const struct feedback_run *run, char out[65], struct err *e)
{
    const struct model *m = run->net.model;
    size_t n_tensors = model_n_tensors(m), n = 0;
    struct solved *list = malloc((n_tensors + 1) * sizeof *list);
    if (!list)
        return err_set(e, ERR_NOMEM, "out of memory for a list of %zu tensors", n_tensors);
    for (size_t i = 0; i < n_tensors; i++) {
        const struct gguf_tensor *there = gguf_reader_find(run->finished, model_tensor(m, i)->name);
        if (there && is_solved(run, model_tensor(m, i), there->type))
            list[n++] = (struct solved){there->name, there->data, there->n_bytes};
    }
    hash_solved(list, n, out);
    free(list);
    return 0;
}

/* --- the output --- */

static bool has_text(const struct gguf_reader *r, const char *key, const char *text)
{
    struct gguf_string found;
    return gguf_meta_get_string(gguf_reader_meta(r), key, &found) && gguf_string_is(found, text);
}

static int check_blocks(const struct feedback_run *run, const char *path, struct err *e)
{
    char hash[65];
    int rc = hash_output(run, hash, e);
    if (rc == 0 && !has_text(run->finished, FEEDBACK_KEY ".blocks_sha256", hash))
        rc =
            err_set(e, ERR_EXISTS,
                    "%s: is this run's, but its blocks are no longer those that were written; use --force to "
                    "replace it",
                    path);
    return rc;
}

int feedback_check_blocks(struct gguf_reader *file, const char *path, const struct net *net,
                          const struct corpus *corpus, struct err *e)
{
    struct feedback_run of = {.net = *net, .finished = file}; /* borrowed */
    struct gguf_string ignored;
    if (!gguf_meta_get_string(gguf_reader_meta(file), FEEDBACK_KEY ".blocks_sha256", &ignored))
        return 0;
    int rc = feedback_stand_in(&of.planned, net, corpus, e);
    if (rc == 0)
        rc = check_blocks(&of, path, e);
    imatrix_free(of.planned);
    return rc;
}

/* What was solved is vouched for by the hashes; NULL: rows of it are to be encoded again. */
static const uint8_t *blocks_there(void *ctx, const struct model_tensor *t, enum qtype type)
{
    const struct feedback_run *run = ctx;
    const struct gguf_tensor *there = gguf_reader_find(run->finished, t->name);
    return there && there->type == type && is_solved(run, t, type) ? there->data : NULL;
}

/* The keys that only solving would tell, as they stand in the file. */
static int copy_keys(struct feedback_run *run, struct err *e)
{
    const struct gguf_meta *m = gguf_reader_meta(run->finished);
    int rc = gguf_meta_new(&run->extra, e);
    for (size_t i = 0; rc == 0 && i < gguf_meta_n(m); i++)
        if (strncmp(gguf_meta_key(m, i), FEEDBACK_KEY, sizeof FEEDBACK_KEY - 1) == 0)
            rc = gguf_meta_set(run->extra, gguf_meta_key(m, i), gguf_meta_value(m, i), e);
    return rc;
}

static int not_ours(const struct feedback_run *run, const char *path, struct err *e)
{
    bool kept = access(run->hessian_path, F_OK) == 0 || access(run->store_path, F_OK) == 0 ||
                access(run->state_path, F_OK) == 0;
    return err_set(e, ERR_EXISTS,
                   "%s: exists already, and is not what this run would write: its method, types, text, "
                   "weights, importance or program differ; %s",
                   path,
                   kept ? "--force --resume replaces it, and goes on from what a stopped run kept beside it"
                        : "use --force to replace it");
}

static int take_finished(struct feedback_run *run, struct rewrite_options *ro,
                         const struct feedback_options *f, const char *path, struct err *e)
{
    struct gguf_reader *r = NULL;
    if (access(path, F_OK) != 0)
        return 0;
    if (gguf_reader_open(&r, path, NULL, NULL) != 0 ||
        !has_text(r, FEEDBACK_KEY ".identity", run->identity)) {
        gguf_reader_close(r);
        return not_ours(run, path, e);
    }
    run->finished = r;
    run->own_hessians = !f->hessian;
    int rc = check_blocks(run, path, e);
    if (rc != 0)
        return rc;
    if (!ro->imatrix) {
        ro->imatrix = run->planned;
        ro->imatrix_path = f->hessian;
    }
    rc = copy_keys(run, e);
    ro->extra = run->extra;
    ro->blocks = blocks_there;
    ro->blocks_ctx = run;
    return rc;
}

int feedback_plan_importance(struct feedback_run *run, const struct hessian_source *s,
                             const struct feedback_options *f, struct err *e)
{
    int rc = f->hessian ? imatrix_load(&run->planned, f->hessian, e)
                        : feedback_stand_in(&run->planned, &run->net, &run->corpus, e);
    if (rc == 0 && !f->hessian)
        imatrix_set_chunks(run->planned, (uint32_t)s->ctx, (uint32_t)s->n_windows);
    return rc;
}

int feedback_find_finished(struct feedback_run *run, struct rewrite_options *ro,
                           const struct hessian_source *s, const struct feedback_options *f,
                           const char *output, struct err *e)
{
    struct rewrite_report planned = {0};
    struct rewrite_options dry = *ro;
    int rc = feedback_plan_importance(run, s, f, e);
    dry.dry_run = dry.overwrite = true; /* what stands there is looked at below */
    dry.imatrix = ro->imatrix ? ro->imatrix : run->planned;
    if (rc == 0)
        rc = rewrite_model(&planned, run->net.model, output, &dry, e);
    if (rc == 0)
        make_identity(run, ro, s, f, &planned);
    if (rc == 0 && ro->resume && !ro->overwrite)
        rc = take_finished(run, ro, f, planned.files[0], e);
    rewrite_report_release(&planned);
    return rc;
}

void feedback_finished_release(struct feedback_run *run, bool done)
{
    struct hessian_file *h = NULL;
    if (run->finished && done) {
        unlink(run->store_path); /* looked at before: it is no stranger's */
        if (run->own_hessians && hessian_file_open(&h, run->hessian_path, NULL) == 0)
            unlink(run->hessian_path);
        hessian_file_close(h);
    }
    gguf_reader_close(run->finished);
    imatrix_free(run->planned);
}
