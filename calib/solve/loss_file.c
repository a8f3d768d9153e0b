/* loss_file.c - loss tables as files: JSON, so that other programs may read or make them.
 *
 *     {"kerf_loss_table": 1, "weights_sha256": ..., "imatrix_sha256": ... or null, "ids_sha256": ...,
 *      "ctx": 512, "n_windows": 8, "n_scored": 2040, "activations": "f32" or "q8",
 *      "probe": "full" (also when the key is missing) or "fast", and with the latter
 *      "depths": [{"layer": 0, "local": ..., "kld": ..., "kld_stderr": ...}], "massive": [11],
 *      "tensors": [{"name": ..., "shape": [...],
 *                   "options": [{"type": "Q2_K", "proxy": ..., "local": ... or null, "kld": ... or null,
 *                                "kld_stderr": ..., "loss": ...}]}]}
 *
 * What is kept while a run measures is the same with "partial": true and "windows_sha256", the token windows
 * that the figures belong to; figures that are not known yet are null, and no digit is rounded away.
 *
 * A file is somebody else's word: names, shapes and hashes must fit the model at hand, and every figure must
 * be one. */
#include "loss_table.h"

#include "formats/json.h"
#include "libquant/base/clock.h"
#include "libquant/base/sha256.h"
#include "formats/output/text_file.h"

#include <math.h>
#include <string.h>
#include <unistd.h>

#define VERSION 1

static void put_hash(struct json_writer *w, const char *key, const char *hash)
{
    jw_key(w, key);
    jw_string(w, hash[0] ? hash : NULL);
}

static void put_tensor(struct json_writer *w, const struct loss_tensor *t, bool fast)
{
    jw_object(w);
    jw_key(w, "name");
    jw_string(w, t->tensor->name);
    jw_key(w, "shape");
    jw_array(w);
    for (uint32_t d = t->tensor->n_dims; d > 0; d--)
        jw_uint(w, t->tensor->ne[d - 1]);
    jw_end(w);
    jw_key(w, "options");
    jw_array(w);
    for (size_t i = 0; i < t->n_options; i++) {
        const struct loss_option *o = &t->options[i];
        if (o->type == t->tensor->type)
            continue;
        jw_object(w);
        jw_key(w, "type");
        jw_string(w, qtype_name(o->type));
        jw_key_double(w, "proxy", o->proxy);
        if (fast)
            jw_key_double(w, "local", o->local);
        jw_key_double(w, "kld", o->kld);
        jw_key_double(w, "kld_stderr", o->kld_stderr);
        jw_key_double(w, "loss", o->loss);
        jw_end(w);
    }
    jw_end(w);
    jw_end(w);
}

static const char *probe_name(enum loss_probe probe)
{
    return probe == LOSS_PROBE_FAST ? "fast" : "full";
}

static void put_depths(struct json_writer *w, const struct loss_table *t)
{
    jw_key(w, "depths");
    jw_array(w);
    for (size_t i = 0; i < t->n_depths; i++) {
        jw_object(w);
        jw_key_uint(w, "layer", t->depths[i].layer);
        jw_key_double(w, "local", t->depths[i].local);
        jw_key_double(w, "kld", t->depths[i].kld);
        jw_key_double(w, "kld_stderr", t->depths[i].kld_stderr);
        jw_end(w);
    }
    jw_end(w);
    jw_key(w, "massive");
    jw_array(w);
    for (size_t i = 0; i < t->n_massive; i++)
        jw_uint(w, t->massive[i]);
    jw_end(w);
}

