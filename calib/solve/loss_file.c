/* loss_file.c - loss tables as files: JSON, so that other programs may read or make them.
 *
 *     {"kerf_loss_table": 1, "weights_sha256": ..., "imatrix_sha256": ... or null, "ids_sha256": ...,
 *      "ctx": 512, "n_windows": 8, "n_scored": 2040,
 *      "tensors": [{"name": ..., "shape": [...],
 *                   "options": [{"type": "Q2_K", "proxy": ..., "kld": ... or null, "kld_stderr": ..., "loss":
 * ...}]}]}
 *
 * A file is somebody else's word: names, shapes and hashes must fit the model at hand, and every figure must
 * be one. */
#include "loss_table.h"

#include "formats/json.h"
#include "libquant/base/textfile.h"

#include <math.h>
#include <string.h>

#define VERSION 1

static void put_hash(struct json_writer *w, const char *key, const char *hash)
{
    jw_key(w, key);
    jw_string(w, hash[0] ? hash : NULL);
}

static void put_count(struct json_writer *w, const char *key, uint64_t n)
{
    jw_key(w, key);
    jw_uint(w, n);
}

static void put_figure(struct json_writer *w, const char *key, double v)
{
    jw_key(w, key);
    jw_double(w, v);
}

static void put_tensor(struct json_writer *w, const struct loss_tensor *t)
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
        put_figure(w, "proxy", o->proxy);
        put_figure(w, "kld", o->kld);
        put_figure(w, "kld_stderr", o->kld_stderr);
        put_figure(w, "loss", o->loss);
        jw_end(w);
    }
    jw_end(w);
    jw_end(w);
}

int loss_table_save(const struct loss_table *t, const char *path, bool overwrite, struct err *e)
{
    struct textfile f;
    struct json_writer w;
    int rc = textfile_begin(&f, path, e);
    if (rc != 0)
        return rc;
    jw_begin(&w, f.out);
    jw_object(&w);
    put_count(&w, "kerf_loss_table", VERSION);
    put_hash(&w, "weights_sha256", t->weights_sha256);
    put_hash(&w, "imatrix_sha256", t->imatrix_sha256);
    put_hash(&w, "ids_sha256", t->ids_sha256);
    put_count(&w, "ctx", t->ctx);
    put_count(&w, "n_windows", t->n_windows);
    put_count(&w, "n_scored", t->n_scored);
    jw_key(&w, "tensors");
    jw_array(&w);
    for (size_t i = 0; i < t->n_tensors; i++)
        put_tensor(&w, &t->tensors[i]);
    jw_end(&w);
    jw_end(&w);
    return textfile_end(&f, 0, overwrite, e);
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

static int read_option(struct loss_option *o, const struct json *j, const char *tensor, struct err *e)
{
    struct loss_option r = *o;
    if (!figure(&r.proxy, json_get(j, "proxy"), false) || !figure(&r.kld, json_get(j, "kld"), true) ||
        !figure(&r.kld_stderr, json_get(j, "kld_stderr"), true) ||
        !figure(&r.loss, json_get(j, "loss"), false) || r.proxy < 0 || r.loss < 0)
        return err_set(e, ERR_FORMAT, "tensor '%s', %s: a figure is missing, negative or no number", tensor,
                       qtype_name(o->type));
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

static int read_tensor(struct loss_tensor *t, const struct json *j, struct err *e)
{
    const char *name = t->tensor->name;
    if (!j)
        return err_set(e, ERR_ARG, "nothing about tensor '%s'; measure again", name);
    if (!same_shape(t->tensor, json_get(j, "shape")))
        return err_set(e, ERR_ARG, "tensor '%s' has another shape; the table belongs to another model", name);
    for (size_t i = 0; i < t->n_options; i++) {
        if (t->options[i].type == t->tensor->type)
            continue;
        const struct json *o = find_named(json_get(j, "options"), "type", qtype_name(t->options[i].type));
        if (!o)
            return err_set(
                e, ERR_ARG,
                "tensor '%s' was not measured as %s; measure again with this type, or leave it out "
                "of --types",
                name, qtype_name(t->options[i].type));
        int rc = read_option(&t->options[i], o, name, e);
        if (rc != 0)
            return rc;
    }
    return 0;
}

static int check_hash(const struct json *root, const char *key, const char *want, const char *what,
                      struct err *e)
{
    const char *found = json_string(json_get(root, key));
    if (strcmp(found ? found : "", want) != 0)
        return err_set(e, ERR_ARG,
                       "made for %s (%.12s..., at hand %.12s...); measure again into another file", what,
                       found ? found : "none", want[0] ? want : "none");
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

static int read_table(struct loss_table *t, const struct json *root, struct err *e)
{
    uint64_t version = 0;
    if (!json_uint(json_get(root, "kerf_loss_table"), &version))
        return err_set(e, ERR_FORMAT, "not a loss table");
    if (version != VERSION)
        return err_set(e, ERR_UNSUPPORTED, "loss table version %llu, expected %d",
                       (unsigned long long)version, VERSION);
    int rc = check_hash(root, "weights_sha256", t->weights_sha256, "other weights", e);
    if (rc == 0)
        rc = check_hash(root, "imatrix_sha256", t->imatrix_sha256, "another importance matrix", e);
    const struct json *list = json_get(root, "tensors"), *at = json_first(list);
    for (size_t i = 0; rc == 0 && i < t->n_tensors; i++) {
        const char *name = json_string(json_get(at, "name")); /* usually in the same order */
        bool next = name && strcmp(name, t->tensors[i].tensor->name) == 0;
        rc = read_tensor(&t->tensors[i], next ? at : find_named(list, "name", t->tensors[i].tensor->name), e);
        at = json_next(at);
    }
    if (rc == 0)
        read_counts(t, root);
    return rc;
}

int loss_table_load(struct loss_table *t, const char *path, struct err *e)
{
    struct json_doc *doc = NULL;
    int rc = json_load(&doc, path, 0, e);
    if (rc != 0)
        return rc;
    rc = read_table(t, json_root(doc), e);
    json_free(doc);
    return rc ? err_context(e, rc, "%s", path) : 0;
}
