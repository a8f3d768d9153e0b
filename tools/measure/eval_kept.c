/* eval_kept.c - see eval_kept.h: what makes two measurements the same one. */
#include "eval_kept.h"

#include "calib/eval/evaluate_kept.h"
#include "formats/model/model_identity.h"
#include "formats/output/output_lock.h"

#include <stdlib.h>
#include <string.h>

#define STATE_VERSION 1 /* of the meaning of what is kept */

/* Text, windows, settings and program. */
static void hash_settings(const struct eval_run *r, char out[65])
{
    const struct windows *w = &r->windows;
    struct sha256 h;
    sha256_init(&h);
    sha256_update(&h, KERF_VERSION, strlen(KERF_VERSION) + 1);
    sha256_update_u64(&h, STATE_VERSION);
    sha256_update(&h, r->text->activations, strlen(r->text->activations) + 1);
    sha256_update_u64(&h, w->ctx);
    sha256_update_u64(&h, w->first);
    sha256_update_u64(&h, w->end);
    sha256_update(&h, w->inputs, w->n * w->ctx * sizeof *w->inputs);
    sha256_update(&h, w->targets, w->n * windows_n_scored(w) * sizeof *w->targets);
    sha256_final_hex(&h, out);
}

/* Values of every tensor, some rows of each: names, sizes and times may be those of another file. */
static int hash_values(struct sha256 *h, const struct model *m, struct err *e)
{
    size_t n = model_n_tensors(m);
    const struct model_tensor **list = calloc(n + 1, sizeof *list);
    if (!list)
        return err_set(e, ERR_NOMEM, "out of memory for a list of %zu tensors", n);
    for (size_t i = 0; i < n; i++)
        list[i] = model_tensor(m, i);
    int rc = model_identity_sampled(h, m, list, n, e);
    free(list);
    return rc;
}

/* The files of a model, its adapters, and what is applied to its weights (those of `base`). */
static int hash_model(const struct candidate *c, const struct candidate *base, char out[65], struct err *e)
{
    const struct model *m = c->model ? c->model : base->model;
    struct sha256 h;
    sha256_init(&h);
    int rc = model_identity_quick(&h, model_path(m), NULL, e);
    if (rc == 0)
        rc = hash_values(&h, m, e);
    model_identity_adapters(&h, m);
    sha256_update(&h, c->identity, strlen(c->identity) + 1);
    const char *cache = kv_cache_is_exact(&c->cache) ? "" : c->cache_name;
    sha256_update(&h, cache, strlen(cache) + 1);
    sha256_final_hex(&h, out);
    return rc;
}

static int check(const struct eval_run *r, struct err *e)
{
    if (r->stored)
        return err_set(e, ERR_UNSUPPORTED,
                       "--resume: works with a reference that is a model, not with --reference");
    if (r->models[0].net.answer != NET_TOKENS)
        return err_set(e, ERR_UNSUPPORTED,
                       "--resume: %s answers once for a text; scores are kept of language models",
                       r->models[0].path);
    return 0;
}

/* What was taken from earlier runs, each measurement of one model on one stretch of the text. */
static void tell_kept(const struct eval_run *r, size_t n_found, size_t n_units)
{
    const char *folder = r->resume->folder;
    if (n_found)
        cmd_note(r->shared, "%zu of %zu measurement%s taken from %s", n_found, n_units,
                 format_plural(n_units), folder);
    else
        cmd_note(r->shared, "%s: nothing to resume; started from the beginning", folder);
}

static int run(struct eval_run *r, const struct evaluate_model *list, char (*hashes)[65],
               const char **identities, const struct evaluate_options *opt, struct err *e)
{
    struct score_store store = {.folder = r->resume->folder};
    struct output_lock *lock = NULL;
    size_t n_found = 0, n_units = 0;
    int rc = output_lock_take_folder(&lock, store.folder, e);
    hash_settings(r, store.about);
    for (size_t i = 0; rc == 0 && i < r->n_models; i++) {
        identities[i] = hashes[i];
        rc = hash_model(&r->models[i], &r->models[0], hashes[i], e);
    }
    if (rc == 0)
        rc = evaluate_kept(&r->evaluation, list, identities, r->n_models, &r->windows, &store, opt, &n_found,
                           &n_units, e);
    output_lock_release(lock);
    if (store.n_damaged)
        cmd_warn(r->shared, "[restarted] %s: %zu damaged files there were measured anew", store.folder,
                 store.n_damaged);
    if (rc == 0)
        tell_kept(r, n_found, n_units);
    r->report.all_kept = rc == 0 && n_found == n_units;
    return rc;
}

int eval_kept(struct eval_run *r, const struct evaluate_model *list, const struct evaluate_options *opt,
              struct err *e)
{
    int rc = check(r, e);
    if (rc != 0)
        return rc;
    char(*hashes)[65] = calloc(r->n_models, sizeof *hashes);
    const char **identities = calloc(r->n_models, sizeof *identities);
    rc = hashes && identities ? run(r, list, hashes, identities, opt, e)
                              : err_set(e, ERR_NOMEM, "out of memory for %zu models", r->n_models);
    free(hashes);
    free(identities);
    return rc;
}