/* windows_sha256: of a state, NULL for a whole table. */
static int save(const struct loss_table *t, const char *windows_sha256, const char *path, bool overwrite,
                struct err *e)
{
    struct text_file f;
    struct json_writer w;
    int rc = text_file_begin(&f, path, e);
    if (rc != 0)
        return rc;
    jw_begin(&w, f.out);
    jw_object(&w);
    jw_key_uint(&w, "kerf_loss_table", VERSION);
    if (windows_sha256) {
        jw_key(&w, "partial");
        jw_bool(&w, true);
        put_hash(&w, "windows_sha256", windows_sha256);
    }
    put_hash(&w, "weights_sha256", t->weights_sha256);
    put_hash(&w, "imatrix_sha256", t->imatrix_sha256);
    put_hash(&w, "ids_sha256", t->ids_sha256);
    jw_key_uint(&w, "ctx", t->ctx);
    jw_key_uint(&w, "n_windows", t->n_windows);
    jw_key_uint(&w, "n_scored", t->n_scored);
    jw_key(&w, "activations");
    jw_string(&w, t->activations == ACTIVATIONS_Q8 ? "q8" : "f32");
    jw_key(&w, "probe");
    jw_string(&w, probe_name(t->probe));
    if (t->probe == LOSS_PROBE_FAST)
        put_depths(&w, t);
    jw_key(&w, "tensors");
    jw_array(&w);
    for (size_t i = 0; i < t->n_tensors; i++)
        put_tensor(&w, &t->tensors[i], t->probe == LOSS_PROBE_FAST);
    jw_end(&w);
    jw_end(&w);
    return text_file_end(&f, 0, overwrite, e);
}

int loss_table_save(const struct loss_table *t, const char *path, bool overwrite, struct err *e)
{
    return save(t, NULL, path, overwrite, e);
}

/* --- the state of a run --- */

/* Tokens, which of them are scored, and how products round. */
static void hash_windows(const struct loss_table *t, const struct windows *w, char out[65])
{
    const uint64_t numbers[] = {w->ctx, w->n, w->first, w->end, t->activations, t->probe};
    const size_t n = sizeof numbers / sizeof *numbers - (t->probe == LOSS_PROBE_FULL); /* as ever */
    struct sha256 s;
    sha256_init(&s);
    sha256_update(&s, numbers, n * sizeof *numbers);
    sha256_update(&s, w->inputs, w->n * w->ctx * sizeof *w->inputs);
    sha256_update(&s, w->targets, w->n * windows_n_scored(w) * sizeof *w->targets);
    sha256_final_hex(&s, out);
}

static bool knows_any(const struct loss_table *t)
{
    for (size_t i = 0; i < t->n_tensors; i++)
        for (size_t o = 0; o < t->tensors[i].n_options; o++)
            if (t->tensors[i].options[o].type != t->tensors[i].tensor->type &&
                isfinite(t->tensors[i].options[o].proxy))
                return true;
    return false;
}

int loss_table_keep(struct loss_table *t, const struct windows *w, const struct loss_measure *opt, bool now,
                    struct err *e)
{
    char hash[65];
    size_t n = 0;
    if (!opt->state_path)
        return 0;
    if (t->kept_at == 0)
        t->kept_at = clock_seconds();
    if (!now && clock_seconds() - t->kept_at < opt->state_seconds)
        return 0;
    if (!knows_any(t))
        return 0;
    hash_windows(t, w, hash);
    int rc = save(t, hash, opt->state_path, true, e);
    if (rc != 0)
        return rc;
    t->is_kept = true;
    loss_table_count(t, opt, &t->n_kept, &n);
    t->kept_at = clock_seconds();
    return 0;
}

/* --- reading --- */

static const struct json *find_named(const struct json *array, const char *key, const char *value)
{
    for (const struct json *j = json_first(array); j; j = json_next(j)) {
        const char *s = json_string(json_get(j, key));
        if (s && strcmp(s, value) == 0)
            return j;
    }
    return NULL;
}

/* A number that is at least 0; null is NaN where that is allowed. */
static bool figure(double *out, const struct json *j, bool may_lack)
{
    *out = NAN;
    if (may_lack && (!j || json_is_null(j)))
        return true;
    return json_number(j, out) && isfinite(*out);
}

static int read_option(struct loss_option *o, const struct json *j, bool partial, const char *tensor,
                       struct err *e)
{
    struct loss_option r = *o;
    if (!figure(&r.proxy, json_get(j, "proxy"), partial) || !figure(&r.local, json_get(j, "local"), true) ||
        !figure(&r.kld, json_get(j, "kld"), true) ||
        !figure(&r.kld_stderr, json_get(j, "kld_stderr"), true) ||
        !figure(&r.loss, json_get(j, "loss"), partial) || r.proxy < 0 || r.loss < 0)
        return err_set(e, ERR_FORMAT, "tensor '%s', %s: a figure is missing, negative or not a number",
                       tensor, qtype_name(o->type));
    *o = r;
    return 0;
}

static bool same_shape(const struct model_tensor *t, const struct json *shape)
{
    const struct json *j = json_first(shape);
    for (uint32_t d = t->n_dims; d > 0; d--, j = json_next(j)) {
        uint64_t n = 0;
        if (!json_uint(j, &n) || n != t->ne[d - 1])
            return false;
    }
    return j == NULL;
}

static int read_tensor(struct loss_tensor *t, const struct json *j, bool partial, struct err *e)
{
    const char *name = t->tensor->name;
    if (!j)
        return err_set(e, ERR_ARG, "has no losses of tensor '%s'; measure again", name);
    if (!same_shape(t->tensor, json_get(j, "shape")))
        return err_set(e, ERR_ARG, "tensor '%s' has another shape; the table belongs to another model", name);
    for (size_t i = 0; i < t->n_options; i++) {
        if (t->options[i].type == t->tensor->type)
            continue;
        const struct json *o = find_named(json_get(j, "options"), "type", qtype_name(t->options[i].type));
        if (!o && partial)
            continue;
        if (!o)
            return err_set(
                e, ERR_ARG,
                "tensor '%s' was not measured as %s; measure again with this type, or leave it out "
                "of --types",
                name, qtype_name(t->options[i].type));
        int rc = read_option(&t->options[i], o, partial, name, e);
        if (rc != 0)
            return rc;
    }
    return 0;
}

/* Of fast probes. A table works without them: they explain it. */
static void read_depths(struct loss_table *t, const struct json *root)
{
    uint64_t layer = 0;
    t->n_depths = t->n_massive = 0;
    for (const struct json *j = json_first(json_get(root, "depths")); j && t->n_depths < LOSS_MAX_DEPTHS;
         j = json_next(j)) {
        struct loss_depth d = {0};
        if (!json_uint(json_get(j, "layer"), &layer) || layer > UINT32_MAX ||
            !figure(&d.local, json_get(j, "local"), true) || !figure(&d.kld, json_get(j, "kld"), true) ||
            !figure(&d.kld_stderr, json_get(j, "kld_stderr"), true))
            continue;
        d.layer = (uint32_t)layer;
        t->depths[t->n_depths++] = d;
    }
    for (const struct json *j = json_first(json_get(root, "massive")); j && t->n_massive < LOSS_MAX_MASSIVE;
         j = json_next(j))
        if (json_uint(j, &layer) && layer <= UINT32_MAX)
            t->massive[t->n_massive++] = (uint32_t)layer;
}

/* A whole table says how it was measured; a state must have been begun as this run measures. */
static int read_probe(struct loss_table *t, const struct json *root, bool partial, struct err *e)
{
    const char *name = json_string(json_get(root, "probe"));
    enum loss_probe probe = name && strcmp(name, "fast") == 0 ? LOSS_PROBE_FAST : LOSS_PROBE_FULL;
    if (name && strcmp(name, probe_name(probe)) != 0)
        return err_set(e, ERR_UNSUPPORTED, "measured with '%s' probes, expected fast or full", name);
    if (partial && probe != t->probe)
        return err_set(e, ERR_ARG, "begun with %s probes, not %s", probe_name(probe), probe_name(t->probe));
    t->probe = probe;
    return 0;
}

static int check_hash(const struct json *root, const char *key, const char *want, const char *what,
                      bool partial, struct err *e)
{
    const char *found = json_string(json_get(root, key));
    if (strcmp(found ? found : "", want) != 0)
        return err_set(e, ERR_ARG, "made for %s (%.12s..., at hand %.12s...)%s", what, found ? found : "none",
                       want[0] ? want : "none", partial ? "" : "; measure again into another file");
    return 0;
}

static void read_counts(struct loss_table *t, const struct json *root)
{
    uint64_t n = 0;
    const char *ids = json_string(json_get(root, "ids_sha256"));
    t->ctx = json_uint(json_get(root, "ctx"), &n) ? (size_t)n : 0;
    t->n_windows = json_uint(json_get(root, "n_windows"), &n) ? (size_t)n : 0;
    t->n_scored = json_uint(json_get(root, "n_scored"), &n) ? (size_t)n : 0;
    if (ids && strlen(ids) == 64)
        memcpy(t->ids_sha256, ids, 65);
}

/* windows_sha256: a state of these windows is expected; NULL: a whole table. */
static int read_table(struct loss_table *t, const struct json *root, const char *windows_sha256,
                      struct err *e)
{
    const bool partial = windows_sha256 != NULL;
    uint64_t version = 0;
    if (!json_uint(json_get(root, "kerf_loss_table"), &version))
        return err_set(e, ERR_FORMAT, "not a loss table");
    if (version != VERSION)
        return err_set(e, ERR_UNSUPPORTED, "loss table version %llu, expected %d",
                       (unsigned long long)version, VERSION);
    bool is_partial = false;
    json_bool(json_get(root, "partial"), &is_partial);
    if (is_partial != partial)
        return err_set(e, ERR_ARG,
                       partial ? "a whole table, expected what a stopped run has kept"
                               : "what a stopped run has kept, expected a whole table; let that run go on");
    int rc = check_hash(root, "weights_sha256", t->weights_sha256, "other weights", partial, e);
    if (rc == 0)
        rc = check_hash(root, "imatrix_sha256", t->imatrix_sha256, "another importance matrix", partial, e);
    if (rc == 0)
        rc = read_probe(t, root, partial, e);
    if (rc == 0 && partial)
        rc = check_hash(root, "windows_sha256", windows_sha256, "another text or other windows of it",
                        partial, e);
    const struct json *list = json_get(root, "tensors"), *at = json_first(list);
    for (size_t i = 0; rc == 0 && i < t->n_tensors; i++) {
        const char *name = json_string(json_get(at, "name")); /* usually in the same order */
        bool next = name && strcmp(name, t->tensors[i].tensor->name) == 0;
        rc = read_tensor(&t->tensors[i], next ? at : find_named(list, "name", t->tensors[i].tensor->name),
                         partial, e);
        at = json_next(at);
    }
    if (rc == 0)
        read_counts(t, root);
    if (rc == 0)
        read_depths(t, root);
    return rc;
}

int loss_table_load(struct loss_table *t, const char *path, struct err *e)
{
    struct json_doc *doc = NULL;
    int rc = json_load(&doc, path, 0, e);
    if (rc != 0)
        return rc;
    rc = read_table(t, json_root(doc), NULL, e);
    json_free(doc);
    return rc ? err_context(e, rc, "%s", path) : 0;
}

static void forget(struct loss_table *t)
{
    for (size_t i = 0; i < t->n_tensors; i++)
        for (size_t o = 0; o < t->tensors[i].n_options; o++) {
            struct loss_option *p = &t->tensors[i].options[o];
            p->proxy = p->loss = p->type == t->tensors[i].tensor->type ? 0 : NAN;
            p->kld = p->kld_stderr = p->local = NAN;
        }
    t->n_depths = t->n_massive = 0;
}

int loss_table_continue(enum loss_kept *kept, struct loss_table *t, const char *state_path,
                        const struct windows *w, struct err *why)
{
    struct json_doc *doc = NULL;
    uint64_t version;
    char hash[65];
    *kept = LOSS_KEPT_NOTHING;
    if (access(state_path, F_OK) != 0)
        return 0;
    int rc = json_load(&doc, state_path, 0, why);
    if (rc != 0 && rc != ERR_FORMAT)
        return rc;
    const bool ours = rc == 0 && json_uint(json_get(json_root(doc), "kerf_loss_table"), &version);
    if (rc == 0) {
        hash_windows(t, w, hash);
        rc = read_table(t, json_root(doc), hash, why);
        err_context(why, rc, "%s", state_path);
    }
    *kept = rc == 0 ? LOSS_KEPT_TAKEN : ours ? LOSS_KEPT_UNFIT : LOSS_KEPT_STRANGE;
    if (rc != 0)
        forget(t);
    json_free(doc);
    return 0;
}
